//! The management services over gRPC, on a store: who is let in, what each caller sees, and what a change answers.

use std::collections::BTreeSet;
use std::time::{Instant, SystemTime};

use crate::secrets::Channel;
use capstan_proto::iam::v1 as iam;
use capstan_proto::iam::v1::audit_service_client::AuditServiceClient;
use capstan_proto::iam::v1::group_service_client::GroupServiceClient;
use capstan_proto::iam::v1::identity_service_client::IdentityServiceClient;
use capstan_proto::iam::v1::role_binding_service_client::RoleBindingServiceClient;
use capstan_proto::v1;
use capstan_server::feed::journal::Store;
use capstan_server::feed::source::Source;
use capstan_server::server::{Config, Feed};
use prost_types::FieldMask;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

use super::{CALLER, bindings, groups, identities, refusal, resources};
use crate::common::{InProcess, PATIENCE, config, folder};

/// A server of the demo in a store in memory.
pub(super) async fn store() -> InProcess {
    let feed = Feed::Store(Store::Demo);
    let config = Config { feed, trust_caller_header: true, ..config(Source::Demo) };
    InProcess::start_with(config).await
}

/// The same, and a connection to its management socket.
pub(super) async fn store_of_operator(name: &str) -> (InProcess, Channel) {
    let path = folder(name).join("operator.sock");
    let feed = Feed::Store(Store::Demo);
    let config = Config {
        feed,
        management: Some(path.clone()),
        trust_caller_header: true,
        document_bytes_max: 64 << 20,
        ..config(Source::Demo)
    };
    let server = InProcess::start_with(config).await;
    let address: capstan_client::ServerAddress =
        format!("unix:{}", path.display()).parse().unwrap();
    let operator = address.endpoint().unwrap().connect().await.unwrap();
    (server, operator.into())
}

/// A request of a caller.
pub(super) fn of<T>(caller: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(CALLER, caller.parse().unwrap());
    request
}

fn get_group(id: &str) -> iam::GetGroupRequest {
    iam::GetGroupRequest { id: id.into(), consistency: None }
}

pub(super) fn create_group(parent: &str, id: &str) -> iam::CreateGroupRequest {
    let group = iam::Group { id: id.into(), name: "New".into(), ..Default::default() };
    let parent = parent.into();
    iam::CreateGroupRequest { parent, group: Some(group), ..Default::default() }
}

pub(super) fn bind(scope: &str, identity: &str, role: &str) -> iam::CreateRoleBindingRequest {
    let (identity, role) = (identity.into(), role.into());
    let role_binding = Some(iam::RoleBinding { identity, role, ..Default::default() });
    iam::CreateRoleBindingRequest { parent: scope.into(), role_binding, ..Default::default() }
}

pub(super) fn inner<T>(answer: Result<Response<T>, Status>) -> T {
    answer.unwrap().into_inner()
}

/// Nobody who is unknown, unregistered or disabled is let in, and all are told the same.
#[tokio::test]
async fn strangers_are_told_one_thing() {
    let server = store().await;
    let disabled = iam::Identity {
        id: "acme/platform/gone".into(),
        r#type: "service".into(),
        disabled: true,
        ..Default::default()
    };
    let create = iam::CreateIdentityRequest {
        parent: "acme/platform".into(),
        identity: Some(disabled),
        ..Default::default()
    };
    inner(identities(&server).create_identity(of("alice", create)).await);
    let mut told = vec![];
    for caller in [None, Some("mallory"), Some("acme/platform/gone")] {
        let read = get_group("acme");
        let list = iam::ListGroupsRequest::default();
        // Malformed as well: a stranger does not learn that.
        let write = create_group("acme//", "");
        let (read, list, write) = match caller {
            None => (Request::new(read), Request::new(list), Request::new(write)),
            Some(caller) => (of(caller, read), of(caller, list), of(caller, write)),
        };
        told.push(groups(&server).get_group(read).await.unwrap_err());
        told.push(groups(&server).list_groups(list).await.unwrap_err());
        told.push(groups(&server).create_group(write).await.unwrap_err());
    }
    for status in &told {
        assert_eq!(status.code(), Code::Unauthenticated);
        assert_eq!(status.get_details_error_info().unwrap().reason, "AUTHN_FAILED");
        assert_eq!(status.message(), told[0].message());
        assert_eq!(status.details(), told[0].details());
    }
    // Decisions are open, and so is the derivation of an id.
    let lookup = iam::LookupIdentityRequest { issuer: "i".into(), subject: "s".into() };
    assert!(identities(&server).lookup_identity(lookup).await.is_ok());
    let check = v1::CheckRequest {
        identity: "alice".into(),
        capability: "repo.list".into(),
        resource: "acme".into(),
        ..Default::default()
    };
    assert!(inner(server.decisions().check(check).await).allowed);
}

