//! `--addr`: what is no address of a server, and what another protocol answers.

use std::io::Read as _;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::command_limits::PROBE_TIME_MAX;
use crate::common::{Serving, capstan, folder, stderr};

fn error(addr: &str) -> String {
    let output = capstan(&["check", "alice", "repo.list", "acme", "--addr", addr]);
    assert_eq!(output.status.code(), Some(2), "{addr}");
    stderr(&output)
}

#[test]
fn other_schemes_are_refused_with_what_to_give() {
    for addr in ["ftp://127.0.0.1:4480", "grpc://127.0.0.1:4480", "h2c://127.0.0.1:4480"] {
        let text = error(addr);
        assert!(
            text.contains(
                "is not supported. Give http://HOST:PORT, https://HOST:PORT or unix:PATH"
            ),
            "{text}"
        );
    }
}

#[test]
fn an_unreachable_server_has_one_cause() {
    let folder = folder("address-sockets");
    let left = folder.join("left.sock");
    drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
    let unix = |path: &std::path::Path| format!("unix:{}", path.display());
    let long = unix(&folder.join("long".repeat(30)));
    for (addr, advice, cause) in [
        ("http://127.0.0.1:1", "start a server: capstan serve --demo", "Connection refused"),
        ("unix:/no/such/socket", "no socket is there: a server makes DIR/operator.sock", "No such"),
        (&unix(&left), "no server listens there: start it", "Connection refused"),
        (&long, "the system takes no path of ", "path must be shorter than SUN_LEN"),
    ] {
        let text = error(addr);
        let start = format!("error: cannot reach {addr} ({advice}");
        assert!(text.starts_with(&start), "{text}");
        assert!(text.contains(&format!("): {cause}")), "{text}");
        assert!(text.matches("os error").count() <= 1, "{text}");
    }
}

#[test]
fn the_scheme_may_be_in_upper_case() {
    let server = Serving::start(&["--demo", "--listen", "127.0.0.1:0", "--http", "none"], 1);
    let addr = format!("HTTP://{}", server.address("grpc"));
    let output = capstan(&["check", "alice", "repo.list", "acme", "--addr", &addr]);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn the_http_address_of_a_server_is_recognized() {
    let server = Serving::start(&["--demo", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"], 2);
    let http = format!("http://{}", server.address("http"));
    let asked: [&[&str]; 4] = [
        &["check", "alice", "repo.list", "acme"],
        &["explain", "alice", "repo.list", "acme"],
        &["who", "repo.list", "acme"],
        &["roles", "list"],
    ];
    for question in asked {
        let output = capstan(&[question, &["--addr", &http]].concat());
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2));
        assert!(text.contains(&format!("{http} answers HTTP/1.1 and not gRPC")), "{text}");
        assert!(text.contains("--addr takes the gRPC address"), "{text}");
    }
    let json = capstan(&["roles", "list", "--addr", &http, "--output", "json"]);
    assert!(crate::common::stdout(&json).contains("answers HTTP/1.1"));
}

/// A server that speaks neither protocol gets an ordinary error, and after [`PROBE_TIME_MAX`] at the latest.
#[test]
fn a_silent_server_delays_the_error_by_the_time_of_one_probe() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut first = [0; 3];
            // HTTP/2 begins with `PRI`: the call fails at once, and the probe waits.
            if stream.read_exact(&mut first).is_ok() && first != *b"PRI" {
                kept.push(stream);
            }
        }
    });
    let start = Instant::now();
    let text = error(&addr);
    let took = start.elapsed();
    assert!(!text.contains("HTTP/1.1"), "{text}");
    assert!(took >= PROBE_TIME_MAX, "the probe waited {took:?}");
    assert!(took < PROBE_TIME_MAX + Duration::from_secs(10), "{took:?}");
}
