//! The decision log: each line matches its answer, and a failing log never affects an answer.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::secrets::{Channel, assert_tells_no_secret, decision_log};
use capstan_engine::Timestamp;
use capstan_proto::v1::decision_service_client::DecisionServiceClient;
use capstan_proto::v1::{self, Reason};
use capstan_server::clock::Clock;
use capstan_server::feed::source::Source;
use capstan_server::limits::Limits;
use capstan_server::telemetry::decision_log::Target;
use serde_json::{Value, json};

use crate::common::{InProcess, PATIENCE, Serving, capstan, config, folder, stderr};
use crate::metrics;

const DEMO: &str = "deploy/quickstart/policy.yaml";
const FREE: [&str; 4] = ["--listen", "127.0.0.1:0", "--http", "none"];
const WRITTEN: &str = r#"capstan_decision_log_lines_total{outcome="written"}"#;
const LOST: &str = r#"capstan_decision_log_lines_total{outcome="lost"}"#;

fn serve(log: &str) -> Serving {
    Serving::start(&[&["--policy", DEMO, "--decision-log", log], &FREE[..]].concat(), 1)
}

async fn client(server: &Serving) -> DecisionServiceClient<Channel> {
    let url = format!("http://{}", server.address("grpc"));
    DecisionServiceClient::new(Channel::to(url).await)
}

fn check(identity: &str, capability: &str, resource: &str) -> v1::CheckRequest {
    v1::CheckRequest {
        identity: identity.into(),
        capability: capability.into(),
        resource: resource.into(),
        ..Default::default()
    }
}

fn batch(items: &[(&str, &str, &str)]) -> v1::BatchCheckRequest {
    let item = |(identity, capability, resource): &(&str, &str, &str)| v1::CheckItem {
        identity: (*identity).into(),
        capability: (*capability).into(),
        resource: (*resource).into(),
        properties: None,
    };
    v1::BatchCheckRequest { checks: items.iter().map(item).collect(), consistency: None }
}

fn lines(text: &str) -> Vec<Value> {
    assert_tells_no_secret(text);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn read(path: &Path) -> Vec<Value> {
    lines(&decision_log(path))
}

fn reason_name(reason: Reason) -> &'static str {
    reason.as_str_name().strip_prefix("REASON_").unwrap()
}

