//! Callers of the management services that a client certificate proves.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Output, Stdio};

use super::Files;
use crate::common::{Serving, capstan, command, stderr, stdout};

const CI: &str = "spiffe://acme.example/ci";

/// A store with an owner whose workload has a certificate, and its server.
struct Store {
    files: Files,
    server: Serving,
    operator: String,
}

impl Store {
    fn start(name: &str) -> Self {
        let files = Files::new(name);
        let data = files.path("store");
        let made = ["init", "--data", &data, "--org", "acme", "--owner", "alice"];
        assert!(capstan(&made).status.success());
        let (cert, key, ca) =
            (files.path("server.pem"), files.path("server.key"), files.path("ca.pem"));
        let tls = ["--tls-cert", &cert, "--tls-key", &key, "--client-ca", &ca];
        let fixed = ["--data", &data, "--listen", "127.0.0.1:0", "--http", "none"];
        let server = Serving::start(&[&fixed[..], &tls].concat(), 2);
        let operator = server.address("management");
        let store = Self { files, server, operator };
        store.operate(&["identities", "create", "acme/ci", "--type", "service", "--spiffe-id", CI]);
        store.operate(&[
            "role-bindings",
            "create",
            "--identity",
            "acme/ci",
            "--role",
            "owner",
            "--group",
            "acme",
        ]);
        for (name, uris) in [
            ("ci", &[CI][..]),
            ("other", &["spiffe://acme.example/other"]),
            ("two", &[CI, "spiffe://acme.example/other"]),
            ("none", &[]),
            ("web", &["https://acme.example/ci"]),
        ] {
            let (certificate, key) = store.files.authority.workload(uris);
            store.files.write(&format!("{name}.pem"), &certificate.pem());
            store.files.write(&format!("{name}.key"), &key.serialize_pem());
        }
        store
    }

    fn operate(&self, arguments: &[&str]) -> String {
        let output = capstan(&[&["iam"], arguments, &["--addr", &self.operator]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    }

    /// A command of `iam`, with this certificate.
    fn with(&self, certificate: &str, arguments: &[&str]) -> Output {
        let addr = format!("https://{}", self.server.address("grpc"));
        let file = |kind: &str| self.files.path(&format!("{certificate}.{kind}"));
        let (cert, key, ca) = (file("pem"), file("key"), self.files.path("ca.pem"));
        let tls = ["--addr", &addr, "--ca", &ca, "--cert", &cert, "--key", &key];
        capstan(&[&["iam"], arguments, &tls].concat())
    }
}

const LIST: [&str; 4] = ["folders", "list", "--parent", "acme"];

#[test]
fn a_certificate_proves_the_identity_that_is_named() {
    let store = Store::start("tls-identity");
    let create = ["folders", "create", "staging", "--parent", "acme", "--as", "acme/ci"];
    let made = store.with("ci", &create);
    assert!(made.status.success(), "{}", stderr(&made));
    let listed = store.with("ci", &[&LIST[..], &["--as", "acme/ci", "--output", "id"]].concat());
    assert_eq!(stdout(&listed), "acme/staging\n", "{}", stderr(&listed));
    // Whoever is named must have the certificate, and somebody must be named.
    for (certificate, caller) in [
        ("ci", Some("alice")),
        ("ci", Some("acme/nobody")),
        ("ci", None),
        ("other", Some("acme/ci")),
        ("two", Some("acme/ci")),
        ("none", Some("acme/ci")),
        ("web", Some("acme/ci")),
    ] {
        let more = caller.map_or(vec![], |caller| vec!["--as", caller]);
        let refused = store.with(certificate, &[&LIST[..], &more].concat());
        assert!(!refused.status.success(), "{certificate} {caller:?}");
        let said = stderr(&refused);
        assert!(said.contains("AUTHN_FAILED"), "{certificate} {caller:?}: {said}");
    }
    let email = ["--as", "acme/ci", "--as-email", "ci@acme.example"];
    let refused = store.with("ci", &[&LIST[..], &email].concat());
    assert!(stderr(&refused).contains("verifies no address"), "{}", stderr(&refused));
    // The audit log says how the caller was proved.
    let records = ["audit", "list", "--parent", "acme", "--output", "json", "--addr"];
    let records = capstan(&[&records[..], &[&store.operator]].concat());
    let records = stdout(&records);
    assert!(records.contains("\"client-certificate\""), "{records}");
}

/// What a certificate proves is asked with each call, also of one connection.
#[test]
fn a_certificate_that_is_taken_away_proves_nothing() {
    let store = Store::start("tls-identity-revoked");
    let list = [&LIST[..], &["--as", "acme/ci"]].concat();
    assert!(store.with("ci", &list).status.success());
    store.operate(&["identities", "disable", "acme/ci"]);
    assert!(stderr(&store.with("ci", &list)).contains("AUTHN_FAILED"));
    store.operate(&["identities", "enable", "acme/ci"]);
    assert!(store.with("ci", &list).status.success());
    let other = ["--spiffe-id", "spiffe://acme.example/other"];
    // A stream that was let in with it ends, too.
    let addr = format!("https://{}", store.server.address("grpc"));
    let file = |name: &str| store.files.path(name);
    let (cert, key, ca) = (file("ci.pem"), file("ci.key"), file("ca.pem"));
    let tls = ["--addr", &addr, "--ca", &ca, "--cert", &cert, "--key", &key];
    // From the first revision on, so that nothing depends on when it begins.
    let from = ((1_u64 << 40) + 2).to_string();
    let tail = ["events", "tail", "--parent", "acme", "--as", "acme/ci", "--from", &from];
    let mut tail = command(&[&tail[..], &tls].concat());
    let mut tail = tail.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    store.operate(&["folders", "create", "before", "--parent", "acme"]);
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    while !lines.next().unwrap().unwrap().contains("acme/before") {}
    store.operate(&[&["identities", "update", "acme/ci"], &other[..]].concat());
    store.operate(&["folders", "create", "after", "--parent", "acme"]);
    assert!(!lines.any(|line| line.unwrap().contains("acme/after")));
    let ended = tail.wait_with_output().unwrap();
    assert!(stderr(&ended).contains("AUTHN_FAILED"), "{ended:?}");
    assert!(stderr(&store.with("ci", &list)).contains("AUTHN_FAILED"));
    assert!(store.with("other", &list).status.success());
    // The files of the server stay for it alone.
    let mode = std::fs::metadata(store.files.path("store")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
}
