//! An HTTP/2 connection that reconnects after the server has closed it, as servers do at a maximum age.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::Context as _;
use capstan_client::ServerAddress;
use h2::client::{Builder, SendRequest};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};
use tokio_util::either::Either;
use tonic::codegen::Bytes;

use super::code::{ErrorName, TRANSPORT};

/// Flow-control window, in bytes, of connections and streams: large enough that no response waits for
/// a window update.
const WINDOW_BYTES: u32 = 1 << 24;
/// The time limit for opening a connection, the HTTP/2 handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The wait after a failed reconnect.
const RECONNECT_WAIT: Duration = Duration::from_millis(20);

/// A connection of one thread, shared by its slots.
#[derive(Debug)]
pub(crate) struct Connection {
    address: ServerAddress,
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
    pub(crate) async fn open(address: &ServerAddress) -> anyhow::Result<Self> {
        let session = RefCell::new(handshake(address, 0).await?);
        let reconnecting = tokio::sync::Mutex::new(());
        Ok(Self { address: address.clone(), session, reconnecting })
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
        match handshake(&self.address, current.generation + 1).await {
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

async fn handshake(address: &ServerAddress, generation: u64) -> anyhow::Result<Session> {
    let unreachable = || format!("cannot reach {address}");
    let session = async {
        let (sender, connection) = Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .enable_push(false)
            .handshake(connect(address).await?)
            .await?;
        // The task ends with the connection; slots see the end when they next send a request.
        tokio::task::spawn_local(async { drop(connection.await) });
        anyhow::Ok(Session { generation, sender })
    };
    timeout(CONNECT_TIMEOUT, session).await.with_context(unreachable)?.with_context(unreachable)
}

async fn connect(address: &ServerAddress) -> std::io::Result<Either<TcpStream, UnixStream>> {
    Ok(match address.unix_path() {
        Some(path) => Either::Right(UnixStream::connect(path).await?),
        None => {
            let stream = TcpStream::connect(address.authority()).await?;
            stream.set_nodelay(true)?;
            Either::Left(stream)
        }
    })
}
