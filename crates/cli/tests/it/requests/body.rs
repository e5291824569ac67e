//! The properties of any request bytes. The fuzz target `request` includes this file, and the property
//! tests of the parent module use it.
//!
//! **Invariant**: bytes are decoded as in a server, and the answers of all RPCs are compared with each
//! other. An error is never an allow, and it names the invalid field.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::pin::{Pin, pin};
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};

use capstan_engine::{
    Attributes, CatalogFacts, Model, Properties, Reason, Snapshot, Timestamp, Value,
};
use capstan_policy::{Catalogs, load_policy};
use capstan_proto::codec::Codec;
use capstan_proto::plain::{self, BatchRequest};
use capstan_proto::v1;
use capstan_server::RequestError;
use capstan_server::ask::{Ask, Basis};
use capstan_server::grpc::answer;
use capstan_server::grpc::page::PageKey;
use capstan_server::limits::{BATCH_CHECKS_MAX, MESSAGE_BYTES_MAX, PAGE_DEFAULT, PAGE_MAX};
use capstan_server::methods::Rpc;
use capstan_testkit::Naive;
use prost::Message;
use prost_types::value::Kind;
use tonic::codec::{Codec as _, Streaming};
use tonic::codegen::Bytes;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// A small policy with every kind of binding. Names are short, so that randomly changed bytes often name
/// something that exists.
const POLICY: &str = "version: 1
catalog:
  name: small
  resources: [{name: repo, actions: [list, update]}, {name: repo.tag, actions: [list]}]
  capabilities: [gulf]
  roles:
    - {name: owner, owner: true, capabilities: [repo.list, repo.update, repo.tag.list, gulf]}
    - {name: viewer, capabilities: [repo.list, repo.tag.list]}
    - {name: idle}
groups: [{id: a}, {id: a/b}, {id: a/b/c}, {id: o}]
roles:
  - {id: a/puller, capabilities: [repo.list]}
  - {id: a/b/tagger, capabilities: [repo.tag.list, gulf]}
identities:
  - {id: al}
  - {id: ci, type: service, properties: {team: x, level: 1, on: true}}
  - {id: a/t, type: pull_token}
  - {id: no}
resources:
  - {id: a/b/r, type: repo, properties: {status: open}}
  - {id: rec, type: record, properties: {status: archived, n: 1}}
role_bindings:
  - {identity: al, role: owner, scope: a}
  - {identity: al, role: viewer, scope: o, expires_at: 2027-01-01T00:00:00Z}
  - {identity: ci, role: a/puller, scope: a/b, when: [{attribute: resource.status, equals: open}]}
  - {identity: ci, role: viewer, scope: a/b/c, when: [{attribute: context.n, equals: 1}]}
  - {identity: ci, role: owner, scope: a/b/c, when: [{attribute: subject.team, not_equals: x}]}
  - {identity: ci, role: owner, scope: o, when: [{attribute: action.ok, equals: true}]}
  - {identity: ci, role: idle, scope: o}
  - {identity: ci, role: viewer, scope: rec, when: [{attribute: resource.n, not_equals: 2}]}
  - {identity: a/t, role: a/b/tagger, scope: a/b, expires_at: 2026-11-21T00:00:00Z}
  - {identity: a/t, role: viewer, scope: a/b/r, expires_at: 2026-11-21T00:00:01Z}
  - {identity: no, role: viewer, scope: a, when: [{attribute: context.s, equals: ''}]}
";
/// 2026-11-21T00:00:00Z. One binding expires at this time, another one a second later.
const NOW: Timestamp = Timestamp::new(1_795_219_200, 0);
const REVISION: u64 = 7;
/// The highest length of the text about an invalid field.
const PROBLEM_BYTES_MAX: usize = 2_000;

struct Served {
    model: Model,
    catalog: CatalogFacts,
    snapshot: Snapshot,
}

static SILENT: LazyLock<Ask> = LazyLock::new(Ask::silent);
const KEY: PageKey = PageKey::new([7; 32]);

