//! An allocator that counts the bytes in use, their peak, and the allocations.
//!
//! ```text
//! #[global_allocator]
//! static COUNTING: Counting = Counting::new();
//! ```

#![expect(unsafe_code, reason = "a counting allocator implements `GlobalAlloc`")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator with counters. It counts requested bytes. The overhead of the allocator itself,
/// about a twelfth, is not included.
#[derive(Debug)]
pub struct Counting {
    in_use: AtomicUsize,
    peak: AtomicUsize,
    calls: AtomicUsize,
}

impl Counting {
    /// All counters are zero.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a static needs a constant")]
    pub const fn new() -> Self {
        Self { in_use: AtomicUsize::new(0), peak: AtomicUsize::new(0), calls: AtomicUsize::new(0) }
    }

    /// The bytes in use now, of all threads.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.in_use.load(Relaxed)
    }

    /// The number of allocations, of all threads.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.load(Relaxed)
    }

    /// Runs `work`. Returns its result, and the peak of bytes in use minus the bytes in use before. Other threads
    /// count, too.
    pub fn peak_of<T>(&self, work: impl FnOnce() -> T) -> (T, usize) {
        let before = self.in_use();
        self.peak.store(before, Relaxed);
        let done = work();
        (done, self.peak.load(Relaxed).saturating_sub(before))
    }

    fn add(&self, bytes: usize) {
        let in_use = self.in_use.fetch_add(bytes, Relaxed) + bytes;
        self.peak.fetch_max(in_use, Relaxed);
        self.calls.fetch_add(1, Relaxed);
    }
}

// SAFETY: every call is forwarded unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.add(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.add(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.in_use.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // The system moves large blocks by remapping, so old and new block never exist at the same time.
        self.in_use.fetch_sub(layout.size(), Relaxed);
        self.add(size);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
