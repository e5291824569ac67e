//! Sums of products of polynomials, by the processor's instruction for it.

use super::{Fingerprint, Keys};

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::Polynomials;

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::is_x86_feature_detected;
    use std::arch::x86_64::{
        __m128i, _mm_clmulepi64_si128, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_setzero_si128,
        _mm_xor_si128,
    };

    use super::{Fingerprint, Keys};
    use crate::index::hash::{ChunkKeys, halves};

    /// The processor multiplies polynomials. **Invariant**: there is none of these where it does not.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Polynomials(());

    impl Polynomials {
        pub(in crate::index::hash) fn detect() -> Option<Self> {
            is_x86_feature_detected!("pclmulqdq").then_some(Self(()))
        }

        #[expect(
            unsafe_code,
            reason = "40 % fewer instructions for a text (docs/PERFORMANCE.md, Hash)"
        )]
        pub(in crate::index::hash) fn fingerprint(self, keys: &Keys, text: &[u8]) -> Fingerprint {
            // SAFETY: the processor has the instructions, or there would be no `self`.
            unsafe { fingerprint(keys, text) }
        }
    }

    #[target_feature(enable = "pclmulqdq")]
    fn fingerprint(keys: &Keys, text: &[u8]) -> Fingerprint {
        let none = [_mm_setzero_si128(); 2];
        keys.fingerprint(
            text,
            none,
            |sums, chunk, keys| add(sums, chunk, keys),
            |sums| end(keys, sums),
        )
    }

    /// A chunk's products, for each half, added to the sums before: to add is to subtract, and nothing
    /// is carried.
    #[target_feature(enable = "pclmulqdq")]
    fn add([first, second]: [__m128i; 2], chunk: u128, [a, b]: &ChunkKeys) -> [__m128i; 2] {
        let (low, high) = halves(chunk);
        let chunk = vector(low, high);
        let product = |[low, high]: [u64; 2]| {
            let words = _mm_xor_si128(chunk, vector(low, high));
            _mm_clmulepi64_si128::<0x10>(words, words)
        };
        [_mm_xor_si128(first, product(*a)), _mm_xor_si128(second, product(*b))]
    }

    #[target_feature(enable = "pclmulqdq")]
    fn vector(low: u64, high: u64) -> __m128i {
        _mm_set_epi64x(high.cast_signed(), low.cast_signed())
    }

    /// The words of each half's sums times keys, added up in the field of 2⁶⁴ elements, in which x⁶⁴ is
    /// x⁴ + x³ + x + 1.
    #[target_feature(enable = "pclmulqdq")]
    fn end(keys: &Keys, [first, second]: [__m128i; 2]) -> Fingerprint {
        let [a, b] = keys.field_ends;
        let times = |sum, [low, high]: [u64; 2]| {
            let keys = vector(low, high);
            let (low, high) =
                (_mm_clmulepi64_si128::<0x00>(sum, keys), _mm_clmulepi64_si128::<0x11>(sum, keys));
            _mm_xor_si128(low, high)
        };
        let reduced = |product| {
            // Of the upper word three terms are left above the lower, and of those none.
            let modulus = vector(0b1_1011, 0);
            let upper = _mm_clmulepi64_si128::<0x01>(product, modulus);
            let rest = _mm_clmulepi64_si128::<0x01>(upper, modulus);
            let sum = _mm_xor_si128(_mm_xor_si128(product, upper), rest);
            u128::from(_mm_cvtsi128_si64(sum).cast_unsigned())
        };
        Fingerprint(reduced(times(first, a)) << 64 | reduced(times(second, b)))
    }
}

/// Other processors may multiply polynomials; this does not ask them.
#[cfg(not(target_arch = "x86_64"))]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Polynomials {}

#[cfg(not(target_arch = "x86_64"))]
impl Polynomials {
    pub(super) const fn detect() -> Option<Self> {
        None
    }

    pub(super) fn fingerprint(self, _: &Keys, _: &[u8]) -> Fingerprint {
        match self {}
    }
}
