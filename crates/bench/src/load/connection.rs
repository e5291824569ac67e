//! An HTTP/2 connection that is made again when the server closes it, as it does at some age.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use h2::client::{Builder, SendRequest};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};
use tokio_util::either::Either;
use tonic::codegen::Bytes;

use super::tally::{Code, TRANSPORT};
use capstan_server::limits::CONNECT_TIMEOUT;

/// Bytes that the server may send before the generator has read them: answers never wait for leave.
const WINDOW_BYTES: u32 = 1 << 24;
/// How long to wait after a connection could not be made.
const RETRY: Duration = Duration::from_millis(20);

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Tcp(String),
    Unix(PathBuf),
}

impl Endpoint {
    /// Of `http://HOST:PORT`, `HOST:PORT` or `unix:PATH`.
    pub fn parse(address: &str) -> Result<Self, String> {
        if let Some(path) = address.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let authority = address.strip_prefix("http://").unwrap_or(address);
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let has_port = authority.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok()
        });
        let expected = || format!("`{address}` is no address: http://HOST:PORT or unix:PATH");
        if has_port { Ok(Self::Tcp(authority.into())) } else { Err(expected()) }
    }

    /// Who is asked, as HTTP/2 has it.
    pub fn authority(&self) -> &str {
        match self {
            Self::Tcp(authority) => authority,
            Self::Unix(_) => "localhost",
        }
    }

    async fn connect(&self) -> std::io::Result<Either<TcpStream, UnixStream>> {
        Ok(match self {
            Self::Tcp(authority) => {
                let stream = TcpStream::connect(authority).await?;
                stream.set_nodelay(true)?;
                Either::Left(stream)
            }
            Self::Unix(path) => Either::Right(UnixStream::connect(path).await?),
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A connection of one thread, shared by its lanes.
#[derive(Debug)]
pub struct Connection {
    endpoint: Endpoint,
    link: RefCell<Link>,
    connecting: tokio::sync::Mutex<()>,
}

/// One HTTP/2 connection, and which it is of those that were made one after the other.
#[derive(Clone, Debug)]
pub struct Link {
    generation: u64,
    pub sender: SendRequest<Bytes>,
}

impl Connection {
    pub async fn open(endpoint: &Endpoint) -> anyhow::Result<Self> {
        let link = RefCell::new(handshake(endpoint, 0).await?);
        Ok(Self { endpoint: endpoint.clone(), link, connecting: tokio::sync::Mutex::new(()) })
    }

    pub fn link(&self) -> Link {
        self.link.borrow().clone()
    }

    /// Another link than this broken one, made by whoever comes first.
    pub async fn link_after(&self, broken: &Link) -> Result<Link, Code> {
        let _one_at_a_time = self.connecting.lock().await;
        let current = self.link();
        if current.generation > broken.generation {
            return Ok(current);
        }
        match handshake(&self.endpoint, current.generation + 1).await {
            Ok(link) => {
                self.link.replace(link.clone());
                Ok(link)
            }
            Err(_) => {
                sleep(RETRY).await;
                Err(TRANSPORT)
            }
        }
    }
}

async fn handshake(endpoint: &Endpoint, generation: u64) -> anyhow::Result<Link> {
    let unreachable = || format!("cannot reach {endpoint}");
    let link = async {
        let stream = endpoint.connect().await?;
        let (sender, connection) = Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .enable_push(false)
            .handshake(stream)
            .await?;
        // Ends with its lanes: they see it by what they send next.
        tokio::task::spawn_local(async { drop(connection.await) });
        anyhow::Ok(Link { generation, sender })
    };
    timeout(CONNECT_TIMEOUT, link).await.with_context(unreachable)?.with_context(unreachable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_other_commands() {
        let tcp = |authority: &str| Ok(Endpoint::Tcp(authority.into()));
        assert_eq!(Endpoint::parse("http://127.0.0.1:4480"), tcp("127.0.0.1:4480"));
        assert_eq!(Endpoint::parse("http://[::1]:4480/"), tcp("[::1]:4480"));
        assert_eq!(Endpoint::parse("localhost:4480"), tcp("localhost:4480"));
        assert_eq!(Endpoint::parse("unix:/run/x"), Ok(Endpoint::Unix("/run/x".into())));
        for other in ["", "unix:", "https://host:1", "host", "http://host", "http://a/b:1", ":1"] {
            assert!(Endpoint::parse(other).is_err(), "{other}");
        }
    }
}
