//! `capstan auth pull-token`: what is sent and printed, when a secret would be lost, and tokens of a real store.

use std::fs::File;
use std::process::Output;

use serde_json::{Value, json};
use tonic::Code;

use super::end_to_end::Store;
use super::server::{Fake, SECRET, pushed_back, refusal};
use super::{done, failed, json_of, run};
use crate::common::{command, stderr, stdout};

const CREATE: [&str; 7] =
    ["auth", "pull-token", "create", "--group", "acme/web", "--role", "registry.pull"];

fn create(more: &[&'static str]) -> Vec<&'static str> {
    [&CREATE[..], more].concat()
}

#[test]
fn a_token_is_created_and_its_secret_shown_once() {
    let server = Fake::start();
    let more = ["--name", "CI", "--ttl", "12h", "--request-id", "r1", "--as", "alice"];
    let (out, note) = done(&server, &create(&more));
    let call = server.call("CreatePullToken");
    let sent = json!({"group": "acme/web", "role": "registry.pull", "name": "CI", "ttl": "43200s", "request_id": "r1"});
    assert_eq!((call.message(), call.caller.as_deref()), (&sent, Some("alice")));
    let id = "acme/web/0123456789abcdef";
    for line in [
        &format!("pull token   {id}  CI\n"),
        "what registry.pull gives at and below acme/web",
        "\nvalid until  2099-01-01T00:00:00Z\n",
        &format!("\nuser name    {id}\n"),
        // Whole, however wide the terminal is.
        &format!("\nsecret       {SECRET}\n"),
        "shown only here",
        &format!("capstan auth pull-token revoke {id}\n"),
    ] {
        assert!(out.contains(line), "{line} in {out}");
    }
    assert!(!out.contains('\x1b') && !note.contains(SECRET), "{out}{note}");
    assert!(
        note.starts_with(&format!("created pull token with registry.pull at acme/web: {id} at"))
    );

    let made = json_of(&server, &CREATE);
    assert_eq!((&made["username"], &made["secret"]), (&json!(id), &json!(SECRET)));
    assert_eq!(made["pull_token"]["expires_at"], "2099-01-01T00:00:00Z");
    assert!(made["revision"].is_u64());
    // Without options, the server chooses how long.
    assert!(server.call("CreatePullToken").message().get("ttl").is_none());

    let (out, note) = done(&server, &create(&["--validate-only"]));
    assert_eq!(out, "");
    assert_eq!(
        note,
        "valid: pull token with registry.pull at acme/web: one would be created; nothing was changed\n"
    );
    let (_, _) = done(&server, &create(&["--validate-only", "--quiet"]));
}

/// Unit tests of `auth/clients.rs` have every byte of each configuration, `registry.rs` has the clients.
#[test]
fn a_configuration_is_all_that_standard_output_has() {
    let server = Fake::start();
    let (out, note) = done(&server, &create(&["--output", "env"]));
    let id = "acme/web/0123456789abcdef";
    assert_eq!(
        out,
        format!(
            "export CAPSTAN_PULL_TOKEN_USERNAME='{id}'\nexport CAPSTAN_PULL_TOKEN_PASSWORD='{SECRET}'\n"
        )
    );
    assert!(!note.contains(SECRET) && note.contains("valid until 2099-01-01T00:00:00Z"), "{note}");
    let (out, note) = done(&server, &create(&["-o", "docker", "--registry", "host.example/a"]));
    let found: Value = serde_json::from_str(&out).unwrap();
    assert!(found["auths"]["host.example/a"]["auth"].is_string(), "{out}");
    assert!(note.contains("config.json") && !note.contains("warning"), "{note}");
    let (out, _) = done(&server, &create(&["-o", "maven", "--id", "acme-libraries"]));
    assert!(out.contains("<id>acme-libraries</id>"), "{out}");
    for client in ["docker", "npm", "apk"] {
        let (_, note) = done(&server, &create(&["-o", client, "--url", "http://host.example"]));
        assert!(note.contains("warning: with http:// the client sends the secret"), "{note}");
    }
    // It may stand before the command, as for others.
    let (out, _) = done(&server, &[&["--output", "env"][..], &CREATE].concat());
    assert!(out.starts_with("export "), "{out}");
    // A configuration of nothing is not written.
    let (out, _) = done(&server, &create(&["-o", "env", "--validate-only"]));
    assert_eq!(out, "");
}

#[test]
fn what_would_lose_the_secret_or_lacks_an_option_sends_nothing() {
    let server = Fake::start();
    for (line, part) in [
        (create(&["--quiet"]), "--quiet: the secret is shown only here"),
        (
            create(&["--output", "id"]),
            "possible values: table, json, env, docker, pip, npm, maven, apk",
        ),
        ([&["--output", "id"][..], &CREATE].concat(), "--output id: it does not show the secret"),
        (
            [&["--output", "tree"][..], &CREATE].concat(),
            "--output tree: it does not show the secret",
        ),
        (create(&["--output", "pip"]), "--output pip needs the registry: --registry HOST[/PATH]"),
        (
            create(&["--output", "pip", "--url", "http://x"]),
            "pip takes no user name with a slash over http://",
        ),
        (create(&["--output", "npm", "--registry", "https://x"]), "a URL is given with --url"),
        (create(&["--output", "maven", "--registry", "x"]), "leave out --registry and --url"),
        (create(&["--output", "env", "--id", "x"]), "--output env takes no --id"),
        (create(&["--registry", "x"]), "are of the configuration of a client"),
        (create(&["-o", "apk", "--registry", "x", "--url", "https://x"]), "cannot be used with"),
        (create(&["--ttl", "soon"]), "--ttl `soon`: expected a number with s, m, h, d or w"),
        (create(&["--request-id", "r1", "--group", "name:Web"]), "error"),
        (
            vec!["auth", "pull-token", "list", "--output", "env"],
            "only `capstan auth pull-token create` writes",
        ),
        (
            vec!["iam", "groups", "list", "--output", "docker"],
            "only `capstan auth pull-token create` writes",
        ),
    ] {
        let (code, error) = failed(&server, &line);
        assert_eq!((code, error.contains(part)), (2, true), "{line:?}: {error}");
    }
    let (code, error) = failed(&server, &["roles", "list", "--output", "docker"]);
    assert!(code == 2 && error.contains("only `capstan auth pull-token create` writes"), "{error}");
    server.calls();
    let long = format!("acme/{}", "a".repeat(240));
    let line =
        ["auth", "pull-token", "create", "--group", &long, "--role", "apk.pull", "-o", "apk"];
    let (code, error) = failed(&server, &[&line[..], &["--registry", "host"]].concat());
    assert!(code == 2 && error.contains("apk takes user names of at most 256 bytes"), "{error}");
    assert!(server.calls().is_empty());
}

/// With `what`, and a standard output that cannot be written.
fn unwritable(server: &Fake, line: &[&str]) -> Output {
    let full = File::options().write(true).open("/dev/full").unwrap();
    command(&[line, &["--addr", &server.addr]].concat()).stdout(full).output().unwrap()
}

#[test]
fn a_secret_that_nobody_has_seen_is_to_be_revoked() {
    let server = Fake::start();
    let revoke = "the pull token was created and its secret is lost: revoke it with `capstan auth pull-token revoke";
    for more in [&[][..], &["-o", "json"], &["-o", "env"]] {
        let output = unwritable(&server, &create(more));
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(revoke) && error.contains("cannot write the result"), "{error}");
    }
    // What no configuration can have is of no server that we know.
    for secret in ["", "a'; b"] {
        let token = json!({"id": "acme/x", "role": "r", "scope": "acme"});
        let answer =
            json!({"pull_token": token, "username": "acme/x", "secret": secret, "revision": 1});
        server.script("CreatePullToken", Ok(vec![answer]));
        let (code, error) = failed(&server, &create(&["-o", "env"]));
        assert!(
            code == 2 && error.contains("no user name and secret") && error.contains(revoke),
            "{error}"
        );
    }
}

#[test]
fn an_unclear_end_is_repeated_with_the_same_request_id() {
    let server = Fake::start();
    let unknown = refusal(Code::Unavailable, "unknown", "COMMIT_OUTCOME_UNKNOWN", &[]);
    server.script("CreatePullToken", Err(pushed_back(unknown, 1)));
    done(&server, &CREATE);
    let calls = server.calls();
    let ids: Vec<_> = calls.iter().map(|call| &call.message()["request_id"]).collect();
    assert_eq!((ids.len(), ids[0]), (2, ids[1]));
}

#[test]
fn refusals_say_what_to_do() {
    let server = Fake::start();
    for (code, reason, advice) in [
        (
            Code::FailedPrecondition,
            "ROLE_NOT_ALLOWED",
            "a role of the catalog that manages nothing",
        ),
        (
            Code::FailedPrecondition,
            "TOKEN_ALREADY_ISSUED",
            "create another one with a new --request-id",
        ),
        (
            Code::PermissionDenied,
            "DURATION_EXCEEDED",
            "a shorter --ttl; a pull token without --ttl ends with your right",
        ),
    ] {
        server.script("CreatePullToken", Err(refusal(code, "no", reason, &[])));
        let (code, error) = failed(&server, &CREATE);
        assert!(code == 1 && error.starts_with(&format!("refused: no ({reason})")), "{error}");
        assert!(error.contains("\n  to do: ") && error.contains(advice), "{error}");
    }
}

#[test]
fn tokens_are_listed_in_every_format() {
    let server = Fake::start();
    let list = ["auth", "pull-token", "ls"];
    let of = |more: &[&str]| done(&server, &[&list[..], more].concat()).0;
    assert_eq!(of(&["-o", "id", "--parent", "acme/web"]), "acme/web/c1c1c1c1c1c1c1c1\n");
    let all = "acme/b0b0b0b0b0b0b0b0\nacme/web/c1c1c1c1c1c1c1c1\nother/d2d2d2d2d2d2d2d2\n";
    assert_eq!(of(&["-o", "id"]), all, "both pages");
    let table = of(&[]);
    for cell in [
        "expires",
        "nightly",
        "│ acme/b0b0b0b0b0b0b0b0     ┆ nightly ┆ registry.pull ┆ acme ",
        "┆ 2099-01-01T00:00:00Z ┆ 2026-11-01T00:00:00Z │",
    ] {
        assert!(table.contains(cell), "{cell} in {table}");
    }
    assert!(of(&["-o", "tree"]).contains("registry.pull  nightly  until 2099-01-01T00:00:00Z"));
    server.calls();
    let json = json_of(&server, &[&list[..], &["--filter", "name = \"nightly\""]].concat());
    assert_eq!(server.call("ListPullTokens").message()["filter"], "name = \"nightly\"");
    assert_eq!(json["pull_tokens"][0]["role"], "registry.pull");
    assert!(json["revision"].is_u64());
    assert_eq!(of(&["--filter", "name = \"x\""]), "no pull tokens\n");
}

#[test]
fn tokens_are_revoked_and_refusals_do_not_end_that() {
    let server = Fake::start();
    let (nightly, web) = ("acme/b0b0b0b0b0b0b0b0", "acme/web/c1c1c1c1c1c1c1c1");
    let revoke = ["auth", "pull-token", "revoke", "--yes"];
    let (out, note) = done(&server, &[&revoke[..], &[nightly]].concat());
    assert!(
        out.is_empty() && note.starts_with(&format!("revoked pull token {nightly} at revision ")),
        "{note}"
    );
    let call = server.call("RevokePullToken");
    assert_eq!(call.message()["id"], nightly);
    let json = json_of(&server, &[&revoke[..], &[nightly, "--request-id", "r1"]].concat());
    assert!(json["revision"].is_u64());
    assert_eq!(server.call("RevokePullToken").message()["request_id"], "r1");
    // A display name is looked up.
    done(&server, &[&revoke[..], &["name:nightly"]].concat());
    assert_eq!(server.calls().last().unwrap().message()["id"], nightly);

    let (code, error) = failed(&server, &["auth", "pull-token", "revoke", nightly]);
    assert!(code == 2 && error.contains("add --yes"), "{error}");
    assert!(server.calls().iter().all(|call| !call.method.ends_with("RevokePullToken")));

    let output = run(&server, &[&revoke[..], &["acme/none", nightly, web, "-o", "id"]].concat());
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), format!("{nightly}\n{web}\n")));
    assert!(stderr(&output).contains("refused: no acme/none"), "{}", stderr(&output));
    let ids: Vec<_> =
        server.calls().iter().map(|call| call.message()["request_id"].clone()).collect();
    assert!(ids.len() == 3 && ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
    // An error beside refusals says the exit code, and all are printed.
    let broken = refusal(Code::Internal, "broken", "", &[]);
    server.script("RevokePullToken", Err(broken));
    let (code, error) =
        failed(&server, &[&revoke[..], &[nightly, "acme/none", "acme/none2"]].concat());
    assert_eq!(code, 2, "{error}");
    for part in
        ["error: broken", "refused: no acme/none (NOT_FOUND)", "refused: no acme/none2 (NOT_FOUND)"]
    {
        assert!(error.contains(part), "{part} in {error}");
    }
    server.calls();
    let several = [&revoke[..], &[nightly, web, "--request-id", "r1"]].concat();
    let (code, error) = failed(&server, &several);
    assert!(code == 2 && error.contains("--request-id with several tokens"), "{error}");
    assert!(server.calls().is_empty());
}

