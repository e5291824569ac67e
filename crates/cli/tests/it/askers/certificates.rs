//! Callers by their client certificates, and servers with TLS for other clients.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use capstan_policy::Asks;
use capstan_testkit::https::Authority;
use rcgen::{DnType, SanType};

use super::{Files, NGINX, secret};
use crate::common::{Serving, capstan, stderr, stdout};

/// A server with TLS that names its callers, and the files of its clients.
pub(super) struct Secure {
    pub(super) files: Files,
    server: Serving,
}

impl Secure {
    /// `acme/all` has a secret, and two workloads have certificates, of whom one is named. Two hosts are named, and have certificates in
    /// several ways.
    pub(super) fn start(name: &str, wants_certificates: bool) -> Self {
        let mut files = Files::new(name);
        files.add("all", &Asks::ALL, None);
        files.write();
        let ci = "  - {name: ci, spiffe_id: 'spiffe://acme.example/ci', subtree: acme/images, methods: [check]}\n";
        let hosts = "  - {name: web, dns_name: web.acme.example, methods: [check]}\n  - {name: shop, dns_name: \
                     shop.acme.example, methods: [check]}\n";
        files.write_callers(&(files.callers.concat() + ci + hosts));
        let authority = Authority::generate();
        let (server, key) = authority.certificate(&["localhost", "127.0.0.1"], false);
        let mut all = vec![
            ("ca.pem".to_owned(), authority.pem()),
            ("server.pem".into(), server.pem()),
            ("server.key".into(), key.serialize_pem()),
            ("token".into(), secret("acme/all")),
        ];
        for name in ["ci", "other"] {
            let (certificate, key) =
                authority.workload(&[&format!("spiffe://acme.example/{name}")]);
            all.push((format!("{name}.pem"), certificate.pem()));
            all.push((format!("{name}.key"), key.serialize_pem()));
        }
        for (name, names) in hosts_and_workloads() {
            let (certificate, key) = authority.odd(&[], |params| {
                params.subject_alt_names = names;
                params.distinguished_name.push(DnType::CommonName, "web.acme.example");
            });
            all.push((format!("{name}.pem"), certificate.pem()));
            all.push((format!("{name}.key"), key.serialize_pem()));
        }
        for (name, text) in all {
            std::fs::write(files.path(&name), text).unwrap();
            let mode = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(files.path(&name), mode).unwrap();
        }
        let path = |name: &str| files.path(name).display().to_string();
        let mut arguments =
            vec!["--listen".into(), "127.0.0.1:0".into(), "--http".into(), "none".into()];
        for (option, name) in [
            ("--policy", "policy.yaml"),
            ("--callers", "callers.yaml"),
            ("--tls-cert", "server.pem"),
            ("--tls-key", "server.key"),
        ] {
            arguments.extend([option.to_owned(), path(name)]);
        }
        if wants_certificates {
            arguments.extend(["--client-ca".to_owned(), path("ca.pem")]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let server = Serving::start(&arguments, 1);
        Self { files, server }
    }

    pub(super) fn addr(&self) -> String {
        format!("https://{}", self.server.address("grpc"))
    }

    /// What a command is told that shows the certificate of a client.
    fn ask(&self, client: &str, command: &[&str]) -> Output {
        let path = |name: &str| self.files.path(name).display().to_string();
        let (ca, cert, key) =
            (path("ca.pem"), path(&format!("{client}.pem")), path(&format!("{client}.key")));
        let tls = ["--addr", &self.addr(), "--ca", &ca, "--cert", &cert, "--key", &key];
        capstan(&[command, &tls].concat())
    }
}

/// Certificates with DNS names, all with a common name that a caller has as its DNS name.
fn hosts_and_workloads() -> Vec<(&'static str, Vec<SanType>)> {
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let uri = |name: &str| SanType::URI(name.try_into().unwrap());
    let (web, shop) = (|| dns("web.acme.example"), || dns("shop.acme.example"));
    vec![
        ("web", vec![web()]),
        ("web-and-more", vec![dns("a.acme.example"), dns("WEB.acme.example")]),
        ("both", vec![web(), shop()]),
        ("both-turned", vec![shop(), dns("a.acme.example"), web()]),
        ("elsewhere", vec![dns("other.acme.example")]),
        ("wildcard", vec![dns("*.acme.example")]),
        ("common", vec![]),
        ("workload", vec![web(), uri("spiffe://acme.example/web")]),
        (
            "two-workloads",
            vec![web(), uri("spiffe://acme.example/a"), uri("spiffe://acme.example/b")],
        ),
        ("ci-of-web", vec![web(), uri("spiffe://acme.example/ci")]),
    ]
}

/// Clients with certificates: named ones use the fast way, too.
#[test]
fn a_certificate_names_a_caller() {
    let secure = Secure::start("askers-certificates", true);
    let ask = |client: &str, command: &[&str]| secure.ask(client, command);
    let check = |resource: &'static str| ["check", "acme/reader", "repo.list", resource];
    let allowed = ask("ci", &check(NGINX));
    assert_eq!(allowed.status.code(), Some(0), "{}", stderr(&allowed));
    assert!(stdout(&allowed).contains("GRANTED"), "{}", stdout(&allowed));
    for (client, command, reason) in [
        ("ci", &check("acme/other")[..], "may ask about acme/images and"),
        ("ci", &["capabilities", "acme/reader", NGINX], "ListCapabilities is not among"),
        ("ci", &["who", "repo.list", NGINX], "ListIdentities is not among"),
        ("other", &check(NGINX), "the caller is not authenticated"),
    ] {
        let refused = ask(client, command);
        assert_eq!(refused.status.code(), Some(2), "{client} {command:?}: {}", stdout(&refused));
        let said = stderr(&refused);
        assert!(said.contains(reason), "{client} {command:?}: {said}");
    }
}

#[test]
fn a_dns_name_names_a_caller() {
    let secure = Secure::start("askers-dns-names", true);
    let check = ["check", "acme/reader", "repo.list", NGINX];
    for client in ["web", "web-and-more", "ci-of-web"] {
        let allowed = secure.ask(client, &check);
        assert_eq!(allowed.status.code(), Some(0), "{client}: {}", stderr(&allowed));
    }
    // A SPIFFE ID is the only name: that caller may ask about its subtree, and `web` about everything.
    let elsewhere = ["check", "acme/reader", "repo.list", "acme/other"];
    let asked = secure.ask("web", &elsewhere);
    assert_eq!(asked.status.code(), Some(0), "{}", stderr(&asked));
    let refused = stderr(&secure.ask("ci-of-web", &elsewhere));
    assert!(refused.contains("may ask about acme/images and"), "{refused}");
    for client in
        ["both", "both-turned", "elsewhere", "wildcard", "common", "workload", "two-workloads"]
    {
        let refused = secure.ask(client, &check);
        assert_eq!(refused.status.code(), Some(2), "{client}: {}", stdout(&refused));
        let said = stderr(&refused);
        assert!(said.contains("the caller is not authenticated"), "{client}: {said}");
    }
    let log = secure.server.stop("-TERM").1;
    assert!(log.contains("a certificate with the DNS names of several callers"), "{log}");
}

/// Who can never prove who they are is told to the operator.
#[test]
fn callers_that_cannot_prove_themselves_are_warned_of() {
    let warned = |name: &str, wants_certificates| {
        let secure = Secure::start(name, wants_certificates);
        let log = secure.server.stop("-TERM").1;
        let lines = log.lines().filter(|line| line.contains("cannot prove who it is"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let lines = warned("askers-unproved", false);
    assert_eq!(lines.len(), 3, "{lines:?}");
    for (line, caller) in lines.iter().zip(["ci", "web", "shop"]) {
        let caller = format!(r#""caller":"{caller}""#);
        assert!(line.contains(&caller) && line.contains("--client-ca"), "{line}");
    }
    // A unix socket would have tokens, since this machine is named, too.
    assert_eq!(warned("askers-unproved-mutual", true), [""; 0]);
}
