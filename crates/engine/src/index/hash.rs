//! Fingerprints: the index identifies a text by 128 bits computed under random keys.
//!
//! A text is divided into chunks of two 64-bit words. The number of chunks depends only on the size class of
//! the text (up to 16 bytes, 32, 64, …, 1,024): half of them are counted from the start of the text, half from
//! its end, and they meet or overlap in the middle. So there is one branch, on the size class, and none on
//! the exact length.
//!
//! For each chunk, and for the length, a key is added to each word, the two sums are multiplied, and the
//! products are summed: NH (Black, Halevi, Krawczyk, Krovetz and Rogaway, *UMAC: Fast and Secure Message
//! Authentication*, 1999). The two words of the total are multiplied by keys of 128 bits and summed again; the
//! upper half of that sum is one half of the fingerprint (Lemire and Kaser, *Strongly universal string hashing
//! is fast*, 2014). A second set of keys gives the other half.
//!
//! The keys are random and never leave the process. Two different texts that were chosen without
//! knowledge of the keys have one half in common with a probability of at most 2⁻⁶³, and the whole
//! fingerprint with at most 2⁻¹²⁶. So a fingerprint identifies its text, and a check compares
//! fingerprints, which avoids one more cache miss for the text. Debug builds also compare the texts.
//!
//! **Invariant**: no answer contains a fingerprint, a part of one, or anything in the order of
//! fingerprints: an observer could use it to choose colliding texts. Lists are sorted by their texts.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use crate::model::path::{slashes_of, word_of};
use crate::{PATH_BYTES_MAX, PATH_SEGMENTS_MAX};

/// Most bytes of a text that has a fingerprint: those of a path.
pub(crate) const TEXT_BYTES_MAX: usize = PATH_BYTES_MAX;
/// Bytes that are multiplied at a time.
const CHUNK: usize = size_of::<u128>();

/// The random keys of fingerprints. Clones share them.
#[derive(Clone)]
pub(crate) struct Seed(Arc<Keys>);

/// The keys added to the two words of a chunk, for each half of the fingerprint.
type ChunkKeys = [[u64; 2]; 2];

struct Keys {
    /// One for each chunk.
    chunks: [ChunkKeys; TEXT_BYTES_MAX / CHUNK],
    length: ChunkKeys,
    /// One for each half of the fingerprint.
    ends: [End; 2],
}

/// The keys of the last step, for one half of the fingerprint.
#[derive(Clone, Copy)]
struct End {
    start: u128,
    high: u128,
    low: u128,
}

/// Identifies a text of at most [`TEXT_BYTES_MAX`] bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fingerprint(pub(crate) u128);

#[expect(clippy::cast_possible_truncation, reason = "only these bits are wanted")]
impl Fingerprint {
    /// The topmost bits, as a number below 2^`bits`; `bits` is at most 16.
    pub(crate) const fn top(self, bits: u32) -> usize {
        (self.0 >> 112 >> (16 - bits)) as usize
    }

    /// The topmost 32 bits. Fingerprints in order have their ranks in order.
    pub(crate) const fn rank(self) -> u32 {
        (self.0 >> 96) as u32
    }

    /// The 32 bits after the rank.
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

impl End {
    fn of(&self, sum: u128) -> u128 {
        let (low, high) = halves(sum);
        let products = [(self.high, high), (self.low, low)];
        let add = |sum: u128, (key, word): (u128, u64)| {
            sum.wrapping_add(key.wrapping_mul(u128::from(word)))
        };
        products.into_iter().fold(self.start, add) >> 64
    }
}

impl Seed {
    /// New random keys.
    pub(crate) fn random() -> Self {
        let state = RandomState::new();
        let mut at = 0u64;
        let mut word = || {
            at += 1;
            state.hash_one(at)
        };
        let mut chunk = || [[word(), word()], [word(), word()]];
        let (chunks, length) = (std::array::from_fn(|_| chunk()), chunk());
        let mut key = || u128::from(word()) << 64 | u128::from(word());
        let mut end = || End { start: key(), high: key(), low: key() };
        Self(Arc::new(Keys { chunks, length, ends: [end(), end()] }))
    }

    /// The fingerprint of a text of at most [`TEXT_BYTES_MAX`] bytes. Of a longer text, only the
    /// first [`TEXT_BYTES_MAX`] bytes and the length count.
    pub(crate) fn fingerprint(&self, text: &[u8]) -> Fingerprint {
        self.0.fingerprint(text)
    }

    /// The fingerprints of a path and its ancestors, the root first, each with its length.
    pub(crate) fn prefixes(&self, path: &str) -> Prefixes {
        let path = path.as_bytes();
        let (words, rest) = path.as_chunks();
        let mut found = Prefixes::default();
        let words = words.iter().map(|word| u64::from_le_bytes(*word)).chain([word_of(rest)]);
        for (at, word) in words.enumerate() {
            let mut slashes = slashes_of(word);
            while slashes != 0 {
                let end = (at << 3) + (slashes.trailing_zeros() >> 3) as usize;
                found.push(self.fingerprint(path.get(..end).unwrap_or_default()), end);
                slashes &= slashes - 1;
            }
        }
        found.push(self.fingerprint(path), path.len());
        found
    }
}

/// NH: adds the products of a chunk to the sums of both halves.
fn add([first, second]: [u128; 2], chunk: u128, [a, b]: &ChunkKeys) -> [u128; 2] {
    let (low, high) = halves(chunk);
    let product = |[a, b]: [u64; 2]| {
        u128::from(low.wrapping_add(a)).wrapping_mul(u128::from(high.wrapping_add(b)))
    };
    [first.wrapping_add(product(*a)), second.wrapping_add(product(*b))]
}

impl Keys {
    fn fingerprint(&self, text: &[u8]) -> Fingerprint {
        let sums = add([0; 2], text.len() as u128, &self.length);
        let text = text.get(..TEXT_BYTES_MAX).unwrap_or(text);
        let sums = match text.len() {
            0..=16 => self.chunks.first().map_or(sums, |keys| add(sums, short(text), keys)),
            17..=32 => self.halves::<1>(text, sums),
            33..=64 => self.halves::<2>(text, sums),
            65..=128 => self.halves::<4>(text, sums),
            129..=256 => self.halves::<8>(text, sums),
            257..=512 => self.halves::<16>(text, sums),
            _ => self.halves::<32>(text, sums),
        };
        self.end(sums)
    }