fn basis(snapshot: &Snapshot) -> Basis<'_> {
    Basis::new(Rpc::OTHER, snapshot, NOW)
}

static SERVED: LazyLock<Served> = LazyLock::new(|| {
    let loaded = load_policy(POLICY.as_bytes(), &Catalogs::default());
    let model = loaded.map(|loaded| loaded.model).map_err(|wrong| wrong.to_string()).unwrap();
    let snapshot = Snapshot::build(&model, REVISION).unwrap();
    Served { catalog: model.catalog().facts().clone(), model, snapshot }
});

/// The first byte selects the RPC; the rest is the message. Returns whether the request is answered.
pub(crate) fn request(bytes: &[u8]) -> bool {
    let Some((call, bytes)) = bytes.split_first() else { return false };
    match call % 6 {
        0 => {
            assert_names_read_without_decoding(bytes);
            decoded(bytes).is_some_and(|request| check(&request))
        }
        1 => {
            let names = names_read_without_decoding(bytes);
            decoded::<v1::BatchCheckRequest>(bytes).is_some_and(|request| {
                let of = |item: &v1::CheckItem| {
                    let v1::CheckItem { identity, capability, resource, .. } = item.clone();
                    [identity, capability, resource]
                };
                let same: Vec<_> = request.checks.iter().map(of).collect();
                assert!(names.is_none_or(|names| names == same));
                batch_check(&request)
            })
        }
        2 => decoded(bytes).is_some_and(|request| list_capabilities(&request)),
        3 => decoded(bytes).is_some_and(|request| list_identities(&request)),
        4 => decoded(bytes).is_some_and(|request| list_scopes(&request)),
        _ => decoded(bytes).is_some_and(|request| explain(&request)),
    }
}

// === Decoding ===

/// A request body in one frame.
struct Whole(Option<Bytes>);

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(http_body::Frame::data(bytes))))
    }
}

/// Decodes a message as a server does. Undecodable bytes must give INVALID_ARGUMENT.
fn decoded<M: Message + Default + Debug + 'static>(bytes: &[u8]) -> Option<M> {
    let length = u32::try_from(bytes.len()).unwrap();
    let framed = [&[0][..], &length.to_be_bytes(), bytes].concat();
    let body = Whole(Some(framed.into()));
    let decoder = Codec::<M, M>::default().decoder();
    let mut stream = Streaming::new_request(decoder, body, None, Some(MESSAGE_BYTES_MAX));
    let message = pin!(stream.message()).poll(&mut Context::from_waker(Waker::noop()));
    let direct = M::decode(bytes);
    match message {
        Poll::Ready(Ok(Some(message))) => {
            assert!(direct.is_ok_and(|direct| direct.encoded_len() == message.encoded_len()));
            let again = M::decode(&*message.encode_to_vec());
            assert!(again.is_ok_and(|again| again.encoded_len() == message.encoded_len()));
            Some(message)
        }
        Poll::Ready(Err(status)) => {
            assert!(direct.is_err(), "{status:?}");
            assert_field_error(&status);
            None
        }
        other => unreachable!("{other:?}"),
    }
}

/// If a check is read without decoding, the decoded request has the same names and no other fields.
fn assert_names_read_without_decoding(bytes: &[u8]) {
    if let Some([identity, capability, resource]) = plain::names(bytes) {
        let [identity, capability, resource] = [identity, capability, resource].map(Into::into);
        let plain = v1::CheckRequest { identity, capability, resource, ..Default::default() };
        assert_eq!(v1::CheckRequest::decode(bytes), Ok(plain));
    }
}