/// A group from its birth to its end, with etags, masks, revisions and a rehearsal.
#[tokio::test]
async fn a_group_is_created_changed_and_deleted() {
    let server = store().await;
    let mut groups = groups(&server);
    let before = inner(groups.get_group(of("alice", get_group("acme"))).await);

    let rehearsal =
        iam::CreateGroupRequest { validate_only: true, ..create_group("acme", "acme/new") };
    let rehearsed = inner(groups.create_group(of("alice", rehearsal)).await);
    assert_eq!(rehearsed.group.unwrap().id, "acme/new");
    let absent = groups.get_group(of("alice", get_group("acme/new"))).await.unwrap_err();
    assert_eq!(absent.code(), Code::NotFound);

    let created = inner(groups.create_group(of("alice", create_group("acme", "acme/new"))).await);
    let group = created.group.unwrap();
    assert!(created.revision > before.revision);
    assert_eq!((&*group.id, &*group.name), ("acme/new", "New"));
    assert!(!group.etag.is_empty() && group.create_time == group.update_time);
    let taken = groups.create_group(of("alice", create_group("acme", "acme/new"))).await;
    assert_eq!(refusal(taken).0, Code::AlreadyExists);
    let made = inner(groups.create_group(of("alice", create_group("acme/new", ""))).await);
    let made = made.group.unwrap().id;
    let segment = made.strip_prefix("acme/new/").unwrap();
    assert!(segment.len() == 16 && segment.bytes().all(|b| b.is_ascii_hexdigit()), "{made}");

    // Without a mask every field that is set; with `*` all; the etag must be the current one.
    let update = |name: &str, description: &str, etag: &str, mask: Option<&[&str]>| {
        let group = iam::Group {
            id: "acme/new".into(),
            name: name.into(),
            description: description.into(),
            etag: etag.into(),
            ..Default::default()
        };
        let paths = mask.map(|paths| paths.iter().map(|&path| path.into()).collect());
        let update_mask = paths.map(|paths| FieldMask { paths });
        of(
            "alice",
            iam::UpdateGroupRequest { group: Some(group), update_mask, ..Default::default() },
        )
    };
    let changed = inner(groups.update_group(update("", "d", &group.etag, None)).await);
    let changed = changed.group.unwrap();
    assert_eq!((&*changed.name, &*changed.description), ("New", "d"));
    assert_ne!(changed.etag, group.etag);
    let lost = groups.update_group(update("x", "", &group.etag, None)).await;
    assert_eq!(refusal(lost), (Code::Aborted, "CONFLICT".into(), String::new()));
    let mask = Some(&["description"][..]);
    let cleared = inner(groups.update_group(update("ignored", "", "", mask)).await);
    let cleared = cleared.group.unwrap();
    assert_eq!((&*cleared.name, &*cleared.description), ("New", ""));
    let replaced = inner(groups.update_group(update("", "all", "", Some(&["*"]))).await);
    assert_eq!(replaced.group.unwrap().name, "");
    let output = groups.update_group(update("", "", "", Some(&["create_time"]))).await;
    assert_eq!(refusal(output).2, "update_mask");

    let delete = |id: &str| {
        let id = id.into();
        of("alice", iam::DeleteGroupRequest { id, ..Default::default() })
    };
    let full = groups.delete_group(delete("acme/new")).await;
    assert_eq!(refusal(full), (Code::FailedPrecondition, "NOT_EMPTY".into(), String::new()));
    inner(groups.delete_group(delete(&made)).await);
    let deleted = inner(groups.delete_group(delete("acme/new")).await);
    let consistency = v1::consistency::Mode::AtLeast(deleted.revision);
    let consistency = Some(v1::Consistency { mode: Some(consistency) });
    let get = iam::GetGroupRequest { consistency, ..get_group("acme/new") };
    assert_eq!(groups.get_group(of("alice", get)).await.unwrap_err().code(), Code::NotFound);
}

