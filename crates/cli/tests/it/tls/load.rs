//! `capstan top` and `capstan bench` at addresses with TLS: whom they trust, what they show, and what they never ask in plain text.

use std::net::TcpListener;
use std::process::Output;

use capstan_testkit::https::Authority;
use serde_json::Value;

use super::Files;
use crate::common::{Serving, capstan, folder, stderr, stdout};

const MODES: [&str; 4] = ["check", "batch", "stream", "coalesced"];

/// Files of a server and of two clients, of whom the server knows one; and one whose authority nobody knows.
fn files(name: &str) -> Files {
    let files = Files::new(name);
    let other = Authority::generate();
    files.write("other.pem", &other.pem());
    files.certificate("orders", &["orders.example"]);
    files.certificate_of(&other, "foreign", &["orders.example"], false);
    files
}

/// A server whose HTTP address is of other machines, too: it has TLS alone. And that address, as this machine sees it.
fn serve_http(files: &Files, more: &[&str]) -> (Serving, String) {
    let (cert, key) = (files.path("server.pem"), files.path("server.key"));
    let fixed = ["--demo", "--listen", "127.0.0.1:0", "--http", "0.0.0.0:0", "--tls-cert", &cert];
    let server = Serving::start(&[&fixed[..], &["--tls-key", &key], more].concat(), 18);
    let http = server.address("http");
    let (_, port) = http.rsplit_once(':').unwrap();
    (server, format!("127.0.0.1:{port}"))
}

fn bench(address: &str, options: &[&str]) -> Output {
    let fixed = ["bench", "--policy", "deploy/quickstart/policy.yaml", "--questions", "500"];
    let short = ["--warm-up", "0.1", "--duration", "0.3", "--output", "json"];
    let load = ["--connections", "2", "--in-flight", "3", "--verify", "--addr", address];
    capstan(&[&fixed[..], &short, &load, options].concat())
}

fn top(address: &str, options: &[&str]) -> Output {
    capstan(&[&["top", "--once", "--metrics", address], options].concat())
}

/// The error of a command that must fail.
fn error(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{}", stdout(output));
    stdout(output) + &stderr(output)
}

#[test]
fn every_mode_of_bench_measures_with_tls() {
    let files = files("tls-bench");
    let server = files.serve(&[]);
    let addr = format!("https://{}", server.address("grpc"));
    let ca = files.path("ca.pem");
    for mode in MODES {
        let output = bench(&addr, &["--ca", &ca, "--mode", mode]);
        assert_eq!(output.status.code(), Some(0), "{mode}: {}", stderr(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&report["target"], &report["wrong"]), (&addr.clone().into(), &0.into()));
        assert_eq!(report["errors"], serde_json::json!({}), "{report}");
        assert!(report["allowed"].as_u64().unwrap() > 0, "{report}");
    }
    for (options, wanted) in [
        (&["--ca", &files.path("other.pem")][..], "is the certificate of another authority (--ca)"),
        (&["--ca", &ca, "--server-name", "other.example"], "for another name (--server-name)"),
        (&["--ca", &ca, "--against", "do-nothing"], "the yardstick has no TLS"),
        (&["--ca", &ca, "--as", "acme/ci"], "a name alone proves nobody: give --token-file"),
    ] {
        let said = error(&bench(&addr, options));
        assert!(said.contains(wanted), "{options:?}: {said}");
    }
    assert_eq!(bench(&addr, &["--ca", &ca, "--server-name", "localhost"]).status.code(), Some(0));
}

#[test]
fn top_reads_metrics_with_tls() {
    let files = files("tls-top");
    let server = files.serve(&[]);
    let url = format!("https://{}", server.address("http"));
    let ca = files.path("ca.pem");
    let shown = top(&url, &["--ca", &ca]);
    assert!(stdout(&shown).starts_with(&format!("capstan top  {url}  since it started")));
    let exact = format!("{url}/metrics");
    assert!(top(&exact, &["--ca", &ca]).status.success());
    for options in
        [&["--ca", &files.path("other.pem")][..], &["--ca", &ca, "--server-name", "other.example"]]
    {
        let said = error(&top(&url, options));
        let wanted = "is the certificate of another authority (--ca) or for another name";
        assert!(said.contains(wanted) && said.contains("invalid peer certificate"), "{said}");
    }
    let said = error(&top(&url, &["--ca", "none.pem"]));
    assert!(said.contains("none.pem"), "{said}");
}

