//! gzip of single messages, in pieces. Other tasks of the worker run between two pieces.
//!
//! ```text
//! compressed message ─▶ Compressed: its length is known ─▶ Inflating, piece by piece ─▶ plain message
//! answer ─▶ deflated, piece by piece ─▶ compressed answer, or the answer as it is
//! ```
//!
//! A gzip member ends with the length of what was compressed (RFC 1952, section 2.3.1). So a message above the
//! limit is refused before it is decompressed, and the memory of any other is known. A member that has another
//! length than it says is malformed, and is refused as soon as it is longer.
//!
//! tonic could do both. It would decompress a message in one poll, into memory that no budget counts: 4 MiB for each of
//! 2,048 calls, from requests of 4 KiB. And it would compress short answers, too. So tonic sees plain messages only.
//!
//! **Invariants**: a piece takes at most [`GZIP_INPUT_PIECE`] bytes and makes little more than [`GZIP_PIECE`], so its
//! time is bounded whatever the bytes are. A message decompresses into no more memory than its own length says.

use std::collections::VecDeque;
use std::io::{self, Write};

use bytes::{Buf as _, Bytes};
use capstan_proto::frame::{HEADER_BYTES, Header};
use flate2::Compression;
use flate2::write::{GzDecoder, GzEncoder};
use tokio::sync::Semaphore;
use tokio::task::yield_now;

use crate::limits::{COMPRESSED_ANSWER_MIN, GZIP_INPUT_PIECE, GZIP_PIECE};

/// The bytes are not one gzip member, or do not have the length and checksum that it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// How a member begins: its magic number, and deflate as its method (RFC 1952, section 2.3).
const START: [u8; 3] = [0x1f, 0x8b, 8];
/// Bytes of the head and the tail of a member.
const MEMBER_MIN: usize = 18;
/// Bytes that deflate makes of one byte, at most (zlib, "Technical Details").
const DEFLATE_MAX: usize = 1_032;

/// A compressed message, in the parts that have arrived, without the header of its frame.
#[derive(Debug, Default)]
pub(super) struct Compressed {
    parts: VecDeque<Bytes>,
    bytes: usize,
}

/// A message that is being decompressed.
#[derive(Debug)]
pub(super) struct Inflating {
    decoder: GzDecoder<Plain>,
    compressed: Compressed,
}

/// A plain message and the header of its frame, as far as they are known.
#[derive(Debug)]
struct Plain {
    frame: Vec<u8>,
    /// The length of the whole.
    length: usize,
}

impl Compressed {
    /// A message in its frame.
    pub(super) fn of(parts: VecDeque<Bytes>) -> Self {
        let bytes = parts.iter().map(Bytes::len).sum();
        let mut framed = Self { parts, bytes };
        let mut header = HEADER_BYTES;
        while let Some(part) = framed.next_part(header) {
            let taken = part.len();
            framed.took(taken);
            header -= taken;
        }
        framed
    }

    /// The length of the plain message, as the gzip member says.
    ///
    /// # Errors
    ///
    /// It does not begin as a gzip member, or says a length that so few bytes cannot have.
    pub(super) fn plain_bytes(&self) -> Result<usize, Malformed> {
        let first = self.parts.iter().flatten().copied();
        let last = self.parts.iter().rev().flat_map(|part| part.iter().rev()).copied();
        if self.bytes < MEMBER_MIN || !first.take(START.len()).eq(START) {
            return Err(Malformed);
        }
        let length = last.take(4).fold(0, |length: u32, byte| length << 8 | u32::from(byte));
        let length = usize::try_from(length).map_err(|_| Malformed)?;
        if length / DEFLATE_MAX > self.bytes { Err(Malformed) } else { Ok(length) }
    }

    /// Whether it is decompressed in one piece.
    pub(super) fn is_short(&self) -> bool {
        self.bytes <= GZIP_INPUT_PIECE
            && self.plain_bytes().is_ok_and(|plain_bytes| plain_bytes <= GZIP_PIECE)
    }

    /// The next bytes, at most this many. `None` if there are none, or none are wanted.
    fn next_part(&self, most: usize) -> Option<&[u8]> {
        let part = self.parts.front()?;
        part.get(..most.min(part.len())).filter(|part| !part.is_empty())
    }

