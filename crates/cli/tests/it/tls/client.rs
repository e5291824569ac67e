//! The command line and the client, and whom they trust.

use capstan_client::{Check, Client, ConnectError, Options, TlsOptions};
use capstan_server::limits::TLS_FILE_BYTES_MAX;
use capstan_testkit::https::Authority;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};

use super::{Files, set_mode};
use crate::common::{capstan, folder, stderr, stdout};

const QUESTION: [&str; 4] = ["check", "alice", "repo.list", "acme"];

/// The exit code and what is said of a check with these options.
fn check(options: &[&str]) -> (Option<i32>, String) {
    let output = capstan(&[&QUESTION[..], options].concat());
    (output.status.code(), stdout(&output) + &stderr(&output))
}

#[test]
fn the_command_line_asks_with_tls() {
    let files = Files::new("tls-command-line");
    let server = files.serve(&[]);
    let addr = format!("https://{}", server.address("grpc"));
    let ca = files.path("ca.pem");
    assert_eq!(check(&["--addr", &addr, "--ca", &ca]).0, Some(0));
    // An authority that nobody has told of, another one, and another name.
    let other = Authority::generate();
    files.write("other.pem", &other.pem());
    for options in [
        &["--addr", &addr][..],
        &["--addr", &addr, "--ca", &files.path("other.pem")],
        &["--addr", &addr, "--ca", &ca, "--server-name", "other.example"],
    ] {
        let (code, said) = check(options);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("is the certificate of another authority (--ca)"), "{said}");
    }
    assert_eq!(check(&["--addr", &addr, "--ca", &ca, "--server-name", "localhost"]).0, Some(0));
    // Nothing is sent in plain text instead, and no option of TLS is ignored.
    let plain = format!("http://{}", server.address("grpc"));
    let (code, said) = check(&["--addr", &plain, "--ca", &ca]);
    assert_eq!(code, Some(2));
    assert!(said.contains("has no TLS: options of TLS are for https://HOST:PORT"), "{said}");
    let (code, said) = check(&["--addr", &plain]);
    assert_eq!(code, Some(2));
    assert!(said.contains("speaks TLS: ask https://"), "{said}");
}

/// Options of a client that a command would not use are refused: a server that gets them is not one with TLS.
#[test]
fn options_of_clients_are_refused_elsewhere() {
    let files = Files::new("tls-elsewhere");
    let ca = files.path("ca.pem");
    for command in [
        &["serve", "--demo", "--listen", "127.0.0.1:0", "--http", "none"][..],
        &["check", "alice", "repo.list", "acme", "--policy", "none"],
        &["bench", "generate", "W"],
        &["store", "verify", "none"],
    ] {
        for option in [["--ca", &ca], ["--server-name", "x"]] {
            let output = capstan(&[command, &option].concat());
            assert_eq!(output.status.code(), Some(2), "{command:?}");
            let said = stderr(&output);
            assert!(
                said.contains("are for commands that ask a server") || said.contains("unexpected"),
                "{said}"
            );
        }
    }
    let serve = capstan(&["serve", "--demo", "--ca", &ca]);
    assert!(stderr(&serve).contains("a server has --tls-cert, --tls-key and --client-ca"));
}

