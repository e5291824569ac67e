//! Serves a router to the connections of an HTTP address.
//!
//! **Invariant**: only an address for probes speaks HTTP/2, without TLS (kubelet's gRPC probes do), with windows that bound
//! what a connection holds.

use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::{either::Either, sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use crate::jitter::jittered;
use crate::limits::{
    CONNECTION_AGE_JITTER_PART, HTTP_DRAIN_MAX, Limits, PROBE_CONNECTION_WINDOW,
    PROBE_HEADER_LIST_MAX, PROBE_STREAM_WINDOW, PROBE_STREAMS_MAX,
};
use crate::telemetry::metrics::Metrics;
use crate::transport::http::{LimitedListener, LimitedStream};
use crate::transport::tls::{ClientCertificate, Tls};

/// What the connections of an address speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocols {
    /// HTTP/1.1.
    Http1,
    /// HTTP/1.1, or HTTP/2 from the first byte on.
    Http1AndHttp2,
}

/// How the connections of an address are secured.
#[derive(Clone, Debug)]
pub(crate) enum Security {
    Plain,
    Tls(Tls, Arc<Metrics>),
    /// Whichever the client begins with, for an address of this machine. In plain text this router answers.
    Either(Tls, Arc<Metrics>, Router),
}

type Stream = Either<LimitedStream, Box<TlsStream<LimitedStream>>>;

impl Security {
    /// The connection, and the certificate that its client has proved. `None` if there is no handshake. The deadlines of the stream hold for it.
    async fn open(&self, mut stream: LimitedStream) -> Option<(Stream, Option<ClientCertificate>)> {
        let (tls, metrics) = match self {
            Self::Plain => return Some((Either::Left(stream), None)),
            Self::Tls(tls, metrics) => (tls, metrics),
            Self::Either(tls, metrics, _) => match stream.first().await? {
                TLS_HANDSHAKE => (tls, metrics),
                _ => return Some((Either::Left(stream), None)),
            },
        };
        let made = tls.http().accept(stream, |_| ()).await;
        metrics.handshake(made.is_ok());
        let (stream, certificate) = made.ok()?;
        Some((Either::Right(Box::new(stream)), certificate))
    }
}

/// The first byte of a handshake of TLS (RFC 8446, section 5.1). No request of HTTP begins with it.
const TLS_HANDSHAKE: u8 = 22;

impl Protocols {
    fn builder(self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        match self {
            Self::Http1 => builder.http1_only(),
            Self::Http1AndHttp2 => {
                builder
                    .http2()
                    .timer(TokioTimer::new())
                    .max_concurrent_streams(PROBE_STREAMS_MAX)
                    .initial_stream_window_size(PROBE_STREAM_WINDOW)
                    .initial_connection_window_size(PROBE_CONNECTION_WINDOW)
                    .max_header_list_size(PROBE_HEADER_LIST_MAX);
                builder
            }
        }
    }
}

/// Serves until `stop`, each connection until its age at most, and while the certificate of its client counts: it ends behind the answer that is sent then. Then waits up to [`HTTP_DRAIN_MAX`] for connections to close: an idle
/// connection would delay the drain.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    protocols: Protocols,
    security: Security,
    limits: Limits,
    stop: CancellationToken,
) {
    let listener = LimitedListener::new(listener, &limits);
    let builder = protocols.builder();
    let (connections, end) = (TaskTracker::new(), CancellationToken::new());
    let _end = end.clone().drop_guard();
    let mut stopped = pin!(stop.cancelled());
    loop {
        let (stream, mut client) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stopped => break,
        };
        let router = router.clone();
        let (builder, security) = (builder.clone(), security.clone());
        let (leaving, end) = (stop.clone(), end.clone());
        let age = jittered(limits.connection_age, CONNECTION_AGE_JITTER_PART);
        let serving = async move {
            // Apart from the task, which keeps the size of a handshake of TLS for as long as it lives.
            let Some((stream, certificate)) = Box::pin(security.open(stream)).await else { return };
            let router = match (security, &stream) {
                (Security::Either(_, _, plain), Either::Left(_)) => plain,
                _ => router,
            };
            client.certificate.clone_from(&certificate);
            let service = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(ConnectInfo(client.clone()));
                router.clone().oneshot(request.map(Body::new))
            });
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            let mut connection = pin!(connection.into_owned());
            let leaves = timeout(age, leaving.cancelled());
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = leaves => {}
                () = refused(certificate) => {}
            }
            connection.as_mut().graceful_shutdown();
            // Its errors are those of its peer.
            let _ = connection.await;
        };
        // Not moved: each place that a future is moved to has room for it in the task.
        let serving = Box::pin(serving);
        connections.spawn(async move { end.run_until_cancelled(serving).await });
    }
    connections.close();
    let _ = timeout(HTTP_DRAIN_MAX, connections.wait()).await;
}

/// Waits until the certificate of a client counts no more.
async fn refused(certificate: Option<ClientCertificate>) {
    match certificate {
        Some(certificate) => certificate.refused().await,
        None => std::future::pending().await,
    }
}
