//! Counts of TLS: loads of certificates, and handshakes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{LoadOutcome, Metrics, count};

#[derive(Debug, Default)]
pub(super) struct TlsCounts {
    loads_applied: AtomicU64,
    loads_rejected: AtomicU64,
    handshakes_made: AtomicU64,
    handshakes_failed: AtomicU64,
}

impl Metrics {
    /// Counts a load of the certificates after the first.
    pub(crate) fn tls_loaded(&self, outcome: LoadOutcome) {
        let count = match outcome {
            LoadOutcome::Applied => &self.tls.loads_applied,
            LoadOutcome::Rejected => &self.tls.loads_rejected,
        };
        count.fetch_add(1, Relaxed);
        self.stale[2].store(outcome == LoadOutcome::Rejected, Relaxed);
    }

    /// Counts a handshake.
    pub(crate) fn handshake(&self, is_made: bool) {
        let count = if is_made { &self.tls.handshakes_made } else { &self.tls.handshakes_failed };
        count.fetch_add(1, Relaxed);
    }
}

impl TlsCounts {
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Loads of the certificates of TLS after the first, by how they ended.";
        let mut family = encoder.encode_descriptor("tls_loads", help, None, MetricType::Counter)?;
        count(&mut family, [("outcome", "applied")], self.loads_applied.load(Relaxed))?;
        count(&mut family, [("outcome", "rejected")], self.loads_rejected.load(Relaxed))?;

        let help = "Handshakes of TLS, by how they ended.";
        let mut family =
            encoder.encode_descriptor("tls_handshakes", help, None, MetricType::Counter)?;
        count(&mut family, [("outcome", "made")], self.handshakes_made.load(Relaxed))?;
        count(&mut family, [("outcome", "failed")], self.handshakes_failed.load(Relaxed))
    }
}
