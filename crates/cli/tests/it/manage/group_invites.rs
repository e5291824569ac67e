//! `capstan iam group-invites`: what is sent and printed, when a code would be lost, and invites of a real store.

use std::fs::File;

use serde_json::{Value, json};
use tonic::Code;

use super::end_to_end::Store;
use super::server::{CODE, Fake, pushed_back, refusal};
use super::{done, failed, json_of, run_with};
use crate::command_limits::CODE_BYTES_MAX;
use crate::common::{command, stderr, stdout};

const CREATE: [&str; 7] =
    ["iam", "group-invites", "create", "--group", "acme/web", "--role", "viewer"];

fn create(more: &[&'static str]) -> Vec<&'static str> {
    [&CREATE[..], more].concat()
}

#[test]
fn an_invite_is_created_and_its_code_shown_once() {
    let server = Fake::start();
    let more = ["--email", "ann@example.com", "--ttl", "12h", "--name", "Ann", "--as", "alice"];
    let (out, note) = done(&server, &create(&more));
    let call = server.call("CreateGroupInvite");
    let sent = json!({"parent": "acme/web", "ttl": "43200s", "request_id": call.message()["request_id"],
        "group_invite": {"name": "Ann", "role": "viewer", "email": "ann@example.com"}});
    assert_eq!((call.message(), call.caller.as_deref()), (&sent, Some("alice")));
    let id = "acme/web/0123456789abcdef";
    for line in [
        &format!("invite       {id}  Ann\n"),
        "to           acme/web, with viewer: capstan iam roles describe viewer\n",
        "for          ann@example.com, once\n",
        "valid until  2099-01-01T00:00:00Z\n",
        // Whole, however wide the terminal is.
        &format!("code         {CODE}\n"),
        "shown only here",
        &format!("capstan iam group-invites delete {id}\n"),
    ] {
        assert!(out.contains(line), "{line} in {out}");
    }
    assert!(!note.contains(CODE), "{note}");
    assert!(
        note.starts_with(&format!("created invite to acme/web with viewer: {id} at")),
        "{note}"
    );

    let made = json_of(&server, &create(&["--reusable", "--id", "open"]));
    assert_eq!(
        (&made["code"], &made["group_invite"]["id"]),
        (&json!(CODE), &json!("acme/web/open"))
    );
    let sent = server.call("CreateGroupInvite");
    // Without options, the server chooses how long.
    assert!(sent.message().get("ttl").is_none());
    assert_eq!(sent.message()["group_invite"]["single_use"], false);

    let (out, note) = done(&server, &create(&["--validate-only", "--id", "new"]));
    assert_eq!(out, "");
    assert_eq!(
        note,
        "valid: invite to acme/web with viewer: one would be created; nothing was changed\n"
    );
}

#[test]
fn what_would_lose_the_code_sends_nothing() {
    let server = Fake::start();
    for (line, part) in [
        (create(&["--quiet"]), "--quiet: the code is shown only here"),
        (create(&["--output", "id"]), "--output id: it does not show the code"),
        (create(&["--output", "tree"]), "--output tree: it does not show the code"),
        (create(&["--ttl", "soon"]), "--ttl `soon`: expected a number with s, m, h, d or w"),
        (create(&["--id", "other/x"]), "other/x"),
        (vec!["iam", "invites", "update", "acme/open"], "nothing to change: give --name or"),
    ] {
        let (code, error) = failed(&server, &line);
        assert_eq!((code, error.contains(part)), (2, true), "{line:?}: {error}");
    }
    let long =
        run_with(&server, &["iam", "invites", "accept", "-"], &"x".repeat(CODE_BYTES_MAX + 1));
    assert!(stderr(&long).contains("more than 1024 bytes"), "{}", stderr(&long));
    assert!(server.calls().is_empty());
}

#[test]
fn a_code_that_nobody_has_seen_is_to_be_deleted() {
    let server = Fake::start();
    for more in [&["--id", "a"][..], &["--id", "b", "-o", "json"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let line = [&create(more)[..], &["--addr", &server.addr]].concat();
        let output = command(&line).stdout(full).output().unwrap();
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{error}");
        let delete = "its code is lost: delete it with `capstan iam group-invites delete acme/web/";
        assert!(error.contains(delete), "{error}");
    }
}

#[test]
fn invites_are_listed_described_changed_and_deleted() {
    let server = Fake::start();
    let (out, _) = done(&server, &["iam", "group-invites", "list"]);
    for part in ["INVITE", "acme/open", "anybody who has the code", "ann@example.com, once"] {
        assert!(out.to_uppercase().contains(&part.to_uppercase()), "{part} in {out}");
    }
    let listed = json_of(&server, &["iam", "invites", "list", "--parent", "acme/web"]);
    assert_eq!(listed["group_invites"].as_array().unwrap().len(), 1);
    let (out, _) = done(&server, &["iam", "invite", "describe", "Ann"]);
    assert!(out.contains("acme/web/e3e3e3e3e3e3e3e3") && out.contains("single_use"), "{out}");
    done(&server, &["iam", "invites", "update", "acme/open", "--name", "For the team"]);
    let sent = server.call("UpdateGroupInvite");
    assert_eq!(sent.message()["update_mask"], "name");
    done(&server, &["iam", "invites", "delete", "acme/open", "--yes"]);
    assert_eq!(server.call("DeleteGroupInvite").message()["id"], "acme/open");
}

#[test]
fn an_invite_is_accepted_by_its_code() {
    let server = Fake::start();
    let accept = ["iam", "invites", "accept"];
    let as_ann = ["--as", "alice", "--as-email", "ann@example.com"];
    let (out, note) = done(&server, &[&accept[..], &[CODE], &as_ann].concat());
    let call = server.call("AcceptGroupInvite");
    assert_eq!((&call.message()["code"], call.caller.as_deref()), (&json!(CODE), Some("alice")));
    assert_eq!(out, "");
    assert!(note.starts_with("created role binding of alice to viewer at acme/web:"), "{note}");
    let read = run_with(&server, &[&accept[..], &["-"]].concat(), &format!(" {CODE}\n"));
    assert!(read.status.success(), "{}", stderr(&read));
    assert_eq!(server.call("AcceptGroupInvite").message()["code"], CODE);
    let made = json_of(&server, &[&accept[..], &[CODE]].concat());
    assert_eq!(made["role_binding"]["scope"], "acme/web");
}

#[test]
fn refusals_of_invites_say_what_to_do() {
    let server = Fake::start();
    let unknown = refusal(Code::Unavailable, "unknown", "COMMIT_OUTCOME_UNKNOWN", &[]);
    server.script("CreateGroupInvite", Err(pushed_back(unknown, 1)));
    done(&server, &CREATE);
    let calls = server.calls();
    let ids: Vec<_> = calls.iter().map(|call| &call.message()["request_id"]).collect();
    assert_eq!((ids.len(), ids[0]), (2, ids[1]), "an unclear end is repeated");
    let dead = refusal(Code::NotFound, "cannot be accepted", "INVITE_INVALID", &[]);
    server.script("AcceptGroupInvite", Err(dead));
    let (code, error) = failed(&server, &["iam", "invites", "accept", CODE]);
    assert!(code == 1 && error.contains("ask who invited you for a new one"), "{error}");
}

/// From the code of one to the binding of another, on a real server.
#[test]
fn an_invite_of_a_store_lets_its_bearer_join() {
    let store = Store::start("manage-group-invites");
    let made = store.json(&["iam", "invites", "create", "--group", "acme", "--role", "viewer"]);
    let code = made["code"].as_str().unwrap();
    let looked =
        ["iam", "identities", "lookup", "--issuer", "https://idp.example", "--subject", "1"];
    let new = stdout(&store.run(&looked)).trim().to_owned();
    let accept = ["iam", "invites", "accept", code, "--as", &new];
    let joined = store.run(&accept);
    assert!(joined.status.success(), "{}", stderr(&joined));
    let again = store.run(&accept);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("ask who invited you"), "{}", stderr(&again));
    let bound: Value = store.json(&["iam", "role-bindings", "list", "--identity", &new]);
    assert_eq!(bound["role_bindings"][0]["role"], "viewer");
}
