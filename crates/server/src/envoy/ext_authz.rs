//! The authorization of one HTTP request, and the gRPC service `Authorization`.
//!
//! ```text
//! CheckRequest ─▶ canonical request, or 400 ─▶ one identity, or 401 ─▶ requirements, or 403
//!     ─▶ decisions of one snapshot at one time ─▶ OK, or 403
//! ```
//!
//! **Invariants**: anything missing, malformed, ambiguous or unknown is refused. The identity never
//! comes from a header that the client alone controls. The credentials belong to the snapshot that
//! decides, so one reload replaces both.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use capstan_engine::{Attributes, Path as EnginePath, PathBuf, Question, Snapshot, Timestamp};
use capstan_iam::{Narrowing, Session};
use capstan_policy::{Catalogs, Policy, REQUIREMENTS_MAX, Route, load_policy, load_routes};
use capstan_proto::codec::Codec;
use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};

use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Code, Status};

use super::answer::{self, Allowed, Denial};
use super::request::EnvoyRequest;
use super::routes::{MalformedRequestError, Required, RouteError, Table};
use crate::RequestError;
use crate::ask::{Ask, Basis};
use crate::askers::{Asker, Right};
use crate::authn::credential::{Authorization, IdentityError, Verifier, identify};
use crate::authn::guesses::{Attempt, Place};
use crate::authn::remembered::Remembered;
use crate::authn::secrets::ProvedBy;
use crate::callers::{Callers, Trust};
use crate::clock::Clock;
use crate::error::CallError;
use crate::feed::management::Management;
use crate::feed::published::{Current, Freshness, Published, Retention};
use crate::limits::Limits;
use crate::methods::{EXT_AUTHZ_PATH, Rpc};
use crate::telemetry::metrics::{AuthorizationOutcome, Metrics};
use crate::telemetry::traces::CallSpan;

/// Authorizes requests with the served revision and the route table.
#[derive(Debug)]
pub(crate) struct ExtAuthz {
    pub(crate) published: Arc<Published>,
    /// Replaced by a reload of the route table.
    pub(crate) table: Arc<ArcSwap<Table>>,
    pub(crate) ask: Ask,
    pub(crate) metrics: Arc<Metrics>,
    /// Notes which tokens of a store are used; `None` with a policy file.
    pub(crate) management: Option<Arc<dyn Management>>,
    /// Finds out whose a signed token is.
    pub(crate) callers: Callers,
    pub(crate) clock: Clock,
}

impl ExtAuthz {
    pub(super) async fn check(
        &self,
        request: &CheckRequest,
        span: Option<&CallSpan>,
        asker: Result<Asker, RequestError>,
    ) -> CheckResponse {
        let (right, proxy) = match asker {
            Ok(mut asker) => (asker.may(Rpc::EXT_AUTHZ).await, asker.remote().copied()),
            Err(error) => (Err(error), None),
        };
        let right = match right {
            Ok(right) => right,
            Err(
                error @ (RequestError::NotReady
                | RequestError::Draining
                | RequestError::CredentialsWait
                | RequestError::Unreadable),
            ) => {
                self.metrics.authorized(AuthorizationOutcome::Unavailable);
                return answer::unavailable(&error.to_string());
            }
            // An error could pass under `failure_mode_allow`.
            Err(_) => {
                self.metrics.authorized(AuthorizationOutcome::Denied);
                return answer::not_a_caller();
            }
        };
        match self.basis(request).await {
            Ok((current, token)) => {
                let (table, now) = (self.table.load(), self.clock.now());
                let place = Place::of_client(client(request), proxy.as_ref());
                let attempt = self.callers.attempt(&current.secrets, place, now);
                let proofs = Proofs { attempt, token: token.as_ref() };
                self.answer((&current, &proofs, &right), &table, request, now, span)
            }
            Err(error) => {
                self.metrics.authorized(AuthorizationOutcome::Unavailable);
                answer::unavailable(&error.to_string())
            }
        }
    }

