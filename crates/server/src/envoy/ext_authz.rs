//! Envoy's external authorization, `envoy.service.auth.v3`: may this HTTP request pass?
//!
//! ```text
//! CheckRequest ─▶ told: canonical, or 400 ─▶ identity: one, or 401 ─▶ what is required, or 403
//!     ─▶ engine, on one snapshot and at one time ─▶ answer: pass, or 403
//! ```
//!
//! **Invariants**: whatever is missing, malformed, doubtful or unknown is a refusal. Who asks is never
//! taken from what a client alone says. The credentials are those of the snapshot that decides, so
//! that a reload takes both away at once. Only these files know Envoy's words.

use std::sync::Arc;

use arc_swap::ArcSwap;
use capstan_engine::{Attributes, PathBuf, Question, Snapshot, Timestamp};
use capstan_policy::{Catalogs, Policy, REQUIREMENTS_MAX, load_policy, load_routes};
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};

use crate::clock::Clock;
use crate::envoy::routes::{NotTaken, Required, Table};
use crate::feed::published::{Current, Published};
use crate::grpc::convert;
use crate::telemetry::decision_log::{DecisionLog, Line};
use crate::telemetry::metrics::{Rpc, WorkerMetrics};
use crate::telemetry::traces::Trace;

use super::answer::{self, Allowed, Denial};
use super::identity;
use super::request::Told;

/// Answers from what is published.
#[derive(Debug)]
pub(crate) struct ExtAuthz {
    pub(crate) published: Arc<Published>,
    /// Replaced when the route table is loaded again.
    pub(crate) table: Arc<ArcSwap<Table>>,
    pub(crate) metrics: WorkerMetrics,
    pub(crate) log: Option<DecisionLog>,
    pub(crate) clock: Clock,
}

impl ExtAuthz {
    pub(super) async fn check(
        &self,
        request: &CheckRequest,
        trace: Option<&Trace>,
    ) -> CheckResponse {
        match self.published.authenticating().await {
            Ok(current) => {
                let (table, now) = (self.table.load(), self.clock.now());
                self.answer(&current, &table, request, now, trace)
            }
            Err(error) => {
                self.metrics.authorized(Answered::Unavailable);
                answer::unavailable(&error.to_string())
            }
        }
    }

    /// Answers a request at one time. Nothing here waits.
    fn answer(
        &self,
        current: &Current,
        table: &Table,
        request: &CheckRequest,
        now: Timestamp,
        trace: Option<&Trace>,
    ) -> CheckResponse {
        let told = match Told::read(request) {
            Ok(told) => told,
            Err(malformed) => {
                self.metrics.authorized(Answered::Malformed);
                return answer::malformed(malformed, &Denial::default());
            }
        };
        let sources = &table.routes.identity;
        let found = identity::find(sources, &told.presented, &current.credentials, now);
        let Ok(identity) = found else {
            self.metrics.authorized(Answered::Unauthenticated);
            return answer::unauthenticated(&table.routes.challenge);
        };
        let asking = Asking {
            current,
            identity: &identity,
            by_credential: sources.credential && told.presented.authorization.is_some(),
            now,
            trace,
        };
        let (answered, response) = self.authorize(&asking, table, &told);
        self.metrics.authorized(answered);
        response
    }

    fn authorize(
        &self,
        asking: &Asking<'_>,
        table: &Table,
        told: &Told<'_>,
    ) -> (Answered, CheckResponse) {
        let identity = asking.identity.as_str();
        let revision = asking.current.snapshot.revision();
        let known = Denial { identity: Some(identity), revision, ..Denial::default() };
        let (route, required) = match required(table, told) {
            Ok(found) => found,
            Err(NotTaken::Malformed(malformed)) => {
                return (Answered::Malformed, answer::malformed(malformed, &known));
            }
            Err(NotTaken::NoRoute) => {
                let denial = Denial { reason: "NO_ROUTE", ..known };
                return (Answered::NoRoute, answer::denied(&denial));
            }
            Err(NotTaken::Form) => {
                let denial = Denial { reason: "FORM_BODY", ..known };
                return (Answered::NoRoute, answer::denied(&denial));
            }
        };
        let known = Denial { route, ..known };
        for Required { capability, resource } in &required {
            let known = Denial { capability: Some(capability), ..known };
            let Some(resource) = resource else {
                let denial = Denial { reason: "MALFORMED_RESOURCE", ..known };
                return (Answered::Denied, answer::denied(&denial));
            };
            if let Some(reason) = self.denies(asking, capability, resource) {
                let denial = Denial { reason, resource: Some(resource.as_str()), ..known };
                return (Answered::Denied, answer::denied(&denial));
            }
        }
        let allowed = Allowed { identity, revision, route, by_credential: asking.by_credential };
        (Answered::Allowed, answer::allowed(&allowed, &told.spoofed))
    }

