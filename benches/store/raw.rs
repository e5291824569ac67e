//! The commits of a store, kept to be made again by redb alone.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use capstan_store::{
    AppendError, Batch, Committed, Head, Journal, Op, RedbStore, StoreError, View, WatchError,
};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use redb::{Builder, Database, Durability, TableDefinition};

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

/// A new file of redb alone, with the store's cache.
pub(crate) fn create(file: &Path) -> anyhow::Result<Database> {
    let mut builder = Builder::new();
    builder.set_cache_size(capstan_store::limits::CACHE_BYTES);
    Ok(builder.create(file)?)
}

/// Makes the operations of a batch by redb alone, in one table, as durably as the store.
pub(crate) fn commit(database: &Database, batch: &Batch) -> anyhow::Result<()> {
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
    Ok(transaction.commit()?)
}

/// Makes the same commits by redb alone. Returns how long that takes.
pub(crate) fn replay(file: &Path, batches: &[Batch]) -> anyhow::Result<Duration> {
    let database = create(file)?;
    let began = Instant::now();
    batches.iter().try_for_each(|batch| commit(&database, batch))?;
    Ok(began.elapsed())
}

/// Makes the same commits by a store, which was made as the one that they are of. Returns how long that takes.
pub(crate) async fn replay_by_store(
    store: &RedbStore,
    batches: &[Batch],
) -> anyhow::Result<Duration> {
    let began = Instant::now();
    for batch in batches {
        store.append(store.head().await?, batch.clone()).await?;
    }
    Ok(began.elapsed())
}
