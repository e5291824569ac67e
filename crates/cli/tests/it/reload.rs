//! Reloads of the policy: complete or not at all, visible to every call, without effect on paged lists.

mod files;
mod under_load;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::secrets::Channel;
use capstan_proto::v1::{self, consistency::Mode, decision_service_client::DecisionServiceClient};
use capstan_server::clock::Clock;
use capstan_server::feed::source::Source;
use capstan_server::limits::{LOOK_AGAIN, Limits, SETTLE, SETTLE_IN_PLACE, SETTLE_MAX};

use capstan_server::server::Config;

use crate::common::{InProcess, PATIENCE, Serving, capstan, config, folder};

/// A policy in which `alice` can read at `first` or at `second`. No other identity has a role binding.
fn policy(readable: &str) -> String {
    format!(
        "version: 1\ncatalog: {{name: c, resources: [{{name: r, actions: [get]}}], \
         roles: [{{name: reader, capabilities: [r.get]}}]}}\n\
         groups: [{{id: first}}, {{id: second}}]\nidentities: [{{id: alice}}]\n\
         role_bindings: [{{identity: alice, role: reader, scope: {readable}}}]\n"
    )
}

/// Replaces a file atomically, by a rename.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = folder(name).join("policy.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

/// A check of `alice` at this revision or a later one.
fn request(resource: &str, at_least: u64) -> v1::CheckRequest {
    v1::CheckRequest {
        identity: "alice".into(),
        capability: "r.get".into(),
        resource: resource.into(),
        consistency: Some(v1::Consistency { mode: Some(Mode::AtLeast(at_least)) }),
        ..Default::default()
    }
}

/// Repeats a check until the server has this revision.
async fn check_at(server: &InProcess, resource: &str, revision: u64) -> v1::CheckResponse {
    let started = Instant::now();
    loop {
        match server.decisions().check(request(resource, revision)).await {
            Ok(answer) => return answer.into_inner(),
            Err(status) => assert_eq!(status.code(), tonic::Code::Unavailable, "{status}"),
        }
        assert!(started.elapsed() < PATIENCE, "revision {revision} never came");
    }
}

#[tokio::test]
async fn a_changed_file_is_the_next_revision() {
    let path = file("reload-changed", &policy("first"));
    let server = InProcess::start(Source::file(&path)).await;
    let answer = check_at(&server, "first", 1).await;
    assert_eq!((answer.allowed, answer.revision), (true, 1));
    replace(&path, &policy("second"));
    let answer = check_at(&server, "first", 2).await;
    assert_eq!((answer.allowed, answer.revision), (false, 2));
    assert!(check_at(&server, "second", 2).await.allowed);
    // A file that is overwritten in place is reloaded, too.
    std::fs::write(&path, policy("first")).unwrap();
    assert!(check_at(&server, "first", 3).await.allowed);
}

/// The policy of [`policy`] in JSON, which is read piece by piece.
fn policy_in_json(readable: &str) -> String {
    format!(
        "{{\"version\": 1, \"catalog\": {{\"name\": \"c\", \"resources\": [{{\"name\": \"r\", \
         \"actions\": [\"get\"]}}], \"roles\": [{{\"name\": \"reader\", \"capabilities\": [\"r.get\"]}}]}},\n\
         \"groups\": [{{\"id\": \"first\"}}, {{\"id\": \"second\"}}], \"identities\": [{{\"id\": \"alice\"}}],\n\
         \"role_bindings\": [{{\"identity\": \"alice\", \"role\": \"reader\", \"scope\": \"{readable}\"}}]}}\n"
    )
}

