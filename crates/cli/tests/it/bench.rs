//! Short runs of `capstan bench` as a process. The tests check its counts and not its figures.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::common::{PATIENCE, capstan, command, folder, stderr, stdout};

/// A small world, which loads quickly.
const SMALL: [&str; 4] = ["--groups", "30", "--identities", "200"];
/// The shortest run with some calls on a slow machine.
const SHORT: [&str; 6] = ["--warm-up", "0.1", "--duration", "0.4", "--questions", "2000"];

fn bench(arguments: &[&str]) -> Output {
    capstan(&[&["bench", "--output", "json"], &SHORT[..], arguments].concat())
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {} {}", stdout(output), stderr(output));
    })
}

fn number(report: &Value, field: &str) -> u64 {
    report[field].as_u64().unwrap_or_else(|| panic!("no {field} in {report}"))
}

fn sum(report: &Value, field: &str) -> u64 {
    report[field].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
}

/// Asserts that the counts of a report add up, and that its percentiles are in order.
fn assert_adds_up(report: &Value) {
    let of = |field| number(report, field);
    let ended = of("answered") + sum(report, "errors") + of("unanswered") + of("unsent");
    assert_eq!(of("requests"), ended, "{report}");
    let checks = of("allowed") + of("denied") + of("malformed") + sum(report, "check_errors");
    assert_eq!(of("checks"), checks, "{report}");
    assert_eq!(of("checks"), of("answered") * of("checks_per_request"), "{report}");
    let latency = &report["latency_us"];
    let percentiles = ["p50", "p90", "p99", "p99.9", "p99.99", "max"]
        .map(|name| latency[name].as_f64().unwrap_or_else(|| panic!("no {name} in {report}")));
    assert!(percentiles.is_sorted(), "{report}");
}