    /// The served revision, and the request's signed token, judged at that revision.
    ///
    /// # Errors
    ///
    /// Nothing is served yet, or the store cannot be read.
    async fn basis(
        &self,
        request: &CheckRequest,
    ) -> Result<(Arc<Current>, Option<ProvedToken>), RequestError> {
        let mut tries = 1..TOKEN_TRIES_MAX;
        loop {
            let token = self.token(request).await?;
            let current = self.published.read(Freshness::Any).await?;
            let revision = current.snapshot.revision();
            if token.as_ref().is_none_or(|token| token.found.revision == revision) {
                return Ok((current, token));
            }
            if tries.next().is_none() {
                return Err(RequestError::RevisionGone { revision });
            }
        }
    }

    /// The signed token of a request, and whose it is; `None` without one, or if it proves nothing.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    async fn token(&self, request: &CheckRequest) -> Result<Option<ProvedToken>, RequestError> {
        let presented = {
            let table = self.table.load();
            if self.management.is_none() || !table.routes.identity.credential {
                return Ok(None);
            }
            let Ok(read) = EnvoyRequest::read(request, None) else { return Ok(None) };
            let header = read.presented.authorization.flatten();
            let shown = header.and_then(Authorization::read);
            shown.and_then(|shown| shown.token().map(|(text, named)| (text.to_owned(), named)))
        };
        let Some((text, named)) = presented else { return Ok(None) };
        let found = self.callers.by_token(&text, named).await;
        self.metrics.credential(found.is_ok());
        match found {
            Ok(found) => Ok(Some(ProvedToken { text, found })),
            Err(RequestError::AuthnFailed) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Answers one request at one time, without waiting.
    fn answer(
        &self,
        (current, proofs, right): (&Current, &Proofs<'_>, &Right),
        table: &Table,
        request: &CheckRequest,
        now: Timestamp,
        span: Option<&CallSpan>,
    ) -> CheckResponse {
        let envoy_request = match EnvoyRequest::read(request, table.routes.identity.jwt.as_ref()) {
            Ok(envoy_request) => envoy_request,
            Err(malformed) => {
                self.metrics.authorized(AuthorizationOutcome::Malformed);
                return answer::malformed(malformed, &Denial::default());
            }
        };
        let sources = &table.routes.identity;
        let found = identify(sources, &envoy_request.presented, proofs);
        let identity = match found {
            Ok(identity) => identity,
            Err(error) => {
                self.metrics.authorized(AuthorizationOutcome::Unauthenticated);
                let shown = envoy_request.presented.authorization.filter(|_| sources.credential);
                let shown = shown.flatten().and_then(Authorization::read);
                let failed = shown.map(|shown| self.callers.failed(&shown, &proofs.attempt));
                if failed.is_some_and(|failed| failed.is_err()) {
                    return answer::many_guesses();
                }
                return match error {
                    IdentityError::Unproved => answer::unauthenticated(table.routes.challenge()),
                    IdentityError::NotAPath => answer::not_an_identity(),
                };
            }
        };
        let by_credential = sources.credential && envoy_request.presented.authorization.is_some();
        if let Some(management) = self.management.as_ref().filter(|_| by_credential) {
            management.saw(&identity, now);
        }
        // Of a token that proved this request.
        let session =
            proofs.token.filter(|token| by_credential && token.found.identity == identity);
        let narrowing = session.and_then(|token| token.found.narrowing().map(|one| &**one));
        let session = session.and_then(|token| token.found.session.as_deref());
        let identity = &identity;
        let within = right.within();
        let context = RequestContext {
            current,
            identity,
            session,
            narrowing,
            by_credential,
            now,
            span,
            within,
        };
        let (answered, response) = self.authorize(&context, table, &envoy_request);
        self.metrics.authorized(answered);
        response
    }

    fn authorize(
        &self,
        context: &RequestContext<'_>,
        table: &Table,
        envoy_request: &EnvoyRequest<'_>,
    ) -> (AuthorizationOutcome, CheckResponse) {
        let identity = context.identity.as_str();
        let revision = context.current.snapshot.revision();
        let known = Denial { identity: Some(identity), revision, ..Denial::default() };
        let (route, required) = match required(table, envoy_request) {
            Ok(found) => found,
            Err(RouteError::Malformed(malformed)) => {
                return (AuthorizationOutcome::Malformed, answer::malformed(malformed, &known));
            }
            Err(RouteError::NoRoute) => {
                let denial = Denial { reason: "NO_ROUTE", ..known };
                return (AuthorizationOutcome::NoRoute, answer::denied(&denial));
            }
            Err(RouteError::Form) => {
                let denial = Denial { reason: "FORM_BODY", ..known };
                return (AuthorizationOutcome::NoRoute, answer::denied(&denial));
            }
        };
        let known = Denial { route: route.map(|route| &*route.name), ..known };
        let (route, query_parameters_to_remove) = match self.denial(context, known, &required) {
            None => (known.route, &[][..]),
            Some(denial) => {
                let without = route.and_then(|route| {
                    let changed = self.passes_without(context, table, envoy_request, route)?;
                    Some((Some(&*changed.name), &*route.if_denied_remove))
                });
                let Some(without) = without else {
                    return (AuthorizationOutcome::Denied, answer::denied(&denial));
                };
                without
            }
        };
        let by_credential = context.by_credential;
        let allowed =
            Allowed { identity, revision, route, by_credential, query_parameters_to_remove };
        (AuthorizationOutcome::Allowed, answer::allowed(&allowed, &envoy_request.headers_to_remove))
    }

    /// The first requirement that is not met. `known` are the other facts of the denial.
    fn denial<'d>(
        &self,
        context: &RequestContext<'_>,
        known: Denial<'d>,
        required: &'d [Required<'d>],
    ) -> Option<Denial<'d>> {
        required.iter().find_map(|Required { capability, resource }| {
            let known = Denial { capability: Some(capability), ..known };
            let Some(resource) = resource else {
                return Some(Denial { reason: "MALFORMED_RESOURCE", ..known });
            };
            let reason = self.denial_reason(context, capability, resource)?;
            Some(Denial { reason, resource: Some(resource.as_str()), ..known })
        })
    }

    /// The route that allows the request without the query parameters that `denied`, the route of
    /// the whole request, removes after a denial. It is another request: nothing of the first
    /// decision counts.
    fn passes_without<'t>(
        &self,
        context: &RequestContext<'_>,
        table: &'t Table,
        envoy_request: &EnvoyRequest<'_>,
        denied: &Route,
    ) -> Option<&'t Route> {
        if denied.if_denied_remove.is_empty() {
            return None;
        }
        let changed = envoy_request.canonical.without(&denied.if_denied_remove);
        let found = table.find(&changed).ok()?;
        let required: Vec<_> = found.requires().collect();
        self.denial(context, Denial::default(), &required).is_none().then_some(found.route)
    }

    /// The reason of a denial; `None` if the identity has the capability at the resource.
    fn denial_reason(
        &self,
        context: &RequestContext<'_>,
        capability: &str,
        resource: &PathBuf,
    ) -> Option<&'static str> {
        let RequestContext { current, identity, session, narrowing, now, span, within, .. } =
            *context;
        if narrowing.is_some_and(|to| !to.allows(capability, resource.as_path())) {
            return Some(answer::NARROWED);
        }
        let question = Question {
            identity: identity.as_path(),
            capability,
            resource: resource.as_path(),
            attributes: Attributes::NONE,
        };
        let basis = Basis { rpc: Rpc::EXT_AUTHZ, snapshot: &current.snapshot, now, span, within };
        match self.ask.decide_carrying(basis, &question, session) {
            Ok(decision) => (!decision.allowed()).then_some(decision.reason.as_str()),
            Err(RequestError::CallerNotAllowed { .. }) => Some(answer::NOT_A_CALLER),
            // The route table names an unknown capability. An error could pass under
            // `failure_mode_allow`, so the request is denied.
            Err(_) => Some("UNKNOWN_CAPABILITY"),
        }
    }
}

