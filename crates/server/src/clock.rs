//! The time of a request: read once, used for all of it.

use std::time::{SystemTime, UNIX_EPOCH};

use capstan_engine::Timestamp;

/// Where the time comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// Always this: for policies that are asked about another time than now.
    Fixed(Timestamp),
}

impl Clock {
    /// What time it is.
    #[must_use]
    pub fn now(self) -> Timestamp {
        match self {
            // A clock before 1970 reads as 1970.
            Self::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
                Timestamp::new(seconds, since.subsec_nanos())
            }
            Self::Fixed(time) => time,
        }
    }
}
