//! A new store from a backup.
//!
//! ```text
//! backup ─▶ batches ─▶ store.redb.new: one commit each ─▶ end of the backup is right ─▶ last transaction ─▶ store.redb
//! ```
//!
//! **Invariants**: there is no store before the whole backup was found right and everything is durable; a crash before
//! that leaves a file of no use. A store that is there is never overwritten. The memory is that of one batch.

use std::error::Error;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::commit::{After, commit};
use super::dir::Dir;
use super::disk::{FileBackend, Traced};
use super::error::OpenError;
use super::opening::{Handle, make};
use super::schema::{Meta, TableError};
use super::view::{Snapshot, Tables, caught};
use super::{RedbStore, new_meta};
use crate::batch::validate;
use crate::limits::RESTORE_OP_BYTES;
use crate::{
    Backup, BackupError, BackupReader, Batch, EPOCH_MAX, Head, Limits, Op, Transaction, View,
};

/// What is wrong with the state of a backup, for whoever makes its first transaction.
type ContentError = Box<dyn Error + Send + Sync>;

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The backup.
    pub backup: Backup,
    /// The head of the store, behind its first transaction.
    pub head: Head,
}

/// Why a backup was not restored. No store was made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The backup is damaged, cut off or none.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The store cannot be made there.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// What is restored is not the state of a store.
    #[error("the backup does not hold what a store needs: {0}")]
    Content(ContentError),
    /// The store cannot be in this epoch.
    #[error("the epoch of the restored store must be {from} to {EPOCH_MAX}, not {wanted}: the backup is of epoch {}", .from.saturating_sub(1))]
    Epoch {
        /// The one that is asked for.
        wanted: u16,
        /// The lowest that is possible.
        from: u16,
    },
    /// There is no higher epoch.
    #[error(
        "the backup is of epoch {EPOCH_MAX}, the last one: there is none to restore it to; export its policy, and import that into a new store"
    )]
    LastEpoch,
}

impl RedbStore {
    /// Makes a store in a directory from a backup. The directory is made if it is not there. The store appears whole or
    /// not at all. This blocks.
    ///
    /// The store is in a later epoch than that of the backup: the one behind it, or `epoch`. So no revision of it was ever
    /// given out, and those that were are refused. Its sequence numbers and digests go on where those of the backup
    /// end. It begins with one transaction, which `last` makes of the restored state.
    ///
    /// # Errors
    ///
    /// See [`RestoreError`]. A store that is there is never overwritten.
    pub fn restore(
        dir: &Path,
        backup: BackupReader<impl Read>,
        epoch: Option<u16>,
        limits: &Limits,
        last: impl FnOnce(&Arc<dyn View>, &Backup) -> Result<Transaction, ContentError>,
    ) -> Result<Restored, RestoreError> {
        let start = backup.head().restored(epoch_after(backup.head().epoch, epoch)?);
        let dir = Dir::create(dir)?;
        let file = dir.create_new()?;
        let backend = Traced { backend: Box::new(FileBackend(file)), trace: Arc::default() };
        let made = fill(backend, &dir, start, backup, limits, last);
        if made.is_err() {
            dir.remove_new();
        }
        let restored = made?;
        dir.put_new_in_place()?;
        Ok(restored)
    }
}

fn epoch_after(before: u16, wanted: Option<u16>) -> Result<u16, RestoreError> {
    let from = before.saturating_add(1);
    if from > EPOCH_MAX {
        return Err(RestoreError::LastEpoch);
    }
    let wanted = wanted.unwrap_or(from);
    let is_possible = (from..=EPOCH_MAX).contains(&wanted);
    if is_possible { Ok(wanted) } else { Err(RestoreError::Epoch { wanted, from }) }
}

/// Fills an empty file with a backup, and adds the last transaction.
fn fill(
    backend: Traced,
    dir: &Dir,
    start: Head,
    mut backup: BackupReader<impl Read>,
    limits: &Limits,
    last: impl FnOnce(&Arc<dyn View>, &Backup) -> Result<Transaction, ContentError>,
) -> Result<Restored, RestoreError> {
    let failed = |error| OpenError::of_file(dir, error);
    let meta = new_meta(start).map_err(failed)?;
    let handle = make(backend, &meta, limits).map_err(failed)?;
    let before = After { head: start, kept: meta.kept };
    let append = |batch: &Batch| {
        commit(&handle, before, batch, limits).map_err(|refused| failed(refused.error))
    };
    loop {
        let side = read(&mut backup, limits.restore_batch_bytes)?;
        if side.is_empty() {
            break;
        }
        append(&Batch { transactions: vec![], side })?;
    }
    let backup = backup.finish()?;
    let view = view(&handle, &meta).map_err(failed)?;
    let transaction = last(&view, &backup).map_err(RestoreError::Content)?;
    drop(view);
    let batch = Batch { transactions: vec![transaction], side: vec![] };
    validate(&start, &batch, limits).map_err(|error| OpenError::Invalid(error.to_string()))?;
    let After { head, .. } = append(&batch)?;
    handle.close().map_err(failed)?;
    Ok(Restored { backup, head })
}

/// The next entries, as far as they fit into a batch; none at the end.
fn read(backup: &mut BackupReader<impl Read>, bytes_max: u64) -> Result<Vec<Op>, BackupError> {
    let (mut ops, mut bytes) = (vec![], 0_u64);
    while bytes < bytes_max
        && let Some((key, value)) = backup.next()?
    {
        let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        let op = Op::Put { key, value };
        bytes = bytes.saturating_add(op.bytes()).saturating_add(RESTORE_OP_BYTES);
        ops.push(op);
    }
    Ok(ops)
}

fn view(handle: &Handle, meta: &Meta) -> Result<Arc<dyn View>, TableError> {
    let tables = caught(|| Tables::latest(handle.database()?, handle.number))?;
    Ok(Arc::new(Snapshot::unverified(tables, meta)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::RESTORE_BATCH_BYTES;
    use crate::{MemoryStore, write_backup};
    use futures_util::FutureExt as _;

    #[test]
    fn a_batch_holds_as_much_as_its_limit_and_one_entry_more() {
        use crate::Journal as _;

        let value = Bytes::from(vec![7; 1_000]);
        let put = |number: u8| Op::Put { key: vec![number].into(), value: value.clone() };
        let batch = Batch { transactions: vec![], side: (0..10).map(put).collect() };
        let store = MemoryStore::new(1, Limits::default());
        store.append(Head::empty(1), batch).now_or_never().unwrap().unwrap();
        let mut bytes = vec![];
        write_backup(&*store.view().now_or_never().unwrap().unwrap(), &mut bytes).unwrap();
        let sizes = |bytes_max: u64| {
            let mut backup = BackupReader::new(&bytes[..]).unwrap();
            let mut sizes = vec![];
            loop {
                let ops = read(&mut backup, bytes_max).unwrap();
                sizes.push(ops.len());
                if ops.is_empty() {
                    return sizes;
                }
            }
        };
        let entry = 1_001 + RESTORE_OP_BYTES;
        assert_eq!(sizes(4 * entry), [4, 4, 2, 0]);
        assert_eq!(sizes(4 * entry + 1), [5, 5, 0]);
        assert_eq!(sizes(1), [[1; 10].as_slice(), &[0]].concat());
        assert_eq!(Limits::default().restore_batch_bytes, RESTORE_BATCH_BYTES);
        assert!(size_of::<Op>() as u64 <= RESTORE_OP_BYTES);
    }
}
