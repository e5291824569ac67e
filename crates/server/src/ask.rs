//! Question to decision: decided, counted, logged and traced. No other code does these four
//! together. gRPC and Envoy use it, and later AuthZEN.
//!
//! ```text
//! names ─▶ question ─▶ snapshot.check ─▶ decision ─▶ caller
//!                                           └─▶ metrics, decision log, span
//! ```
//!
//! **Invariants**: nothing here waits, and a check that is neither logged nor traced takes no lock.
//! The decision that is counted and logged is the one that the caller gets.

use capstan_engine::{
    Attributes, Decision, Explanation, Path, Question, Reason, Snapshot, Timestamp,
};

use capstan_iam::Session;

use crate::RequestError;
use crate::limits::BATCH_CHECKS_MAX;
use crate::methods::Rpc;
use crate::telemetry::decision_log::{DecisionLog, Line};
use crate::telemetry::metrics::WorkerMetrics;
use crate::telemetry::traces::CallSpan;

/// Identity, capability and resource, as the request has them. Any of them may be malformed.
pub type Names<'r> = [&'r str; 3];

/// Asks the engine, and reports to telemetry.
#[derive(Clone, Debug)]
pub struct Ask {
    metrics: WorkerMetrics,
    /// `None` if the operator wants no decision log.
    log: Option<DecisionLog>,
}

/// What the roles of a session allow; `None` if they do not. An identity that is not registered, or disabled, has none.
fn carried(basis: Basis<'_>, question: &Question<'_>, session: &Session) -> Option<Decision> {
    let snapshot = basis.snapshot;
    let state = snapshot.identity_state(question.identity)?;
    let capability = snapshot.catalog().capability(question.capability)?;
    let gives = session.grants.iter().any(|grant| {
        let role = snapshot.role(&grant.role);
        grant.scope.as_path().contains(question.resource)
            && role.is_some_and(|role| role.capabilities.contains(capability))
    });
    let counts = state.registered && !state.disabled && basis.now < session.ends;
    let valid_until = Some(session.ends);
    (counts && gives).then_some(Decision { reason: Reason::Granted, valid_until })
}

/// The snapshot and the time of a call, and the method that asks.
#[derive(Clone, Copy, Debug)]
pub struct Basis<'a> {
    pub(crate) rpc: Rpc,
    /// One snapshot and one time for all questions of one call.
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) now: Timestamp,
    /// The span of the call, if it is sampled.
    pub(crate) span: Option<&'a CallSpan>,
    /// What every question must be about: resources at or below this path. `None` for all.
    pub(crate) within: Option<Path<'a>>,
}

impl<'a> Basis<'a> {
    /// The basis of a call without a span.
    #[must_use]
    pub const fn new(rpc: Rpc, snapshot: &'a Snapshot, now: Timestamp) -> Self {
        Self { rpc, snapshot, now, span: None, within: None }
    }
}

impl Ask {
    pub(crate) const fn new(metrics: WorkerMetrics, log: Option<DecisionLog>) -> Self {
        Self { metrics, log }
    }

