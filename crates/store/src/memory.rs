//! A journal in memory: for tests, and for servers whose state may end with them.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::{self, BoxFuture, FutureExt as _};
use futures_util::stream::BoxStream;
use rpds::RedBlackTreeMapSync;
use tokio::sync::watch;

use crate::batch::{bytes_of, is_empty, validate};
use crate::follow::{History, follow};
use crate::limits::{Limits, WATCH_QUEUE_TRANSACTIONS};
use crate::{AppendError, Batch, Committed, Head, Journal, Op, StoreError, View, WatchError};

type Map = RedBlackTreeMapSync<Bytes, Bytes>;

/// A journal in memory. Views share what did not change with the state.
#[derive(Debug)]
pub struct MemoryStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: Limits,
    state: Mutex<State>,
    /// The head, for watchers. Changed only while `state` is locked.
    heads: watch::Sender<Head>,
}

#[derive(Clone, Debug)]
struct State {
    head: Head,
    map: Map,
    /// The last transactions, up to the head, without a gap.
    history: VecDeque<Committed>,
    history_bytes: u64,
}

impl MemoryStore {
    /// An empty store. `epoch` may be 0, which no store in a file has: the revisions are then 1, 2, 3 as those of a
    /// policy file, and a token of one is refused with STORE_EPOCH by a server with a store.
    #[must_use]
    pub fn new(epoch: u16, limits: Limits) -> Self {
        let head = Head::empty(epoch);
        let state = State { head, map: Map::default(), history: VecDeque::new(), history_bytes: 0 };
        Self(Arc::new(Shared { limits, state: Mutex::new(state), heads: watch::Sender::new(head) }))
    }
}

impl Shared {
    /// Nothing panics while the state is half changed: an append changes a copy.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, expected: &Head, batch: Batch) -> Result<Head, AppendError> {
        let mut current = self.lock();
        if current.head != *expected {
            return Err(AppendError::Conflict(current.head));
        }
        validate(&current.head, &batch, &self.limits)?;
        let (mut head, mut map) = (current.head, current.map.clone());
        let mut committed = Vec::with_capacity(batch.transactions.len());
        for transaction in batch.transactions {
            head = head.next(&transaction.ops);
            apply(&mut map, &transaction.ops);
            committed.push(Committed { head, ops: transaction.ops });
        }
        apply(&mut map, &batch.side);
        current.head = head;
        current.map = map;
        current.keep(committed, &self.limits);
        if head != *expected {
            self.heads.send_replace(head);
        }
        Ok(head)
    }
}

fn apply(map: &mut Map, ops: &[Op]) {
    for op in ops {
        match op {
            Op::Put { key, value } => map.insert_mut(key.clone(), value.clone()),
            Op::Delete { key } => {
                map.remove_mut(key);
            }
        }
    }
}

impl State {
    /// Adds transactions to the history, and forgets what is beyond the limits.
    fn keep(&mut self, committed: Vec<Committed>, limits: &Limits) {
        for transaction in committed {
            self.history_bytes = self.history_bytes.saturating_add(bytes_of(&transaction.ops));
            self.history.push_back(transaction);
        }
        while self.history.len() as u64 > limits.history_transactions_max
            || self.history_bytes > limits.history_bytes_max
        {
            let Some(oldest) = self.history.pop_front() else { break };
            self.history_bytes = self.history_bytes.saturating_sub(bytes_of(&oldest.ops));
        }
    }

    /// Transactions from this sequence number on: at least one, and no more than a watcher may hold.
    fn read(&self, from: u64, limits: &Limits) -> Result<VecDeque<Committed>, WatchError> {
        let kept_from = self.head.seq.saturating_add(1).saturating_sub(self.history.len() as u64);
        let Some(skipped) = from.checked_sub(kept_from) else {
            return Err(WatchError::Compacted { kept_from });
        };
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        let (mut bytes, mut is_first) = (0_u64, true);
        let rest = self.history.iter().skip(skipped).take(WATCH_QUEUE_TRANSACTIONS);
        let read = rest.take_while(|transaction| {
            bytes = bytes.saturating_add(bytes_of(&transaction.ops));
            std::mem::take(&mut is_first) || bytes <= limits.watch_queue_bytes
        });
        Ok(read.cloned().collect())
    }
}

impl History for Shared {
    fn read(
        self: Arc<Self>,
        from: u64,
    ) -> BoxFuture<'static, Result<VecDeque<Committed>, WatchError>> {
        let read = self.lock().read(from, &self.limits);
        future::ready(read).boxed()
    }
}

impl Journal for MemoryStore {
    fn head(&self) -> BoxFuture<'_, Result<Head, StoreError>> {
        future::ready(Ok(self.0.lock().head)).boxed()
    }

    fn view(&self) -> BoxFuture<'_, Result<Arc<dyn View>, StoreError>> {
        let state = self.0.lock();
        let view = MemoryView { head: state.head, map: state.map.clone() };
        drop(state);
        future::ready(Ok(Arc::new(view) as Arc<dyn View>)).boxed()
    }

    fn append(&self, expected: Head, batch: Batch) -> BoxFuture<'_, Result<Head, AppendError>> {
        async move { self.0.append(&expected, batch) }.boxed()
    }

    fn watch(
        &self,
        from: u64,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<Committed, WatchError>>, WatchError>> {
        follow(&self.0, self.0.heads.subscribe(), from).boxed()
    }
}

#[derive(Debug)]
struct MemoryView {
    head: Head,
    map: Map,
}

impl View for MemoryView {
    fn head(&self) -> Head {
        self.head
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.map.get(key).cloned())
    }

    fn scan(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if !is_empty(range) {
            let mut entries = self.map.range::<[u8], _>(range);
            while entries.next().is_some_and(|(key, value)| each(key, value)) {}
        }
        Ok(())
    }
}
