//! One request: admitted, read, answered, counted.
//!
//! **Invariants**: it holds a permit of decisions from its start to its end, has the deadline of a unary call, and is counted
//! once. A panic ends its own request only.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt as _;
use serde::Serialize;
use tokio::time::timeout;
use tonic::{Code, Status};

use super::search::Searching;
use super::{AuthZen, evaluate};
use crate::RequestError;
use crate::ask::Basis;
use crate::askers::Right;
use crate::error::CallError;
use crate::feed::{Current, Freshness};
use crate::limits::SHORT_BODY_MAX;
use crate::methods::Rpc;
use crate::telemetry::metrics::WorkerMetrics;
use crate::transport::http::Client;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// In a request, the lowest revision that may answer; in a response, the one that did.
const REVISION: HeaderName = HeaderName::from_static("capstan-revision");

type Peer = ConnectInfo<Client>;
/// Answers a body, at a revision or that of its page token.
type Answer = fn(&AuthZen, &Asked, &[u8]) -> Result<Answered, RequestError>;

/// What a request is answered with.
struct Asked {
    current: Arc<Current>,
    freshness: Freshness,
    right: Right,
}

/// The revision that answered, and the body.
pub(super) struct Answered {
    revision: u64,
    body: Vec<u8>,
}

pub(super) async fn evaluation(
    State(all): State<AuthZen>,
    peer: Peer,
    request: Request,
) -> Response {
    all.call(Rpc::EVALUATION, peer, request, |all, asked, body| {
        let basis = all.basis(Rpc::EVALUATION, asked);
        json(basis.snapshot.revision(), &evaluate::one(&all.ask, basis, body)?)
    })
    .await
}

pub(super) async fn evaluations(
    State(all): State<AuthZen>,
    peer: Peer,
    request: Request,
) -> Response {
    all.call(Rpc::EVALUATIONS, peer, request, |all, asked, body| {
        let basis = all.basis(Rpc::EVALUATIONS, asked);
        json(basis.snapshot.revision(), &evaluate::many(&all.ask, basis, body)?)
    })
    .await
}

pub(super) async fn search_subject(
    State(all): State<AuthZen>,
    peer: Peer,
    request: Request,
) -> Response {
    all.call(Rpc::SEARCH_SUBJECT, peer, request, |all, asked, body| {
        all.searching(asked).subjects(body)?.answer()
    })
    .await
}

pub(super) async fn search_resource(
    State(all): State<AuthZen>,
    peer: Peer,
    request: Request,
) -> Response {
    all.call(Rpc::SEARCH_RESOURCE, peer, request, |all, asked, body| {
        all.searching(asked).resources(body)?.answer()
    })
    .await
}

pub(super) async fn search_action(
    State(all): State<AuthZen>,
    peer: Peer,
    request: Request,
) -> Response {
    all.call(Rpc::SEARCH_ACTION, peer, request, |all, asked, body| {
        all.searching(asked).actions(body)?.answer()
    })
    .await
}

/// # Errors
///
/// Never: an answer can be written.
pub(super) fn json(revision: u64, answer: &impl Serialize) -> Result<Answered, RequestError> {
    let body = serde_json::to_vec(answer);
    let body = body.map_err(|error| RequestError::bug(&error.to_string()))?;
    Ok(Answered { revision, body })
}

/// Why a request has no answer.
#[derive(Debug)]
enum Failure {
    Request(RequestError),
    Call(CallError),
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl AuthZen {
    fn basis<'a>(&self, rpc: Rpc, asked: &'a Asked) -> Basis<'a> {
        let basis = Basis::new(rpc, &asked.current.snapshot, self.clock.now());
        Basis { within: asked.right.within(), ..basis }
    }

    fn searching<'a>(&'a self, asked: &'a Asked) -> Searching<'a> {
        let Asked { current, freshness, right } = asked;
        let (published, key, now) = (&*self.published, &self.page_key, self.clock.now());
        let (freshness, within) = (*freshness, right.within());
        Searching { published, current, freshness, key, now, within }
    }

    async fn call(self, rpc: Rpc, peer: Peer, request: Request, answer: Answer) -> Response {
        let counted = Counted::new(rpc, self.metrics.clone());
        let id = request.headers().get(REQUEST_ID).cloned();
        let answered = timeout(self.limits.unary_time_max, self.answer(rpc, peer, request, answer));
        let answered = match AssertUnwindSafe(answered).catch_unwind().await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_)) => Err(CallError::DeadlineExceeded.into()),
            Err(_) => {
                self.metrics.panicked();
                Err(RequestError::bug("a request of AuthZEN panicked").into())
            }
        };
        let (code, mut response) = match answered {
            Ok(answered) => (Code::Ok, answered.into_response()),
            Err(failure) => error_of(failure),
        };
        if let Some(id) = id {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        counted.ended(code);
        response
    }

    async fn answer(
        &self,
        rpc: Rpc,
        ConnectInfo(client): Peer,
        request: Request,
        answer: Answer,
    ) -> Result<Answered, Failure> {
        let (mut head, body) = request.into_parts();
        let peer = client.peer();
        head.extensions.insert(client.remote);
        if let Some(certificate) = client.certificate {
            head.extensions.insert(certificate);
        }
        // Nobody who may not ask takes a permit, or makes the server read a body.
        let mut asker = self.askers.asker(&head.extensions, &head.headers);
        asker.let_in()?;
        let _permit = self.permits.for_decision(&self.metrics, peer)?;
        asker.may(rpc).await?;
        let freshness = freshness(&head.headers)?;
        let body = read(&head.headers, body, rpc.request_bytes_max(&self.limits)).await?;
        let current = self.published.read(freshness).await?;
        // The body may have come long after the head.
        let asked = Asked { current, freshness, right: asker.may(rpc).await? };
        let is_search =
            [Rpc::SEARCH_SUBJECT, Rpc::SEARCH_RESOURCE, Rpc::SEARCH_ACTION].contains(&rpc);
        if !is_search && body.len() <= SHORT_BODY_MAX {
            return Ok(answer(self, &asked, &body)?);
        }
        let turn = self.computing.take().await?;
        let all = self.clone();
        let answered = tokio::task::spawn_blocking(move || {
            // Held until the end, also if nobody waits for the answer any more.
            let _turn = turn;
            answer(&all, &asked, &body)
        });
        match answered.await {
            Ok(answered) => Ok(answered?),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => Err(RequestError::Draining.into()),
            },
        }
    }
}

