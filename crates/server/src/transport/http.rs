//! Connections of the HTTP port: a limited number, each with an idle timeout.
//!
//! **Invariant**: a connection that sends nothing, or an incomplete request, ends. HTTP connections
//! never take the file descriptors that gRPC needs.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, Instant, Sleep, sleep};

use crate::limits::Limits;

/// A listener with a maximum number of open connections. Each has an idle timeout.
#[derive(Debug)]
pub(crate) struct LimitedListener {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    idle_max: Duration,
}

/// A connection with an idle timeout. Each write restarts the timeout; a read after it fails with
/// `TimedOut`.
#[derive(Debug)]
pub(crate) struct IdleTimeoutStream {
    stream: TcpStream,
    _permit: Option<OwnedSemaphorePermit>,
    idle_max: Duration,
    until: Pin<Box<Sleep>>,
}

impl LimitedListener {
    pub(crate) fn new(listener: TcpListener, limits: &Limits) -> Self {
        let most = limits.http_connections_max.min(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(most));
        Self { listener, permits, idle_max: limits.http_idle_max }
    }
}

impl axum::serve::Listener for LimitedListener {
    type Io = IdleTimeoutStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (IdleTimeoutStream, SocketAddr) {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
        let idle_max = self.idle_max;
        (
            IdleTimeoutStream {
                stream,
                _permit: permit,
                idle_max,
                until: Box::pin(sleep(idle_max)),
            },
            address,
        )
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for IdleTimeoutStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        // Received bytes do not restart the timeout: only a response does.
        if self.until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for IdleTimeoutStream {
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
