//! The HTTP side: liveness, readiness and metrics.
//!
//! **Invariant**: connections that say nothing, or half of something, end, and never take the file
//! descriptors that gRPC needs.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::{Router, extract::State, routing::get};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Duration, Instant, Sleep, sleep};

use crate::limits::Limits;
use crate::telemetry::metrics::{self, Metrics};

/// Whether questions can be answered now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    Ready,
    Draining,
}

pub(crate) fn router(phase: watch::Receiver<Phase>, metrics: &Arc<Metrics>) -> Router {
    let registry = Arc::new(metrics::registry(metrics));
    Router::new()
        .route("/metrics", get(scrape))
        .with_state(registry)
        // Live means that the event loop turns, whatever the policy's state.
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(phase)
}

async fn ready(State(phase): State<watch::Receiver<Phase>>) -> (StatusCode, &'static str) {
    match *phase.borrow() {
        Phase::Ready => (StatusCode::OK, "ok\n"),
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting: loading the policy\n"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

async fn scrape(State(registry): State<Arc<Registry>>) -> impl IntoResponse {
    // Writing into a string does not fail; an empty answer would look like a server without calls.
    match metrics::scrape(&registry) {
        Ok(text) => Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text)),
        Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

// === Connections ===

/// Takes so many connections at once, and none that is idle for long.
#[derive(Debug)]
pub(crate) struct Limited {
    listener: TcpListener,
    places: Arc<Semaphore>,
    idle_max: Duration,
}

/// A connection with an end: unless it is answered in time, again and again.
#[derive(Debug)]
pub(crate) struct Answered {
    stream: TcpStream,
    _place: Option<OwnedSemaphorePermit>,
    idle_max: Duration,
    until: Pin<Box<Sleep>>,
}

impl Limited {
    pub(crate) fn new(listener: TcpListener, limits: &Limits) -> Self {
        let most = limits.http_connections_max.min(Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(most));
        Self { listener, places, idle_max: limits.http_idle_max }
    }
}

impl axum::serve::Listener for Limited {
    type Io = Answered;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Answered, SocketAddr) {
        // Nobody closes the semaphore.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
        let idle_max = self.idle_max;
        (Answered { stream, _place: place, idle_max, until: Box::pin(sleep(idle_max)) }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for Answered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        // Bytes that come one by one are no answer.
        if self.until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Answered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if written.is_ready() {
            let until = Instant::now() + self.idle_max;
            self.until.as_mut().reset(until);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
