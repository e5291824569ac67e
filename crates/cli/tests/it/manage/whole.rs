//! `capstan policy export | import` and `capstan catalog set` against a real server with a store.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::end_to_end::Store;
use crate::common::{capstan, stderr, stdout};

impl Store {
    fn file(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.folder.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn import(&self, document: &str, more: &[&str]) -> Value {
        let file = self.file("import.yaml", document);
        self.json(&[&["--operator", "policy", "import", &file], more].concat())
    }

    fn allows(&self, identity: &str, capability: &str, resource: &str) -> bool {
        let output = self.run(&["--operator", "check", identity, capability, resource]);
        match output.status.code() {
            Some(0) => true,
            Some(1) => false,
            _ => panic!("{}", stderr(&output)),
        }
    }
}

const FIRST: &str = "\
version: 1
catalog: chainguard-2025-08-14
groups:
  - {id: acme}
identities:
  - {id: alice}
role_bindings:
  - {identity: alice, role: owner, scope: acme}
";

const NEXT: &str = "\
version: 1
catalog: chainguard-2025-08-14
groups:
  - {id: acme, name: Acme, description: \"An organization: ours\"}
  - {id: acme/web}
roles:
  - {id: acme/puller, description: pulls, capabilities: [apk.list, repo.list]}
identities:
  - {id: acme/ci, type: service, properties: {n: 12, \"true\": \"12\"}}
  - {id: acme/node, disabled: true, authentication: {client_certificate: {spiffe_id: \"spiffe://a.example/n\"}}}
  - {id: acme/web/build, authentication: {client_certificate: {dns_name: n.a.example}}}
  - {id: alice}
resources:
  - {id: acme/web/shop, type: repo}
role_bindings:
  - {identity: alice, role: owner, scope: acme}
  - {id: acme/named, identity: acme/node, role: viewer, scope: acme, description: once}
  - {identity: acme/ci, role: acme/puller, scope: acme/web, expires_at: 2099-01-01T00:00:00Z, when: [{attribute: context.ip, not_equals: 10.0.0.1}]}
";

#[test]
fn a_policy_makes_the_round_trip_through_documents() {
    let mut store = Store::start("manage-round-trip");
    assert_eq!(store.done(&["policy", "export", "--parent", "acme"]), FIRST);
    let asked = store.import(NEXT, &["--dry-run"]);
    assert_eq!(asked["counts"], json!({"created": 8, "updated": 1, "deleted": 0}));
    let access = &asked["access_changes"];
    assert_eq!(access[0]["identity"], "acme/ci");
    assert_eq!(access[0]["gained"], json!(["apk.list", "repo.list"]));
    assert_eq!(access.as_array().unwrap().len(), 1, "one is disabled: {access}");
    assert_eq!(store.done(&["policy", "export", "--parent", "acme"]), FIRST);

    let made = store.import(NEXT, &["--parent", "acme"]);
    assert_eq!((&made["changes"], access), (&asked["changes"], &made["access_changes"]));
    // A `when` that the check cannot meet.
    assert!(!store.allows("acme/ci", "repo.list", "acme/web/x"));
    for parent in [&["--parent", "acme"][..], &[]] {
        let export = [&["--operator", "policy", "export"], parent].concat();
        assert_eq!(store.done(&export), NEXT);
    }
    let json = store.done(&["policy", "export", "--parent", "acme", "--format", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["roles"][0]["id"], "acme/puller");
    let revision = store.import(&json, &[])["revision"].clone();
    assert_eq!(revision, made["revision"], "nothing is different");

    // Another store has the same after the same, and so has this one after a restart.
    let other = Store::start("manage-round-trip-other");
    other.import(NEXT, &[]);
    assert_eq!(other.done(&["policy", "export", "--parent", "acme"]), NEXT);
    store.serve();
    assert_eq!(store.done(&["policy", "export", "--parent", "acme"]), NEXT);
    let export = store.file("exported.yaml", NEXT);
    let valid = capstan(&["policy", "validate", &export]);
    assert_eq!(valid.status.code(), Some(0), "{}", stderr(&valid));

    let pruned = store.import(FIRST, &["--parent", "acme", "--prune", "subtree"]);
    assert_eq!(pruned["counts"], json!({"created": 0, "updated": 1, "deleted": 8}));
    assert_eq!(store.done(&["policy", "export", "--parent", "acme"]), FIRST);
    let log = store.done(&["audit", "list", "--parent", "acme", "--output", "json"]);
    assert_eq!(log.matches("PolicyService/Import").count(), 2, "{log}");
}

#[test]
fn what_may_not_be_imported_or_exported_is_refused() {
    let store = Store::start("manage-whole-refused");
    let file = store.file("next.yaml", NEXT);
    store.refused(&["policy", "import", &file, "--parent", "acme"], "OPERATOR_ONLY");
    store.refused(&["policy", "export", "--parent", "nothing"], "NOT_FOUND");
    // At the root nothing is hidden.
    store.refused(&["policy", "export"], "OPERATOR_ONLY");
    store.refused(&["audit", "list"], "OPERATOR_ONLY");
    let refused = stderr(&store.run(&["audit", "list"]));
    assert!(refused.contains("of one organization, with --parent ORG"), "{refused}");
    store.refused(&["catalog", "set", "chainguard-2025-08-14+errata"], "OPERATOR_ONLY");
    let wrong = store.file("wrong.yaml", &NEXT.replace("scope: acme/web", "scope: acme/wep"));
    let output = store.run(&["--operator", "policy", "import", &wrong]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("role_bindings[2]") && text.contains("acme/wep"), "{text}");
    let other = store.file("other.yaml", &FIRST.replace("2025-08-14", "2025-08-14+errata"));
    let output = store.run(&["--operator", "policy", "import", &other, "--dry-run"]);
    let text = stderr(&output);
    assert!(text.contains("catalog set") && text.contains("INVALID_FIELD"), "{text}");
    assert_eq!(store.done(&["policy", "export", "--parent", "acme"]), FIRST);
}

#[test]
fn the_next_catalog_is_rehearsed_and_set() {
    let mut store = Store::start("manage-catalog");
    store.import(
        &NEXT
            .replace("role: viewer", "role: libraries.javascript.pull_token_creator")
            .replace("disabled: true, ", ""),
        &[],
    );
    let errata = "chainguard-2025-08-14+errata";
    let asked = store.json(&["--operator", "catalog", "set", errata, "--dry-run"]);
    let lost = asked["access_changes"][0]["lost"].as_array().unwrap();
    assert!(lost.contains(&json!("manifest.create")), "{asked}");
    assert!(store.allows("acme/node", "repo.delete", "acme/x"));
    let table = store.done(&["--operator", "catalog", "set", errata]);
    assert!(table.contains("manifest.create") && table.contains("acme/node"), "{table}");
    assert!(!store.allows("acme/node", "repo.delete", "acme/x"));
    store.serve();
    assert!(!store.allows("acme/node", "repo.delete", "acme/x"));
    assert!(store.done(&["policy", "export", "--parent", "acme"]).contains(errata));
    let small = "name: small\nresources: [{name: repo, actions: [list]}]\nroles: [{name: owner, capabilities: [repo.list]}]\n";
    let small = store.file("small.yaml", small);
    let output = store.run(&["--operator", "catalog", "set", &small]);
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    let text = stderr(&output);
    let role = "role `libraries.javascript.pull_token_creator`";
    assert!(
        text.contains("capability `apk.list` of `acme/puller`") && text.contains(role),
        "{text}"
    );
}
