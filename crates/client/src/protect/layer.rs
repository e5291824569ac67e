//! The layer: a call is decided before the service sees it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use capstan_proto::contract::{TIMEOUT_KEY, timeout};
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::message::first;
use super::revision::{DECIDED_AT, REVISION_KEY};
use super::rules::{Place, Rule, Rules};
use crate::limits::{PROTECTED_BYTES_MAX, PROTECTED_TIME_MAX};
use crate::{Check, Client, Decision, Error};

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    identity: String,
    may_ask_revision: bool,
}

impl Caller {
    /// An identity, by its path. The revision that its calls ask for counts.
    #[must_use]
    pub fn new(identity: impl Into<String>) -> Self {
        Self { identity: identity.into(), may_ask_revision: true }
    }

    /// One whose metadata `capstan-revision` is ignored: for callers that are not services of yours. A revision that is not there
    /// yet makes the call wait.
    #[must_use]
    pub fn without_revision(mut self) -> Self {
        self.may_ask_revision = false;
        self
    }
}

/// Says who calls. `None`: nobody that is known, and the call is refused as UNAUTHENTICATED.
///
/// What it reads must be proved by then: a client certificate, a token that a layer in front has verified, or metadata that a
/// proxy sets and never passes on from outside.
pub trait Identify: Send + Sync + 'static {
    /// Who sent a call with this head.
    fn identify(&self, head: &Parts) -> Option<Caller>;
}

impl<F: Fn(&Parts) -> Option<Caller> + Send + Sync + 'static> Identify for F {
    fn identify(&self, head: &Parts) -> Option<Caller> {
        self(head)
    }
}

/// The layer. Clones share it.
#[derive(Clone)]
pub struct Protect(Arc<Shared>);

struct Shared {
    client: Client,
    rules: Rules,
    identify: Box<dyn Identify>,
}

impl Protect {
    /// A layer that asks with this client.
    #[must_use]
    pub fn new(client: Client, rules: Rules, identify: impl Identify) -> Self {
        Self(Arc::new(Shared { client, rules, identify: Box::new(identify) }))
    }
}

impl std::fmt::Debug for Protect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Protect").field("rules", &self.0.rules).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for Protect {
    type Service = Protected<S>;

    fn layer(&self, inner: S) -> Protected<S> {
        Protected { inner, protect: self.clone() }
    }
}

/// A service behind the layer.
#[derive(Clone, Debug)]
pub struct Protected<S> {
    inner: S,
    protect: Protect,
}

