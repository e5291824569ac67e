//! `capstan iam identity-providers`, `group-role-mappings` and `account-associations`, on a real store.

use serde_json::{Value, json};

use super::end_to_end::Store;
use crate::common::{stderr, stdout};

const TENANT: &str = "01234567-89ab-cdef-0123-456789abcdef";

/// Runs a command that must succeed. Returns standard output and standard error.
#[track_caller]
fn done(store: &Store, line: &[&str]) -> (String, String) {
    let output = store.run(line);
    assert!(output.status.success(), "{line:?}: {}", stderr(&output));
    (stdout(&output), stderr(&output))
}

/// Runs a command that must fail. Returns the exit code and standard error.
#[track_caller]
fn failed(store: &Store, line: &[&str]) -> (i32, String) {
    let output = store.run(line);
    assert!(!output.status.success(), "{line:?}: {}", stdout(&output));
    (output.status.code().unwrap(), stderr(&output))
}

fn provider(store: &Store) -> Value {
    let line = [
        "iam",
        "identity-providers",
        "create",
        "acme/okta",
        "--issuer",
        "https://acme.okta.example",
        "--client-id",
        "capstan",
        "--groups-claim",
        "groups",
        "--default-role",
        "viewer",
        "--name",
        "Our Okta",
    ];
    store.json(&line)
}

#[test]
fn a_provider_is_made_changed_and_deleted_with_its_mappings() {
    let store = Store::start("manage-providers");
    let made = provider(&store);
    let expected = json!({"issuer": "https://acme.okta.example", "client_id": "capstan", "audiences": [],
        "jwks": "", "groups_claim": "groups", "algorithms": []});
    assert_eq!(made["identity_provider"]["oidc"], expected);
    let map = |group: &str, role: &str| {
        let line = [
            "iam",
            "mappings",
            "create",
            "--provider",
            "name:Our Okta",
            "--external-group",
            group,
            "--role",
            role,
            "--scope",
            "acme",
        ];
        done(&store, &line).1
    };
    let note = map("admins", "owner");
    let start = "created group role mapping of admins to owner at acme: acme/okta/";
    assert!(note.starts_with(start), "{note}");
    map("staff", "viewer");

    let (out, _) = done(&store, &["iam", "idps", "list", "--parent", "acme"]);
    for part in ["acme/okta", "https://acme.okta.example", "viewer", "of the issuer"] {
        assert!(out.contains(part), "{part} in {out}");
    }
    let (out, _) = done(&store, &["iam", "idp", "get", "Our Okta"]);
    assert!(out.contains("client_id = capstan") && out.contains("default_role"), "{out}");
    let listed =
        store.json(&["iam", "mappings", "list", "--provider", "Our Okta", "--role", "owner"]);
    assert_eq!(listed["group_role_mappings"].as_array().unwrap().len(), 1);
    let mapping = listed["group_role_mappings"][0]["id"].as_str().unwrap();
    assert_eq!(listed["group_role_mappings"][0]["external_group"], "admins");
    let update = ["iam", "mappings", "update", mapping, "--name", "Admins"];
    assert!(done(&store, &update).1.starts_with("updated group role mapping"));
    let (out, _) = done(&store, &["iam", "mapping", "describe", "Admins"]);
    assert!(out.contains(mapping) && out.contains("identity_provider"), "{out}");

    let update = ["iam", "idps", "update", "acme/okta", "--audience", "a", "--audience", "b"];
    let after = store.json(&[&update[..], &["--no-groups-claim", "--no-default-role"]].concat());
    let after = &after["identity_provider"];
    assert_eq!(after["oidc"]["audiences"], json!(["a", "b"]));
    assert_eq!((&after["oidc"]["groups_claim"], &after["default_role"]), (&json!(""), &json!("")));
    assert_eq!(after["oidc"]["client_id"], "capstan");

    // What its tokens may be signed with.
    let update = ["iam", "idps", "update", "acme/okta"];
    let limit = ["--algorithm", "ES256", "--algorithm", "Ed25519"];
    let after = store.json(&[&update[..], &limit].concat());
    assert_eq!(after["identity_provider"]["oidc"]["algorithms"], json!(["ES256", "Ed25519"]));
    assert_eq!(after["identity_provider"]["oidc"]["audiences"], json!(["a", "b"]));
    assert!(done(&store, &["iam", "idps", "list"]).0.contains("ES256, Ed25519"));
    let (out, _) = done(&store, &["iam", "idp", "get", "Our Okta"]);
    assert!(out.contains("ES256") && out.contains("Ed25519"), "{out}");
    for (more, said) in [
        (&["--algorithm", "HS256"][..], "possible values"),
        (&["--algorithm", "ES256", "--no-algorithms"], "cannot be used"),
        (
            &["--algorithm", "EdDSA", "--algorithm", "Ed25519"],
            "identity_provider.oidc.algorithms[1]",
        ),
    ] {
        let (code, error) = failed(&store, &[&update[..], more].concat());
        assert!(code != 0 && error.contains(said), "{more:?}: {error}");
    }
    let after = store.json(&[&update[..], &["--no-algorithms"]].concat());
    assert_eq!(after["identity_provider"]["oidc"]["algorithms"], json!([]));

    // Nothing is deleted without a question.
    let (code, error) = failed(&store, &["iam", "idps", "delete", "acme/okta"]);
    assert!(code == 2 && error.contains("--yes"), "{error}");
    done(&store, &["iam", "mappings", "delete", mapping, "--yes"]);
    done(&store, &["iam", "idps", "delete", "acme/okta", "--yes"]);
    let (out, _) = done(&store, &["iam", "group-role-mappings", "list"]);
    assert_eq!(out, "no group role mappings\n");
}