/// # Errors
///
/// The header is no revision.
fn freshness(headers: &HeaderMap) -> Result<Freshness, RequestError> {
    let Some(revision) = headers.get(REVISION) else { return Ok(Freshness::Any) };
    let revision = revision.to_str().ok().and_then(|revision| revision.parse().ok());
    let problem = "expected the number of a revision";
    revision.map(Freshness::AtLeast).ok_or_else(|| RequestError::field(REVISION.as_str(), problem))
}

/// Reads a body of JSON.
///
/// # Errors
///
/// It is not said to be JSON, it is too long, or it breaks off.
async fn read(headers: &HeaderMap, body: Body, bytes_max: usize) -> Result<Bytes, Failure> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(RequestError::field("content-type", "expected application/json").into());
    }
    let too_large = || Failure::Call(CallError::TooLarge { bytes_max });
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if length.and_then(|length| length.parse().ok()).is_some_and(|length: usize| length > bytes_max)
    {
        return Err(too_large());
    }
    to_bytes(body, bytes_max).await.map_err(|error| {
        let is_long = std::error::Error::source(&error)
            .is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
        if is_long {
            return too_large();
        }
        RequestError::field("body", "it broke off").into()
    })
}

impl IntoResponse for Answered {
    fn into_response(self) -> Response {
        let json = HeaderValue::from_static("application/json");
        ([(CONTENT_TYPE, json), (REVISION, self.revision.into())], self.body).into_response()
    }
}

/// The sentence of an error, and its status: 400 for what the caller can correct, 429 and 503 for what may be gone soon.
fn error_of(failure: Failure) -> (Code, Response) {
    let http = match &failure {
        Failure::Request(error) => match error {
            RequestError::Field { .. }
            | RequestError::PageTooOld { .. }
            | RequestError::RevisionGone { .. }
            | RequestError::StoreEpoch { .. } => StatusCode::BAD_REQUEST,
            RequestError::NotReady
            | RequestError::Draining
            | RequestError::RevisionNotAvailable { .. }
            | RequestError::CredentialsWait
            | RequestError::TurnsTaken
            | RequestError::Unreadable => StatusCode::SERVICE_UNAVAILABLE,
            RequestError::GuessesWait => StatusCode::TOO_MANY_REQUESTS,
            RequestError::AuthnFailed => StatusCode::UNAUTHORIZED,
            RequestError::CallerNotAllowed { .. } => StatusCode::FORBIDDEN,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        },
        Failure::Call(CallError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
        Failure::Call(CallError::Overloaded | CallError::DeadlineExceeded) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Failure::Call(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let (text, status): (_, Status) = match failure {
        Failure::Request(error) => (error.to_string(), error.into()),
        Failure::Call(error) => (error.to_string(), error.into()),
    };
    let mut response = (http, text).into_response();
    if http == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"capstan\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    if [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&http) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    (status.code(), response)
}

/// Counts a request when it ends, or when its client has gone.
struct Counted {
    rpc: Rpc,
    metrics: WorkerMetrics,
    started: Instant,
    code: Code,
}

impl Counted {
    fn new(rpc: Rpc, metrics: WorkerMetrics) -> Self {
        Self { rpc, metrics, started: Instant::now(), code: Code::Cancelled }
    }

    fn ended(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.ended(self.rpc, self.code, self.started.elapsed());
    }
}