/// A batch that is read without decoding is equal to the decoded request. Returns its names, or `None`
/// if it was decoded or is invalid.
fn names_read_without_decoding(bytes: &[u8]) -> Option<Vec<[String; 3]>> {
    let decoded = v1::BatchCheckRequest::decode(bytes);
    let read = match BatchRequest::read(bytes.to_vec().into()) {
        Ok(read) => read,
        Err(status) => {
            assert!(decoded.is_err(), "{status:?}");
            assert_field_error(&status);
            return None;
        }
    };
    if let BatchRequest::TooMany(count) = read {
        assert!(count > BATCH_CHECKS_MAX);
        if let Ok(decoded) = decoded {
            assert_eq!(decoded.checks.len(), count);
        }
        return None;
    }
    let BatchRequest::Plain(plain) = &read else {
        // NaN is not equal to itself, so the lengths are compared.
        let length = decoded.unwrap().encoded_len();
        assert_eq!(read.decode().unwrap().encoded_len(), length);
        return None;
    };
    assert_eq!(plain.checks().is_err(), decoded.is_err());
    let names = plain.checks().ok()?.into_iter().map(|names| names.map(Into::into)).collect();
    assert_eq!(read.clone().decode().unwrap(), decoded.unwrap());
    Some(names)
}

/// Asserts the error of section 7 of the contract for a malformed field. Returns the field.
fn assert_field_error(status: &Status) -> String {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let info = status.get_details_error_info().unwrap();
    assert_eq!((&*info.domain, &*info.reason), ("capstan", "INVALID_FIELD"));
    assert!(status.message().len() <= PROBLEM_BYTES_MAX, "{status:?}");
    let field = info.metadata.get("field").unwrap();
    let good = |c: char| c.is_ascii_lowercase() || "_.".contains(c);
    assert!(field.chars().all(good), "{field:?}");
    field.clone()
}

/// Asserts that the error names one of these fields.
fn assert_field_in(error: RequestError, fields: &[&str]) {
    let RequestError::Field { field, problem } = &error else { unreachable!("{error:?}") };
    assert!(fields.contains(&&**field), "{error:?}");
    assert!(!problem.is_empty() && problem.len() <= PROBLEM_BYTES_MAX, "{error:?}");
    assert!(!problem.contains(char::is_control), "{error:?}");
    let field = field.clone();
    assert_eq!(assert_field_error(&Status::from(error)), field);
}

// === Calls ===

const QUESTION: [&str; 3] = ["identity", "capability", "resource"];

/// The answers of Check, BatchCheck, Explain, ListCapabilities and the naive model agree.
fn check(request: &v1::CheckRequest) -> bool {
    let snapshot = &SERVED.snapshot;
    let single = answer::check(&SILENT, basis(snapshot), request);
    let v1::CheckRequest { identity, capability, resource, properties, .. } = request.clone();
    let item = v1::CheckItem { identity, capability, resource, properties };
    let checks = vec![item.clone(), v1::CheckItem::default(), item];
    let batch = v1::BatchCheckRequest { checks, consistency: None };
    let batch = answer::batch_check(&SILENT, basis(snapshot), &batch.checks).unwrap();
    let [first, malformed, last] = &batch.results[..] else { unreachable!("{batch:?}") };
    assert!(!malformed.allowed && malformed.error.is_some(), "{malformed:?}");
    assert_eq!(first, last);
    assert_eq!(*first, as_item(&single), "{request:?}");
    let explained = explained(request);
    let same = explained.as_ref().map(|answer| (answer.allowed, answer.reason));
    assert_eq!(single.as_ref().map(|answer| (answer.allowed, answer.reason)), same);
    match single {
        Ok(answer) => {
            assert_consistent(request, &answer);
            assert_round_trip(&answer);
            true
        }
        Err(error) => {
            assert_field_in(error, &QUESTION);
            false
        }
    }
}

/// The result of a batch item for this answer of a single check.
fn as_item(single: &Result<v1::CheckResponse, RequestError>) -> v1::CheckResult {
    match single {
        Ok(v1::CheckResponse { allowed, reason, valid_until, .. }) => v1::CheckResult {
            allowed: *allowed,
            reason: *reason,
            error: None,
            valid_until: *valid_until,
        },
        Err(error) => {
            let (code, reason) = (Code::InvalidArgument.into(), "INVALID_FIELD".into());
            let message = error.to_string();
            let error = Some(v1::ItemError { code, reason, message });
            v1::CheckResult { error, ..Default::default() }
        }
    }
}

