//! Delivers one event to one sink, or reads one document.
//!
//! ```text
//! sink ─▶ idle connection? ─────────────────────────────────────────┐
//!           └ none ─▶ lookup ─▶ guard ─▶ TCP to a judged address ─▶ TLS ─▶ request ─▶ head of the response ─▶ Outcome
//!                                                                            │   └ body: at most 4 KiB in 1 s, thrown away
//!                                                                            └ 10 s for all of it
//! ```
//!
//! **Invariants**: connections are opened to judged addresses only, and straight to them: no proxy, whatever the
//! environment says. Redirects are not followed, cookies not kept, bodies not decompressed. A peer holds at most one read
//! buffer of memory, and ten seconds and a place among [`EXCHANGES_MAX`].

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue,
    USER_AGENT,
};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;

use crate::clock::UnixMillis;
use crate::event::Event;
use crate::guard::Policy;
use crate::handshake::{Consent, REQUEST_ORIGIN, REQUEST_RATE};
use crate::limits::{
    BODY_BYTES_MAX, BODY_TIME_MAX, CONNECT_TIME_MAX, DOCUMENT_BYTES_MAX, EXCHANGE_TIME_MAX,
    EXCHANGES_MAX,
};
use crate::outcome::{Failure, FailureKind, Outcome};
use crate::pool::{Connection, Pool, WholeRequest};
use crate::public_url::PublicUrl;
use crate::resolve::{Resolve, ResolveError, SystemResolver, judged_addresses};
use crate::roots::Roots;
use crate::signer::Token;
use crate::sink::Sink;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("capstan/", env!("CARGO_PKG_VERSION")));

/// What a [`Client`] is made of.
#[derive(Debug)]
pub struct ClientOptions {
    /// Which addresses may be connected to.
    pub policy: Policy,
    /// Whom to trust for certificates.
    pub roots: Roots,
    /// Finds addresses.
    pub resolver: Arc<dyn Resolve>,
}

impl ClientOptions {
    /// With the resolver of the system.
    #[must_use]
    pub fn new(policy: Policy, roots: Roots) -> Self {
        Self { policy, roots, resolver: Arc::new(SystemResolver::default()) }
    }
}