    /// Drops this many bytes of the first part.
    fn took(&mut self, bytes: usize) {
        self.bytes -= bytes;
        if let Some(part) = self.parts.front_mut() {
            part.advance(bytes);
        }
        while self.parts.front().is_some_and(Bytes::is_empty) {
            self.parts.pop_front();
        }
    }
}

impl Inflating {
    /// Reserves memory for the plain message.
    pub(super) fn new(compressed: Compressed) -> Result<Self, Malformed> {
        let message = compressed.plain_bytes()?;
        let length = HEADER_BYTES + message;
        let mut frame = Vec::with_capacity(length);
        frame.push(0);
        frame.extend(u32::try_from(message).map_err(|_| Malformed)?.to_be_bytes());
        Ok(Self { decoder: GzDecoder::new(Plain { frame, length }), compressed })
    }

    /// Decompresses a piece. Returns the plain message in its frame, once it is whole.
    pub(super) fn step(&mut self) -> Result<Option<Bytes>, Malformed> {
        let (mut left, start) = (GZIP_INPUT_PIECE, self.decoder.get_ref().frame.len());
        while left > 0 && self.decoder.get_ref().frame.len() - start <= GZIP_PIECE {
            let Some(part) = self.compressed.next_part(left) else { break };
            match self.decoder.write(part) {
                // Nothing is taken behind the end.
                Ok(0) | Err(_) => return Err(Malformed),
                Ok(taken) => {
                    self.compressed.took(taken);
                    left -= taken;
                }
            }
        }
        // Without another piece for it: a decoder has 40 KiB of its own, which nobody is charged for.
        if self.compressed.bytes == 0 { self.finish().map(Some) } else { Ok(None) }
    }

    fn finish(&mut self) -> Result<Bytes, Malformed> {
        // Compares the checksum and the length.
        self.decoder.try_finish().map_err(|_| Malformed)?;
        let plain = self.decoder.get_mut();
        if plain.frame.len() == plain.length {
            Ok(std::mem::take(&mut plain.frame).into())
        } else {
            Err(Malformed)
        }
    }
}

