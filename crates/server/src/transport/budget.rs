//! The bytes that the server holds for its peers: bodies that are not complete or not decoded, and
//! answers that are not read.
//!
//! Three limits apply to each byte: of the connection, of the peer, and of the server. A byte counts
//! when it has arrived, whatever length was announced.
//!
//! **Invariant**: every charge is released when its [`Charge`] is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::limits::Limits;
use crate::telemetry::metrics::{Metrics, ShedScope};
use crate::transport::peers::{Peer, Peers};

/// The bytes held for all peers.
#[derive(Debug)]
pub(crate) struct Budget {
    most: usize,
    peers: Peers,
    peer_max: usize,
    connection_max: usize,
    metrics: Arc<Metrics>,
}

/// The bytes held for one connection.
#[derive(Debug)]
pub(crate) struct ConnectionBudget {
    all: Arc<Budget>,
    peer: Peer,
    held: AtomicUsize,
}

/// Bytes that are held. Dropped, they are released.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<ConnectionBudget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(limits: &Limits, metrics: &Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            most: limits.held_bytes_max,
            peers: Peers::default(),
            peer_max: limits.peer_held_bytes_max,
            connection_max: limits.connection_held_bytes_max,
            metrics: Arc::clone(metrics),
        })
    }

    /// The budget of a new connection of this peer.
    pub(crate) fn connection(self: &Arc<Self>, peer: Peer) -> Arc<ConnectionBudget> {
        Arc::new(ConnectionBudget { all: Arc::clone(self), peer, held: AtomicUsize::new(0) })
    }

    /// The bytes held for all peers.
    fn held(&self) -> &AtomicUsize {
        &self.metrics.held_bytes
    }
}

/// Adds to a count that must not pass `most`.
fn add(count: &AtomicUsize, bytes: usize, most: usize) -> bool {
    let more = |held: usize| held.checked_add(bytes).filter(|held| *held <= most);
    count.fetch_update(Relaxed, Relaxed, more).is_ok()
}

impl ConnectionBudget {
    /// Counts bytes as held, and counts the refusal if there is no room for them.
    fn acquire(&self, bytes: usize) -> bool {
        if add(&self.held, bytes, self.all.connection_max) {
            if add(self.all.held(), bytes, self.all.most) {
                if self.all.peers.try_acquire_many(self.peer, bytes, self.all.peer_max) {
                    return true;
                }
                self.all.held().fetch_sub(bytes, Relaxed);
            }
            self.held.fetch_sub(bytes, Relaxed);
        }
        self.all.metrics.shed(ShedScope::Bytes);
        false
    }

    fn release(&self, bytes: usize) {
        self.all.peers.release_many(self.peer, bytes);
        self.all.held().fetch_sub(bytes, Relaxed);
        self.held.fetch_sub(bytes, Relaxed);
    }
}

impl Charge {
    /// No bytes yet.
    pub(crate) const fn new(budget: Arc<ConnectionBudget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// The bytes that are charged.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Charges for more bytes. False, and nothing is charged, if there is no room for them.
    pub(crate) fn add(&mut self, bytes: usize) -> bool {
        let added = bytes == 0 || self.budget.acquire(bytes);
        if added {
            self.bytes += bytes;
        }
        added
    }

    /// Releases some of the bytes.
    pub(crate) fn release(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        if bytes > 0 {
            self.bytes -= bytes;
            self.budget.release(bytes);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::connection::Remote;

    fn peer(address: &str) -> Peer {
        Peer::of(Some(&Remote::Ip(address.parse().unwrap())))
    }

    #[test]
    fn each_limit_refuses_and_each_charge_is_released() {
        let limits = Limits {
            held_bytes_max: 100,
            peer_held_bytes_max: 60,
            connection_held_bytes_max: 40,
            ..Limits::default()
        };
        let all = Budget::new(&limits, &Arc::default());
        let (one, two) = (peer("192.0.2.1:1"), peer("192.0.2.2:1"));
        let mut first = Charge::new(all.connection(one));
        assert!(first.add(40) && !first.add(1), "the limit of a connection");
        let mut second = Charge::new(all.connection(one));
        assert!(second.add(20) && !second.add(1), "the limit of a peer");
        let mut third = Charge::new(all.connection(two));
        assert!(third.add(40) && !third.add(1), "the limit of the server");
        assert_eq!(all.held().load(Relaxed), 100);
        third.release(15);
        let mut fourth = Charge::new(all.connection(two));
        assert!(!fourth.add(16) && fourth.add(15));
        drop((first, second, third, fourth));
        assert_eq!(all.held().load(Relaxed), 0);
        assert_eq!((all.peers.count(one), all.peers.count(two)), (0, 0));
    }
}
