//! Reloads: whole or not at all, seen by everyone, missed by no list.

mod under_load;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use capstan_proto::v1::{self, consistency::Mode, decision_service_client::DecisionServiceClient};
use capstan_server::clock::Clock;
use capstan_server::feed::source::Source;
use capstan_server::limits::{LOOK_AGAIN, Limits, SETTLE, SETTLE_IN_PLACE, SETTLE_MAX};
use tonic::transport::Channel;

use capstan_server::server::Config;

use crate::common::{InProcess, PATIENCE, Serving, capstan, config, folder};

/// A policy in which `alice` may read `first` or `second`, and nobody else anything.
fn policy(readable: &str) -> String {
    format!(
        "version: 1\ncatalog: {{name: c, resources: [{{name: r, actions: [get]}}], \
         roles: [{{name: reader, capabilities: [r.get]}}]}}\n\
         groups: [{{id: first}}, {{id: second}}]\nidentities: [{{id: alice}}]\n\
         role_bindings: [{{identity: alice, role: reader, scope: {readable}}}]\n"
    )
}

/// Replaces a file as careful programs do.
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

/// What `alice` may do, at this revision or a later one.
fn request(resource: &str, at_least: u64) -> v1::CheckRequest {
    v1::CheckRequest {
        identity: "alice".into(),
        capability: "r.get".into(),
        resource: resource.into(),
        consistency: Some(v1::Consistency { mode: Some(Mode::AtLeast(at_least)) }),
        ..Default::default()
    }
}

/// Asks until the server is at this revision.
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
    // Written over in place, too.
    std::fs::write(&path, policy("first")).unwrap();
    assert!(check_at(&server, "first", 3).await.allowed);
}

#[test]
fn a_bad_file_changes_nothing_and_sighup_asks_again() {
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

/// What could not be read may revoke something: it is read as soon as that is possible.
#[tokio::test]
async fn a_policy_that_could_not_be_read_is_read_later() {
    let path = file("reload-unreadable", &policy("first"));
    let program = env!("CARGO_BIN_EXE_capstan");
    let serve = format!("serve --listen 127.0.0.1:0 --http none --policy {}", path.display());
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", &format!("ulimit -n 48 && exec {program} {serve} --workers 1")]);
    let mut server = Serving::spawn(&mut limited, 1);
    let address = server.address("grpc").to_owned();
    let ask = || {
        let output = capstan(&["check", "alice", "r.get", "first", "--addr", &address]);
        output.status.code()
    };
    assert_eq!(ask(), Some(0));
    let mut many = Vec::new();
    for _ in 0..60 {
        many.push(tokio::net::TcpStream::connect(&address).await.unwrap());
    }
    server.wait_for_log("cannot take a connection");
    replace(&path, &policy("second"));
    server.wait_for_log("the policy is not reloaded, the old one is served on");
    drop(many);
    let started = Instant::now();
    while ask() != Some(1) {
        assert!(started.elapsed() < PATIENCE, "still allowed");
    }
    server.stop("-TERM");
}

/// Half a policy may be one, with more rights: a file that is written in place, and not done, is left alone.
#[tokio::test]
async fn half_a_file_is_not_loaded() {
    let path = file("reload-half", &policy("first"));
    let server = InProcess::start(Source::file(&path)).await;
    let mut half = std::fs::File::create(&path).unwrap();
    half.write_all(policy("second").as_bytes()).unwrap();
    let started = Instant::now();
    // Longer than files that rest are waited for.
    while started.elapsed() < SETTLE_MAX + 2 * SETTLE_IN_PLACE {
        half.write_all(b"# and more\n").unwrap();
        tokio::time::sleep(SETTLE).await;
        let answer = server.decisions().check(request("first", 1)).await.unwrap().into_inner();
        assert_eq!((answer.allowed, answer.revision), (true, 1));
    }
    drop(half);
    assert!(check_at(&server, "second", 2).await.allowed);
}

/// The folder that is watched does not change, only what leads there.
#[tokio::test]
async fn what_a_symbolic_link_leads_to_is_looked_at() {
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

/// A file that somebody replaces again and again, and never lets rest.
#[tokio::test]
async fn a_file_that_never_rests_is_loaded_all_the_same() {
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

/// Two questions in one batch, of which each policy allows the other one: a mixture of policies
/// would show as both or neither. Asked as fast as several clients can while the policy changes.
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
    // Odd revisions let alice read `first`, even ones `second`.
    for revision in 2..=RELOADS {
        replace(&path, &policy(if revision % 2 == 1 { "first" } else { "second" }));
        check_at(&server, "first", revision).await;
    }
    let asked: u64 = clients.join_all().await.into_iter().sum();
    assert!(asked > 10 * RELOADS);
}

/// Asks until it sees this revision; answers how often it asked.
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
        assert!(answer.revision >= revision, "revisions only grow");
        revision = answer.revision;
        asked += 1;
    }
    asked
}

#[tokio::test]
async fn the_pages_of_a_list_are_of_one_revision() {
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

    // Many revisions later the list still goes on.
    for revision in 3..=8 {
        replace(&path, &many(&format!("n{revision}-")));
        check_at(&server, "first", revision).await;
        request.page_token = first.next_page_token.clone();
        let page = server.decisions().list_identities(request.clone()).await.unwrap();
        assert_eq!(page.into_inner().revision, 1, "while {revision} is served");
    }

    // Where there is no time or no memory for earlier revisions, the list is gone, and says so.
    let no_time = Limits { kept_time: Duration::ZERO, ..Limits::default() };
    let no_memory = Limits { kept_bytes_max: 0, ..Limits::default() };
    for limits in [no_time, no_memory] {
        replace(&path, &many("old"));
        let config = Config { clock, limits, ..config(Source::file(&path)) };
        let server = InProcess::start_with(config).await;
        is_gone(&server, request.clone(), || replace(&path, &many("new"))).await;
    }
}

/// A list goes on as long as its revision is served, and no longer.
async fn is_gone(
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
    assert_eq!(pushback, "-1", "it does not come back");
    request.resource = "second".into();
    let status = server.decisions().list_identities(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "the token of another request");
}