#[test]
fn an_association_says_accounts_and_services() {
    let store = Store::start("manage-associations");
    done(&store, &["iam", "identities", "create", "acme/ci", "--type", "service"]);
    let line = [
        "iam",
        "account-associations",
        "create",
        "acme",
        "--aws",
        "012345678901",
        "--google",
        "acme-web",
        "--google-number",
        "12",
        "--azure",
        TENANT,
        "--azure-client",
        TENANT,
        "--github",
        "acme=7",
        "--service",
        "INGESTER=acme/ci",
    ];
    let made = store.json(&line);
    let made = &made["account_association"];
    assert_eq!((&made["id"], &made["services"]["INGESTER"]), (&json!("acme"), &json!("acme/ci")));
    assert_eq!(made["github"]["installations"]["acme"], 7);
    let (out, _) = done(&store, &["iam", "associations", "list"]);
    for part in ["012345678901", "acme-web", "INGESTER=acme/ci"] {
        assert!(out.contains(part), "{part} in {out}");
    }
    let update = ["iam", "associations", "update", "acme", "--no-aws", "--github", "beta=8"];
    let after = store.json(&update);
    let after = &after["account_association"];
    assert!(after.get("aws").is_none() && after["google"]["project_id"] == "acme-web", "{after}");
    assert_eq!(after["github"]["installations"], json!({"beta": 8}));
    let (out, _) = done(&store, &["iam", "association", "describe", "acme"]);
    assert!(out.contains("project_id = acme-web"), "{out}");
    done(&store, &["iam", "associations", "delete", "acme", "--yes"]);
    let (code, error) = failed(&store, &["iam", "associations", "describe", "acme"]);
    assert!(code == 1 && error.contains("NOT_FOUND"), "{error}");
}

#[test]
fn mistakes_are_told_before_anything_is_sent_and_refusals_with_advice() {
    let store = Store::start("manage-resolved-mistakes");
    let idps = ["iam", "identity-providers"];
    let update =
        |more: &[&'static str]| [&["iam", "associations", "update", "acme"], more].concat();
    for (line, part) in [
        ([&idps[..], &["update", "acme/okta"]].concat(), "nothing to change: give --client-id"),
        (update(&[]), "nothing to change: give --aws"),
        (update(&["--github", "acme"]), "--github `acme`: expected LOGIN=NUMBER"),
        (update(&["--github", "acme=x"]), "expected the number of an installation"),
        (update(&["--service", "a=b", "--service", "a=c"]), "`a` is given twice"),
        (update(&["--aws", "1", "--no-aws"]), "cannot be used with"),
        (update(&["--google-number", "1"]), "--google <PROJECT>"),
        (
            [&idps[..], &["create", "acme/x", "--issuer", "https://x.example", "--jwks", "/none"]]
                .concat(),
            "--jwks /none",
        ),
        (
            [&idps[..], &["create", "acme/x", "--issuer", "http://x.example"]].concat(),
            "identity_provider.oidc.issuer: an https URL",
        ),
        (update(&["--aws", "1"]), "NOT_FOUND"),
    ] {
        let (_, error) = failed(&store, &line);
        assert!(error.contains(part), "{line:?}: {error}");
    }
    provider(&store);
    let again =
        [&idps[..], &["create", "acme/x", "--issuer", "https://acme.okta.example"]].concat();
    let (code, error) = failed(&store, &again);
    assert!(code == 1 && error.contains("`acme/okta` has this issuer already"), "{error}");
    done(&store, &["iam", "roles", "create", "acme/r", "--capability", "repo.list"]);
    let default = [&idps[..], &["update", "acme/okta", "--default-role", "acme/r"]].concat();
    done(&store, &default);
    let (code, error) = failed(&store, &["iam", "roles", "delete", "acme/r", "--yes"]);
    assert!(code == 1 && error.contains("capstan iam identity-providers list"), "{error}");
}
