//! The `capstan` binary: see `capstan --help`.

use std::process::ExitCode;

/// Calls allocate dozens of small things in h2, hyper and prost, a fifth of a batch's time with
/// glibc's allocator. Without the feature `mimalloc` it is the platform's.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    capstan::cli::main()
}
