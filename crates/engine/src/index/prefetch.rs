//! Prefetch: requests a cache line before it is needed.

/// Requests the cache line of `all[at]` without waiting for it. Out of bounds, nothing happens.
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
#[expect(unsafe_code, reason = "a plain load would wait for memory (docs/PERFORMANCE.md, Batches)")]
#[inline]
pub(crate) fn prefetch<T>(all: &[T], at: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

    if let Some(one) = all.get(at) {
        // SAFETY: prefetch is a hint; it never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(one).cast()) }
    }
}

/// Loads `all[at]` where the processor has no prefetch instruction that stable Rust offers. Out of
/// bounds, nothing happens.
#[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
#[inline]
pub(crate) fn prefetch<T: Copy>(all: &[T], at: usize) {
    std::hint::black_box(all.get(at).copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Also under Miri, which interprets the unsafe line: see `docs/TESTING.md`.
    #[test]
    fn prefetch_takes_any_index() {
        let all = [1u32, 2, 3];
        for at in [0, 2, 3, usize::MAX] {
            prefetch(&all, at);
        }
        prefetch::<u8>(&[], 0);
        assert_eq!(all, [1, 2, 3]);
    }
}
