//! Every limit of the store, in one place: what it bounds, its unit, and why it has this value.
//!
//! **Invariant**: every limit has a test, or a named exemption in `crates/cli/tests/it/coverage.rs`.

use std::time::Duration;

// === Records ===

/// Bytes of a key, at least 1. The longest path has 1,024 bytes; a key holds one, its kind, and what sorts it.
pub const KEY_BYTES_MAX: usize = 2_048;
/// Bytes of a value, without the envelope. The longest is the audit record of a batch of 4 MiB, which holds what was
/// there before and after.
pub const VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;

// === Batches ===

/// Operations of a batch, of its transactions and beside them. An import is one transaction, so this bounds
/// imports. The caller holds a batch in memory, and an operation has 64 bytes beside its key and value: 1 GiB.
pub const BATCH_OPS_MAX: usize = 16 * 1024 * 1024;
/// Bytes of the keys and values of a batch. Memory of the caller, like [`BATCH_OPS_MAX`]; the store itself writes pages
/// out while it goes.
pub const BATCH_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

// === History ===

/// Transactions that are kept for watchers.
pub const HISTORY_TRANSACTIONS_MAX: u64 = 10_000;
/// Bytes of the keys and values of those. A longer transaction is not kept at all: watchers end, and read the state
/// instead.
pub const HISTORY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of keys and values that a watcher reads ahead, in whole transactions: fewer than this, or one. What it has not
/// read stays in the history, so a slow watcher holds no more than this, or one transaction.
pub const WATCH_QUEUE_BYTES: u64 = 1024 * 1024;
/// Transactions that a watcher reads ahead, because each needs memory beside its keys and values. It may have none.
pub const WATCH_QUEUE_TRANSACTIONS: usize = 1024;

// === The file ===

/// Bytes of one chunk of a transaction in the log. A value that is much longer than a page is written to
/// neighbouring pages, which become rare in a used file.
pub const LOG_CHUNK_BYTES: usize = 256 * 1024;
/// Bytes of pages that redb keeps in memory. The kernel caches the same pages again.
pub const CACHE_BYTES: usize = 32 * 1024 * 1024;
/// The same while a file is verified, and while it is read meanwhile: each page is read two or three times, a long time
/// apart, and with few pages their memory stays in the caches of the processor.
pub const OPENING_CACHE_BYTES: usize = 1024 * 1024;
/// Bytes that the kernel is asked to read ahead in one call, before a file is verified.
pub const READ_AHEAD_BYTES: u64 = 1024 * 1024;
/// Bytes of a file that are read ahead. What is behind them is read when it is needed: the kernel may have no room to cache
/// more.
pub const READ_AHEAD_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Bytes that must be free before a batch is written, beside twice the bytes of the batch. With less the batch is refused
/// before it begins, so that a full disk is no failure, and a start has room for what it writes.
pub const FREE_BYTES_MIN: u64 = 1024 * 1024;
/// Failures of the disk within [`FAILURES_PERIOD`] after which nothing is written until the store is opened anew. That a
/// disk is full is none.
pub const FAILURES_MAX: usize = 3;
/// See [`FAILURES_MAX`].
pub const FAILURES_PERIOD: Duration = Duration::from_secs(60);
/// Time after a failed try to open the file again, until a call may try once more.
pub const REOPEN_PAUSE: Duration = Duration::from_secs(1);

// === Restores ===

/// Bytes of entries that a restore commits at a time: what it holds in memory, and one entry more.
pub const RESTORE_BATCH_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes that count for an entry beside its key and value: what holds them.
pub const RESTORE_OP_BYTES: u64 = 128;

/// Limits that can differ between stores, such as those of tests. All other limits are constants.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// See [`HISTORY_TRANSACTIONS_MAX`].
    pub history_transactions_max: u64,
    /// See [`HISTORY_BYTES_MAX`].
    pub history_bytes_max: u64,
    /// See [`WATCH_QUEUE_BYTES`].
    pub watch_queue_bytes: u64,
    /// See [`BATCH_OPS_MAX`].
    pub batch_ops_max: usize,
    /// See [`BATCH_BYTES_MAX`].
    pub batch_bytes_max: u64,
    /// See [`CACHE_BYTES`].
    pub cache_bytes: usize,
    /// See [`RESTORE_BATCH_BYTES`].
    pub restore_batch_bytes: u64,
    /// See [`FAILURES_PERIOD`].
    pub failures_period: Duration,
    /// See [`REOPEN_PAUSE`].
    pub reopen_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            history_transactions_max: HISTORY_TRANSACTIONS_MAX,
            history_bytes_max: HISTORY_BYTES_MAX,
            watch_queue_bytes: WATCH_QUEUE_BYTES,
            batch_ops_max: BATCH_OPS_MAX,
            batch_bytes_max: BATCH_BYTES_MAX,
            cache_bytes: CACHE_BYTES,
            restore_batch_bytes: RESTORE_BATCH_BYTES,
            failures_period: FAILURES_PERIOD,
            reopen_pause: REOPEN_PAUSE,
        }
    }
}
