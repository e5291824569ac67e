//! The RPCs over gRPC: answers, error codes of the contract, limits.

use crate::common::InProcess;
use capstan_engine::Snapshot;
use capstan_policy::{Catalogs, load_policy};
use capstan_proto::iam::v1 as iam;
use capstan_proto::v1::{self, consistency::Mode};
use capstan_server::ask::{Ask, Basis};
use capstan_server::clock::Clock;
use capstan_server::feed::source::{DEMO, Source};
use capstan_server::grpc::answer;
use capstan_server::limits::BATCH_CHECKS_MAX;
use capstan_server::methods::Rpc;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

fn request(identity: &str, capability: &str, resource: &str) -> v1::CheckRequest {
    v1::CheckRequest {
        identity: identity.into(),
        capability: capability.into(),
        resource: resource.into(),
        ..Default::default()
    }
}

fn item(identity: &str, capability: &str, resource: &str) -> v1::CheckItem {
    let v1::CheckRequest { identity, capability, resource, .. } =
        request(identity, capability, resource);
    v1::CheckItem { identity, capability, resource, properties: None }
}

/// `ErrorInfo.reason` and its metadata `field`.
fn info(status: &Status) -> (String, String) {
    let info = status.get_details_error_info().expect("an error without ErrorInfo");
    assert_eq!(info.domain, "capstan");
    (info.reason, info.metadata.get("field").cloned().unwrap_or_default())
}

#[tokio::test]
async fn a_decision_has_a_reason_a_revision_and_an_expiry() {
    let server = InProcess::start(Source::Demo).await;
    let mut decisions = server.decisions();
    let mut check = async |identity, capability, resource| {
        let answer = decisions.check(request(identity, capability, resource)).await.unwrap();
        let answer = answer.into_inner();
        assert_eq!(answer.revision, 1);
        (answer.allowed, answer.reason(), answer.valid_until.map(|until| until.seconds))
    };
    use v1::Reason::*;
    let until_2036 = Some(2_082_758_400);
    assert_eq!(check("alice", "repo.delete", "acme/x").await, (true, Granted, None));
    assert_eq!(
        check("dave", "repo.list", "acme/platform/images/base").await,
        (true, Granted, until_2036)
    );
    assert_eq!(check("dave", "repo.list", "acme/platform").await, (false, Expired, None));
    assert_eq!(check("zoe", "repo.list", "acme").await, (false, UnknownIdentity, None));
    assert_eq!(check("bob", "repo.list", "acme").await, (false, NoBinding, None));
    assert_eq!(
        check("bob", "repo.delete", "acme/platform").await,
        (false, CapabilityNotInRole, None)
    );
}

#[tokio::test]
async fn malformed_questions_are_invalid_arguments_that_name_the_field() {
    let server = InProcess::start(Source::Demo).await;
    let mut decisions = server.decisions();
    let deep = vec!["s"; 17].join("/");
    let long = "x".repeat(129);
    let huge = "y/".repeat(600);
    let cases = [
        ("", "repo.list", "acme", "identity"),
        ("alice/", "repo.list", "acme", "identity"),
        ("alice", "", "acme", "capability"),
        ("alice", "repo.lst", "acme", "capability"),
        ("alice", "REPO.LIST", "acme", "capability"),
        ("alice", "*", "acme", "capability"),
        ("alice", "repo.list", "", "resource"),
        ("alice", "repo.list", "/acme", "resource"),
        ("alice", "repo.list", "acme//x", "resource"),
        ("alice", "repo.list", "acme/../beta", "resource"),
        ("alice", "repo.list", "acme/%2e%2e", "resource"),
        ("alice", "repo.list", "acme/x\n", "resource"),
        ("alice", "repo.list", "acme/x\0", "resource"),
        ("alice", "repo.list", "acme/é", "resource"),
        ("alice", "repo.list", &deep, "resource"),
        ("alice", "repo.list", &long, "resource"),
        ("alice", "repo.list", &huge, "resource"),
    ];
    for (identity, capability, resource, field) in cases {
        let status = decisions.check(request(identity, capability, resource)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{identity} {capability} {resource}");
        assert_eq!(info(&status), ("INVALID_FIELD".into(), field.into()));
        assert!(status.message().starts_with(field), "{}", status.message());
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, field);
    }
    for (identity, resource, field) in
        [("", "acme", "identity"), ("alice", "a//b", "resource"), ("a b", "", "identity")]
    {
        let request = v1::ListCapabilitiesRequest {
            identity: identity.into(),
            resource: resource.into(),
            ..Default::default()
        };
        let status = decisions.list_capabilities(request).await.unwrap_err();
        assert_eq!(info(&status), ("INVALID_FIELD".into(), field.into()));
    }
}