impl<S> Service<Request<Body>> for Protected<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that is ready answers; a clone need not be.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let protect = Arc::clone(&self.protect.0);
        Box::pin(async move {
            match protect.admit(request).await {
                Ok((request, None)) => inner.call(request).await,
                // What the service does before its future is polled has the revision, too.
                Ok((request, Some(at))) => {
                    DECIDED_AT.scope(at, async { inner.call(request).await }).await
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

impl Shared {
    /// Lets a call through, with the revision that decided it; `None` if the method is open.
    async fn admit(&self, request: Request<Body>) -> Result<(Request<Body>, Option<u64>), Status> {
        let rule = self.rules.of(request.uri().path());
        let rule =
            rule.ok_or_else(|| Status::unimplemented("no rule lets this method be called"))?;
        let Rule::Needs { capability, place } = rule else { return Ok((request, None)) };
        let (head, body) = request.into_parts();
        // Before anything is read of somebody who is not known.
        let caller = caller(&*self.identify, &head)?;
        let end = end(&head.headers)?;
        let late = |_| Status::deadline_exceeded("the deadline passed before the call was decided");
        let (resource, body) = match place {
            Place::At(path) => (path.clone(), body),
            Place::Field(field) => {
                let read = timeout_at(end, first(body, PROTECTED_BYTES_MAX)).await;
                let (message, body) = read.map_err(late)??;
                let resource = field.read(&message);
                let resource =
                    resource.map_err(|error| Status::invalid_argument(error.to_string()))?;
                if resource.is_empty() {
                    return Err(Status::invalid_argument(format!("{}: missing", field.name)));
                }
                (resource, body)
            }
        };
        let question = Question { capability, resource: &resource };
        let at = question.ask_for(&self.client, &caller, (&head.headers, end)).await?;
        Ok((Request::from_parts(head, body), Some(at)))
    }
}

/// What a call needs.
pub(super) struct Question<'q> {
    pub(super) capability: &'q str,
    pub(super) resource: &'q str,
}

impl Question<'_> {
    /// Asks whether whoever sent a request with this head may. Returns the revision that decided so.
    ///
    /// # Errors
    ///
    /// The caller is not known or may not, the head is malformed, or there is no decision.
    #[cfg(feature = "axum")]
    pub(super) async fn ask(
        &self,
        client: &Client,
        identify: &dyn Identify,
        head: &Parts,
    ) -> Result<u64, Status> {
        let caller = caller(identify, head)?;
        self.ask_for(client, &caller, (&head.headers, end(&head.headers)?)).await
    }

    async fn ask_for(
        &self,
        client: &Client,
        caller: &Caller,
        (headers, end): (&HeaderMap, Instant),
    ) -> Result<u64, Status> {
        let Self { capability, resource } = *self;
        let mut check = Check::new(&caller.identity, capability, resource);
        if let Some(revision) = asked_revision(headers)?.filter(|_| caller.may_ask_revision) {
            check = check.at_least(revision);
        }
        // Without a deadline of the caller, the client's own counts.
        if headers.contains_key(TIMEOUT_KEY) {
            check = check.timeout(end.saturating_duration_since(Instant::now()));
        }
        let decision = client.check(check).await;
        let Decision { allowed, reason, revision, .. } =
            decision.map_err(|error| status(&error))?;
        if allowed {
            return Ok(revision);
        }
        let reason = reason.word();
        Err(Status::permission_denied(format!("{capability} is required at {resource}: {reason}")))
    }
}

/// # Errors
///
/// Nobody that is known.
fn caller(identify: &dyn Identify, head: &Parts) -> Result<Caller, Status> {
    let caller = identify.identify(head);
    caller.ok_or_else(|| Status::unauthenticated("nobody that is known calls"))
}

/// When a call must be decided.
///
/// # Errors
///
/// The deadline of the caller is malformed.
fn end(headers: &HeaderMap) -> Result<Instant, Status> {
    let time = time_left(headers)?.unwrap_or(PROTECTED_TIME_MAX);
    Ok(Instant::now() + time.min(PROTECTED_TIME_MAX))
}

/// The status of a call without a decision: never one that lets it through.
fn status(error: &Error) -> Status {
    match error {
        Error::DeadlineExceeded(_) => Status::deadline_exceeded(format!("not decided: {error}")),
        Error::Refused(refusal) if refusal.code == Code::InvalidArgument => {
            // The resource is the caller's. An identity or a capability that cannot be asked about is the service's own.
            let is_callers = refusal.message.starts_with("resource");
            let code = if is_callers { Code::InvalidArgument } else { Code::Internal };
            Status::new(code, format!("not decided: {error}"))
        }
        Error::Refused(_) | Error::Protocol(_) | Error::Closed => {
            Status::unavailable(format!("not decided: {error}"))
        }
    }
}

/// # Errors
///
/// The header is not one.
fn time_left(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get(TIMEOUT_KEY) else { return Ok(None) };
    let malformed = || Status::invalid_argument("grpc-timeout: expected up to 8 digits and a unit");
    timeout(value.as_bytes()).map(Some).ok_or_else(malformed)
}

/// # Errors
///
/// The metadata is not the number of a revision.
fn asked_revision(headers: &HeaderMap) -> Result<Option<u64>, Status> {
    let Some(value) = headers.get(REVISION_KEY) else { return Ok(None) };
    let revision = value.to_str().ok().and_then(|text| text.parse().ok());
    let malformed =
        || Status::invalid_argument("capstan-revision: expected the number of a revision");
    revision.map(Some).ok_or_else(malformed)
}
