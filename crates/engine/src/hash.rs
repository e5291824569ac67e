//! The fingerprint of texts: 128 bits by which the index knows them, under keys of its own.
//!
//! NH (Black, Halevi, Krawczyk, Krovetz and Rogaway, *UMAC: Fast and Secure Message Authentication*,
//! 1999): of each chunk of two words, a key is added to either, and the products are summed. What
//! that gives, and the text's length, are multiplied by keys of 128 bits, and the upper half of the sum
//! is half of the fingerprint (Lemire and Kaser, *Strongly universal string hashing is fast*, 2014).
//! Other keys give the other half.
//!
//! The keys are random and never leave the process. Of two different texts that were chosen without
//! knowing them, whatever they are, either half is the same with a probability of at most 2⁻⁶³, and
//! the fingerprint of at most 2⁻¹²⁶: about as often as a random key is guessed. So a fingerprint stands
//! for its text, and a check compares it instead of fetching another line of memory. Debug builds
//! compare the texts, too.
//!
//! **Invariant**: nobody outside sees a fingerprint, a part of one, or anything in the order of them:
//! with such, texts could be chosen after all. Lists are sorted by their texts.
//!
//! Sums go on where they are: one walk over a path gives the fingerprints of all its ancestors.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use crate::path::slashes_of;
use crate::{PATH_BYTES_MAX, PATH_SEGMENTS_MAX};

/// Most bytes of a text that has a fingerprint: those of a path.
pub(crate) const TEXT_BYTES_MAX: usize = PATH_BYTES_MAX;
/// Bytes that are multiplied at a time.
const CHUNK: usize = size_of::<u128>();

/// What fingerprints depend on beside the text.
#[derive(Clone)]
pub(crate) struct Seed(Arc<Keys>);

/// For each half of a fingerprint.
struct Keys {
    /// By chunk.
    words: [[[u64; 2]; 2]; TEXT_BYTES_MAX / CHUNK],
    ends: [End; 2],
}

/// The keys of what is done at the end.
#[derive(Clone, Copy)]
struct End {
    start: u128,
    high: u128,
    low: u128,
    length: u128,
}

/// What a text of at most [`TEXT_BYTES_MAX`] bytes is known by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fingerprint(pub(crate) u128);

/// The sums of a part of a text.
#[derive(Clone, Copy, Debug, Default)]
struct Sums([u128; 2]);

#[expect(clippy::cast_possible_truncation, reason = "a part is wanted")]
impl Fingerprint {
    /// The topmost bits, as a number below 2^`bits`; `bits` is at most 16.
    pub(crate) const fn top(self, bits: u32) -> usize {
        (self.0 >> 112 >> (16 - bits)) as usize
    }

    /// The topmost 32 bits: what comes first in the order of fingerprints.
    pub(crate) const fn rank(self) -> u32 {
        (self.0 >> 96) as u32
    }

    /// The 32 bits after those.
    pub(crate) const fn tag(self) -> u32 {
        (self.0 >> 64) as u32
    }
}

impl fmt::Debug for Seed {
    /// The keys are a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seed").finish_non_exhaustive()
    }
}

impl Sums {
    fn add(self, chunk: u128, keys: &[[u64; 2]; 2]) -> Self {
        let (low, high) = halves(chunk);
        let product = |[a, b]: [u64; 2]| {
            u128::from(low.wrapping_add(a)).wrapping_mul(u128::from(high.wrapping_add(b)))
        };
        let ([first, second], [a, b]) = (self.0, *keys);
        Self([first.wrapping_add(product(a)), second.wrapping_add(product(b))])
    }
}

impl End {
    fn of(&self, sum: u128, length: usize) -> u128 {
        let (low, high) = halves(sum);
        let products = [(self.high, high), (self.low, low), (self.length, length as u64)];
        let add = |sum: u128, (key, word): (u128, u64)| {
            sum.wrapping_add(key.wrapping_mul(u128::from(word)))
        };
        products.into_iter().fold(self.start, add) >> 64
    }
}

