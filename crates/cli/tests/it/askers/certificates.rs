//! Callers by their client certificates, and servers with TLS for other clients.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;
use std::sync::Arc;

use capstan_policy::Asks;
use capstan_testkit::https::Authority;
use rcgen::{DnType, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use super::{Files, NGINX, secret};
use crate::common::{PATIENCE, Serving, capstan, stderr, stdout};

/// A server with TLS that names its callers, and the files of its clients.
pub(super) struct Secure {
    pub(super) files: Files,
    server: Serving,
}

impl Secure {
    /// `acme/all` has a secret. Of workloads with certificates two are named, of whom one may search, and one is of another authority. Two
    /// hosts are named, and have certificates in several ways.
    pub(super) fn start(name: &str, wants_certificates: bool) -> Self {
        let mut files = Files::new(name);
        files.add("all", &Asks::ALL, None);
        files.write();
        let named = ["ci", "finder"].map(|name| {
            let methods = if name == "ci" { "check" } else { "check, search" };
            format!(
                "  - {{name: {name}, spiffe_id: 'spiffe://acme.example/{name}', subtree: acme/images, methods: [{methods}]}}\n"
            )
        });
        let hosts = "  - {name: web, dns_name: web.acme.example, methods: [check]}\n  - {name: shop, dns_name: \
                     shop.acme.example, methods: [check]}\n";
        files.write_callers(&(files.callers.concat() + &named.concat() + hosts));
        let authority = Authority::generate();
        let (server, key) = authority.certificate(&["localhost", "127.0.0.1"], false);
        let mut all = vec![
            ("ca.pem".to_owned(), authority.pem()),
            ("server.pem".into(), server.pem()),
            ("server.key".into(), key.serialize_pem()),
            ("token".into(), secret("acme/all")),
        ];
        let stranger = Authority::generate();
        for name in ["ci", "finder", "other", "foreign"] {
            let (of, id) = if name == "foreign" { (&stranger, "ci") } else { (&authority, name) };
            let (certificate, key) = of.workload(&[&format!("spiffe://acme.example/{id}")]);
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
            vec!["--listen".into(), "127.0.0.1:0".into(), "--http".into(), "127.0.0.1:0".into()];
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
        let server = Serving::start(&arguments, 2);
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
    assert_eq!(lines.len(), 4, "{lines:?}");
    for (line, caller) in lines.iter().zip(["ci", "finder", "web", "shop"]) {
        let caller = format!(r#""caller":"{caller}""#);
        assert!(line.contains(&caller) && line.contains("--client-ca"), "{line}");
    }
    // A unix socket would have tokens, since this machine is named, too.
    assert_eq!(warned("askers-unproved-mutual", true), [""; 0]);
}

impl Secure {
    /// Status and body of a request of AuthZEN, whose client shows this certificate. An error if there is no answer.
    fn post(&self, client: Option<&str>, path: &str, body: &str) -> std::io::Result<(u16, Value)> {
        let read = |name: &str| std::fs::read(self.files.path(name)).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&read("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            None => config.with_no_client_auth(),
            Some(name) => {
                let (pem, key) = (read(&format!("{name}.pem")), read(&format!("{name}.key")));
                let chain = vec![CertificateDer::from_pem_slice(&pem).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(&key).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect(self.server.address("http")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = StreamOwned::new(session, socket);
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
        let head = format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n");
        stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok((status, serde_json::from_str(body).unwrap_or_default()))
    }
}

/// Over HTTPS the certificate names the same caller, of AuthZEN's requests.
#[test]
fn a_certificate_names_a_caller_of_authzen() {
    let secure = Secure::start("askers-certificates-authzen", true);
    let subject = r#""subject": {"type": "user", "id": "acme/reader"}, "action": {"name": "list"}"#;
    let resource = |id: &str| format!(r#""resource": {{"type": "repo", "id": "{id}"}}"#);
    let ask = |client, path: &str, body: &str| {
        secure.post(client, &format!("/access/v1/{path}"), &format!("{{{body}}}"))
    };
    let evaluate =
        |client, id: &str| ask(client, "evaluation", &format!("{subject}, {}", resource(id)));
    for client in ["ci", "finder"] {
        let (status, found) = evaluate(Some(client), NGINX).unwrap();
        assert_eq!((status, &found["decision"]), (200, &true.into()), "{client}: {found}");
        let (status, found) = evaluate(Some(client), "acme/images/absent").unwrap();
        assert_eq!((status, &found["decision"]), (200, &false.into()), "{client}: {found}");
        for outside in ["acme/other", "other/app", "acme", "acme/images-2/nginx"] {
            let (status, found) = evaluate(Some(client), outside).unwrap();
            assert_eq!(status, 403, "{client} {outside}: {found}");
            assert!(found["decision"].is_null(), "{client} {outside}: {found}");
        }
        // Each of several is judged alone.
        let both = format!("{{{}}}, {{{}}}", resource("acme/other"), resource(NGINX));
        let several = format!(r#"{subject}, "evaluations": [{both}]"#);
        let (status, found) = ask(Some(client), "evaluations", &several).unwrap();
        assert_eq!(status, 200, "{client}: {found}");
        let found = &found["evaluations"];
        assert_eq!(found[0]["context"]["error"]["status"], 403, "{client}: {found}");
        assert_eq!(found[1]["decision"], true, "{client}: {found}");
    }
    let searches = [
        (
            "search/subject",
            format!(
                r#""subject": {{"type": "user"}}, "action": {{"name": "list"}}, {}"#,
                resource(NGINX)
            ),
            1,
        ),
        ("search/resource", format!(r#"{subject}, "resource": {{"type": "repo"}}"#), 2),
        (
            "search/action",
            format!(r#""subject": {{"type": "user", "id": "acme/reader"}}, {}"#, resource(NGINX)),
            1,
        ),
    ];
    for (path, body, least) in &searches {
        let (status, found) = ask(Some("ci"), path, body).unwrap();
        assert_eq!((status, &found["results"]), (403, &Value::Null), "{path}: {found}");
        let (status, found) = ask(Some("finder"), path, body).unwrap();
        assert_eq!(status, 200, "{path}: {found}");
        let results = found["results"].as_array().unwrap();
        assert!(results.len() >= *least, "{path}: {found}");
        let is_inside = |one: &Value| one["id"].as_str().unwrap().starts_with("acme/images/");
        assert!(*path != "search/resource" || results.iter().all(is_inside), "{found}");
    }
    // Who has a certificate and no name is known to nobody, and who has none, or a stranger's, has no connection.
    let (_, search, _) = &searches[0];
    assert_eq!(evaluate(Some("other"), NGINX).unwrap().0, 401);
    assert_eq!(ask(Some("other"), "search/subject", search).unwrap().0, 401);
    for client in [None, Some("foreign")] {
        assert!(evaluate(client, NGINX).is_err(), "{client:?}");
        assert!(ask(client, "search/subject", search).is_err(), "{client:?}");
    }
}
