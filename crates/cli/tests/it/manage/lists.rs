//! Lists, single objects, trees, and the audit log, in each format.

use serde_json::json;

use super::server::Fake;
use super::{done, failed, json_of};
use crate::common::{command, stderr};

#[test]
fn a_list_has_all_pages_in_every_format() {
    let server = Fake::start();
    let (ids, _) = done(&server, &["iam", "groups", "ls", "--output", "id"]);
    assert_eq!(ids, "acme\nacme/web\nacme/web/eu\nother\n");
    let pages = server.calls();
    assert_eq!(pages.len(), 2);
    assert_eq!(pages[0].message()["page_size"], crate::command_limits::PAGE_OBJECTS);
    assert_eq!(pages[1].message()["page_token"], "2");
    let json = json_of(&server, &["iam", "group", "list"]);
    assert_eq!(json["groups"].as_array().unwrap().len(), 4);
    assert_eq!(json["groups"][0]["name"], "Acme Corp");
    assert_eq!(json["revision"], (1_u64 << 40) + 7);
    assert!(json.get("next_page_token").is_none());
    let (tree, _) = done(&server, &["iam", "groups", "list", "-o", "tree"]);
    assert_eq!(tree, "acme  Acme Corp\n└── web  Web\n    └── eu  Web\nother  Other\n");
    let (table, _) = done(&server, &["iam", "groups", "list"]);
    assert!(table.contains("│ acme/web/eu ┆ Web       ┆"), "{table}");
}

/// Each command that lists the roles of a server, with and without a saved address.
#[test]
fn roles_are_as_new_as_they_are_asked_for() {
    let server = Fake::start();
    for line in [
        &["roles", "list"][..],
        &["roles", "list", "--parent", "acme/web"],
        &["roles", "compare"],
        &["roles", "diff", "owner", "viewer"],
    ] {
        for (mode, sent) in [
            ("at-least=1099511627777", json!({"at_least": "1099511627777"})),
            ("full", json!({"fully_consistent": true})),
        ] {
            let line = [line, &["--consistency", mode]].concat();
            done(&server, &line);
            let calls = server.calls();
            let lists: Vec<_> =
                calls.iter().filter(|call| call.method == "RoleService/ListRoles").collect();
            assert!(!lists.is_empty());
            for call in lists {
                assert_eq!(call.message()["consistency"], sent, "{line:?}");
            }
            let output = command(&line).env("CAPSTAN_ADDR", &server.addr).output().unwrap();
            assert!(output.status.success(), "{}", stderr(&output));
            assert!(!server.calls().is_empty(), "a catalog has no revision: {line:?}");
        }
    }
}

#[test]
fn organizations_and_folders_are_groups_at_and_below_the_root() {
    let server = Fake::start();
    let ids = |kind: &str| done(&server, &["iam", kind, "list", "-o", "id"]).0;
    assert_eq!(ids("organizations"), "acme\nother\n");
    assert_eq!(ids("org"), "acme\nother\n");
    assert_eq!(ids("folders"), "acme/web\nacme/web/eu\n");
    let (below, _) = done(&server, &["iam", "folders", "list", "--parent", "acme/web", "-o", "id"]);
    assert_eq!(below, "acme/web\nacme/web/eu\n");
}

