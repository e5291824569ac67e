//! Whether questions can be answered now, as gRPC health and `/readyz` tell it.
//!
//! **Invariant**: nothing says ready before a snapshot has passed its self-check, and everything says not
//! ready before the drain begins.

use tokio::sync::watch;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::http::Phase;

/// gRPC health names that mean ready: loaded and self-checked (contract, section 9).
const HEALTH_NAMES: [&str; 2] = ["", "capstan.v1.DecisionService"];

/// Tells both.
pub(super) struct Readiness {
    health: HealthReporter,
    phase: watch::Sender<Phase>,
}

impl Readiness {
    /// Starting: not ready.
    pub(super) async fn new(health: HealthReporter) -> Self {
        let readiness = Self { health, phase: watch::Sender::new(Phase::Starting) };
        // The reporter starts with "" as SERVING.
        readiness.set(Phase::Starting).await;
        readiness
    }

    pub(super) async fn set(&self, phase: Phase) {
        self.phase.send_replace(phase);
        let status = match phase {
            Phase::Ready => ServingStatus::Serving,
            Phase::Starting | Phase::Draining => ServingStatus::NotServing,
        };
        for name in HEALTH_NAMES {
            self.health.set_service_status(name, status).await;
        }
    }

    /// The phase, for `/readyz`.
    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Ends the health watches of clients, which would hold the drain: they have heard.
    pub(super) async fn end(&self) {
        for name in HEALTH_NAMES {
            self.health.clone().clear_service_status(name).await;
        }
    }
}
