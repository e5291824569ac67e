//! The HTTP port: `/livez`, `/readyz`, `/metrics`, the keys that events are signed with, and AuthZEN. A call that is meant
//! for the gRPC port gets 415 and a sentence.
//!
//! **Invariant**: only AuthZEN reads a policy and decides.

mod authzen;

use std::sync::Arc;

use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Router, extract::State, routing::get};
use capstan_events::PublicUrl;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::limits::{HTTP_DRAIN_MAX, Limits};
use crate::methods::{Probe, Rpc};
use crate::telemetry::metrics::{self, Format, Metrics};
use crate::transport::foreign;
use crate::transport::http::{Client, LimitedListener};

pub(crate) use authzen::AuthZen;

/// The phase of a server, as `/readyz` reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No policy has been loaded and self-checked yet.
    Starting,
    /// Questions are answered.
    Ready,
    /// The stop signal has come.
    Draining,
}

/// The routes of the HTTP port.
pub(crate) fn router(
    phase: watch::Receiver<Phase>,
    metrics: &Arc<Metrics>,
    jwks: Option<String>,
    (authzen, url): (AuthZen, Option<&PublicUrl>),
) -> Router {
    let registry = Arc::new(metrics::registry(metrics));
    let keys = match jwks {
        Some(jwks) => Router::new().route("/.well-known/jwks.json", get(async || jwks_of(jwks))),
        None => Router::new(),
    };
    keys.route("/metrics", get(scrape))
        .with_state(registry)
        // Liveness means that the runtime still runs tasks. It does not depend on the policy.
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(phase)
        .merge(authzen::router(authzen, url))
        .fallback(other)
}

/// Serves until `stop`. Then waits up to [`HTTP_DRAIN_MAX`] for connections to close: an idle
/// connection would delay the drain.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let listener = LimitedListener::new(listener, &limits);
    let router = router.into_make_service_with_connect_info::<Client>();
    let serving =
        axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    tokio::select! {
        served = serving => if let Err(error) = served {
            tracing::error!(%error, "the HTTP listener failed");
        },
        () = async { stop.cancelled().await; sleep(HTTP_DRAIN_MAX).await } => {}
    }
}

/// A request for anything else: not found, or a call for the gRPC port.
async fn other(uri: Uri, headers: HeaderMap) -> Response {
    if is_call(uri.path(), &headers) {
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, foreign::HTTP_PORT.as_str()).into_response();
    }
    StatusCode::NOT_FOUND.into_response()
}

/// Whether a request is a call of gRPC, gRPC-web or Connect, by its path or its content type.
fn is_call(path: &str, headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    let is_of = |known: &str| {
        kind.get(..known.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(known.as_bytes()))
    };
    path.starts_with("/capstan.v1.")
        || Rpc::from_path(path) != Rpc::OTHER
        || Probe::of(path).is_some()
        || is_of("application/grpc")
        || is_of("application/connect+")
}

/// Receivers may keep the keys for five minutes: a key that signs no more stays published for longer.
fn jwks_of(jwks: String) -> impl IntoResponse {
    let kind = (CONTENT_TYPE, "application/jwk-set+json");
    ([kind, (CACHE_CONTROL, "public, max-age=300")], jwks)
}

async fn ready(State(phase): State<watch::Receiver<Phase>>) -> (StatusCode, &'static str) {
    match *phase.borrow() {
        Phase::Ready => (StatusCode::OK, "ok\n"),
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting: loading the policy\n"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

async fn scrape(State(registry): State<Arc<Registry>>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get_all(ACCEPT).iter().filter_map(|one| one.to_str().ok());
    let format = Format::accepted(&accept.collect::<Vec<_>>().join(","));
    // Writing to a string does not fail. Should it fail, an empty response would look like a server
    // without calls.
    match metrics::scrape(&registry, format) {
        Ok(text) => Ok(([(CONTENT_TYPE, format.content_type()), (VARY, "accept")], text)),
        Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}
