//! The sample receivers, with the SDKs of their languages: what they take, and what they refuse.
//!
//! ```text
//! Client, or raw bytes ─▶ receiver in Python, Node or Rust ─▶ a line of JSON for each event
//!                                 └ keys ─▶ a server in this process
//! ```

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use capstan_events::{
    Challenged, Challenges, Client, ClientOptions, Consent, Event, EventFields, Failure,
    FailureKind, Outcome, PublicUrl, Roots, Sink, TOKEN_TYPE, UnixMillis,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tokens::{ED25519_KEY, P256_KEY};
use crate::{Answers, Sender};
use capstan_testkit::https::{Authority, Reply, Server};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A file of `target`, which somebody has to make.
fn installed(path: &str, by: &str) -> PathBuf {
    let path = workspace().join("target").join(path);
    assert!(path.exists(), "{} is missing: {by} makes it", path.display());
    path
}

#[tokio::test]
async fn python_takes_what_is_signed_and_nothing_else() {
    let python = installed("webhook/python/bin/python", "dev/test");
    let program = workspace().join("deploy/examples/webhook/receiver.py");
    exercise(&|| command(&python, &program)).await;
}

#[tokio::test]
async fn node_takes_what_is_signed_and_nothing_else() {
    // Modules are looked for beside the program.
    let folder = installed("webhook/node/node_modules", "dev/test").parent().unwrap().to_owned();
    let program = folder.join("receiver.mjs");
    fs::copy(workspace().join("deploy/examples/webhook/receiver.mjs"), &program).unwrap();
    let node = installed("webhook/node/node", "dev/test");
    exercise(&|| command(&node, &program)).await;
}

#[tokio::test]
async fn rust_takes_what_is_signed_and_nothing_else() {
    // Beside the folder of this test, in any profile. Cargo builds it for tests that are run without a filter.
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().unwrap().parent().unwrap().join("examples/receiver");
    let by = "cargo build -p capstan-events --examples";
    assert!(program.exists(), "{} is missing: `{by}` makes it", program.display());
    exercise(&|| Command::new(&program)).await;
}

fn command(interpreter: &Path, program: &Path) -> Command {
    let mut command = Command::new(interpreter);
    command.arg(program);
    command
}

/// A receiver that runs, and is killed at the end.
struct Receiver {
    child: Child,
    port: u16,
}

impl Receiver {
    fn start(mut command: Command, authority: &Authority, issuer: &str, folder: &Path) -> Self {
        let (certificate, key) = authority.certificate(&["sink.test"], false);
        for (name, content) in [
            ("ca.pem", authority.pem()),
            ("cert.pem", certificate.pem()),
            ("key.pem", key.serialize_pem()),
        ] {
            fs::write(folder.join(name), content).unwrap();
        }
        let ca = folder.join("ca.pem");
        let mut child = command
            .args(["--issuer", issuer, "--audience", AUDIENCE, "--group", "acme", "--port", "0"])
            .arg("--cert")
            .arg(folder.join("cert.pem"))
            .arg("--key")
            .arg(folder.join("key.pem"))
            .env("SSL_CERT_FILE", &ca)
            .env("NODE_EXTRA_CA_CERTS", &ca)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        errors.read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("listening on port ").map(str::parse);
        let Some(Ok(port)) = port else {
            let _ = errors.read_to_string(&mut line);
            let _ = child.kill();
            panic!("{line}");
        };
        // Its pipe must not fill.
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        Self { child, port }
    }

    /// Ends it. Returns the events that it has printed.
    fn events(mut self) -> Vec<Value> {
        self.child.kill().unwrap();
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The receivers do not know their own port: a real one is behind another.
const AUDIENCE: &str = "https://sink.test:8443";

fn fields<'a>(id: &'a str, issuer: &'a str) -> EventFields<'a> {
    EventFields {
        id,
        source: issuer,
        kind: "dev.capstan.iam.role_binding.created.v1",
        subject: "acme/platform/0f1e2d3c4b5a6978",
        group: "acme/platform",
        time: UnixMillis(1_796_000_000_123),
        data: data().to_string().into(),
    }
}

fn data() -> Value {
    json!({"actor": {"subject": "alice"}, "body": {"name": "Zoë\n\u{202e}😀", "revision": 9_007_199_254_740_991_u64}})
}

fn printed(id: &str) -> Value {
    json!({
        "id": id,
        "type": "dev.capstan.iam.role_binding.created.v1",
        "subject": "acme/platform/0f1e2d3c4b5a6978",
        "group": "acme/platform",
        "data": data(),
    })
}

/// With a receiver of its own for each kind of key.
async fn exercise(command: &dyn Fn() -> Command) {
    exercise_with(command(), ED25519_KEY, Algorithm::EdDSA).await;
    exercise_with(command(), P256_KEY, Algorithm::ES256).await;
}

async fn exercise_with(command: Command, pem: &str, algorithm: Algorithm) {
    let authority = Authority::generate();
    let folder = tempfile::tempdir().unwrap();

    // The keys are known once the signer is, whose issuer has the port of this server.
    let jwks = Arc::new(Mutex::new(String::new()));
    let served = Arc::clone(&jwks);
    let config = authority.server_config(&["localhost"], false);
    let keys = Server::listen(Ipv4Addr::LOCALHOST, config, move |_| {
        let jwks = served.lock().unwrap();
        let length = jwks.len();
        let kind = "application/jwk-set+json";
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
        Reply::raw(head + &jwks)
    })
    .await;
    let issuer = format!("https://localhost:{}", keys.address.port());
    let mut sender = Sender::new(&authority, Answers::loopback());
    let signing = capstan_events::SigningKey::from_pem(pem.as_bytes()).unwrap();
    let url = PublicUrl::parse(&issuer).unwrap();
    sender.signer = capstan_events::Signer::new(url.clone(), signing, Vec::new()).unwrap();
    let options = |url| {
        let mut options = ClientOptions::new(
            sender.client.policy().clone(),
            Roots::from_pem(authority.pem().as_bytes()).unwrap(),
        );
        options.resolver = Answers::loopback();
        Client::new(url, options).unwrap()
    };
    let (client, stranger) =
        (options(&url), options(&PublicUrl::parse("https://other.example").unwrap()));
    sender.client = client;
    *jwks.lock().unwrap() = sender.signer.jwks();

    let receiver = Receiver::start(command, &authority, &issuer, folder.path());
    // Sent to the port of the receiver, and signed for the origin that it is known by.
    let sink = sender.sink(&format!("https://sink.test:{}/iam", receiver.port));
    let known = sender.sink(&format!("{AUDIENCE}/iam"));

    assert_eq!(sender.client.ask_consent(&sink, None).await, Ok(Consent::Granted { rate: None }));
    assert_eq!(stranger.ask_consent(&sink, None).await, Ok(Consent::Withheld));

    let about = Challenged { subscription: "acme/5ub5", incarnation: 7, sink: &known };
    let challenges = Challenges::new(&sender.signer).unwrap();
    let challenge = challenges.issue(about, UnixMillis::now()).unwrap();
    let posted =
        Challenges::event(&sender.signer, about, "acme", &challenge, UnixMillis::now()).unwrap();
    let first = Event::new(fields("01", &issuer)).unwrap();
    let second = Event::new(fields("02", &issuer)).unwrap();
    for event in [&posted, &first, &first, &second, &first] {
        assert_eq!(
            deliver(&sender, &sink, &known, event, event, UnixMillis::now()).await,
            Outcome::Delivered
        );
    }

    // Tokens of this signer, for something else.
    let other = Event::new(EventFields { data: "{}".into(), ..fields("03", &issuer) }).unwrap();
    let third = Event::new(fields("03", &issuer)).unwrap();
    let foreign =
        Event::new(EventFields { source: "https://other.example", ..fields("02", &issuer) })
            .unwrap();
    let hour_ago = UnixMillis(UnixMillis::now().0 - 3_600_000);
    for (what, audience, signed, sent, now) in [
        ("another audience", &sink, &third, &third, UnixMillis::now()),
        ("another body", &known, &other, &third, UnixMillis::now()),
        ("another id, the same body", &known, &second, &third, UnixMillis::now()),
        ("another source", &known, &second, &foreign, UnixMillis::now()),
        ("an hour ago", &known, &third, &third, hour_ago),
    ] {
        let outcome = deliver(&sender, &sink, audience, signed, sent, now).await;
        assert_eq!(status(outcome), 401, "{what}");
    }

    let forger = Forger {
        kid: capstan_events::SigningKey::from_pem(pem.as_bytes()).unwrap().kid().to_owned(),
        pem,
        algorithm,
    };
    forgeries(&authority, &receiver, &sender, &forger, &third).await;

    assert_eq!(
        deliver(&sender, &sink, &known, &third, &third, UnixMillis::now()).await,
        Outcome::Delivered
    );
    let asked = keys.requests();
    assert!(asked.iter().all(|request| request.line == "GET /.well-known/jwks.json HTTP/1.1"));
    assert!(
        asked.len() <= 2,
        "unknown keys do not make it fetch the keys each time: {}",
        asked.len()
    );

    let events = receiver.events();
    assert_eq!(events[0]["type"], "dev.capstan.iam.subscription.challenge.v1");
    assert_eq!(events[0]["subject"], "acme/5ub5");
    let returned = events[0]["data"]["challenge"].as_str().unwrap();
    assert_eq!(challenges.verify(returned, about, UnixMillis::now()), Ok(()));
    assert_eq!(events[1..], ["01", "02", "03"].map(printed));
}

/// Who has the key of the signer.
struct Forger<'a> {
    pem: &'a str,
    kid: String,
    algorithm: Algorithm,
}

/// Tokens that this crate cannot make, signed with its key where they are signed.
async fn forgeries(
    authority: &Authority,
    receiver: &Receiver,
    sender: &Sender,
    forger: &Forger<'_>,
    event: &Event,
) {
    let issuer = sender.signer.issuer().as_str();
    let kid = &forger.kid;
    let der = PrivatePkcs8KeyDer::from_pem_slice(forger.pem.as_bytes()).unwrap();
    let key = match forger.algorithm {
        Algorithm::EdDSA => EncodingKey::from_ed_der(der.secret_pkcs8_der()),
        _ => EncodingKey::from_ec_der(der.secret_pkcs8_der()),
    };
    let typed = |typ: Option<&str>| {
        let mut header = Header::new(forger.algorithm);
        (header.typ, header.kid) = (typ.map(str::to_owned), Some(kid.clone()));
        header
    };
    let now = UnixMillis::now().seconds();
    let digest = {
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(event.data());
        digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let good = json!({
        "iss": issuer, "sub": "webhook:acme", "aud": AUDIENCE, "iat": now, "exp": now + 300, "jti": event.id(),
        "webhook": {"digest": format!("sha256:{digest}")},
    });
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name).unwrap();
        claims
    };
    let own = typed(Some(TOKEN_TYPE));
    let sign =
        |header: &Header, claims: &Value| jsonwebtoken::encode(header, claims, &key).unwrap();

    let mut unknown = own.clone();
    unknown.kid = Some("unknown".into());
    let secret = EncodingKey::from_secret(sender.signer.jwks().as_bytes()).unwrap();
    let mut shared = own.clone();
    shared.alg = Algorithm::HS256;
    let unsigned = |claims: &Value| {
        use data_encoding::BASE64URL_NOPAD as BASE64;
        let header = json!({"alg": "none", "typ": TOKEN_TYPE, "kid": kid}).to_string();
        let parts = [header, claims.to_string()].map(|part| BASE64.encode(part.as_bytes()));
        format!("{}.{}.", parts[0], parts[1])
    };
    let tokens = [
        ("a token of the API", sign(&typed(Some("at+jwt")), &good)),
        ("a token of any type", sign(&typed(Some("JWT")), &good)),
        ("a token of no type", sign(&typed(None), &good)),
        ("another issuer", sign(&own, &with("iss", json!("https://other.example")))),
        ("another group", sign(&own, &with("sub", json!("webhook:acme2")))),
        ("another audience", sign(&own, &with("aud", json!("https://other.example")))),
        ("no issuer", sign(&own, &without("iss"))),
        ("no subject", sign(&own, &without("sub"))),
        ("no audience", sign(&own, &without("aud"))),
        ("no end", sign(&own, &without("exp"))),
        ("no id", sign(&own, &without("jti"))),
        ("no digest", sign(&own, &without("webhook"))),
        ("a digest that is none", sign(&own, &with("webhook", json!({"digest": 7})))),
        ("a webhook that is none", sign(&own, &with("webhook", json!("sha256:")))),
        ("another digest", sign(&own, &with("webhook", json!({"digest": "sha256:00"})))),
        ("ended", sign(&own, &with("exp", json!(now - 120)))),
        ("an unknown key", sign(&unknown, &good)),
        ("a further unknown key", sign(&unknown, &good)),
        ("the public key as a secret", jsonwebtoken::encode(&shared, &good, &secret).unwrap()),
        ("unsigned", unsigned(&good)),
        ("no token", "x".into()),
        ("nothing", String::new()),
    ];
    for (what, token) in &tokens {
        let answer = post(authority, receiver.port, Some(&format!("Bearer {token}")), event).await;
        assert_eq!(answer, 401, "{what}");
    }
    assert_eq!(post(authority, receiver.port, None, event).await, 401, "no header");
    let basic = format!("Basic {}", sign(&own, &good));
    assert_eq!(post(authority, receiver.port, Some(&basic), event).await, 401, "another scheme");
}

async fn deliver(
    sender: &Sender,
    sink: &Sink,
    audience: &Sink,
    signed: &Event,
    sent: &Event,
    now: UnixMillis,
) -> Outcome {
    let token = sender.signer.sign(audience, "acme", signed, now).unwrap();
    sender.client.deliver(sink, sent, &token, now).await
}

fn status(outcome: Outcome) -> u16 {
    match outcome {
        Outcome::Failed(Failure { kind: FailureKind::Status, status: Some(status), .. }) => status,
        other => panic!("{other:?}"),
    }
}

/// Posts an event without the client, which only sends tokens that this crate has made. Returns the status.
async fn post(authority: &Authority, port: u16, authorization: Option<&str>, event: &Event) -> u16 {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect("sink.test".try_into().unwrap(), stream).await.unwrap();
    let mut request = "POST /iam HTTP/1.1\r\nhost: sink.test\r\nconnection: close\r\n".to_owned();
    for (name, value) in event.headers() {
        request += &format!("{name}: {}\r\n", value.to_str().unwrap());
    }
    if let Some(authorization) = authorization {
        request += &format!("authorization: {authorization}\r\n");
    }
    request += &format!("content-length: {}\r\n\r\n", event.data().len());
    stream.write_all(&[request.as_bytes(), event.data()].concat()).await.unwrap();
    let mut answer = Vec::new();
    // Python ends without saying so in TLS, which is an error after the answer.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    answer.split(' ').nth(1).unwrap_or_else(|| panic!("{answer}")).parse().unwrap()
}