/// A field of a refusal has its path in the request, whoever finds it: the conversion or the rules.
#[tokio::test]
async fn refused_fields_have_their_paths() {
    let server = store().await;
    let mut bindings = bindings(&server);
    let with = |change: fn(&mut iam::RoleBinding)| {
        let mut request = bind("acme/research", "dave", "viewer");
        change(request.role_binding.as_mut().unwrap());
        of("alice", request)
    };
    for (request, field) in [
        (with(|one| one.id = "acme/x/y".into()), "role_binding.id"),
        (with(|one| one.id = "acme//x".into()), "role_binding.id"),
        (with(|one| one.scope = "acme".into()), "role_binding.scope"),
        (with(|one| one.identity = "nobody".into()), "role_binding.identity"),
        (with(|one| one.role = "nothing".into()), "role_binding.role"),
        (with(|one| one.role = String::new()), "role_binding.role"),
        (
            with(|one| one.expires_at = Some(prost_types::Timestamp { seconds: 0, nanos: -1 })),
            "role_binding.expires_at",
        ),
        (with(|one| one.when = vec![iam::Condition::default()]), "role_binding.when[0].attribute"),
        (of("alice", iam::CreateRoleBindingRequest::default()), "role_binding"),
        (
            of(
                "alice",
                iam::CreateRoleBindingRequest {
                    request_id: "a b".into(),
                    ..bind("acme", "bob", "viewer")
                },
            ),
            "request_id",
        ),
    ] {
        let expected = (Code::InvalidArgument, "INVALID_FIELD".to_owned(), field.to_owned());
        assert_eq!(refusal(bindings.create_role_binding(request).await), expected);
    }
    let good = bind("acme/research", "carol", "editor").role_binding.unwrap();
    let bad = iam::RoleBinding { role: "nothing".into(), ..good.clone() };
    let batch = iam::BatchCreateRoleBindingsRequest {
        parent: "acme/research".into(),
        role_bindings: vec![good, bad],
        ..Default::default()
    };
    let refused = bindings.batch_create_role_bindings(of("alice", batch)).await;
    assert_eq!(refusal(refused).2, "role_bindings[1].role");
}

