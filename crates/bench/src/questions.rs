//! What is asked: questions drawn from a world or read from a file, encoded once.

use std::sync::Arc;

use capstan_client::{Check, Properties, Value};
use capstan_engine::{Facts, Model, Snapshot};
use capstan_proto::v1;
use prost::Message;
use prost_types::value::Kind;
use tonic::codegen::Bytes;

use super::load::Mode;
use super::workload::Draw;
use capstan_server::ask::{Ask, Basis};
use capstan_server::clock::Clock;
use capstan_server::grpc::answer;
use capstan_server::limits::BATCH_CHECKS_MAX;
use capstan_server::methods::Rpc;

/// Requests as they go over the wire or to the client, asked in turn and again from the start.
#[derive(Debug)]
pub struct Questions {
    pub mode: Mode,
    /// Each with its prefix; slices of one buffer. None if the client encodes them.
    frames: Vec<Bytes>,
    /// What the client is asked; nothing in the other modes.
    calls: Vec<Call>,
    requests: usize,
    checks_per_frame: usize,
    checks: usize,
    /// For each check what this process would answer; empty if nobody asked.
    expected: Vec<Option<bool>>,
}

/// A question to the client.
#[derive(Debug)]
pub struct Call {
    identity: String,
    capability: String,
    resource: String,
    properties: Option<Properties>,
}

impl Call {
    fn new(item: &v1::CheckItem) -> Self {
        let v1::CheckItem { identity, capability, resource, properties } = item.clone();
        Self { identity, capability, resource, properties: properties.map(supplied) }
    }

    pub fn check(&self) -> Check<'_> {
        let check = Check::new(&self.identity, &self.capability, &self.resource);
        self.properties.as_ref().map_or(check, |properties| check.properties(properties))
    }
}

impl Questions {
    /// Encodes the checks, so many a request. Without a snapshot the answers are not compared.
    pub fn new(
        mode: Mode,
        checks: &[v1::CheckItem],
        per_request: usize,
        verify: Option<&Snapshot>,
    ) -> Arc<Self> {
        let expected = verify.map_or_else(Vec::new, |snapshot| expect(snapshot, checks));
        let checks_per_frame = match mode {
            Mode::Check | Mode::Coalesced => 1,
            Mode::Batch | Mode::Stream => per_request.max(1),
        };
        let mut calls = Vec::new();
        let (count, mut framed, mut ends) = (checks.len(), Vec::new(), Vec::new());
        for first in (0..count).step_by(checks_per_frame) {
            // The last request is filled up from the start: all are of one size.
            let items = checks.iter().cycle().skip(first).take(checks_per_frame);
            match mode {
                Mode::Check => items.for_each(|item| frame(&mut framed, &check_request(item))),
                Mode::Coalesced => calls.extend(items.map(Call::new)),
                Mode::Batch | Mode::Stream => {
                    let checks = items.cloned().collect();
                    frame(&mut framed, &v1::BatchCheckRequest { checks, consistency: None });
                }
            }
            ends.push(framed.len());
        }
        let framed = Bytes::from(framed);
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let frames = starts.zip(&ends).map(|(start, end)| framed.slice(start..*end)).collect();
        let requests = ends.len();
        Arc::new(Self { mode, frames, calls, requests, checks_per_frame, checks: count, expected })
    }

    /// How many different requests there are.
    pub const fn len(&self) -> usize {
        self.requests
    }

    pub const fn checks_per_request(&self) -> usize {
        self.checks_per_frame
    }

    /// The request at this place, from 0, and again from the start after the last one.
    pub fn frame(&self, at: usize) -> Bytes {
        self.frames.get(at % self.requests.max(1)).cloned().unwrap_or_default()
    }

    /// The same for the client.
    pub fn call(&self, at: usize) -> Option<&Call> {
        self.calls.get(at % self.requests.max(1))
    }

    /// What its answer should be, check by check.
    pub fn expected(&self, at: usize) -> impl ExactSizeIterator<Item = Option<bool>> {
        let first = at % self.requests.max(1) * self.checks_per_frame;
        (first..first + self.checks_per_frame).map(move |check| {
            if self.expected.is_empty() {
                return None;
            }
            self.expected.get(check % self.checks).copied().flatten()
        })
    }
}

fn check_request(item: &v1::CheckItem) -> v1::CheckRequest {
    let v1::CheckItem { identity, capability, resource, properties } = item.clone();
    v1::CheckRequest { identity, capability, resource, properties, consistency: None }
}

type Supply = fn(Properties, String, Value) -> Properties;

/// What the client takes of these attributes: conditions can test nothing else, and what is absent
/// fails every test.
fn supplied(properties: v1::Properties) -> Properties {
    let v1::Properties { subject, resource, action, context } = properties;
    let mut supplied = Properties::default();
    let groups: [(_, Supply); 4] = [
        (subject, Properties::subject),
        (resource, Properties::resource),
        (action, Properties::action),
        (context, Properties::context),
    ];
    for (attributes, supply) in groups {
        for (name, value) in attributes {
            if let Some(value) = value.kind.and_then(scalar) {
                supplied = supply(supplied, name, value);
            }
        }
    }
    supplied
}

fn scalar(kind: Kind) -> Option<Value> {
    #[expect(clippy::cast_possible_truncation, reason = "it is whole, and saturates")]
    match kind {
        Kind::StringValue(text) => Some(text.into()),
        Kind::BoolValue(value) => Some(value.into()),
        Kind::NumberValue(number) if number.fract() == 0.0 => Some((number as i64).into()),
        _ => None,
    }
}

