//! Evaluations: one, or many of one request.

use capstan_engine::{Attributes, Path};
use serde::Serialize;

use super::names;
use super::request::{Entities, Evaluation, Evaluations, Semantic, parse};
use crate::RequestError;
use crate::ask::{Ask, Basis, hold};
use crate::limits::BATCH_CHECKS_MAX;

/// A decision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Decided {
    decision: bool,
    context: DecisionContext,
}

/// Why.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct DecisionContext {
    /// That of the decision, such as `NO_BINDING`, or of what cannot be asked about, such as `MALFORMED_ID`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// Of an evaluation that is malformed among others.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ItemError>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ItemError {
    status: u16,
    message: String,
}

/// What the endpoint for many answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Answer {
    One(Decided),
    Many { evaluations: Vec<Decided> },
}

impl Decided {
    fn denied(reason: &'static str, message: String) -> Self {
        let (reason, message) = (Some(reason), Some(message));
        Self { decision: false, context: DecisionContext { reason, message, error: None } }
    }

    fn failed(error: &RequestError) -> Self {
        let status = if let RequestError::CallerNotAllowed { .. } = error { 403 } else { 400 };
        let error = Some(ItemError { status, message: error.to_string() });
        Self { decision: false, context: DecisionContext { error, ..DecisionContext::default() } }
    }
}

/// Answers one evaluation.
///
/// # Errors
///
/// The request is malformed.
pub(super) fn one(ask: &Ask, basis: Basis<'_>, body: &[u8]) -> Result<Decided, RequestError> {
    decide(ask, basis, &mut parse(body)?, &mut Evaluation::default())
}

/// Answers many evaluations, or the request itself if it lists none.
///
/// # Errors
///
/// The request is malformed as a whole, or lists too many.
pub(super) fn many(ask: &Ask, basis: Basis<'_>, body: &[u8]) -> Result<Answer, RequestError> {
    let mut request: Evaluations<'_> = parse(body)?;
    let semantic = request.options.take().unwrap_or_default().semantic()?;
    let listed = request.evaluations.take().unwrap_or_default();
    let mut common = request.common();
    if listed.is_empty() {
        return decide(ask, basis, &mut common, &mut Evaluation::default()).map(Answer::One);
    }
    if listed.len() > BATCH_CHECKS_MAX {
        let problem = format!("{}: at most {BATCH_CHECKS_MAX} are allowed", listed.len());
        return Err(RequestError::field("evaluations", problem));
    }
    let mut evaluations = Vec::with_capacity(listed.len());
    for one in listed {
        let one = parse::<Evaluation>(one.get().as_bytes());
        let decided = one.and_then(|mut one| decide(ask, basis, &mut one, &mut common));
        let decided = decided.unwrap_or_else(|error| Decided::failed(&error));
        let decision = decided.decision;
        evaluations.push(decided);
        match (semantic, decision) {
            (Semantic::DenyOnFirstDeny, false) | (Semantic::PermitOnFirstPermit, true) => break,
            _ => {}
        }
    }
    Ok(Answer::Many { evaluations })
}

fn decide(
    ask: &Ask,
    basis: Basis<'_>,
    one: &mut Evaluation,
    defaults: &mut Evaluation,
) -> Result<Decided, RequestError> {
    one.ask(defaults, |entities, attributes| decide_about(ask, basis, entities, attributes))?
}

fn decide_about(
    ask: &Ask,
    basis: Basis<'_>,
    entities: &Entities<'_>,
    attributes: &Attributes,
) -> Result<Decided, RequestError> {
    // Before anything is looked up: what is there, and of which type, is told of nothing outside.
    if let Ok(resource) = Path::parse(entities.resource.1) {
        hold(basis.within, resource).map_err(|error| {
            let names = [entities.subject.1, entities.action, entities.resource.1];
            ask.refuse(basis, names, error)
        })?;
    }
    let mut capability = String::new();
    let asked = names::question(basis.snapshot, entities, &mut capability);
    let names = match asked {
        Ok(names) => names,
        Err(denial) => {
            let names = [entities.subject.1, entities.action, entities.resource.1];
            let error = RequestError::field(denial.field, &denial.problem);
            let message = ask.refuse(basis, names, error).to_string();
            return Ok(Decided::denied(denial.reason, message));
        }
    };
    let decision = ask.check(basis, names, attributes)?;
    let reason = Some(decision.reason.as_str());
    let context = DecisionContext { reason, ..DecisionContext::default() };
    Ok(Decided { decision: decision.allowed(), context })
}
