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