fn frame(to: &mut Vec<u8>, message: &impl Message) {
    to.push(0);
    to.extend(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX).to_be_bytes());
    // A vector has room for everything.
    let _ = message.encode(to);
}

fn expect(snapshot: &Snapshot, checks: &[v1::CheckItem]) -> Vec<Option<bool>> {
    let mut expected = Vec::with_capacity(checks.len());
    for checks in checks.chunks(BATCH_CHECKS_MAX) {
        let request = v1::BatchCheckRequest { checks: checks.to_vec(), consistency: None };
        let results = answer::batch_check(
            &Ask::silent(),
            Basis::new(Rpc::BATCH_CHECK, snapshot, Clock::System.now()),
            &request,
        )
        .map(|answer| answer.results)
        .unwrap_or_default();
        expected
            .extend(results.iter().map(|result| result.error.is_none().then_some(result.allowed)));
    }
    expected
}

/// So many questions about any policy, the same for the same one: half ask what a binding seems to
/// grant, half for any capability of the catalog at any binding's scope.
pub fn of_policy(model: &Model, count: u64) -> Vec<v1::CheckItem> {
    let (catalog, facts) = (model.catalog(), model.facts());
    let all: Vec<&str> = catalog.capabilities().collect();
    let mut draw = Draw::new(0);
    let question = |_| {
        let binding = draw.pick(&facts.role_bindings)?;
        let is_near = draw.below(2) == 0;
        let scope = if is_near { binding } else { draw.pick(&facts.role_bindings)? };
        let held = if is_near { held(model, facts, &binding.role) } else { &[][..] };
        let capability = match draw.pick(held) {
            Some(capability) => capability,
            None => *draw.pick(&all)?,
        };
        Some(v1::CheckItem {
            identity: binding.identity.as_str().into(),
            capability: capability.into(),
            resource: scope.scope.as_str().into(),
            properties: None,
        })
    };
    (0..count).filter_map(question).collect()
}

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

    use super::*;
    use crate::load::tally::unframed;
    use capstan_server::feed::source::Source;

    fn checks(count: usize) -> Vec<v1::CheckItem> {
        let item = |at| v1::CheckItem { identity: format!("i{at}"), ..v1::CheckItem::default() };
        (0..count).map(item).collect()
    }

    #[test]
    fn requests_hold_every_check_in_turn_and_are_of_one_size() {
        let questions = Questions::new(Mode::Batch, &checks(5), 3, None);
        let identities = |at| {
            let frame = questions.frame(at);
            let batch = v1::BatchCheckRequest::decode(unframed(&frame).unwrap()).unwrap();
            batch.checks.into_iter().map(|check| check.identity).collect::<Vec<_>>()
        };
        assert_eq!(questions.len(), 2);
        assert_eq!(identities(0), ["i0", "i1", "i2"]);
        assert_eq!(identities(1), ["i3", "i4", "i0"]);
        assert_eq!(identities(2), identities(0));

        let questions = Questions::new(Mode::Check, &checks(2), 64, None);
        let frame = questions.frame(3);
        let check = v1::CheckRequest::decode(unframed(&frame).unwrap()).unwrap();
        assert_eq!((questions.len(), check.identity.as_str()), (2, "i1"));
    }

    /// The last three are nothing that a condition can test.
    #[test]
    fn the_client_is_asked_with_the_attributes_that_conditions_can_test() {
        let of = |pairs: Vec<(&str, prost_types::Value)>| {
            pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
        };
        let properties = v1::Properties {
            subject: of(vec![("team", "a".into())]),
            resource: of(vec![("draft", true.into())]),
            action: of(vec![("hops", 2.0.into())]),
            context: of(vec![
                ("status", "b".into()),
                ("half", 0.5.into()),
                ("none", prost_types::Value { kind: None }),
                ("all", vec![prost_types::Value::from("b")].into()),
            ]),
        };
        let item = v1::CheckItem {
            identity: "i".into(),
            capability: "c".into(),
            resource: "r".into(),
            properties: Some(properties),
        };
        let questions = Questions::new(Mode::Coalesced, &[item], 64, None);
        let wanted = Properties::default().subject("team", "a").resource("draft", true);
        let wanted = wanted.action("hops", 2).context("status", "b");
        let call = questions.call(7).unwrap();
        assert_eq!(call.properties, Some(wanted));
        assert_eq!([&call.identity, &call.capability, &call.resource], ["i", "c", "r"]);
        assert_eq!((questions.len(), questions.checks_per_request()), (1, 1));
        assert_eq!(questions.expected(7).collect::<Vec<_>>(), [None]);
    }

    #[test]
    fn any_policy_can_be_asked_about_and_knows_its_answers() {
        let policy = Source::Demo.load(&Catalogs::default()).unwrap();
        let checks = of_policy(&policy.model, 1_000);
        let snapshot = Snapshot::build(&policy.model, 1).unwrap();
        let questions = Questions::new(Mode::Batch, &checks, 300, Some(&snapshot));
        let expected: Vec<_> = (0..questions.len()).flat_map(|at| questions.expected(at)).collect();
        assert_eq!(expected.len(), 1_200);
        assert_eq!(expected[..200], expected[1_000..]);
        let allowed = expected[..1_000].iter().filter(|answer| **answer == Some(true)).count();
        assert!((400..900).contains(&allowed), "{allowed}");
        assert!(!expected.contains(&None));
    }
}
