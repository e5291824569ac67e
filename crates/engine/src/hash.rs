//! The hash of paths: seeded for each snapshot's lineage, and rolling, so that the hashes of a
//! path and of all its ancestors come from one walk.
//!
//! **Invariant**: a hash finds a candidate and never decides: whoever looks up compares the text.
//! The seed keeps anyone who can choose names from choosing collisions.

use std::hash::{BuildHasher as _, RandomState};

use crate::PATH_SEGMENTS_MAX;
use crate::path::{slashes_of, tail};

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

    /// The tag of the ancestor of so many segments more than one, or of the path itself.
    pub(crate) fn tag(&self, below_root: usize) -> Option<u32> {
        self.tags.get(..self.depth)?.get(below_root).copied()
    }

    /// Where the text of the ancestor of so many segments more than one ends, if its tag is this.
    pub(crate) fn end(&self, below_root: usize, tag: u32) -> Option<usize> {
        let (same, end) = (self.tags.get(below_root)?, self.ends.get(below_root)?);
        (*same == tag && below_root < self.depth).then_some(usize::from(*end))
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
        let (words, rest) = text.as_bytes().as_chunks::<8>();
        let [start, ..] = self.0;
        let state = words.iter().fold(start, |state, word| self.step(state, *word));
        self.finish(state, tail(rest), text.len())
    }

    /// The tags of a path and its ancestors.
    pub(crate) fn prefixes(&self, path: &str) -> Prefixes {
        let (words, rest) = path.as_bytes().as_chunks::<8>();
        let mut found = Prefixes::NONE;
        let [mut state, ..] = self.0;
        for (at, word) in words.iter().enumerate() {
            let text = u64::from_le_bytes(*word);
            self.ends(slashes_of(text), state, text, at << 3, &mut found);
            state = self.step(state, *word);
        }
        let text = tail(rest);
        self.ends(slashes_of(text), state, text, words.len() << 3, &mut found);
        found.push(self.finish(state, text, path.len()), path.len());
        found
    }

    /// The tag of what ends at each slash of a word, which stands at this place.
    fn ends(&self, mut slashes: u64, state: u64, word: u64, at: usize, found: &mut Prefixes) {
        while slashes != 0 {
            let bits = slashes.trailing_zeros() & !7;
            let end = at + (bits >> 3) as usize;
            found.push(self.finish(state, word & !(u64::MAX << bits), end), end);
            slashes &= slashes - 1;
        }
    }

    fn step(&self, state: u64, word: [u8; 8]) -> u64 {
        let [_, factor, ..] = self.0;
        fold(state ^ u64::from_le_bytes(word), factor)
    }

    fn finish(&self, state: u64, tail: u64, length: usize) -> Hash {
        let [_, _, mask, factor] = self.0;
        Hash(fold(state ^ tail ^ mask, factor ^ ((length as u64) << 32)))
    }
}

/// Both halves of a product, mixed: every bit of the factors has a part in every bit of it.
#[expect(clippy::cast_possible_truncation, reason = "the halves of a product")]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
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
            let expected: Vec<_> =
                ends.into_iter().map(|end| (seed.hash(&path[..end]).tag(), end)).collect();
            assert_eq!(found.depth, expected.len(), "{path}");
            for (depth, (tag, end)) in expected.iter().enumerate() {
                assert_eq!(found.tag(depth), Some(*tag), "{path}");
                assert_eq!(found.end(depth, *tag), Some(*end), "{path}");
                assert_eq!(found.end(depth, !*tag), None);
            }
            assert_eq!(found.end(expected.len(), 0), None);
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
