//! Calls in flight, open connections, or held bytes, by peer.
//!
//! **Invariants**: a peer is in the map only while its count is above zero, so the map never has
//! more entries than there are calls, connections or held bytes. Methods return values: no guard of the map
//! leaves this file.

use std::net::{IpAddr, Ipv6Addr};

use dashmap::{DashMap, Entry};

use crate::transport::connection::Remote;

/// The peer of a connection, to which limits apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Peer {
    /// An IPv4 address, or the /64 network of an IPv6 address: one owner has all its addresses.
    Ip(IpAddr),
    /// A process on this machine that has opened the unix socket, by its id; `None` for those whose id
    /// is not known.
    Process(Option<i32>),
}

impl Peer {
    /// The peer at the other end of a connection.
    pub(crate) fn of(connection: Option<&Remote>) -> Self {
        match connection {
            Some(Remote::Ip(address)) => match address.ip().to_canonical() {
                IpAddr::V6(address) => {
                    let network = address.to_bits() & !u128::from(u64::MAX);
                    Self::Ip(Ipv6Addr::from_bits(network).into())
                }
                address => Self::Ip(address),
            },
            Some(Remote::Process(process) | Remote::Operator(process)) => Self::Process(*process),
            None => Self::Process(None),
        }
    }
}

/// Counts of calls in flight, of open connections, or of held bytes, by peer.
#[derive(Debug, Default)]
pub(crate) struct Peers(DashMap<Peer, usize>);

impl Peers {
    /// Counts one more for the peer; false if it already has `most`.
    pub(crate) fn try_acquire(&self, peer: Peer, most: usize) -> bool {
        self.try_acquire_many(peer, 1, most)
    }

    /// Counts `more`, which is above zero, for the peer; false if it would have more than `most`.
    pub(crate) fn try_acquire_many(&self, peer: Peer, more: usize, most: usize) -> bool {
        match self.0.entry(peer) {
            Entry::Occupied(mut count) if more <= most.saturating_sub(*count.get()) => {
                *count.get_mut() += more;
                true
            }
            Entry::Vacant(vacant) if more <= most => {
                vacant.insert(more);
                true
            }
            Entry::Occupied(_) | Entry::Vacant(_) => false,
        }
    }

    /// The count of the peer.
    pub(crate) fn count(&self, peer: Peer) -> usize {
        self.0.get(&peer).map_or(0, |count| *count)
    }

    /// Counts one less for the peer.
    pub(crate) fn release(&self, peer: Peer) {
        self.release_many(peer, 1);
    }

    /// Counts `less` for the peer.
    pub(crate) fn release_many(&self, peer: Peer, less: usize) {
        if let Entry::Occupied(mut count) = self.0.entry(peer) {
            *count.get_mut() = count.get().saturating_sub(less);
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: Peer = Peer::Process(None);

    fn peer(address: &str) -> Peer {
        Peer::of(Some(&Remote::Ip(address.parse().unwrap())))
    }

    #[test]
    fn a_peer_is_an_address_or_a_network_of_one_owner() {
        assert_eq!(peer("192.0.2.1:1"), peer("192.0.2.1:2"));
        assert_ne!(peer("192.0.2.1:1"), peer("192.0.2.2:1"));
        assert_eq!(peer("[::ffff:192.0.2.1]:1"), peer("192.0.2.1:1"));
        assert_eq!(peer("[2001:db8::1]:1"), peer("[2001:db8::ffff:1]:1"));
        assert_ne!(peer("[2001:db8::1]:1"), peer("[2001:db8:0:1::1]:1"));
        let process = |id| Peer::of(Some(&Remote::Process(id)));
        assert_eq!(process(Some(7)), process(Some(7)));
        assert_ne!(process(Some(7)), process(Some(8)));
        assert_eq!(Peer::of(None), process(None));
    }

    #[test]
    fn a_peer_whose_count_is_zero_leaves_the_map() {
        let peers = Peers::default();
        assert!(!peers.try_acquire(LOCAL, 0));
        assert!(peers.try_acquire(LOCAL, 2) && peers.try_acquire(LOCAL, 2));
        assert!(!peers.try_acquire(LOCAL, 2));
        assert!(peers.try_acquire(peer("192.0.2.1:1"), 2));
        assert_eq!(peers.0.len(), 2);
        for _ in 0..2 {
            peers.release(LOCAL);
        }
        peers.release(peer("192.0.2.1:1"));
        peers.release(LOCAL);
        assert!(peers.0.is_empty());
        assert!(peers.try_acquire(LOCAL, 2));
    }
}