#[tokio::test]
async fn a_malformed_item_of_a_batch_does_not_affect_other_items() {
    let server = InProcess::start(Source::Demo).await;
    let checks = vec![
        item("alice", "repo.list", "acme"),
        item("alice", "repo.list", "acme//x"),
        item("alice", "nope", "acme"),
        item("bob", "repo.delete", "acme/platform"),
        item("", "repo.list", "acme"),
    ];
    let batch = v1::BatchCheckRequest { checks, consistency: None };
    let answer = server.decisions().batch_check(batch).await.unwrap().into_inner();
    assert_eq!(answer.revision, 1);
    let seen: Vec<_> = answer
        .results
        .iter()
        .map(|result| match &result.error {
            None => (result.allowed, result.reason().as_str_name().to_owned()),
            Some(error) => {
                assert!(!result.allowed);
                assert_eq!(error.code, i32::from(Code::InvalidArgument));
                (false, format!("{}: {}", error.reason, error.message))
            }
        })
        .collect();
    let expected = [
        (true, "REASON_GRANTED"),
        (
            false,
            "INVALID_FIELD: resource: segment 2 is empty: no leading, trailing or double slash",
        ),
        (
            false,
            "INVALID_FIELD: capability: catalog `chainguard-2025-08-14+errata` has no capability \
             `nope`",
        ),
        (false, "REASON_CAPABILITY_NOT_IN_ROLE"),
        (false, "INVALID_FIELD: identity: the path is empty"),
    ];
    assert_eq!(seen, expected.map(|(allowed, text)| (allowed, text.to_owned())));
}

