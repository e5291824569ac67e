//! Memory that will be wanted soon.

/// Asks for the line in which a place of this slice is, and does not wait for it.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "a load in its place is waited for (docs/PERFORMANCE.md, Batches)")]
#[inline]
pub(crate) fn fetch<T>(all: &[T], at: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

    if let Some(one) = all.get(at) {
        // SAFETY: it is a place of a slice; and whatever it were, nothing is read but ahead.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(one).cast()) }
    }
}

/// Reads a place of this slice, which other processors have in common.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(crate) fn fetch<T: Copy>(all: &[T], at: usize) {
    std::hint::black_box(all.get(at).copied());
}
