//! Questions of a load test: drawn from a policy or given, and encoded once, before the measurement.

use std::collections::HashMap;
use std::sync::Arc;

use capstan_client::{Check, Properties};
use capstan_engine::{Attributes, Facts, Model, Path, Question, Snapshot, Timestamp, Value};
use capstan_proto::contract::BATCH_CHECKS_MAX;
use capstan_proto::{frame, v1};
use tonic::codegen::Bytes;

use crate::load::Mode;
use crate::workload::Draw;

/// The owned form of an engine's [`Question`]; its paths may be malformed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuestionBuf {
    /// Path of an identity.
    pub identity: String,
    /// Name of a capability.
    pub capability: String,
    /// Path of a resource or group.
    pub resource: String,
    /// Attributes that the request supplies for conditions.
    pub attributes: Attributes,
}

impl QuestionBuf {
    /// `None` if a path is malformed.
    fn question(&self) -> Option<Question<'_>> {
        Some(Question {
            identity: Path::parse(&self.identity).ok()?,
            capability: &self.capability,
            resource: Path::parse(&self.resource).ok()?,
            attributes: &self.attributes,
        })
    }

    fn check_item(&self) -> v1::CheckItem {
        v1::CheckItem {
            identity: self.identity.clone(),
            capability: self.capability.clone(),
            resource: self.resource.clone(),
            properties: (self.attributes != *Attributes::NONE).then(|| self.message()),
        }
    }

    fn check_request(&self) -> v1::CheckRequest {
        let v1::CheckItem { identity, capability, resource, properties } = self.check_item();
        v1::CheckRequest { identity, capability, resource, properties, consistency: None }
    }

    fn message(&self) -> v1::Properties {
        let Attributes { subject, resource, action, context } = &self.attributes;
        let [subject, resource, action, context] =
            [subject, resource, action, context].map(|attributes| {
                let value = |(name, value): (&String, &Value)| (name.clone(), message_of(value));
                attributes.iter().map(value).collect::<HashMap<_, _>>()
            });
        v1::Properties { subject, resource, action, context }
    }

    /// The attributes as the client takes them; `None` if there are none.
    fn client_properties(&self) -> Option<Properties> {
        type Supply = fn(Properties, String, capstan_client::Value) -> Properties;
        let Attributes { subject, resource, action, context } = &self.attributes;
        let groups: [(_, Supply); 4] = [
            (subject, Properties::subject),
            (resource, Properties::resource),
            (action, Properties::action),
            (context, Properties::context),
        ];
        let mut properties = Properties::default();
        for (attributes, supply) in groups {
            for (name, value) in attributes {
                properties = supply(properties, name.clone(), client_value(value));
            }
        }
        (properties != Properties::default()).then_some(properties)
    }
}

#[expect(clippy::cast_precision_loss, reason = "attributes are within 2^53")]
fn message_of(value: &Value) -> prost_types::Value {
    match value {
        Value::String(text) => text.clone().into(),
        Value::Boolean(value) => (*value).into(),
        Value::Integer(number) => (*number as f64).into(),
    }
}

fn client_value(value: &Value) -> capstan_client::Value {
    match value {
        Value::String(text) => text.clone().into(),
        Value::Boolean(value) => (*value).into(),
        Value::Integer(number) => (*number).into(),
    }
}

/// The requests of a run. They are sent in order, and from the first again after the last.
#[derive(Debug)]
pub struct Questions {
    pub(crate) mode: Mode,
    /// Framed requests, slices of one buffer. Empty slices in the mode `coalesced`.
    frames: Vec<Bytes>,
    /// The calls of the client in the mode `coalesced`; empty in the other modes.
    calls: Vec<ClientCall>,
    requests: usize,
    checks_per_request: usize,
    checks: usize,
    /// The engine's answer to each check: `None` if the check has no decision. Empty if decisions are
    /// not verified.
    expected: Vec<Option<bool>>,
}

/// A question in the form that the client takes.
#[derive(Debug)]
pub(crate) struct ClientCall {
    question: QuestionBuf,
    properties: Option<Properties>,
}

impl ClientCall {
    pub(crate) fn check(&self) -> Check<'_> {
        let QuestionBuf { identity, capability, resource, .. } = &self.question;
        let check = Check::new(identity, capability, resource);
        self.properties.as_ref().map_or(check, |properties| check.properties(properties))
    }
}

