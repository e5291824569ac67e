//! Role bindings: one, many at once, and those of a member who leaves.

use serde_json::json;

use super::server::Fake;
use super::{done, failed, json_of, run_with};
use crate::common::{stderr, stdout};

#[test]
fn a_binding_has_its_identity_role_scope_end_and_conditions() {
    let server = Fake::start();
    let create = [
        "iam",
        "binding",
        "create",
        "--identity",
        "CI bot",
        "--role",
        "name:Puller",
        "--group",
        "acme/web",
        "--expires-at",
        "2099-01-01T00:00:00Z",
        "--when",
        "resource.status!=archived",
        "--when",
        "subject.level=3",
        "--id",
        "b9",
    ];
    let (_, note) = done(&server, &create);
    let expected =
        "created role binding of acme/ci to acme/puller at acme/web: acme/web/b9 at revision";
    assert!(note.starts_with(expected), "{note}");
    let call = server.call("CreateRoleBinding");
    assert_eq!(call.message()["parent"], "acme/web");
    assert_eq!(
        call.message()["role_binding"],
        json!({"id": "acme/web/b9", "identity": "acme/ci", "role": "acme/puller", "scope": "acme/web",
            "expires_at": "2099-01-01T00:00:00Z",
            "when": [{"attribute": "resource.status", "not_equals": "archived"},
                     {"attribute": "subject.level", "equals": 3.0}]})
    );
    let create =
        ["iam", "role-bindings", "create", "--identity", "alice", "--role", "viewer", "--scope"];
    let json = json_of(&server, &[&create[..], &["acme/web/nginx", "--ttl", "30d"]].concat());
    let end = json["role_binding"]["expires_at"].as_str().unwrap();
    assert!(capstan_policy::parse_timestamp(end).is_ok(), "{end}");
    let (code, error) = failed(&server, &[&create[..], &["acme", "--ttl", "30"]].concat());
    assert_eq!((code, error.contains("--ttl `30`: expected")), (2, true), "{error}");
}

/// An id that is not registered yet, or hidden, is for the server to judge.
#[test]
fn what_is_not_seen_is_sent_as_it_is() {
    let server = Fake::start();
    let create =
        ["iam", "bindings", "create", "--identity", "zoe", "--role", "editor", "--scope", "acme"];
    done(&server, &create);
    let binding = server.call("CreateRoleBinding").message()["role_binding"].clone();
    assert_eq!((&binding["identity"], &binding["role"]), (&json!("zoe"), &json!("editor")));
}

#[test]
fn many_bindings_are_one_change() {
    let server = Fake::start();
    let lines = "{\"identity\": \"alice\", \"role\": \"viewer\", \"scope\": \"acme/web/eu\"}\n\
        {\"identity\": \"acme/ci\", \"role\": \"viewer\", \"scope\": \"acme/web\", \"etag\": \"old\"}\n";
    let create = ["iam", "role-bindings", "create", "--file", "-"];
    let output = run_with(&server, &[&create[..], &["-o", "id"]].concat(), lines);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "acme/web/eu/made0\nacme/web/made1\n");
    let note = stderr(&output);
    assert!(
        note.starts_with("created 2 role bindings at and below acme/web at revision"),
        "{note}"
    );
    let call = server.call("BatchCreateRoleBindings");
    assert_eq!(call.message()["parent"], "acme/web");
    assert_eq!(call.message()["role_bindings"].as_array().unwrap().len(), 2);
    assert!(call.message()["role_bindings"][1].get("etag").is_none());
    let output = run_with(&server, &create, "{\"identity\": \"alice\"}\n{\"idenity\": \"bob\"}\n");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("line 2: "), "{}", stderr(&output));
    assert!(server.calls().is_empty());
}

#[test]
fn what_a_list_writes_can_be_created_again() {
    let server = Fake::start();
    let json = json_of(&server, &["iam", "role-bindings", "list", "--parent", "acme/web"]);
    let listed = json["role_bindings"].as_array().unwrap();
    let lines: String = listed.iter().map(|binding| format!("{binding}\n")).collect();
    let output = run_with(&server, &["iam", "role-bindings", "create", "--file", "-"], &lines);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let sent = server.call("BatchCreateRoleBindings").message()["role_bindings"].clone();
    assert_eq!(sent[1]["when"], listed[1]["when"]);
}

#[test]
fn bindings_are_deleted_alone_or_in_one_change() {
    let server = Fake::start();
    done(&server, &["iam", "role-bindings", "delete", "acme/b1", "--yes"]);
    assert_eq!(server.call("DeleteRoleBinding").message()["id"], "acme/b1");
    let delete = ["iam", "bindings", "rm", "acme/web/b2", "acme/web/b3", "--yes"];
    let (out, note) = done(&server, &[&delete[..], &["-o", "id"]].concat());
    assert_eq!(out, "acme/web/b2\nacme/web/b3\n");
    assert!(note.starts_with("deleted 2 role bindings at and below acme/web at"), "{note}");
    let call = server.call("BatchDeleteRoleBindings");
    assert_eq!(call.message()["parent"], "acme/web");
    assert_eq!(call.message()["ids"], json!(["acme/web/b2", "acme/web/b3"]));
    let (code, error) = failed(&server, &["iam", "bindings", "rm", "acme/b1", "other/b", "--yes"]);
    assert_eq!((code, error.contains("several organizations")), (2, true), "{error}");
}

/// [`BATCH_BINDINGS_MAX`](crate::command_limits::BATCH_BINDINGS_MAX).
#[test]
fn one_change_deletes_a_limited_number_of_bindings() {
    let server = Fake::start();
    let most = crate::command_limits::BATCH_BINDINGS_MAX;
    let ids: Vec<String> = (0..=most).map(|at| format!("acme/{at}")).collect();
    let delete = |count: usize| {
        let ids = ids[..count].iter().map(String::as_str);
        ["iam", "bindings", "rm", "--yes"].into_iter().chain(ids).collect::<Vec<_>>()
    };
    done(&server, &delete(most));
    assert_eq!(
        server.call("BatchDeleteRoleBindings").message()["ids"].as_array().unwrap().len(),
        most
    );
    let (code, error) = failed(&server, &delete(most + 1));
    assert_eq!((code, error.contains("at most 1000")), (2, true), "{error}");
}

#[test]
fn a_binding_is_updated_all_but_its_scope() {
    let server = Fake::start();
    let update =
        ["iam", "role-bindings", "update", "acme/web/b2", "--role", "viewer", "--no-expiry"];
    done(&server, &update);
    let call = server.call("UpdateRoleBinding");
    assert_eq!(call.message()["update_mask"], "role,expiresAt");
    assert_eq!(call.message()["role_binding"], json!({"id": "acme/web/b2", "role": "viewer"}));
    let (code, _) = failed(&server, &[&update[..], &["--ttl", "1d"]].concat());
    assert_eq!(code, 2);
}

#[test]
fn a_member_is_removed_from_an_organization() {
    let server = Fake::start();
    let remove = ["iam", "remove-member", "name:Alice", "--organization", "Acme Corp", "--yes"];
    let (_, note) = done(&server, &remove);
    assert!(note.starts_with("deleted every role binding of alice in acme at revision"), "{note}");
    let message = server.call("RemoveMember").message().clone();
    assert_eq!((&message["organization"], &message["identity"]), (&json!("acme"), &json!("alice")));
    assert_eq!(json_of(&server, &remove)["revision"], (1_u64 << 40) + 9);
}
