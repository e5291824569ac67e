//! Identity providers, group role mappings and account associations over gRPC, and after a restart.

use serde_json::{Value, json};
use tonic::Code;

use super::{CATALOG, Data, person, reason};

const PROVIDERS: &str = "IdentityProviderService";
const MAPPINGS: &str = "GroupRoleMappingService";
const ASSOCIATIONS: &str = "AccountAssociationService";
const KEYS: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "only-here"}]}"#;
const TENANT: &str = "01234567-89ab-cdef-0123-456789abcdef";

fn okta() -> Value {
    json!({"parent": "acme", "request_id": "p1", "identity_provider": {
        "id": "acme/okta", "name": "Okta", "default_role": "viewer",
        "oidc": {"issuer": "https://acme.okta.example", "client_id": "capstan",
            "audiences": ["one", "two"], "jwks": KEYS, "groups_claim": "groups",
            "algorithms": ["Ed25519", "PS384"]}}})
}

fn association() -> Value {
    json!({"parent": "acme", "account_association": {
        "name": "Clouds",
        "aws": {"account": "012345678901"},
        "google": {"project_id": "acme-1", "project_number": "12"},
        "azure": {"tenant_id": TENANT, "client_ids": [TENANT]},
        "github": {"installations": {"acme": "7", "beta": "18446744073709551615"}},
        "services": {"INGESTER": "acme/ci"}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_is_read_listed_filtered_and_kept() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let alice = server.caller("alice").await;
    let ci = json!({"parent": "acme", "identity": {"id": "acme/ci", "type": "service"}});
    alice.json("IdentityService/CreateIdentity", &ci).await.unwrap();
    let made = alice.json(&format!("{PROVIDERS}/CreateIdentityProvider"), &okta()).await.unwrap();
    let mapping = json!({"parent": "acme/okta", "group_role_mapping":
        {"external_group": "admins", "role": "owner", "scope": "acme"}});
    let mapped = alice.json(&format!("{MAPPINGS}/CreateGroupRoleMapping"), &mapping).await.unwrap();
    assert_eq!(mapped["group_role_mapping"]["identity_provider"], "acme/okta");
    let linked =
        alice.json(&format!("{ASSOCIATIONS}/CreateAccountAssociation"), &association()).await;
    let linked = linked.unwrap();
    let all = [
        (PROVIDERS, "IdentityProvider", "identity_provider", &made),
        (MAPPINGS, "GroupRoleMapping", "group_role_mapping", &mapped),
        (ASSOCIATIONS, "AccountAssociation", "account_association", &linked),
    ];
    let filters = [
        r#"issuer = "https://acme.okta.example" AND default_role = "viewer" AND client_id = "capstan""#,
        r#"external_group = "admins" AND role = "owner" AND scope = "acme" AND identity_provider = "acme/okta""#,
        r#"account = "012345678901" AND project_id = "acme-1" AND name = "Clouds""#,
    ];
    drop(server);
    let server = data.start();
    let alice = server.caller("alice").await;
    for ((service, kind, field, made), filter) in all.iter().zip(filters) {
        let id = json!({"id": made[field]["id"]});
        let got = alice.json(&format!("{service}/Get{kind}"), &id).await.unwrap();
        assert_eq!(got[field], made[field], "{kind}");
        let list = |filter: &str| json!({"parent": "acme", "filter": filter, "page_size": 1});
        let listed = alice.json(&format!("{service}/List{kind}s"), &list(filter)).await.unwrap();
        assert_eq!(listed[format!("{field}s")], json!([made[field]]), "{kind}");
        let none = list(r#"name = "no such""#);
        let none = alice.json(&format!("{service}/List{kind}s"), &none).await.unwrap();
        assert!(none.get(format!("{field}s")).is_none());
        // Nobody else's organization.
        let stranger = server.caller(&person(1)).await;
        let refused = stranger.json(&format!("{service}/Get{kind}"), &id).await.unwrap_err();
        assert_eq!(reason(&refused), "AUTHN_FAILED");
    }
    // A retry has the answer of then, also after the restart.
    let again = alice.json(&format!("{PROVIDERS}/CreateIdentityProvider"), &okta()).await.unwrap();
    assert_eq!(again, made);

    // The audit log has all of it but the keys.
    let audited =
        alice.json("AuditService/ListAuditRecords", &json!({"parent": "acme"})).await.unwrap();
    let audited = audited.to_string();
    for said in [
        "https://acme.okta.example",
        "admins",
        "18446744073709551615",
        TENANT,
        "INGESTER",
        "identity_provider",
        "PS384",
    ] {
        assert!(audited.contains(said), "{said}: {audited}");
    }
    assert!(!audited.contains("only-here"), "{audited}");

    // Each goes, the mapping with its provider.
    let delete = |id: &str| json!({"id": id});
    alice.json(&format!("{ASSOCIATIONS}/DeleteAccountAssociation"), &delete("acme")).await.unwrap();
    alice.json(&format!("{PROVIDERS}/DeleteIdentityProvider"), &delete("acme/okta")).await.unwrap();
    for (service, kind, field, _) in all {
        let none = alice.json(&format!("{service}/List{kind}s"), &json!({})).await.unwrap();
        assert!(none.get(format!("{field}s")).is_none(), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_changes_the_fields_of_its_mask() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let alice = server.caller("alice").await;
    let ci = json!({"parent": "acme", "identity": {"id": "acme/ci"}});
    alice.json("IdentityService/CreateIdentity", &ci).await.unwrap();
    alice.json(&format!("{PROVIDERS}/CreateIdentityProvider"), &okta()).await.unwrap();
    let update = async |object: Value, mask: &str| {
        let mut object = object;
        object["id"] = "acme/okta".into();
        let request = json!({"identity_provider": object, "update_mask": mask});
        alice.json(&format!("{PROVIDERS}/UpdateIdentityProvider"), &request).await
    };
    let one = update(json!({"oidc": {"client_id": "x"}}), "oidc.clientId,oidc.jwks").await.unwrap();
    let oidc = &one["identity_provider"]["oidc"];
    assert_eq!((&oidc["client_id"], &oidc["audiences"]), (&json!("x"), &json!(["one", "two"])));
    assert!(oidc.get("jwks").is_none());
    assert_eq!(oidc["algorithms"], json!(["Ed25519", "PS384"]));
    let etag = one["identity_provider"]["etag"].clone();
    let list = json!(["ES256"]);
    let one = update(json!({"oidc": {"algorithms": list}}), "oidc.algorithms").await.unwrap();
    assert_eq!(one["identity_provider"]["oidc"]["algorithms"], list);
    assert_ne!(one["identity_provider"]["etag"], etag);
    // Without a mask, what is not empty.
    let one = update(json!({"oidc": {"algorithms": ["RS256"]}}), "").await.unwrap();
    assert_eq!(one["identity_provider"]["oidc"]["algorithms"], json!(["RS256"]));
    let one = update(json!({"oidc": {}}), "").await.unwrap();
    assert_eq!(one["identity_provider"]["oidc"]["algorithms"], json!(["RS256"]));
    let one = update(json!({"oidc": {}}), "oidc.algorithms").await.unwrap();
    assert!(one["identity_provider"]["oidc"].get("algorithms").is_none());
    let one = update(json!({"oidc": {"algorithms": list}}), "oidc.algorithms").await.unwrap();
    assert_eq!(one["identity_provider"]["oidc"]["algorithms"], list);
    for (list, at) in [
        (json!(["ES256", "HS256"]), "[1]"),
        (json!(["EdDSA", "Ed25519"]), "[1]"),
        (json!(vec!["ES256"; 10]), ""),
    ] {
        let refused = update(json!({"oidc": {"algorithms": list}}), "oidc").await.unwrap_err();
        assert_eq!(reason(&refused), "INVALID_FIELD");
        let field = format!("identity_provider.oidc.algorithms{at}: ");
        assert!(refused.message().starts_with(&field), "{refused:?}");
    }
    let whole = update(json!({"oidc": {"client_id": "y"}}), "oidc,defaultRole").await.unwrap();
    let expected = json!({"issuer": "https://acme.okta.example", "client_id": "y"});
    assert_eq!(whole["identity_provider"]["oidc"], expected);
    assert!(whole["identity_provider"].get("default_role").is_none());
    for (object, mask, field) in [
        (json!({"oidc": {"issuer": "https://x.example"}}), "oidc", "identity_provider.oidc.issuer"),
        (json!({}), "*", "identity_provider.oidc"),
        (json!({}), "etag", "update_mask"),
        (json!({}), "configuration", "update_mask"),
    ] {
        let refused = update(object, mask).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().starts_with(field), "{refused:?}");
    }
    // SAML is named by the schema and is no provider yet, nor can one become it.
    let saml = json!({"parent": "acme", "identity_provider": {"saml": {}}});
    let refused =
        alice.json(&format!("{PROVIDERS}/CreateIdentityProvider"), &saml).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.message().contains("SAML is not implemented"), "{refused:?}");
    assert_eq!(update(json!({"saml": {}}), "").await.unwrap_err().code(), Code::Unimplemented);

    alice.json(&format!("{ASSOCIATIONS}/CreateAccountAssociation"), &association()).await.unwrap();
    let request =
        json!({"account_association": {"id": "acme"}, "update_mask": "aws,github,services"});
    let path = format!("{ASSOCIATIONS}/UpdateAccountAssociation");
    let after = alice.json(&path, &request).await.unwrap();
    let association = &after["account_association"];
    for gone in ["aws", "github", "services"] {
        assert!(association.get(gone).is_none(), "{association}");
    }
    assert_eq!(association["google"]["project_id"], "acme-1");
    // An id of its own is refused.
    let other = json!({"parent": "acme", "account_association": {"id": "acme/x"}});
    let refused =
        alice.json(&format!("{ASSOCIATIONS}/CreateAccountAssociation"), &other).await.unwrap_err();
    assert!(refused.message().starts_with("account_association.id"), "{refused:?}");
    let other = json!({"parent": "acme/okta", "group_role_mapping":
        {"identity_provider": "acme/x", "external_group": "a", "role": "viewer", "scope": "acme"}});
    let refused =
        alice.json(&format!("{MAPPINGS}/CreateGroupRoleMapping"), &other).await.unwrap_err();
    assert!(refused.message().starts_with("group_role_mapping.identity_provider"), "{refused:?}");
}
