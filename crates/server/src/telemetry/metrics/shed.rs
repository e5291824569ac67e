//! Counts of what a limit refuses.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Metrics, count};

/// The limit that refuses a call or closes a connection, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShedScope {
    /// Calls in flight in the whole server.
    Global,
    /// Calls in flight from one peer.
    Peer,
    /// Management calls, in the whole server or from one peer.
    Management,
    /// Health checks, in the whole server or from one peer.
    Probes,
    /// Bytes held for peers: of a connection, of a peer or in the whole server.
    Bytes,
    /// Calls that would wait too long to be computed.
    Turns,
    /// Secrets from an address from which too many have proved nothing.
    Guesses,
    /// Open connections, in the whole server or from one peer.
    Connections,
}

/// The scopes in their order, by their names.
const NAMES: [&str; 8] =
    ["global", "peer", "management", "probes", "bytes", "turns", "guesses", "connections"];

#[derive(Debug, Default)]
pub(super) struct ShedCounts([AtomicU64; NAMES.len()]);

impl Metrics {
    /// Counts a shed call or connection.
    pub fn shed(&self, scope: ShedScope) {
        if let Some(count) = self.shed.0.get(scope as usize) {
            count.fetch_add(1, Relaxed);
        }
    }
}

impl ShedCounts {
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Calls refused and connections closed because there were too many, by limit.";
        let mut family = encoder.encode_descriptor("shed", help, None, MetricType::Counter)?;
        for (name, shed) in NAMES.iter().zip(&self.0) {
            count(&mut family, [("scope", *name)], shed.load(Relaxed))?;
        }
        Ok(())
    }
}
