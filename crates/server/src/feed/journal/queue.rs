//! The queue of the writer: places by caller, and nothing is kept for who has stopped waiting.
//!
//! **Invariants**: at most [`WRITES_QUEUED_MAX`] pieces of work wait, of one caller half of them. Work whose caller
//! stops waiting is removed at once, with all its bytes, unless the writer has taken it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::limits::{CALLER_WRITES_QUEUED_MAX, WRITES_QUEUED_MAX};

/// Who asks: the path of an identity, or nothing for the operator.
type Caller = Box<str>;

/// The end of the queue that adds work. Clones share it.
pub(super) struct Sender<T>(Arc<Shared<T>>);

/// The end that takes it. There is one.
pub(super) struct Receiver<T>(Arc<Shared<T>>);

struct Shared<T> {
    waiting: Mutex<Waiting<T>>,
    /// Wakes the receiver.
    changed: Notify,
}

struct Waiting<T> {
    /// By their tickets, ascending.
    queue: VecDeque<(u64, Caller, T)>,
    /// How many pieces of work a caller has in the queue.
    callers: HashMap<Caller, usize>,
    next_ticket: u64,
    senders: usize,
    is_closed: bool,
}

/// Why work is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueError {
    /// All places are taken, or all that one caller may have.
    Full,
    /// The receiver is gone.
    Closed,
}

/// A place in the queue. Dropping it removes the work, if it still waits.
pub(super) struct Place<'q, T> {
    shared: &'q Shared<T>,
    /// `None` for work that nobody waits for and that is done all the same.
    ticket: Option<u64>,
}

/// An empty queue.
pub(super) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let waiting = Waiting {
        queue: VecDeque::new(),
        callers: HashMap::new(),
        next_ticket: 0,
        senders: 1,
        is_closed: false,
    };
    let shared = Arc::new(Shared { waiting: Mutex::new(waiting), changed: Notify::new() });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Waiting<T> {
    /// Gives back a place of a caller.
    fn leave(&mut self, caller: &str) {
        if let Some(count) = self.callers.get_mut(caller) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.callers.remove(caller);
            }
        }
    }

    fn take(&mut self) -> Option<T> {
        let (_, caller, work) = self.queue.pop_front()?;
        self.leave(&caller);
        Some(work)
    }
}

impl<T> Sender<T> {
    /// Adds work at the end.
    pub(super) fn send(&self, caller: &str, work: T) -> Result<Place<'_, T>, QueueError> {
        let mut waiting = self.0.lock();
        if waiting.is_closed {
            return Err(QueueError::Closed);
        }
        let of_caller = waiting.callers.get(caller).copied().unwrap_or(0);
        if waiting.queue.len() >= WRITES_QUEUED_MAX || of_caller >= CALLER_WRITES_QUEUED_MAX {
            return Err(QueueError::Full);
        }
        let ticket = waiting.next_ticket;
        waiting.next_ticket = ticket.wrapping_add(1);
        waiting.callers.insert(caller.into(), of_caller.saturating_add(1));
        waiting.queue.push_back((ticket, caller.into(), work));
        drop(waiting);
        self.0.changed.notify_one();
        Ok(Place { shared: &self.0, ticket: Some(ticket) })
    }
}

impl<T> Receiver<T> {
    /// Takes the first piece of work, and waits for one. `None` once all senders are gone and nothing waits.
    pub(super) async fn recv(&mut self) -> Option<T> {
        loop {
            {
                let mut waiting = self.0.lock();
                if let Some(work) = waiting.take() {
                    return Some(work);
                }
                if waiting.senders == 0 {
                    return None;
                }
            }
            // A notification that came before this is kept.
            self.0.changed.notified().await;
        }
    }

    /// Takes the first piece of work, if there is one.
    pub(super) fn try_recv(&mut self) -> Option<T> {
        self.0.lock().take()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        let mut waiting = self.0.lock();
        waiting.senders = waiting.senders.saturating_add(1);
        drop(waiting);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.senders = waiting.senders.saturating_sub(1);
        drop(waiting);
        self.0.changed.notify_one();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.is_closed = true;
        // Who waits learns it from the end of its work.
        let left = std::mem::take(&mut waiting.queue);
        waiting.callers.clear();
        drop(waiting);
        drop(left);
    }
}