fn assert_consistent(request: &v1::CheckRequest, answer: &v1::CheckResponse) {
    let v1::CheckRequest { identity, capability, resource, properties, .. } = request;
    assert_eq!(answer.allowed, answer.reason() == v1::Reason::Granted, "{answer:?}");
    assert!(answer.allowed || answer.valid_until.is_none(), "{answer:?}");
    assert_eq!(answer.revision, REVISION);
    assert_naive_answer(request, answer);
    let listed = answer::list_capabilities(
        &SERVED.snapshot,
        &v1::ListCapabilitiesRequest {
            identity: identity.clone(),
            resource: resource.clone(),
            properties: properties.clone(),
            ..Default::default()
        },
        NOW,
    );
    let listed = listed.unwrap().capabilities;
    assert_eq!(listed.contains(capability), answer.allowed, "{request:?}: {listed:?}");
}

/// The naive model gives the same answer for the same properties.
fn assert_naive_answer(request: &v1::CheckRequest, answer: &v1::CheckResponse) {
    let v1::CheckRequest { identity, capability, resource, properties, .. } = request;
    let supplied = attributes(properties.as_ref());
    let naive = Naive::new(&SERVED.catalog, SERVED.model.facts(), &supplied, NOW);
    let (reason, until) = naive.check(identity, capability, resource).unwrap();
    let reason = format!("REASON_{}", Reason::as_str(reason));
    let until = until.map(|until| (until.seconds(), until.nanos().cast_signed()));
    assert_eq!(answer.reason().as_str_name(), reason, "{request:?}");
    assert_eq!(answer.valid_until.map(|until| (until.seconds, until.nanos)), until);
}

/// Section 3 of the contract: strings, booleans, and whole numbers within 2^53 - 1. Other values count as
/// absent.
fn attributes(properties: Option<&v1::Properties>) -> Attributes {
    const MAX: f64 = 9_007_199_254_740_991.0;
    let all = |found: &HashMap<String, prost_types::Value>| -> Properties {
        let value = |value: &prost_types::Value| match value.kind.clone()? {
            Kind::StringValue(text) => Some(Value::String(text)),
            Kind::BoolValue(value) => Some(Value::Boolean(value)),
            Kind::NumberValue(number) if (-MAX..=MAX).contains(&number) => {
                let digits = format!("{number:.1}");
                digits
                    .strip_suffix(".0")?
                    .parse()
                    .ok()
                    .filter(|_| number == number.trunc())
                    .map(Value::Integer)
            }
            _ => None,
        };
        found.iter().filter_map(|(name, found)| Some((name.clone(), value(found)?))).collect()
    };
    properties.map_or_else(Attributes::default, |properties| Attributes {
        subject: all(&properties.subject),
        resource: all(&properties.resource),
        action: all(&properties.action),
        context: all(&properties.context),
    })
}

/// Each item has the answer of a single check.
fn batch_check(request: &v1::BatchCheckRequest) -> bool {
    let answered = match answer::batch_check(&SILENT, basis(&SERVED.snapshot), &request.checks) {
        Ok(answered) => answered,
        Err(error) => {
            assert!(request.checks.len() > BATCH_CHECKS_MAX);
            assert_field_in(error, &["checks"]);
            return false;
        }
    };
    assert!(request.checks.len() <= BATCH_CHECKS_MAX);
    assert_eq!((answered.results.len(), answered.revision), (request.checks.len(), REVISION));
    for (item, result) in request.checks.iter().zip(&answered.results) {
        let v1::CheckItem { identity, capability, resource, properties } = item.clone();
        let consistency = None;
        let single = v1::CheckRequest { identity, capability, resource, properties, consistency };
        assert_eq!(
            *result,
            as_item(&answer::check(&SILENT, basis(&SERVED.snapshot), &single)),
            "{item:?}"
        );
        assert!(result.error.is_none() || !result.allowed && result.reason == 0, "{result:?}");
    }
    assert_round_trip(&answered);
    true
}