/// A signed token of a request, and the identity that it proves.
struct ProvedToken {
    text: String,
    found: Remembered,
}

/// The client of a request, as Envoy sees it; `None` if it has no IP address.
fn client(request: &CheckRequest) -> Option<IpAddr> {
    let address =
        request.attributes.as_ref()?.source.as_ref()?.address.as_ref()?.address.as_ref()?;
    match address {
        Address::SocketAddress(socket) => socket.address.parse().ok(),
        _ => None,
    }
}

/// Tries to judge a token at the revision that decides. Each fails only if a write is published in the same microsecond.
const TOKEN_TRIES_MAX: usize = 16;

/// What proves identities in a request: secrets of the revision, and the request's own token.
struct Proofs<'a> {
    attempt: Attempt<'a>,
    token: Option<&'a ProvedToken>,
}

impl Verifier for Proofs<'_> {
    /// `None` of the request's own token, which is judged by `callers`.
    type Proof = Option<ProvedBy>;

    fn verify(&self, secret: &[u8]) -> Option<(PathBuf, Self::Proof)> {
        let is_token = |token: &&ProvedToken| token.text.as_bytes() == secret;
        let by_token =
            || self.token.filter(is_token).map(|token| (token.found.identity.clone(), None));
        let found = self.attempt.find(secret).map(|(identity, by)| (identity, Some(by)));
        found.or_else(by_token)
    }

    fn proved(&self, by: &Self::Proof) {
        if let Some(by) = by {
            self.attempt.proved(by);
        }
    }
}