impl Questions {
    /// Encodes questions into requests. In the modes `batch` and `stream` a request has `per_request`
    /// checks, at least 1; in the others it has one. The last request is completed with questions from
    /// the start, so that all requests have the same number of checks.
    ///
    /// With a snapshot, each question's decision by that snapshot at `now` is stored, and answers are
    /// compared with it.
    pub fn new(
        mode: Mode,
        questions: &[QuestionBuf],
        per_request: usize,
        verify: Option<(&Snapshot, Timestamp)>,
    ) -> Arc<Self> {
        let expected =
            verify.map_or_else(Vec::new, |(snapshot, now)| decide(snapshot, questions, now));
        let checks_per_request = match mode {
            Mode::Check | Mode::Coalesced => 1,
            Mode::Batch | Mode::Stream => per_request.max(1),
        };
        let mut calls = Vec::new();
        let (checks, mut buffer, mut ends) = (questions.len(), Vec::new(), Vec::new());
        for first in (0..checks).step_by(checks_per_request) {
            let request = questions.iter().cycle().skip(first).take(checks_per_request);
            match mode {
                Mode::Check => request
                    .for_each(|question| frame::append(&mut buffer, &question.check_request())),
                Mode::Coalesced => calls.extend(request.map(|question| ClientCall {
                    question: question.clone(),
                    properties: question.client_properties(),
                })),
                Mode::Batch | Mode::Stream => {
                    let checks = request.map(QuestionBuf::check_item).collect();
                    let message = v1::BatchCheckRequest { checks, consistency: None };
                    frame::append(&mut buffer, &message);
                }
            }
            ends.push(buffer.len());
        }
        let buffer = Bytes::from(buffer);
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let frames = starts.zip(&ends).map(|(start, end)| buffer.slice(start..*end)).collect();
        let requests = ends.len();
        Arc::new(Self { mode, frames, calls, requests, checks_per_request, checks, expected })
    }

    /// The number of different requests.
    pub(crate) const fn len(&self) -> usize {
        self.requests
    }

    /// The number of checks in each request.
    #[must_use]
    pub const fn checks_per_request(&self) -> usize {
        self.checks_per_request
    }

    /// The framed request with this number, modulo [`Self::len`].
    pub(crate) fn frame(&self, number: usize) -> Bytes {
        self.frames.get(number % self.requests.max(1)).cloned().unwrap_or_default()
    }

    /// The client call with this number, modulo [`Self::len`]; `None` in modes without a client.
    pub(crate) fn call(&self, number: usize) -> Option<&ClientCall> {
        self.calls.get(number % self.requests.max(1))
    }

    /// For each check of the request with this number, whether the engine allows it; `None` if that is
    /// not known.
    pub(crate) fn expected(&self, number: usize) -> impl ExactSizeIterator<Item = Option<bool>> {
        let first = number % self.requests.max(1) * self.checks_per_request;
        (first..first + self.checks_per_request).map(move |check| {
            if self.expected.is_empty() {
                return None;
            }
            self.expected.get(check % self.checks).copied().flatten()
        })
    }
}

/// For each question whether the snapshot allows it; `None` if a path is malformed or the capability
/// is not in the catalog.
fn decide(snapshot: &Snapshot, all: &[QuestionBuf], now: Timestamp) -> Vec<Option<bool>> {
    let mut allowed = vec![None; all.len()];
    for (all, allowed) in all.chunks(BATCH_CHECKS_MAX).zip(allowed.chunks_mut(BATCH_CHECKS_MAX)) {
        let (questions, places): (Vec<_>, Vec<_>) = all
            .iter()
            .zip(allowed)
            .filter_map(|(question, place)| Some((question.question()?, place)))
            .unzip();
        let mut places = places.into_iter();
        snapshot.check_batch(&questions, now, |_, decision| {
            if let Some(place) = places.next() {
                *place = decision.ok().map(capstan_engine::Decision::allowed);
            }
        });
    }
    allowed
}

/// Draws up to this many questions about a policy; the same policy gives the same questions. Half of
/// them ask for a capability of a binding's role at the binding's scope; the others for any capability
/// of the catalog at the scope of any binding. Empty if the policy has no bindings.
#[must_use]
pub fn of_policy(model: &Model, count: u64) -> Vec<QuestionBuf> {
    let (catalog, facts) = (model.catalog(), model.facts());
    let all: Vec<&str> = catalog.capabilities().collect();
    let mut draw = Draw::new(0);
    let question = |_| {
        let binding = draw.pick(&facts.role_bindings)?;
        let is_own_scope = draw.below(2) == 0;
        let scope = if is_own_scope { binding } else { draw.pick(&facts.role_bindings)? };
        let held = if is_own_scope { held(model, facts, &binding.role) } else { &[][..] };
        let capability = match draw.pick(held) {
            Some(capability) => capability,
            None => *draw.pick(&all)?,
        };
        Some(QuestionBuf {
            identity: binding.identity.as_str().into(),
            capability: capability.into(),
            resource: scope.scope.as_str().into(),
            attributes: Attributes::default(),
        })
    };
    (0..count).filter_map(question).collect()
}

/// The capabilities of a role.
fn held<'m>(model: &'m Model, facts: &'m Facts, role: &str) -> &'m [String] {
    let built_in = model.catalog().roles().iter().find(|known| known.name == role);
    let custom = || facts.roles.iter().find(|known| known.id.as_str() == role);
    match built_in {
        Some(role) => &role.capabilities,
        None => custom().map_or(&[], |role| &role.capabilities),
    }
}

