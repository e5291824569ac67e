//! The commits of a store, kept to be made again by redb alone.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use capstan_store::{
    AppendError, Batch, Committed, Head, Journal, Op, RedbStore, StoreError, View, WatchError,
};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use redb::{Builder, Durability, TableDefinition};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("table");

/// A store that keeps what was appended.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) store: RedbStore,
    pub(crate) batches: Mutex<Vec<Batch>>,
}

impl Recording {
    /// Takes what was appended so far.
    pub(crate) fn take(&self) -> Vec<Batch> {
        std::mem::take(&mut *self.batches.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Journal for Recording {
    fn head(&self) -> BoxFuture<'_, Result<Head, StoreError>> {
        self.store.head()
    }

    fn view(&self) -> BoxFuture<'_, Result<Arc<dyn View>, StoreError>> {
        self.store.view()
    }

    fn append(&self, expected: Head, batch: Batch) -> BoxFuture<'_, Result<Head, AppendError>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner).push(batch.clone());
        self.store.append(expected, batch)
    }

    fn watch(
        &self,
        from: u64,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<Committed, WatchError>>, WatchError>> {
        self.store.watch(from)
    }
}

/// Makes the same operations in the same commits by redb alone, as durably. Returns how long that takes.
pub(crate) fn replay(file: &Path, batches: &[Batch]) -> anyhow::Result<Duration> {
    let mut builder = Builder::new();
    builder.set_cache_size(capstan_store::limits::CACHE_BYTES);
    let database = builder.create(file)?;
    let began = Instant::now();
    for batch in batches {
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        {
            let mut table = transaction.open_table(TABLE)?;
            let of_transactions = batch.transactions.iter().flat_map(|one| &one.ops);
            for op in of_transactions.chain(&batch.side) {
                match op {
                    Op::Put { key, value } => drop(table.insert(&**key, &**value)?),
                    Op::Delete { key } => drop(table.remove(&**key)?),
                }
            }
        }
        transaction.commit()?;
    }
    Ok(began.elapsed())
}
