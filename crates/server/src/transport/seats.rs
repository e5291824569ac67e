//! The open connections, to find the one that has been idle longest when a new one has no place.
//!
//! **Invariant**: only a connection without an open stream yields, and only after it has been idle for a
//! moment. It gets a GOAWAY, so its client knows that no call was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::Waker;
use std::time::Duration;

use dashmap::DashMap;
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::transport::peers::Peer;

/// All open connections.
#[derive(Debug)]
pub(crate) struct Seats {
    seats: DashMap<u64, Arc<Seat>>,
    next: AtomicU64,
    start: Instant,
    idle_min: Duration,
    /// Signals that a connection has ended.
    freed: Notify,
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct Seat {
    id: u64,
    peer: Peer,
    start: Instant,
    /// Since when it has no open stream, in milliseconds after `start`; [`BUSY`] if it has one.
    idle_since: AtomicU64,
    yields: AtomicBool,
    /// The task of the connection.
    task: AtomicWaker,
}

const BUSY: u64 = u64::MAX;

/// Wait for a connection to end that was asked to yield. Its worker may be busy for that long.
const YIELD_MAX: Duration = Duration::from_millis(50);

impl Seats {
    /// `idle_min`: how long a connection must be idle to yield.
    pub(crate) fn new(idle_min: Duration) -> Arc<Self> {
        Arc::new(Self {
            seats: DashMap::new(),
            next: AtomicU64::new(0),
            start: Instant::now(),
            idle_min,
            freed: Notify::new(),
        })
    }

    /// Registers a connection, which is idle at first.
    pub(crate) fn add(&self, peer: Peer) -> Arc<Seat> {
        let seat = Arc::new(Seat {
            id: self.next.fetch_add(1, Relaxed),
            peer,
            start: self.start,
            idle_since: AtomicU64::new(millis(self.start.elapsed())),
            yields: AtomicBool::new(false),
            task: AtomicWaker::new(),
        });
        self.seats.insert(seat.id, Arc::clone(&seat));
        seat
    }

    /// Removes a connection that has ended.
    pub(crate) fn remove(&self, seat: &Seat) {
        self.seats.remove(&seat.id);
        self.freed.notify_waiters();
    }

    /// Asks the connection that has been idle longest to end, of this peer or, with `None`, of all. Waits
    /// a moment for it. False if no connection is idle.
    pub(crate) async fn make_room(&self, of: Option<Peer>) -> bool {
        let now = millis(self.start.elapsed());
        let latest = now.saturating_sub(millis(self.idle_min));
        let is_idle = |seat: &Seat| {
            seat.idle_since.load(Relaxed) <= latest
                && !seat.yields.load(Relaxed)
                && of.is_none_or(|peer| seat.peer == peer)
        };
        let idle = self.seats.iter().filter(|seat| is_idle(seat));
        let longest = idle.min_by_key(|seat| seat.idle_since.load(Relaxed));
        let Some(longest) = longest.map(|seat| Arc::clone(seat.value())) else { return false };
        let freed = self.freed.notified();
        tokio::pin!(freed);
        // Registered before the request, so that the end is not missed.
        freed.as_mut().enable();
        longest.yields.store(true, Relaxed);
        longest.task.wake();
        timeout(YIELD_MAX, freed).await.is_ok()
    }
}

impl Seat {
    /// Whether the connection has an open stream, from now on.
    pub(crate) fn set_busy(&self, busy: bool, now: Instant) {
        let since = if busy { BUSY } else { millis(now.duration_since(self.start)) };
        self.idle_since.store(since, Relaxed);
    }

    /// Whether the connection was asked to yield. If it is busy by now, it stays, and may be asked again.
    pub(crate) fn yields(&self) -> bool {
        self.yields.load(Relaxed)
            && (self.idle_since.load(Relaxed) != BUSY || {
                self.yields.store(false, Relaxed);
                false
            })
    }

    /// Wakes the task of the connection from now on, when it is asked to yield.
    pub(crate) fn register(&self, waker: &Waker) {
        self.task.register(waker);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(BUSY - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::connection::Remote;

    fn peer(address: &str) -> Peer {
        Peer::of(Some(&Remote::Ip(address.parse().unwrap())))
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_is_idle_longest_yields() {
        let seats = Seats::new(Duration::from_secs(1));
        let (one, two) = (peer("192.0.2.1:1"), peer("192.0.2.2:1"));
        let first = seats.add(one);
        tokio::time::advance(Duration::from_millis(10)).await;
        let second = seats.add(two);
        let third = seats.add(one);
        first.set_busy(true, Instant::now());
        assert!(!seats.make_room(None).await, "none is idle for long enough");
        tokio::time::advance(Duration::from_secs(2)).await;
        third.set_busy(false, Instant::now());
        tokio::time::advance(Duration::from_secs(2)).await;
        // The second is idle longest, and ends when it is asked.
        let (made, ()) = tokio::join!(seats.make_room(None), async {
            std::future::poll_fn(|cx| {
                second.register(cx.waker());
                if second.yields() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            })
            .await;
            seats.remove(&second);
        });
        assert!(made && second.yields() && !first.yields() && !third.yields());
        assert!(!seats.make_room(Some(two)).await, "the peer has no connection left");
        // One that does not end in time makes no room, and is not asked twice.
        assert!(!seats.make_room(Some(one)).await && third.yields());
        assert!(!seats.make_room(Some(one)).await);
        third.set_busy(true, Instant::now());
        assert!(!third.yields(), "it has a call by now");
    }
}