/// The listed capabilities are those that a check allows.
fn list_capabilities(request: &v1::ListCapabilitiesRequest) -> bool {
    let answered = match answer::list_capabilities(&SERVED.snapshot, request, NOW) {
        Ok(answered) => answered,
        Err(error) => {
            assert_field_in(error, &["identity", "resource"]);
            return false;
        }
    };
    let v1::ListCapabilitiesRequest { identity, resource, properties, .. } = request;
    let allowed = |name: &&str| allows(identity, name, resource, properties.as_ref());
    let expected: Vec<_> = SERVED.model.catalog().capabilities().filter(allowed).collect();
    assert_eq!(answered.capabilities, expected, "{request:?}");
    assert_eq!(answered.capabilities.is_empty(), answered.grants.is_empty(), "{answered:?}");
    assert_round_trip(&answered);
    true
}

/// The listed identities, over all pages, are the declared identities that a check allows. Conditional ones are denied.
fn list_identities(request: &v1::ListIdentitiesRequest) -> bool {
    let page = |token: String| {
        let request = v1::ListIdentitiesRequest { page_token: token, ..request.clone() };
        let page = answer::list_identities(&KEY, &SERVED.snapshot, &request, NOW)?;
        assert_round_trip(&page);
        assert!(request.include_conditional || page.conditional.is_empty(), "{request:?}");
        let held = page.identities.into_iter().map(|identity| (identity, true));
        let conditional = page.conditional.into_iter().map(|one| (one.identity, false));
        Ok((held.chain(conditional).collect(), page.next_page_token))
    };
    let fields = ["capability", "resource", "page_size", "page_token"];
    let Some(listed) = pages(request.page_size, &request.page_token, page, &fields) else {
        return false;
    };
    let v1::ListIdentitiesRequest { capability, resource, properties, .. } = request;
    let allowed = |who: &&str| allows(who, capability, resource, properties.as_ref());
    let mut expected: Vec<_> =
        SERVED.model.facts().identities.iter().map(|who| who.id.as_str()).collect();
    expected.retain(allowed);
    expected.sort_unstable();
    let (held, conditional): (Vec<_>, Vec<_>) = listed.iter().partition(|(_, held)| *held);
    let held: Vec<_> = held.into_iter().map(|(identity, _)| identity).collect();
    assert_eq!(held, expected, "{request:?}");
    assert!(!conditional.iter().any(|(identity, _)| allowed(&&**identity)), "{request:?}");
    true
}

/// A check at an unconditional listed scope allows. Every allowed resource is at or below a listed scope.
fn list_scopes(request: &v1::ListScopesRequest) -> bool {
    let page = |token: String| {
        let request = v1::ListScopesRequest { page_token: token, ..request.clone() };
        let page = answer::list_scopes(&KEY, &SERVED.snapshot, &request, NOW)?;
        assert_round_trip(&page);
        assert!(request.include_conditional || page.conditional.is_empty(), "{request:?}");
        let mut entries: BTreeMap<String, Option<v1::ScopeResult>> =
            page.conditional.into_iter().map(|one| (one.scope, None)).collect();
        entries.extend(page.scopes.into_iter().map(|one| (one.scope.clone(), Some(one))));
        Ok((entries.into_values().collect(), page.next_page_token))
    };
    let fields = ["identity", "capability", "properties.resource", "page_size", "page_token"];
    let Some(listed) = pages(request.page_size, &request.page_token, page, &fields) else {
        return false;
    };
    let v1::ListScopesRequest { identity, capability, properties, .. } = request;
    let listed: Vec<_> = listed.into_iter().flatten().collect();
    let properties = properties.as_ref();
    assert!(properties.is_none_or(|properties| properties.resource.is_empty()), "{request:?}");
    for place in &listed {
        let allowed = allows(identity, capability, &place.scope, properties);
        assert!(allowed || place.conditional, "{request:?}: {place:?}");
    }
    let facts = SERVED.model.facts();
    let groups = facts.groups.iter().map(|group| group.id.as_str());
    for scope in groups.chain(facts.resources.iter().map(|resource| resource.id.as_str())) {
        let below = |above: &str| scope == above || scope.starts_with(&format!("{above}/"));
        let covered = listed.iter().any(|place| below(&place.scope));
        assert!(covered || !allows(identity, capability, scope, properties), "{request:?} {scope}");
    }
    true
}