impl Seed {
    /// Unlike any other, and not to be guessed.
    pub(crate) fn random() -> Self {
        let state = RandomState::new();
        let mut at = 0u64;
        let mut word = || {
            at += 1;
            state.hash_one(at)
        };
        let words = std::array::from_fn(|_| [[word(), word()], [word(), word()]]);
        let mut key = || u128::from(word()) << 64 | u128::from(word());
        let mut end = || End { start: key(), high: key(), low: key(), length: key() };
        Self(Arc::new(Keys { words, ends: [end(), end()] }))
    }

    /// The fingerprint of a text, which has at most [`TEXT_BYTES_MAX`] bytes: of more, it is of the
    /// first so many and the length.
    pub(crate) fn fingerprint(&self, text: &[u8]) -> Fingerprint {
        let (chunks, rest) = text.as_chunks::<CHUNK>();
        let mut sums = Sums::default();
        for (chunk, keys) in chunks.iter().zip(&self.0.words) {
            sums = sums.add(u128::from_le_bytes(*chunk), keys);
        }
        if let Some((tail, keys)) = self.tail(text, chunks.len(), rest) {
            sums = sums.add(tail, keys);
        }
        self.finish(sums, text.len())
    }

    /// The fingerprints of a path and its ancestors, the root first, each with its length.
    pub(crate) fn prefixes(&self, path: &str) -> Prefixes {
        let path = path.as_bytes();
        let (chunks, rest) = path.as_chunks::<CHUNK>();
        let whole = chunks.iter().map(|chunk| u128::from_le_bytes(*chunk)).zip(&self.0.words);
        let mut found = Prefixes::default();
        let mut sums = Sums::default();
        for (at, (chunk, keys)) in whole.chain(self.tail(path, chunks.len(), rest)).enumerate() {
            self.ends(sums, (chunk, keys), at * CHUNK, &mut found);
            sums = sums.add(chunk, keys);
        }
        found.push(self.finish(sums, path.len()), path.len());
        found
    }

    /// What is left of a text behind so many chunks, if anything is, and its keys.
    fn tail(&self, text: &[u8], chunks: usize, rest: &[u8]) -> Option<(u128, &[[u64; 2]; 2])> {
        let keys = self.0.words.get(chunks).filter(|_| !rest.is_empty())?;
        // The end of the text's last bytes, without a loop; most texts are longer than a chunk.
        let tail = match text.last_chunk() {
            Some(last) => u128::from_le_bytes(*last) >> ((CHUNK - rest.len()) * 8),
            None => rest.iter().rev().fold(0, |all, byte| all << 8 | u128::from(*byte)),
        };
        Some((tail, keys))
    }

    /// The fingerprints of what ends at each slash of a chunk, which stands at this place.
    fn ends(
        &self,
        sums: Sums,
        (chunk, keys): (u128, &[[u64; 2]; 2]),
        at: usize,
        found: &mut Prefixes,
    ) {
        let (low, high) = halves(chunk);
        for (mut slashes, from) in [(slashes_of(low), 0), (slashes_of(high), 64)] {
            while slashes != 0 {
                let bits = from + (slashes.trailing_zeros() & !7);
                let end = at + (bits >> 3) as usize;
                // What ends with the chunk before has nothing of this one.
                let sums = match bits {
                    0 => sums,
                    _ => sums.add(chunk & !(u128::MAX << bits), keys),
                };
                found.push(self.finish(sums, end), end);
                slashes &= slashes - 1;
            }
        }
    }

    fn finish(&self, Sums([first, second]): Sums, length: usize) -> Fingerprint {
        let [a, b] = &self.0.ends;
        Fingerprint(a.of(first, length) << 64 | b.of(second, length))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the halves")]
const fn halves(both: u128) -> (u64, u64) {
    (both as u64, (both >> 64) as u64)
}

/// The fingerprints of a path and of all its ancestors, the root first.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Prefixes {
    found: [(Fingerprint, u16); PATH_SEGMENTS_MAX],
    depth: usize,
}

impl Prefixes {
    fn push(&mut self, fingerprint: Fingerprint, end: usize) {
        if let Some(next) = self.found.get_mut(self.depth) {
            *next = (fingerprint, u16::try_from(end).unwrap_or(u16::MAX));
            self.depth += 1;
        }
    }