#[cfg(test)]
mod tests {
    use capstan_policy::Catalogs;
    use prost::Message as _;

    use super::*;
    use crate::load::tally::single_message;
    use crate::workload::{CATALOG, Workload};

    fn questions(count: usize) -> Vec<QuestionBuf> {
        let question = |at| QuestionBuf { identity: format!("i{at}"), ..QuestionBuf::default() };
        (0..count).map(question).collect()
    }

    #[test]
    fn requests_hold_every_check_in_turn_and_are_of_one_size() {
        let batches = Questions::new(Mode::Batch, &questions(5), 3, None);
        let identities = |number| {
            let frame = batches.frame(number);
            let batch = v1::BatchCheckRequest::decode(single_message(&frame).unwrap()).unwrap();
            batch.checks.into_iter().map(|check| check.identity).collect::<Vec<_>>()
        };
        assert_eq!(batches.len(), 2);
        assert_eq!(identities(0), ["i0", "i1", "i2"]);
        assert_eq!(identities(1), ["i3", "i4", "i0"]);
        assert_eq!(identities(2), identities(0));

        let checks = Questions::new(Mode::Check, &questions(2), 64, None);
        let frame = checks.frame(3);
        let check = v1::CheckRequest::decode(single_message(&frame).unwrap()).unwrap();
        assert_eq!((checks.len(), check.identity.as_str()), (2, "i1"));
        assert_eq!(check.properties, None);
    }

    #[test]
    fn every_mode_sends_the_attributes() {
        let of = |name: &str, value| [(name.to_owned(), value)].into();
        let attributes = Attributes {
            subject: of("team", Value::String("a".into())),
            resource: of("draft", Value::Boolean(true)),
            action: of("hops", Value::Integer(2)),
            context: of("status", Value::String("b".into())),
        };
        let [identity, capability, resource] = ["i", "c", "r"].map(str::to_owned);
        let question = QuestionBuf { identity, capability, resource, attributes };

        let calls = Questions::new(Mode::Coalesced, std::slice::from_ref(&question), 64, None);
        let expected = Properties::default().subject("team", "a").resource("draft", true);
        let expected = expected.action("hops", 2).context("status", "b");
        let call = calls.call(7).unwrap();
        assert_eq!((&call.properties, &call.question), (&Some(expected), &question));
        assert_eq!((calls.len(), calls.checks_per_request()), (1, 1));
        assert_eq!(calls.expected(7).collect::<Vec<_>>(), [None]);

        let checks = Questions::new(Mode::Check, &[question], 1, None);
        let frame = checks.frame(0);
        let check = v1::CheckRequest::decode(single_message(&frame).unwrap()).unwrap();
        let properties = check.properties.unwrap();
        assert_eq!(properties.subject["team"], "a".into());
        assert_eq!(properties.resource["draft"], true.into());
        assert_eq!(properties.action["hops"], 2.0.into());
        assert_eq!(properties.context["status"], "b".into());
    }

    #[test]
    fn drawn_questions_have_expected_decisions() {
        let workload = Workload { groups: 9, identities: 50, bindings_per_identity: 3, seed: 5 };
        let catalog = Catalogs::default().get(CATALOG).unwrap();
        let model = Model::new(catalog, workload.facts()).unwrap();
        let drawn = of_policy(&model, 1_000);
        let snapshot = Snapshot::build(&model, 1).unwrap();
        let verify = Some((&snapshot, Timestamp::UNIX_EPOCH));
        let questions = Questions::new(Mode::Batch, &drawn, 300, verify);
        let expected: Vec<_> = (0..questions.len()).flat_map(|at| questions.expected(at)).collect();
        assert_eq!(expected.len(), 1_200);
        assert_eq!(expected[..200], expected[1_000..]);
        let allowed = expected[..1_000].iter().filter(|answer| **answer == Some(true)).count();
        assert!((400..900).contains(&allowed), "{allowed}");
        assert!(!expected.contains(&None));
    }

    #[test]
    fn questions_without_a_decision_expect_none_and_shift_no_other() {
        let workload = Workload { groups: 1, identities: 1, bindings_per_identity: 1, seed: 5 };
        let catalog = Catalogs::default().get(CATALOG).unwrap();
        let model = Model::new(catalog, workload.facts()).unwrap();
        let snapshot = Snapshot::build(&model, 1).unwrap();
        let drawn = of_policy(&model, 100);
        let good = drawn.iter().find(|question| {
            let question = question.question().unwrap();
            snapshot.check(&question, Timestamp::UNIX_EPOCH).is_ok_and(|found| found.allowed())
        });
        let good = good.unwrap().clone();
        let malformed = QuestionBuf { resource: "a//b".into(), ..good.clone() };
        let unknown = QuestionBuf { capability: "no.such".into(), ..good.clone() };
        let all = [malformed, good.clone(), unknown, good];
        let decided = decide(&snapshot, &all, Timestamp::UNIX_EPOCH);
        assert_eq!(decided, [None, Some(true), None, Some(true)]);
    }
}