impl<T> Place<'_, T> {
    /// Leaves the work in the queue.
    pub(super) fn keep(mut self) {
        self.ticket = None;
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut waiting = self.shared.lock();
        let found = waiting.queue.binary_search_by_key(&ticket, |(ticket, ..)| *ticket);
        let removed = found.ok().and_then(|at| waiting.queue.remove(at));
        if let Some((_, caller, _)) = &removed {
            waiting.leave(caller);
        }
        drop(waiting);
        // Outside of the lock: it may be long.
        drop(removed);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("waiting", &self.0.lock().queue.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Work that says when it is dropped.
    fn work() -> (Arc<()>, Arc<()>) {
        let work = Arc::new(());
        (Arc::clone(&work), work)
    }

    #[test]
    fn work_is_taken_in_order_and_removed_if_nobody_waits() {
        let (sender, mut receiver) = channel();
        let places: Vec<_> = (0..5).map(|at| sender.send("alice", at).unwrap()).collect();
        assert_eq!(receiver.try_recv(), Some(0));
        let mut places = places.into_iter();
        // The place of work that was taken, and of the work behind it.
        drop(places.next());
        drop(places.next());
        assert_eq!(receiver.try_recv(), Some(2));
        drop(places);
        assert_eq!(receiver.try_recv(), None);
    }

    #[test]
    fn what_nobody_waits_for_holds_no_memory() {
        let (sender, mut receiver) = channel();
        for _ in 0..10 * WRITES_QUEUED_MAX {
            let (queued, watched) = work();
            drop(sender.send("alice", queued).unwrap());
            assert_eq!(Arc::strong_count(&watched), 1);
        }
        assert!(receiver.try_recv().is_none());
    }

    #[test]
    fn a_caller_has_half_of_the_places() {
        let (sender, mut receiver) = channel();
        let mut places = vec![];
        for _ in 0..CALLER_WRITES_QUEUED_MAX {
            places.push(sender.send("alice", ()).unwrap());
        }
        assert_eq!(sender.send("alice", ()).err(), Some(QueueError::Full));
        for other in 0..WRITES_QUEUED_MAX - CALLER_WRITES_QUEUED_MAX {
            places.push(sender.send(&other.to_string(), ()).unwrap());
        }
        assert_eq!(sender.send("bob", ()).err(), Some(QueueError::Full));
        assert_eq!(receiver.try_recv(), Some(()));
        assert_eq!(receiver.try_recv(), Some(()));
        places.push(sender.send("alice", ()).unwrap());
        drop(places);
        assert!(receiver.0.lock().callers.is_empty());
    }

    #[tokio::test]
    async fn the_receiver_waits_for_work_and_ends_with_the_senders() {
        let (sender, mut receiver) = channel();
        let other = sender.clone();
        let sending = async {
            tokio::task::yield_now().await;
            let place = sender.send("alice", 1).unwrap();
            tokio::task::yield_now().await;
            place.keep();
            drop(sender);
            tokio::task::yield_now().await;
            other.send("alice", 2).unwrap().keep();
            drop(other);
        };
        let receiving = async {
            let mut all = vec![];
            while let Some(work) = receiver.recv().await {
                all.push(work);
            }
            all
        };
        assert_eq!(tokio::join!(receiving, sending).0, [1, 2]);
    }

    #[test]
    fn nothing_is_taken_once_the_receiver_is_gone() {
        let (sender, receiver) = channel();
        let (queued, watched) = work();
        let place = sender.send("alice", queued).unwrap();
        drop(receiver);
        assert_eq!(Arc::strong_count(&watched), 1, "who waits learns it");
        assert_eq!(sender.send("alice", work().0).err(), Some(QueueError::Closed));
        drop(place);
    }
}
