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

/// Reports whether changes can be made, until the drain begins or the other end is gone. During the drain they cannot.
async fn report_writable(
    health: HealthReporter,
    mut writable: watch::Receiver<bool>,
    mut phase: watch::Receiver<Phase>,
) {
    loop {
        let is_draining = *phase.borrow_and_update() == Phase::Draining;
        let status = match *writable.borrow_and_update() {
            true if !is_draining => ServingStatus::Serving,
            true | false => ServingStatus::NotServing,
        };
        for service in writing_services() {
            health.set_service_status(service, status).await;
        }
        let changed = async {
            tokio::select! {
                changed = writable.changed() => changed,
                changed = phase.changed() => changed,
            }
        };
        if is_draining || changed.await.is_err() {
            return;
        }
    }
}

/// Sets both reports.
pub(super) struct Readiness {
    health: HealthReporter,
    phase: watch::Sender<Phase>,
    /// Whether the services that make changes are reported: those of a store.
    writes: bool,
}

impl Readiness {
    /// Starts with not ready.
    pub(super) async fn new(health: HealthReporter) -> Self {
        let readiness = Self { health, phase: watch::Sender::new(Phase::Starting), writes: false };
        // The reporter's own start has "" as SERVING.
        readiness.set(Phase::Starting).await;
        readiness
    }

    /// Reports also whether changes can be made, as long as the future runs.
    pub(super) fn report_writable(
        &mut self,
        writable: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + 'static {
        self.writes = true;
        report_writable(self.health.clone(), writable, self.phase())
    }

    pub(super) async fn set(&self, phase: Phase) {
        self.phase.send_replace(phase);
        let status = match phase {
            Phase::Ready => ServingStatus::Serving,
            Phase::Starting | Phase::Draining => ServingStatus::NotServing,
        };
        let writing = writing_services().filter(|_| self.writes && phase == Phase::Draining);
        for name in HEALTH_NAMES.into_iter().chain(writing) {
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

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;
    use tonic::Request;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus::Serving;
    use tonic_health::pb::health_server::Health as _;
    use tonic_health::server::HealthService;

    use super::*;

    async fn is_serving(health: &HealthReporter, service: &str) -> bool {
        let request = Request::new(HealthCheckRequest { service: service.into() });
        let answer = HealthService::from_health_reporter(health.clone()).check(request).await;
        answer.is_ok_and(|answer| answer.get_ref().status == i32::from(Serving))
    }

    /// Clients go to another server before the drain ends their writes.
    #[tokio::test]
    async fn nothing_is_written_during_the_drain() {
        let health = HealthReporter::new();
        let mut readiness = Readiness::new(health.clone()).await;
        let (writable, receiver) = watch::channel(true);
        let reports = TaskTracker::new().spawn(readiness.report_writable(receiver));
        readiness.set(Phase::Ready).await;
        let services: Vec<_> = writing_services().collect();
        assert!(services.len() > 4, "{services:?}");
        for service in &services {
            while !is_serving(&health, service).await {
                tokio::task::yield_now().await;
            }
        }
        readiness.set(Phase::Draining).await;
        for service in HEALTH_NAMES.iter().chain(&services) {
            assert!(!is_serving(&health, service).await, "{service}");
        }
        // Not even if the store works again meanwhile.
        writable.send_replace(true);
        reports.await.unwrap();
        for service in &services {
            assert!(!is_serving(&health, service).await, "{service}");
        }
    }
}