    /// The fingerprint of each, and how many bytes it has.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Fingerprint, u16)> {
        self.found.iter().copied().take(self.depth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_what_each_ancestor_has() {
        let seed = Seed::random();
        let full = format!("{}/{}", vec!["y".repeat(127); 7].join("/"), "z".repeat(128));
        for path in [
            "a",
            "a/b",
            "acme/platform/images/nginx",
            "a/bcdefg/h/i/j",
            "0123456/89abcde/g/.-/~.",
            "012345678901234/x",
            "0123456789012345/x",
            "0123456789012345",
            &full,
        ] {
            let found = seed.prefixes(path);
            let mut ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
            ends.push(path.len());
            let of = |end: usize| {
                (seed.fingerprint(&path.as_bytes()[..end]), u16::try_from(end).unwrap())
            };
            let expected: Vec<_> = ends.into_iter().map(of).collect();
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{path}");
        }
    }

    #[test]
    fn the_deepest_path_has_sixteen() {
        let path = vec!["s"; 16].join("/");
        assert_eq!(Seed::random().prefixes(&path).depth, 16);
    }

    /// As it is defined, with keys for every chunk: nothing is left out at any length.
    #[test]
    fn a_fingerprint_is_what_the_papers_say() {
        let seed = Seed::random();
        let text: Vec<u8> = (1..=251u8).cycle().take(TEXT_BYTES_MAX).collect();
        for length in 0..=TEXT_BYTES_MAX {
            let mut padded = text[..length].to_vec();
            padded.resize(length.next_multiple_of(CHUNK), 0);
            let words: Vec<u64> =
                padded.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
            let half = |half: usize| {
                let nh =
                    words.as_chunks().0.iter().zip(&seed.0.words).fold(0u128, |sum, (m, keys)| {
                        let [[a, b], k] = [*m, keys[half]];
                        let product =
                            u128::from(a.wrapping_add(k[0])) * u128::from(b.wrapping_add(k[1]));
                        sum.wrapping_add(product)
                    });
                let End { start, high, low, length: by_length } = seed.0.ends[half];
                let mixed = start
                    .wrapping_add(high.wrapping_mul(nh >> 64))
                    .wrapping_add(low.wrapping_mul(nh & u128::from(u64::MAX)))
                    .wrapping_add(by_length.wrapping_mul(length as u128));
                mixed >> 64
            };
            assert_eq!(seed.fingerprint(&text[..length]).0, half(0) << 64 | half(1), "{length}");
        }
    }

    /// Near names, which a weak hash would put together, spread over tags and shards; no two of them,
    /// nor of all texts of up to two bytes, have half a fingerprint in common; and another seed
    /// puts them elsewhere.
    #[test]
    fn near_names_spread() {
        let (seed, other) = (Seed::random(), Seed::random());
        let names = (0..20_000).map(|at| format!("acme/team-{}/user-{at:06}", at % 7));
        let (mut tags, mut ranks) = (std::collections::BTreeSet::new(), vec![0usize; 64]);
        let mut shards = vec![0usize; 64];
        let mut halves = std::collections::BTreeSet::new();
        let mut count = 0;
        for name in names {
            let found = seed.fingerprint(name.as_bytes());
            tags.insert(found.tag());
            shards[found.top(6)] += 1;
            ranks[(found.rank() >> 26) as usize] += 1;
            halves.extend([(0, found.0 >> 64), (1, found.0 & u128::from(u64::MAX))]);
            count += 1;
            assert_ne!(found, other.fingerprint(name.as_bytes()));
        }
        assert!(tags.len() > 19_990, "{}", tags.len());
        assert_eq!(shards, ranks);
        assert!(shards.iter().all(|count| (180..460).contains(count)), "{shards:?}");
        let bytes = || (0..=255u8).map(|byte| vec![byte]);
        let two =
            bytes().flat_map(|first| bytes().map(move |second| [&first[..], &second].concat()));
        for text in bytes().chain(two).chain([vec![]]) {
            let found = seed.fingerprint(&text).0;
            halves.extend([(0, found >> 64), (1, found & u128::from(u64::MAX))]);
            count += 1;
        }
        assert_eq!(halves.len(), 2 * count);
    }
}
