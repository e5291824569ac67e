//! Facts that servers and clients share beside the schema: limits, metadata keys, revisions.
//!
//! Source: the public contract, sections 5 and 7.

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
}
