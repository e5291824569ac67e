//! The hash of paths: seeded for each snapshot's lineage, and rolling, so that the hashes of a
//! path and of all its ancestors come from one walk.
//!
//! **Invariant**: a hash finds a candidate and never decides: whoever looks up compares the text.
//! The seed keeps anyone who can choose names from choosing collisions.

use std::hash::{BuildHasher as _, RandomState};

use crate::PATH_SEGMENTS_MAX;
use crate::path::slashes_of;

/// Bytes that are mixed in at a time.
const CHUNK: usize = 16;

/// What hashes depend on beside the text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed([u64; 4]);

/// The hash of a text. Its low half is kept beside keys; its high bits choose a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hash(u64);

impl Hash {
    /// What is kept of it beside a key.
    #[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
    pub(crate) const fn tag(self) -> u32 {
        self.0 as u32
    }

    /// The topmost bits, as a number below 2^`bits`; `bits` is at most 16.
    pub(crate) const fn top(self, bits: u32) -> usize {
        (self.0 >> 48 >> (16 - bits)) as usize
    }
}

/// The tags of a path and of all its ancestors, the root first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefixes {
    tags: [u32; PATH_SEGMENTS_MAX],
    ends: [u16; PATH_SEGMENTS_MAX],
    depth: usize,
}

impl Prefixes {
    const NONE: Self =
        Self { tags: [0; PATH_SEGMENTS_MAX], ends: [0; PATH_SEGMENTS_MAX], depth: 0 };

    fn push(&mut self, hash: Hash, end: usize) {
        if let (Some(tag), Some(at)) =
            (self.tags.get_mut(self.depth), self.ends.get_mut(self.depth))
        {
            *tag = hash.tag();
            *at = u16::try_from(end).unwrap_or(u16::MAX);
            self.depth += 1;
        }
    }

    /// The tag of each, and how many bytes it has.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u16)> {
        self.tags.iter().copied().zip(self.ends).take(self.depth)
    }
}

impl Seed {
    /// Unlike any other, and not to be guessed.
    pub(crate) fn random() -> Self {
        let state = RandomState::new();
        // Odd factors lose nothing of what they multiply.
        Self([0, 1, 2, 3].map(|at| state.hash_one(at) | 1))
    }

    /// The hash of one text.
    pub(crate) fn hash(&self, text: &str) -> Hash {
        let (chunks, rest) = text.as_bytes().as_chunks::<CHUNK>();
        let [start, ..] = self.0;
        let state = chunks.iter().fold(start, |state, chunk| self.step(state, *chunk));
        // What is left over, without a loop: the end of the text's last bytes.
        let tail = match text.as_bytes().last_chunk::<CHUNK>() {
            Some(_) if rest.is_empty() => 0,
            Some(last) => u128::from_le_bytes(*last) >> ((CHUNK - rest.len()) * 8),
            None => padded(rest),
        };
        self.finish(state, tail, text.len())
    }

    /// The tags of a path and its ancestors.
    pub(crate) fn prefixes(&self, path: &str) -> Prefixes {
        let (chunks, rest) = path.as_bytes().as_chunks::<CHUNK>();
        let mut found = Prefixes::NONE;
        let [mut state, ..] = self.0;
        for (at, chunk) in chunks.iter().enumerate() {
            self.ends(state, u128::from_le_bytes(*chunk), at * CHUNK, &mut found);
            state = self.step(state, *chunk);
        }
        let tail = padded(rest);
        self.ends(state, tail, chunks.len() * CHUNK, &mut found);
        found.push(self.finish(state, tail, path.len()), path.len());
        found
    }

    /// The tag of what ends at each slash of a chunk, which stands at this place.
    fn ends(&self, state: u64, chunk: u128, at: usize, found: &mut Prefixes) {
        let (low, high) = halves(chunk);
        for (slashes, from) in [(slashes_of(low), 0), (slashes_of(high), 64)] {
            let mut slashes = slashes;
            while slashes != 0 {
                let bits = from + (slashes.trailing_zeros() & !7);
                let end = at + (bits >> 3) as usize;
                found.push(self.finish(state, chunk & !(u128::MAX << bits), end), end);
                slashes &= slashes - 1;
            }
        }
    }

    /// A hash of the last sixteen bytes of a text: enough to tell most texts of one length apart.
    #[expect(clippy::cast_possible_truncation, reason = "half of it is wanted")]
    pub(crate) fn ending(&self, text: &[u8]) -> u32 {
        let (low, high) = match (text.last_chunk::<16>(), text.first_chunk(), text.last_chunk()) {
            (Some(last), ..) => halves(u128::from_le_bytes(*last)),
            (None, Some(first), Some(last)) => {
                (u64::from_le_bytes(*first), u64::from_le_bytes(*last))
            }
            _ => halves(padded(text)),
        };
        let [start, factor, ..] = self.0;
        fold(low ^ start, high ^ factor) as u32
    }

    fn step(&self, state: u64, chunk: [u8; CHUNK]) -> u64 {
        let [_, factor, ..] = self.0;
        let (low, high) = halves(u128::from_le_bytes(chunk));
        fold(low ^ factor, high ^ state)
    }

    fn finish(&self, state: u64, tail: u128, length: usize) -> Hash {
        let [_, _, mask, factor] = self.0;
        let (low, high) = halves(tail);
        let mixed = fold(low ^ mask, high ^ state);
        Hash(fold(mixed ^ length as u64, factor))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the halves")]
const fn halves(both: u128) -> (u64, u64) {
    (both as u64, (both >> 64) as u64)
}

/// Less than a chunk, the rest of it zero.
fn padded(bytes: &[u8]) -> u128 {
    bytes.iter().rev().fold(0, |all, byte| all << 8 | u128::from(*byte))
}

/// Both halves of a product, mixed: every bit of the factors has a part in every bit of it.
const fn fold(a: u64, b: u64) -> u64 {
    let (low, high) = halves(a as u128 * b as u128);
    low ^ high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_what_each_ancestor_hashes_to() {
        let seed = Seed::random();
        for path in
            ["a", "a/b", "acme/platform/images/nginx", "a/bcdefg/h/i/j", "0123456/89abcde/g/.-/~."]
        {
            let found = seed.prefixes(path);
            let mut ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
            ends.push(path.len());
            let tag = |end: usize| (seed.hash(&path[..end]).tag(), u16::try_from(end).unwrap());
            let expected: Vec<_> = ends.into_iter().map(tag).collect();
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{path}");
        }
    }

    #[test]
    fn the_deepest_path_has_sixteen() {
        let path = vec!["s"; 16].join("/");
        assert_eq!(Seed::random().prefixes(&path).depth, 16);
    }

    /// Near names, which a weak hash would put together, spread over tags and shards; and another
    /// seed puts them elsewhere.
    #[test]
    fn near_names_spread() {
        let (seed, other) = (Seed::random(), Seed::random());
        let names = (0..20_000).map(|at| format!("acme/team-{}/user-{at:06}", at % 7));
        let mut tags = std::collections::BTreeSet::new();
        let mut shards = vec![0usize; 64];
        let mut elsewhere = 0;
        for name in names {
            let hash = seed.hash(&name);
            tags.insert(hash.tag());
            shards[hash.top(6)] += 1;
            elsewhere += usize::from(hash != other.hash(&name));
        }
        assert!(tags.len() > 19_990, "{}", tags.len());
        assert!(shards.iter().all(|count| (180..460).contains(count)), "{shards:?}");
        assert_eq!(elsewhere, 20_000);
    }
}
