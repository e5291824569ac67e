//! Callers of the management services that a client certificate proves.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Output, Stdio};

use capstan_proto::iam::v1 as iam;
use capstan_proto::iam::v1::group_service_client::GroupServiceClient;
use capstan_proto::iam::v1::policy_service_client::PolicyServiceClient;
use capstan_server::limits::TLS_DNS_NAMES_MAX;
use rcgen::{DnType, SanType};
use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::Files;
use crate::common::{PATIENCE, Serving, capstan, command, stderr, stdout};
use crate::raw::reason;

const CI: &str = "spiffe://acme.example/ci";

/// A store with an owner whose workload has a certificate, and its server.
struct Store {
    files: Files,
    server: Serving,
    operator: String,
}

impl Store {
    fn start(name: &str) -> Self {
        Self::start_with(name, |_| vec![])
    }

    /// With more arguments of the server, of its files.
    fn start_with(name: &str, more: impl FnOnce(&Files) -> Vec<String>) -> Self {
        let files = Files::new(name);
        let data = files.path("store");
        let made = ["init", "--data", &data, "--org", "acme", "--owner", "alice"];
        assert!(capstan(&made).status.success());
        let (cert, key, ca) =
            (files.path("server.pem"), files.path("server.key"), files.path("ca.pem"));
        let tls = ["--tls-cert", &cert, "--tls-key", &key, "--client-ca", &ca];
        let fixed = ["--data", &data, "--listen", "127.0.0.1:0", "--http", "none"];
        let more = more(&files);
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let server = Serving::start(&[&fixed[..], &tls, &more].concat(), 2);
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
        for (name, uris, serial) in [
            ("ci", &[CI][..], 7),
            ("other", &["spiffe://acme.example/other"], 8),
            ("two", &[CI, "spiffe://acme.example/other"], 9),
            ("none", &[], 10),
            ("web", &["https://acme.example/ci"], 11),
        ] {
            let (certificate, key) = store.files.authority.numbered(uris, Some(serial));
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

const BUILD: &str = "build.acme.example";

impl Store {
    /// Writes a certificate with these subject alternative names and this common name.
    fn add(&self, name: &str, names: &[SanType], common: &str) {
        let (certificate, key) = self.files.authority.odd(&[], |params| {
            params.subject_alt_names = names.to_vec();
            params.distinguished_name.push(DnType::CommonName, common);
        });
        self.files.write(&format!("{name}.pem"), &certificate.pem());
        self.files.write(&format!("{name}.key"), &key.serialize_pem());
    }

    /// Whether the certificate lets in whoever says to be this identity.
    fn lets_in(&self, certificate: &str, identity: &str) -> bool {
        let listed = self.with(certificate, &[&LIST[..], &["--as", identity]].concat());
        let said = stderr(&listed);
        assert!(listed.status.success() || said.contains("AUTHN_FAILED"), "{certificate}: {said}");
        listed.status.success()
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

#[test]
fn a_dns_name_proves_the_identity_that_is_named() {
    let store = Store::start("tls-identity-dns");
    let create = ["identities", "create", "acme/build", "--type", "service", "--dns-name", BUILD];
    store.operate(&create);
    let bind = ["role-bindings", "create", "--role", "owner", "--group", "acme"];
    store.operate(&[&bind[..], &["--identity", "acme/build"]].concat());
    let shown = store.operate(&["identities", "describe", "acme/build"]);
    assert!(shown.contains("dns_name") && shown.contains(BUILD), "{shown}");
    assert!(!shown.contains("spiffe_id"), "{shown}");
    let many = |count: usize| -> Vec<_> {
        let more = (1..count).map(|at| dns(&format!("h{at}.acme.example")));
        more.chain([dns(BUILD)]).collect()
    };
    let (build, address) = (dns(BUILD), SanType::IpAddress([192, 0, 2, 1].into()));
    let other = "spiffe://acme.example/other";
    for (name, names, is_build) in [
        ("one", &[build.clone()][..], true),
        ("upper", &[dns("BUILD.Acme.example")], true),
        ("among", &[dns("a"), address, build.clone(), dns("*.acme.example")], true),
        ("most", &many(TLS_DNS_NAMES_MAX), true),
        ("more", &many(TLS_DNS_NAMES_MAX + 1), false),
        ("another", &[dns("other.acme.example")], false),
        ("below", &[dns("x.build.acme.example")], false),
        ("above", &[dns("acme.example")], false),
        ("wildcard", &[dns("*.acme.example")], false),
        ("dotted", &[dns("build.acme.example.")], false),
        ("common", &[], false),
        ("mail", &[SanType::Rfc822Name(BUILD.try_into().unwrap())], false),
        ("uri", &[uri(BUILD)], false),
        ("workload", &[build.clone(), uri(other)], false),
        ("two-uris", &[build.clone(), uri(CI), uri(other)], false),
        ("web-and-host", &[build.clone(), uri("https://acme.example/ci")], false),
    ] {
        store.add(name, names, BUILD);
        assert_eq!(store.lets_in(name, "acme/build"), is_build, "{name}");
        assert!(!store.lets_in(name, "acme/ci"), "{name}");
    }
    // A SPIFFE ID alone is what a workload is known by, whatever hosts it has.
    store.add("ci-and-host", &[build, uri(CI)], BUILD);
    assert!(store.lets_in("ci-and-host", "acme/ci"));
    assert!(!store.lets_in("ci-and-host", "acme/build"));
    // Somebody must be named, and has its certificate only as long as it is said.
    assert!(!store.with("one", &LIST).status.success());
    assert!(!store.lets_in("one", "alice"));
    store.operate(&["identities", "update", "acme/build", "--dns-name", "other.acme.example"]);
    assert!(!store.lets_in("one", "acme/build"));
    assert!(store.lets_in("another", "acme/build"));
}

#[test]
fn a_name_that_no_certificate_can_have_is_refused() {
    let store = Store::start("tls-identity-names");
    for name in ["*.acme.example", "Build.acme.example", "build.acme.example.", "192.0.2.1"] {
        let create = ["iam", "identities", "create", "acme/x", "--dns-name", name, "--addr"];
        let refused = capstan(&[&create[..], &[&store.operator]].concat());
        assert_eq!(refused.status.code(), Some(2), "{name}");
        let said = stderr(&refused);
        assert!(said.contains("identity.client_certificate.dns_name"), "{said}");
        assert!(said.contains("a host name in lower case"), "{said}");
    }
}

/// A certificate that is revoked while its connection is open: a stream ends, though nothing changes in the store, and so does the next call.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_manages_no_more() {
    let store = Store::start_with("tls-identity-listed", |files| {
        files.write("revoked.pem", &files.authority.revoking(&[], false));
        vec!["--client-crl".into(), files.path("revoked.pem")]
    });
    let files = &store.files;
    let read = |name: &str| std::fs::read(files.path(name)).unwrap();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(files.authority.pem()))
        .identity(Identity::from_pem(read("ci.pem"), read("ci.key")));
    let addr = format!("https://{}", store.server.address("grpc"));
    let endpoint = Endpoint::from_shared(addr).unwrap().tls_config(tls).unwrap();
    let channel = endpoint.connect().await.unwrap();
    fn as_ci<T>(message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("x-capstan-caller", "acme/ci".parse().unwrap());
        request
    }
    let list = || as_ci(iam::ListGroupsRequest { parent: "acme".into(), ..Default::default() });
    let mut groups = GroupServiceClient::new(channel.clone());
    groups.list_groups(list()).await.unwrap();
    let watch = as_ci(iam::WatchRequest { parent: "acme".into(), ..Default::default() });
    let mut watched = PolicyServiceClient::new(channel).watch(watch).await.unwrap().into_inner();
    files.write("revoked.pem", &files.authority.revoking(&[7], false));
    let ended = tokio::time::timeout(PATIENCE, async {
        loop {
            match watched.message().await {
                // Checkpoints.
                Ok(message) => assert!(message.unwrap().changes.is_empty()),
                Err(status) => return status,
            }
        }
    });
    let ended = ended.await.expect("the stream goes on");
    assert_eq!((ended.code(), &*reason(&ended)), (Code::Unauthenticated, "AUTHN_FAILED"));
    groups.list_groups(list()).await.unwrap_err();
    // Others manage on.
    assert!(!store.with("other", &LIST).status.success());
    store.operate(&[
        "identities",
        "update",
        "acme/ci",
        "--spiffe-id",
        "spiffe://acme.example/other",
    ]);
    let listed = store.with("other", &[&LIST[..], &["--as", "acme/ci"]].concat());
    assert!(listed.status.success(), "{}", stderr(&listed));
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
