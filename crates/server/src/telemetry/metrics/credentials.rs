//! Counts of credentials: of callers that were proved or not, of those that may not ask, and of readings of issuers' keys.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Metrics, count};

#[derive(Debug, Default)]
pub(super) struct CredentialCounts {
    proved: AtomicU64,
    refused: AtomicU64,
    keys_read: AtomicU64,
    keys_failed: AtomicU64,
    askers_unknown: AtomicU64,
    askers_without_method: AtomicU64,
}

/// Why somebody may not ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AskerRefusal {
    /// Who asks is not known, or is no caller.
    Unknown,
    /// The method is not among those of the caller.
    Method,
}

impl Metrics {
    /// Counts a credential of a management call or of a caller of decisions, or a token of a request of Envoy.
    pub(crate) fn credential(&self, is_proved: bool) {
        let counts = &self.credentials;
        let count = if is_proved { &counts.proved } else { &counts.refused };
        count.fetch_add(1, Relaxed);
    }

    /// Counts a call of somebody who may not ask.
    pub(crate) fn asker_refused(&self, why: AskerRefusal) {
        let counts = &self.credentials;
        let count = match why {
            AskerRefusal::Unknown => &counts.askers_unknown,
            AskerRefusal::Method => &counts.askers_without_method,
        };
        count.fetch_add(1, Relaxed);
    }

    /// Counts a reading of the keys of an issuer.
    pub(crate) fn keys_read(&self, is_read: bool) {
        let counts = &self.credentials;
        let count = if is_read { &counts.keys_read } else { &counts.keys_failed };
        count.fetch_add(1, Relaxed);
    }
}

impl CredentialCounts {
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Credentials of management calls and of callers of decisions, and tokens of requests of Envoy, by \
                    whether they proved an identity.";
        let mut family =
            encoder.encode_descriptor("credentials", help, None, MetricType::Counter)?;
        count(&mut family, [("outcome", "proved")], self.proved.load(Relaxed))?;
        count(&mut family, [("outcome", "refused")], self.refused.load(Relaxed))?;

        let help = "Calls for decisions that were refused: of nobody who is named, or with a method that the caller has not.";
        let mut family =
            encoder.encode_descriptor("refused_callers", help, None, MetricType::Counter)?;
        count(&mut family, [("reason", "unknown")], self.askers_unknown.load(Relaxed))?;
        count(&mut family, [("reason", "method")], self.askers_without_method.load(Relaxed))?;

        let help = "Readings of the keys of issuers, by how they ended.";
        let mut family =
            encoder.encode_descriptor("issuer_key_reads", help, None, MetricType::Counter)?;
        count(&mut family, [("outcome", "read")], self.keys_read.load(Relaxed))?;
        count(&mut family, [("outcome", "failed")], self.keys_failed.load(Relaxed))
    }
}
