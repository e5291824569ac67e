//! Group invites over gRPC: what is shown when, who joins, and what a restart keeps.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use super::{CATALOG, Caller, Data, person, reason};

const CREATE: &str = "GroupInviteService/CreateGroupInvite";
const ACCEPT: &str = "GroupInviteService/AcceptGroupInvite";

fn create(role: &str, more: &Value) -> Value {
    let mut request = json!({"parent": "acme", "group_invite": {"role": role}});
    for (name, value) in more.as_object().unwrap() {
        match name.as_str() {
            "request_id" | "ttl" | "validate_only" => request[name] = value.clone(),
            _ => request["group_invite"][name] = value.clone(),
        }
    }
    request
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} of {value}"))
}

/// Accepts as somebody with a verified e-mail address.
async fn accept_with_email(caller: &Caller, code: &str, email: &str) -> Result<(), tonic::Status> {
    let message = capstan_proto::iam::v1::AcceptGroupInviteRequest {
        code: code.into(),
        ..Default::default()
    };
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-capstan-caller-email", email.parse().unwrap());
    let path = format!("/capstan.iam.v1.{ACCEPT}");
    let answered = caller.send(&path, request).await;
    answered.map(|_: tonic::Response<capstan_proto::iam::v1::AcceptGroupInviteResponse>| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_shown_once_and_again_to_a_retry_of_the_same_process() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let alice = server.caller("alice").await;
    let request = create("viewer", &json!({"name": "Ann", "request_id": "r1", "ttl": "3600s"}));
    let made = alice.json(CREATE, &request).await.unwrap();
    let (invite, code) = (&made["group_invite"], text(&made, "code"));
    assert!(code.starts_with("capstan_inv_") && code.len() == 71, "{code}");
    assert_eq!((text(invite, "role"), &invite["single_use"]), ("viewer", &json!(true)));
    assert_eq!(alice.json(CREATE, &request).await.unwrap(), made);
    let mut other = request.clone();
    other["ttl"] = "3601s".into();
    assert_eq!(reason(&alice.json(CREATE, &other).await.unwrap_err()), "INVALID_FIELD");
    let mut checked = request.clone();
    checked["validate_only"] = true.into();
    let checked = alice.json(CREATE, &checked).await.unwrap();
    assert!(checked.get("code").is_none());

    // What lists, reads, the audit log and an export say has no code.
    let id = json!({"id": text(invite, "id")});
    let got = alice.json("GroupInviteService/GetGroupInvite", &id).await.unwrap();
    assert_eq!(&got["group_invite"], invite);
    let filter = json!({"parent": "acme", "filter": "single_use = \"true\" AND role = \"viewer\""});
    let listed = alice.json("GroupInviteService/ListGroupInvites", &filter).await.unwrap();
    assert_eq!(listed["group_invites"], json!([invite]));
    let none = json!({"filter": "single_use = \"false\""});
    let none = alice.json("GroupInviteService/ListGroupInvites", &none).await.unwrap();
    assert!(none.get("group_invites").is_none());
    let audited =
        alice.json("AuditService/ListAuditRecords", &json!({"parent": "acme"})).await.unwrap();
    assert!(audited.to_string().contains("Ann"));
    let hash = capstan_iam::Secret::parse(capstan_iam::SecretKind::GroupInvite, code).unwrap();
    let hex: String = hash.hash().bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    for said in [got, listed, audited] {
        let said = said.to_string();
        assert!(!said.contains(&code[12..]) && !said.contains(&hex), "{said}");
    }

    // A restart forgets the code, not the invite.
    drop(server);
    let server = data.start();
    let alice = server.caller("alice").await;
    let refused = alice.json(CREATE, &request).await.unwrap_err();
    assert_eq!(
        (refused.code(), &*reason(&refused)),
        (Code::FailedPrecondition, "TOKEN_ALREADY_ISSUED")
    );
    let new = server.caller(&person(1)).await;
    let accept = json!({"code": code, "request_id": "a1"});
    let joined = new.json(ACCEPT, &accept).await.unwrap();
    assert_eq!(text(&joined["role_binding"], "identity"), person(1));
    assert!(new.check(&person(1), "repo.list", "acme/x").await.allowed);
    // A retry has the same answer, also after another restart; another code is another request.
    assert_eq!(new.json(ACCEPT, &accept).await.unwrap(), joined);
    drop(server);
    let server = data.start();
    let new = server.caller(&person(1)).await;
    assert_eq!(new.json(ACCEPT, &accept).await.unwrap(), joined);
    let other = json!({"code": "capstan_inv_", "request_id": "a1"});
    assert_eq!(reason(&new.json(ACCEPT, &other).await.unwrap_err()), "INVALID_FIELD");
    let refused = server.caller(&person(2)).await.json(ACCEPT, &accept).await.unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused)), (Code::NotFound, "INVITE_INVALID"));
}

