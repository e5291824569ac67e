//! Connections of the HTTP port: a limited number, a share for each peer, and a deadline for each step.
//!
//! ```text
//! idle ─ first byte ─▶ head ─ first byte of the answer ─▶ answer ─ first byte of the next head ─▶ …
//! ```
//!
//! **Invariants**: no step lasts longer than its limit, however slowly bytes arrive or are read. A new
//! connection always gets a place: at the limit, the oldest one that is not being answered yields. So
//! slow connections cannot keep out probes. HTTP connections never take the file descriptors that gRPC
//! needs.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Duration, Instant, Sleep, sleep};

use crate::limits::{ACCEPT_PAUSE, Limits};
use crate::transport::connection::Remote;
use crate::transport::peers::{Peer, Peers};
use crate::transport::tls::ClientCertificate;

/// A listener whose connections have limits.
#[derive(Debug)]
pub(crate) struct LimitedListener {
    listener: TcpListener,
    open: Arc<Open>,
}

/// All open connections.
#[derive(Debug)]
struct Open {
    /// The oldest first.
    connections: Mutex<VecDeque<Arc<State>>>,
    peers: Peers,
    limits: Limits,
}

/// What others see of a connection.
#[derive(Debug)]
struct State {
    is_answered: AtomicBool,
    yields: AtomicBool,
    /// The task that waits for the connection.
    task: AtomicWaker,
}

/// A connection with a deadline for each step. A read or write after it fails with `TimedOut`.
#[derive(Debug)]
pub(crate) struct LimitedStream {
    stream: TcpStream,
    step: Step,
    until: Pin<Box<Sleep>>,
    state: Arc<State>,
    peer: Peer,
    open: Arc<Open>,
}

/// The client of a connection, for the handlers of its requests.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) remote: Remote,
    /// That it has proved.
    pub(crate) certificate: Option<ClientCertificate>,
}

impl Client {
    pub(crate) fn peer(&self) -> Peer {
        Peer::of(Some(&self.remote))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Waits for a request.
    Idle,
    /// Part of a request has arrived.
    Head,
    /// Part of the answer was sent.
    Answer,
}

impl LimitedListener {
    pub(crate) fn new(listener: TcpListener, limits: &Limits) -> Self {
        let (connections, peers) = (Mutex::default(), Peers::default());
        Self { listener, open: Arc::new(Open { connections, peers, limits: *limits }) }
    }

    /// The next connection that has a place. An accept that fails is tried again after [`ACCEPT_PAUSE`].
    pub(crate) async fn accept(&self) -> (LimitedStream, Client) {
        loop {
            let (stream, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(_) => {
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let client = Client { remote: Remote::Ip(address), certificate: None };
            let peer = client.peer();
            let Some(state) = self.open.place(peer) else { continue };
            let until = Box::pin(sleep(self.open.limits.http_idle_max));
            let open = Arc::clone(&self.open);
            let stream = LimitedStream { stream, step: Step::Idle, until, state, peer, open };
            return (stream, client);
        }
    }
}

impl Open {
    fn connections(&self) -> MutexGuard<'_, VecDeque<Arc<State>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection; `None` if the peer has its share, or all others are being answered.
    fn place(&self, peer: Peer) -> Option<Arc<State>> {
        if !self.peers.try_acquire(peer, self.limits.http_peer_connections_max) {
            return None;
        }
        let mut connections = self.connections();
        if connections.len() >= self.limits.http_connections_max {
            let oldest = connections.iter().position(|state| !state.is_answered.load(Relaxed));
            let Some(oldest) = oldest.and_then(|at| connections.remove(at)) else {
                drop(connections);
                self.peers.release(peer);
                return None;
            };
            oldest.yields.store(true, Relaxed);
            oldest.task.wake();
        }
        let state = Arc::new(State {
            is_answered: AtomicBool::new(false),
            yields: AtomicBool::new(false),
            task: AtomicWaker::new(),
        });
        connections.push_back(Arc::clone(&state));
        Some(state)
    }
}

impl Drop for LimitedStream {
    fn drop(&mut self) {
        self.open.connections().retain(|other| !Arc::ptr_eq(other, &self.state));
        self.open.peers.release(self.peer);
    }
}

impl LimitedStream {
    /// The first byte of the first request, which stays to be read. `None` if none comes in time.
    pub(crate) async fn first(&mut self) -> Option<u8> {
        let mut first = [0];
        let peeked = poll_fn(|cx| {
            self.check(cx)?;
            self.stream.poll_peek(cx, &mut ReadBuf::new(&mut first))
        });
        let peeked = peeked.await;
        matches!(peeked, Ok(1)).then_some(first[0])
    }

    /// Begins a step, with its own deadline.
    fn begin(&mut self, step: Step, most: Duration) {
        self.step = step;
        self.until.as_mut().reset(Instant::now() + most);
        self.state.is_answered.store(step == Step::Answer, Relaxed);
    }

    /// Fails if the deadline has passed, or if the connection must yield. If not, the task wakes for
    /// either.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.state.task.register(cx.waker());
        if self.until.as_mut().poll(cx).is_ready() || self.state.yields.load(Relaxed) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl AsyncRead for LimitedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        // Further bytes of a head do not move its deadline.
        if buffer.filled().len() > before && self.step != Step::Head {
            let most = self.open.limits.http_head_max;
            self.begin(Step::Head, most);
        }
        read
    }
}

impl AsyncWrite for LimitedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.step != Step::Answer {
            let most = self.open.limits.http_idle_max;
            self.begin(Step::Answer, most);
        }
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            // The answer is in the hands of the system, as far as it was given. The deadline stays: it
            // is that of the answer, and of the wait for the next request.
            self.state.is_answered.store(false, Relaxed);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
