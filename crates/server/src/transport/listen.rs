//! Listeners of the gRPC addresses: TCP and unix sockets.
//!
//! **Invariant**: every address is bound before any document is loaded.

use std::fs::Permissions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::{fmt, io, net::SocketAddr, str::FromStr};

use anyhow::{Context as _, bail};
use rustix::fs::{Access, Mode};
use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::limits::KEEPALIVE_INTERVAL;
use crate::transport::connection::Remote;

/// An address of the gRPC server: `127.0.0.1:4480` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// IP address and port. Port 0 binds any free port.
    Tcp(SocketAddr),
    /// The path of a unix socket.
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

/// Who may connect to the unix sockets of `listen`. Without them the umask of the process says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketAccess {
    /// The permissions of the files, such as `0o660`.
    pub mode: Option<u32>,
    /// The group of the files, by its number. The process must be root or in it.
    pub group: Option<u32>,
}

/// What the peers of a listener may call. Health and reflection are everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Serves {
    Everything,
    /// Decisions, and Envoy's requests.
    Decisions,
    /// The methods that manage.
    Management,
}

impl SocketAccess {
    /// For the server's own user.
    pub(crate) const PRIVATE: Self = Self { mode: Some(PRIVATE), group: None };
}

/// A listener on a bound address.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
    /// The management socket. Its peers are the operator.
    Management(UnixListener, SocketFile),
}

/// The file of a unix socket. Dropped with the listener, it removes the file.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The file may have been removed by another process.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Binds an address.
    ///
    /// # Errors
    ///
    /// The address is in use, or may not be bound, or the access cannot be given.
    pub(crate) async fn bind(address: &Address, access: SocketAccess) -> anyhow::Result<Self> {
        match address {
            Address::Tcp(wanted) => {
                let listener = TcpListener::bind(wanted).await.with_context(|| {
                    format!(
                        "cannot listen on {wanted} (another address: --listen, --listen-management; port 0 picks a free one)"
                    )
                })?;
                let bound = listener.local_addr()?;
                Ok(Self::Tcp(listener, bound))
            }
            Address::Unix(path) => {
                remove_stale(path).await?;
                let listener = bind_unix(path, access)
                    .with_context(|| format!("cannot listen on unix:{}", path.display()))?;
                Ok(Self::Unix(listener, SocketFile(path.clone())))
            }
        }
    }

    /// Binds the management socket. Its file is readable and writable for its owner only, from the start.
    ///
    /// # Errors
    ///
    /// The path is in use, or may not be bound; or others may open it.
    pub(crate) async fn bind_management(path: &PathBuf) -> anyhow::Result<Self> {
        remove_stale(path).await?;
        let listener = bind_unix(path, SocketAccess::PRIVATE).with_context(|| {
            format!("cannot listen on unix:{} (another path: --management)", path.display())
        })?;
        let file = SocketFile(path.clone());
        let mode = std::fs::symlink_metadata(path)?.permissions().mode() & 0o777;
        if mode != PRIVATE {
            bail!(
                "{} has mode {mode:o} instead of {PRIVATE:o}: choose another path",
                path.display()
            );
        }
        Ok(Self::Management(listener, file))
    }

    /// The bound address, with the port that the system chose.
    pub(crate) fn address(&self) -> Address {
        match self {
            Self::Tcp(_, address) => Address::Tcp(*address),
            Self::Unix(_, file) | Self::Management(_, file) => Address::Unix(file.0.clone()),
        }
    }
}

/// The mode of the management socket: for its owner only.
const PRIVATE: u32 = 0o600;

/// Connections that wait to be accepted, as the standard library has it.
const BACKLOG: i32 = 128;

/// Binds a unix socket. If its access is given, the file is its owner's alone when it is made, and nobody can connect before the
/// rest is set: set later, it would leave a moment in which others could.
fn bind_unix(path: &PathBuf, access: SocketAccess) -> anyhow::Result<UnixListener> {
    let SocketAccess { mode, group } = access;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if mode.is_some() || group.is_some() {
        rustix::fs::fchmod(&socket, Mode::from_raw_mode(PRIVATE))?;
    }
    socket.bind(&SockAddr::unix(path)?)?;
    if let Some(group) = group {
        std::os::unix::fs::lchown(path, None, Some(group))
            .with_context(|| format!("cannot give it to group {group} (--socket-group)"))?;
    }
    // A group without a mode may connect, as its owner may.
    if let Some(mode) = mode.or_else(|| group.map(|_| 0o660)).filter(|mode| *mode != PRIVATE) {
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(UnixListener::from_std(OwnedFd::from(socket).into())?)
}

/// Looks whether a unix socket could be made at a path, and makes none. A socket that is there stays, whether a server listens on it or not.
///
/// # Errors
///
/// The path is too long, something else is there, or its folder is missing or cannot be written.
pub(crate) fn look(path: &Path) -> anyhow::Result<()> {
    let cannot = || format!("cannot listen on unix:{}", path.display());
    SockAddr::unix(path).with_context(cannot)?;
    ensure_no_other(path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)
        .with_context(|| format!("{}: {}", cannot(), folder.display()))
}

/// Refuses a path where something else than a socket is.
fn ensure_no_other(path: &Path) -> anyhow::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            bail!("{} is there and is no socket: choose another path", path.display());
        }
        _ => Ok(()),
    }
}

/// Removes a socket file without a listener: a killed server leaves one behind. Any other file
/// stays.
///
/// # Errors
///
/// The path is no socket, another server listens on it, or it cannot be removed.
async fn remove_stale(path: &PathBuf) -> anyhow::Result<()> {
    ensure_no_other(path)?;
    match UnixStream::connect(path).await {
        Ok(_) => bail!("unix:{} is in use by another server", path.display()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
                .with_context(|| format!("cannot remove the stale socket {}", path.display()))
        }
        // The path does not exist, or cannot be opened. Binding reports the error.
        Err(_) => Ok(()),
    }
}

/// An accepted connection without a runtime: it is accepted in one runtime and served in another.
#[derive(Debug)]
pub(crate) enum Accepted {
    Tcp(std::net::TcpStream, SocketAddr),
    /// A connection of a unix socket, with its other end.
    Unix(std::os::unix::net::UnixStream, Remote),
}

impl Accepted {
    /// The address of the peer.
    pub(crate) const fn remote(&self) -> Remote {
        match self {
            Self::Tcp(_, address) => Remote::Ip(*address),
            Self::Unix(_, remote) => *remote,
        }
    }
}

impl Listener {
    /// Accepts the next connection.
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener, _) => {
                let (stream, remote) = listener.accept().await?;
                // Nagle's algorithm would delay responses by up to 40 ms.
                stream.set_nodelay(true)?;
                let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_INTERVAL);
                SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                stream.into_std().map(|stream| Accepted::Tcp(stream, remote))
            }
            Self::Unix(listener, _) => accept_unix(listener, Remote::Process).await,
            Self::Management(listener, _) => accept_unix(listener, Remote::Operator).await,
        }
    }
}

/// Accepts the next connection of a unix socket.
async fn accept_unix(
    listener: &UnixListener,
    remote: fn(Option<i32>) -> Remote,
) -> io::Result<Accepted> {
    let (stream, _) = listener.accept().await?;
    let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
    stream.into_std().map(|stream| Accepted::Unix(stream, remote(process)))
}
