//! The fingerprint of texts: 128 bits by which the index knows them, under keys of its own.
//!
//! A text is cut into chunks of two words, as many as there would be of the longest of its size (up to 16
//! bytes, 32, 64, …): half of them from its start on, half up to its end, which meet or overlap. So nothing
//! branches on the length but on the size, which is mostly the same.
//!
//! Of each chunk, and of the length, a key is added to either word, and the products are
//! summed: NH (Black, Halevi, Krawczyk, Krovetz and Rogaway, *UMAC: Fast and Secure Message
//! Authentication*, 1999). Where the processor multiplies polynomials over two elements, words are such, which
//! is faster and gives the same (Lemire and Kaser, *Faster 64-bit universal hashing using carry-less
//! multiplications*, 2016). The sum's words are multiplied by keys and summed again: as integers by keys of 128
//! bits, of which the upper half is half of the fingerprint (Lemire and Kaser, *Strongly universal string
//! hashing is fast*, 2014), as polynomials in the field of 2⁶⁴ elements. Other keys give the other half.
//!
//! The keys are random and never leave the process. Of two different texts that were chosen without
//! knowing them, whatever they are, either half is the same with a probability of at most 2⁻⁶³, and
//! the fingerprint of at most 2⁻¹²⁶: about as often as a random key is guessed. So a fingerprint stands
//! for its text, and a check compares it instead of fetching another line of memory. Debug builds
//! compare the texts, too.
//!
//! **Invariant**: nobody outside sees a fingerprint, a part of one, or anything in the order of them:
//! with such, texts could be chosen after all. Lists are sorted by their texts.

mod polynomials;

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use polynomials::Polynomials;

use crate::model::path::{slashes_of, word_of};
use crate::{PATH_BYTES_MAX, PATH_SEGMENTS_MAX};

/// Most bytes of a text that has a fingerprint: those of a path.
pub(crate) const TEXT_BYTES_MAX: usize = PATH_BYTES_MAX;
/// Bytes that are multiplied at a time.
const CHUNK: usize = size_of::<u128>();

/// What fingerprints depend on beside the text.
#[derive(Clone)]
pub(crate) struct Seed(Arc<Keys>);

/// What one chunk's words are added to, for each half of a fingerprint.
type ChunkKeys = [[u64; 2]; 2];

struct Keys {
    /// By chunk.
    chunks: [ChunkKeys; TEXT_BYTES_MAX / CHUNK],
    length: ChunkKeys,
    /// Of integers' sums, and of polynomials'.
    ends: [End; 2],
    #[cfg_attr(
        not(any(target_arch = "x86_64", test)),
        expect(dead_code, reason = "only that kind of processor is asked for polynomials")
    )]
    field_ends: ChunkKeys,
    /// Nothing if the processor has no multiplication of them.
    polynomials: Option<Polynomials>,
}

/// The keys of what is done at the end, for half a fingerprint.
#[derive(Clone, Copy)]
struct End {
    start: u128,
    high: u128,
    low: u128,
}

