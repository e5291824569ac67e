//! `capstan explain`: what is wrong with a binding that does not count, and where an identity is bound instead.

use serde_json::{Value, json};

use crate::common::{Serving, capstan, folder, stderr, stdout};

const POLICY: &str = "version: 1
catalog: {name: c, resources: [{name: r, actions: [get, put]}], roles: [
  {name: reader, capabilities: [r.get]}, {name: owner, owner: true, capabilities: [r.get, r.put]}]}
groups: [{id: acme}, {id: acme/platform}, {id: acme/web}]
identities: [{id: ann, properties: {team: web}}, {id: bea}, {id: eve}, {id: idle}, {id: off, disabled: true}]
resources: [{id: acme/web/site, type: r, properties: {status: archived}}]
role_bindings:
- {id: acme/ended, identity: eve, role: reader, scope: acme, expires_at: 2020-01-01T00:00:00Z}
- {id: acme/web/cond, identity: ann, role: reader, scope: acme/web, when: [
    {attribute: resource.status, equals: active}, {attribute: context.mfa, equals: true},
    {attribute: context.n, not_equals: 1}, {attribute: subject.team, equals: web}]}
- {identity: bea, role: reader, scope: acme/platform}
- {identity: off, role: reader, scope: acme}
";

/// The text and the JSON of a document, and the same from a server of this document.
fn explain(name: &str, question: [&str; 3], more: &[&str]) -> (String, Value) {
    let policy = folder(name).join("policy.yaml");
    std::fs::write(&policy, POLICY).unwrap();
    let policy = policy.to_str().unwrap();
    let server =
        Serving::start(&["--policy", policy, "--listen", "127.0.0.1:0", "--http", "none"], 1);
    let address = server.address("grpc");
    let run = |from: [&str; 2], format: &str| {
        let output = capstan(
            &[&["explain"], &question[..], more, &from[..], &["--output", format]].concat(),
        );
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let text = run(["--policy", policy], "table");
    assert_eq!(text, run(["--addr", &address], "table"));
    let json = run(["--policy", policy], "json");
    assert_eq!(json, run(["--addr", &address], "json"));
    (text, serde_json::from_str(&json).unwrap())
}

#[test]
fn an_expired_binding_is_named_with_its_end() {
    let (text, json) = explain("explain-expired", ["eve", "r.get", "acme/web"], &[]);
    assert!(text.contains("✘ reader: expired"), "{text}");
    let named =
        "  binding acme/ended gives role reader at acme\n    it expired at 2020-01-01T00:00:00Z\n";
    assert!(text.contains(named), "{text}");
    assert_eq!(json["reason"], "EXPIRED");
    let grant = json!({"binding": "acme/ended", "role": "reader", "scope": "acme",
                       "expires_at": "2020-01-01T00:00:00Z"});
    assert_eq!(json["uncounted"], json!([{"grant": grant, "expired": true, "failed": []}]));
}

#[test]
fn tests_that_fail_are_named_with_what_was_wanted_and_seen() {
    let supplied = ["--property", "context.n=1"];
    let question = ["ann", "r.get", "acme/web/site"];
    let (text, json) = explain("explain-conditions", question, &supplied);
    assert!(text.contains("✘ reader: condition not met"), "{text}");
    for line in [
        "  binding acme/web/cond gives role reader at acme/web\n",
        "    resource.status must be \"active\", and is \"archived\"\n",
        "    context.mfa must be true, and is absent\n",
        "    context.n must be there and not be 1, and is 1\n",
        "other roles that would give it without these conditions: owner\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(!text.contains("subject.team"), "this test holds: {text}");
    assert_eq!(json["roles"], json!(["reader", "owner"]), "all roles, as before");
    let failed = json!([
        {"attribute": "resource.status", "equals": "active", "seen": "archived"},
        {"attribute": "context.mfa", "equals": true},
        {"attribute": "context.n", "not_equals": 1, "seen": 1},
    ]);
    assert_eq!(json["uncounted"][0]["failed"], failed);
}

#[test]
fn without_a_binding_it_says_where_the_identity_is_bound() {
    let (text, json) = explain("explain-place", ["bea", "r.get", "acme/platfrom/x"], &[]);
    for line in [
        "platfrom   ? not declared\n",
        "acme/platfrom is not declared; did you mean acme/platform?\n",
        "bea is bound elsewhere:\n  reader at acme/platform\n",
        "roles that would give it: reader, owner\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert_eq!((&json["declared"], &json["similar"]), (&json!("acme"), &json!(["acme/platform"])));
    assert_eq!(json["elsewhere"][0]["scope"], "acme/platform");

    let (text, json) = explain("explain-idle", ["idle", "r.get", "acme/web"], &[]);
    assert!(text.contains("idle has no other binding that is in time\n"), "{text}");
    assert!(!text.contains("not declared"), "{text}");
    assert_eq!(json.get("elsewhere"), None);

    let (text, json) = explain("explain-unknown", ["beaa", "r.get", "acme"], &[]);
    assert!(text.contains("did you mean bea?\n"), "{text}");
    assert_eq!(json["similar"], json!(["bea"]));
}

#[test]
fn that_an_identity_is_disabled_is_said() {
    let (text, json) = explain("explain-disabled", ["off", "r.get", "acme/platfrom"], &[]);
    for line in [
        "the identity is disabled, so none of its bindings counts\n",
        "no role gives it while the identity is disabled\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(!text.contains("not declared") && !text.contains("bound elsewhere"), "{text}");
    assert_eq!((&json["reason"], &json["disabled"]), (&json!("NO_BINDING"), &json!(true)));
    assert_eq!(
        json["roles"],
        json!(["reader", "owner"]),
        "the roles that have it, as on every deny"
    );
    assert_eq!((json.get("uncounted"), json.get("elsewhere")), (None, None));
    let (_, json) = explain("explain-enabled", ["idle", "r.get", "acme"], &[]);
    assert_eq!(json.get("disabled"), None);
}

/// No more than [`capstan_engine::EXPLAINED_BINDINGS_MAX`] bindings are named.
#[test]
fn an_explanation_is_short() {
    let bound: String =
        (0..30).map(|at| format!("- {{identity: a, role: reader, scope: g{at}}}\n")).collect();
    let groups: Vec<_> = (0..30).map(|at| format!("{{id: g{at}}}")).collect();
    let policy = folder("explain-many").join("policy.yaml");
    let text = format!(
        "version: 1\ncatalog: {{name: c, resources: [{{name: r, actions: [get]}}], roles: \
         [{{name: reader, capabilities: [r.get]}}]}}\ngroups: [{}]\nidentities: [{{id: a}}]\n\
         role_bindings:\n{bound}",
        groups.join(", ")
    );
    std::fs::write(&policy, text).unwrap();
    let policy = policy.to_str().unwrap();
    let output = capstan(&["explain", "a", "r.get", "x", "--policy", policy, "-o", "json"]);
    let json: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let elsewhere = json["elsewhere"].as_array().unwrap();
    assert_eq!(elsewhere.len(), capstan_engine::EXPLAINED_BINDINGS_MAX);
}
