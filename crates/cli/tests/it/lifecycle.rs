//! The lifecycle of the server: start, readiness, sockets, invalid configurations, drain.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::Instant;

use capstan_proto::v1::{self, decision_service_client::DecisionServiceClient};
use capstan_server::limits::{DRAIN_MAX, HTTP_DRAIN_MAX, STREAM_DRAIN_MAX};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use tonic_types::StatusExt as _;

use crate::common::{PATIENCE, Serving, capstan, command, folder, stderr};
use crate::secrets::{Channel, assert_tells_no_secret};

/// Sends one HTTP/1.1 request. Returns the status line and the body.
fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_tells_no_secret(&answer);
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

async fn connect(server: &Serving) -> Channel {
    let url = format!("http://{}", server.address("grpc"));
    Channel::to(url).await
}

const FREE: [&str; 4] = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];

fn demo() -> Serving {
    Serving::start(&[&["--demo"], &FREE[..]].concat(), 18)
}

#[test]
fn a_ready_server_reports_ready_over_grpc_and_http() {
    let server = demo();
    let http = server.address("http");
    assert_eq!(get(&http, "/livez"), ("HTTP/1.1 200 OK".into(), "ok\n".into()));
    assert_eq!(get(&http, "/readyz"), ("HTTP/1.1 200 OK".into(), "ok\n".into()));
    assert!(get(&http, "/nope").0.contains("404"));

    let threads = tokio::runtime::Runtime::new().unwrap();
    threads.block_on(async {
        let mut health = HealthClient::new(connect(&server).await);
        // The management services: changes can be made.
        let management = ["capstan.iam.v1.GroupService", "capstan.iam.v1.PolicyService"];
        for name in ["", "capstan.v1.DecisionService"].into_iter().chain(management) {
            let request = HealthCheckRequest { service: name.into() };
            let answer = health.check(request).await.unwrap().into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving, "{name:?}");
        }
        let unknown = HealthCheckRequest { service: "nope".into() };
        assert_eq!(health.check(unknown).await.unwrap_err().code(), tonic::Code::NotFound);
    });
}

/// A core file would have keys and credentials.
#[test]
fn a_server_leaves_no_core_file() {
    // Whoever wants one gets it: a shell that ends in the same way is dumped.
    let wanted = "ulimit -c $(ulimit -H -c); exec \"$@\"";
    let dumped = |program: &[&str], lines: usize| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", wanted, "sh"]).args(program).current_dir(folder("core"));
        if lines == 0 {
            return command.status().unwrap();
        }
        Serving::spawn(&mut command, lines).killed_by("-ABRT")
    };
    let shell = dumped(&["sh", "-c", "kill -ABRT $$"], 0);
    if !shell.core_dumped() {
        // Nothing leaves one there, and the rest holds by itself.
        return assert_eq!(shell.signal(), Some(6));
    }
    let serve = [&[env!("CARGO_BIN_EXE_capstan"), "serve", "--demo"], &FREE[..]].concat();
    let server = dumped(&serve, 18);
    assert_eq!((server.signal(), server.core_dumped()), (Some(6), false), "{server}");
}

#[test]
fn a_server_is_not_ready_before_the_policy_is_loaded() {
    // Reading the policy from an empty pipe blocks, so loading takes as long as the test wants.
    let pipe = folder("pipe").join("policy.yaml");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Opened for reading and writing: otherwise opening the pipe would block.
    let mut writer = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let socket = folder("slow").join("grpc.sock");
    let listen = format!("unix:{}", socket.display());
    let http =
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut child = command(&[
        "serve",
        "--policy",
        pipe.to_str().unwrap(),
        "--listen",
        &listen,
        "--http",
        &http,
    ])
    .stdout(Stdio::piped())
    .stderr(Stdio::null())
    .spawn()
    .unwrap();
    // The server prints its addresses only when it is ready, so the test polls the HTTP port.
    let patience = std::time::Instant::now();
    while TcpStream::connect(&http).is_err() && patience.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
    let (status, body) = get(&http, "/readyz");
    assert!(status.contains("503"), "{status}");
    assert_eq!(body, "starting: loading the policy\n");
    assert_eq!(get(&http, "/livez").1, "ok\n");
    let check = ["check", "alice", "repo.list", "acme", "--addr", &listen];
    let early = capstan(&check);
    assert_eq!(early.status.code(), Some(2));
    assert_eq!(stderr(&early), "error: not ready: the policy is being loaded\n");

    writer.write_all(capstan_server::feed::source::DEMO.as_bytes()).unwrap();
    drop(writer);
    let mut first = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut first).unwrap();
    assert_eq!(first.trim_end(), format!("grpc {listen}"));
    assert_eq!(get(&http, "/readyz").1, "ok\n");
    assert_eq!(capstan(&check).status.code(), Some(0));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_signal_drains_and_exits_with_0() {
    for signal in ["-TERM", "-INT"] {
        let (code, log) = demo().stop(signal);
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("\"draining\"") && log.contains("\"stopped\""), "{log}");
    }
}