#[test]
fn a_context_has_the_files() {
    let files = Files::new("tls-context");
    let server = files.serve(&[]);
    let addr = format!("https://{}", server.address("grpc"));
    let home = folder("tls-context-home");
    let run = |arguments: &[&str]| {
        let mut command = crate::common::command(arguments);
        command.env("XDG_CONFIG_HOME", &home).output().unwrap()
    };
    let added = run(&["context", "add", "far", "--addr", &addr, "--ca", &files.path("ca.pem")]);
    assert!(added.status.success(), "{}", stderr(&added));
    let asked = run(&[&QUESTION[..], &["--context", "far"]].concat());
    assert_eq!(asked.status.code(), Some(0), "{}", stderr(&asked));
    let shown = stdout(&run(&["context", "show", "--context", "far"]));
    assert!(shown.contains("ca.pem"), "{shown}");
    let json = stdout(&run(&["context", "show", "--context", "far", "--output", "json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["tls"]["ca"], files.path("ca.pem"));
}

#[test]
fn clients_must_have_a_certificate_of_the_authority() {
    let files = Files::new("tls-clients");
    let clients = Authority::generate();
    files.write("clients.pem", &clients.pem());
    files.certificate_of(&clients, "orders", &["orders.example"], false);
    files.certificate_of(&clients, "expired", &["orders.example"], true);
    files.certificate("foreign", &["orders.example"]);
    let server = files.serve(&["--client-ca", &files.path("clients.pem")]);
    let addr = format!("https://{}", server.address("grpc"));
    let with = |name: &str| {
        let (cert, key) = (files.path(&format!("{name}.pem")), files.path(&format!("{name}.key")));
        check(&["--addr", &addr, "--ca", &files.path("ca.pem"), "--cert", &cert, "--key", &key])
    };
    assert_eq!(with("orders").0, Some(0));
    for name in ["expired", "foreign"] {
        let (code, said) = with(name);
        assert_eq!(code, Some(2), "{name}: {said}");
    }
    let (code, said) = check(&["--addr", &addr, "--ca", &files.path("ca.pem")]);
    assert_eq!(code, Some(2), "{said}");
    let advice = ["a certificate of the client", "give --cert and --key"];
    assert!(advice.iter().all(|part| said.contains(part)), "{said}");
    // A certificate and a key that do not belong together, and half of both.
    let (cert, key) = (files.path("orders.pem"), files.path("foreign.key"));
    let ca = files.path("ca.pem");
    let pair = ["--addr", &addr, "--ca", &ca, "--cert", &cert, "--key", &key];
    assert_eq!(check(&pair).0, Some(2));
    assert!(check(&pair[..6]).1.contains("--cert needs --key"));
}

/// Of the authority, and still none that a client may have.
#[test]
fn odd_certificates_prove_nothing() {
    let files = Files::new("tls-odd");
    let write = |name: &str, (certificate, key): (rcgen::Certificate, KeyPair), chain: &str| {
        files.write(&format!("{name}.pem"), &(certificate.pem() + chain));
        files.write(&format!("{name}.key"), &key.serialize_pem());
    };
    let authority = &files.authority;
    let odd = |name: &str, change: fn(&mut CertificateParams)| {
        write(name, authority.odd(&["orders.example"], change), "");
    };
    odd("good", |of| of.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    odd("early", |of| of.not_before = date_time_ymd(2120, 1, 1));
    odd("server-only", |of| of.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    odd("authority", |of| of.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let mut chain = String::new();
    let mut last = authority.below();
    for depth in 1..=10 {
        chain.insert_str(0, &last.pem());
        write(&format!("depth-{depth}"), last.certificate(&["orders.example"], false), &chain);
        last = last.below();
    }
    let server = files.serve(&["--client-ca", &files.path("ca.pem")]);
    let addr = format!("https://{}", server.address("grpc"));
    let with = |name: &str| {
        let (cert, key) = (files.path(&format!("{name}.pem")), files.path(&format!("{name}.key")));
        check(&["--addr", &addr, "--ca", &files.path("ca.pem"), "--cert", &cert, "--key", &key])
    };
    for name in ["good", "depth-1", "depth-2"] {
        let (code, said) = with(name);
        assert_eq!(code, Some(0), "{name}: {said}");
    }
    for name in ["early", "server-only", "authority", "depth-10"] {
        let (code, said) = with(name);
        assert_eq!(code, Some(2), "{name}: {said}");
    }
    // A private key that everybody may read is none.
    set_mode(&files.folder.join("good.key"), 0o644);
    let (code, said) = with("good");
    assert!(code == Some(2) && said.contains("everybody may read the private key"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_asks_with_tls() {
    let files = Files::new("tls-client");
    let server = files.serve(&["--client-ca", &files.path("ca.pem")]);
    files.certificate("orders", &["orders.example"]);
    let read = |name: &str| std::fs::read(files.path(name)).unwrap();
    let addr = format!("https://{}", server.address("grpc"));
    let tls = TlsOptions {
        authorities: Some(read("ca.pem")),
        identity: Some((read("orders.pem"), read("orders.key"))),
        server_name: None,
    };
    assert!(!format!("{tls:?}").contains("BEGIN"), "{tls:?}");
    let client = Client::connect_tls(&addr, Options::default(), &tls).unwrap();
    let check = Check::new("alice", "repo.list", "acme");
    assert!(client.check(check).await.unwrap().allowed);
    let plain = addr.replace("https", "http");
    let refused = Client::connect_tls(&plain, Options::default(), &tls);
    assert!(matches!(refused, Err(ConnectError::NoTls(_))));
    let nobody = Client::connect(&addr).unwrap();
    assert!(nobody.check(check).await.is_err());
}

#[test]
fn wrong_files_are_refused_at_the_start() {
    let files = Files::new("tls-wrong");
    files.certificate("other", &["localhost"]);
    let serve = |cert: &str, key: &str, more: &[&str]| {
        let (cert, key) = (files.path(cert), files.path(key));
        let tls = ["serve", "--demo", "--http", "none", "--tls-cert", &cert, "--tls-key", &key];
        let output = capstan(&[&tls[..], &["--listen", "127.0.0.1:0"], more].concat());
        assert_eq!(output.status.code(), Some(2));
        stderr(&output)
    };
    set_mode(&files.folder.join("other.key"), 0o644);
    files.write("empty.pem", "");
    files.write("broken.pem", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    for (cert, key, more, wanted) in [
        ("none.pem", "server.key", &[][..], "none.pem: No such file"),
        ("server.pem", "none.key", &[], "none.key: No such file"),
        ("empty.pem", "server.key", &[], "empty.pem: no certificate in PEM"),
        ("broken.pem", "server.key", &[], "broken.pem: "),
        ("server.pem", "server.pem", &[], "server.pem: no private key in PEM"),
        ("other.pem", "other.key", &[], "everybody may read the private key (mode 644)"),
        ("other.pem", "server.key", &[], "server.key: "),
        ("server.pem", "server.key", &["--client-ca", "none"], "none: No such file"),
        ("server.pem", "server.key", &["--insecure-plaintext"], "cannot be used with"),
        (
            "server.pem",
            "server.key",
            &["--client-ca", &files.path("ca.pem"), "--insecure-trust-caller-header"],
            "--client-ca proves who calls",
        ),
    ] {
        let said = serve(cert, key, more);
        assert!(said.contains(wanted), "{cert} {key}: {said}");
    }
    files.write("long.pem", &"x".repeat(usize::try_from(TLS_FILE_BYTES_MAX).unwrap() + 1));
    let said = serve("long.pem", "server.key", &[]);
    assert!(said.contains(&format!("longer than {TLS_FILE_BYTES_MAX} bytes")), "{said}");
}