impl Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.length - self.frame.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.frame.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses a framed message that is longer than [`COMPRESSED_ANSWER_MIN`]. It stays as it is while another one
/// is being compressed, because that takes 300 KiB of memory, or if it would become longer. Bytes that are not one
/// whole message stay, too.
pub(super) async fn deflated(frame: Bytes, turns: &Semaphore) -> Bytes {
    let Some((header, message)) = Header::read(&frame) else { return frame };
    let is_one = header == Header { compressed: false, length: message.len() };
    if !is_one || message.len() <= COMPRESSED_ANSWER_MIN {
        return frame;
    }
    let Ok(_turn) = turns.try_acquire() else { return frame };
    let mut encoder = GzEncoder::new(vec![1; HEADER_BYTES], Compression::fast());
    let mut pieces = message.chunks(GZIP_PIECE);
    while let Some(piece) = pieces.next() {
        if encoder.write_all(piece).is_err() {
            return frame; // A vector takes all.
        }
        if pieces.len() > 0 {
            yield_now().await;
        }
    }
    let Ok(mut compressed) = encoder.finish() else { return frame };
    let length = u32::try_from(compressed.len().saturating_sub(HEADER_BYTES));
    match (length, compressed.first_chunk_mut::<HEADER_BYTES>()) {
        (Ok(length), Some([_, to @ ..])) if (length as usize) < message.len() => {
            *to = length.to_be_bytes();
        }
        _ => return frame,
    }
    compressed.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One gzip member.
    fn gzip(message: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(message).unwrap();
        encoder.finish().unwrap()
    }

    /// The message in a frame, in parts of this many bytes.
    fn parts(member: &[u8], part: usize) -> Compressed {
        let length = u32::try_from(member.len()).unwrap().to_be_bytes();
        let framed = [&[1][..], &length, member].concat();
        Compressed::of(framed.chunks(part).map(Bytes::copy_from_slice).collect())
    }

    /// What becomes of a member, and the number of pieces.
    fn inflated(member: &[u8], part: usize) -> (Result<Bytes, Malformed>, usize) {
        let Ok(mut inflating) = Inflating::new(parts(member, part)) else {
            return (Err(Malformed), 0);
        };
        let mut pieces = 0;
        loop {
            pieces += 1;
            let capacity = inflating.decoder.get_ref().frame.capacity();
            match inflating.step() {
                Ok(None) => {}
                Ok(Some(frame)) => {
                    assert!(capacity <= frame.len(), "{capacity} bytes for {}", frame.len());
                    return (Ok(frame), pieces);
                }
                Err(malformed) => return (Err(malformed), pieces),
            }
        }
    }

    fn words(length: usize) -> Vec<u8> {
        (0..).flat_map(|at: usize| (at * at % 65_521).to_le_bytes()).take(length).collect()
    }

    #[test]
    fn messages_are_decompressed_in_pieces_of_any_parts() {
        for length in [0, 1, 100, GZIP_PIECE, GZIP_PIECE + 1, 20 * GZIP_PIECE] {
            for message in [vec![b'x'; length], words(length)] {
                let member = gzip(&message);
                for part in [1, 3, 4_096, usize::MAX] {
                    let is_short = parts(&member, part).is_short();
                    let (frame, pieces) = inflated(&member, part);
                    let frame = frame.unwrap();
                    let (header, rest) = Header::read(&frame).unwrap();
                    assert_eq!(header, Header { compressed: false, length });
                    assert!(rest == message, "{length} bytes in parts of {part}");
                    // The decoder's own buffer has 32 KiB.
                    let most = member.len() / GZIP_INPUT_PIECE + length / GZIP_PIECE + 2;
                    assert!(pieces <= most && (!is_short || pieces == 1), "{pieces}");
                    assert!(pieces >= length / (GZIP_PIECE + 64 * 1024), "{pieces}");
                }
            }
        }
    }

    #[test]
    fn a_member_of_another_length_or_checksum_is_malformed() {
        let message = vec![b'x'; 3 * GZIP_PIECE];
        let member = gzip(&message);
        let mut other = Vec::new();
        for (at, byte) in [(0, 0), (2, 7), (member.len() - 8, 1), (member.len() - 4, 1)] {
            let mut wrong = member.clone();
            wrong[at] ^= byte + 1;
            other.push(wrong);
        }
        other.extend((0..member.len()).map(|length| member[..length].to_vec()));
        other.push([&member[..], b"x"].concat());
        other.push([&member[..], &member[..]].concat());
        // A member that says less than it has: nothing above that is kept.
        let mut bomb = gzip(&vec![0; 1 << 20]);
        let at = bomb.len() - 4;
        bomb[at..].copy_from_slice(&100_u32.to_le_bytes());
        other.push(bomb);
        for wrong in other {
            assert_eq!(inflated(&wrong, 1_000).0, Err(Malformed), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn only_long_messages_that_become_shorter_are_compressed() {
        let turns = Semaphore::new(1);
        let framed = |message: &[u8]| {
            let length = u32::try_from(message.len()).unwrap().to_be_bytes();
            Bytes::from([&[0][..], &length, message].concat())
        };
        let short = framed(&vec![b'x'; COMPRESSED_ANSWER_MIN]);
        assert_eq!(deflated(short.clone(), &turns).await, short);
        let two = Bytes::from([&short[..], &short[..]].concat());
        assert_eq!(deflated(two.clone(), &turns).await, two, "not one message");
        for length in [COMPRESSED_ANSWER_MIN + 1, 5 * GZIP_PIECE] {
            let long = framed(&vec![b'x'; length]);
            let compressed = deflated(long.clone(), &turns).await;
            let (header, member) = Header::read(&compressed).unwrap();
            assert_eq!(header, Header { compressed: true, length: member.len() });
            assert!(member.len() < length / 10, "{} of {length}", member.len());
            assert_eq!(inflated(member, 500).0.unwrap(), long);
            let _other = turns.acquire().await.unwrap();
            assert_eq!(deflated(long.clone(), &turns).await, long, "another one is compressed");
        }
        let random: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(2_000).collect();
        assert_eq!(deflated(framed(&random), &turns).await, framed(&random));
    }
}