#[tokio::test]
async fn a_batch_has_at_most_1000_checks() {
    let server = InProcess::start(Source::Demo).await;
    let batch = |length| v1::BatchCheckRequest {
        checks: vec![item("alice", "repo.list", "acme"); length],
        consistency: None,
    };
    let answer =
        server.decisions().batch_check(batch(BATCH_CHECKS_MAX)).await.unwrap().into_inner();
    assert_eq!(answer.results.len(), 1_000);
    assert!(answer.results.iter().all(|result| result.allowed));
    let status = server.decisions().batch_check(batch(BATCH_CHECKS_MAX + 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(info(&status), ("INVALID_FIELD".into(), "checks".into()));
    let none = server.decisions().batch_check(batch(0)).await.unwrap().into_inner();
    assert!(none.results.is_empty());
}

#[tokio::test]
async fn answers_have_the_required_revision_or_an_error() {
    let server = InProcess::start(Source::Demo).await;
    let mut decisions = server.decisions();
    let mut check = async |mode| {
        let consistency = Some(v1::Consistency { mode: Some(mode) });
        let request = v1::CheckRequest { consistency, ..request("alice", "repo.list", "acme") };
        decisions.check(request).await.map(|answer| answer.into_inner().revision)
    };
    assert_eq!(check(Mode::AtLeast(1)).await.unwrap(), 1);
    assert_eq!(check(Mode::FullyConsistent(true)).await.unwrap(), 1);
    let late = check(Mode::AtLeast(2)).await.unwrap_err();
    assert_eq!(late.code(), Code::Unavailable);
    assert_eq!(info(&late).0, "REVISION_NOT_AVAILABLE");
    assert!(late.get_details_retry_info().is_some());
    let other = check(Mode::AtLeast(1 << 40)).await.unwrap_err();
    assert_eq!(other.code(), Code::FailedPrecondition);
    assert_eq!(info(&other).0, "STORE_EPOCH");
}

#[tokio::test]
async fn list_capabilities_returns_capabilities_and_grants() {
    let server = InProcess::start(Source::Demo).await;
    let request = v1::ListCapabilitiesRequest {
        identity: "acme/platform/ci".into(),
        resource: "acme/platform/packages/musl".into(),
        ..Default::default()
    };
    let answer = server.decisions().list_capabilities(request).await.unwrap().into_inner();
    assert_eq!(answer.capabilities, ["apk.list", "groups.list"]);
    let [grant] = &answer.grants[..] else { panic!("one grant: {:?}", answer.grants) };
    assert_eq!(
        (&*grant.role, &*grant.scope, &grant.expires_at),
        ("apk.pull", "acme/platform/packages", &None)
    );
    assert!(grant.binding.starts_with("acme/platform/packages/"));

    let nobody = v1::ListCapabilitiesRequest {
        identity: "zoe".into(),
        resource: "acme".into(),
        ..Default::default()
    };
    let answer = server.decisions().list_capabilities(nobody).await.unwrap().into_inner();
    assert!(answer.capabilities.is_empty() && answer.grants.is_empty());
}

#[tokio::test]
async fn roles_are_listed_in_pages() {
    let server = InProcess::start(Source::Demo).await;
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = iam::ListRolesRequest { page_size: 5, page_token, ..Default::default() };
        let page = server.roles().list_roles(request).await.unwrap().into_inner();
        assert_eq!(page.catalog, "chainguard-2025-08-14+errata");
        assert!(page.roles.len() <= 5);
        names.extend(page.roles.into_iter().map(|role| role.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names.len(), 13);
    assert_eq!((&*names[0], &*names[12]), ("owner", "acme/release"));
    for (page_size, page_token, field) in [(-1, "", "page_size"), (5, "x", "page_token")] {
        let request = iam::ListRolesRequest {
            page_size,
            page_token: page_token.into(),
            ..Default::default()
        };
        let status = server.roles().list_roles(request).await.unwrap_err();
        assert_eq!(info(&status), ("INVALID_FIELD".into(), field.into()));
    }
}

#[tokio::test]
async fn a_stream_answers_each_batch_in_order_and_ends_at_the_first_error() {
    let server = InProcess::start(Source::Demo).await;
    let batch = |length: usize, identity: &str| v1::BatchCheckRequest {
        checks: vec![item(identity, "repo.delete", "acme"); length],
        consistency: None,
    };
    let batches = vec![batch(1, "alice"), batch(0, "alice"), batch(1_000, "bob"), batch(3, "a//b")];
    let open = server.decisions().stream_check(tokio_stream::iter(batches)).await.unwrap();
    let mut answers = open.into_inner();
    let mut seen = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        let errors = answer.results.iter().filter(|result| result.error.is_some()).count();
        let allowed = answer.results.iter().filter(|result| result.allowed).count();
        seen.push((answer.results.len(), allowed, errors, answer.revision));
    }
    assert_eq!(seen, [(1, 1, 0, 1), (0, 0, 0, 1), (1_000, 0, 0, 1), (3, 0, 3, 1)]);

    let batches = vec![batch(1, "alice"), batch(1_001, "alice"), batch(1, "alice")];
    let open = server.decisions().stream_check(tokio_stream::iter(batches)).await.unwrap();
    let mut answers = open.into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().results.len(), 1);
    let status = answers.message().await.unwrap_err();
    assert_eq!(info(&status), ("INVALID_FIELD".into(), "checks".into()));
    assert!(answers.message().await.unwrap().is_none());
}

#[tokio::test]
async fn list_identities_list_scopes_and_explain_answer_over_grpc() {
    let server = InProcess::start(Source::Demo).await;
    let mut decisions = server.decisions();
    let who = v1::ListIdentitiesRequest {
        capability: "apk.list".into(),
        resource: "acme/platform/packages".into(),
        page_size: 2,
        ..Default::default()
    };
    let mut names = Vec::new();
    let mut request = who.clone();
    loop {
        let page = decisions.list_identities(request.clone()).await.unwrap().into_inner();
        assert!(page.identities.len() <= 2);
        names.extend(page.identities);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(
        names,
        ["acme/auditor", "acme/platform/ci", "acme/platform/packages/puller", "alice", "bob"]
    );
    let places = v1::ListScopesRequest {
        identity: "acme/platform/ci".into(),
        capability: "groups.list".into(),
        ..Default::default()
    };
    let found = decisions.list_scopes(places.clone()).await.unwrap().into_inner();
    let found: Vec<_> = found.scopes.iter().map(|one| (&*one.scope, one.conditional)).collect();
    assert_eq!(found, [("acme/platform/packages", false)]);
    let mut why = async |identity: &str| {
        let request = v1::ExplainRequest {
            identity: identity.into(),
            capability: "subscriptions.create".into(),
            resource: "acme/platform/x".into(),
            ..Default::default()
        };
        decisions.explain(request).await.unwrap().into_inner()
    };
    let allowed = why("bob").await;
    assert_eq!((allowed.allowed, allowed.reason()), (true, v1::Reason::Granted));
    let witness = allowed.witness.unwrap();
    assert_eq!((&*witness.role, &*witness.scope), ("editor", "acme/platform"));
    assert!(allowed.missing.is_empty() && allowed.roles.is_empty());
    let denied = why("carol").await;
    assert_eq!((denied.allowed, denied.reason()), (false, v1::Reason::NoBinding));
    assert_eq!(denied.witness, None);
    assert_eq!(denied.missing, ["subscriptions.create"]);
    assert_eq!(denied.roles, ["editor", "owner"]);

    let mut decisions = server.decisions();
    let bad = [
        ("page_size", v1::ListIdentitiesRequest { page_size: -1, ..who.clone() }),
        ("page_token", v1::ListIdentitiesRequest { page_token: "x".into(), ..who.clone() }),
        ("capability", v1::ListIdentitiesRequest { capability: "x".into(), ..who.clone() }),
        ("resource", v1::ListIdentitiesRequest { resource: "/".into(), ..who.clone() }),
    ];
    for (field, request) in bad {
        let status = decisions.list_identities(request).await.unwrap_err();
        assert_eq!(info(&status), ("INVALID_FIELD".into(), field.into()));
    }
    // A token of a list with conditional entries is not one of the list without them, nor the other way round.
    for include_conditional in [false, true] {
        let request = v1::ListIdentitiesRequest { include_conditional, ..who.clone() };
        let page_token = decisions.list_identities(request.clone()).await.unwrap();
        let page_token = page_token.into_inner().next_page_token;
        let next = v1::ListIdentitiesRequest { page_token, ..request };
        assert!(decisions.list_identities(next.clone()).await.is_ok());
        let other = v1::ListIdentitiesRequest { include_conditional: !include_conditional, ..next };
        let status = decisions.list_identities(other).await.unwrap_err();
        assert_eq!(info(&status), ("INVALID_FIELD".into(), "page_token".into()));
    }
    let resource = [("a".to_owned(), prost_types::Value::default())].into();
    let properties = Some(v1::Properties { resource, ..Default::default() });
    let request = v1::ListScopesRequest { properties, ..places };
    let status = decisions.list_scopes(request).await.unwrap_err();
    assert_eq!(info(&status), ("INVALID_FIELD".into(), "properties.resource".into()));
}

/// Registered properties override supplied ones, and values of other kinds count as absent.
#[tokio::test]
async fn conditions_test_the_supplied_properties() {
    let file = crate::common::folder("conditions").join("policy.yaml");
    std::fs::write(
        &file,
        "version: 1\ncatalog: {name: c, resources: [{name: r, actions: [get]}],
          roles: [{name: reader, capabilities: [r.get]}]}
groups: [{id: acme}]
identities: [{id: a}, {id: b}, {id: c}]
resources: [{id: acme/old, type: r, properties: {status: archived}}]
role_bindings:
  - {identity: a, role: reader, scope: acme, when: [{attribute: resource.status, not_equals: archived}]}
  - {identity: b, role: reader, scope: acme, when: [{attribute: context.n, equals: 1}]}
  - {identity: c, role: reader, scope: acme, when: [{attribute: context.n, equals: 1}, {attribute: action.ok, equals: true}]}
",
    )
    .unwrap();
    let server = InProcess::start(Source::file(&file)).await;
    use prost_types::value::Kind;
    let check = async |identity: &str, resource: &str, supplied: &[(&str, &str, Kind)]| {
        let mut properties = v1::Properties::default();
        for (of, name, kind) in supplied {
            let into = match *of {
                "resource" => &mut properties.resource,
                "action" => &mut properties.action,
                _ => &mut properties.context,
            };
            into.insert((*name).into(), prost_types::Value { kind: Some(kind.clone()) });
        }
        let properties = Some(properties);
        let request = v1::CheckRequest { properties, ..request(identity, "r.get", resource) };
        server.decisions().check(request).await.unwrap().into_inner().reason()
    };
    use v1::Reason::{ConditionNotMet, Granted};
    let text = |text: &str| Kind::StringValue(text.into());
    let number = Kind::NumberValue;
    assert_eq!(check("a", "acme/new", &[]).await, ConditionNotMet, "an absent property");
    assert_eq!(check("a", "acme/new", &[("resource", "status", text("live"))]).await, Granted);
    assert_eq!(
        check("a", "acme/old", &[("resource", "status", text("live"))]).await,
        ConditionNotMet,
        "a registered property overrides a supplied one"
    );
    assert_eq!(check("b", "acme", &[("context", "n", number(1.0))]).await, Granted);
    for other in [number(1.5), text("1"), Kind::BoolValue(true), Kind::NullValue(0), number(1e300)]
    {
        assert_eq!(check("b", "acme", &[("context", "n", other)]).await, ConditionNotMet);
    }
    let both = [("context", "n", number(1.0)), ("action", "ok", Kind::BoolValue(true))];
    assert_eq!(check("c", "acme", &both).await, Granted);
    assert_eq!(check("c", "acme", &both[..1]).await, ConditionNotMet);
}

#[tokio::test]
async fn the_server_answers_as_the_engine() {
    let server = InProcess::start(Source::Demo).await;
    let policy = load_policy(DEMO.as_bytes(), &Catalogs::default()).unwrap();
    let snapshot = Snapshot::build(&policy.model, 1).unwrap();
    let facts = policy.model.facts();
    let scopes = facts.groups.iter().map(|group| &group.id);
    let ask = Ask::silent();
    let mut compared = 0;
    for scope in scopes.chain(facts.resources.iter().map(|resource| &resource.id)) {
        for identity in &facts.identities {
            let capabilities: Vec<_> = policy.model.catalog().capabilities().collect();
            let checks = capabilities
                .iter()
                .map(|capability| item(identity.id.as_str(), capability, scope.as_str()))
                .collect();
            let batch = v1::BatchCheckRequest { checks, consistency: None };
            let wire = server.decisions().batch_check(batch.clone()).await.unwrap().into_inner();
            let basis = Basis::new(Rpc::BATCH_CHECK, &snapshot, Clock::System.now());
            let engine = answer::batch_check(&ask, basis, &batch.checks).unwrap();
            assert_eq!(wire, engine);
            let list = v1::ListCapabilitiesRequest {
                identity: identity.id.to_string(),
                resource: scope.to_string(),
                ..Default::default()
            };
            let listed = server.decisions().list_capabilities(list).await.unwrap().into_inner();
            let checked = capabilities.iter().zip(&wire.results);
            let checked = checked.filter(|(_, result)| result.allowed).map(|(name, _)| *name);
            assert_eq!(listed.capabilities, checked.collect::<Vec<_>>());
            compared += wire.results.len();
        }
    }
    assert_eq!(compared, 9 * 15 * 64);
}
