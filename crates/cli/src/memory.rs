//! The allocator of the binary, and how it gives memory back.
//!
//! h2, hyper and prost make dozens of small allocations a call, which take a fifth of a batch's time with glibc's
//! allocator. Without the feature `mimalloc` it is the platform's, which gives memory back by itself.

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Gives memory that this thread and ended threads have freed back to the system. By itself mimalloc keeps it for
/// a second, and until the next call of a thread that happens to notice.
pub(crate) fn give_back() {
    #[cfg(feature = "mimalloc")]
    #[expect(unsafe_code, reason = "a call into C, whose only argument is a number")]
    // SAFETY: the function may be called at any time, from any thread. It moves and frees nothing that is in use.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}
