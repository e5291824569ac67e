//! Addresses to listen on: TCP and unix sockets, bound before anything is loaded.

use std::os::unix::fs::FileTypeExt as _;
use std::{fmt, io, net::SocketAddr, path::PathBuf, str::FromStr};

use anyhow::{Context as _, bail};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::limits::KEEPALIVE_INTERVAL;
use crate::transport::connection::Remote;

/// An address of the gRPC server: `127.0.0.1:4480` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// IP address and port; port 0 picks a free one.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("a path after `unix:`".into()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| "expected IP:PORT such as 127.0.0.1:4480, or unix:PATH".into()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A bound address.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
}

/// The file of a unix socket, removed when nobody listens any more.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nothing to do about a file that somebody else removed first.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    pub(crate) async fn bind(address: &Address) -> anyhow::Result<Self> {
        match address {
            Address::Tcp(wanted) => {
                let listener = TcpListener::bind(wanted).await.with_context(|| {
                    format!("cannot listen on {wanted} (another address: --listen; port 0 picks a free one)")
                })?;
                let bound = listener.local_addr()?;
                Ok(Self::Tcp(listener, bound))
            }
            Address::Unix(path) => {
                remove_stale(path).await?;
                let listener = UnixListener::bind(path)
                    .with_context(|| format!("cannot listen on unix:{}", path.display()))?;
                Ok(Self::Unix(listener, SocketFile(path.clone())))
            }
        }
    }

    /// The address, with the port that was picked.
    pub(crate) fn address(&self) -> Address {
        match self {
            Self::Tcp(_, address) => Address::Tcp(*address),
            Self::Unix(_, file) => Address::Unix(file.0.clone()),
        }
    }
}

/// A socket file that nobody listens on is what a killed server leaves behind. Anything else that
/// stands there is somebody's, and stays.
async fn remove_stale(path: &PathBuf) -> anyhow::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            bail!("{} is there and is no socket: choose another path", path.display());
        }
        _ => {}
    }
    match UnixStream::connect(path).await {
        Ok(_) => bail!("unix:{} is in use by another server", path.display()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
                .with_context(|| format!("cannot remove the stale socket {}", path.display()))
        }
        // Not there, or not a socket: binding says what is wrong.
        Err(_) => Ok(()),
    }
}

/// A connection between runtimes: accepted in one, served in another.
#[derive(Debug)]
pub(crate) enum Accepted {
    Tcp(std::net::TcpStream, SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}

impl Accepted {
    pub(crate) const fn remote(&self) -> Remote {
        Remote(match self {
            Self::Tcp(_, address) => Some(*address),
            Self::Unix(_) => None,
        })
    }
}

impl Listener {
    /// The next connection.
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener, _) => {
                let (stream, remote) = listener.accept().await?;
                // Nagle's algorithm would keep answers back for 40 ms.
                stream.set_nodelay(true)?;
                let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_INTERVAL);
                SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                stream.into_std().map(|stream| Accepted::Tcp(stream, remote))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                stream.into_std().map(Accepted::Unix)
            }
        }
    }
}
