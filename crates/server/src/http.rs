//! The HTTP side: liveness and readiness.

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::sync::watch;

/// Whether questions can be answered now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    Ready,
    Draining,
}

pub(crate) fn router(phase: watch::Receiver<Phase>) -> Router {
    Router::new()
        // Live means that the event loop turns, whatever the policy's state.
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(phase)
}

async fn ready(State(phase): State<watch::Receiver<Phase>>) -> (StatusCode, &'static str) {
    match *phase.borrow() {
        Phase::Ready => (StatusCode::OK, "ok\n"),
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting: loading the policy\n"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}