/// The server wants certificates: a client without one, or with that of a stranger, is told what is missing.
#[test]
fn both_show_a_certificate() {
    let files = files("tls-load-clients");
    let ca = files.path("ca.pem");
    let (server, http) = serve_http(&files, &["--client-ca", &ca]);
    let (grpc, http) = (format!("https://{}", server.address("grpc")), format!("https://{http}"));
    let pair = |name: &str| {
        ["--cert".into(), files.path(&format!("{name}.pem")), "--key".into()]
            .into_iter()
            .chain([files.path(&format!("{name}.key")), "--ca".into(), ca.clone()])
            .collect::<Vec<String>>()
    };
    let orders = pair("orders");
    let orders: Vec<&str> = orders.iter().map(String::as_str).collect();
    for mode in ["stream", "coalesced"] {
        let output = bench(&grpc, &[&orders[..], &["--mode", mode]].concat());
        assert_eq!(output.status.code(), Some(0), "{mode}: {}", stderr(&output));
    }
    assert!(top(&http, &orders).status.success());
    let foreign = pair("foreign");
    let foreign: Vec<&str> = foreign.iter().map(String::as_str).collect();
    for shown in [&["--ca", &ca][..], &foreign] {
        for said in [
            error(&bench(&grpc, shown)),
            error(&bench(&grpc, &[shown, &["--mode", "coalesced"]].concat())),
            error(&top(&http, shown)),
        ] {
            assert!(said.contains("give --cert and --key"), "{said}");
        }
    }
    assert!(error(&top(&http, &orders[..2])).contains("--cert needs --key"));
}

/// What is not asked with TLS takes no option of it, and an address with TLS is not asked without.
#[test]
fn nothing_is_asked_in_plain_text_instead() {
    let files = files("tls-load-plain");
    let ca = files.path("ca.pem");
    let (_server, http) = serve_http(&files, &[]);
    let said = error(&top(&format!("http://{http}"), &[]));
    assert!(said.contains("does it speak TLS? ask https://HOST:PORT"), "{said}");
    let plain = Serving::start(&["--demo", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"], 18);
    for (output, wanted) in [
        (bench(&format!("http://{}", plain.address("grpc")), &["--ca", &ca]), "has no TLS"),
        (top(&format!("http://{}", plain.address("http")), &["--ca", &ca]), "has no TLS"),
        (capstan(&["bench", "--ca", &ca]), "give --addr"),
        (capstan(&["bench", "--token-file", "none"]), "give --addr"),
        (capstan(&["bench", "generate", "W", "--ca", &ca]), "are for commands that ask a server"),
        (bench(&format!("https://{}", plain.address("grpc")), &["--ca", &ca]), "does it speak TLS"),
        (top(&format!("https://{}", plain.address("http")), &["--ca", &ca]), "does it speak TLS"),
        (top("ftp://127.0.0.1:1", &[]), "is no address of metrics"),
        (bench("ftp://127.0.0.1:1", &[]), "the scheme `ftp` is not supported"),
    ] {
        let said = error(&output);
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    // The first bytes that a listener gets are those of TLS.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let firsts = std::thread::spawn(move || {
        [(); 2].map(|()| {
            let mut first = [0];
            std::io::Read::read_exact(&mut listener.accept().unwrap().0, &mut first).unwrap();
            first[0]
        })
    });
    assert!(!top(&address, &["--ca", &ca]).status.success());
    assert!(!bench(&address, &["--ca", &ca]).status.success());
    assert_eq!(firsts.join().unwrap(), [22; 2], "no handshake");
}

/// A context that is named gives `bench` its address, and both its files.
#[test]
fn a_context_has_the_files_of_both() {
    let files = files("tls-load-context");
    let server = files.serve(&[]);
    let grpc = format!("https://{}", server.address("grpc"));
    let http = format!("https://{}", server.address("http"));
    let home = folder("tls-load-context-home");
    let run = |arguments: &[&str]| {
        let mut command = crate::common::command(arguments);
        command.env("XDG_CONFIG_HOME", &home).output().unwrap()
    };
    let ca = files.path("ca.pem");
    assert!(run(&["context", "add", "far", "--addr", &grpc, "--ca", &ca]).status.success());
    let short = ["--warm-up", "0.1", "--duration", "0.2", "--questions", "100"];
    let policy = ["bench", "--policy", "deploy/quickstart/policy.yaml", "--context", "far"];
    let measured = run(&[&policy[..], &short].concat());
    assert_eq!(measured.status.code(), Some(0), "{}", stderr(&measured));
    let read = run(&["top", "--once", "--metrics", &http, "--context", "far"]);
    assert!(read.status.success(), "{}", stderr(&read));
    assert_eq!(run(&["top", "--once", "--metrics", &http]).status.code(), Some(2));
}
