//! Random variation of durations, so that clients and servers do not act in step.

use std::time::Duration;

/// A random duration from `time` minus a `part`-th of it to `time` plus a `part`-th of it. The
/// random numbers are not cryptographic.
pub(crate) fn jittered(time: Duration, part: u32) -> Duration {
    let spread = time / part.max(1);
    time.saturating_sub(spread) + (spread * 2).mul_f64(fastrand::f64())
}
