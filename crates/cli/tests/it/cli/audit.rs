//! The audit commands: who is bound to what, everything an identity may do, and what a change gives and takes.

use serde_json::{Value, json};

use crate::common::{capstan, folder, stderr, stdout};

const DEMO: &str = "deploy/quickstart/policy.yaml";
const POLICY: &str = "version: 1
catalog: {name: c, resources: [{name: r, purpose: records, actions: [get, put]}], roles: [
  {name: reader, capabilities: [r.get]}, {name: writer, capabilities: [r.get, r.put]}]}
groups: [{id: acme, name: Acme Corp}, {id: acme/web}]
identities: [{id: ann}, {id: bea, type: service}, {id: idle}]
resources: [{id: acme/web/site, type: r}, {id: acme/web/other, type: r}]
role_bindings:
- {id: acme/one, identity: ann, role: writer, scope: acme}
- {id: acme/web/two, identity: bea, role: reader, scope: acme/web, expires_at: 2020-01-01T00:00:00Z}
- {id: acme/web/site/three, identity: bea, role: writer, scope: acme/web/site, when: [
    {attribute: context.n, not_equals: 1}]}
";

fn policy(name: &str, text: &str) -> String {
    let path = folder(name).join("policy.yaml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn text(arguments: &[&str]) -> String {
    let output = capstan(arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

fn json_of(arguments: &[&str]) -> Value {
    serde_json::from_str(&text(&[arguments, &["--output", "json"]].concat())).unwrap()
}

fn error(arguments: &[&str]) -> String {
    let output = capstan(arguments);
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    stderr(&output)
}

#[test]
fn bindings_are_listed_by_identity_scope_and_role() {
    let policy = policy("audit-bindings", POLICY);
    let all = ["bindings", "--policy", &policy];
    let found = json_of(&all);
    let one = json!({"binding": "acme/one", "identity": "ann", "role": "writer", "scope": "acme",
                     "expired": false});
    let two = json!({"binding": "acme/web/two", "identity": "bea", "role": "reader",
                     "scope": "acme/web", "expires_at": "2020-01-01T00:00:00Z", "expired": true});
    let three = json!({"binding": "acme/web/site/three", "identity": "bea", "role": "writer",
                       "scope": "acme/web/site", "expired": false,
                       "when": [{"attribute": "context.n", "not_equals": 1}]});
    assert_eq!(found, json!({"bindings": [one, two, three]}));
    let only = |option, value| json_of(&[&all[..], &[option, value]].concat())["bindings"].clone();
    assert_eq!(only("--identity", "ann"), json!([one]));
    assert_eq!(only("--scope", "acme/web"), json!([two]));
    assert_eq!(only("--role", "writer"), json!([one, three]));
    assert_eq!(text(&[&all[..], &["--identity", "idle"]].concat()), "no role bindings\n");
    let table = text(&all);
    for words in ["expired 2020-01-01T00:00:00Z", "if context.n ≠ 1"] {
        assert!(table.contains(words), "{words} in {table}");
    }
    for (option, value, words) in [
        ("--identity", "annn", "the policy has no identity `annn`; did you mean `ann`?"),
        ("--scope", "acme/wep", "the policy has no group or resource `acme/wep`; did you mean"),
        ("--role", "raeder", "the policy has no role `raeder`; did you mean `reader`?"),
    ] {
        let found = error(&[&all[..], &[option, value]].concat());
        assert!(found.contains(words), "{found}");
    }
}

#[test]
fn groups_are_a_tree_with_their_bindings() {
    let policy = policy("audit-groups", POLICY);
    let tree = text(&["groups", "--policy", &policy]);
    let expected = "acme  (Acme Corp)
   · writer ann
   web
      · reader bea  expired 2020-01-01T00:00:00Z
      site
         · writer bea  if context.n ≠ 1
";
    assert_eq!(tree, expected);
    let found = json_of(&["groups", "--policy", &policy]);
    assert_eq!(found["groups"][0]["name"], "Acme Corp");
    assert_eq!(found["groups"][0]["bindings"][0]["identity"], "ann");
    assert_eq!(
        found["groups"].as_array().unwrap().len(),
        3,
        "a resource without bindings is not shown"
    );
    assert!(error(&["groups", "--policy", "no-such-file"]).contains("no-such-file"));
}

#[test]
fn identities_and_capabilities_are_listed() {
    let policy = policy("audit-identities", POLICY);
    let found = json_of(&["identities", "--policy", &policy]);
    let bea = json!({"id": "bea", "type": "service", "name": "", "bindings": 2});
    assert_eq!(found["identities"][1], bea);
    assert!(text(&["identities", "--policy", &policy]).contains("service"));
    assert!(error(&["identities"]).contains("--policy"));

    let found = json_of(&["catalog", "capabilities", "--policy", &policy]);
    assert_eq!(found, json!({"catalog": "c", "capabilities": ["r.get", "r.put"]}));
    let table = text(&["catalog", "capabilities", "--policy", &policy]);
    assert!(table.contains("get put") && table.contains("records"), "{table}");
    let built_in = json_of(&["catalog", "capabilities"]);
    assert_eq!(built_in["catalog"], "chainguard-2025-08-14");
    assert_eq!(built_in["capabilities"].as_array().unwrap().len(), 64);
    assert!(error(&["catalog", "capabilities", "--catalog", "none"]).contains("no catalog"));
}

#[test]
fn capabilities_without_a_resource_are_listed_scope_by_scope() {
    let policy = policy("audit-access", POLICY);
    let found = json_of(&["capabilities", "bea", "--policy", &policy]);
    assert_eq!(found["scopes"].as_array().unwrap().len(), 1, "an expired binding gives nothing");
    assert_eq!(found["scopes"][0]["scope"], "acme/web/site");
    assert_eq!(found["scopes"][0]["capabilities"], json!([]));
    assert_eq!(found["scopes"][0]["conditional"], json!(["r.get", "r.put"]));
    let shown = text(&["capabilities", "bea", "--policy", &policy]);
    assert!(shown.contains("  · writer if context.n ≠ 1\n"), "{shown}");
    assert!(text(&["capabilities", "ann", "--policy", &policy]).contains("get put"));
    assert!(error(&["capabilities", "bob"]).contains("give --policy FILE"));
    let found = error(&["capabilities", "bib", "--policy", DEMO]);
    assert!(found.contains("no identity `bib`; did you mean `bob`?"), "{found}");
}

/// Whom a policy disables, and a person who is bound and not declared.
#[test]
fn disabled_and_undeclared_identities_are_shown_as_such() {
    const PERSON: &str = "0123456789abcdef0123456789abcdef01234567";
    let old = policy("audit-enabled", POLICY);
    let changed = POLICY.replace("{id: ann}", "{id: ann, disabled: true}")
        + &format!("- {{id: acme/p, identity: {PERSON}, role: reader, scope: acme}}\n");
    let new = policy("audit-disabled", &changed);
    let found = json_of(&["policy", "diff", &old, &new]);
    let lost = json!([{"identity": "ann", "scope": "acme", "capabilities": ["r.get", "r.put"]}]);
    let gained = json!([{"identity": PERSON, "scope": "acme", "capabilities": ["r.get"]}]);
    assert_eq!(found, json!({"gained": gained, "lost": lost}));

    let found = json_of(&["identities", "--policy", &new]);
    let person = json!({"id": PERSON, "type": "", "name": "", "bindings": 1, "undeclared": true});
    let ann = json!({"id": "ann", "type": "user", "name": "", "bindings": 1, "disabled": true});
    assert_eq!((&found["identities"][0], &found["identities"][1]), (&person, &ann));
    let table = text(&["identities", "--policy", &new]);
    assert!(table.contains("user, disabled") && table.contains("not declared"), "{table}");

    let found = json_of(&["bindings", "--policy", &new, "--identity", "ann"]);
    assert_eq!(found["bindings"][0]["disabled"], json!(true));
    assert!(text(&["bindings", "--policy", &new]).contains("identity disabled"));
    assert_eq!(json_of(&["capabilities", "ann", "--policy", &new])["scopes"], json!([]));
    let shown = text(&["capabilities", "ann", "--policy", &new]);
    assert_eq!(shown, "ann can do nothing: it is disabled\n");
    assert!(text(&["capabilities", PERSON, "--policy", &new]).contains("get"));
}

#[test]
fn a_difference_says_who_gains_and_loses_what_where() {
    let old = policy("audit-old", POLICY);
    let changed = POLICY
        .replace(
            "identity: ann, role: writer, scope: acme}",
            "identity: ann, role: reader, scope: acme}",
        )
        .replace("2020-01-01", "2120-01-01");
    let new = policy("audit-new", &changed);
    let found = json_of(&["policy", "diff", &old, &new]);
    let gained = json!([{"identity": "bea", "scope": "acme/web", "capabilities": ["r.get"],
                         "expires_at": "2120-01-01T00:00:00Z"}]);
    let lost = json!([{"identity": "ann", "scope": "acme", "capabilities": ["r.put"]}]);
    assert_eq!(found, json!({"gained": gained, "lost": lost}));
    let shown = text(&["policy", "diff", &old, &new]);
    assert!(shown.contains("- lost by 1 identity\n+ gained by 1 identity\n"), "{shown}");
    let same = text(&["policy", "diff", &old, &old]);
    assert_eq!(same, "no identity gains or loses a capability\n");
    assert!(error(&["policy", "diff", &old, "no-such-file"]).contains("no-such-file"));
}

/// What registered properties decide, in two documents that differ in nothing else, and a later expiry.
#[test]
fn a_difference_follows_registered_properties_and_later_expiries() {
    const OLD: &str = "version: 1
catalog: {name: c, resources: [{name: r, actions: [get]}], roles: [{name: reader, capabilities: [r.get]}]}
groups: [{id: acme}]
identities: [{id: ann, properties: {team: red}}, {id: bea}, {id: cat}, {id: dot}]
resources: [{id: acme/one, type: r, properties: {status: live}}, {id: acme/two, type: r}]
role_bindings:
- {identity: ann, role: reader, scope: acme, when: [{attribute: subject.team, equals: red}]}
- {identity: bea, role: reader, scope: acme, expires_at: 2120-01-01T00:00:00Z}
- {identity: cat, role: reader, scope: acme, when: [{attribute: resource.status, not_equals: old}]}
- {identity: dot, role: reader, scope: acme}
";
    let old = policy("audit-properties-old", OLD);
    let changed = OLD.replace("team: red}}", "team: blue}}").replace("2120", "2121");
    let changed = changed
        .replace("status: live", "status: old")
        .replace("{id: acme/two, type: r}", "{id: acme/two, type: r, properties: {status: old}}");
    let new = policy("audit-properties-new", &changed);
    let found = json_of(&["policy", "diff", &old, &new]);
    let when = json!([{"attribute": "resource.status", "not_equals": "old"}]);
    let lost = json!([
        {"identity": "ann", "scope": "acme", "capabilities": ["r.get"]},
        {"identity": "cat", "scope": "acme/one", "capabilities": ["r.get"]},
        {"identity": "cat", "scope": "acme/two", "capabilities": ["r.get"], "when": when},
    ]);
    let later = json!([{"identity": "bea", "scope": "acme", "capabilities": ["r.get"],
                        "expires_at": "2121-01-01T00:00:00Z"}]);
    assert_eq!(found, json!({"gained": later, "lost": lost}));
    let back = json_of(&["policy", "diff", &new, &old]);
    assert_eq!(back["gained"], lost, "what the one direction loses, the other gains");
    assert_eq!(back["lost"], later);
    // The same of one document: what can never hold is not listed, what always holds needs no condition.
    let all =
        |policy: &str| json_of(&["capabilities", "ann", "--policy", policy])["scopes"].clone();
    assert_eq!(all(&old)[0]["capabilities"], json!(["r.get"]));
    assert_eq!(all(&old)[0]["conditional"], json!([]));
    assert_eq!(all(&new), json!([]));
    let nothing = text(&["capabilities", "ann", "--policy", &new]);
    let expected = "ann can do nothing: no binding is in time with conditions that can hold\n";
    assert_eq!(nothing, expected);
    let asked = ["capabilities", "ann", "--policy", &new, "--property", "subject.team=red"];
    assert!(error(&asked).contains("give RESOURCE"));
    // Nobody gains anything by conditions that contradict each other.
    let tests = ["equals", "not_equals"].map(|word| format!("{{attribute: context.n, {word}: 1}}"));
    let never =
        format!("- {{identity: idle, role: writer, scope: acme, when: [{}]}}\n", tests.join(", "));
    let old = policy("audit-never-old", POLICY);
    let new = policy("audit-never-new", &format!("{POLICY}{never}"));
    let nothing = "no identity gains or loses a capability\n";
    assert_eq!(text(&["policy", "diff", &old, &new]), nothing);
}
