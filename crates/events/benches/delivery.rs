//! Events delivered a second: this crate beside a bare client that posts the same bytes.
//!
//! ```text
//! cargo bench -p capstan-events [-- SECONDS [ROUNDS]]
//!
//! deliver: sign ─ Client ─┐
//!                         ├─▶ TLS on loopback ─▶ a server of hyper in this process
//! bare: hyper and rustls ─┘
//! ```
//!
//! The two take turns in each round; the figure is the median of the rounds. Each sends one event after another over one
//! connection (as a subscription does), then 16 at once over 16. A delivery signs a token, digests the body and looks after
//! its limits; the bare client sends the request of a delivery, with its headers, as it is, and reads the answer. The goal
//! is half of the bare rate. The server shares the machine, so both figures are for both ends.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a bench: it prints, owns its runtime, and ends at the first error"
)]

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use capstan_events::{
    Client, ClientOptions, Event, EventFields, Lookup, Outcome, Policy, PublicUrl, Resolve, Roots,
    Signer, SigningKey, Sink, UnixMillis,
};
use http::header::{AUTHORIZATION, HOST};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const GOAL: f64 = 0.5;

#[derive(Debug)]
struct Loopback;

impl Resolve for Loopback {
    fn resolve<'a>(&'a self, _: &'a str) -> Lookup<'a> {
        Box::pin(async { Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]) })
    }
}

/// What both send, and to whom.
struct Setting {
    address: SocketAddr,
    bare: TlsConnector,
    client: Client,
    signer: Signer,
    sink: Sink,
    event: Event,
}

#[tokio::main]
async fn main() {
    // Cargo adds `--bench`.
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u32>().ok());
    let time = Duration::from_secs(numbers.next().unwrap_or(2).into());
    let rounds = numbers.next().unwrap_or(5);

    let setting = Arc::new(setting().await);
    println!("event of {} bytes, {rounds} rounds of {time:?} each", setting.event.data().len());
    for tasks in [1, 16] {
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            rates[0].push(rate(&setting, tasks, time, true).await);
            rates[1].push(rate(&setting, tasks, time, false).await);
        }
        let [delivered, bare] = rates.map(median);
        let ratio = delivered / bare;
        let goal = if ratio >= GOAL { "met" } else { "missed" };
        println!(
            "{tasks:>2} at once: {delivered:>7.0} events/s delivered, {bare:>7.0} posts/s bare, ratio {ratio:.2} \
             (goal {GOAL}: {goal})"
        );
    }
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap()
}

async fn setting() -> Setting {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["sink.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], der)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let bare = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();

    let url = PublicUrl::parse("https://iam.example.com").unwrap();
    let roots = Roots::from_pem(certificate.pem().as_bytes()).unwrap();
    let policy = Policy::parse(["127.0.0.0/8"]).unwrap();
    let options = ClientOptions { policy, roots, resolver: Arc::new(Loopback) };
    let client = Client::new(&url, options).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let key = SigningKey::generate(&folder.path().join("key.pem")).unwrap();
    let signer = Signer::new(url, key, Vec::new()).unwrap();

    let address = serve(server).await;
    let sink = format!("https://sink.test:{}/iam", address.port());
    let sink = Sink::parse(&sink, client.policy()).unwrap();
    let data = r#"{"actor":{"subject":"alice"},"body":{"id":"acme/platform/0f1e2d3c4b5a6978","identity":"acme/ci","#
        .to_owned()
        + r#""role":"acme/puller","scope":"acme/platform","create_time":"2026-11-29T12:00:00Z","etag":"70001"}}"#;
    let event = Event::new(EventFields {
        id: "0000000000070001",
        source: "https://iam.example.com",
        kind: "dev.capstan.iam.role_binding.created.v1",
        subject: "acme/platform/0f1e2d3c4b5a6978",
        group: "acme/platform",
        time: UnixMillis::now(),
        data: data.into(),
    })
    .unwrap();
    Setting { address, bare: TlsConnector::from(Arc::new(bare)), client, signer, sink, event }
}

/// Answers 204 to everything.
async fn serve(config: ServerConfig) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.unwrap();
                let answer = service_fn(|request: Request<Incoming>| async move {
                    request.into_body().collect().await.unwrap();
                    let mut response = Response::new(Empty::<Bytes>::new());
                    *response.status_mut() = http::StatusCode::NO_CONTENT;
                    Ok::<_, Infallible>(response)
                });
                let server = hyper::server::conn::http1::Builder::new();
                // An error is the end of a connection at the end of a round.
                let _ = server.serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    address
}

/// Events a second.
async fn rate(setting: &Arc<Setting>, tasks: usize, time: Duration, delivers: bool) -> f64 {
    let start = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let setting = Arc::clone(setting);
        running.spawn(async move {
            if delivers {
                deliver(&setting, start + time).await
            } else {
                post(&setting, start + time).await
            }
        });
    }
    let sent: u32 = running.join_all().await.into_iter().sum();
    f64::from(sent) / start.elapsed().as_secs_f64()
}

async fn deliver(setting: &Setting, end: Instant) -> u32 {
    let Setting { client, signer, sink, event, .. } = setting;
    let mut sent = 0;
    while Instant::now() < end {
        let now = UnixMillis::now();
        let token = signer.sign(sink, "acme/platform", event, now).unwrap();
        assert_eq!(client.deliver(sink, event, &token, now).await, Outcome::Delivered);
        sent += 1;
    }
    sent
}

async fn post(setting: &Setting, end: Instant) -> u32 {
    let Setting { signer, sink, event, .. } = setting;
    let token = signer.sign(sink, "acme/platform", event, UnixMillis::now()).unwrap();
    let mut request = Request::post("/iam");
    let headers = request.headers_mut().unwrap();
    headers.extend(event.headers().clone());
    headers.insert(HOST, sink.origin().strip_prefix("https://").unwrap().parse().unwrap());
    headers.insert(AUTHORIZATION, token.authorization().clone());
    headers.insert("user-agent", "capstan/0.1.0".parse().unwrap());
    headers.insert("accept-encoding", "identity".parse().unwrap());
    headers.insert("webhook-request-origin", "iam.example.com".parse().unwrap());
    let request = request.body(Full::new(event.data().clone())).unwrap();

    let stream = TcpStream::connect(setting.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let stream = setting.bare.connect("sink.test".try_into().unwrap(), stream).await.unwrap();
    let (mut sender, connection): (SendRequest<Full<Bytes>>, _) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut sent = 0;
    while Instant::now() < end {
        sender.ready().await.unwrap();
        let response = sender.send_request(request.clone()).await.unwrap();
        assert!(response.status().is_success());
        response.into_body().collect().await.unwrap();
        sent += 1;
    }
    sent
}
