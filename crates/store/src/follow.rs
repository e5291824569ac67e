//! A watch: transactions read from the history, then each as it comes.
//!
//! A watcher has no queue that others fill. It reads the history at its own pace, some transactions ahead, so it
//! holds a bounded amount, and ends when the history no longer has what it needs next.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch::Receiver;

use crate::{Committed, Head, WatchError};

/// The kept history of a store.
pub(crate) trait History: Send + Sync + 'static {
    /// Some transactions from this sequence number on, at least one; it must not be later than the head.
    ///
    /// # Errors
    ///
    /// [`WatchError::Compacted`], or the store cannot be read.
    fn read(
        self: Arc<Self>,
        from: u64,
    ) -> BoxFuture<'static, Result<VecDeque<Committed>, WatchError>>;
}

/// A watcher between two transactions.
struct Watcher<H> {
    /// Weak, so that a forgotten watcher keeps no file open.
    history: Weak<H>,
    heads: Receiver<Head>,
    /// What has been read ahead.
    queue: VecDeque<Committed>,
    /// The next sequence number to read.
    next: u64,
}

/// Follows a history from a sequence number on. The stream ends with the store.
///
/// # Errors
///
/// [`WatchError::Future`] or [`WatchError::Compacted`].
pub(crate) async fn follow<H: History>(
    history: &Arc<H>,
    heads: Receiver<Head>,
    from: u64,
) -> Result<BoxStream<'static, Result<Committed, WatchError>>, WatchError> {
    let next = from.max(1); // the first transaction of a store has sequence number 1
    let head = heads.borrow().seq;
    if next > head.saturating_add(1) {
        return Err(WatchError::Future(head));
    }
    let queue = if next <= head { Arc::clone(history).read(next).await? } else { VecDeque::new() };
    let next = next.saturating_add(queue.len() as u64);
    let watcher = Watcher { history: Arc::downgrade(history), heads, queue, next };
    Ok(stream::unfold(Some(watcher), |watcher| async { watcher?.step().await }).boxed())
}

impl<H: History> Watcher<H> {
    /// The next transaction, or the error with which the watch ends.
    async fn step(mut self) -> Option<(Result<Committed, WatchError>, Option<Self>)> {
        if self.queue.is_empty() {
            let next = self.next;
            self.heads.wait_for(|head| head.seq >= next).await.ok()?;
            match self.history.upgrade()?.read(next).await {
                Ok(read) => self.queue = read,
                Err(WatchError::Compacted { .. }) => return Some((Err(WatchError::TooSlow), None)),
                Err(error) => return Some((Err(error), None)),
            }
            self.next = next.saturating_add(self.queue.len() as u64);
        }
        let first = self.queue.pop_front()?;
        Some((Ok(first), Some(self)))
    }
}