/// What is hidden is as what is absent, byte for byte; who lists groups is told what is missing.
#[tokio::test]
async fn hidden_and_absent_are_one() {
    let server = store().await;
    let get = |caller: &'static str, id: &'static str| {
        let mut groups = groups(&server);
        async move { groups.get_group(of(caller, get_group(id))).await }
    };
    // Bob is bound at the platform, and sees nothing beside it.
    assert!(get("bob", "acme/platform").await.is_ok());
    let hidden = get("bob", "acme/research").await.unwrap_err();
    let absent = get("bob", "acme/nothing").await.unwrap_err();
    assert_eq!(hidden.code(), Code::NotFound);
    let bytes = |status: &Status| {
        let trailers = status.metadata().clone().into_headers();
        let kept = trailers.iter().filter(|(name, _)| *name != "date");
        let kept: Vec<_> = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        (status.code(), status.message().to_owned(), status.details().to_owned(), kept)
    };
    assert_eq!(bytes(&hidden), bytes(&absent));

    // Within the platform bob may list groups, and is told what he lacks.
    let mut groups = groups(&server);
    let update = |id: &str| {
        let group = iam::Group { id: id.into(), name: "x".into(), ..Default::default() };
        iam::UpdateGroupRequest { group: Some(group), ..Default::default() }
    };
    let denied = groups.update_group(of("carol", update("acme/research"))).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let info = denied.get_details_error_info().unwrap();
    assert_eq!(info.reason, "MISSING_CAPABILITY");
    assert_eq!(info.metadata["scope"], "acme/research");
    assert_eq!(info.metadata["missing"], "groups.update");
    let hidden = groups.update_group(of("carol", update("acme/platform"))).await.unwrap_err();
    assert_eq!(bytes(&hidden), bytes(&absent));

    // The capability is judged on the path, before what is there.
    let role = |id: &str| iam::GetRoleRequest { id: id.into(), consistency: None };
    let ci = "acme/platform/ci";
    for id in ["acme/platform/packages/role", "acme/platform/packages/puller"] {
        let denied = server.roles().get_role(of(ci, role(id))).await.unwrap_err();
        assert_eq!(denied.get_details_error_info().unwrap().metadata["missing"], "roles.list");
    }
    let hidden = server.roles().get_role(of(ci, role("acme/release"))).await.unwrap_err();
    assert_eq!(bytes(&hidden), bytes(&absent));
    // Built-in roles are everybody's.
    assert!(server.roles().get_role(of(ci, role("owner"))).await.is_ok());
}

/// All ids of a list, in pages of two.
async fn ids_of(server: &InProcess, kind: &str, caller: &str) -> Vec<String> {
    let (mut all, mut page_token) = (vec![], String::new());
    loop {
        macro_rules! page {
            ($client:expr, $method:ident, $request:ident, $entries:ident) => {{
                let (page_size, page_token) = (2, page_token.clone());
                let request = iam::$request { page_size, page_token, ..Default::default() };
                let page = inner($client.$method(of(caller, request)).await);
                let ids: Vec<_> = page.$entries.into_iter().map(|one| one.id).collect();
                (ids, page.next_page_token)
            }};
        }
        let (ids, next) = match kind {
            "groups" => page!(groups(server), list_groups, ListGroupsRequest, groups),
            "roles" => page!(server.roles(), list_roles, ListRolesRequest, roles),
            "bindings" => {
                page!(bindings(server), list_role_bindings, ListRoleBindingsRequest, role_bindings)
            }
            "identities" => {
                page!(identities(server), list_identities, ListIdentitiesRequest, identities)
            }
            _ => page!(resources(server), list_resources, ListResourcesRequest, resources),
        };
        assert!(ids.len() <= 2);
        all.extend(ids);
        if next.is_empty() {
            let once: BTreeSet<_> = all.iter().collect();
            assert_eq!(once.len(), all.len(), "{kind} of {caller}: {all:?}");
            return all;
        }
        page_token = next;
    }
}

/// A list and a Get show the same, for every caller and every object.
#[tokio::test]
async fn a_list_has_what_a_get_answers() {
    let server = store().await;
    let callers = [
        "alice",
        "bob",
        "carol",
        "dave",
        "acme/auditor",
        "acme/platform/ci",
        "acme/research/libraries/java",
    ];
    for kind in ["groups", "roles", "bindings", "identities", "resources"] {
        let everything = {
            let mut all = ids_of(&server, kind, "alice").await;
            // What the owner of the only organization does not see.
            all.extend(["dave", "nothing", "acme/nothing"].map(String::from));
            all
        };
        for caller in callers {
            let listed: BTreeSet<_> = ids_of(&server, kind, caller).await.into_iter().collect();
            for id in &everything {
                macro_rules! get {
                    ($client:expr, $method:ident, $request:ident) => {{
                        let request = iam::$request { id: id.clone(), consistency: None };
                        $client.$method(of(caller, request)).await.map(|_| ())
                    }};
                }
                let got = match kind {
                    "groups" => get!(groups(&server), get_group, GetGroupRequest),
                    "roles" => get!(server.roles(), get_role, GetRoleRequest),
                    "bindings" => {
                        get!(bindings(&server), get_role_binding, GetRoleBindingRequest)
                    }
                    "identities" => get!(identities(&server), get_identity, GetIdentityRequest),
                    _ => get!(resources(&server), get_resource, GetResourceRequest),
                };
                assert_eq!(got.is_ok(), listed.contains(id), "{kind}: {caller} {id} {got:?}");
            }
            let unseen: Vec<_> = listed.iter().filter(|id| !everything.contains(id)).collect();
            assert!(unseen.is_empty(), "{kind}: {caller} lists {unseen:?}");
        }
    }
    // Each sees itself, and its own bindings.
    let java = "acme/research/libraries/java";
    assert_eq!(ids_of(&server, "identities", java).await, [java]);
    assert_eq!(ids_of(&server, "bindings", java).await.len(), 1);
    assert_eq!(ids_of(&server, "groups", java).await, [""; 0]);
}

