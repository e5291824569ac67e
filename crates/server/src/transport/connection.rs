//! A gRPC connection in its worker: TCP, with TLS or without, or a unix socket. It holds a permit until it closes.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Duration, Instant, Sleep, sleep_until, timeout_at};
use tokio_rustls::server::TlsStream;

use crate::limits::TLS_BUFFER_MAX;
use crate::transport::listen::Accepted;
use crate::transport::peers::{Peer, Peers};
use crate::transport::seats::{Seat, Seats};
use crate::transport::tls::{ClientCertificate, HandshakeLimited, Tls};

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remote {
    /// The address of a TCP connection.
    Ip(SocketAddr),
    /// The process that has opened a unix socket, by its id; `None` if the system does not say.
    Process(Option<i32>),
    /// The same of the management socket: the operator.
    Operator(Option<i32>),
}

impl Remote {
    /// Whether it is on this machine.
    pub(crate) fn is_of_this_machine(self) -> bool {
        match self {
            Self::Ip(address) => address.ip().to_canonical().is_loopback(),
            Self::Process(_) | Self::Operator(_) => true,
        }
    }
}

impl std::fmt::Display for Remote {
    /// The address without its port, which changes with each connection, or `unix`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(address) => address.ip().to_canonical().fmt(f),
            Self::Process(_) | Self::Operator(_) => f.write_str("unix"),
        }
    }
}

/// What passes through a connection, for the task that drives it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic(Arc<TrafficCounts>);

#[derive(Debug, Default)]
struct TrafficCounts {
    received: AtomicU64,
    sent: AtomicU64,
    is_blocked: AtomicBool,
}

impl Traffic {
    /// The bytes received so far.
    pub(crate) fn received(&self) -> u64 {
        self.0.received.load(Relaxed)
    }

    /// The bytes sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.0.sent.load(Relaxed)
    }

    /// Whether the peer does not read: the last write found no room in the socket's buffer.
    pub(crate) fn is_blocked(&self) -> bool {
        self.0.is_blocked.load(Relaxed)
    }

    /// Notes whether the peer does not read.
    fn is_blocked_as(&self, is_blocked: bool) {
        // Only the task of the connection writes, so no other thread changes this.
        if is_blocked != self.is_blocked() {
            self.0.is_blocked.store(is_blocked, Relaxed);
        }
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.is_blocked_as(written.is_pending());
        if let Poll::Ready(Ok(bytes)) = &written {
            self.0.sent.fetch_add(*bytes as u64, Relaxed);
        }
        written
    }
}

/// The number of open connections of one worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionCount(Arc<AtomicUsize>);

/// The permit of one open connection. Dropped, it releases the connection in the worker's count and
/// in the peer's.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    /// Released in `drop`, before others are told.
    permit: Option<OwnedSemaphorePermit>,
    count: Arc<AtomicUsize>,
    peers: Arc<Peers>,
    peer: Peer,
    seats: Arc<Seats>,
    seat: Arc<Seat>,
}

impl ConnectionPermit {
    /// Waits until the connection is asked to yield to another one.
    pub(crate) fn yielded(&self) -> impl Future<Output = ()> + use<> {
        let seat = Arc::clone(&self.seat);
        poll_fn(move |cx| {
            seat.register(cx.waker());
            if seat.yields() { Poll::Ready(()) } else { Poll::Pending }
        })
    }
}

impl ConnectionCount {
    pub(crate) fn get(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// Counts one more connection. The peer's count must already hold it.
    pub(crate) fn track(
        &self,
        permit: OwnedSemaphorePermit,
        (peers, peer): (&Arc<Peers>, Peer),
        seats: &Arc<Seats>,
    ) -> ConnectionPermit {
        self.0.fetch_add(1, Relaxed);
        ConnectionPermit {
            permit: Some(permit),
            count: Arc::clone(&self.0),
            peers: Arc::clone(peers),
            peer,
            seats: Arc::clone(seats),
            seat: seats.add(peer),
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Relaxed);
        self.peers.release(self.peer);
        self.permit = None;
        self.seats.remove(&self.seat);
    }
}

/// An accepted connection, registered with its worker's runtime.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    remote: Remote,
    /// Of the client, if it has proved one.
    certificate: Option<ClientCertificate>,
    traffic: Traffic,
    /// `None` once the connection preface has arrived.
    preface: Option<PrefaceTimeout>,
    permit: ConnectionPermit,
}