/// A named pipe. Writes to it block when its reader stops reading.
fn pipe(name: &str) -> PathBuf {
    let path = folder(name).join("log");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

/// A server in this process with this decision log and these limits.
async fn start(log: &Path, limits: Limits) -> InProcess {
    let decision_log = Some(Target::File(log.into()));
    let clock = Clock::Fixed(Timestamp::new(1_800_000_000, 0));
    let config = config(Source::Demo);
    InProcess::start_with(capstan_server::server::Config { decision_log, limits, clock, ..config })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn each_decision_is_logged_as_one_line() {
    let path = folder("log-shapes").join("decisions.ndjson");
    let server = serve(path.to_str().unwrap());
    let mut decisions = client(&server).await;
    let questions = [
        ("alice", "repo.delete", "acme/platform/images"),
        ("bob", "repo.delete", "acme/platform/images/nginx"),
        ("zoe", "repo.list", "acme"),
        ("zoe\n{\"allowed\":true}\u{1b}[2J", "repo.list", "acme"),
        ("alice", "nope", "acme"),
    ];
    let line = |rpc: &str, at: usize, answer: Result<(bool, Reason), String>| {
        let (identity, capability, resource) = questions[at];
        let mut line = json!({"rpc": rpc, "identity": identity, "capability": capability,
                              "resource": resource, "revision": 1});
        match answer {
            Ok((allowed, reason)) => {
                line["allowed"] = allowed.into();
                line["reason"] = reason_name(reason).into();
            }
            Err(error) => line["error"] = error.into(),
        }
        line
    };
    let results = |rpc: &str, answer: &v1::BatchCheckResponse| {
        let answers = answer.results.iter().enumerate().map(|(at, result)| match &result.error {
            Some(error) => line(rpc, at, Err(error.message.clone())),
            None => line(rpc, at, Ok((result.allowed, result.reason()))),
        });
        answers.collect::<Vec<_>>()
    };
    let mut expected = Vec::new();
    for (at, (identity, capability, resource)) in questions.into_iter().enumerate() {
        let answer = decisions.check(check(identity, capability, resource)).await;
        let answer = answer.map(|answer| (answer.get_ref().allowed, answer.get_ref().reason()));
        expected.push(line("Check", at, answer.map_err(|status| status.message().into())));
        let v1::CheckRequest { identity, capability, resource, .. } =
            check(identity, capability, resource);
        let request = v1::ExplainRequest { identity, capability, resource, ..Default::default() };
        let answer = decisions.explain(request).await;
        let answer = answer.map(|answer| (answer.get_ref().allowed, answer.get_ref().reason()));
        expected.push(line("Explain", at, answer.map_err(|status| status.message().into())));
    }
    let answer = decisions.batch_check(batch(&questions)).await.unwrap();
    expected.extend(results("BatchCheck", answer.get_ref()));
    let batches = tokio_stream::iter([batch(&questions), batch(&questions[..2])]);
    let mut answers = decisions.stream_check(batches).await.unwrap().into_inner();
    while let Some(answer) = answers.message().await.unwrap() {
        expected.extend(results("StreamCheck", &answer));
    }
    // None of these calls is a decision.
    decisions.batch_check(batch(&[])).await.unwrap();
    decisions.batch_check(batch(&vec![questions[0]; 1_001])).await.unwrap_err();
    let consistency = Some(v1::Consistency { mode: Some(v1::consistency::Mode::AtLeast(9)) });
    let late = v1::CheckRequest { consistency, ..check("alice", "repo.list", "acme") };
    decisions.check(late).await.unwrap_err();
    let list = v1::ListIdentitiesRequest {
        capability: "repo.list".into(),
        resource: "acme".into(),
        ..Default::default()
    };
    decisions.list_identities(list).await.unwrap();
    // The server drains with an open connection, and writes the queued lines before it exits.
    assert_eq!(server.stop("-TERM").0, Some(0));

    let mut found = read(&path);
    for line in &mut found {
        let time = line.as_object_mut().unwrap().remove("time").unwrap();
        assert!(capstan_policy::parse_timestamp(time.as_str().unwrap()).is_ok(), "{time}");
    }
    assert_eq!(found, expected);
    assert_eq!(found.iter().filter(|line| line["allowed"] == true).count(), 5);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_line_has_one_timestamp_and_no_properties() {
    let path = pipe("log-properties");
    let server = start(&path, Limits::default()).await;
    let value =
        prost_types::Value { kind: Some(prost_types::value::Kind::StringValue("x".into())) };
    let all = [("home-address".to_owned(), value)];
    let properties = Some(v1::Properties {
        subject: all.clone().into(),
        resource: all.clone().into(),
        action: all.clone().into(),
        context: all.into(),
    });
    let request =
        v1::CheckRequest { properties: properties.clone(), ..check("alice", "repo.list", "acme") };
    server.decisions().check(request).await.unwrap();
    let mut request = batch(&[("alice", "repo.list", "acme")]);
    request.checks[0].properties = properties;
    server.decisions().batch_check(request).await.unwrap();
    let mut log = BufReader::new(std::fs::File::open(&path).unwrap());
    for rpc in ["Check", "BatchCheck"] {
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let expected = format!(
            "{{\"time\":\"2027-01-15T08:00:00Z\",\"rpc\":\"{rpc}\",\"identity\":\"alice\",\
             \"capability\":\"repo.list\",\"resource\":\"acme\",\"allowed\":true,\
             \"reason\":\"GRANTED\",\"revision\":1}}\n"
        );
        assert_eq!(line, expected);
    }
}

#[tokio::test]
async fn the_log_is_off_by_default() {
    let server = InProcess::start(Source::Demo).await;
    server.decisions().check(check("alice", "repo.list", "acme")).await.unwrap();
    for series in [WRITTEN, LOST] {
        assert_eq!(metrics::of(&server, series).await, 0.0);
    }
}

/// Without a reader, some lines are written to the pipe, some are queued, and all others are lost. Then
/// the reader starts.
async fn overloaded(name: &str, limits: Limits) {
    const CHECKS: u64 = 300;
    let path = pipe(name);
    let started = Instant::now();
    let server = start(&path, limits).await;
    let mut decisions = server.decisions();
    // Long lines, so that a few fill the pipe.
    let resource = format!("acme/platform/images/{}", vec!["x".repeat(100); 8].join("/"));
    for _ in 0..CHECKS {
        let answer = decisions.check(check("bob", "repo.list", &resource)).await;
        assert!(answer.unwrap().get_ref().allowed);
    }
    let at_once = metrics::of(&server, LOST).await;
    assert!(at_once > 0.0);
    let counted = tokio::task::spawn_blocking(move || {
        let log = BufReader::new(std::fs::File::open(&path).unwrap());
        let (mut written, mut lost, mut told) = (0, 0, 0);
        for line in log.lines() {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            match line["lost"].as_u64() {
                Some(lines) => {
                    lost += lines;
                    told += 1;
                }
                None => written += u64::from(line["allowed"] == true),
            }
            if written + lost == CHECKS {
                break;
            }
        }
        (written, lost, told)
    });
    let (written, lost, told) = tokio::time::timeout(PATIENCE, counted).await.unwrap().unwrap();
    assert!(written > 0, "{written} written");
    assert!(told <= started.elapsed().as_secs() + 2, "{told} reports of lost lines");
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let counted = (written as f64, lost as f64);
    // The server counts a line after writing it, so the reader can see it before the counter does.
    let agrees = async {
        while (metrics::of(&server, WRITTEN).await, metrics::of(&server, LOST).await) != counted {}
    };
    tokio::time::timeout(PATIENCE, agrees).await.unwrap();
}

#[tokio::test]
async fn lines_beyond_the_buffer_are_lost_counted_and_reported() {
    let limits = Limits { decision_log_lines_max: 10, ..Limits::default() };
    overloaded("log-lines", limits).await;
}

#[tokio::test]
async fn the_buffer_is_limited_in_bytes() {
    let limits = Limits { decision_log_bytes_max: 10_000, ..Limits::default() };
    overloaded("log-bytes", limits).await;
}

#[tokio::test]
async fn all_or_no_lines_of_a_batch_are_logged() {
    let path = pipe("log-batch");
    let limits = Limits { decision_log_lines_max: 10, ..Limits::default() };
    let server = start(&path, limits).await;
    let item = ("alice", "repo.list", "acme");
    let answer = server.decisions().batch_check(batch(&[item; 11])).await.unwrap();
    assert!(answer.get_ref().results.iter().all(|result| result.allowed));
    assert_eq!(metrics::of(&server, LOST).await, 11.0);
    server.decisions().batch_check(batch(&[item; 10])).await.unwrap();
    assert_eq!(metrics::of(&server, LOST).await, 11.0);
    let log = BufReader::new(std::fs::File::open(&path).unwrap());
    let seen: Vec<_> = log.lines().take(11).map(|line| lines(&line.unwrap()).remove(0)).collect();
    assert_eq!(seen.iter().filter(|line| line["rpc"] == "BatchCheck").count(), 10);
    assert_eq!(seen.iter().filter_map(|line| line["lost"].as_u64()).collect::<Vec<_>>(), [11]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_full_disk_does_not_affect_answers() {
    let arguments = ["--policy", DEMO, "--decision-log", "/dev/full"];
    let free = ["--listen", "127.0.0.1:0", "--http", "none"];
    let mut server = Serving::start(&[&arguments[..], &free[..]].concat(), 1);
    let mut decisions = client(&server).await;
    for _ in 0..2 {
        for _ in 0..100 {
            let answer = decisions.check(check("alice", "repo.list", "acme")).await.unwrap();
            assert!(answer.get_ref().allowed);
        }
        server.wait_for_log("the decision log cannot be written, lines are lost: No space left");
    }
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    assert_eq!(log.matches("decision log").count(), 1, "not logged once: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn sighup_reopens_the_file() {
    let path = folder("log-rotated").join("decisions.ndjson");
    let mut server = serve(path.to_str().unwrap());
    let mut decisions = client(&server).await;
    decisions.check(check("alice", "repo.list", "acme")).await.unwrap();
    let old = path.with_extension("1");
    let started = Instant::now();
    while std::fs::read_to_string(&path).unwrap().is_empty() {
        assert!(started.elapsed() < PATIENCE, "no line is written");
    }
    std::fs::rename(&path, &old).unwrap();
    decisions.check(check("bob", "repo.list", "acme")).await.unwrap();
    server.signal("-HUP");
    server.wait_for_log("the decision log is opened anew");
    decisions.check(check("zoe", "repo.list", "acme")).await.unwrap();
    assert_eq!(server.stop("-TERM").0, Some(0));
    let identities = |path| read(path).iter().map(|line| line["identity"].clone()).collect();
    let (old, new): (Vec<_>, Vec<_>) = (identities(&old), identities(&path));
    assert_eq!((old, new), (vec!["alice".into(), "bob".into()], vec!["zoe".into()]));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_failed_reopen_keeps_the_old_file() {
    let folder = folder("log-moved");
    let (before, after) = (folder.join("before"), folder.join("after"));
    std::fs::create_dir(&before).unwrap();
    let mut server = serve(before.join("log").to_str().unwrap());
    std::fs::rename(&before, &after).unwrap();
    server.signal("-HUP");
    server.wait_for_log("the decision log goes on in the old file");
    client(&server).await.check(check("zoe", "repo.list", "acme")).await.unwrap();
    assert_eq!(server.stop("-TERM").0, Some(0));
    assert_eq!(read(&after.join("log")).len(), 1);
}

#[test]
fn a_log_that_cannot_be_opened_stops_the_start() {
    let log = folder("log-nowhere").join("nowhere/log");
    let log = log.to_str().unwrap();
    let output = capstan(&[&["serve", "--demo", "--decision-log", log], &FREE[..]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("cannot open the decision log"), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn standard_output_has_the_addresses_before_the_log() {
    let mut server = serve("-");
    client(&server).await.check(check("alice", "repo.list", "acme")).await.unwrap();
    server.signal("-TERM");
    let mut rest = String::new();
    server.rest.read_to_string(&mut rest).unwrap();
    let found = lines(&rest);
    assert_eq!((found.len(), &found[0]["identity"]), (1, &"alice".into()), "{rest}");
    assert_eq!(server.wait().0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_blocked_reader_does_not_block_the_shutdown() {
    let mut server = serve("-");
    let mut decisions = client(&server).await;
    for _ in 0..20 {
        decisions.batch_check(batch(&[("alice", "repo.list", "acme"); 100])).await.unwrap();
    }
    server.signal("-TERM");
    server.wait_for_log("the decision log takes no more");
    let (code, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
}