/// The client could not be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("TLS could not be configured: {0}")]
pub struct ClientError(#[from] rustls::Error);

/// Delivers events to sinks. Any number of tasks may use one client.
///
/// A connection is driven by the runtime that opened it. Tasks of several runtimes may use one client; it is faster if each
/// runtime has its own ([`Client::with_own_connections`]).
pub struct Client {
    origin: HeaderValue,
    policy: Policy,
    resolver: Arc<dyn Resolve>,
    tls: TlsConnector,
    pool: Pool,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
}

/// Makes a request: once more if an idle connection turns out to be closed.
type MakeRequest<'r> = dyn Fn() -> WholeRequest + Sync + 'r;

/// Room for the headers of a delivery.
const REQUEST_HEADERS: usize = 16;

/// Why an exchange has no response.
enum Stop {
    Refused(crate::guard::AddressError),
    Failed(Failure),
}

impl Client {
    /// Makes a client that calls itself by the host of this URL.
    ///
    /// # Errors
    ///
    /// If TLS cannot be configured.
    pub fn new(url: &PublicUrl, options: ClientOptions) -> Result<Self, ClientError> {
        let ClientOptions { policy, roots, resolver } = options;
        Ok(Self {
            origin: url.origin().clone(),
            policy,
            resolver,
            tls: TlsConnector::from(Arc::new(roots.client_config()?)),
            pool: Pool::default(),
            places: Arc::new(Semaphore::new(EXCHANGES_MAX)),
            tasks: TaskTracker::new(),
        })
    }

    /// A client with idle connections of its own, and the same places for exchanges.
    #[must_use]
    pub fn with_own_connections(&self) -> Self {
        Self {
            origin: self.origin.clone(),
            policy: self.policy.clone(),
            resolver: Arc::clone(&self.resolver),
            tls: self.tls.clone(),
            pool: Pool::default(),
            places: Arc::clone(&self.places),
            tasks: TaskTracker::new(),
        }
    }

    /// Which addresses may be connected to: [`Sink::parse`] needs it.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Makes one attempt to deliver an event.
    ///
    /// It ends at most [`EXCHANGE_TIME_MAX`] and [`BODY_TIME_MAX`] after a place among [`EXCHANGES_MAX`] is free. Where an idle connection
    /// turns out to be closed, the event is sent again over a new one: a sink may see one attempt twice, as it may see an
    /// event twice, with the same `ce-id`. Dropping the future closes its connection.
    pub async fn deliver(
        &self,
        sink: &Sink,
        event: &Event,
        token: &Token,
        now: UnixMillis,
    ) -> Outcome {
        let request = || {
            let mut request = self.request(Method::POST, sink, event.data().clone());
            let headers = request.headers_mut();
            for (name, value) in event.headers() {
                headers.insert(name, value.clone());
            }
            headers.insert(AUTHORIZATION, token.authorization().clone());
            request
        };
        match self.exchange(sink, &request).await {
            Ok((status, headers)) => Outcome::read(status, &headers, now),
            Err(Stop::Failed(failure)) => Outcome::Failed(failure),
            Err(Stop::Refused(error)) => Outcome::Refused(error),
        }
    }

    /// Asks a sink whether it takes events from us, at up to this many requests per minute.
    ///
    /// # Errors
    ///
    /// [`Outcome::Failed`] or [`Outcome::Refused`] if the sink did not answer. Any answer is a [`Consent`].
    pub async fn ask_consent(
        &self,
        sink: &Sink,
        rate: Option<NonZeroU32>,
    ) -> Result<Consent, Outcome> {
        let request = || {
            let mut request = self.request(Method::OPTIONS, sink, Bytes::new());
            if let Some(rate) = rate {
                request.headers_mut().insert(REQUEST_RATE, rate.get().into());
            }
            request
        };
        match self.exchange(sink, &request).await {
            Ok((status, headers)) => Ok(Consent::read(status, &headers, &self.origin)),
            Err(Stop::Failed(failure)) => Err(Outcome::Failed(failure)),
            Err(Stop::Refused(error)) => Err(Outcome::Refused(error)),
        }
    }

    /// Reads the document at a URL, such as what an issuer of tokens publishes: at most [`DOCUMENT_BYTES_MAX`] of it, in
    /// at most [`EXCHANGE_TIME_MAX`] once a place among [`EXCHANGES_MAX`] is free. Only the status 200 has one.
    ///
    /// # Errors
    ///
    /// [`Outcome::Failed`], [`Outcome::Gone`] or [`Outcome::Refused`] if there is no document.
    pub async fn fetch(&self, url: &Sink) -> Result<Bytes, Outcome> {
        let request = || {
            let mut request = self.request(Method::GET, url, Bytes::new());
            request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
            request
        };
        let outcome = |stop| match stop {
            Stop::Failed(failure) => Outcome::Failed(failure),
            Stop::Refused(error) => Outcome::Refused(error),
        };
        let _place = self.place().await.map_err(outcome)?;
        let fetched = timeout(EXCHANGE_TIME_MAX, self.document(url, &request)).await;
        fetched.map_err(|_| late()).flatten().map_err(outcome)?
    }

    async fn document(
        &self,
        url: &Sink,
        request: &MakeRequest<'_>,
    ) -> Result<Result<Bytes, Outcome>, Stop> {
        let (connection, response) = self.send(url, request).await?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            // When to ask again is not for this to say.
            return Ok(Err(match Outcome::read(head.status, &HeaderMap::new(), UnixMillis(0)) {
                Outcome::Delivered => {
                    let status = head.status.as_u16();
                    let failure = Failure::new(FailureKind::Status, &"no document");
                    Outcome::Failed(Failure { status: Some(status), ..failure })
                }
                other => other,
            }));
        }
        match Limited::new(body, DOCUMENT_BYTES_MAX).collect().await {
            Ok(body) => {
                self.pool.put(url.origin(), connection);
                Ok(Ok(body.to_bytes()))
            }
            Err(error) => Err(failed(FailureKind::Protocol, &error)),
        }
    }

    /// A request with the headers that all have.
    fn request(&self, method: Method, sink: &Sink, body: Bytes) -> WholeRequest {
        let length = body.len();
        let (has_body, is_document) = (method == Method::POST, method == Method::GET);
        let mut request = Request::new(Full::new(body));
        *request.headers_mut() = HeaderMap::with_capacity(REQUEST_HEADERS);
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from(sink.target().clone());
        let headers = request.headers_mut();
        headers.insert(HOST, sink.authority().clone());
        headers.insert(USER_AGENT, AGENT);
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if !is_document {
            headers.insert(REQUEST_ORIGIN, self.origin.clone());
        }
        if has_body {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        request
    }

    /// A place among [`EXCHANGES_MAX`].
    async fn place(&self) -> Result<SemaphorePermit<'_>, Stop> {
        // The semaphore is never closed. If it were, nothing would be sent.
        let closed = |_| failed(FailureKind::Connect, &"the client is closed");
        self.places.acquire().await.map_err(closed)
    }

    /// Sends a request. Returns the head of the response.
    async fn exchange(
        &self,
        sink: &Sink,
        request: &MakeRequest<'_>,
    ) -> Result<(StatusCode, HeaderMap), Stop> {
        let _place = self.place().await?;
        let sent = timeout(EXCHANGE_TIME_MAX, self.send(sink, request)).await;
        let (connection, response) = sent.map_err(|_| late())??;
        let (head, body) = response.into_parts();
        if matches!(timeout(BODY_TIME_MAX, ends_soon(body)).await, Ok(true)) {
            self.pool.put(sink.origin(), connection);
        }
        Ok((head.status, head.headers))
    }

    async fn send(
        &self,
        sink: &Sink,
        request: &MakeRequest<'_>,
    ) -> Result<(Connection, Response<Incoming>), Stop> {
        if let Some(mut connection) = self.pool.take(sink.origin()) {
            match connection.send(request()).await {
                Ok(response) => return Ok((connection, response)),
                // The sink began to answer: another attempt would get the same.
                Err(error) if error.is_parse() => {
                    return Err(failed(FailureKind::Protocol, &error));
                }
                Err(_) => {}
            }
        }
        let mut connection = self.open(sink).await?;
        let response = connection.send(request()).await;
        let response = response.map_err(|error| failed(FailureKind::Protocol, &error))?;
        Ok((connection, response))
    }

    /// Opens a connection to one of the sink's addresses, once all of them are judged.
    async fn open(&self, sink: &Sink) -> Result<Connection, Stop> {
        let addresses = judged_addresses(sink, &*self.resolver, &self.policy).await;
        let stream = connect(&addresses.map_err(|error| match error {
            ResolveError::Refused(error) => Stop::Refused(error),
            error => failed(FailureKind::Lookup, &error),
        })?)
        .await?;
        let tls = self.tls.connect(sink.server_name().clone(), stream).await;
        let tls = tls.map_err(|error| failed(FailureKind::Tls, &error))?;
        let connection = Connection::new(tls, &self.tasks).await;
        connection.map_err(|error| failed(FailureKind::Protocol, &error))
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("origin", &self.origin).finish_non_exhaustive()
    }
}

fn late() -> Stop {
    failed(FailureKind::Timeout, &format_args!("longer than {EXCHANGE_TIME_MAX:?}"))
}

fn failed(kind: FailureKind, detail: &dyn std::fmt::Display) -> Stop {
    Stop::Failed(Failure::new(kind, detail))
}

/// A connection to the first address that accepts one.
async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, Stop> {
    let mut last = failed(FailureKind::Connect, &"no address");
    for address in addresses {
        match timeout(CONNECT_TIME_MAX, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Without it, small writes may wait. A socket that refuses the option still works.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = failed(FailureKind::Connect, &error),
            Err(_) => {
                last = failed(
                    FailureKind::Connect,
                    &format_args!("no connection within {CONNECT_TIME_MAX:?}"),
                );
            }
        }
    }
    Err(last)
}

/// Reads a body of at most [`BODY_BYTES_MAX`]; false if it is longer or breaks.
async fn ends_soon(body: Incoming) -> bool {
    let mut body = pin!(body);
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > BODY_BYTES_MAX || body.size_hint().lower() > BODY_BYTES_MAX as u64 {
            return false;
        }
    }
    true
}
