//! Events of a server in this process: delivered a second, and what sinks that hang cost those who write.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use capstan_events::{Policy, PublicUrl};
use capstan_proto::iam::v1 as iam;
use capstan_proto::iam::v1::group_service_client::GroupServiceClient;
use capstan_proto::iam::v1::subscription_service_client::SubscriptionServiceClient;
use capstan_server::signing::{self, KeyFolder};
use capstan_server::webhooks;
use capstan_testkit::https::Authority;
use futures_util::future::try_join_all;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

use crate::Options;
use crate::writes::{self, Running, runtime};

/// Events that each subscription is told, with one subscription and with many.
const EVENTS: [(usize, usize); 2] = [(1, 5_000), (100, 1_000)];
/// Sinks that hang.
const SLOW: usize = 100;

/// A sink that answers everything with 204, once it is let go.
struct Sink {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    open: watch::Sender<bool>,
    posts: AtomicUsize,
    last: Mutex<Option<Instant>>,
    /// The first event that came.
    first: OnceLock<(HeaderMap, Bytes)>,
}

impl Sink {
    async fn start(authority: &Authority) -> anyhow::Result<Self> {
        let config = authority.server_config(&["127.0.0.1"], false);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            open: watch::Sender::new(true),
            posts: AtomicUsize::new(0),
            last: Mutex::default(),
            first: OnceLock::new(),
        });
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let shared = Arc::clone(&state);
        tokio::runtime::Handle::current().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&shared));
                tokio::runtime::Handle::current().spawn(async move {
                    stream.set_nodelay(true)?;
                    let stream = acceptor.accept(stream).await?;
                    let answer = service_fn(|request| answer(Arc::clone(&state), request));
                    let server = hyper::server::conn::http1::Builder::new();
                    // An error is the end of a connection.
                    drop(server.serve_connection(TokioIo::new(stream), answer).await);
                    anyhow::Ok(())
                });
            }
        });
        Ok(Self { address, state })
    }

    /// Waits until so many events came in all. Returns when the last one did.
    async fn got(&self, events: usize) -> anyhow::Result<Instant> {
        let begun = Instant::now();
        while self.state.posts.load(SeqCst) < events {
            ensure!(begun.elapsed() < Duration::from_secs(120), "events do not arrive");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let last = *self.state.last.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
        last.context("no event came")
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if request.method() == Method::OPTIONS {
        if let Some(origin) = request.headers().get("webhook-request-origin") {
            response.headers_mut().insert("webhook-allowed-origin", origin.clone());
        }
        return Ok(response);
    }
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let _ = state.open.subscribe().wait_for(|open| *open).await;
    state.first.get_or_init(|| (head.headers, body));
    if let Ok(mut last) = state.last.lock() {
        *last = Some(Instant::now());
    }
    state.posts.fetch_add(1, SeqCst);
    Ok(response)
}

fn asked<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("x-capstan-caller", MetadataValue::from_static("alice"));
    request
}

async fn subscribe(channel: &Channel, sink: &Sink) -> anyhow::Result<()> {
    let subscription = iam::Subscription {
        sink: format!("https://{}/hook", sink.address),
        types: vec!["dev.capstan.iam.group.".into()],
        ..Default::default()
    };
    let request = iam::CreateSubscriptionRequest {
        parent: "acme".into(),
        subscription: Some(subscription),
        ..Default::default()
    };
    let mut client = SubscriptionServiceClient::new(channel.clone());
    client.create_subscription(asked(request)).await?;
    Ok(())
}

async fn change(channel: &Channel, number: usize) -> anyhow::Result<()> {
    let (id, description) = ("acme".into(), number.to_string());
    let group = Some(iam::Group { id, description, ..Default::default() });
    let request = iam::UpdateGroupRequest { group, ..Default::default() };
    GroupServiceClient::new(channel.clone()).update_group(asked(request)).await?;
    Ok(())
}

async fn start(dir: &Path, connections: usize) -> anyhow::Result<(Running, Authority)> {
    let authority = Authority::generate();
    let ca = dir.with_extension("pem");
    std::fs::write(&ca, authority.pem())?;
    let options = webhooks::Options {
        public_url: PublicUrl::parse("https://iam.example.com")?,
        keys: signing::Options {
            folder: KeyFolder::new(dir.with_extension("keys")),
            rotated: None,
        },
        policy: Policy::parse(["127.0.0.0/8"])?,
        ca: Some(ca),
    };
    Ok((writes::start(dir, connections, Some(options)).await?, authority))
}

