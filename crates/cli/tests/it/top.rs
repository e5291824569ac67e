//! `capstan top` without a terminal: its figures match the calls made to a server. If the address
//! is not a Capstan server, it exits or retries as documented.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Stdio};

use capstan_proto::v1;
use capstan_server::feed::source::Source;
use serde_json::{Value, json};

use crate::command_limits::{SCRAPE_BYTES_MAX, SCRAPE_TIME_MAX};
use crate::common::{InProcess, capstan, command, stderr, stdout};

/// Identity, capability and resource of each check.
const ASKED: [(&str, &str, &str); 4] = [
    ("alice", "repo.list", "acme"),
    ("alice", "repo.delete", "acme/platform"),
    ("bob", "repo.delete", "acme/platform"),
    ("zoe", "repo.list", "acme"),
];

async fn ask(server: &InProcess, checks: usize) {
    for (identity, capability, resource) in ASKED.into_iter().cycle().take(checks) {
        let request = v1::CheckRequest {
            identity: identity.into(),
            capability: capability.into(),
            resource: resource.into(),
            ..Default::default()
        };
        server.decisions().check(request).await.unwrap();
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

#[tokio::test]
async fn once_prints_the_exact_counts() {
    let server = InProcess::start(Source::Demo).await;
    ask(&server, 8).await;
    let check = |identity: &str, capability: &str| v1::CheckItem {
        identity: identity.into(),
        capability: capability.into(),
        resource: "acme".into(),
        properties: None,
    };
    let checks = vec![check("alice", "repo.list"), check("zoe", "repo.list"), check("a", "nope")];
    let batch = v1::BatchCheckRequest { checks, consistency: None };
    server.decisions().batch_check(batch).await.unwrap();
    server.decisions().check(v1::CheckRequest::default()).await.unwrap_err();

    let http = url(server.http);
    let run = move |arguments: &'static [&str]| {
        let http = http.clone();
        let run = move || capstan(&[&["top", "--once", "--metrics", &http], arguments].concat());
        tokio::task::spawn_blocking(run)
    };
    let output = run(&["--output", "json"]).await.unwrap();
    assert!(output.status.success(), "{}", stdout(&output));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let count = |count: u64| json!({"count": count});
    assert_eq!((told.get("seconds"), &told["restarted"]), (None, &json!(false)));
    assert_eq!((&told["revision"], &told["identities"]), (&json!(1), &json!(15)));
    assert_eq!(
        (&told["version"], &told["in_flight"]),
        (&json!(env!("CARGO_PKG_VERSION")), &json!(0))
    );
    assert_eq!(
        (&told["loads"]["applied"], &told["loads"]["last_rejected"]),
        (&json!(1), &json!(null))
    );
    assert_eq!((&told["calls"], &told["failed"]), (&count(10), &count(1)));
    assert_eq!(told["decisions"], count(10));
    assert_eq!((&told["allowed"], &told["denied"]), (&count(5), &count(5)));
    let reason = |reason: &str, count: u64, share: f64| {
        let mut told = json!({"reason": reason, "count": count});
        told["share"] = json!(share);
        told
    };
    assert_eq!(
        told["reasons"],
        json!([
            reason("GRANTED", 5, 0.5),
            reason("UNKNOWN_IDENTITY", 3, 0.3),
            reason("EXPIRED", 0, 0.0),
            reason("CONDITION_NOT_MET", 0, 0.0),
            reason("CAPABILITY_NOT_IN_ROLE", 2, 0.2),
            reason("NO_BINDING", 0, 0.0),
        ])
    );
    assert_eq!(told["errors"], json!([{"code": "INVALID_ARGUMENT", "count": 1}]));
    let rpcs = told["rpcs"].as_array().unwrap();
    let rpc = |name: &str| rpcs.iter().find(|rpc| rpc["rpc"] == name).unwrap();
    assert_eq!((&rpc("Check")["calls"], &rpc("Check")["failed"]), (&count(9), &count(1)));
    assert_eq!((&rpc("BatchCheck")["allowed"], &rpc("Explain")["calls"]), (&count(1), &count(0)));
    assert!(rpc("Check")["latency_seconds"]["p50"].as_f64().unwrap() > 0.0);
    assert_eq!(rpc("Explain")["latency_seconds"]["p50"], json!(null));

    let output = run(&[]).await.unwrap();
    let text = stdout(&output);
    assert!(text.starts_with(&format!("capstan top  http://{}  since it started", server.http)));
    for line in
        ["\nall                   10        10  50.0 %        1 ", "\nCheck                  9 "]
    {
        assert!(text.contains(line), "{line} in {text}");
    }
}

/// A process of `capstan top --output json`. Dropping it kills the process.
struct Lines {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Lines {
    fn of(address: SocketAddr) -> Self {
        let url = url(address);
        let arguments = ["top", "--metrics", &url, "--interval", "0.1", "-o", "json"];
        let mut child = command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_counts_of_intervals_add_up_to_the_calls_made() {
    let server = InProcess::start(Source::Demo).await;
    ask(&server, 3).await;
    let mut lines = Lines::of(server.http);
    // Calls before the first scrape are in no interval.
    assert_eq!(tokio::task::block_in_place(|| lines.next())["calls"]["count"], 0);
    ask(&server, 40).await;
    tokio::task::block_in_place(|| {
        let (mut calls, mut allowed) = (0, 0);
        while calls < 40 {
            let line = lines.next();
            assert!(line["seconds"].as_f64().unwrap() > 0.0, "{line}");
            calls += line["calls"]["count"].as_u64().unwrap();
            allowed += line["allowed"]["count"].as_u64().unwrap();
        }
        assert_eq!((calls, allowed), (40, 20));
    });
}

/// A listener that sends one of these answers on each connection, and closes further connections.
fn listener_with(answers: Vec<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for answer in answers.into_iter().chain(std::iter::repeat(Vec::new())) {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let mut request = [0; 1024];
            // A scrape request arrives in one read.
            let read = stream.read(&mut request).unwrap_or(0);
            assert!(read == 0 || request.starts_with(b"GET /metrics HTTP/1.1\r\n"));
            let _ = stream.write_all(&answer);
        }
    });
    address
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn metrics(calls: u64) -> Vec<u8> {
    ok(&format!(
        "capstan_build_info{{version=\"1\"}} 1\n\
         capstan_requests_total{{rpc=\"Check\",code=\"OK\"}} {calls}\n# EOF\n"
    ))
}

#[test]
fn an_unreachable_server_is_scraped_until_it_is_back() {
    let mut lines =
        Lines::of(listener_with(vec![metrics(5), metrics(7), Vec::new(), metrics(8), metrics(3)]));
    let told = |line: &Value| (line["calls"]["count"].clone(), line["restarted"].clone());
    assert_eq!(told(&lines.next()), (json!(2), json!(false)));
    let away = lines.next();
    assert!(
        away["error"].as_str().unwrap().starts_with("cannot reach http://127.0.0.1:"),
        "{away}"
    );
    assert_eq!(away.as_object().unwrap().len(), 1);
    assert_eq!(told(&lines.next()), (json!(1), json!(false)), "since the last successful scrape");
    assert_eq!(told(&lines.next()), (json!(3), json!(true)));
}

#[test]
fn without_a_terminal_one_interval_is_printed() {
    let url = url(listener_with(vec![metrics(5), metrics(7)]));
    let output = capstan(&["top", "--metrics", &url, "--interval", "0.1"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.starts_with(&format!("capstan top  {url}  in ")), "{text}");
    assert!(text.contains("\ncall             calls/s decided/s"), "{text}");
    assert!(!text.contains('\x1b'), "{text:?}");
    // The second scrape finds no server.
    let url = self::url(listener_with(vec![metrics(5)]));
    let output = capstan(&["top", "--metrics", &url, "--interval", "0.1"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""));
}

/// The error of `capstan top`, which must fail.
fn error(arguments: &[&str]) -> String {
    let output = capstan(&[&["top"], arguments].concat());
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""));
    stderr(&output)
}

#[test]
fn addresses_without_a_capstan_server_are_errors() {
    let unreachable = error(&["--metrics", "http://127.0.0.1:1"]);
    let hint = "error: cannot reach http://127.0.0.1:1 (start a server: capstan serve --demo): ";
    assert!(unreachable.starts_with(hint), "{unreachable}");
    let long = format!("# {}\n# EOF\n", "x".repeat(SCRAPE_BYTES_MAX));
    for (answer, problem) in [
        (
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
            "it answers 404 Not Found",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "invalid HTTP version parsed"),
        (ok(&long), "the answer is longer than"),
        (ok("\u{1}"), "line 1: no name"),
        (ok("up 1\n"), "it does not end with `# EOF`"),
        (ok("up 1\n# EOF\n"), "these are metrics, but not of a Capstan server"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n\xff".to_vec(), "its metrics are not text"),
    ] {
        let told = error(&["--metrics", &url(listener_with(vec![answer])), "--once"]);
        assert!(told.contains(problem), "{told}");
    }
    for wrong in ["0.09", "60.1", "-1", "NaN", "1s"] {
        let told = error(&[&format!("--interval={wrong}")]);
        assert!(told.contains("expected seconds, from 0.1 to 60"), "{told}");
    }
    assert!(error(&["--metrics", "unix:/x"]).contains("is no address of metrics"));
}

#[test]
fn a_scrape_of_the_largest_size_is_read() {
    let end = "capstan_build_info 1\n# EOF\n";
    let padding = "x".repeat(SCRAPE_BYTES_MAX - end.len() - 3);
    let url = url(listener_with(vec![ok(&format!("# {padding}\n{end}"))]));
    let output = capstan(&["top", "--metrics", &url, "--once"]);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_scrape_without_an_answer_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let told = error(&["--metrics", &url(listener.local_addr().unwrap())]);
    assert!(told.contains(&format!("no answer in {SCRAPE_TIME_MAX:?}")), "{told}");
}
