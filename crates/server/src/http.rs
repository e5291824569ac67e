//! The HTTP port: `/livez`, `/readyz`, `/metrics`, access tokens and the keys that they and events are signed with, and AuthZEN. A call that is meant
//! for the gRPC port gets 415 and a sentence. And the port for probes, which has the first three and the health service.
//!
//! **Invariants**: only AuthZEN reads a policy and decides. The port for probes, which is open to other machines without
//! TLS, tells nothing of a policy but how large it is.

mod authzen;
mod connections;
mod tokens;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{ACCEPT, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Router, body::Body, extract::State, routing::get};
use capstan_events::PublicUrl;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::RequestError;
use crate::limits::{HEALTH_BYTES_MAX, PROBE_METRICS_SHARED};
use crate::methods::{Probe, Rpc};
use crate::telemetry::metrics::{self, Format, Metrics};
use crate::transport::foreign;

pub(crate) use authzen::AuthZen;
pub(crate) use connections::{Protocols, Security, serve};
pub(crate) use tokens::Tokens;

const ONLY_HEALTH: &str = "the calls of this address: it is for probes, and of gRPC it answers health only (see --listen)";

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
    tokens: Option<&Tokens>,
    (authzen, url): (AuthZen, Option<&PublicUrl>),
) -> Router {
    open(phase, metrics, tokens, url).merge(authzen::router(authzen, url)).fallback(other)
}

/// Those of them that tell nothing of a policy.
pub(crate) fn without_decisions(
    phase: watch::Receiver<Phase>,
    metrics: &Arc<Metrics>,
    tokens: Option<&Tokens>,
    url: Option<&PublicUrl>,
) -> Router {
    open(phase, metrics, tokens, url).fallback(other)
}

fn open(
    phase: watch::Receiver<Phase>,
    metrics: &Arc<Metrics>,
    tokens: Option<&Tokens>,
    url: Option<&PublicUrl>,
) -> Router {
    let reports = reports(phase, metrics, Duration::ZERO);
    let Some((tokens, url)) = tokens.zip(url) else { return reports };
    reports.merge(tokens::router(tokens, url))
}

/// The routes of the port for probes.
pub(crate) fn probes(
    phase: watch::Receiver<Phase>,
    metrics: &Arc<Metrics>,
    health: HealthServer<impl Health>,
) -> Router {
    let health = health.max_decoding_message_size(HEALTH_BYTES_MAX);
    reports(phase, metrics, PROBE_METRICS_SHARED)
        .route_service("/grpc.health.v1.Health/{method}", health)
        .fallback(no_probe)
}

fn reports(phase: watch::Receiver<Phase>, metrics: &Arc<Metrics>, shared: Duration) -> Router {
    let scrapes = Scrapes { registry: metrics::registry(metrics), shared, last: Mutex::default() };
    Router::new()
        .route("/metrics", get(scrape))
        .with_state(Arc::new(scrapes))
        // Liveness means that the runtime still runs tasks. It does not depend on the policy.
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(phase)
}

/// A request for anything else: not found, or a call for the gRPC port.
async fn other(uri: Uri, headers: HeaderMap) -> Response {
    if is_call(uri.path(), &headers) {
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, foreign::HTTP_PORT.as_str()).into_response();
    }
    StatusCode::NOT_FOUND.into_response()
}

/// The same at the port for probes. A call of gRPC gets a status, which its client reads.
async fn no_probe(headers: HeaderMap) -> Response {
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    if kind.starts_with(b"application/grpc") {
        return Status::from(RequestError::Unimplemented(ONLY_HEALTH)).into_http::<Body>();
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

async fn ready(State(phase): State<watch::Receiver<Phase>>) -> (StatusCode, &'static str) {
    match *phase.borrow() {
        Phase::Ready => (StatusCode::OK, "ok\n"),
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting: loading the policy\n"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

/// The metrics, and the last answer with them. An answer that is not read is held for as long as its connection lasts, so that
/// peers which read nothing would make the server hold one for each of their requests.
struct Scrapes {
    registry: Registry,
    /// How long an answer is given to others, too.
    shared: Duration,
    last: Mutex<Option<(Instant, Format, Bytes)>>,
}

impl Scrapes {
    fn get(&self, format: Format) -> Result<Bytes, std::fmt::Error> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, of, text)) = &*last
            && *of == format
            && at.elapsed() < self.shared
        {
            return Ok(text.clone());
        }
        let text = Bytes::from(metrics::scrape(&self.registry, format)?);
        *last = Some((Instant::now(), format, text.clone()));
        Ok(text)
    }
}

async fn scrape(State(scrapes): State<Arc<Scrapes>>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get_all(ACCEPT).iter().filter_map(|one| one.to_str().ok());
    let format = Format::accepted(&accept.collect::<Vec<_>>().join(","));
    // Writing to a string does not fail. Should it fail, an empty response would look like a server
    // without calls.
    match scrapes.get(format) {
        Ok(text) => Ok(([(CONTENT_TYPE, format.content_type()), (VARY, "accept")], text)),
        Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}
