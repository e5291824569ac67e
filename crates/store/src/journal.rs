//! The journal and its words. Implementations are beside it.

use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use thiserror::Error;

use crate::Head;

/// One operation of a transaction. A key has 1 to [`KEY_BYTES_MAX`](crate::limits::KEY_BYTES_MAX) bytes, a value
/// at most [`VALUE_BYTES_MAX`](crate::limits::VALUE_BYTES_MAX).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets the value of a key.
    Put {
        /// The key.
        key: Bytes,
        /// The value, without the store's envelope.
        value: Bytes,
    },
    /// Removes a key. A key that is not there is no error.
    Delete {
        /// The key.
        key: Bytes,
    },
}

/// Operations that are made together or not at all. A transaction gets one sequence number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The operations, in order. At most one for each key.
    pub ops: Vec<Op>,
}

/// What one commit makes durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Transactions in order. Each gets its own sequence number.
    pub transactions: Vec<Transaction>,
    /// Operations outside the history: they belong to no transaction, move no head, are in no digest of the
    /// journal, and no watcher sees them. They are applied last, in order; of two for one key the later one counts.
    ///
    /// So of a key that is ever used here, the state does not follow from the history, even if transactions use it,
    /// too. These are the audit records and the head of the audit log (a change is recorded in its transaction, a
    /// refusal here, and the retention deletes here), answers that are kept for retries (kept in the transaction,
    /// forgotten here), times of use, and what is derived from objects of an earlier version, once. All other keys, those of objects above all, must never be used here: who
    /// replays the history has them exactly.
    pub side: Vec<Op>,
}

/// A transaction of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The head that ended it.
    pub head: Head,
    /// Its operations.
    pub ops: Vec<Op>,
}

/// A key and its value.
pub type Entry = (Bytes, Bytes);

/// A totally ordered, durable sequence of transactions.
///
/// It fits etcd, too: an append is a compare-and-swap on the head, and a batch of any size becomes visible by one
/// switch of the head.
pub trait Journal: Send + Sync + fmt::Debug {
    /// The head at some time after the call began: every append that was acknowledged before is in it.
    fn head(&self) -> BoxFuture<'_, Result<Head, StoreError>>;

    /// The state at the current head. A view holds resources of the store (old pages of a file) until it is
    /// dropped.
    fn view(&self) -> BoxFuture<'_, Result<Arc<dyn View>, StoreError>>;

    /// Makes a batch durable, if the head is still `expected`. Returns the head after the last transaction. A store on a
    /// disk blocks the thread until the disk has it.
    ///
    /// A batch without transactions leaves the head where it is, and is durable like any other. An empty one is
    /// compared with the head and nothing else.
    ///
    /// After [`StoreError::OutcomeUnknown`] the batch may have been made or not. [`Self::head`] tells, once it
    /// answers: the digest is that of one or the other. Of a batch without transactions it cannot tell; whoever needs
    /// to know reads what it would have put.
    fn append(&self, expected: Head, batch: Batch) -> BoxFuture<'_, Result<Head, AppendError>>;

    /// The transactions from this sequence number on, those that come later, too. The stream ends with the
    /// store, or after its first error. Sequence number 0 means 1, the first there can be.
    ///
    /// A watcher reads the kept history at its own pace. One that falls behind what is kept
    /// ends with [`WatchError::TooSlow`]; it then needs a view, and a watch from the sequence number behind that.
    fn watch(
        &self,
        from: u64,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<Committed, WatchError>>, WatchError>>;
}

/// The state at one revision. Reads block the thread: for a file until the disk has answered, unless the pages are in
/// memory.
pub trait View: Send + Sync + fmt::Debug {
    /// The head of this state.
    fn head(&self) -> Head;

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// The store cannot be read, or the record is corrupt.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Calls `each` with the entries of a range of keys, in ascending order, until it returns false.
    ///
    /// # Errors
    ///
    /// The store cannot be read, or a record is corrupt. `each` may have seen entries before it.
    fn scan(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError>;
}

/// Why a store does not answer.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A record does not match its checksum, has an unknown version, or the history contradicts its digests.
    #[error("the store is corrupt: {0}")]
    Corrupt(String),
    /// There is no room. Nothing was changed.
    #[error("the disk is full")]
    Full,
    /// Nothing can be written. Nothing was changed.
    #[error("the store is read-only: {0}")]
    ReadOnly(String),
    /// The store cannot be reached or does not work. Nothing was changed.
    #[error("the store does not work: {0}")]
    Unreachable(#[source] io::Error),
    /// A write failed in such a way that it may have been made.
    #[error("it is not known whether the write was made: {0}")]
    OutcomeUnknown(#[source] io::Error),
}

/// Why a batch was not appended.
#[derive(Debug, Error)]
pub enum AppendError {
    /// The head is another one. Nothing was changed.
    #[error("another writer was first: the head is at {}", .0.seq)]
    Conflict(Head),
    /// The batch breaks a limit. Nothing was changed.
    #[error("{0}")]
    Invalid(String),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a watch ends, or does not begin.
#[derive(Debug, Error)]
pub enum WatchError {
    /// The transactions from there on are not kept any more.
    #[error("transactions are kept from {kept_from} on")]
    Compacted {
        /// The first sequence number that is kept.
        kept_from: u64,
    },
    /// The sequence number is later than the next one.
    #[error("the head is at {0}")]
    Future(u64),
    /// The watcher was too slow: the transaction it needs next is not kept any more.
    #[error("the watcher is too far behind: read the state anew, and watch from there")]
    TooSlow,
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}
