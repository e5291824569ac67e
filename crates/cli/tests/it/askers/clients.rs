//! Clients that say who they are: the command line, and the clients for Rust, Python and Node.js.

use std::path::Path;
use std::process::Command;

use capstan_client::{Check, Client, Credential, Error, Options, TlsOptions};
use capstan_policy::Asks;

use super::certificates::Secure;
use super::{Files, NGINX, secret};
use crate::common::{PATIENCE, capstan, stderr, stdout};

/// Commands that ask for decisions take the token of a file.
#[tokio::test]
async fn commands_show_a_token() {
    let mut files = Files::new("askers-commands");
    files.add("all", &Asks::ALL, None);
    files.add("checks", &[Asks::Check], None);
    let server = files.serve().await;
    let addr = format!("http://{}", server.grpc);
    for name in ["all", "checks"] {
        std::fs::write(files.path(name), secret(&format!("acme/{name}"))).unwrap();
    }
    let ask = |name: &str, command: &[&str]| {
        let file = files.path(name).display().to_string();
        let (command, addr) = (command.iter().map(|it| (*it).to_owned()), addr.clone());
        let mut arguments: Vec<String> = command.collect();
        arguments.extend(["--addr".into(), addr]);
        if !name.is_empty() {
            arguments.extend(["--token-file".into(), file]);
        }
        async move {
            let run = move || capstan(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
            tokio::task::spawn_blocking(run).await.unwrap()
        }
    };
    let check = ["check", "acme/reader", "repo.list", NGINX];
    let named = [&check[..], &["--as", "acme/all"]].concat();
    assert_eq!(ask("all", &named).await.status.code(), Some(0));
    let alone = stderr(&ask("", &named).await);
    assert!(alone.contains("a name alone proves nobody: give --token-file"), "{alone}");
    for (name, command, code) in [
        ("all", &check[..], 0),
        ("checks", &check, 0),
        ("", &check, 2),
        ("all", &["capabilities", "acme/reader", NGINX], 0),
        ("checks", &["capabilities", "acme/reader", NGINX], 2),
        ("all", &["explain", "acme/reader", "repo.list", "other/app"], 0),
        ("all", &["who", "repo.list", NGINX], 0),
        ("all", &["where", "acme/reader", "repo.list"], 0),
        ("checks", &["where", "acme/reader", "repo.list"], 2),
        ("all", &["roles", "list"], 0),
        ("checks", &["roles", "list"], 1),
        ("all", &["iam", "groups", "list"], 0),
        ("", &["iam", "groups", "list"], 2),
    ] {
        let output = ask(name, command).await;
        let said = (stdout(&output), stderr(&output));
        assert_eq!(output.status.code(), Some(code), "{name} {command:?}: {said:?}");
        if said.0.is_empty() {
            let asks_who = said.1.contains("not authenticated") && said.1.contains("--token-file");
            let is_told = said.1.contains("is not among") || asks_who;
            assert!(is_told, "{name} {command:?}: {}", said.1);
        }
    }
}

/// The load generator shows a token, too, by its own frames and through the client; over TLS alone, unless the server is on this machine.
#[test]
fn the_load_generator_shows_a_token() {
    let secure = Secure::start("askers-bench", false);
    let path = |name: &str| secure.files.path(name).display().to_string();
    let (policy, token, ca) = (path("policy.yaml"), path("token"), path("ca.pem"));
    let bench = |addr: &str, more: &[&str]| {
        let fixed = ["bench", "--policy", &policy, "--questions", "100", "--output", "json"];
        let short = ["--warm-up", "0.1", "--duration", "0.2", "--addr", addr];
        capstan(&[&fixed[..], &short, more].concat())
    };
    for mode in ["check", "coalesced"] {
        let asked = ["--ca", &ca, "--mode", mode];
        let named = ["--token-file", &token, "--as", "acme/all"];
        let measured = bench(&secure.addr(), &[&asked[..], &named].concat());
        assert_eq!(measured.status.code(), Some(0), "{mode}: {}", stderr(&measured));
        let report: serde_json::Value = serde_json::from_slice(&measured.stdout).unwrap();
        assert_eq!(report["errors"], serde_json::json!({}), "{report}");
        let refused = bench(&secure.addr(), &asked);
        let said = stdout(&refused);
        assert!(said.contains("UNAUTHENTICATED"), "{mode}: {said} {}", stderr(&refused));
    }
    let told = bench("http://192.0.2.1:4480", &["--token-file", &token]);
    let said = stdout(&told) + &stderr(&told);
    assert!(said.contains("everybody on the way would see the token"), "{said}");
}

/// The token of a file proves the client, by its stream and by its unary calls; without it, and with another, checks are refused.
#[tokio::test]
async fn the_rust_client_shows_a_token() {
    let mut files = Files::new("askers-client");
    files.add("all", &[Asks::Check], None);
    let server = files.serve().await;
    let (addr, file) = (server.grpc.to_string(), files.path("token"));
    let connect = || {
        let (options, tls) = (Options::default(), TlsOptions::default());
        Client::connect_as(&addr, options, &tls, Credential::file(&file)).unwrap()
    };
    let check = || Check::new("acme/reader", "repo.list", NGINX).timeout(PATIENCE);
    std::fs::write(&file, secret("acme/all")).unwrap();
    let client = connect();
    assert!(client.check(check()).await.unwrap().allowed);
    // A revision that may have to be waited for is asked by a unary call.
    let revision = client.revision();
    assert!(revision > 0);
    assert!(client.check(check().at_least(revision)).await.unwrap().allowed);

    let named = |identity: &str| {
        let (options, tls) = (Options::default(), TlsOptions::default());
        Client::connect_as(&addr, options, &tls, Credential::file(&file).of(identity)).unwrap()
    };
    assert!(named("acme/all").check(check()).await.unwrap().allowed);
    let Err(Error::Refused(refusal)) = named("acme/reader").check(check()).await else { panic!() };
    assert_eq!(refusal.reason, "AUTHN_FAILED");

    std::fs::write(&file, "another").unwrap();
    let Err(Error::Refused(refusal)) = connect().check(check()).await else { panic!() };
    assert_eq!(refusal.reason, "AUTHN_FAILED");
    let plain = Client::connect(&addr).unwrap();
    let Err(Error::Refused(refusal)) = plain.check(check()).await else { panic!() };
    assert_eq!(refusal.reason, "AUTHN_FAILED");

    // A file that is not there yet is waited for until the deadline.
    std::fs::remove_file(&file).unwrap();
    let short = check().timeout(std::time::Duration::from_millis(300));
    let Err(Error::DeadlineExceeded(Some(last))) = connect().check(short).await else { panic!() };
    assert!(last.contains("token: "), "{last}");
    let late = connect();
    let waiting = late.check(check());
    let written = async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        std::fs::write(&file, secret("acme/all")).unwrap();
    };
    assert!(tokio::join!(waiting, written).0.unwrap().allowed);
}

