//! Names for ids.

use serde_json::json;

use super::server::Fake;
use super::{done, failed};
use crate::command_limits::CANDIDATES_SHOWN_MAX;

#[test]
fn an_id_wins_over_a_name_and_a_path_is_not_looked_up() {
    let server = Fake::start();
    server.put("groups", json!({"id": "third", "name": "acme"}));
    let (id, _) = done(&server, &["iam", "groups", "describe", "acme", "-o", "id"]);
    assert_eq!(id, "acme\n");
    done(&server, &["iam", "folders", "create", "x", "--parent", "acme/web"]);
    let calls: Vec<_> = server.calls().into_iter().map(|call| call.method).collect();
    assert_eq!(calls, ["GroupService/GetGroup", "GroupService/CreateGroup"]);
    let generated = "0f".repeat(20);
    done(&server, &["iam", "folders", "create", "x", "--parent", &generated]);
    assert_eq!(server.call("CreateGroup").message()["parent"], generated);
}

#[test]
fn a_name_of_several_objects_lists_them() {
    let server = Fake::start();
    let (code, error) = failed(&server, &["iam", "groups", "describe", "Web"]);
    assert_eq!(code, 2);
    assert!(
        error.contains("several groups have the name `Web`: acme/web, acme/web/eu; give"),
        "{error}"
    );
    let (id, _) = done(&server, &["iam", "groups", "describe", "Acme Corp", "-o", "id"]);
    assert_eq!(id, "acme\n");
}

#[test]
fn of_many_candidates_the_first_are_shown() {
    let server = Fake::start();
    for at in 0..=CANDIDATES_SHOWN_MAX {
        server.put("groups", json!({"id": format!("other/{at:02}"), "name": "Same"}));
    }
    let (code, error) = failed(&server, &["iam", "groups", "list", "--parent", "Same"]);
    assert_eq!(code, 2);
    assert!(error.contains("other/09, and others; give the id"), "{error}");
    assert!(!error.contains("other/10"), "{error}");
}

/// What could be a path is an id where something is given or taken away, whoever has it as a display name.
#[test]
fn a_grant_or_a_delete_goes_to_no_display_name_that_could_be_a_path() {
    let server = Fake::start();
    // Whoever may create these gives them the names that others mean.
    server.put("identities", json!({"id": "acme/mallory", "name": "zoe"}));
    server.put("roles", json!({"id": "acme/evil", "name": "editor"}));
    server.put("groups", json!({"id": "acme/hers", "name": "prod"}));
    let bind = ["iam", "bindings", "create", "--identity", "zoe", "--role", "editor"];
    done(&server, &[&bind[..], &["--scope", "prod"]].concat());
    let calls = server.calls();
    assert_eq!(calls.len(), 1, "nothing is looked up: {calls:?}");
    let expected = json!({"identity": "zoe", "role": "editor", "scope": "prod"});
    assert_eq!(calls[0].message()["role_binding"], expected);
    done(
        &server,
        &["iam", "bindings", "update", "acme/b1", "--identity", "zoe", "--role", "editor"],
    );
    let expected = json!({"id": "acme/b1", "identity": "zoe", "role": "editor"});
    assert_eq!(server.call("UpdateRoleBinding").message()["role_binding"], expected);
    done(&server, &["iam", "organizations", "create", "new", "--owner", "zoe"]);
    assert_eq!(server.call("CreateGroup").message()["owner"], "zoe");
    done(&server, &["iam", "remove-member", "zoe", "--organization", "acme", "--yes"]);
    assert_eq!(server.call("RemoveMember").message()["identity"], "zoe");
    for delete in [
        ["iam", "identities", "delete", "zoe", "--yes"],
        ["iam", "roles", "delete", "editor", "--yes"],
        ["iam", "groups", "delete", "prod", "--yes"],
        ["iam", "identities", "disable", "zoe", "--quiet"],
    ] {
        let (code, error) = failed(&server, &delete);
        assert_eq!((code, error.contains(&format!("no {}", delete[3]))), (1, true), "{error}");
        assert_eq!(server.calls().len(), 1, "{delete:?}");
    }
    // Who means the name says so.
    done(&server, &["iam", "identities", "delete", "name:zoe", "--yes"]);
    assert_eq!(server.call("DeleteIdentity").message()["id"], "acme/mallory");
    let bind = ["iam", "bindings", "create", "--identity", "name:zoe", "--role", "name:editor"];
    done(&server, &[&bind[..], &["--scope", "name:prod"]].concat());
    let expected = json!({"identity": "acme/mallory", "role": "acme/evil", "scope": "acme/hers"});
    assert_eq!(server.call("CreateRoleBinding").message()["role_binding"], expected);
}

/// The id of a group, then that of a resource, then the names of both.
#[test]
fn a_scope_is_an_id_of_either_kind_before_it_is_a_name() {
    let server = Fake::start();
    server.put("resources", json!({"id": "nginx", "name": "Web server"}));
    server.put("groups", json!({"id": "acme/hers", "name": "nginx"}));
    let scope = |text: &str| {
        done(&server, &["iam", "bindings", "list", "--scope", text]);
        server.call("ListRoleBindings").message()["filter"].clone()
    };
    assert_eq!(scope("nginx"), r#"scope = "nginx""#, "the id of the resource");
    assert_eq!(scope("name:nginx"), r#"scope = "acme/hers""#);
    assert_eq!(scope("Web server"), r#"scope = "nginx""#);
    assert_eq!(scope("none"), r#"scope = "none""#);
    server.put("groups", json!({"id": "acme/third", "name": "Web server"}));
    for arguments in [
        &["iam", "bindings", "list", "--scope", "Web server"][..],
        &["iam", "bindings", "create", "--identity", "a", "--role", "b", "--scope", "Web server"],
    ] {
        let (code, error) = failed(&server, arguments);
        let expected = "several groups or resources have the name `Web server`: acme/third, nginx";
        assert_eq!((code, error.contains(expected)), (2, true), "{error}");
    }
}

#[test]
fn a_folder_is_no_organization() {
    let server = Fake::start();
    for (kind, id, text) in [
        ("folders", "acme", "`acme` is no folder: `capstan iam organizations` is for it"),
        ("organizations", "acme/web", "`acme/web` is no organization: `capstan iam folders` is"),
    ] {
        for line in [&["delete", id, "--yes"][..], &["update", id, "--name", "x"]] {
            let (code, error) = failed(&server, &[&["iam", kind], line].concat());
            assert_eq!((code, error.contains(text)), (2, true), "{error}");
        }
    }
    assert!(server.calls().is_empty());
    done(&server, &["iam", "groups", "delete", "acme", "--yes"]);
    let (_, note) = done(&server, &["iam", "folders", "delete", "Acme Corp", "--yes"]);
    assert!(note.starts_with("deleted organization acme at revision"), "{note}");
}

#[test]
fn a_name_of_nothing_is_refused() {
    let server = Fake::start();
    for arguments in [
        ["iam", "groups", "describe", "No Such"],
        ["iam", "identities", "disable", "No Such"],
        ["iam", "groups", "describe", "nosuch"],
    ] {
        let (code, error) = failed(&server, &arguments);
        assert_eq!(code, 1, "{error}");
        assert!(error.starts_with("refused: there is no "), "{error}");
        assert!(error.contains("check the id, and who you are (--as)"), "{error}");
    }
    let (code, error) = failed(&server, &["iam", "groups", "describe", "acme/none"]);
    assert_eq!((code, error.contains("no acme/none")), (1, true), "{error}");
}
