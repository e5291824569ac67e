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
pub struct SystemResolver {
    places: Arc<Semaphore>,
    lookup: Arc<Blocking>,
}

/// A lookup that blocks its thread.
type Blocking = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

impl Default for SystemResolver {
    fn default() -> Self {
        Self::with(|name| {
            let mut found = Vec::new();
            for address in (name, 0).to_socket_addrs()? {
                // An address is there once for each kind of socket. The caller refuses a longer list.
                if found.len() <= ADDRESSES_MAX && !found.contains(&address.ip()) {
                    found.push(address.ip());
                }
            }
            Ok(found)
        })
    }
}

impl SystemResolver {
    fn with(lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self { places: Arc::new(Semaphore::new(LOOKUPS_MAX)), lookup: Arc::new(lookup) }
    }
}

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> Lookup<'a> {
        Box::pin(async move {
            let place = Arc::clone(&self.places).acquire_owned().await;
            let place = place.map_err(io::Error::other)?;
            let (lookup, name) = (Arc::clone(&self.lookup), name.to_owned());
            let answer = tokio::task::spawn_blocking(move || {
                let answer = lookup(&name);
                drop(place);
                answer
            });
            answer.await.map_err(io::Error::other)?
        })
    }
}

impl fmt::Debug for SystemResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemResolver").finish_non_exhaustive()
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex};

    use super::*;

    /// Lookups that hang keep their places, also when nobody waits for them any longer.
    #[tokio::test]
    async fn lookups_that_hang_are_bounded() {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let begun = Arc::new(AtomicUsize::new(0));
        let (held, count) = (Arc::clone(&gate), Arc::clone(&begun));
        let resolver = Arc::new(SystemResolver::with(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            let (open, changed) = &*held;
            drop(changed.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
            Ok(vec![Ipv4Addr::LOCALHOST.into()])
        }));
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..2 * LOOKUPS_MAX {
            let resolver = Arc::clone(&resolver);
            waiting
                .spawn(async move { resolver.resolve("a.example").await.map(|found| found.len()) });
        }
        while begun.load(Ordering::SeqCst) < LOOKUPS_MAX {
            tokio::task::yield_now().await;
        }
        waiting.shutdown().await;
        assert!(timeout(std::time::Duration::ZERO, resolver.resolve("a.example")).await.is_err());
        assert_eq!(begun.load(Ordering::SeqCst), LOOKUPS_MAX);
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        assert_eq!(resolver.resolve("a.example").await.unwrap(), [Ipv4Addr::LOCALHOST]);
    }
}
