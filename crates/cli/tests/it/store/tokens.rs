//! Pull tokens over gRPC: what is shown when, retries, and what a restart forgets.

use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{CATALOG, Data, reason};

const CREATE: &str = "PullTokenService/CreatePullToken";
const LIST: &str = "PullTokenService/ListPullTokens";
const REVOKE: &str = "PullTokenService/RevokePullToken";

fn create(request_id: &str) -> Value {
    let request = json!({"group": "acme", "role": "registry.pull", "name": "ci", "ttl": "3600s"});
    let mut request = request.as_object().unwrap().clone();
    if !request_id.is_empty() {
        request.insert("request_id".into(), request_id.into());
    }
    request.into()
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} of {value}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_shown_once_and_again_to_a_retry_of_the_same_process() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let alice = server.caller("alice").await;
    let made = alice.json(CREATE, &create("r1")).await.unwrap();
    let (id, secret) = (text(&made["pull_token"], "id"), text(&made, "secret"));
    assert_eq!(text(&made, "username"), id);
    assert!(secret.starts_with("capstan_pt_") && secret.len() == 70, "{secret}");
    assert_eq!(text(&made["pull_token"], "role"), "registry.pull");
    assert_eq!(text(&made["pull_token"], "scope"), "acme");
    assert!(alice.check(id, "manifest.list", "acme/nginx").await.allowed);

    // The same request has the same answer; another one with this id is refused.
    assert_eq!(alice.json(CREATE, &create("r1")).await.unwrap(), made);
    let mut other = create("r1");
    other["ttl"] = "3601s".into();
    let refused = alice.json(CREATE, &other).await.unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused)), (Code::InvalidArgument, "INVALID_FIELD"));
    // Without an id each request makes a token.
    let second = alice.json(CREATE, &create("")).await.unwrap();
    assert_ne!(text(&second, "secret"), secret);
    let mut checked = create("r2");
    checked["validate_only"] = true.into();
    let checked = alice.json(CREATE, &checked).await.unwrap();
    assert_eq!((checked.get("secret"), &checked["revision"]), (None, &second["revision"]));

    // What lists, reads, the audit log and an export say has no secret.
    let listed = alice.json(LIST, &json!({})).await.unwrap();
    let ids: Vec<_> =
        listed["pull_tokens"].as_array().unwrap().iter().map(|one| text(one, "id")).collect();
    assert_eq!(ids.len(), 2);
    assert!(ids.is_sorted() && ids.contains(&id));
    let filtered =
        json!({"parent": "acme", "filter": format!("id = \"{id}\" AND role = \"registry.pull\"")});
    let one = alice.json(LIST, &filtered).await.unwrap();
    assert_eq!(one["pull_tokens"].as_array().unwrap().len(), 1);
    assert_eq!(one["pull_tokens"][0], made["pull_token"]);
    let got = alice.json("IdentityService/GetIdentity", &json!({"id": id})).await.unwrap();
    assert_eq!(text(&got["identity"], "type"), "pull_token");
    let audited =
        alice.json("AuditService/ListAuditRecords", &json!({"parent": "acme"})).await.unwrap();
    assert!(audited.to_string().contains("PullTokenService/CreatePullToken"));
    let hash =
        capstan_iam::Secret::parse(capstan_iam::SecretKind::PullToken, secret).unwrap().hash();
    let hex: String = hash.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    for said in [listed, got, audited] {
        let said = said.to_string();
        assert!(!said.contains(&secret[11..]) && !said.contains(&hex), "{said}");
    }

    // After a restart the secret is forgotten, and the token is not.
    drop(server);
    let server = data.start();
    let alice = server.caller("alice").await;
    let refused = alice.json(CREATE, &create("r1")).await.unwrap_err();
    assert_eq!(
        (refused.code(), &*reason(&refused)),
        (Code::FailedPrecondition, "TOKEN_ALREADY_ISSUED")
    );
    assert!(alice.check(id, "manifest.list", "acme/nginx").await.allowed);

    let revoked = alice.json(REVOKE, &json!({"id": id})).await.unwrap();
    assert!(revoked["revision"].is_string());
    assert!(!alice.check(id, "manifest.list", "acme/nginx").await.allowed);
    let gone = alice.json(REVOKE, &json!({"id": id})).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_token_is_refused_with_its_reason() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let (alice, operator) = (server.caller("alice").await, server.operator().await);
    let with = |field: &str, value: Value| {
        let mut request = create("");
        request[field] = value;
        request
    };
    for (request, field) in [
        (with("ttl", "0s".into()), "ttl"),
        (with("ttl", "-1s".into()), "ttl"),
        (with("ttl", "31536001s".into()), "ttl"),
        (with("role", "".into()), "role"),
        (with("role", "none".into()), "role"),
        (with("group", "".into()), "group"),
        (with("name", "a\u{7}".into()), "name"),
        (with("request_id", "a b".into()), "request_id"),
    ] {
        let refused = operator.json(CREATE, &request).await.unwrap_err();
        let info = refused.get_details_error_info().unwrap();
        assert_eq!(
            (&*info.reason, &*info.metadata["field"]),
            ("INVALID_FIELD", field),
            "{request}"
        );
    }
    for role in ["owner", "editor", "registry.pull_token_creator"] {
        let refused = alice.json(CREATE, &with("role", role.into())).await.unwrap_err();
        let seen = (refused.code(), reason(&refused));
        assert_eq!(seen, (Code::FailedPrecondition, "ROLE_NOT_ALLOWED".into()), "{role}");
    }
    let made = alice.json(CREATE, &create("")).await.unwrap();
    let id = text(&made["pull_token"], "id");
    let bind = json!({"parent": "acme", "role_binding": {"identity": id, "role": "viewer"}});
    let refused = alice.json("RoleBindingService/CreateRoleBinding", &bind).await.unwrap_err();
    assert_eq!(reason(&refused), "PULL_TOKEN");
    // Nobody that alice does not know learns that it is there.
    let refused = server.caller("").await.json(LIST, &json!({})).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let refused = server.caller(id).await.json(REVOKE, &json!({"id": "acme"})).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    // It revokes itself.
    server.caller(id).await.json(REVOKE, &json!({"id": id})).await.unwrap();
    let refused = server.caller(id).await.json(LIST, &json!({})).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}