/// A request whose identity is proved: its revision, identity, time and span.
#[derive(Clone, Copy)]
struct RequestContext<'a> {
    current: &'a Current,
    identity: &'a PathBuf,
    /// The roles that its token carries.
    session: Option<&'a Session>,
    /// What its token is held to.
    narrowing: Option<&'a Narrowing>,
    by_credential: bool,
    now: Timestamp,
    span: Option<&'a CallSpan>,
    /// What the proxy may ask about.
    within: Option<EnginePath<'a>>,
}

/// The same answers without a server, for tests with arbitrary bytes.
#[derive(Debug)]
pub struct Offline {
    ext_authz: ExtAuthz,
    current: Current,
}

impl Offline {
    /// Takes a policy document and a route table.
    ///
    /// # Errors
    ///
    /// Every problem of one of them.
    pub fn new(policy: &[u8], routes: &[u8]) -> anyhow::Result<Self> {
        let Policy { model, credentials, .. } = load_policy(policy, &Catalogs::default())?;
        let table = Table::new(load_routes(routes)?);
        let snapshot = Snapshot::build(&model, 1)?;
        let published = Arc::new(Published::new(Retention::from(&Limits::default())));
        let metrics = Arc::default();
        let (store, trust) = ((&published, None), Trust::default());
        let callers = Callers::new(store, (None, None), trust, Clock::System, &metrics);
        let ext_authz = ExtAuthz {
            published: Arc::clone(&published),
            table: Arc::new(ArcSwap::from_pointee(table)),
            ask: Ask::silent(),
            metrics: Arc::clone(&metrics),
            management: None,
            callers,
            clock: Clock::System,
        };
        Ok(Self { ext_authz, current: Current::of_document(snapshot, credentials) })
    }

    /// The answer to a request at this time.
    #[must_use]
    pub fn check(&self, request: &CheckRequest, now: Timestamp) -> CheckResponse {
        let table = self.ext_authz.table.load();
        let place = Place::of(None);
        let attempt = self.ext_authz.callers.attempt(&self.current.secrets, place, now);
        let proofs = Proofs { attempt, token: None };
        let all = (&self.current, &proofs, &Right::Everything);
        self.ext_authz.answer(all, &table, request, now, None)
    }
}

type RouteAndRequirements<'a> = (Option<&'a Route>, Vec<Required<'a>>);

/// The requirements of a request. They come from Envoy's configuration if it has any, else from the
/// route table. The route is `None` in the first case.
fn required<'a>(
    table: &'a Table,
    envoy_request: &'a EnvoyRequest<'_>,
) -> Result<RouteAndRequirements<'a>, RouteError> {
    if let Some(required) = from_context(envoy_request)? {
        return Ok((None, required));
    }
    let taken = table.find(&envoy_request.canonical)?;
    Ok((Some(taken.route), taken.requires().collect()))
}

