//! Bytes of a body that have arrived, in the pieces that they came in.
//!
//! **Invariant**: memory follows the number of bytes, however small the pieces were: each chunk but the last has at
//! least [`CHUNK_MIN`] bytes.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// A piece is added to the last chunk if that is shorter. A frame of 16 KiB stays a chunk of its own, which is
/// never moved.
const CHUNK_MIN: usize = 4 * 1024;

#[derive(Debug, Default)]
pub(super) struct Chunks {
    chunks: VecDeque<BytesMut>,
    bytes: usize,
}

impl Chunks {
    /// The number of bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds bytes at the end.
    pub(super) fn push(&mut self, piece: &[u8]) {
        if piece.is_empty() {
            return;
        }
        self.bytes += piece.len();
        match self.chunks.back_mut() {
            Some(last) if last.len() < CHUNK_MIN => last.extend_from_slice(piece),
            _ => self.chunks.push_back(piece.into()),
        }
    }

    /// Takes the first bytes: at most this many, and none of a second chunk.
    pub(super) fn take(&mut self, most: usize) -> Bytes {
        let Some(first) = self.chunks.front_mut() else { return Bytes::new() };
        let taken = if first.len() > most {
            first.split_to(most)
        } else {
            self.chunks.pop_front().unwrap_or_default()
        };
        self.bytes -= taken.len();
        taken.freeze()
    }

    /// The bytes, from this one on.
    pub(super) fn from(&self, mut skip: usize) -> impl Iterator<Item = u8> {
        // By chunks: by bytes, each chunk of a long message would cost as much as all before it.
        self.chunks.iter().flat_map(move |chunk| {
            let rest = chunk.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(chunk.len());
            rest.iter().copied()
        })
    }

    /// All bytes in one piece.
    pub(super) fn concat(&self) -> Vec<u8> {
        self.chunks.iter().flatten().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_bytes_stay_in_order(
            pieces in prop::collection::vec(0..9_000_usize, 0..12),
            takes in prop::collection::vec(1..20_000_usize, 1..8),
        ) {
            let (mut chunks, mut all) = (Chunks::default(), Vec::new());
            for length in pieces {
                let piece: Vec<u8> =
                    (0..length).map(|at| u8::try_from((all.len() + at) % 251).unwrap()).collect();
                chunks.push(&piece);
                all.extend(piece);
                let most = all.len() / CHUNK_MIN + 1;
                prop_assert!(chunks.chunks.len() <= most, "{} chunks", chunks.chunks.len());
            }
            prop_assert_eq!(chunks.bytes(), all.len());
            prop_assert_eq!(&chunks.concat(), &all);
            let skip = all.len() / 3;
            prop_assert!(chunks.from(skip).take(10).eq(all[skip..].iter().copied().take(10)));
            let mut taken = Vec::new();
            for most in takes.into_iter().cycle() {
                let part = chunks.take(most);
                prop_assert!(part.len() <= most);
                if part.is_empty() {
                    break;
                }
                taken.extend_from_slice(&part);
            }
            prop_assert_eq!(taken, all);
            prop_assert_eq!(chunks.bytes(), 0);
        }
    }

    /// 16,384 pieces of a byte take no more memory than their bytes and a few chunks.
    #[test]
    fn small_pieces_become_few_chunks() {
        let mut chunks = Chunks::default();
        for _ in 0..16_384 {
            chunks.push(b"x");
            chunks.push(b"");
        }
        assert_eq!((chunks.bytes(), chunks.chunks.len()), (16_384, 4));
        let capacity: usize = chunks.chunks.iter().map(BytesMut::capacity).sum();
        assert!(capacity <= 2 * 16_384, "{capacity}");
    }
}