#[test]
fn lists_are_filtered_by_the_server() {
    let server = Fake::start();
    let list =
        ["iam", "bindings", "list", "--identity", "Alice", "--group", "acme/web", "-o", "id"];
    assert_eq!(done(&server, &list).0, "acme/web/b3\n");
    let call = server.call("ListRoleBindings");
    assert_eq!(call.message()["filter"], r#"identity = "alice" AND scope = "acme/web""#);
    let arguments = [
        "iam",
        "identities",
        "list",
        "--type",
        "service",
        "--filter",
        r#"name = "CI bot""#,
        "-o",
        "id",
    ];
    assert_eq!(done(&server, &arguments).0, "acme/ci\n");
    let call = server.call("ListIdentities");
    assert_eq!(call.message()["filter"], r#"name = "CI bot" AND type = "service""#);
    done(&server, &["iam", "resources", "list", "--consistency", "at-least=9"]);
    assert_eq!(server.call("ListResources").message()["consistency"]["at_least"], "9");
    let (none, _) = done(&server, &["iam", "resources", "list", "--type", "none"]);
    assert_eq!(none, "no resources\n");
}

#[test]
fn a_binding_shows_what_restricts_it() {
    let server = Fake::start();
    let (table, _) = done(&server, &["iam", "role-bindings", "list", "--parent", "acme/web"]);
    assert!(table.contains("until 2099-01-01T00:00:00Z"), "{table}");
    assert!(table.contains("if resource.status ≠ \"archived\""), "{table}");
    let (tree, _) = done(&server, &["iam", "role-bindings", "list", "-o", "tree"]);
    assert!(tree.contains("├── b1  owner  alice\n"), "{tree}");
}

#[test]
fn one_object_is_described() {
    let server = Fake::start();
    let json = json_of(&server, &["iam", "identity", "get", "acme/ci"]);
    assert_eq!(json["identity"]["properties"], json!({"team": "web", "level": 3}));
    assert_eq!(json["identity"]["disabled"], false);
    let (table, _) = done(&server, &["iam", "identities", "describe", "acme/ci"]);
    assert!(table.contains("level = 3\n") || table.contains("level = 3 "), "{table}");
    assert!(table.contains("CI bot") && !table.contains("create_time"), "{table}");
    let (role, _) = done(&server, &["iam", "roles", "describe", "owner", "-o", "id"]);
    assert_eq!(role, "owner\n");
    let json = json_of(&server, &["roles", "describe", "Puller"]);
    assert_eq!(json["role"]["capabilities"], json!(["apk.list", "repo.list"]));
}

#[test]
fn the_id_of_a_person_is_looked_up() {
    let server = Fake::start();
    let arguments = ["iam", "identities", "lookup", "--issuer", "https://i", "--subject", "s"];
    assert_eq!(done(&server, &arguments).0, format!("{}\n", "0f".repeat(20)));
    assert_eq!(
        *server.call("LookupIdentity").message(),
        json!({"issuer": "https://i", "subject": "s"})
    );
    assert_eq!(json_of(&server, &arguments)["id"], "0f".repeat(20));
}

#[test]
fn roles_of_a_server_are_listed_in_the_form_of_the_contract() {
    let server = Fake::start();
    let json = json_of(&server, &["iam", "roles", "list"]);
    assert_eq!(json["catalog"], "chainguard-2025-08-14");
    assert_eq!(json["roles"][2]["name"], "acme/puller");
    let arguments = ["iam", "roles", "list", "--parent", "Acme Corp", "--as", "alice", "-o", "id"];
    assert_eq!(done(&server, &arguments).0, "acme/puller\n");
    let call = server.calls().pop().unwrap();
    assert_eq!(call.message()["parent"], "acme");
    assert_eq!(call.caller.as_deref(), Some("alice"));
}

#[test]
fn an_organization_is_drawn_with_everything_in_it() {
    let server = Fake::start();
    let (tree, _) = done(&server, &["iam", "tree", "acme"]);
    let expected = [
        "acme (Acme Corp)",
        "├── · owner alice (Alice)",
        "├── role puller  2 capabilities",
        "├── service ci (CI bot)",
        "└── web (Web)",
        "    ├── · acme/puller acme/ci (CI bot)  until 2099-01-01T00:00:00Z",
        "    ├── · viewer alice (Alice)  if resource.status ≠ \"archived\"",
        "    ├── repo nginx",
        "    └── eu (Web)",
        "",
    ];
    assert_eq!(tree, expected.join("\n"));
    let json = json_of(&server, &["iam", "tree", "acme"]);
    assert_eq!(json["organization"]["groups"][0]["groups"][0]["id"], "acme/web/eu");
    let (code, error) = failed(&server, &["iam", "tree", "acme", "--output", "id"]);
    assert_eq!(code, 2, "{error}");
}

/// [`TREE_LISTINGS_MAX`](crate::command_limits::TREE_LISTINGS_MAX) times.
#[test]
fn a_tree_of_several_revisions_is_listed_anew_and_then_said() {
    let server = Fake::start();
    let page = |revision: u64| Ok(vec![json!({"role_bindings": [], "revision": revision})]);
    server.script("ListRoleBindings", page(1));
    let (tree, note) = done(&server, &["iam", "tree", "acme"]);
    assert!(tree.contains("owner alice") && note.is_empty(), "{tree}{note}");
    for revision in 1..=crate::command_limits::TREE_LISTINGS_MAX {
        server.script("ListRoleBindings", page(revision as u64));
    }
    let (_, note) = done(&server, &["iam", "tree", "acme"]);
    assert!(note.contains("several revisions"), "{note}");
}

/// The names of the first [`TREE_NAMES_MAX`](crate::command_limits::TREE_NAMES_MAX) root identities are looked up.
#[test]
fn a_tree_looks_up_a_limited_number_of_names() {
    let server = Fake::start();
    let most = crate::command_limits::TREE_NAMES_MAX;
    for at in 0..most {
        let who = format!("person-{at}");
        server.put("role_bindings", json!({"id": format!("acme/p{at}"), "identity": who, "role": "viewer", "scope": "acme"}));
    }
    done(&server, &["iam", "tree", "acme"]);
    let gets = server.calls().into_iter().filter(|call| call.method.ends_with("GetIdentity"));
    assert_eq!(gets.count(), most, "alice, and all but one of the others");
}

#[test]
fn audit_records_are_listed_and_chosen() {
    let server = Fake::start();
    let json = json_of(&server, &["audit", "list", "--parent", "acme"]);
    assert_eq!(json["audit_records"].as_array().unwrap().len(), 3);
    assert_eq!(json["audit_records"][1]["missing"], json!(["groups.create"]));
    let (table, _) = done(&server, &["audit", "list", "--refused"]);
    assert!(table.contains("MISSING_CAPABILITY: groups.create at acme"), "{table}");
    assert!(table.contains("bob") && !table.contains("alice"), "{table}");
    done(&server, &["audit", "ls", "--actor", "alice", "--object", "acme/web"]);
    let filter = server.calls().pop().unwrap().message()["filter"].clone();
    assert_eq!(filter, r#"actor = "alice" AND object = "acme/web""#);
    let since =
        json_of(&server, &["audit", "list", "--since", "2026-11-02T00:00:00Z", "--limit", "1"]);
    assert_eq!(since["audit_records"][0]["revision"], 3, "the newest");
    let (_, note) = done(&server, &["audit", "list", "--limit", "2"]);
    assert!(note.contains("1 older records are not shown"), "{note}");
}

/// [`AUDIT_RECORDS_SHOWN`](crate::command_limits::AUDIT_RECORDS_SHOWN) without `--limit`.
#[test]
fn the_newest_audit_records_are_shown_unless_all_are_wanted() {
    let server = Fake::start();
    let most = crate::command_limits::AUDIT_RECORDS_SHOWN;
    let records: Vec<_> = (0..=most).map(|at| json!({"revision": at + 1})).collect();
    let page = || Ok(vec![json!({"audit_records": records, "revision": 1})]);
    server.script("ListAuditRecords", page());
    let json = json_of(&server, &["audit", "list"]);
    let shown = json["audit_records"].as_array().unwrap();
    assert_eq!((shown.len(), &shown[0]["revision"]), (most, &json!(2)));
    server.script("ListAuditRecords", page());
    let json = json_of(&server, &["audit", "list", "--limit", "0"]);
    assert_eq!(json["audit_records"].as_array().unwrap().len(), most + 1);
}