#[test]
fn a_silent_peer_does_not_block_the_drain() {
    let server = demo();
    let _idle = TcpStream::connect(server.address("grpc")).unwrap();
    // A later connection is accepted, so the server has accepted the first one.
    assert!(TcpStream::connect(server.address("http")).is_ok());
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0), "{log}");
}

/// The HTTP port waits for the rest of an incomplete request.
#[test]
fn an_incomplete_http_request_does_not_delay_the_drain() {
    let server = demo();
    let mut half = TcpStream::connect(server.address("http")).unwrap();
    half.write_all(b"GET /livez HTTP/1.1\r\n").unwrap();
    // A later connection is accepted, so the server has accepted the first one.
    assert_eq!(get(&server.address("http"), "/livez").1, "ok\n");
    let began = Instant::now();
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0), "{log}");
    // The drain ends after `HTTP_DRAIN_MAX`, not only after `DRAIN_MAX`.
    assert!(log.contains("\"stopped\""), "{log}");
    assert!(HTTP_DRAIN_MAX < DRAIN_MAX && began.elapsed() < DRAIN_MAX);
}

#[test]
fn logs_are_json_without_a_terminal() {
    let (_, log) = demo().stop("-TERM");
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let loaded = lines.iter().find(|line| line["message"] == "store loaded and checked").unwrap();
    assert_eq!((&loaded["identities"], &loaded["role_bindings"]), (&15.into(), &17.into()));
    assert!(loaded["answers_compared"].as_u64().unwrap() > 0);
}

