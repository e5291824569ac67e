//! Serves a router to the connections of an HTTP address.
//!
//! **Invariant**: only an address for probes speaks HTTP/2, without TLS (kubelet's gRPC probes do), with windows that bound
//! what a connection holds.

use std::pin::pin;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use crate::limits::{
    HTTP_DRAIN_MAX, Limits, PROBE_CONNECTION_WINDOW, PROBE_HEADER_LIST_MAX, PROBE_STREAM_WINDOW,
    PROBE_STREAMS_MAX,
};
use crate::transport::http::LimitedListener;

/// What the connections of an address speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocols {
    /// HTTP/1.1.
    Http1,
    /// HTTP/1.1, or HTTP/2 from the first byte on.
    Http1AndHttp2,
}

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

/// Serves until `stop`. Then waits up to [`HTTP_DRAIN_MAX`] for connections to close: an idle
/// connection would delay the drain.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    protocols: Protocols,
    limits: Limits,
    stop: CancellationToken,
) {
    let listener = LimitedListener::new(listener, &limits);
    let (builder, graceful) = (protocols.builder(), GracefulShutdown::new());
    let (connections, end) = (TaskTracker::new(), CancellationToken::new());
    let _end = end.clone().drop_guard();
    let mut stopped = pin!(stop.cancelled());
    loop {
        let (stream, client) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stopped => break,
        };
        let router = router.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(client));
            router.clone().oneshot(request.map(Body::new))
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let (connection, end) = (graceful.watch(connection), end.clone());
        // Its errors are those of its peer.
        connections.spawn(async move { end.run_until_cancelled(connection).await });
    }
    let _ = timeout(HTTP_DRAIN_MAX, graceful.shutdown()).await;
}
