//! `capstan iam`, `auth`, `events`, `context`, `audit`, `policy export | import` and `catalog set`: the requests that are sent, what is
//! printed, exit codes, and what is repeated.

mod audit;
mod batches;
mod contexts;
mod end_to_end;
mod events;
mod group_invites;
mod lists;
mod names;
mod pull_tokens;
mod quotas;
mod refusals;
mod registry;
mod repeats;
mod resolved;
mod server;
mod transfers;
mod whole;
mod writes;

use std::io::Write as _;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::common::{command, stderr, stdout};
use crate::secrets::assert_prints_no_secret;
use server::Fake;

/// Runs `capstan` against the server.
fn run(server: &Fake, arguments: &[&str]) -> Output {
    command(&[arguments, &["--addr", &server.addr]].concat()).output().unwrap()
}

/// The same with this standard input.
fn run_with(server: &Fake, arguments: &[&str], input: &str) -> Output {
    let mut command = command(&[arguments, &["--addr", &server.addr]].concat());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_prints_no_secret(&command, &output);
    output
}

/// Standard output and standard error of a command that succeeds.
fn done(server: &Fake, arguments: &[&str]) -> (String, String) {
    let output = run(server, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    (stdout(&output), stderr(&output))
}

/// The JSON that a command prints that succeeds.
fn json_of(server: &Fake, arguments: &[&str]) -> Value {
    let (out, _) = done(server, &[arguments, &["--output", "json"]].concat());
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

/// The exit code, and standard error.
fn failed(server: &Fake, arguments: &[&str]) -> (i32, String) {
    let output = run(server, arguments);
    (output.status.code().unwrap(), stderr(&output))
}