/// The requirements in the context extensions of Envoy's route: `capability` and `resource`,
/// `capability_2` and `resource_2`, and so on. `None` if there are none. A key without its partner,
/// or any other key with one of these prefixes, is a mistake, and the request is denied.
fn from_context<'a>(
    envoy_request: &'a EnvoyRequest<'_>,
) -> Result<Option<Vec<Required<'a>>>, RouteError> {
    let extensions = envoy_request.context_extensions;
    let is_ours = |key: &&String| key.starts_with("capability") || key.starts_with("resource");
    let ours = extensions.keys().filter(is_ours).count();
    if ours == 0 {
        return Ok(None);
    }
    let mut required = Vec::new();
    for number in 1..=REQUIREMENTS_MAX {
        let end = if number == 1 { String::new() } else { format!("_{number}") };
        let get = |key: &str| extensions.get(&format!("{key}{end}"));
        let (Some(capability), Some(resource)) = (get("capability"), get("resource")) else {
            break;
        };
        required.push(Required { capability, resource: resource.parse().ok() });
    }
    if required.len() * 2 != ours {
        return Err(RouteError::NoRoute);
    }
    // No route says that an encoded slash is one.
    if envoy_request.canonical.encodes_slash_outside(0, 0) {
        return Err(RouteError::Malformed(MalformedRequestError::EncodedSlash));
    }
    Ok(Some(required))
}

// === The gRPC service ===

/// The gRPC service `envoy.service.auth.v3.Authorization`, with the codec of `capstan-proto`.
#[derive(Clone, Debug)]
pub(crate) struct AuthorizationService {
    ext_authz: Arc<ExtAuthz>,
    message_bytes_max: usize,
}

impl AuthorizationService {
    pub(crate) fn new(ext_authz: ExtAuthz, message_bytes_max: usize) -> Self {
        Self { ext_authz: Arc::new(ext_authz), message_bytes_max }
    }
}

impl NamedService for AuthorizationService {
    const NAME: &'static str = "envoy.service.auth.v3.Authorization";
}

type BoxFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl tower::Service<Request<Body>> for AuthorizationService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (check, most) = (Check(Arc::clone(&self.ext_authz)), self.message_bytes_max);
        let metrics = Arc::clone(&self.ext_authz.metrics);
        Box::pin(async move {
            if request.uri().path() != EXT_AUTHZ_PATH {
                return Ok(Status::from(CallError::Unimplemented).into_http());
            }
            let codec = Codec::<CheckResponse, CheckRequest>::default();
            let mut grpc = Grpc::new(codec).apply_max_message_size_config(Some(most), Some(most));
            let answer = grpc.unary(check, request).await;
            let code = answer.headers().get("grpc-status");
            let error = match code.map(|code| Code::from_bytes(code.as_bytes())) {
                None | Some(Code::Ok) => return Ok(answer),
                Some(Code::OutOfRange) => CallError::TooLarge { bytes_max: most },
                // The transport has no room for the request.
                Some(Code::ResourceExhausted) => CallError::Overloaded,
                // `check` returns no errors, so this one is tonic's: it cannot decode the request.
                Some(_) => CallError::InvalidFraming,
            };
            metrics.authorized(AuthorizationOutcome::Malformed);
            Ok(answer::error_response(&error))
        })
    }
}

struct Check(Arc<ExtAuthz>);

impl UnaryService<CheckRequest> for Check {
    type Response = CheckResponse;
    type Future = BoxFuture<tonic::Response<CheckResponse>, Status>;

    fn call(&mut self, request: tonic::Request<CheckRequest>) -> Self::Future {
        let ext_authz = Arc::clone(&self.0);
        Box::pin(async move {
            let span = request.extensions().get::<CallSpan>().cloned();
            let asker = Asker::of_call(request.extensions());
            let answer = ext_authz.check(request.get_ref(), span.as_ref(), asker).await;
            Ok(tonic::Response::new(answer))
        })
    }
}