/// All pages of a list, starting with the page of this request. `None` if the request is refused.
fn pages<T: Clone>(
    size: i32,
    token: &str,
    page: impl Fn(String) -> Result<(Vec<T>, String), RequestError>,
    fields: &[&str],
) -> Option<Vec<T>> {
    let _ = answer::page_revision(token);
    let (mut all, mut next) = match page(token.to_owned()) {
        Ok(first) => first,
        Err(error) => {
            assert_field_in(error, fields);
            return None;
        }
    };
    assert!(token.is_empty() && size >= 0, "a forged token is accepted: {token:?}");
    let size = match usize::try_from(size).unwrap() {
        0 => PAGE_DEFAULT,
        size => size.min(PAGE_MAX),
    };
    assert!(all.len() <= size);
    while !next.is_empty() {
        assert_eq!(all.len() % size, 0, "only the last page may be shorter");
        assert_eq!(answer::page_revision(&next), Some(REVISION));
        let forged = page(next.replacen(|c: char| c.is_ascii_hexdigit(), "x", 1));
        assert_field_in(forged.err().unwrap(), &["page_token"]);
        let (more, after) = page(next).unwrap();
        assert!((1..=size).contains(&more.len()));
        all.extend(more);
        next = after;
    }
    Some(all)
}

fn explain(request: &v1::ExplainRequest) -> bool {
    let v1::ExplainRequest { identity, capability, resource, properties, consistency } =
        request.clone();
    check(&v1::CheckRequest { identity, capability, resource, properties, consistency })
}

/// Explains a check. An allow has a witness, and a deny names the missing capability.
fn explained(request: &v1::CheckRequest) -> Result<v1::ExplainResponse, RequestError> {
    let v1::CheckRequest { identity, capability, resource, properties, consistency } =
        request.clone();
    let request = v1::ExplainRequest { identity, capability, resource, properties, consistency };
    let answer = answer::explain(&SILENT, basis(&SERVED.snapshot), &request)?;
    let missing = if answer.allowed { vec![] } else { vec![request.capability.clone()] };
    assert_eq!(answer.missing, missing, "{request:?}");
    assert_eq!(answer.witness.is_some(), answer.allowed, "{answer:?}");
    assert!(answer.roles.is_empty() || !answer.allowed, "{answer:?}");
    assert_round_trip(&answer);
    Ok(answer)
}

/// Whether a check allows. An error is not an allow.
fn allows(
    identity: &str,
    capability: &str,
    resource: &str,
    properties: Option<&v1::Properties>,
) -> bool {
    let request = v1::CheckRequest {
        identity: identity.to_owned(),
        capability: capability.to_owned(),
        resource: resource.to_owned(),
        properties: properties.cloned(),
        consistency: None,
    };
    let answer = answer::check(&SILENT, basis(&SERVED.snapshot), &request);
    answer.iter().for_each(|answer| assert_naive_answer(&request, answer));
    answer.is_ok_and(|answer| answer.allowed)
}

/// Encoding and decoding do not change an answer.
fn assert_round_trip<M: Message + Default + PartialEq + Debug>(answer: &M) {
    let bytes = answer.encode_to_vec();
    assert!(M::decode(&*bytes).is_ok_and(|decoded| decoded == *answer), "{answer:?}");
}