/// Of a root identity whoever lists its bindings sees id, name and type.
#[tokio::test]
async fn root_identities_are_shown_in_part() {
    let server = store().await;
    let get = |caller: &'static str, id: &'static str| {
        let mut identities = identities(&server);
        let request = iam::GetIdentityRequest { id: id.into(), consistency: None };
        async move { identities.get_identity(of(caller, request)).await.map(Response::into_inner) }
    };
    let in_part = get("alice", "bob").await.unwrap().identity.unwrap();
    let expected = iam::Identity {
        id: "bob".into(),
        name: "Bob Brown".into(),
        r#type: "user".into(),
        ..Default::default()
    };
    assert_eq!(in_part, expected);
    let itself = get("bob", "bob").await.unwrap().identity.unwrap();
    assert!(!itself.etag.is_empty());
    assert_eq!(get("carol", "bob").await.unwrap_err().code(), Code::NotFound);
    let request =
        iam::ListIdentitiesRequest { filter: r#"etag = """#.into(), ..Default::default() };
    let listed = inner(identities(&server).list_identities(of("alice", request)).await).identities;
    assert!(listed.contains(&expected));
    assert!(listed.iter().all(|one| !one.id.contains('/')), "a filter sees what is shown");
}

/// A root identity is listed once, however many bindings show it, on whichever page.
#[tokio::test]
async fn an_identity_that_is_bound_often_is_listed_once() {
    let server = store().await;
    for at in 0..5 {
        let id = format!("acme/a{at}");
        inner(groups(&server).create_group(of("alice", create_group("acme", &id))).await);
        for (identity, role) in [("bob", "viewer"), ("carol", "viewer"), ("bob", "editor")] {
            inner(
                bindings(&server).create_role_binding(of("alice", bind(&id, identity, role))).await,
            );
        }
    }
    let mut all = vec![];
    for page_size in [1, 2, 3, 1_000] {
        let (mut ids, mut request) = (vec![], iam::ListIdentitiesRequest::default());
        request.page_size = page_size;
        loop {
            let page =
                inner(identities(&server).list_identities(of("alice", request.clone())).await);
            assert!(page.identities.len() <= request.page_size as usize);
            ids.extend(page.identities.into_iter().map(|one| one.id));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        for person in ["bob", "carol"] {
            assert_eq!(ids.iter().filter(|id| *id == person).count(), 1, "{page_size}: {ids:?}");
        }
        all.push(ids);
    }
    assert!(all.iter().all(|ids| *ids == all[0]), "{all:?}");
}

/// Who reads was seen, to the hour.
#[tokio::test]
async fn a_read_is_a_visit() {
    let server = store().await;
    let get = |caller: &'static str| {
        let mut identities = identities(&server);
        let request = iam::GetIdentityRequest { id: "acme/auditor".into(), consistency: None };
        async move { inner(identities.get_identity(of(caller, request)).await).identity.unwrap() }
    };
    assert_eq!(get("alice").await.last_seen, None);
    let mut first = get("acme/auditor").await;
    let begun = Instant::now();
    while first.last_seen.is_none() {
        assert!(begun.elapsed() < PATIENCE);
        first = get("alice").await;
    }
    let seen = first.last_seen.unwrap().seconds;
    assert_eq!(seen % 3_600, 0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert!((seen..seen + 2 * 3_600).contains(&i64::try_from(now).unwrap()));
    // It is no change.
    assert_eq!(first.update_time, first.create_time);
}

/// The pages of a list are of one revision, whatever is written meanwhile, and of one caller.
#[tokio::test]
async fn pages_are_of_one_revision_and_one_caller() {
    let server = store().await;
    let list = |caller: &'static str, page_token: String| {
        let mut groups = groups(&server);
        let request = iam::ListGroupsRequest { page_size: 3, page_token, ..Default::default() };
        async move { groups.list_groups(of(caller, request)).await.map(Response::into_inner) }
    };
    let first = list("alice", String::new()).await.unwrap();
    let token = first.next_page_token.clone();
    for at in 0..5 {
        let create = create_group("acme", &format!("acme/z{at}"));
        inner(groups(&server).create_group(of("alice", create)).await);
    }
    let second = list("alice", token.clone()).await.unwrap();
    assert_eq!(second.revision, first.revision);
    let third = list("alice", second.next_page_token.clone()).await.unwrap();
    let ids = [first.groups, second.groups, third.groups].concat();
    assert_eq!((ids.len(), third.next_page_token), (7, String::new()), "the groups of the demo");
    let latest = list("alice", String::new()).await.unwrap();
    assert_eq!(latest.revision & 0xff_ffff, (first.revision & 0xff_ffff) + 5);
    let other = refusal(list("bob", token.clone()).await);
    assert_eq!(other, (Code::InvalidArgument, "INVALID_FIELD".into(), "page_token".into()));
    // Who is disabled meanwhile gets no further page.
    let update = iam::UpdateIdentityRequest {
        identity: Some(iam::Identity {
            id: "acme/auditor".into(),
            disabled: true,
            ..Default::default()
        }),
        ..Default::default()
    };
    let token = list("acme/auditor", String::new()).await.unwrap().next_page_token;
    inner(identities(&server).update_identity(of("alice", update)).await);
    assert_eq!(refusal(list("acme/auditor", token).await).1, "AUTHN_FAILED");
}

/// A retry with the same request id answers what the first answered, and changes nothing.
#[tokio::test]
async fn a_request_id_makes_a_retry_safe() {
    let server = store().await;
    let mut bindings = bindings(&server);
    let create = |identity: &str| iam::CreateRoleBindingRequest {
        request_id: "7d1c".into(),
        ..bind("acme/research", identity, "acme/release")
    };
    let first = inner(bindings.create_role_binding(of("alice", create("carol"))).await);
    let again = inner(bindings.create_role_binding(of("alice", create("carol"))).await);
    assert_eq!(first, again);
    let other = bindings.create_role_binding(of("alice", create("dave"))).await;
    assert_eq!(refusal(other).2, "request_id");
    let check = |revision| v1::CheckRequest {
        identity: "carol".into(),
        capability: "repo.update".into(),
        resource: "acme/research".into(),
        consistency: Some(v1::Consistency { mode: Some(v1::consistency::Mode::AtLeast(revision)) }),
        ..Default::default()
    };
    let decided = inner(server.decisions().check(check(first.revision)).await);
    assert!(decided.allowed && decided.revision >= first.revision);
    let remove = iam::RemoveMemberRequest {
        organization: "acme".into(),
        identity: "carol".into(),
        ..Default::default()
    };
    let removed = inner(bindings.remove_member(of("alice", remove.clone())).await);
    assert!(!inner(server.decisions().check(check(removed.revision)).await).allowed);
    let nothing = inner(bindings.remove_member(of("alice", remove)).await);
    assert_eq!(nothing.revision, removed.revision);
}

/// The audit log shows changes and refusals, without how identities authenticate.
#[tokio::test]
async fn the_audit_log_has_changes_and_refusals() {
    let server = store().await;
    let identity = iam::Identity {
        id: "acme/platform/robot".into(),
        name: "Robot".into(),
        r#type: "service".into(),
        authentication: Some(iam::identity::Authentication::ClientCertificate(
            iam::ClientCertificate {
                spiffe_id: "spiffe://robots.example/one".into(),
                ..Default::default()
            },
        )),
        ..Default::default()
    };
    let create = iam::CreateIdentityRequest {
        parent: "acme/platform".into(),
        identity: Some(identity),
        ..Default::default()
    };
    let created = inner(identities(&server).create_identity(of("alice", create)).await);
    let refused = create_group("acme/research", "acme/research/mine");
    assert!(groups(&server).create_group(of("carol", refused)).await.is_err());

    let list = |caller: &'static str, filter: &str| {
        let mut audit = AuditServiceClient::new(server.channel.clone());
        let (parent, filter) = ("acme".to_owned(), filter.to_owned());
        let request = iam::ListAuditRecordsRequest { parent, filter, ..Default::default() };
        async move { audit.list_audit_records(of(caller, request)).await.map(Response::into_inner) }
    };
    let page = list("alice", r#"actor = "alice""#).await.unwrap();
    let [record] = &page.audit_records[..] else { panic!("{:?}", page.audit_records) };
    assert_eq!(record.revision, created.revision);
    assert_eq!(record.method, "IdentityService/CreateIdentity");
    assert_eq!((&*record.authentication, &*record.source), ("caller-header", "127.0.0.1"));
    assert_eq!((&*record.object, record.code), ("acme/platform/robot", 0));
    assert!(record.before.is_none() && record.digest.len() == 64);
    let after = &record.after.as_ref().unwrap().fields;
    let names: Vec<_> = after.keys().map(String::as_str).collect();
    assert_eq!(names, ["id", "name", "type"], "no proof of who it is");

    let page = list("alice", r#"actor = "carol""#).await.unwrap();
    let [record] = &page.audit_records[..] else { panic!("{:?}", page.audit_records) };
    assert_eq!((&*record.reason, &*record.scope), ("MISSING_CAPABILITY", "acme/research"));
    assert_eq!(record.missing, ["groups.create"]);
    assert!(record.after.is_none());

    assert_eq!(list("carol", "").await.unwrap_err().code(), Code::NotFound);
    assert!(list("acme/auditor", "").await.is_ok());
}

/// The operator makes organizations, which nobody else may.
#[tokio::test]
async fn the_operator_makes_organizations() {
    let (server, operator) = store_of_operator("operator").await;
    let person = iam::Identity { id: "erin".into(), ..Default::default() };
    let person = iam::CreateIdentityRequest { identity: Some(person), ..Default::default() };
    let mut identities = IdentityServiceClient::new(operator.clone());
    inner(identities.create_identity(person.clone()).await);

    let organization =
        iam::CreateGroupRequest { owner: "erin".into(), ..create_group("", "globex") };
    let refused = groups(&server).create_group(of("alice", organization.clone())).await;
    assert!(matches!(refusal(refused).0, Code::NotFound | Code::PermissionDenied));
    let mut groups = GroupServiceClient::new(operator.clone());
    inner(groups.create_group(organization).await);
    // The owner of one organization sees nothing of the other.
    assert_eq!(ids_of(&server, "groups", "erin").await, ["globex"]);
    assert!(!ids_of(&server, "groups", "alice").await.contains(&"globex".into()));
    let all = inner(groups.list_groups(iam::ListGroupsRequest::default()).await).groups;
    assert!(all.len() > 7);
    // Not even the operator takes the last owner.
    let mut bindings = RoleBindingServiceClient::new(operator);
    let remove = iam::RemoveMemberRequest {
        organization: "globex".into(),
        identity: "erin".into(),
        ..Default::default()
    };
    let kept = bindings.remove_member(remove).await;
    assert_eq!(refusal(kept), (Code::FailedPrecondition, "LAST_OWNER".into(), String::new()));
}