/// What a text of at most [`TEXT_BYTES_MAX`] bytes is known by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fingerprint(pub(crate) u128);

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
    /// Unlike any other, and not to be guessed.
    pub(crate) fn random() -> Self {
        Self::with(Polynomials::detect())
    }

    /// With this kind of products, which may be slower than the processor allows.
    pub(crate) fn with(polynomials: Option<Polynomials>) -> Self {
        let state = RandomState::new();
        let mut at = 0u64;
        let mut word = || {
            at += 1;
            state.hash_one(at)
        };
        let mut chunk = || [[word(), word()], [word(), word()]];
        let (chunks, length, field_ends) = (std::array::from_fn(|_| chunk()), chunk(), chunk());
        let mut key = || u128::from(word()) << 64 | u128::from(word());
        let mut end = || End { start: key(), high: key(), low: key() };
        Self(Arc::new(Keys { chunks, length, ends: [end(), end()], field_ends, polynomials }))
    }

    /// The fingerprint of a text, which has at most [`TEXT_BYTES_MAX`] bytes: of more, it is of the
    /// first so many and the length.
    pub(crate) fn fingerprint(&self, text: &[u8]) -> Fingerprint {
        match self.0.polynomials {
            Some(polynomials) => polynomials.fingerprint(&self.0, text),
            None => self.0.fingerprint(text, [0; 2], add, |sums| self.0.end(sums)),
        }
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

/// NH: a chunk's products, for each half, added to the sums before.
fn add([first, second]: [u128; 2], chunk: u128, [a, b]: &ChunkKeys) -> [u128; 2] {
    let (low, high) = halves(chunk);
    let product = |[a, b]: [u64; 2]| {
        u128::from(low.wrapping_add(a)).wrapping_mul(u128::from(high.wrapping_add(b)))
    };
    [first.wrapping_add(product(*a)), second.wrapping_add(product(*b))]
}

/// What is the same of both kinds of products, given by the sums of nothing, what adds a chunk's,
/// and what ends them. All is inlined: a function for which the processor is known to multiply
/// polynomials can take in only what is written for any.
impl Keys {
    #[inline(always)]
    fn fingerprint<S: Copy>(
        &self,
        text: &[u8],
        none: S,
        add: impl Fn(S, u128, &ChunkKeys) -> S,
        finish: impl Fn(S) -> Fingerprint,
    ) -> Fingerprint {
        let sums = add(none, text.len() as u128, &self.length);
        let text = text.get(..TEXT_BYTES_MAX).unwrap_or(text);
        finish(match text.len() {
            0..=16 => self.chunks.first().map_or(sums, |keys| add(sums, short(text), keys)),
            17..=32 => self.halves::<1, S>(text, sums, add),
            33..=64 => self.halves::<2, S>(text, sums, add),
            65..=128 => self.halves::<4, S>(text, sums, add),
            129..=256 => self.halves::<8, S>(text, sums, add),
            257..=512 => self.halves::<16, S>(text, sums, add),
            _ => self.halves::<32, S>(text, sums, add),
        })
    }

    /// Adds so many chunks from the start of a text on and as many up to its end.
    #[inline(always)]
    fn halves<const CHUNKS: usize, S: Copy>(
        &self,
        text: &[u8],
        mut sums: S,
        add: impl Fn(S, u128, &ChunkKeys) -> S,
    ) -> S {
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

/// At most a chunk: the first and the last eight bytes, which meet or overlap; of fewer, those that
/// there are.
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

    /// Both kinds of products, as far as the processor has them.
    fn seeds() -> impl Iterator<Item = Seed> {
        let polynomials = Polynomials::detect().map(Some);
        polynomials.into_iter().chain([None]).map(Seed::with)
    }

    #[test]
    fn prefixes_are_what_each_ancestor_has() {
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
            for seed in seeds() {
                let of = |end: &usize| {
                    (seed.fingerprint(&path.as_bytes()[..*end]), u16::try_from(*end).unwrap())
                };
                let expected: Vec<_> = ends.iter().map(of).collect();
                let found = seed.prefixes(path);
                assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{path}");
            }
        }
    }

    #[test]
    fn the_deepest_path_has_sixteen() {
        let path = vec!["s"; 16].join("/");
        assert_eq!(Seed::random().prefixes(&path).depth, 16);
    }

    /// The product of two polynomials over two elements, term by term.
    fn product_of_polynomials(a: u64, b: u64) -> u128 {
        (0..64).filter(|at| b >> at & 1 == 1).fold(0, |sum, at| sum ^ u128::from(a) << at)
    }

    /// The same in the field: whatever has 64 terms or more is reduced by x⁶⁴ + x⁴ + x³ + x + 1.
    fn field_product(a: u64, b: u64) -> u64 {
        let modulus = 1u128 << 64 | 0b1_1011;
        let reduced = (64..128).rev().fold(product_of_polynomials(a, b), |product, at| {
            if product >> at & 1 == 1 { product ^ modulus << (at - 64) } else { product }
        });
        u64::try_from(reduced).unwrap()
    }

    /// As it is defined, with keys for every chunk: nothing is left out at any length.
    #[test]
    fn a_fingerprint_is_what_the_papers_say() {
        let text: Vec<u8> = (1..=251u8).cycle().take(TEXT_BYTES_MAX).collect();
        for seed in seeds() {
            let keys = &*seed.0;
            let polynomials = keys.polynomials.is_some();
            let sum_of = |chunks: &[[u64; 2]], half: usize| {
                let products = chunks
                    .iter()
                    .zip(keys.chunks.iter().take(chunks.len() - 1).chain([&keys.length]));
                products.fold(0u128, |sum, ([a, b], keys)| {
                    let [k0, k1] = keys[half];
                    if polynomials {
                        return sum ^ product_of_polynomials(a ^ k0, b ^ k1);
                    }
                    let words = (a.wrapping_add(k0), b.wrapping_add(k1));
                    sum.wrapping_add(u128::from(words.0) * u128::from(words.1))
                })
            };
            for length in 0..=TEXT_BYTES_MAX {
                let text = &text[..length];
                // Of the text's size, half of the chunks from its start on and half up to its
                // end; of at most a chunk, the words; of less than a word, the bytes.
                let size = length.next_power_of_two();
                let mut bytes = match length {
                    17.. => [&text[..size / 2], &text[length - size / 2..]].concat(),
                    8.. => [&text[..8], &text[length - 8..]].concat(),
                    _ => text.to_vec(),
                };
                bytes.resize(bytes.len().max(1).next_multiple_of(CHUNK), 0);
                let words: Vec<u64> =
                    bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
                let mut chunks = words.as_chunks().0.to_vec();
                chunks.push([length as u64, 0]);
                let half = |half: usize| {
                    let sum = sum_of(&chunks, half);
                    if polynomials {
                        let [low, high] = keys.field_ends[half];
                        let words = halves(sum);
                        return u128::from(
                            field_product(words.0, low) ^ field_product(words.1, high),
                        );
                    }
                    let End { start, high, low } = keys.ends[half];
                    let mixed = start
                        .wrapping_add(high.wrapping_mul(sum >> 64))
                        .wrapping_add(low.wrapping_mul(sum & u128::from(u64::MAX)));
                    mixed >> 64
                };
                assert_eq!(seed.fingerprint(text).0, half(0) << 64 | half(1), "{length}");
            }
        }
    }

    /// Whatever byte of a text changes, and whatever its length, both halves do.
    #[test]
    fn every_byte_and_the_length_count() {
        for seed in seeds() {
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
    }

    /// Near names, which a weak hash would put together, spread over tags and shards; no two of them,
    /// nor of all texts of up to two bytes, have half a fingerprint in common; and another seed
    /// puts them elsewhere.
    #[test]
    fn near_names_spread() {
        seeds().for_each(|seed| near_names_spread_by(&seed));
    }

    fn near_names_spread_by(seed: &Seed) {
        let other = Seed::random();
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
