//! Times that differ from call to call and from server to server.

use std::time::Duration;

/// A random time between 1/`part` below and 1/`part` above `time`, so that what began together does
/// not come back together. Not secret.
pub(crate) fn jittered(time: Duration, part: u32) -> Duration {
    let spread = time / part.max(1);
    time.saturating_sub(spread) + (spread * 2).mul_f64(fastrand::f64())
}
