//! An HTTP/2 connection that reconnects after the server has closed it, as servers do at a maximum age.
//!
//! **Invariant**: an `https` address is asked with TLS, and nothing is sent in plain text instead.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use capstan_client::ServerAddress;
use capstan_client::connector::{Protocol, TlsConnector, TlsStream};
use h2::Ping;
use h2::client::{Builder, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};
use tokio_util::either::Either;
use tonic::codegen::Bytes;
use tonic::codegen::http::Request;

use super::code::{ErrorName, TRANSPORT};
use super::{Access, MeasuredServer, Mode};

/// Flow-control window, in bytes, of connections and streams: large enough that no response waits for
/// a window update.
const WINDOW_BYTES: u32 = 1 << 24;
/// The time limit for opening a connection, the HTTP/2 handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The wait after a failed reconnect.
const RECONNECT_WAIT: Duration = Duration::from_millis(20);

/// What connections are opened to, and the headers of every request.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: ServerAddress,
    pub(crate) access: Access,
    pub(crate) head: Request<()>,
    /// `None` where the address has no TLS.
    tls: Option<TlsConnector>,
}

impl Target {
    /// # Errors
    ///
    /// Options of TLS or a credential that cannot be used.
    pub(crate) fn of(server: &MeasuredServer, mode: Mode) -> anyhow::Result<Self> {
        let MeasuredServer { address, access, .. } = server.clone();
        let connector = || TlsConnector::new(&access.tls, address.host(), Protocol::Http2);
        let tls = address.is_tls().then(connector).transpose()?;
        let scheme = if address.is_tls() { "https" } else { "http" };
        let mut head = Request::post(format!("{scheme}://{}{}", address.authority(), mode.path()))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        if let Some(credential) = &access.credential {
            let mut proof = tonic::Request::new(());
            credential.add_to(&mut proof)?;
            head.headers_mut().extend(proof.into_parts().0.into_headers());
        }
        Ok(Self { address, access, head, tls })
    }
}

/// A connection of one thread, shared by its slots.
#[derive(Debug)]
pub(crate) struct Connection {
    target: Target,
    session: RefCell<Session>,
    /// At most one slot reconnects at a time.
    reconnecting: tokio::sync::Mutex<()>,
}

/// One HTTP/2 session of a [`Connection`].
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// 0 for the first session of a connection, one more for each reconnect.
    generation: u64,
    pub(crate) sender: SendRequest<Bytes>,
}

impl Connection {
    /// # Errors
    ///
    /// The server cannot be reached within [`CONNECT_TIMEOUT`].
    pub(crate) async fn open(target: &Target) -> anyhow::Result<Self> {
        let session = RefCell::new(handshake(target, 0).await?);
        let reconnecting = tokio::sync::Mutex::new(());
        Ok(Self { target: target.clone(), session, reconnecting })
    }

    /// The current session.
    pub(crate) fn session(&self) -> Session {
        self.session.borrow().clone()
    }

    /// A session newer than this broken one. The first slot that asks for it opens it.
    ///
    /// # Errors
    ///
    /// The reconnect failed; this returns [`RECONNECT_WAIT`] later.
    pub(crate) async fn session_after(&self, broken: &Session) -> Result<Session, ErrorName> {
        let _guard = self.reconnecting.lock().await;
        let current = self.session();
        if current.generation > broken.generation {
            return Ok(current);
        }
        match handshake(&self.target, current.generation + 1).await {
            Ok(session) => {
                self.session.replace(session.clone());
                Ok(session)
            }
            Err(_) => {
                sleep(RECONNECT_WAIT).await;
                Err(TRANSPORT)
            }
        }
    }
}

async fn handshake(target: &Target, generation: u64) -> anyhow::Result<Session> {
    let unreachable = || format!("cannot reach {}", target.address);
    let sender = async {
        match connect(target).await? {
            Either::Left(stream) => start(stream, false).await,
            Either::Right(stream) => start(stream, true).await,
        }
    };
    let sender = timeout(CONNECT_TIMEOUT, sender).await;
    let sender = sender.with_context(unreachable)?.with_context(unreachable)?;
    Ok(Session { generation, sender })
}

/// Starts HTTP/2. `answers`: only once the server has answered. In TLS 1.3 it refuses a client's certificate after the handshake.
async fn start(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    answers: bool,
) -> anyhow::Result<SendRequest<Bytes>> {
    let (sender, mut connection) = Builder::new()
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .enable_push(false)
        .handshake(stream)
        .await?;
    if answers && let Some(mut pings) = connection.ping_pong() {
        tokio::select! {
            biased;
            ended = &mut connection => {
                ended?;
                return Err(anyhow!("the server has closed the connection"));
            }
            answered = pings.ping(Ping::opaque()) => {
                answered?;
            }
        }
    }
    // The task ends with the connection; slots see the end when they next send a request.
    tokio::task::spawn_local(async { drop(connection.await) });
    Ok(sender)
}

type Plain = Either<TcpStream, UnixStream>;

/// A connection without TLS, or with it.
async fn connect(target: &Target) -> std::io::Result<Either<Plain, TlsStream<TcpStream>>> {
    if let Some(path) = target.address.unix_path() {
        return Ok(Either::Left(Either::Right(UnixStream::connect(path).await?)));
    }
    let stream = TcpStream::connect(target.address.authority()).await?;
    stream.set_nodelay(true)?;
    Ok(match &target.tls {
        Some(tls) => Either::Right(tls.connect(stream).await?),
        None => Either::Left(Either::Left(stream)),
    })
}
