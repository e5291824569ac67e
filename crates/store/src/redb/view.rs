//! The state of a file at one revision.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Bound;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Weak;

use ::redb::{Database, ReadOnlyTable, ReadableDatabase as _};
use arc_swap::ArcSwap;
use bytes::Bytes;

use super::Shared;
use super::schema::{Kept, LOG, META, Meta, STATE, TableError, open, read_transactions};
use crate::batch::is_empty;
use crate::{Committed, Head, StoreError, View, WatchError};

type ReadTable = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// Tables of one state of one handle. They are of no use after the handle is closed.
pub(super) struct Tables {
    /// The number of the handle: each that is opened has the next one.
    pub(super) handle: u64,
    pub(super) state: ReadTable,
    pub(super) log: ReadTable,
    pub(super) meta: ReadTable,
}

impl Tables {
    /// The tables of the state that was committed last.
    pub(super) fn latest(database: &Database, handle: u64) -> Result<Self, TableError> {
        let transaction = database.begin_read()?;
        let open = |definition| transaction.open_table(definition);
        Ok(Self { handle, state: open(STATE)?, log: open(LOG)?, meta: open(META)? })
    }
}

/// The state at one revision. It outlives a handle of redb as long as nothing was written since.
pub(super) struct Snapshot {
    pub(super) head: Head,
    /// The number of commits before this state, made by this process: also those that move no head.
    pub(super) generation: u64,
    pub(super) kept: Kept,
    pub(super) tables: ArcSwap<Tables>,
    pub(super) shared: Weak<Shared>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("head", &self.head).finish_non_exhaustive()
    }
}

impl Snapshot {
    /// The state of a handle that is used for reading only, and by nobody else.
    pub(super) fn unverified(tables: Tables, meta: &Meta) -> Self {
        let Meta { head, kept, .. } = *meta;
        let tables = ArcSwap::from_pointee(tables);
        Self { head, generation: 0, kept, tables, shared: Weak::new() }
    }

    /// Reads, and once more if the handle was closed or had failed and the same state is there behind a new one.
    fn read<T>(
        &self,
        mut read: impl FnMut(&Tables) -> Result<T, TableError>,
    ) -> Result<T, StoreError> {
        let tables = self.tables.load_full();
        match caught(|| read(&tables)) {
            Ok(value) => return Ok(value),
            Err(TableError::Corrupt(reason)) => return Err(StoreError::Corrupt(reason)),
            Err(TableError::Failed(error)) => {
                let Some(shared) = self.shared.upgrade() else {
                    return Err(StoreError::Unreachable(error));
                };
                self.tables.store(shared.renewed(self, tables.handle)?);
            }
        }
        let tables = self.tables.load_full();
        Ok(caught(|| read(&tables))?)
    }

    /// Transactions from this sequence number on: at least one, and no more than a watcher may hold.
    pub(super) fn transactions(
        &self,
        from: u64,
        bytes_max: u64,
    ) -> Result<VecDeque<Committed>, WatchError> {
        if from < self.kept.from {
            return Err(WatchError::Compacted { kept_from: self.kept.from });
        }
        let read =
            self.read(|tables| read_transactions(&tables.log, from, self.head.seq, bytes_max));
        Ok(read?)
    }
}

impl View for Snapshot {
    fn head(&self) -> Head {
        self.head
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.read(|tables| {
            let Some(record) = tables.state.get(key)? else { return Ok(None) };
            Ok(Some(Bytes::copy_from_slice(open(key, record.value())?)))
        })
    }

    fn scan(
        &self,
        (start, end): (Bound<&[u8]>, Bound<&[u8]>),
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if is_empty((start, end)) {
            return Ok(());
        }
        // Where a second try goes on, and a panic of the caller's: only those of redb are errors.
        let (mut last, mut panicked) = (None::<Vec<u8>>, None::<Box<dyn Any + Send>>);
        let read = self.read(|tables| {
            let start = last.as_deref().map_or(start, Bound::Excluded);
            let mut seen = None;
            let result = (|| {
                for entry in tables.state.range::<&[u8]>((start, end))? {
                    let (key, record) = entry?;
                    let value = open(key.value(), record.value())?;
                    let call = AssertUnwindSafe(|| each(key.value(), value));
                    match panic::catch_unwind(call) {
                        Ok(true) => {}
                        Ok(false) => break,
                        Err(payload) => {
                            panicked = Some(payload);
                            break;
                        }
                    }
                    seen = Some(key);
                }
                Ok(())
            })();
            if result.is_err() {
                last = seen.map(|key| key.value().to_vec()).or(last.take());
            }
            result
        });
        match panicked {
            Some(payload) => panic::resume_unwind(payload),
            None => read,
        }
    }
}

/// Calls redb, which panics at some damage that it meets.
pub(super) fn caught<T>(call: impl FnOnce() -> Result<T, TableError>) -> Result<T, TableError> {
    panic::catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panicked| {
        Err(TableError::Corrupt("redb panicked: ".to_owned() + text_of(&*panicked)))
    })
}

fn text_of(panicked: &(dyn Any + Send)) -> &str {
    let text = panicked.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panicked.downcast_ref::<&str>().copied()).unwrap_or("no text")
}