/// In JSON and from one notation to the other, a reload gives the same answers. A mistake changes nothing.
#[tokio::test]
async fn a_changed_file_in_json_is_the_next_revision() {
    let path = file("reload-json", &policy_in_json("first"));
    let server = InProcess::start(Source::file(&path)).await;
    assert!(check_at(&server, "first", 1).await.allowed);
    replace(&path, &policy_in_json("second"));
    let answer = check_at(&server, "first", 2).await;
    assert_eq!((answer.allowed, answer.revision), (false, 2));
    assert!(check_at(&server, "second", 2).await.allowed);
    replace(&path, &policy("first"));
    assert!(check_at(&server, "first", 3).await.allowed);
    replace(&path, &policy_in_json("nowhere"));
    tokio::time::sleep(SETTLE * 4).await;
    assert_eq!(check_at(&server, "first", 1).await.revision, 3);
    // Another catalog, of the same name.
    replace(&path, &policy_in_json("first").replace("\"r.get\"", ""));
    assert!(!check_at(&server, "first", 4).await.allowed);
    replace(&path, &policy_in_json("second"));
    assert!(check_at(&server, "second", 5).await.allowed);
}

/// A pipe is opened and read once.
#[test]
fn a_policy_in_json_from_a_pipe_is_read() {
    let path = folder("reload-pipe").join("policy.json");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let writer = std::thread::spawn({
        let path = path.clone();
        move || std::fs::write(path, policy_in_json("first"))
    });
    let output = capstan(&["check", "alice", "r.get", "first", "--policy", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    writer.join().unwrap().unwrap();
}

#[test]
fn an_invalid_file_changes_nothing_and_sighup_reloads() {
    let path = file("reload-bad", &policy("first"));
    let text = path.to_str().unwrap();
    let free = ["--listen", "127.0.0.1:0", "--http", "none"];
    let mut server = Serving::start(&[&["--policy", text], &free[..]].concat(), 1);
    let address = format!("http://{}", server.address("grpc"));
    let ask = |resource| {
        let output =
            capstan(&["check", "alice", "r.get", resource, "--addr", &address, "-o", "json"]);
        let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code().unwrap(), line["revision"].as_u64().unwrap())
    };
    assert_eq!(ask("first"), (0, 1));
    let until = |wanted: (i32, u64)| {
        let started = Instant::now();
        while ask("second") != wanted {
            assert!(started.elapsed() < PATIENCE, "still {:?}", ask("second"));
        }
    };
    replace(&path, "version: 1\ncatalog: nonsense\n");
    server.wait_for_log("the policy is not reloaded, the old one is served on");
    server.wait_for_log("found catalog `nonsense`");
    assert_eq!(ask("first"), (0, 1));
    replace(&path, &policy("second"));
    until((0, 2));
    server.signal("-HUP");
    until((0, 3));
    assert_eq!(server.stop("-TERM").0, Some(0));
}

/// A policy that could not be read may revoke a permission, so the server retries until it can read it. With so low a
/// limit nothing can be opened, whatever is closed meanwhile.
#[tokio::test]
async fn an_unreadable_policy_is_read_again_later() {
    let path = file("reload-unreadable", &policy("first"));
    let policy_file = path.to_str().unwrap();
    let arguments = ["--listen", "127.0.0.1:0", "--http", "none", "--policy", policy_file];
    let mut server = Serving::start(&arguments, 1);
    let address = server.address("grpc").to_owned();
    let ask = || {
        let output = capstan(&["check", "alice", "r.get", "first", "--addr", &address]);
        output.status.code()
    };
    let pid = server.pid().to_string();
    let may_open = |files: &str| {
        let limit = ["--pid", &pid, &format!("--nofile={files}:")];
        assert!(std::process::Command::new("prlimit").args(limit).status().unwrap().success());
    };
    assert_eq!(ask(), Some(0));
    may_open("3");
    replace(&path, &policy("second"));
    server.wait_for_log("the policy is not reloaded, the old one is served on");
    may_open("1024");
    let started = Instant::now();
    while ask() != Some(1) {
        assert!(started.elapsed() < PATIENCE, "the check is still allowed");
    }
    server.stop("-TERM");
}

/// A part of a policy can be a valid policy with more permissions. A file that is still being written in
/// place is not loaded.
#[tokio::test]
async fn an_incomplete_file_is_not_loaded() {
    let path = file("reload-half", &policy("first"));
    let server = InProcess::start(Source::file(&path)).await;
    let mut half = std::fs::File::create(&path).unwrap();
    half.write_all(policy("second").as_bytes()).unwrap();
    let started = Instant::now();
    // Longer than the server waits for a file that does not change.
    let mut writes = tokio::time::interval(SETTLE);
    while started.elapsed() < SETTLE_MAX + 2 * SETTLE_IN_PLACE {
        half.write_all(b"# and more\n").unwrap();
        writes.tick().await;
        let answer = server.decisions().check(request("first", 1)).await.unwrap().into_inner();
        assert_eq!((answer.allowed, answer.revision), (true, 1));
    }
    drop(half);
    assert!(check_at(&server, "second", 2).await.allowed);
}

/// The watched folder does not change, but the target of a symbolic link does.
#[tokio::test]
async fn a_changed_target_of_a_symbolic_link_is_loaded() {
    let folder = folder("reload-link");
    for (name, readable) in [("one.yaml", "first"), ("two.yaml", "second")] {
        std::fs::create_dir_all(folder.join("releases")).unwrap();
        std::fs::write(folder.join("releases").join(name), policy(readable)).unwrap();
    }
    let (watched, current) = (folder.join("watched"), folder.join("current"));
    std::fs::create_dir_all(&watched).unwrap();
    let path = watched.join("policy.yaml");
    for link in [&path, &current] {
        let _ = std::fs::remove_file(link);
    }
    std::os::unix::fs::symlink(folder.join("releases/one.yaml"), &current).unwrap();
    std::os::unix::fs::symlink(&current, &path).unwrap();
    let server = InProcess::start(Source::file(&path)).await;
    assert!(check_at(&server, "first", 1).await.allowed);
    let next = folder.join("next");
    let _ = std::fs::remove_file(&next);
    std::os::unix::fs::symlink(folder.join("releases/two.yaml"), &next).unwrap();
    std::fs::rename(&next, &current).unwrap();
    assert!(LOOK_AGAIN < PATIENCE);
    assert!(check_at(&server, "second", 2).await.allowed);
}

/// A file that is replaced more often than `SETTLE` is loaded after `SETTLE_MAX`.
#[tokio::test]
async fn a_constantly_replaced_file_is_loaded() {
    let path = file("reload-restless", &policy("first"));
    let server = InProcess::start(Source::file(&path)).await;
    let mut writes = tokio::time::interval(SETTLE / 10);
    let restless = async {
        for write in 0.. {
            writes.tick().await;
            replace(&path, &format!("{}# {write}\n", policy("second")));
        }
    };
    tokio::select! {
        () = restless => {}
        answer = check_at(&server, "second", 2) => assert!(answer.allowed),
    }
    assert!(SETTLE < SETTLE_MAX && SETTLE_MAX < PATIENCE);
}

/// Each policy allows exactly one of the two checks of a batch, so a mixture of two policies would allow
/// both or neither. Several clients send batches at full speed while the policy changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_mixes_two_policies() {
    const RELOADS: u64 = 20;
    let path = file("reload-mix", &policy("first"));
    let server = InProcess::start(Source::file(&path)).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let decisions = server.decisions();
        clients.spawn(ask_until(decisions, RELOADS));
    }
    // In odd revisions alice can read at `first`, in even ones at `second`.
    for revision in 2..=RELOADS {
        replace(&path, &policy(if revision % 2 == 1 { "first" } else { "second" }));
        check_at(&server, "first", revision).await;
    }
    let asked: u64 = clients.join_all().await.into_iter().sum();
    assert!(asked > 10 * RELOADS);
}

