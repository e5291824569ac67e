//! Facts that servers and clients share beside the schema: limits, metadata keys, revisions.
//!
//! Source: the public contract, sections 5 and 7.

use std::time::Duration;

use crate::v1;

/// Most checks in a batch (contract, section 7).
pub const BATCH_CHECKS_MAX: usize = 1_000;

/// The metadata key of a retry push-back: milliseconds to wait, or a negative number for no retry
/// (gRFC A6).
pub const RETRY_PUSHBACK_KEY: &str = "grpc-retry-pushback-ms";

/// The metadata key of a warning: what was asked is done, and there is more to know about it. Visible ASCII.
pub const WARNING_KEY: &str = "capstan-warning";

/// The header that names the compression of the messages that follow (gRPC over HTTP/2).
pub const ENCODING_KEY: &str = "grpc-encoding";

/// The header that names the compressions that are understood.
pub const ACCEPT_ENCODING_KEY: &str = "grpc-accept-encoding";

/// The header of the time that a caller still waits (gRPC over HTTP/2).
pub const TIMEOUT_KEY: &str = "grpc-timeout";

/// The value of [`TIMEOUT_KEY`]: one to eight digits and a unit. `None` if it is none.
#[must_use]
pub fn timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(count * 3_600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// The epoch of a revision: the bits from 40 up (contract, section 5). The bits below are the
/// sequence number.
#[must_use]
pub const fn epoch(revision: u64) -> u64 {
    revision >> 40
}

impl v1::Reason {
    /// The reason in JSON and documents: its name in the schema without `REASON_`.
    #[must_use]
    pub fn word(self) -> &'static str {
        let name = self.as_str_name();
        name.strip_prefix("REASON_").unwrap_or(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_no_prefix_and_a_revision_has_an_epoch() {
        assert_eq!(v1::Reason::CapabilityNotInRole.word(), "CAPABILITY_NOT_IN_ROLE");
        assert_eq!(epoch((3 << 40) + 7), 3);
        assert_eq!(epoch((1 << 40) - 1), 0);
    }

    #[test]
    fn a_timeout_is_up_to_eight_digits_and_a_unit() {
        assert_eq!(timeout(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        assert_eq!(timeout(b"2M"), Some(Duration::from_secs(120)));
        assert_eq!(timeout(b"3S"), Some(Duration::from_secs(3)));
        assert_eq!(timeout(b"4m"), Some(Duration::from_millis(4)));
        assert_eq!(timeout(b"5u"), Some(Duration::from_micros(5)));
        assert_eq!(timeout(b"0n"), Some(Duration::ZERO));
        for malformed in ["", "1", "S", "100000000S", "+1S", "-1S", " 1S", "1s", "1 S", "\u{661}S"]
        {
            assert_eq!(timeout(malformed.as_bytes()), None, "{malformed}");
        }
    }
}