/// Events delivered a second, beside a client that posts the bytes of the first one again and again.
pub(crate) fn delivered(options: &Options) -> anyhow::Result<String> {
    let mut lines = vec![];
    for (subscriptions, events) in EVENTS {
        let dir = options.folder.join(format!("events-{subscriptions}"));
        let line = runtime()?.block_on(async {
            let (running, authority) = start(&dir, 1).await?;
            let channel = running.channels.first().context("a connection")?;
            let sink = Sink::start(&authority).await?;
            for _ in 0..subscriptions {
                subscribe(channel, &sink).await?;
            }
            // All of them consent, and are told of one change.
            tokio::time::sleep(Duration::from_secs(3)).await;
            change(channel, 0).await?;
            sink.got(subscriptions).await?;
            // The next event of each is held until all changes are made.
            sink.state.open.send_replace(false);
            for number in 1..=events {
                change(channel, number).await?;
            }
            let begun = Instant::now();
            sink.state.open.send_replace(true);
            let all = subscriptions * events;
            let took = sink.got(subscriptions + all).await?.duration_since(begun);
            let (headers, body) = sink.state.first.get().context("no event came")?;
            let bare =
                bare(&sink, &authority, (headers, body), (subscriptions, all)).await?;
            #[expect(clippy::cast_precision_loss, reason = "a rate needs no 16 digits")]
            let rate = |time: Duration| all as f64 / time.as_secs_f64();
            anyhow::Ok(format!(
                "events: {subscriptions} subscriptions were told {:.0} events a second of {} bytes; the same bytes posted by a \
                 bare client over as many connections {:.0}; ratio {:.2}",
                rate(took),
                body.len(),
                rate(bare),
                rate(took) / rate(bare)
            ))
        })?;
        lines.push(line);
    }
    Ok(lines.join("\n"))
}

/// The time in which the same bytes are posted as often, over as many connections.
async fn bare(
    sink: &Sink,
    authority: &Authority,
    (headers, body): (&HeaderMap, &Bytes),
    (connections, all): (usize, usize),
) -> anyhow::Result<Duration> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = TlsConnector::from(Arc::new(config));
    let mut senders: Vec<SendRequest<Full<Bytes>>> = vec![];
    for _ in 0..connections {
        let stream = TcpStream::connect(sink.address).await?;
        stream.set_nodelay(true)?;
        let stream = tls.connect("127.0.0.1".try_into()?, stream).await?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::runtime::Handle::current().spawn(connection);
        senders.push(sender);
    }
    let begun = Instant::now();
    let posts = senders.into_iter().map(|mut sender| async move {
        for _ in 0..all / connections {
            let mut request = Request::post("/hook").body(Full::new(body.clone()))?;
            *request.headers_mut() = headers.clone();
            sender.ready().await?;
            let response = sender.send_request(request).await?;
            ensure!(response.status().is_success(), "{}", response.status());
            response.into_body().collect().await?;
        }
        anyhow::Ok(())
    });
    try_join_all(posts).await?;
    Ok(begun.elapsed())
}

/// Writes a second without subscriptions, and beside many whose sinks hang, in turns.
pub(crate) fn beside_slow_sinks(options: &Options) -> anyhow::Result<String> {
    let mut rates = [vec![], vec![]];
    for turn in 0..3 {
        for (at, slow) in [0, SLOW].into_iter().enumerate() {
            let dir = options.folder.join(format!("slow-{turn}-{slow}"));
            let rate = runtime()?.block_on(async {
                let (running, authority) = start(&dir, 8).await?;
                let channel = running.channels.first().context("a connection")?;
                let sink = Sink::start(&authority).await?;
                for _ in 0..slow {
                    subscribe(channel, &sink).await?;
                }
                tokio::time::sleep(Duration::from_secs(2)).await;
                sink.state.open.send_replace(false);
                let made = writes::make(&running, 64, options.time, async |channel, number| {
                    change(channel, usize::try_from(number)?).await
                });
                made.await
            })?;
            rates.get_mut(at).context("two")?.push(rate);
        }
    }
    let [alone, beside] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied().unwrap_or_default()
    });
    Ok(format!(
        "slow sinks: 64 writers made {alone:.0} writes a second without subscriptions, {beside:.0} beside {SLOW} whose sink \
         hangs (medians of 3 turns); ratio {:.2}",
        beside / alone
    ))
}
