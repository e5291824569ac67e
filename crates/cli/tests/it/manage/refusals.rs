//! Refusals, errors and repetitions.

use std::time::Instant;

use serde_json::Value;
use tonic::{Code, Status};

use super::server::{Fake, pushed_back, refusal};
use super::{done, failed, run};
use crate::command_limits::{RETRIES_MAX, RETRY_WAIT, RETRY_WAIT_MAX};
use crate::common::{stderr, stdout};

const CREATE: [&str; 4] = ["iam", "folders", "create", "acme/db"];

#[test]
fn a_refusal_says_what_is_missing_and_what_to_do() {
    let server = Fake::start();
    let metadata = [("scope", "acme"), ("missing", "groups.create"), ("missing_count", "1")];
    let refused =
        || refusal(Code::PermissionDenied, "bob may not", "MISSING_CAPABILITY", &metadata);
    server.script("CreateGroup", Err(refused()));
    let (code, error) = failed(&server, &CREATE);
    assert_eq!(code, 1);
    assert_eq!(
        error,
        "refused: bob may not (MISSING_CAPABILITY)\n  missing: groups.create at acme\n  to do: ask somebody who has that \
         there; `capstan who groups.create acme` shows who has the first\n"
    );
    server.script("CreateGroup", Err(refused()));
    let output = run(&server, &[&CREATE[..], &["--output", "json"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let json: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(
        (&json["code"], &json["reason"]),
        (&"PERMISSION_DENIED".into(), &"MISSING_CAPABILITY".into())
    );
    assert_eq!(json["missing"], serde_json::json!(["groups.create"]));
    assert_eq!(stderr(&output), "");
}

/// Contract, section 6.
#[test]
fn exit_codes_tell_refusals_from_errors() {
    let server = Fake::start();
    for (code, reason, expected) in [
        (Code::NotFound, "", 1),
        (Code::FailedPrecondition, "NOT_EMPTY", 1),
        (Code::AlreadyExists, "", 1),
        (Code::Aborted, "CONFLICT", 1),
        (Code::InvalidArgument, "INVALID_FIELD", 2),
        (Code::Unauthenticated, "AUTHN_FAILED", 2),
        (Code::ResourceExhausted, "QUOTA", 2),
        (Code::Internal, "", 2),
    ] {
        server.script("CreateGroup", Err(refusal(code, "no", reason, &[])));
        let (found, error) = failed(&server, &CREATE);
        assert_eq!(found, expected, "{code:?}: {error}");
        let word = if expected == 1 { "refused: no" } else { "error: no" };
        assert!(error.starts_with(word), "{error}");
    }
}

#[test]
fn an_unclear_end_is_repeated_with_the_same_request_id() {
    let server = Fake::start();
    let unknown = || refusal(Code::Unavailable, "unknown", "COMMIT_OUTCOME_UNKNOWN", &[]);
    let not_ready = refusal(Code::Unavailable, "starting", "NOT_READY", &[]);
    server.script("CreateGroup", Err(unknown()));
    server.script("CreateGroup", Err(pushed_back(not_ready, 50)));
    let start = Instant::now();
    let (_, note) = done(&server, &CREATE);
    assert!(start.elapsed() >= RETRY_WAIT, "{:?}", start.elapsed());
    assert!(note.starts_with("created folder acme/db"), "{note}");
    let ids: Vec<_> =
        server.calls().iter().map(|call| call.message()["request_id"].clone()).collect();
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let (_, _) = done(&server, &["iam", "folders", "create", "acme/db2"]);
    assert_ne!(server.call("CreateGroup").message()["request_id"], ids[0]);
}

#[test]
fn repetitions_end_and_then_say_how_to_go_on() {
    let server = Fake::start();
    for _ in 0..=RETRIES_MAX {
        let unknown = refusal(Code::Unavailable, "unknown", "COMMIT_OUTCOME_UNKNOWN", &[]);
        server.script("CreateGroup", Err(pushed_back(unknown, 1)));
    }
    let (code, error) = failed(&server, &[&CREATE[..], &["--request-id", "r7"]].concat());
    assert_eq!(code, 2);
    assert!(error.contains("repeat the command with --request-id r7 within 10 minutes"), "{error}");
    assert_eq!(server.calls().len(), RETRIES_MAX as usize + 1);
}

/// What differs each time a command runs is said, too.
#[test]
fn the_repetition_that_is_advised_is_the_same_request() {
    let server = Fake::start();
    let unknown = |method: &'static str| {
        for _ in 0..=RETRIES_MAX {
            let unknown = refusal(Code::Unavailable, "unknown", "COMMIT_OUTCOME_UNKNOWN", &[]);
            server.script(method, Err(pushed_back(unknown, 1)));
        }
    };
    unknown("UpdateRole");
    let update = ["iam", "roles", "update", "acme/puller", "--add-capability", "tag.list"];
    let (_, error) = failed(&server, &update);
    let id = server.calls()[1].message()["request_id"].as_str().unwrap().to_owned();
    let advice = format!("repeat the command with --request-id {id} and --etag 5 within");
    assert!(error.contains(&advice), "{error}");
    unknown("CreateRoleBinding");
    let bind = ["iam", "bindings", "create", "--identity", "alice", "--role", "viewer"];
    let (_, error) = failed(&server, &[&bind[..], &["--group", "acme", "--ttl", "1d"]].concat());
    let sent = server.calls()[0].message()["role_binding"]["expires_at"].clone();
    let advice = format!(" and --expires-at {} instead of --ttl within", sent.as_str().unwrap());
    assert!(error.contains(&advice), "{error}");
}

#[test]
fn a_server_that_wants_a_long_wait_or_none_is_not_asked_again() {
    let server = Fake::start();
    let long = i64::try_from(RETRY_WAIT_MAX.as_millis()).unwrap() + 1;
    for wait in [long, -1] {
        let quota = refusal(Code::ResourceExhausted, "too many writes", "QUOTA", &[]);
        server.script("CreateGroup", Err(pushed_back(quota, wait)));
        let (code, error) = failed(&server, &CREATE);
        assert_eq!((code, error.contains("too many writes")), (2, true), "{error}");
        assert_eq!(server.calls().len(), 1);
    }
}

#[test]
fn a_call_that_the_server_lacks_is_an_error_with_advice() {
    let server = Fake::start();
    server.script("CreateGroup", Err(Status::unimplemented("")));
    let (code, error) = failed(&server, &CREATE);
    assert_eq!(code, 2);
    assert!(
        error.starts_with("error: UNIMPLEMENTED\n  to do: the server does not have"),
        "{error}"
    );
}

#[test]
fn a_caller_that_no_header_can_carry_is_an_error() {
    let server = Fake::start();
    let (code, error) = failed(&server, &["iam", "groups", "list", "--as", "zoë\n"]);
    assert_eq!((code, error.contains("--as: not visible ASCII")), (2, true), "{error}");
    let output = run(&server, &["iam", "groups", "list", "--output", "junit"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(server.calls().is_empty());
}