/// Whether the identity may list repositories there.
fn pulls(store: &Store, identity: &str) -> bool {
    let output = store.run_without_caller(&["check", identity, "repo.list", "acme/web/shop"]);
    output.status.code() == Some(0)
}

#[test]
fn a_token_of_a_store_works_until_it_is_revoked() {
    let mut store = Store::start("manage-pull-tokens");
    store.done(&["iam", "folders", "create", "acme/web"]);
    let create = create(&["--name", "ci", "--ttl", "1d", "--request-id", "r1"]);
    let made = store.json(&create);
    assert_eq!(store.json(&create), made, "with the same secret");
    let (id, secret) = (made["username"].as_str().unwrap(), made["secret"].as_str().unwrap());
    let kind = capstan_iam::SecretKind::PullToken;
    assert!(capstan_iam::Secret::parse(kind, secret).is_some(), "{secret}");
    assert!(pulls(&store, id));
    let listed = store.json(&["auth", "pull-token", "list", "--parent", "acme"]);
    assert_eq!(listed["pull_tokens"][0]["id"], id);
    assert_eq!(listed["pull_tokens"][0]["role"], "registry.pull");
    assert!(!listed.to_string().contains(secret));

    let group = ["auth", "pull-token", "create", "--group", "acme/web", "--role"];
    let of = |role: &'static str, more: &[&'static str]| [&group[..], &[role], more].concat();
    store.refused(&of("editor", &[]), "ROLE_NOT_ALLOWED");
    // The creator's role makes tokens of its own pull role, and does not list them.
    store.done(&["iam", "identities", "create", "acme/desk", "--type", "service"]);
    let bind = ["iam", "bindings", "create", "--identity", "acme/desk", "--group", "acme/web"];
    let until = ["--role", "registry.pull_token_creator", "--ttl", "2d"];
    store.done(&[&bind[..], &until].concat());
    let desk = ["--as", "acme/desk"];
    let other = store.json(&of("registry.pull", &desk));
    let other = other["username"].as_str().unwrap();
    store.refused(&of("libraries.java.pull", &desk), "MISSING_CAPABILITY");
    let listed = store.done(&["auth", "pull-token", "list", "-o", "id", "--as", "acme/desk"]);
    assert_eq!(listed, "");
    let long = of("registry.pull", &["--ttl", "3d", "--as", "acme/desk"]);
    let refused = store.run(&long);
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));

    // The secret is in the memory of one process.
    store.serve();
    store.refused(&create, "TOKEN_ALREADY_ISSUED");
    assert!(pulls(&store, id) && pulls(&store, other));
    let revoke = ["auth", "pull-token", "revoke", "--yes"];
    store.done(&[&revoke[..], &[id, other]].concat());
    assert!(!pulls(&store, id) && !pulls(&store, other));
    store.refused(&[&revoke[..], &[id]].concat(), "NOT_FOUND");
    assert_eq!(store.done(&["auth", "pull-token", "list"]), "no pull tokens\n");
}