/// Sends batches until an answer has this revision. Returns the number of batches.
async fn ask_until(mut decisions: DecisionServiceClient<Channel>, last: u64) -> u64 {
    let item = |resource: &str| v1::CheckItem {
        identity: "alice".into(),
        capability: "r.get".into(),
        resource: resource.into(),
        properties: None,
    };
    let batch =
        v1::BatchCheckRequest { checks: vec![item("first"), item("second")], consistency: None };
    let (mut revision, mut asked) = (0, 0);
    while revision < last {
        let answer = decisions.batch_check(batch.clone()).await.unwrap().into_inner();
        let allowed: Vec<bool> = answer.results.iter().map(|result| result.allowed).collect();
        let odd = answer.revision % 2 == 1;
        assert_eq!(allowed, [odd, !odd], "at revision {}", answer.revision);
        assert!(answer.revision >= revision, "revisions decrease");
        revision = answer.revision;
        asked += 1;
    }
    asked
}

#[tokio::test]
async fn all_pages_of_a_list_have_one_revision() {
    let many = |names: &str| {
        let identities: Vec<_> = (0..250).map(|at| format!("{{id: {names}{at:03}}}")).collect();
        let bindings: Vec<_> = (0..250)
            .map(|at| format!("{{identity: {names}{at:03}, role: reader, scope: first}}"))
            .collect();
        policy("first")
            .replace("{id: alice}", &format!("{{id: alice}}, {}", identities.join(", ")))
            .replace("[{identity: alice", &format!("[{}, {{identity: alice", bindings.join(", ")))
    };
    let path = file("reload-pages", &many("old"));
    let clock = Clock::Fixed(capstan_engine::Timestamp::new(1_800_000_000, 0));
    let server = InProcess::start_at(Source::file(&path), clock).await;
    let mut request = v1::ListIdentitiesRequest {
        capability: "r.get".into(),
        resource: "first".into(),
        page_size: 100,
        ..Default::default()
    };
    let first = server.decisions().list_identities(request.clone()).await.unwrap().into_inner();
    assert_eq!(first.identities.len(), 100);

    replace(&path, &many("new"));
    check_at(&server, "first", 2).await;
    let mut all = first.identities;
    request.page_token = first.next_page_token.clone();
    while !request.page_token.is_empty() {
        let page = server.decisions().list_identities(request.clone()).await.unwrap().into_inner();
        assert_eq!(page.revision, 1);
        all.extend(page.identities);
        request.page_token = page.next_page_token;
    }
    assert_eq!(all.len(), 251);
    assert!(all.is_sorted() && all.iter().skip(1).all(|name| name.starts_with("old")));

    // A continued list is not of the revision that the caller wants now.
    request.page_token = first.next_page_token.clone();
    for (at_least, is_good) in [(0, true), (1, true), (2, false), (3, false)] {
        request.consistency = Some(v1::Consistency { mode: Some(Mode::AtLeast(at_least)) });
        let page = server.decisions().list_identities(request.clone()).await;
        assert_eq!(page.is_ok(), is_good, "{at_least}");
        let Err(status) = page else { continue };
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert_eq!(crate::raw::reason(&status), "REVISION_NOT_AVAILABLE");
        assert!(status.message().contains("began with revision 1"), "{status}");
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "-1");
    }
    request.consistency = None;

    // After many more revisions, the list can still be continued.
    for revision in 3..=8 {
        replace(&path, &many(&format!("n{revision}-")));
        check_at(&server, "first", revision).await;
        request.page_token = first.next_page_token.clone();
        let page = server.decisions().list_identities(request.clone()).await.unwrap();
        assert_eq!(page.into_inner().revision, 1, "while {revision} is served");
    }

    // If no time or no memory is allowed for earlier revisions, the list ends with an error.
    let no_time = Limits { kept_time: Duration::ZERO, ..Limits::default() };
    let no_memory = Limits { kept_bytes_max: 0, ..Limits::default() };
    for limits in [no_time, no_memory] {
        replace(&path, &many("old"));
        let config = Config { clock, limits, ..config(Source::file(&path)) };
        let server = InProcess::start_with(config).await;
        list_ends(&server, request.clone(), || replace(&path, &many("new"))).await;
    }
}

/// A list can be continued while its revision is served, and not after the next revision.
async fn list_ends(
    server: &InProcess,
    mut request: v1::ListIdentitiesRequest,
    replace: impl FnOnce(),
) {
    request.page_token.clear();
    let first = server.decisions().list_identities(request.clone()).await.unwrap().into_inner();
    request.page_token = first.next_page_token;
    assert_eq!(first.revision, 1);
    server.decisions().list_identities(request.clone()).await.unwrap();
    replace();
    check_at(server, "first", 2).await;
    let status = server.decisions().list_identities(request.clone()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert!(status.message().contains("no longer kept"), "{status}");
    let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap();
    assert_eq!(pushback, "-1", "a retry cannot succeed");
    request.resource = "second".into();
    let status = server.decisions().list_identities(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "a page token of another request");
}