/// The rest of the connection preface, and the timeout for it. Without it a silent connection would
/// stay open for ever.
#[derive(Debug)]
struct PrefaceTimeout {
    missing_bytes: usize,
    until: Pin<Box<Sleep>>,
}

/// Bytes of the HTTP/2 connection preface (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Tls(Box<TlsStream<HandshakeLimited<TcpStream>>>),
    Unix(UnixStream),
}

impl Connection {
    /// Registers the connection with the current runtime, and makes the handshake of TLS if it is TCP and there is
    /// TLS. A read fails with `TimedOut` if the connection preface does not arrive within `greeting_max`, counted from here.
    ///
    /// # Errors
    ///
    /// The runtime cannot register the socket, or there is no handshake within `greeting_max`.
    pub(crate) async fn open(
        (accepted, permit): (Accepted, ConnectionPermit),
        tls: Option<&Tls>,
        greeting_max: Duration,
    ) -> io::Result<Self> {
        let remote = accepted.remote();
        let until = Instant::now() + greeting_max;
        let mut certificate = None;
        let socket = match (accepted, tls) {
            (Accepted::Tcp(stream, _), Some(tls)) => {
                let stream = HandshakeLimited::new(TcpStream::from_std(stream)?);
                let handshake = tls.grpc().accept(stream, HandshakeLimited::end);
                let (stream, proved) = timeout_at(until, handshake).await??;
                certificate = proved;
                Socket::Tls(Box::new(stream))
            }
            (Accepted::Tcp(stream, _), None) => Socket::Tcp(TcpStream::from_std(stream)?),
            (Accepted::Unix(stream, ..), _) => Socket::Unix(UnixStream::from_std(stream)?),
        };
        let preface =
            PrefaceTimeout { missing_bytes: PREFACE_BYTES, until: Box::pin(sleep_until(until)) };
        let traffic = Traffic::default();
        Ok(Self { socket, remote, certificate, traffic, preface: Some(preface), permit })
    }
}

impl Connection {
    /// The remote address.
    pub(crate) const fn remote(&self) -> Remote {
        self.remote
    }

    /// The certificate that the client has proved.
    pub(crate) fn certificate(&self) -> Option<ClientCertificate> {
        self.certificate.clone()
    }

    /// The most that TLS holds encrypted for a peer that does not read.
    pub(crate) fn held(&self) -> usize {
        match self.socket {
            Socket::Tls(_) if self.traffic.is_blocked() => TLS_BUFFER_MAX,
            Socket::Tls(_) | Socket::Tcp(_) | Socket::Unix(_) => 0,
        }
    }

    /// The connection among all.
    pub(crate) fn seat(&self) -> Arc<Seat> {
        Arc::clone(&self.permit.seat)
    }

    /// What passes through the connection, from now on.
    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic.clone()
    }
}

/// The same expression for either kind of socket.
macro_rules! either {
    ($self:expr, $stream:ident => $does:expr) => {
        match &mut $self.get_mut().socket {
            Socket::Tcp(stream) => {
                let $stream = Pin::new(stream);
                $does
            }
            Socket::Tls(stream) => {
                let $stream = Pin::new(&mut **stream);
                $does
            }
            Socket::Unix(stream) => {
                let $stream = Pin::new(stream);
                $does
            }
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.traffic.is_blocked() {
            // What this peer sends would only become answers that it does not read. The write wakes
            // the task, which then reads.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = either!(self.as_mut(), stream => stream.poll_read(cx, buffer));
        let bytes = buffer.filled().len() - before;
        if bytes > 0 {
            self.traffic.0.received.fetch_add(bytes as u64, Relaxed);
        }
        if let Some(preface) = &mut self.preface {
            preface.missing_bytes = preface.missing_bytes.saturating_sub(bytes);
            if preface.missing_bytes == 0 {
                self.preface = None;
            } else if read.is_pending() && preface.until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = either!(self.as_mut(), stream => stream.poll_write(cx, bytes));
        self.traffic.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = either!(self.as_mut(), stream => stream.poll_write_vectored(cx, slices));
        self.traffic.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Sends what TLS holds encrypted. Others hold nothing.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Socket::Tls(stream) = &mut self.socket else { return Poll::Ready(Ok(())) };
        let flushed = Pin::new(&mut **stream).poll_flush(cx);
        self.traffic.is_blocked_as(flushed.is_pending());
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(cx))
    }
}
