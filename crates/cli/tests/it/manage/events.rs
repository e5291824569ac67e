//! `capstan events`: subscriptions as they are sent and shown, and a tail that misses and repeats nothing, whatever happens to
//! its connection. Both of a real store, too.

use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use capstan_testkit::https::{Authority, Reply, Server};
use serde_json::{Value, json};
use tonic::Code;

use super::end_to_end::Store;
use super::server::{End, Fake, pushed_back, refusal};
use super::{done, failed, json_of, run, run_with};
use crate::command_limits::{CODE_BYTES_MAX, RETRIES_MAX};
use crate::common::{PATIENCE, command, stderr, stdout};

const CREATE: [&str; 7] =
    ["events", "subscriptions", "create", "--group", "acme", "--sink", "https://example.com/e"];

fn create(more: &[&'static str]) -> Vec<&'static str> {
    [&CREATE[..], more].concat()
}

#[test]
fn a_subscription_is_created_and_what_comes_next_is_said() {
    let server = Fake::start();
    let more = ["--type", "role_binding", "--type", "group.created", "--type", "dev.capstan.iam.x"];
    let (out, note) = done(&server, &create(&[&more[..], &["--name", "Chat"]].concat()));
    let call = server.call("CreateSubscription");
    let types =
        ["dev.capstan.iam.role_binding.", "dev.capstan.iam.group.created.", "dev.capstan.iam.x"];
    let sent = json!({"parent": "acme", "request_id": call.message()["request_id"],
        "subscription": {"name": "Chat", "sink": "https://example.com/e", "types": types}});
    assert_eq!(call.message(), &sent);
    assert_eq!(out, "");
    let id = "acme/0123456789abcdef";
    for part in [
        &format!("created subscription {id} at revision "),
        "nothing is delivered before the sink consents",
        &format!("capstan events subscriptions describe {id}\n"),
        &format!("capstan events subscriptions confirm {id} -\n"),
    ] {
        assert!(note.contains(part), "{part} in {note}");
    }

    let made = json_of(&server, &create(&["--disabled", "--id", "later"]));
    assert_eq!(made["subscription"]["id"], "acme/later");
    let sent = server.call("CreateSubscription");
    assert_eq!(sent.message()["subscription"]["disabled"], true);
    let (out, note) = done(&server, &create(&["--validate-only", "--id", "new", "--output", "id"]));
    assert_eq!(out, "");
    assert!(note.starts_with("valid: subscription ") && note.lines().count() == 1, "{note}");
}

#[test]
fn a_type_or_a_change_that_says_nothing_is_not_sent() {
    let server = Fake::start();
    let update = ["events", "subscriptions", "update", "acme/s1"];
    for (line, part) in [
        (create(&["--type", "roles"]), "expected KIND or KIND.ACTION"),
        (create(&["--type", "role.created.v1"]), "expected KIND or KIND.ACTION"),
        (create(&["--id", "other/x"]), "other/x"),
        (update.to_vec(), "nothing to change: give --sink, --type, --all-types"),
        ([&update[..], &["--enable", "--disable"]].concat(), "cannot be used with"),
        ([&update[..], &["--type", "role", "--all-types"]].concat(), "cannot be used with"),
        (vec!["events", "tail", "--type", "policy"], "told to webhooks only"),
        (vec!["events", "tail", "--output", "tree"], "a table or JSON"),
        (vec!["events", "tail", "--limit", "0"], "--limit"),
        (vec!["events", "tail", "--from", "0"], "--from"),
    ] {
        let (code, error) = failed(&server, &line);
        assert_eq!((code, error.contains(part)), (2, true), "{line:?}: {error}");
    }
    let confirm = ["events", "subscriptions", "confirm", "acme/s1", "-"];
    let long = run_with(&server, &confirm, &"x".repeat(CODE_BYTES_MAX + 1));
    assert!(stderr(&long).contains("more than 1024 bytes"), "{}", stderr(&long));
    assert!(server.calls().is_empty());
}

#[test]
fn subscriptions_are_listed_with_their_state() {
    let server = Fake::start();
    let (out, _) = done(&server, &["events", "subscriptions", "list"]);
    for part in [
        "acme/s1",
        "delivering",
        "role_binding, dev.capstan.iam.group.created.",
        "waits for consent",
        "all",
        "disabled: the sink answered 410 Gone",
    ] {
        let part = part.replace("dev.capstan.iam.group.created.", "group.created");
        assert!(out.contains(&part), "{part} in {out}");
    }
    let listed = json_of(&server, &["events", "subs", "ls", "--parent", "acme/web"]);
    assert_eq!(listed["subscriptions"][0]["sink"], "https://web.example/events");
    let (out, _) = done(&server, &["events", "subscription", "list", "-o", "id"]);
    assert_eq!(out, "acme/s1\nacme/web/s2\nother/s3\n");
    let (out, _) = done(&server, &["events", "sub", "list", "--parent", "acme", "-o", "tree"]);
    assert!(out.contains("── s1  https://chat.example/events  Chat  delivering"), "{out}");
    let (out, _) = done(&server, &["events", "subscriptions", "get", "Chat"]);
    assert!(out.contains("acme/s1") && out.contains("dev.capstan.iam.role_binding."), "{out}");
    let (code, error) = failed(&server, &["events", "subscriptions", "describe", "acme/none"]);
    assert!(code == 1 && error.contains("NOT_FOUND"), "{error}");
}

#[test]
fn subscriptions_are_changed_confirmed_and_deleted() {
    let server = Fake::start();
    let update = |more: &[&str]| {
        let line = ["events", "subscriptions", "update", "name:Chat"];
        let (_, note) = done(&server, &[&line[..], more].concat());
        (server.call("UpdateSubscription").message().clone(), note)
    };
    let (sent, note) = update(&["--sink", "https://b.example/", "--type", "role", "--etag", "15"]);
    assert_eq!(sent["update_mask"], "sink,types");
    let subscription = json!({"id": "acme/s1", "sink": "https://b.example/", "etag": "15",
        "types": ["dev.capstan.iam.role."]});
    assert_eq!(sent["subscription"], subscription);
    assert!(note.starts_with("updated subscription acme/s1"), "{note}");
    let (sent, _) = update(&["--all-types"]);
    assert_eq!((&sent["update_mask"], sent["subscription"].get("types")), (&json!("types"), None));
    let (sent, note) = update(&["--disable"]);
    assert_eq!(
        (&sent["update_mask"], &sent["subscription"]["disabled"]),
        (&json!("disabled"), &json!(true))
    );
    assert!(note.starts_with("disabled subscription") && note.lines().count() == 1, "{note}");
    let line = ["events", "subscriptions", "update", "other/s3", "--name", "Talk"];
    let (_, note) = done(&server, &line);
    assert_eq!(server.call("UpdateSubscription").message()["update_mask"], "name");
    assert!(
        note.contains("until it is enabled: capstan events subscriptions update other/s3"),
        "{note}"
    );
    let line = ["events", "subscriptions", "update", "acme/s1", "--enable"];
    let (_, note) = done(&server, &line);
    assert!(note.starts_with("enabled subscription") && note.lines().count() == 1, "{note}");
    server.calls();

    let confirm = ["events", "subscriptions", "confirm", "acme/web/s2"];
    let read = run_with(&server, &[&confirm[..], &["-"]].concat(), " capstan_wc_x\n");
    assert!(read.status.success(), "{}", stderr(&read));
    assert!(stderr(&read).starts_with("confirmed subscription acme/web/s2"), "{}", stderr(&read));
    let call = server.call("ConfirmSubscription");
    let id = &call.message()["request_id"];
    assert_eq!(
        call.message(),
        &json!({"id": "acme/web/s2", "challenge": "capstan_wc_x", "request_id": id})
    );
    done(&server, &[&confirm[..], &["capstan_wc_y", "--validate-only"]].concat());
    assert_eq!(server.call("ConfirmSubscription").message()["validate_only"], true);
    done(&server, &["events", "subscriptions", "rm", "acme/s1", "--yes"]);
    assert_eq!(server.call("DeleteSubscription").message()["id"], "acme/s1");
}

#[test]
fn refusals_of_events_say_what_to_do() {
    let server = Fake::start();
    let invalid =
        |field| refusal(Code::InvalidArgument, "no", "INVALID_FIELD", &[("field", field)]);
    let confirm = vec!["events", "subscriptions", "confirm", "acme/s1", "x"];
    let tail = vec!["events", "tail", "--parent", "acme"];
    let everything = vec!["events", "tail"];
    let compacted = refusal(Code::FailedPrecondition, "old", "REVISION_COMPACTED", &[]);
    let operator = refusal(Code::PermissionDenied, "operator", "OPERATOR_ONLY", &[]);
    for (method, status, line, code, part) in [
        ("CreateSubscription", invalid("subscription.sink"), create(&[]), 2, "--webhook-allow"),
        ("CreateSubscription", invalid("subscription.types[0]"), create(&[]), 2, "KIND.ACTION"),
        ("ConfirmSubscription", invalid("challenge"), confirm, 2, "posted to the sink"),
        ("Watch", compacted, tail, 1, "--from the revision behind that"),
        ("Watch", operator, everything, 1, "of one organization, with --parent ORG"),
    ] {
        server.script(method, Err(status));
        let (found, error) = failed(&server, &line);
        assert_eq!((found, error.contains(part)), (code, true), "{line:?}: {error}");
    }
    // A watch that was never accepted is repeated as other calls are.
    server.calls();
    for _ in 0..=RETRIES_MAX {
        let status = refusal(Code::Unavailable, "starts", "NOT_READY", &[]);
        server.script("Watch", Err(pushed_back(status, 1)));
    }
    let (code, error) = failed(&server, &["events", "tail"]);
    assert!(code == 2 && error.contains("NOT_READY"), "{error}");
    let watches = server.calls().into_iter().filter(|call| call.method.ends_with("/Watch"));
    assert_eq!(watches.count(), RETRIES_MAX as usize + 1);
}

// === Tail, of a server that does what a test wants ===

fn change(action: &str, kind: &str, id: &str) -> Value {
    json!({"action": action, "kind": kind, "id": id})
}

fn of_groups(revision: u64, ids: &[&str]) -> Value {
    let changes: Vec<_> = ids.iter().map(|id| change("created", "group", id)).collect();
    json!({"revision": revision, "changes": changes})
}

/// The first revisions of the watches that were asked for.
fn starts(server: &Fake) -> Vec<String> {
    let calls = server.calls().into_iter().filter(|call| call.method.ends_with("/Watch"));
    calls.map(|call| call.message()["start_revision"].as_str().unwrap().to_owned()).collect()
}

fn drains() -> End {
    End::With(refusal(Code::Unavailable, "drains", "NOT_READY", &[]))
}

#[test]
fn a_tail_begins_behind_the_revision_of_the_server() {
    let server = Fake::start();
    let revision = (1_u64 << 40) + 8;
    server.script_stream("Watch", vec![of_groups(revision, &["acme/a"])], End::Never);
    let (out, note) = done(&server, &["events", "tail", "--limit", "1", "--as", "alice"]);
    assert_eq!(out, format!("{revision}  group.created         acme/a\n"));
    assert_eq!(note, format!("everything from revision {revision} on\n"));
    assert_eq!(starts(&server), [revision.to_string()]);
}

#[test]
fn a_tail_shows_changes_as_lines_for_people_and_for_programs() {
    let server = Fake::start();
    let binding = json!({"id": "acme/b", "identity": "bob", "role": "viewer", "scope": "acme"});
    let response = || {
        let mut bound = change("deleted", "role_binding", "acme/b");
        bound["before"] = binding.clone();
        let mut named = change("updated", "group", "acme/web");
        named["before"] = json!({"id": "acme/web"});
        named["after"] = json!({"id": "acme/web", "name": "Web shop"});
        vec![json!({"revision": 7, "changes": [bound, named]}), of_groups(9, &["acme/x"])]
    };
    let tail = ["events", "tail", "--parent", "acme", "--from", "7"];
    let watch = |more: &[&str]| {
        server.script_stream("Watch", response(), End::Never);
        done(&server, &[&tail[..], more].concat()).0
    };
    let all = "7  role_binding.deleted  acme/b  bob viewer at acme\n\
               7  group.updated         acme/web  Web shop\n\
               9  group.created         acme/x\n";
    assert_eq!(watch(&["--limit", "3"]), all);
    let call = server.call("PolicyService/Watch");
    assert_eq!(call.message(), &json!({"parent": "acme", "start_revision": "7"}));
    let only = watch(&["--limit", "2", "--type", "group.created", "--type", "role_binding"]);
    assert_eq!(only, format!("{}\n{}\n", all.lines().next().unwrap(), all.lines().last().unwrap()));
    assert_eq!(watch(&["--limit", "1", "--quiet"]), "");
    let lines = watch(&["--limit", "3", "--output", "json"]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = json!({"revision": 7, "action": "deleted", "kind": "role_binding", "id": "acme/b",
        "before": binding});
    assert_eq!((lines.len(), &lines[0]), (3, &expected));
    assert_eq!(lines[1]["after"]["name"], "Web shop");
}

/// Each way a stream ends, and every place within a revision.
#[test]
fn a_tail_goes_on_where_it_was() {
    let server = Fake::start();
    for (messages, end) in [
        (vec![of_groups(7, &["a", "b"])], drains()),
        // Revision 7 had more changes.
        (vec![of_groups(7, &["a", "b"]), of_groups(7, &["c"])], End::Well),
        (vec![of_groups(7, &["a", "b", "c"]), of_groups(9, &["d"])], drains()),
        (vec![], End::Well),
        (vec![of_groups(9, &["d"]), json!({"revision": 12})], drains()),
        (vec![of_groups(13, &["e", "f"])], End::Never),
    ] {
        server.script_stream("Watch", messages, end);
    }
    let tail = ["events", "tail", "--from", "7", "--limit", "6", "--output", "json"];
    let (out, note) = done(&server, &tail);
    let lines = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told: Vec<_> =
        lines.map(|one| (one["revision"].as_u64().unwrap(), one["id"].to_string())).collect();
    let expected = [(7, "a"), (7, "b"), (7, "c"), (9, "d"), (13, "e"), (13, "f")];
    assert_eq!(told, expected.map(|(revision, id)| (revision, format!("\"{id}\""))));
    assert_eq!(starts(&server), ["7", "7", "7", "9", "9", "13"]);
    // Only the watch that brought nothing is worth a word.
    assert_eq!(
        note,
        "interrupted, and goes on as soon as the server answers: the server ended the watch\n\
         goes on with revision 9\n"
    );
}

#[test]
fn a_tail_that_may_not_go_on_says_why() {
    let server = Fake::start();
    let compacted = refusal(Code::FailedPrecondition, "too old", "REVISION_COMPACTED", &[]);
    server.script_stream("Watch", vec![of_groups(7, &["a"])], drains());
    server.script("Watch", Err(compacted));
    let output = run(&server, &["events", "tail", "--from", "7", "--output", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let out = stdout(&output);
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((out.lines().count(), &last["reason"]), (2, &json!("REVISION_COMPACTED")));
}

/// A tail in a process of its own.
struct Tailing {
    child: Child,
    out: mpsc::Receiver<String>,
    notes: mpsc::Receiver<String>,
}

fn lines(from: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(from).lines().map_while(Result::ok);
        lines.into_iter().try_for_each(|line| send.send(line))
    });
    receive
}

impl Tailing {
    /// Starts a tail.
    fn start(arguments: &[&str]) -> Self {
        let mut child = command(&[&["events", "tail"], arguments].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = lines(child.stdout.take().unwrap());
        let notes = lines(child.stderr.take().unwrap());
        Self { child, out, notes }
    }

    /// Waits until it says where it begins.
    fn begun(self) -> Self {
        let first = self.notes.recv_timeout(PATIENCE).unwrap();
        assert!(first.contains("from revision "), "{first}");
        self
    }

    fn next(&self) -> Value {
        let line = self.out.recv_timeout(PATIENCE);
        let line =
            line.unwrap_or_else(|_| panic!("{:?}", self.notes.try_iter().collect::<Vec<_>>()));
        serde_json::from_str(&line).unwrap()
    }

    /// Ends it by a signal. Returns its exit code, and what it has printed since.
    fn stop(mut self, signal: &str) -> (Option<i32>, Vec<String>) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        (self.child.wait().unwrap().code(), self.out.iter().collect())
    }
}

impl Drop for Tailing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_signal_ends_a_tail_well() {
    let server = Fake::start();
    for signal in ["-INT", "-TERM"] {
        server.script_stream("Watch", vec![of_groups(7, &["a"])], End::Never);
        let tail = Tailing::start(&["--from", "7", "-o", "json", "--addr", &server.addr]);
        assert_eq!(tail.next()["id"], "a");
        assert_eq!(tail.stop(signal), (Some(0), vec![]), "{signal}");
    }
}

/// At once, and not at the next change, which may never come.
#[test]
fn a_reader_that_goes_ends_a_tail_well() {
    let server = Fake::start();
    server.script_stream("Watch", vec![of_groups(7, &["a", "b"])], End::Never);
    let mut child = command(&["events", "tail", "--from", "7", "--addr", &server.addr])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.ends_with("  a\n"), "{line}");
    drop(out);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

// === A real store ===

/// The server is killed, and drained; the tail is one process.
#[test]
fn a_tail_of_a_store_survives_its_server() {
    let mut store = Store::start("manage-events-tail");
    let operator = format!("unix:{}/operator.sock", store.data());
    let tail = Tailing::start(&["--parent", "acme", "-o", "json", "--addr", &operator]).begun();
    let (mut made, mut told) = (vec![], vec![]);
    for round in 0..3 {
        for at in 0..4 {
            let id = format!("acme/g{round}{at}");
            store.done(&["iam", "folders", "create", &id]);
            made.push(id);
        }
        if round == 1 {
            // Some are not read yet when the server goes.
            store.drain();
        }
        store.serve();
    }
    while told.len() < made.len() {
        told.push(tail.next());
    }
    let ids: Vec<_> = told.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, made);
    let revisions: Vec<_> = told.iter().map(|one| one["revision"].as_u64().unwrap()).collect();
    assert!(revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");
    // From the past: the same, and nothing else.
    let from = revisions[5].to_string();
    let again =
        ["events", "tail", "--parent", "acme", "--from", &from, "--limit", "7", "-o", "json"];
    let again = store.done(&again);
    let again: Vec<Value> = again.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(again, told[5..]);
    assert_eq!(tail.stop("-INT"), (Some(0), vec![]));
    // Who may not see the organization is not told that it is there.
    store.done(&["--operator", "iam", "identities", "create", "eve"]);
    store.refused(&["events", "tail", "--parent", "acme", "--as", "eve"], "NOT_FOUND");
    store.refused(&["events", "tail", "--as", "alice"], "OPERATOR_ONLY");
    let output = store.run(&["events", "tail", "--parent", "acme/g00"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

/// From `create` to the first event, with the challenge that the sink was sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_of_a_store_is_confirmed_and_told() {
    let mut store = Store::start("manage-events-subscription");
    let authority = Authority::generate();
    let ca = store.folder.join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let url = "https://iam.example.com";
    let options = ["--public-url", url, "--webhook-allow", "127.0.0.0/8", "--webhook-ca"];
    store.serve_with(&[&options[..], &[ca.to_str().unwrap()]].concat());
    let config = authority.server_config(&["127.0.0.1"], false);
    // It answers everything, and consents to nothing.
    let sink = Server::listen(Ipv4Addr::LOCALHOST, config, |_| Reply::status(200, "")).await;
    let sink = crate::secrets::Sink(sink);
    let posted = |of: &str| {
        let requests = sink.requests().into_iter();
        let found = requests
            .filter(|one| one.header("ce-type").is_some_and(|kind| kind.contains(of)))
            .map(|one| serde_json::from_slice::<Value>(&one.body).unwrap());
        found.collect::<Vec<_>>()
    };
    let wait_for = async |of: &str| {
        let begun = Instant::now();
        while posted(of).is_empty() {
            assert!(begun.elapsed() < PATIENCE, "no {of}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let to = format!("https://{}/hook", sink.address);
    let subscriptions = ["events", "subscriptions"];
    let create = ["create", "--group", "acme", "--type", "group", "--id", "hook", "--sink", &to];
    let created = store.run(&[&subscriptions[..], &create].concat());
    assert!(created.status.success(), "{}", stderr(&created));
    assert!(stderr(&created).contains("confirm acme/hook -"), "{}", stderr(&created));
    let list = || store.done(&[&subscriptions[..], &["list"]].concat());
    assert!(list().contains("waits for consent"), "{}", list());
    wait_for("subscription.challenge").await;
    let challenge = posted("subscription.challenge")[0]["challenge"].as_str().unwrap().to_owned();
    let confirm = |challenge: &str| {
        store.run(&[&subscriptions[..], &["confirm", "acme/hook", challenge]].concat())
    };
    let refused = confirm("capstan_wc_wrong");
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("the latest one that was posted"), "{}", stderr(&refused));
    let confirmed = confirm(&challenge);
    assert!(confirmed.status.success(), "{}", stderr(&confirmed));
    assert!(list().contains("delivering"), "{}", list());
    store.done(&["iam", "folders", "create", "acme/told"]);
    wait_for("group.created").await;
    assert_eq!(posted("group.created")[0]["body"]["id"], "acme/told");
    store.done(&[&subscriptions[..], &["update", "acme/hook", "--disable"]].concat());
    assert!(list().contains("disabled"), "{}", list());
    let bad = ["create", "--group", "acme", "--sink", "https://10.0.0.1/x"];
    let refused = store.run(&[&subscriptions[..], &bad].concat());
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        stderr(&refused).contains("--webhook-allow of `capstan serve`"),
        "{}",
        stderr(&refused)
    );
    store.done(&[&subscriptions[..], &["delete", "acme/hook", "--yes"]].concat());
    assert_eq!(list(), "no subscriptions\n");
}