    /// Adds `CHUNKS` chunks from the start of a text and as many up to its end.
    #[inline(always)]
    fn halves<const CHUNKS: usize>(&self, text: &[u8], mut sums: [u128; 2]) -> [u128; 2] {
        let ((first, _), (_, last)) = (text.as_chunks::<CHUNK>(), text.as_rchunks::<CHUNK>());
        let (first, last) = (first.first_chunk::<CHUNKS>(), last.last_chunk::<CHUNKS>());
        let (keys, more) = self.chunks.split_at(CHUNKS);
        let (keys, more) = (keys.first_chunk::<CHUNKS>(), more.first_chunk::<CHUNKS>());
        for (half, keys) in [(first, keys), (last, more)] {
            let (Some(half), Some(keys)) = (half, keys) else { continue };
            for (chunk, keys) in half.iter().zip(keys) {
                sums = add(sums, u128::from_le_bytes(*chunk), keys);
            }
        }
        sums
    }

    fn end(&self, [first, second]: [u128; 2]) -> Fingerprint {
        let [a, b] = &self.ends;
        Fingerprint(a.of(first) << 64 | b.of(second))
    }
}

/// A text of at most 16 bytes as one chunk: its first and its last eight bytes, which may overlap; a
/// text of less than eight bytes as one word.
fn short(text: &[u8]) -> u128 {
    if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        return u128::from(u64::from_le_bytes(*first))
            | u128::from(u64::from_le_bytes(*last)) << 64;
    }
    u128::from(word_of(text))
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
    fn each_prefix_has_the_fingerprint_of_its_ancestor() {
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
            let mut ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
            ends.push(path.len());
            let seed = Seed::random();
            let of = |end: &usize| {
                (seed.fingerprint(&path.as_bytes()[..*end]), u16::try_from(*end).unwrap())
            };
            let expected: Vec<_> = ends.iter().map(of).collect();
            assert_eq!(seed.prefixes(path).iter().collect::<Vec<_>>(), expected, "{path}");
        }
    }

    #[test]
    fn the_deepest_path_has_sixteen() {
        let path = vec!["s"; 16].join("/");
        assert_eq!(Seed::random().prefixes(&path).depth, 16);
    }

    /// By the definition of the papers, with a key for every chunk: every chunk counts at every
    /// length.
    #[test]
    fn a_fingerprint_is_the_formula_of_the_papers() {
        let text: Vec<u8> = (1..=251u8).cycle().take(TEXT_BYTES_MAX).collect();
        let seed = Seed::random();
        let keys = &*seed.0;
        for length in 0..=TEXT_BYTES_MAX {
            let text = &text[..length];
            // The bytes that count: of a size class of 32 or more its first and last halves; of 8 to
            // 16 bytes the first and last eight; of fewer all.
            let size = length.next_power_of_two();
            let mut bytes = match length {
                17.. => [&text[..size / 2], &text[length - size / 2..]].concat(),
                8.. => [&text[..8], &text[length - 8..]].concat(),
                _ => text.to_vec(),
            };
            bytes.resize(bytes.len().max(1).next_multiple_of(CHUNK), 0);
            let words: Vec<u64> =
                bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
            let mut chunks: Vec<[u64; 2]> = words.as_chunks().0.to_vec();
            chunks.push([length as u64, 0]);
            let half = |half: usize| {
                let keys_of_chunks =
                    keys.chunks.iter().take(chunks.len() - 1).chain([&keys.length]);
                let sum = chunks.iter().zip(keys_of_chunks).fold(0u128, |sum, ([a, b], keys)| {
                    let [k0, k1] = keys[half];
                    let words = (a.wrapping_add(k0), b.wrapping_add(k1));
                    sum.wrapping_add(u128::from(words.0) * u128::from(words.1))
                });
                let End { start, high, low } = keys.ends[half];
                let mixed = start
                    .wrapping_add(high.wrapping_mul(sum >> 64))
                    .wrapping_add(low.wrapping_mul(sum & u128::from(u64::MAX)));
                mixed >> 64
            };
            assert_eq!(seed.fingerprint(text).0, half(0) << 64 | half(1), "{length}");
        }
    }

    /// A change of any byte, or of the length, changes both halves.
    #[test]
    fn every_byte_and_the_length_count() {
        let seed = Seed::random();
        let mut halves = std::collections::BTreeSet::new();
        let mut count = 0;
        for length in 0..100 {
            let mut text = vec![b'x'; length];
            for at in 0..=length {
                if let Some(byte) = text.get_mut(at) {
                    *byte = b'y';
                }
                let found = seed.fingerprint(&text).0;
                halves.extend([(0, found >> 64), (1, found & u128::from(u64::MAX))]);
                count += 1;
                text.fill(b'x');
            }
        }
        assert_eq!(halves.len(), 2 * count);
    }

    /// Similar names are spread evenly over tags and shards; no two of them, nor of all texts of up
    /// to two bytes, have one half in common; and another seed gives other fingerprints.
    #[test]
    fn similar_names_are_spread() {
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