    /// Without a server, for tests: the counters are never read, and nothing is logged.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(WorkerMetrics::new(&std::sync::Arc::default()), None)
    }

    /// Whether decisions are logged.
    pub(crate) const fn logs(&self) -> bool {
        self.log.is_some()
    }

    /// Decides one question.
    ///
    /// # Errors
    ///
    /// A malformed path, a capability that the catalog lacks, or a resource that the caller may not ask about.
    pub(crate) fn check(
        &self,
        basis: Basis<'_>,
        names: Names<'_>,
        attributes: &Attributes,
    ) -> Result<Decision, RequestError> {
        match question(names, attributes) {
            Ok(question) => self.decide(basis, &question),
            Err(error) => {
                self.tell(basis, names, Err(&error));
                Err(error)
            }
        }
    }

    /// Logs a question whose attributes cannot be used, and returns its error.
    pub(crate) fn refuse(
        &self,
        basis: Basis<'_>,
        names: Names<'_>,
        error: RequestError,
    ) -> RequestError {
        self.tell(basis, names, Err(&error));
        error
    }

    /// Decides one question whose paths are well-formed.
    ///
    /// # Errors
    ///
    /// The catalog lacks the capability, or the caller may not ask about the resource.
    pub(crate) fn decide(
        &self,
        basis: Basis<'_>,
        question: &Question<'_>,
    ) -> Result<Decision, RequestError> {
        self.decide_carrying(basis, question, None)
    }

    /// The same for an identity whose credential gives roles beside its bindings.
    ///
    /// # Errors
    ///
    /// As [`Ask::decide`].
    pub(crate) fn decide_carrying(
        &self,
        basis: Basis<'_>,
        question: &Question<'_>,
        session: Option<&Session>,
    ) -> Result<Decision, RequestError> {
        if let Err(error) = hold(basis.within, question.resource) {
            self.tell(basis, names(question), Err(&error));
            return Err(error);
        }
        let decision = basis.snapshot.check(question, basis.now);
        let unknown = |_| unknown_capability(basis.snapshot, question.capability);
        let decision = decision.map_err(unknown).map(|decision| match session {
            Some(session) if !decision.allowed() => {
                carried(basis, question, session).unwrap_or(decision)
            }
            _ => decision,
        });
        self.tell(basis, names(question), decision.as_ref().copied());
        decision
    }

    /// Decides many questions, of which some have attributes that cannot be used. Calls `answer` once for each check, in any order, with the index of
    /// the check and its decision or error.
    ///
    /// # Errors
    ///
    /// More than [`BATCH_CHECKS_MAX`] checks; then `answer` is not called.
    pub(crate) fn batch<'r>(
        &self,
        basis: Basis<'_>,
        checks: impl ExactSizeIterator<Item = (Names<'r>, Result<&'r Attributes, &'r RequestError>)>,
        mut answer: impl FnMut(usize, Result<Decision, RequestError>),
    ) -> Result<(), RequestError> {
        let length = checks.len();
        if length > BATCH_CHECKS_MAX {
            return Err(too_many_checks(length));
        }
        let mut lines = self.log.as_ref().map(|_| (0..length).map(|_| None).collect::<Vec<_>>());
        let mut tell = |at: usize, names: Names<'_>, decision: Result<Decision, RequestError>| {
            if let Some(line) = lines.as_mut().and_then(|lines| lines.get_mut(at)) {
                *line = Some(Line::new(names, decision.as_ref().copied()));
            }
            answer(at, decision);
        };
        let mut questions = Vec::with_capacity(length);
        let mut indices = Vec::with_capacity(length);
        for (at, (names, attributes)) in checks.enumerate() {
            let attributes = attributes.map_err(RequestError::clone);
            let question = attributes.and_then(|attributes| question(names, attributes));
            let held = question.and_then(|question| {
                hold(basis.within, question.resource)?;
                Ok(question)
            });
            match held {
                Ok(question) => {
                    questions.push(question);
                    indices.push(at);
                }
                Err(error) => tell(at, names, Err(error)),
            }
        }
        // One addition for each reason instead of one for each decision: the counters are atomic.
        let mut decisions = [0; Reason::ALL.len()];
        let mut indexed = questions.iter().zip(indices);
        basis.snapshot.check_batch(&questions, basis.now, |_, decision| {
            let Some((question, at)) = indexed.next() else { return };
            if let Ok(decision) = decision
                && let Some(count) = decisions.get_mut(decision.reason as usize)
            {
                *count += 1;
            }
            let unknown = |_| unknown_capability(basis.snapshot, question.capability);
            tell(at, names(question), decision.map_err(unknown));
        });
        for (reason, count) in Reason::ALL.into_iter().zip(decisions).filter(|(_, n)| *n > 0) {
            self.metrics.decided(basis.rpc, reason, count);
        }
        if let (Some(log), Some(lines)) = (&self.log, lines) {
            let lines = lines.into_iter().flatten().collect();
            log.write(basis.rpc, basis.now, basis.snapshot.revision(), lines);
        }
        Ok(())
    }

    /// Decides one question and explains the decision.
    ///
    /// # Errors
    ///
    /// As [`Ask::check`].
    pub(crate) fn explain<'s>(
        &self,
        basis: Basis<'s>,
        names: Names<'_>,
        attributes: &Attributes,
    ) -> Result<Explanation<'s>, RequestError> {
        let explanation = question(names, attributes).and_then(|question| {
            hold(basis.within, question.resource)?;
            let found = basis.snapshot.explain(&question, basis.now);
            found.map_err(|_| unknown_capability(basis.snapshot, question.capability))
        });
        self.tell(basis, names, explanation.as_ref().map(|found| found.decision));
        explanation
    }

    /// Counts, logs and traces one decision. An error is logged only.
    fn tell(&self, basis: Basis<'_>, names: Names<'_>, decision: Result<Decision, &RequestError>) {
        let Basis { rpc, snapshot, now, span, within: _ } = basis;
        if let Ok(decision) = decision {
            self.metrics.decided(rpc, decision.reason, 1);
            if let Some(span) = span {
                span.decided(decision, snapshot.revision());
            }
        }
        if let Some(log) = &self.log {
            log.write(rpc, now, snapshot.revision(), vec![Line::new(names, decision)]);
        }
    }
}

/// The question of these names.
///
/// # Errors
///
/// The identity or the resource is not a path.
fn question<'r>(
    [identity, capability, resource]: Names<'r>,
    attributes: &'r Attributes,
) -> Result<Question<'r>, RequestError> {
    let (identity, resource) = (path("identity", identity)?, path("resource", resource)?);
    Ok(Question { identity, capability, resource, attributes })
}

/// Whether a caller may ask about a resource: it is at or below this path, if there is one.
///
/// # Errors
///
/// It is not.
pub(crate) fn hold(within: Option<Path<'_>>, resource: Path<'_>) -> Result<(), RequestError> {
    match within {
        Some(subtree) if !subtree.contains(resource) => {
            let problem = format!("it may ask about {subtree} and what is below");
            Err(RequestError::CallerNotAllowed { problem })
        }
        _ => Ok(()),
    }
}

fn names<'q>(question: &Question<'q>) -> Names<'q> {
    [question.identity.as_str(), question.capability, question.resource.as_str()]
}

/// The path in a field of a request.
///
/// # Errors
///
/// The text is not a path; the error names the field.
pub(crate) fn path<'r>(field: &str, text: &'r str) -> Result<Path<'r>, RequestError> {
    Path::parse(text).map_err(|error| RequestError::field(field, error))
}

/// The error for a capability that the catalog lacks.
pub(crate) fn unknown_capability(snapshot: &Snapshot, name: &str) -> RequestError {
    let shown: String = name.chars().take(128).flat_map(char::escape_debug).collect();
    let catalog = snapshot.catalog().name();
    RequestError::field("capability", format!("catalog `{catalog}` has no capability `{shown}`"))
}

/// The error for a batch with too many checks.
pub(crate) fn too_many_checks(checks: usize) -> RequestError {
    let problem = format!("{checks} checks, more than {BATCH_CHECKS_MAX}: send several batches");
    RequestError::field("checks", problem)
}