/// The client of a language, with TLS, a certificate or a token. A server that wants certificates takes no tokens.
fn asks_with(name: &str, command: &mut Command) {
    let secure = Secure::start(&format!("askers-{name}"), false);
    let with_certificates = Secure::start(&format!("askers-{name}-mutual"), true);
    for (secure, certificates) in [(&secure, false), (&with_certificates, true)] {
        let folder = secure.files.path("");
        let mut command = clone(command);
        let output = command.arg(secure.addr()).arg(folder).arg(certificates.to_string());
        let output = output.output().unwrap();
        let (text, errors) = (stdout(&output), stderr(&output));
        assert!(output.status.success(), "{certificates}: {text}\n{errors}");
        let answers = if certificates { "5 answers" } else { "14 answers" };
        assert!(text.contains(answers), "{text}");
    }
}

fn clone(command: &Command) -> Command {
    let mut other = Command::new(command.get_program());
    other.args(command.get_args());
    other
}

#[test]
fn the_python_client_says_who_it_is() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut python = Command::new(workspace.join("target/python/bin/python"));
    asks_with("python", python.arg(workspace.join("crates/cli/tests/python/secure.py")));
}

#[test]
fn the_node_client_says_who_it_is() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut node = Command::new(workspace.join("target/webhook/node/node"));
    node.arg(workspace.join("crates/cli/tests/node/secure.js"));
    node.arg(workspace.join("target/node").canonicalize().unwrap());
    asks_with("node", &mut node);
}
