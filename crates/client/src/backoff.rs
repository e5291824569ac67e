//! Back-off with jitter: clients that failed together do not retry together.

use std::time::Duration;

use crate::limits::{RETRY_WAIT_MAX, RETRY_WAIT_MIN};

/// The wait before the next attempt, after this many failures in a row: exponential from
/// [`RETRY_WAIT_MIN`] to [`RETRY_WAIT_MAX`], with a jitter of ±50 %.
pub(crate) fn wait(failures: u32) -> Duration {
    let exponential = RETRY_WAIT_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let wait = exponential.min(RETRY_WAIT_MAX);
    uniform(wait / 2, wait * 3 / 2)
}

/// A random duration from `min` to `max`, uniformly distributed. Not for secrets.
pub(crate) fn uniform(min: Duration, max: Duration) -> Duration {
    min + max.saturating_sub(min).mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_within_their_bounds() {
        for failures in [0, 1, 2, 7, 40, u32::MAX] {
            let wait = wait(failures);
            assert!(wait >= RETRY_WAIT_MIN / 2, "{failures}: {wait:?}");
            assert!(wait <= RETRY_WAIT_MAX * 3 / 2, "{failures}: {wait:?}");
        }
        assert!(wait(40) >= RETRY_WAIT_MAX / 2);
        assert!(wait(1) <= RETRY_WAIT_MIN * 3 / 2);
    }
}
