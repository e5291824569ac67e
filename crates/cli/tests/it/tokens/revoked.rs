//! What was proved once, and is not any more: keys that end, roles of a stream, the body of a call that comes late, and roles
//! that another organization has no say in.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use capstan_proto::iam::v1 as iam;
use capstan_proto::iam::v1::group_role_mapping_service_client::GroupRoleMappingServiceClient;
use capstan_proto::iam::v1::policy_service_client::PolicyServiceClient;
use capstan_server::limits::SESSION_ROLES_MAX;
use jsonwebtoken::Algorithm;
use serde_json::json;
use tonic::Request;

use super::{Caller, Key, World, key_set, now, with};
use crate::common::PATIENCE;
use crate::raw::{self, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, framed};

/// Keys of an identity's own end, also for a token that is remembered and would count longer.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_end_prove_nothing_more() {
    let world = World::start().await;
    let caller = world.caller().await;
    let ends = now() + 5;
    let end = prost_types::Timestamp { seconds: ends, nanos: 0 }.to_string();
    world.keys_of_bot("update", &key_set(&[&world.bot]), &["--expires-at", &end]);
    let token = world.bot.sign(&world.of_bot());
    let bearer = format!("Bearer {token}");
    let metadata = [("authorization", &*bearer), ("x-capstan-caller", "acme/bot")];
    let found = caller.who(&metadata).await.unwrap();
    assert_eq!(found.expires_at.unwrap().seconds, ends, "before the token");
    let began = Instant::now();
    while caller.by(&token, Some("acme/bot")).await.is_ok() {
        assert!(began.elapsed() < PATIENCE, "they count for ever");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(now() >= ends, "not before");
}

/// A stream has the roles that its token would carry now.
#[tokio::test(flavor = "multi_thread")]
async fn roles_of_a_stream_end_with_what_gave_them() {
    let world = World::start().await;
    let caller = world.caller().await;
    let people = world.issuers.url("people");
    world.operate(&[
        "identity-providers",
        "create",
        "acme/people",
        "--issuer",
        &people,
        "--default-role",
        "viewer",
    ]);
    let bound = world.operate(&["role-bindings", "list", "--identity", &world.ann, "-o", "id"]);
    world.operate(&["role-bindings", "delete", bound.trim(), "--yes"]);
    let token = world.people.sign(&world.of_ann());
    let mut request = Request::new(iam::WatchRequest { parent: "acme".into(), start_revision: 0 });
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let mut policy = PolicyServiceClient::new(caller.0.clone());
    let mut watch = policy.watch(request).await.unwrap().into_inner();
    world.operate(&["folders", "create", "seen", "--parent", "acme"]);
    while watch.message().await.unwrap().unwrap().changes.is_empty() {}
    // The provider takes other tokens from now on: ann comes with none of them.
    world.operate(&["identity-providers", "update", "acme/people", "--client-id", "other"]);
    world.operate(&["folders", "create", "unseen", "--parent", "acme"]);
    let ended = loop {
        match watch.message().await {
            Ok(response) => {
                let changes = response.unwrap().changes;
                assert!(changes.iter().all(|change| change.id != "acme/unseen"), "{changes:?}");
            }
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), tonic::Code::NotFound, "{ended:?}");
}

/// A call is judged when its body is there: its credential may have been taken away since its head.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_late_finds_its_credential_gone() {
    let world = World::start().await;
    world.operate(&[
        "role-bindings",
        "create",
        "--identity",
        "acme/bot",
        "--role",
        "owner",
        "--group",
        "acme",
    ]);
    let token = world.bot.sign(&world.of_bot());
    let create = |id: &str| {
        framed(&iam::CreateGroupRequest {
            parent: "acme".into(),
            group: Some(iam::Group { id: id.into(), ..Default::default() }),
            ..Default::default()
        })
    };
    let head = || {
        let mut block = raw::header_block("/capstan.iam.v1.GroupService/CreateGroup");
        block.extend(raw::literal(0, "authorization", &format!("Bearer {token}")));
        block.extend(raw::literal(0, "x-capstan-caller", "acme/bot"));
        block
    };
    let mut peer =
        Frames::connect(world.server.address("grpc").parse::<SocketAddr>().unwrap()).await;
    peer.send(HEADERS, END_HEADERS, 1, &head()).await;
    peer.send(DATA, END_STREAM, 1, &create("acme/early")).await;
    assert!(peer.answer(1).await.is_some(), "made");
    peer.send(HEADERS, END_HEADERS, 3, &head()).await;
    // The head was read once a later call of the connection is answered.
    peer.send(HEADERS, END_HEADERS, 5, &head()).await;
    peer.send(DATA, END_STREAM, 5, &create("acme/between")).await;
    assert!(peer.answer(5).await.is_some(), "made");
    let next = Key::new("b2", Algorithm::EdDSA);
    world.keys_of_bot("update", &key_set(&[&next]), &["--ttl", "30d"]);
    peer.send(DATA, END_STREAM, 3, &create("acme/late")).await;
    assert_eq!(peer.answer(3).await, None, "an error");
    let groups = world.operate(&["folders", "list", "--parent", "acme", "-o", "id"]);
    assert!(groups.contains("acme/between") && !groups.contains("acme/late"), "{groups}");
}

/// However many roles another organization has for the same groups, those of the first one are carried.
#[tokio::test(flavor = "multi_thread")]
async fn another_organization_takes_no_role_away() {
    let world = World::start().await;
    let caller = world.caller().await;
    let people = world.issuers.url("people");
    world.operate(&["organizations", "create", "aaa", "--owner", "alice"]);
    for organization in ["aaa", "acme"] {
        let id = format!("{organization}/people");
        world.operate(&[
            "identity-providers",
            "create",
            &id,
            "--issuer",
            &people,
            "--groups-claim",
            "groups",
        ]);
    }
    world.operate(&["folders", "create", "shop", "--parent", "acme"]);
    world.operate(&[
        "group-role-mappings",
        "create",
        "--provider",
        "acme/people",
        "--external-group",
        "staff",
        "--role",
        "editor",
        "--scope",
        "acme/shop",
    ]);
    // As many of `aaa` as are carried of one organization, and more.
    let mut groups = iam::group_service_client::GroupServiceClient::new(world.operator().await);
    let mut mappings = GroupRoleMappingServiceClient::new(world.operator().await);
    for at in 0..SESSION_ROLES_MAX + 8 {
        let id = format!("aaa/f{at}");
        let group = Some(iam::Group { id: id.clone(), ..Default::default() });
        let request = iam::CreateGroupRequest { parent: "aaa".into(), group, ..Default::default() };
        groups.create_group(request).await.unwrap();
        let (external_group, role) = ("staff".into(), "viewer".into());
        let mapping =
            iam::GroupRoleMapping { external_group, role, scope: id, ..Default::default() };
        let request = iam::CreateGroupRoleMappingRequest {
            parent: "aaa/people".into(),
            group_role_mapping: Some(mapping),
            ..Default::default()
        };
        mappings.create_group_role_mapping(request).await.unwrap();
    }
    let staff = world.people.sign(&with(world.of_ann(), "groups", json!(["staff"])));
    let bearer = format!("Bearer {staff}");
    let found = caller.who(&[("authorization", &*bearer)]).await.unwrap();
    let of_aaa = found.scopes.iter().filter(|one| one.scope.starts_with("aaa/")).count();
    assert_eq!(of_aaa, SESSION_ROLES_MAX);
    assert!(found.scopes.iter().any(|one| one.scope == "acme/shop"), "{:?}", found.scopes.last());
    Caller::assert_refused(caller.by("a.b.c", None).await, "no token");
}
