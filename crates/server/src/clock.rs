//! The time of a request. It is read once for a call and used for all of it.
//!
//! **Invariant**: the system clock is followed forwards only. If it is set back, the time stands
//! still until the clock has caught up. Otherwise expired bindings and credentials would count
//! again.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use capstan_engine::Timestamp;

/// 2026-01-01T00:00:00Z. The system clock of a machine that runs this is wrong if it shows less.
const EARLIEST_SECONDS: i64 = 1_767_225_600;

/// The latest time that any call has read, in milliseconds since 1970. It is written at most once a
/// millisecond, so cores may share it.
static LATEST: AtomicU64 = AtomicU64::new(0);

/// The source of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// The system clock.
    #[default]
    System,
    /// A fixed time, for questions about another time than now.
    Fixed(Timestamp),
}

impl Clock {
    /// The current time. [`Clock::System`] is monotonic within the process, to 1 ms.
    #[must_use]
    pub fn now(self) -> Timestamp {
        match self {
            // A clock before 1970 reads as 1970.
            Self::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
                forwards(&LATEST, Timestamp::new(seconds, since.subsec_nanos()))
            }
            Self::Fixed(time) => time,
        }
    }

    /// Whether the time can be right. A machine without a battery starts in 1970, where nothing has
    /// expired yet.
    #[must_use]
    pub fn is_plausible(self) -> bool {
        match self {
            Self::System => self.now() >= Timestamp::new(EARLIEST_SECONDS, 0),
            Self::Fixed(_) => true,
        }
    }
}

/// Returns `now`, or the latest time so far if that is later.
fn forwards(latest: &AtomicU64, now: Timestamp) -> Timestamp {
    let milliseconds = u64::try_from(now.seconds()).unwrap_or_default().saturating_mul(1_000)
        + u64::from(now.nanos() / 1_000_000);
    let seen = latest.load(Relaxed);
    if milliseconds > seen {
        latest.fetch_max(milliseconds, Relaxed);
    } else if milliseconds < seen {
        let nanoseconds = u32::try_from(seen % 1_000 * 1_000_000).unwrap_or_default();
        return Timestamp::new(i64::try_from(seen / 1_000).unwrap_or(i64::MAX), nanoseconds);
    }
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_stands_still_while_the_system_clock_is_behind() {
        let latest = AtomicU64::new(0);
        let at = |seconds, nanoseconds| Timestamp::new(seconds, nanoseconds);
        assert_eq!(forwards(&latest, at(1_800_000_000, 5_999_999)), at(1_800_000_000, 5_999_999));
        // Within one millisecond the system clock may go back.
        assert_eq!(forwards(&latest, at(1_800_000_000, 5_000_000)), at(1_800_000_000, 5_000_000));
        for back in [at(1_800_000_000, 4_999_999), at(1_799_999_999, 999_999_999), at(0, 0)] {
            assert_eq!(forwards(&latest, back), at(1_800_000_000, 5_000_000));
        }
        assert_eq!(forwards(&latest, at(1_800_000_001, 7)), at(1_800_000_001, 7));
        assert_eq!(forwards(&latest, at(1_800_000_000, 9)), at(1_800_000_001, 0));
    }

    #[test]
    fn the_system_clock_is_plausible() {
        assert!(Clock::System.is_plausible());
        assert!(Clock::System.now() <= Clock::System.now());
        assert!(Clock::Fixed(Timestamp::UNIX_EPOCH).is_plausible());
    }
}
