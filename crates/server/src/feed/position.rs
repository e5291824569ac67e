//! Where the delivery of a subscription is: the next record of the change log, and what failed.
//!
//! ```text
//! key `d`, then the path of the subscription ─▶ a message
//! ```
//!
//! It is made with the subscription, in one transaction, so that no change after it is missed. Then it is saved beside
//! transactions, five times a second: after a crash some events are delivered again.

use capstan_engine::Path;
use capstan_iam::record::prefix;
use prost::Message as _;

/// Where the delivery of a subscription is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The create revision of the subscription: one that is made again under the same id begins anew.
    pub created: u64,
    /// The number of the next record.
    pub next: u64,
    /// The first event of that record that was not delivered.
    pub event: u32,
    /// Failures in a row.
    pub attempts: u32,
    /// When the first of them was, in milliseconds since 1970.
    pub first_failed_at: u64,
    /// No attempt before this, in milliseconds since 1970.
    pub next_at: u64,
    /// Least milliseconds between two events, as the sink asked for.
    pub interval_millis: u64,
    /// Whether the sink was asked for its consent last: what failed was that, and no delivery.
    pub is_asking: bool,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct PositionRecord {
    #[prost(uint64, tag = "1")]
    created: u64,
    #[prost(uint64, tag = "2")]
    next: u64,
    #[prost(uint32, tag = "3")]
    event: u32,
    #[prost(uint32, tag = "4")]
    attempts: u32,
    #[prost(uint64, tag = "5")]
    first_failed_at: u64,
    #[prost(uint64, tag = "6")]
    next_at: u64,
    #[prost(uint64, tag = "7")]
    interval_millis: u64,
    #[prost(bool, tag = "8")]
    is_asking: bool,
}

impl Position {
    /// Of a subscription that is told of what is in the log from this record on.
    #[must_use]
    pub fn beginning(created: u64, next: u64) -> Self {
        Self { created, next, ..Self::default() }
    }

    /// Its key.
    #[must_use]
    pub fn key(subscription: Path<'_>) -> Vec<u8> {
        [&[prefix::POSITION], subscription.as_str().as_bytes()].concat()
    }

    /// Its value.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let Self {
            created,
            next,
            event,
            attempts,
            first_failed_at,
            next_at,
            interval_millis,
            is_asking,
        } = self;
        let record = PositionRecord {
            created,
            next,
            event,
            attempts,
            first_failed_at,
            next_at,
            interval_millis,
            is_asking,
        };
        record.encode_to_vec()
    }

    /// Reads what [`Self::encode`] made; `None` if it is something else.
    #[must_use]
    pub fn decode(value: &[u8]) -> Option<Self> {
        let record = PositionRecord::decode(value).ok()?;
        let PositionRecord {
            created,
            next,
            event,
            attempts,
            first_failed_at,
            next_at,
            interval_millis,
            is_asking,
        } = record;
        Some(Self {
            created,
            next,
            event,
            attempts,
            first_failed_at,
            next_at,
            interval_millis,
            is_asking,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is kept must be found again by every later version.
    #[test]
    fn a_position_is_read_as_it_was_kept() {
        let position = Position {
            created: 1 << 40 | 7,
            next: 300,
            event: 2,
            attempts: 3,
            first_failed_at: 1_800_000_000_000,
            next_at: 1_800_000_001_000,
            interval_millis: 50,
            is_asking: true,
        };
        let value = position.encode();
        assert_eq!(Position::decode(&value), Some(position));
        let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "0887808080802010ac02180220032880a0f1c2b13430e8a7f1c2b13438324001");
        assert_eq!(Position::decode(b"\xff"), None);
        let key = Position::key(Path::parse("acme/s").unwrap());
        assert_eq!(key, b"dacme/s");
    }
}
