//! Addresses of a name, judged.
//!
//! ```text
//! name ─▶ Resolve ─▶ at most 32 addresses ─▶ policy judges each ─▶ all allowed: these, and no others, are connected to
//!                                                               └▶ one is not: the name is refused
//! ```
//!
//! **Invariants**: what is connected to was judged; nothing resolves the name again between the two. A lookup that hangs
//! keeps its place among [`LOOKUPS_MAX`], so that lookups cannot take all threads.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::guard::{AddressError, Policy};
use crate::limits::{ADDRESSES_MAX, LOOKUP_TIME_MAX, LOOKUPS_MAX};
use crate::sink::{Sink, SinkHost};

/// The answer of a lookup, later.
pub type Lookup<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Finds the addresses of a name.
pub trait Resolve: fmt::Debug + Send + Sync {
    /// All addresses of the name. The caller limits the time and the number of addresses, and judges them.
    fn resolve<'a>(&'a self, name: &'a str) -> Lookup<'a>;
}

/// The resolver of the system (`getaddrinfo`): `/etc/hosts`, search domains and DNS, as for other programs.
#[derive(Debug)]
pub struct SystemResolver {
    places: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> Lookup<'a> {
        Box::pin(async move {
            let place = Arc::clone(&self.places).acquire_owned().await;
            let place = place.map_err(io::Error::other)?;
            let name = name.to_owned();
            let lookup = tokio::task::spawn_blocking(move || {
                let addresses = (name, 0).to_socket_addrs();
                drop(place);
                addresses
            });
            let mut found: Vec<IpAddr> = Vec::new();
            for address in lookup.await.map_err(io::Error::other)?? {
                if !found.contains(&address.ip()) {
                    found.push(address.ip());
                }
                // The caller refuses more, and the search above is quadratic.
                if found.len() > ADDRESSES_MAX {
                    break;
                }
            }
            Ok(found)
        })
    }
}

/// Why there is no address to connect to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error(transparent)]
    Refused(#[from] AddressError),
    #[error("the lookup of the name failed: {0}")]
    Lookup(io::Error),
    #[error("the lookup of the name took longer than {LOOKUP_TIME_MAX:?}")]
    Late,
    #[error("the name has no address")]
    None,
    #[error("the name has more than {ADDRESSES_MAX} addresses")]
    TooMany,
}

/// The addresses to connect to, all of them judged.
pub(crate) async fn judged_addresses(
    sink: &Sink,
    resolver: &dyn Resolve,
    policy: &Policy,
) -> Result<Vec<SocketAddr>, ResolveError> {
    let found = match sink.host() {
        SinkHost::Address(address) => vec![*address],
        SinkHost::Name(name) => match timeout(LOOKUP_TIME_MAX, resolver.resolve(name)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(ResolveError::Lookup(error)),
            Err(_) => return Err(ResolveError::Late),
        },
    };
    if found.is_empty() {
        return Err(ResolveError::None);
    }
    if found.len() > ADDRESSES_MAX {
        return Err(ResolveError::TooMany);
    }
    for address in &found {
        policy.judge(*address)?;
    }
    Ok(found.into_iter().map(|address| SocketAddr::new(address, sink.port())).collect())
}
