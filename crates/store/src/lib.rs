//! The journal: a totally ordered sequence of transactions on a key-value state.
//!
//! ```text
//! Batch ──append(head)──▶ Journal ──▶ one durable commit: transactions 8, 9, 10, each ended by its Head
//!                            ├──view()──▶ View: the state at one revision, for reads
//!                            └──watch(8)──▶ transactions from 8 on, in order
//! ```
//!
//! Keys and values are bytes; what they mean is decided by whoever writes them (`capstan-iam`). The store wraps
//! every value in an envelope with a version and a checksum.
//!
//! **Invariants**: each transaction has the next sequence number, and is visible wholly or not at all. What
//! `append` has acknowledged is durable. A record that does not match its checksum is an error, never a value.
//!
//! Read `journal`, `head`, then `backup`.

mod backup;
mod batch;
mod envelope;
mod follow;
mod head;
mod journal;
pub mod limits;
mod memory;
mod op;
mod redb;

pub use backup::{Backup, BackupError, BackupReader, EntryRef, WriteBackupError, write_backup};
pub use head::{DIGEST_BYTES, Digest, EPOCH_MAX, HEAD_BYTES, Head, SEQ_BITS};
pub use journal::{
    AppendError, Batch, Committed, Entry, Journal, Op, StoreError, Transaction, View, WatchError,
};
pub use limits::Limits;
pub use memory::MemoryStore;
pub use redb::{Checked, Compacted, OpenError, RedbStore, RestoreError, Restored};
