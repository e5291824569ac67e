//! The Authorization API 1.0 of AuthZEN, on the HTTP port: evaluation, evaluations, searches and metadata.
//!
//! ```text
//! POST ─▶ permit, deadline, content type, length ─▶ request: JSON, and which field is wrong
//!            └─▶ names: identity, capability, resource ─▶ evaluate or search ─▶ JSON
//! ```
//!
//! A request that is malformed as a whole is 400 with a sentence. What is malformed or unknown in an entity is a denial
//! (contract, section 9): a decision is never an error.
//!
//! **Invariants**: every answer is of one revision and one time. Decisions come from [`Ask`], as those of gRPC do. URLs in
//! the metadata come from the operator, never from a request.
//!
//! Read `request`, `names`, `evaluate`, `search`, then this file and `call`.

mod call;
mod evaluate;
mod metadata;
mod names;
mod request;
mod search;

use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use capstan_events::PublicUrl;

use crate::admission::AllPermits;
use crate::ask::Ask;
use crate::askers::Askers;
use crate::clock::Clock;
use crate::feed::Published;
use crate::grpc::page::PageKey;
use crate::limits::Limits;
use crate::telemetry::metrics::WorkerMetrics;
use crate::turns::Turns;

/// What the endpoints share.
#[derive(Clone, Debug)]
pub(crate) struct AuthZen {
    pub(crate) published: Arc<Published>,
    pub(crate) ask: Ask,
    /// Knows who may ask.
    pub(crate) askers: Askers,
    pub(crate) clock: Clock,
    pub(crate) page_key: PageKey,
    pub(crate) limits: Limits,
    pub(crate) permits: AllPermits,
    pub(crate) metrics: WorkerMetrics,
    /// Turns of searches and of what is long: each may take milliseconds of a thread.
    pub(crate) computing: Turns,
}

/// The endpoints, at the root and at the path of the public URL, and the metadata if there is such a URL.
pub(super) fn router(authzen: AuthZen, url: Option<&PublicUrl>) -> Router {
    let endpoints = Router::new()
        .route(EVALUATION, post(call::evaluation))
        .route(EVALUATIONS, post(call::evaluations))
        .route(SEARCH_SUBJECT, post(call::search_subject))
        .route(SEARCH_RESOURCE, post(call::search_resource))
        .route(SEARCH_ACTION, post(call::search_action))
        .with_state(authzen);
    let Some(url) = url else { return endpoints };
    let metadata = metadata::router(url);
    match url.path() {
        "" => endpoints.merge(metadata),
        path => endpoints.clone().merge(Router::new().nest(path, endpoints)).merge(metadata),
    }
}

// The default paths (Authorization API 1.0, section "HTTPS JSON Binding").
const EVALUATION: &str = "/access/v1/evaluation";
const EVALUATIONS: &str = "/access/v1/evaluations";
const SEARCH_SUBJECT: &str = "/access/v1/search/subject";
const SEARCH_RESOURCE: &str = "/access/v1/search/resource";
const SEARCH_ACTION: &str = "/access/v1/search/action";