#[test]
fn the_demo_commands_work_as_printed() {
    let server = demo();
    let commands: Vec<&str> =
        server.lines.iter().filter_map(|line| line.strip_prefix("  ")).collect();
    assert_eq!(commands.len(), 8, "{:?}", server.lines);
    let codes = commands.iter().map(|command| {
        let words: Vec<_> = command.split(' ').skip(1).collect();
        let output = capstan(&words);
        let made = "created folder acme/staging at revision 2\n";
        assert!(["", made].contains(&&*stderr(&output)), "{command}: {}", stderr(&output));
        output.status.code().unwrap()
    });
    assert_eq!(codes.collect::<Vec<_>>(), [0, 0, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn a_unix_socket_serves_and_is_cleaned_up() {
    let socket = folder("socket").join("grpc.sock");
    let listen = format!("unix:{}", socket.display());
    let arguments = ["--demo", "--listen", &listen, "--http", "none"];
    let check = || capstan(&["check", "alice", "repo.list", "acme", "--addr", &listen]);

    let server = Serving::start(&arguments, 1);
    assert_eq!(server.address("grpc"), listen);
    assert_eq!(check().status.code(), Some(0));
    let second = capstan(&[&["serve"], &arguments[..]].concat());
    assert_eq!(second.status.code(), Some(2));
    assert!(stderr(&second).contains("in use by another server"), "{}", stderr(&second));
    let (code, _) = server.stop("-KILL");
    assert_eq!(code, None);
    assert!(socket.exists(), "a killed server leaves its socket behind");

    let server = Serving::start(&arguments, 1);
    assert_eq!(check().status.code(), Some(0));
    assert_eq!(server.stop("-TERM").0, Some(0));
    assert!(!socket.exists());

    // The server does not delete a file that is not a socket.
    std::fs::write(&socket, "precious").unwrap();
    let refused = capstan(&[&["serve"], &arguments[..]].concat());
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("is there and is no socket"), "{}", stderr(&refused));
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
}

/// Clients with health checking keep a Watch call open. The drain must not wait for it.
/// A client that watches before it knows the names must not see an error.
#[tokio::test]
async fn a_health_watch_of_an_unknown_service_stays_open() {
    let server = crate::common::InProcess::start(capstan_server::feed::source::Source::Demo).await;
    let mut health = HealthClient::new(server.channel.clone());
    let unknown = || HealthCheckRequest { service: "nothing".into() };
    let mut watch = health.watch(unknown()).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::ServiceUnknown);
    let more = tokio::time::timeout(std::time::Duration::from_millis(100), watch.message()).await;
    assert!(more.is_err(), "{more:?}");
    assert_eq!(health.check(unknown()).await.unwrap_err().code(), tonic::Code::NotFound);
    drop(server);
    let end = tokio::time::timeout(crate::common::PATIENCE, watch.message()).await.unwrap();
    assert!(end.is_err() || end.unwrap().is_none());
}

#[test]
fn a_health_watch_ends_with_the_drain() {
    let server = demo();
    let threads = tokio::runtime::Runtime::new().unwrap();
    let mut watch = threads.block_on(async {
        let mut health = HealthClient::new(connect(&server).await);
        let request = HealthCheckRequest { service: String::new() };
        let mut watch = health.watch(request).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
        watch
    });
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    assert!(!log.contains("cutting off"), "{log}");
    threads.block_on(async {
        let last = watch.message().await.ok().flatten();
        assert!(last.is_none_or(|last| last.status() == ServingStatus::NotServing));
    });
}

#[test]
fn each_address_is_printed_on_its_own_line() {
    let socket = folder("several").join("grpc.sock");
    let unix = format!("unix:{}", socket.display());
    let server = Serving::start(
        &["--demo", "--listen", "127.0.0.1:0", "--listen", &unix, "--http", "127.0.0.1:0"],
        4,
    );
    let words: Vec<_> = server.lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(words, ["grpc", "grpc", "http", "management"]);
    assert_eq!(server.lines[1], format!("grpc {unix}"));
    for address in [format!("http://{}", server.lines[0].strip_prefix("grpc ").unwrap()), unix] {
        assert!(
            capstan(&["check", "alice", "repo.list", "acme", "--addr", &address]).status.success()
        );
    }
}

#[test]
fn invalid_configurations_are_refused_with_advice() {
    let refuses = |arguments: &[&str], advice: &str| {
        let output = capstan(&[&["serve"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(advice), "{}", stderr(&output));
    };
    refuses(&["--demo", "--listen", "0.0.0.0:0"], "give --insecure-plaintext");
    refuses(
        &["--demo", "--listen", "127.0.0.1:0", "--http", "[::]:0"],
        "give --insecure-plaintext",
    );
    refuses(&["--demo", "--listen", "localhost"], "expected IP:PORT");
    refuses(&[], "required");
    refuses(&["--demo", "--policy", "x"], "cannot be used with");
    let none = [&["--policy", "no-such-file"], &FREE[..]].concat();
    refuses(&none, "cannot read no-such-file");
    let bad = folder("bad").join("policy.yaml");
    std::fs::write(&bad, "version: 1\n").unwrap();
    let bad = [&["--policy", bad.to_str().unwrap()], &FREE[..]].concat();
    refuses(&bad, "policy.yaml:1:1: found no `catalog`; expected the key `catalog`");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    refuses(&["--demo", "--listen", &taken, "--http", "none"], "port 0 picks a free one");
}

#[test]
fn reflection_is_off_unless_requested() {
    let policy = "deploy/quickstart/policy.yaml";
    let services = |arguments: &[&str]| {
        let server = Serving::start(&[arguments, &FREE[..]].concat(), 2);
        let threads = tokio::runtime::Runtime::new().unwrap();
        threads.block_on(async {
            use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
            let mut client = ServerReflectionClient::new(connect(&server).await);
            let request = tonic_reflection::pb::v1::ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let answer = client.server_reflection_info(tokio_stream::iter([request])).await.ok()?;
            let message = answer.into_inner().message().await.unwrap()?.message_response?;
            let MessageResponse::ListServicesResponse(list) = message else { return None };
            Some(list.service.into_iter().map(|service| service.name).collect::<Vec<_>>())
        })
    };
    assert_eq!(services(&["--policy", policy]), None);
    for arguments in [&["--policy", policy, "--reflection"][..], &["--demo"]] {
        let services = services(arguments).unwrap();
        assert!(services.contains(&"capstan.v1.DecisionService".to_owned()), "{services:?}");
    }
}

/// A stream could block the drain for any time, so the server ends it with UNAVAILABLE. The client of
/// this stream always sends another batch, so the stream ends after `STREAM_DRAIN_MAX`. Batches that the
/// server received are answered in order.
#[test]
fn a_busy_stream_ends_with_the_drain() {
    let server = demo();
    let threads = tokio::runtime::Runtime::new().unwrap();
    let answered = threads.block_on(async {
        // More checks than `SHORT_BATCH_MAX`, so each batch needs a compute permit.
        let check = v1::CheckItem {
            identity: "bob".into(),
            capability: "repo.list".into(),
            resource: "acme/platform".into(),
            properties: None,
        };
        let batch = v1::BatchCheckRequest { checks: vec![check; 500], consistency: None };
        let mut decisions = DecisionServiceClient::new(connect(&server).await);
        let endless = tokio_stream::iter(std::iter::repeat(batch));
        let mut answers = decisions.stream_check(endless).await.unwrap().into_inner();
        let mut answered = 0u64;
        loop {
            match answers.message().await {
                Ok(answer) => assert_eq!(answer.unwrap().results.len(), 500),
                Err(status) => {
                    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
                    return answered;
                }
            }
            answered += 1;
            if answered == 100 {
                server.signal("-TERM");
            }
        }
    });
    assert!(answered >= 100);
    let (code, log) = server.wait();
    assert_eq!(code, Some(0));
    assert!(!log.contains("cutting off"), "{log}");
    assert!(STREAM_DRAIN_MAX < DRAIN_MAX);
}

#[test]
fn an_open_stream_ends_with_the_drain() {
    let server = demo();
    let threads = tokio::runtime::Runtime::new().unwrap();
    let (batches, mut answers) = threads.block_on(async {
        let (batches, stream) = tokio::sync::mpsc::channel(1);
        batches.send(v1::BatchCheckRequest::default()).await.unwrap();
        let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
        let mut decisions = DecisionServiceClient::new(connect(&server).await);
        let mut answers = decisions.stream_check(stream).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().revision, 1);
        (batches, answers)
    });
    server.signal("-TERM");
    let status = threads.block_on(answers.message()).unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert_eq!(status.get_details_error_info().unwrap().reason, "NOT_READY");
    assert!(status.get_details_retry_info().is_some());
    drop(batches);
    let (code, log) = server.wait();
    assert_eq!(code, Some(0));
    assert!(!log.contains("cutting off"), "{log}");
}

/// Whoever listens where other machines connect is told what that means.
#[test]
fn an_open_address_is_warned_of() {
    const WARNING: &str = "may ask about every identity";
    const CLOSED: &str = "callers of other machines are refused";
    let log = |listen: &str, more: &[&str]| {
        let arguments = ["--demo", "--listen", listen, "--http", "none", "--insecure-plaintext"];
        Serving::start(&[&arguments[..], more].concat(), 1).stop("-TERM").1
    };
    let open = ["--insecure-open-decisions"];
    for (listen, more, warned, closed) in [
        ("0.0.0.0:0", &open[..], true, false),
        ("0.0.0.0:0", &[], false, true),
        ("127.0.0.1:0", &open, false, false),
        ("127.0.0.1:0", &[], false, false),
    ] {
        let log = log(listen, more);
        assert_eq!((log.contains(WARNING), log.contains(CLOSED)), (warned, closed), "{log}");
    }
}
