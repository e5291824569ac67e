//! Times that differ from client to client: what began together must not come back together.

use std::hash::BuildHasher as _;
use std::time::Duration;

use crate::limits::{RETRY_WAIT_MAX, RETRY_WAIT_MIN};

/// The wait after so many failures in a row: it doubles, give or take a half.
pub(crate) fn wait(failures: u32) -> Duration {
    let doubled = RETRY_WAIT_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let wait = doubled.min(RETRY_WAIT_MAX);
    between(wait / 2, wait * 3 / 2)
}

/// A random time.
pub(crate) fn between(least: Duration, most: Duration) -> Duration {
    let drawn = u32::try_from(random() >> 32).unwrap_or_default();
    least + most.saturating_sub(least).mul_f64(f64::from(drawn) / f64::from(u32::MAX))
}

/// A number that differs from call to call; nothing secret depends on it.
fn random() -> u64 {
    std::hash::RandomState::new().hash_one(0)
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