#[test]
fn every_mode_counts_its_requests_and_verifies_every_decision() {
    for (mode, transport, per_request, rate) in [
        ("check", "tcp", 1, None),
        ("check", "unix", 1, Some("100")),
        ("batch", "tcp", 7, None),
        ("stream", "unix", 7, None),
        ("stream", "tcp", 7, Some("100")),
        ("coalesced", "tcp", 1, None),
        ("coalesced", "unix", 1, Some("100")),
    ] {
        let mut arguments = ["--mode", mode, "--transport", transport].to_vec();
        arguments.extend(["--batch", "7", "--connections", "2", "--in-flight", "3", "--verify"]);
        arguments.extend(["--threads", "2"]);
        arguments.extend(rate.map(|rate| ["--rate", rate]).into_iter().flatten());
        let output = bench(&[&arguments, &SMALL[..]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let report = report(&output);
        assert_adds_up(&report);
        assert_eq!(number(&report, "checks_per_request"), per_request);
        assert!(number(&report, "allowed") > 0 && number(&report, "denied") > 0, "{report}");
        assert_eq!((number(&report, "malformed"), number(&report, "wrong")), (0, 0), "{report}");
        assert_eq!(sum(&report, "errors"), 0, "{report}");
        assert_eq!((&report["mode"], report["rate"].is_null()), (&mode.into(), rate.is_none()));
        let scheme = if transport == "tcp" { "http://127.0.0.1:" } else { "unix:" };
        assert!(report["target"].as_str().unwrap().starts_with(scheme), "{report}");
        assert!(report["checks_per_second"].as_f64().unwrap() > 0.0);
        // The schedule alone determines the count: 100 per second for 0.4 s, on any machine.
        if rate.is_some() {
            assert_eq!(number(&report, "requests"), 40, "{report}");
        }
        if cfg!(target_os = "linux") {
            let cpu = ["server_cpu_us_per_check", "client_cpu_us_per_check"];
            assert!(cpu.iter().all(|field| report[field].is_number()), "{report}");
        }
    }
}

#[test]
fn errors_are_counted_by_code() {
    let folder = folder("bench-errors");
    let queries = folder.join("queries.ndjson");
    let line = |capability| {
        format!(r#"{{"identity": "alice", "capability": "{capability}", "resource": "acme/a"}}"#)
    };
    let text = [line("repo.list"), String::new(), line("repo.burn")].join("\n");
    std::fs::write(&queries, text).unwrap();
    let arguments =
        ["--policy", "deploy/quickstart/policy.yaml", "--queries", queries.to_str().unwrap()];

    let one_by_one = report(&bench(&arguments));
    assert_adds_up(&one_by_one);
    let (failed, answered) = (sum(&one_by_one, "errors"), number(&one_by_one, "answered"));
    assert_eq!(one_by_one["errors"]["INVALID_ARGUMENT"], failed, "{one_by_one}");
    assert!(failed > 0 && answered > 0, "{one_by_one}");

    let coalesced = report(&bench(&[&arguments[..], &["--mode", "coalesced"]].concat()));
    assert_adds_up(&coalesced);
    let (failed, answered) = (sum(&coalesced, "errors"), number(&coalesced, "answered"));
    assert_eq!(coalesced["errors"]["INVALID_ARGUMENT"], failed, "{coalesced}");
    assert!(failed > 0 && answered > 0, "{coalesced}");

    let batches = report(&bench(&[&arguments[..], &["--mode", "batch", "--batch", "4"]].concat()));
    assert_adds_up(&batches);
    let failed = number(&batches, "allowed") + number(&batches, "denied");
    assert_eq!(batches["check_errors"]["INVALID_ARGUMENT"], failed, "{batches}");
    assert_eq!(sum(&batches, "errors"), 0, "{batches}");

    std::fs::write(&queries, "{}").unwrap();
    let output = bench(&arguments);
    assert_eq!(output.status.code(), Some(2));
    let error = stdout(&output);
    assert!(error.contains("queries.ndjson:1: missing field `identity`"), "{error}");
}

/// Without a file of questions, the bench generates questions about the policy.
#[test]
fn a_user_policy_is_measured_and_plotted() {
    let plot = folder("bench-plot").join("latency.svg");
    let arguments = ["--policy", "deploy/quickstart/policy.yaml", "--verify", "--plot"];
    let output = bench(&[&arguments[..], &[plot.to_str().unwrap()]].concat());
    let report = report(&output);
    assert_adds_up(&report);
    assert!(number(&report, "allowed") > 0 && number(&report, "denied") > 0, "{report}");
    let svg = std::fs::read_to_string(plot).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("99%"), "{svg}");
}

#[test]
fn the_yardstick_runs_in_every_runtime() {
    for (runtime, transport) in [
        ("multi-thread", "tcp"),
        ("current-thread", "unix"),
        ("per-core", "tcp"),
        ("per-core", "unix"),
    ] {
        let mut arguments = ["--against", "do-nothing", "--pairs", "2"].to_vec();
        arguments.extend(["--runtime", runtime, "--transport", transport]);
        let output = bench(&[&arguments, &SMALL[..]].concat());
        assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
        let compared = report(&output);
        let (server, yardstick) = (&compared["server"], &compared["yardstick"]);
        assert_adds_up(server);
        assert_adds_up(yardstick);
        assert!(number(server, "denied") > 0, "{server}");
        assert_eq!(number(yardstick, "denied"), 0, "{yardstick}");
        assert_eq!(yardstick["target"], format!("do-nothing, {runtime}"));
        assert_eq!(compared["pairs"].as_array().unwrap().len(), 2);
        let ratio = &compared["rate_ratio"];
        let [low, median, high] = ["low", "median", "high"].map(|at| ratio[at].as_f64().unwrap());
        // On a busy machine, one of the two runs may end before its first answer.
        assert!(low <= median && median <= high && high > 0.0, "{ratio}");
    }
}

/// The benchmark must report wrong answers.
#[test]
fn wrong_answers_are_counted() {
    let socket = folder("bench-wrong").join("yardstick.sock");
    let address = format!("unix:{}", socket.display());
    let mut yardstick = command(&["bench", "do-nothing", "--listen", &address])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The server prints its address once it listens.
    yardstick.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    for mode in ["check", "batch", "stream", "coalesced"] {
        let output =
            bench(&[&["--addr", &address, "--verify", "--mode", mode], &SMALL[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        let report = report(&output);
        assert_adds_up(&report);
        let (wrong, checks) = (number(&report, "wrong"), number(&report, "checks"));
        assert!(0 < wrong && wrong < checks, "{report}");
        if cfg!(target_os = "linux") {
            assert!(report["server_cpu_us_per_check"].is_number(), "{report}");
        }
    }
    yardstick.kill().unwrap();
    yardstick.wait().unwrap();
}

/// A server that never answers, and a server that closes every connection. The report counts their
/// requests in every mode.
#[test]
fn requests_without_an_answer_are_counted() {
    for (hangs_up, modes) in
        [(false, ["check", "stream", "coalesced"]), (true, ["batch", "stream", "coalesced"])]
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let held: Vec<_> = listener.incoming().filter(|_| !hangs_up).collect();
            drop(held);
        });
        for mode in modes {
            let arguments = ["--addr", &address, "--mode", mode, "--rate", "100"];
            let output =
                bench(&[&arguments[..], &["--in-flight", "2", "--connections", "3"]].concat());
            assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
            let report = report(&output);
            assert_adds_up(&report);
            assert_eq!((number(&report, "requests"), number(&report, "answered")), (40, 0));
            let failed = sum(&report, "errors");
            if mode == "coalesced" {
                // The client retries until the deadline, and later requests wait.
                assert_eq!(failed + number(&report, "unsent"), 40, "{report}");
                assert!(number(&report, "unsent") >= 34, "{report}");
            } else if hangs_up {
                assert!(failed > 0 && report["errors"]["TRANSPORT"] == failed, "{report}");
            } else {
                // The requests in flight never end. The requests scheduled after them count, too.
                assert_eq!(number(&report, "unanswered") + number(&report, "unsent"), 40);
                assert!(number(&report, "unsent") >= 34, "{report}");
                assert!(report["latency_us"]["max"].as_f64().unwrap() > 0.0, "{report}");
            }
        }
    }
}

/// More calls in flight than streams of a connection would wait for each other inside the HTTP/2 client.
#[test]
fn requests_in_flight_are_limited_by_the_streams_of_a_connection() {
    for mode in ["check", "batch"] {
        let output = bench(&[&["--mode", mode, "--in-flight", "257"], &SMALL[..]].concat());
        assert_eq!(output.status.code(), Some(2));
        let error = stdout(&output);
        assert!(error.contains("--in-flight: at most 256"), "{error}");
    }
    for mode in ["stream", "coalesced"] {
        let arguments = ["--mode", mode, "--in-flight", "257", "--connections", "1", "--verify"];
        let output = bench(&[&arguments, &SMALL[..]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_adds_up(&report(&output));
    }
}

#[test]
fn a_seed_always_generates_the_same_policy_and_queries() {
    let folder = folder("bench-generate");
    let generate = |seed: &str, queries: &Path| {
        let queries = queries.to_str().unwrap();
        let mut arguments = ["bench", "generate", "--groups", "12", "--identities", "40"].to_vec();
        arguments.extend(["--seed", seed, "--queries", queries, "--count", "300"]);
        let output = capstan(&arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        (stdout(&output), std::fs::read_to_string(queries).unwrap())
    };
    let (file, other) = (folder.join("queries.ndjson"), folder.join("others.ndjson"));
    let made = generate("7", &file);
    assert_eq!(made, generate("7", &other));
    let (policy, queries) = generate("8", &other);
    assert!(policy != made.0 && queries != made.1);

    let path = folder.join("policy.json");
    std::fs::write(&path, &made.0).unwrap();
    let (path, file) = (path.to_str().unwrap(), file.to_str().unwrap());
    let output = capstan(&["check", "--file", file, "--policy", path]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let decisions = stdout(&output);
    let allowed = decisions.lines().filter(|line| line.contains(r#""allowed":true"#)).count();
    assert_eq!(decisions.lines().count(), 300);
    assert!((100..200).contains(&allowed), "{allowed}");
}

/// A signal must also end the server process that the bench started.
#[test]
fn a_stopped_bench_stops_its_server() {
    let folder = folder("bench-stop");
    let arguments = ["bench", "--transport", "unix", "--duration", "3600"];
    let mut bench = command(&[&arguments[..], &SMALL].concat())
        .env("TMPDIR", &folder)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let own = folder.join(format!("capstan-bench-{}", bench.id()));
    let (socket, started) = (own.join("server.sock"), Instant::now());
    while UnixStream::connect(&socket).is_err() {
        assert!(started.elapsed() < PATIENCE, "no server");
        std::thread::yield_now();
    }
    let held = UnixStream::connect(&socket).unwrap();
    let id = bench.id().to_string();
    assert!(std::process::Command::new("kill").arg(&id).status().unwrap().success());
    assert_eq!(bench.wait().unwrap().code(), Some(2));
    let mut error = String::new();
    bench.stderr.unwrap().read_to_string(&mut error).unwrap();
    assert_eq!(error, "error: stopped by SIGTERM\n");
    // The server has closed the connection, and its folder is deleted.
    held.set_read_timeout(Some(PATIENCE)).unwrap();
    let rest = (&held).read_to_end(&mut Vec::new());
    assert!(!rest.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    assert!(!own.exists());
}