    /// Why an identity may not do this here; nothing if it may.
    fn denies(
        &self,
        asking: &Asking<'_>,
        capability: &str,
        resource: &PathBuf,
    ) -> Option<&'static str> {
        let Asking { current, identity, now, trace, .. } = *asking;
        let question = Question {
            identity: identity.as_path(),
            capability,
            resource: resource.as_path(),
            attributes: Attributes::NONE,
        };
        let decided = current.snapshot.check(&question, now);
        let told = decided.as_ref().map(|it| (it.allowed(), convert::reason(it.reason)));
        if let (Some(trace), Ok((allowed, reason))) = (trace, told) {
            trace.decided(allowed, reason, current.snapshot.revision());
        }
        if let Some(log) = &self.log {
            let names = [identity.to_string(), capability.to_owned(), resource.to_string()];
            let line = Line::new(names, told.map_err(|_| "the catalog has no such capability"));
            log.write(Rpc::ExtAuthz, now, current.snapshot.revision(), vec![line]);
        }
        match decided {
            Ok(decision) => {
                self.metrics.decided(Rpc::ExtAuthz, decision.reason, 1);
                (!decision.allowed()).then_some(decision.reason.as_str())
            }
            // A mistake of whoever wrote the routes: nothing that Envoy may let pass as an error.
            Err(_) => Some("UNKNOWN_CAPABILITY"),
        }
    }
}

/// Who asks, at one time, and of what.
#[derive(Clone, Copy)]
struct Asking<'a> {
    current: &'a Current,
    identity: &'a PathBuf,
    by_credential: bool,
    now: Timestamp,
    trace: Option<&'a Trace>,
}

/// The same answers without a server, for tests of any bytes.
#[derive(Debug)]
pub struct Offline {
    ext_authz: ExtAuthz,
    current: Current,
}

impl Offline {
    /// With this policy and this route table.
    ///
    /// # Errors
    ///
    /// What is wrong with one of them.
    pub fn new(policy: &[u8], routes: &[u8]) -> anyhow::Result<Self> {
        let Policy { model, credentials, .. } = load_policy(policy, &Catalogs::default())?;
        let table = Table::new(load_routes(routes)?);
        let snapshot = Arc::new(Snapshot::build(&model, 1)?);
        let ext_authz = ExtAuthz {
            published: Arc::default(),
            table: Arc::new(ArcSwap::from_pointee(table)),
            metrics: WorkerMetrics::new(&Arc::default()),
            log: None,
            clock: Clock::System,
        };
        Ok(Self { ext_authz, current: Current { snapshot, credentials } })
    }

    /// What Envoy is told of a request at this time.
    #[must_use]
    pub fn check(&self, request: &CheckRequest, now: Timestamp) -> CheckResponse {
        let table = self.ext_authz.table.load();
        self.ext_authz.answer(&self.current, &table, request, now, None)
    }
}

/// How requests of Envoy are answered, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// It may pass.
    Allowed,
    /// The policy says no.
    Denied,
    /// Nothing says what it requires.
    NoRoute,
    /// It is not said who asks, or not proved.
    Unauthenticated,
    /// It is refused whatever it asks for.
    Malformed,
    /// It cannot be decided now.
    Unavailable,
}

impl Answered {
    pub(crate) const ALL: [Self; 6] = [
        Self::Allowed,
        Self::Denied,
        Self::NoRoute,
        Self::Unauthenticated,
        Self::Malformed,
        Self::Unavailable,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::NoRoute => "no_route",
            Self::Unauthenticated => "unauthenticated",
            Self::Malformed => "malformed",
            Self::Unavailable => "unavailable",
        }
    }
}

type Found<'a> = (Option<&'a str>, Vec<Required<'a>>);

/// What a request requires: what Envoy's configuration says, else the table; and its route, if it
/// has one.
fn required<'a>(table: &'a Table, told: &'a Told<'_>) -> Result<Found<'a>, NotTaken> {
    if let Some(required) = from_context(told)? {
        return Ok((None, required));
    }
    let taken = table.find(&told.asked)?;
    Ok((Some(&taken.route.name), taken.requires().collect()))
}

/// What the context extensions of Envoy's route require, if they require anything: `capability` and
/// `resource`, `capability_2` and `resource_2`, and so on. Whatever of them has no partner or no
/// sense is a mistake, and lets nothing pass.
fn from_context<'a>(told: &'a Told<'_>) -> Result<Option<Vec<Required<'a>>>, NotTaken> {
    let extensions = told.extensions;
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
        return Err(NotTaken::NoRoute);
    }
    Ok(Some(required))
}