/// A single-use invite accepted by 100 callers at once: one joins (A17).
#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_callers_at_once_one_joins() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let alice = server.caller("alice").await;
    for round in 0..3 {
        let made = alice.json(CREATE, &create("viewer", &json!({}))).await.unwrap();
        let code = json!({"code": text(&made, "code")});
        let mut callers = vec![];
        for at in 0..100 {
            callers.push(server.caller(&person(1_000 * round + at)).await);
        }
        let tries = callers.iter().map(|caller| caller.json(ACCEPT, &code));
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for answer in futures_util::future::join_all(tries).await {
            let told = match answer {
                Ok(joined) => {
                    assert_eq!(text(&joined["role_binding"], "role"), "viewer");
                    "joined".to_owned()
                }
                Err(status) => {
                    assert_eq!(status.code(), Code::NotFound, "{status:?}");
                    format!("{} {}", reason(&status), status.message())
                }
            };
            *seen.entry(told).or_default() += 1;
        }
        assert_eq!(seen.len(), 2, "one text: {seen:?}");
        assert_eq!(seen["joined"], 1);
        let (bindings, _) = alice.bindings("acme").await;
        assert_eq!(bindings.len(), 2 + round, "the owner's, and one of each round");
    }
}

/// Why a creator cannot invite any more is for those who may list invites, also if somebody tried to accept one.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_accept_is_audited_for_those_who_list_invites() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let alice = server.caller("alice").await;
    let lists = ["groups.list", "identity.list", "role_bindings.list", "roles.list"];
    let role = json!({"parent": "acme", "role": {"id": "acme/auditor", "capabilities": lists}});
    alice.json("RoleService/CreateRole", &role).await.unwrap();
    let bind = |identity: &str, role: &str| {
        json!({"parent": "acme", "role_binding":
            {"identity": identity, "role": role, "scope": "acme"}})
    };
    let mut bound = vec![];
    for (id, role) in [("acme/auditing", "acme/auditor"), ("acme/inviting", "owner")] {
        let identity = json!({"parent": "acme", "identity": {"id": id, "type": "service"}});
        alice.json("IdentityService/CreateIdentity", &identity).await.unwrap();
        let method = "RoleBindingService/CreateRoleBinding";
        bound.push(alice.json(method, &bind(id, role)).await.unwrap());
    }
    let inviting = server.caller("acme/inviting").await;
    let made = inviting.json(CREATE, &create("viewer", &json!({}))).await.unwrap();
    let binding = json!({"id": bound[1]["role_binding"]["id"]});
    alice.json("RoleBindingService/DeleteRoleBinding", &binding).await.unwrap();
    let code = json!({"code": text(&made, "code")});
    let refused = server.caller(&person(5)).await.json(ACCEPT, &code).await.unwrap_err();
    assert_eq!(reason(&refused), "INVITE_INVALID");
    for (who, is_seen) in [("alice", true), ("acme/auditing", false)] {
        let audited = server.caller(who).await;
        let of = json!({"parent": "acme"});
        let audited = audited.json("AuditService/ListAuditRecords", &of).await.unwrap();
        let audited = audited.to_string();
        assert!(audited.contains("RoleBindingService/DeleteRoleBinding"), "{audited}");
        assert_eq!(audited.contains(ACCEPT), is_seen, "{who}: {audited}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_is_refused_with_its_reason() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let (alice, operator) = (server.caller("alice").await, server.operator().await);
    let with = |name: &str, value: Value| create("viewer", &json!({name: value}));
    for (request, field) in [
        (with("ttl", "0s".into()), "ttl"),
        (with("ttl", "-1s".into()), "ttl"),
        (with("ttl", "2592001s".into()), "ttl"),
        (with("email", "ann".into()), "group_invite.email"),
        (with("role", "".into()), "group_invite.role"),
        (with("role", "none".into()), "group_invite.role"),
        (with("expires_at", "2099-01-01T00:00:00Z".into()), "group_invite.expires_at"),
        (create("owner", &json!({})), "group_invite.email"),
        (json!({"parent": "acme"}), "group_invite"),
        (with("request_id", "a b".into()), "request_id"),
    ] {
        for caller in [&alice, &operator] {
            let refused = caller.json(CREATE, &request).await.unwrap_err();
            let info = refused.get_details_error_info().unwrap();
            let seen = (&*info.reason, &*info.metadata["field"]);
            assert_eq!(seen, ("INVALID_FIELD", field), "{request}");
        }
    }
    // For one address, whatever the case of its domain.
    let owner = create("owner", &json!({"email": "ann@example.com"}));
    let made = alice.json(CREATE, &owner).await.unwrap();
    let code = text(&made, "code");
    let ann = server.caller(&person(1)).await;
    let refused = ann.json(ACCEPT, &json!({"code": code})).await.unwrap_err();
    assert_eq!(reason(&refused), "INVITE_INVALID");
    let refused = accept_with_email(&ann, code, "bob@example.com").await.unwrap_err();
    assert_eq!(reason(&refused), "INVITE_INVALID");
    accept_with_email(&ann, code, "ann@EXAMPLE.com").await.unwrap();
    // Of the catalog of 2025 nobody but the operator changes an invite; an owner deletes it.
    let made = ann.json(CREATE, &create("viewer", &json!({}))).await.unwrap();
    let id = text(&made["group_invite"], "id");
    let update = json!({"group_invite": {"id": id, "name": "x"}, "update_mask": "name"});
    let refused = ann.json("GroupInviteService/UpdateGroupInvite", &update).await.unwrap_err();
    assert_eq!(reason(&refused), "OPERATOR_ONLY");
    operator.json("GroupInviteService/UpdateGroupInvite", &update).await.unwrap();
    let mask = json!({"group_invite": {"id": id}, "update_mask": "expiresAt"});
    let refused = operator.json("GroupInviteService/UpdateGroupInvite", &mask).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_FIELD");
    let stale = json!({"id": id, "etag": "1"});
    let refused = ann.json("GroupInviteService/DeleteGroupInvite", &stale).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    ann.json("GroupInviteService/DeleteGroupInvite", &json!({"id": id})).await.unwrap();
    let dead = json!({"code": text(&made, "code")});
    let refused = server.caller(&person(2)).await.json(ACCEPT, &dead).await.unwrap_err();
    assert_eq!(reason(&refused), "INVITE_INVALID");
    // Nobody, an unknown caller, and one that never has a derived id.
    for (who, expected) in [("", "AUTHN_FAILED"), ("stranger", "AUTHN_FAILED")] {
        let refused = server.caller(who).await.json(ACCEPT, &dead).await.unwrap_err();
        assert_eq!(reason(&refused), expected, "{who}");
    }
    let refused = operator.json(ACCEPT, &dead).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_FIELD");
}

/// A document knows no invites: it neither takes their paths nor leaves them behind in a group that it prunes.
#[tokio::test(flavor = "multi_thread")]
async fn documents_leave_invites_alone() {
    use base64::Engine as _;
    let data = Data::init(CATALOG);
    let server = data.start();
    let (alice, operator) = (server.caller("alice").await, server.operator().await);
    alice.create_group("acme/web").await;
    let in_web =
        json!({"parent": "acme/web", "group_invite": {"id": "acme/web/x", "role": "viewer"}});
    let in_web = alice.json(CREATE, &in_web).await.unwrap();
    let role = json!({"parent": "acme", "role": {"id": "acme/r", "capabilities": ["repo.list"]}});
    alice.json("RoleService/CreateRole", &role).await.unwrap();
    let of_role = alice.json(CREATE, &create("acme/r", &json!({}))).await.unwrap();
    let kept = alice.json(CREATE, &create("viewer", &json!({}))).await.unwrap();
    let refused = alice.json("RoleService/DeleteRole", &json!({"id": "acme/r"})).await.unwrap_err();
    assert_eq!(reason(&refused), "ROLE_IN_USE");

    let import = async |groups: &[&str], prune: &str| {
        let groups: Vec<_> = groups.iter().map(|id| format!("{{id: {id}}}")).collect();
        let groups = format!("[{}]", groups.join(", "));
        let head = format!("version: 1\ncatalog: {CATALOG}\n");
        let bound = "role_bindings: [{identity: alice, role: owner, scope: acme}]";
        let document = format!("{head}groups: {groups}\nidentities: [{{id: alice}}]\n{bound}\n");
        let document = base64::engine::general_purpose::STANDARD.encode(document);
        let message = json!({"parent": "acme", "prune": prune, "chunk": document});
        operator.json("PolicyService/Import", &message).await
    };
    let taken = import(&["acme", "acme/web", "acme/web/x"], "none").await.unwrap_err();
    assert!(
        taken.message().contains("`acme/web/x` is the path of an object that no document changes"),
        "{taken:?}"
    );
    import(&["acme", "acme/web"], "none").await.unwrap();
    let list = async || {
        let all = alice.json("GroupInviteService/ListGroupInvites", &json!({})).await.unwrap();
        let all = all["group_invites"].as_array().cloned().unwrap_or_default();
        all.iter().map(|one| text(one, "id").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list().await.len(), 3);
    import(&["acme"], "subtree").await.unwrap();
    assert_eq!(list().await, [text(&kept["group_invite"], "id")]);
    for gone in [in_web, of_role] {
        let code = json!({"code": text(&gone, "code")});
        let refused = server.caller(&person(1)).await.json(ACCEPT, &code).await.unwrap_err();
        assert_eq!(reason(&refused), "INVITE_INVALID");
    }
    // The group and the role are there again, and the invites are not.
    alice.create_group("acme/web").await;
    alice.json("RoleService/CreateRole", &role).await.unwrap();
    alice.json("RoleService/DeleteRole", &json!({"id": "acme/r"})).await.unwrap();
    server
        .caller(&person(1))
        .await
        .json(ACCEPT, &json!({"code": text(&kept, "code")}))
        .await
        .unwrap();
}
