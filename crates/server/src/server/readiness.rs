//! Readiness, as gRPC health and `/readyz` report it.
//!
//! **Invariants**: no report says ready before a snapshot has passed its self-check. Every report
//! says not ready before the drain begins.

use tokio::sync::watch;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::http::Phase;

/// gRPC health names that mean ready: loaded and self-checked (contract, section 9).
const HEALTH_NAMES: [&str; 2] = ["", "capstan.v1.DecisionService"];

/// gRPC health names that mean that changes can be made: the services that make them.
fn writing_services() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    capstan_proto::methods::METHODS.iter().filter(|method| method.writes).filter_map(
        move |method| {
            let service = method.path.trim_start_matches('/').split('/').next()?;
            (std::mem::replace(&mut last, service) != service).then_some(service)
        },
    )
}

/// Reports whether changes can be made, until the other end is gone.
pub(super) async fn report_writable(health: HealthReporter, mut writable: watch::Receiver<bool>) {
    loop {
        let status = match *writable.borrow_and_update() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        for service in writing_services() {
            health.set_service_status(service, status).await;
        }
        if writable.changed().await.is_err() {
            return;
        }
    }
}

/// Sets both reports.
pub(super) struct Readiness {
    health: HealthReporter,
    phase: watch::Sender<Phase>,
}

impl Readiness {
    /// Starts with not ready.
    pub(super) async fn new(health: HealthReporter) -> Self {
        let readiness = Self { health, phase: watch::Sender::new(Phase::Starting) };
        // The reporter's own start has "" as SERVING.
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

    /// Ends the health watches of clients, which would delay the drain. The clients have seen the
    /// last change.
    pub(super) async fn end(&self) {
        for name in HEALTH_NAMES.into_iter().chain(writing_services()) {
            self.health.clone().clear_service_status(name).await;
        }
    }
}
