//! Verifying a store, and giving back the space of what was deleted.

use std::fs;
use std::path::Path;

use ::redb::{ReadableTable as _, ReadableTableMetadata as _};

use super::RedbStore;
use super::dir::Dir;
use super::error::OpenError;
use super::opening::{Opened, open as open_store, open_verified};
use super::schema::{Kept, TableError, open, read_transaction};
use super::view::{Tables, caught};
use crate::batch::bytes_of;
use crate::{Head, Limits};

/// What [`RedbStore::check`] found in a store without a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The head.
    pub head: Head,
    /// Entries of the state.
    pub entries: u64,
    /// Bytes of their keys and values.
    pub entry_bytes: u64,
    /// The first transaction that is kept for watchers; the one behind the head if none is.
    pub kept_from: u64,
}

/// What [`RedbStore::compact`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes of the file before.
    pub before: u64,
    /// Bytes of the file now.
    pub after: u64,
}

impl RedbStore {
    /// Reads every record of the store in a directory, and verifies checksums, the head, and the digests of the kept
    /// transactions. The store must not be open. The file is not changed, but made private. This blocks.
    /// `capstan store check` calls it.
    ///
    /// # Errors
    ///
    /// The first fault that is found: [`OpenError::Corrupt`] names the record. Else see [`OpenError`].
    pub fn check(dir: &Path) -> Result<Checked, OpenError> {
        Self::check_each(dir, &mut |_, _| {})
    }

    /// The same, and calls `each` with the entries of the state, in ascending order of their keys. What it saw was found
    /// right only if this returns no error.
    ///
    /// # Errors
    ///
    /// Those of [`Self::check`].
    pub fn check_each(
        dir: &Path,
        each: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<Checked, OpenError> {
        let dir = Dir::open(dir)?;
        dir.look()?;
        let Opened { handle: _open, tables, meta } = open_verified(&dir, &dir.file(), 1)?;
        caught(|| verify(&tables, meta.head, meta.kept, each))
            .map_err(|error| OpenError::of_file(&dir, error))
    }

    /// Makes the file of a store as short as its content allows. The store must not be open. This blocks, and a crash
    /// meanwhile loses nothing. `capstan store compact` calls it.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn compact(dir: &Path) -> Result<Compacted, OpenError> {
        let dir = Dir::open(dir)?;
        dir.look()?;
        let path = dir.file();
        let length = || fs::metadata(&path).map(|it| it.len()).map_err(|e| OpenError::io(&path, e));
        let before = length()?;
        let Opened { mut handle, tables, .. } =
            open_store(&dir, &path, &Limits::default(), 1, true)?;
        drop(tables); // an open read keeps its pages
        let compacted = caught(|| {
            let database = handle.database_mut()?;
            database.compact()?;
            handle.close()
        });
        compacted.map_err(|error| OpenError::of_file(&dir, error))?;
        Ok(Compacted { before, after: length()? })
    }
}

pub(super) fn verify(
    tables: &Tables,
    last: Head,
    kept: Kept,
    each: &mut dyn FnMut(&[u8], &[u8]),
) -> Result<Checked, TableError> {
    let (mut entries, mut entry_bytes) = (0_u64, 0_u64);
    for entry in tables.state.iter()? {
        let (key, record) = entry?;
        let value = open(key.value(), record.value())?;
        entries = entries.saturating_add(1);
        let bytes = key.value().len().saturating_add(value.len());
        entry_bytes = entry_bytes.saturating_add(bytes as u64);
        each(key.value(), value);
    }
    let (mut bytes, mut chunks) = (0_u64, 0_u64);
    let mut before: Option<Head> = None;
    for seq in kept.from..=last.seq {
        let transaction = read_transaction(&tables.log, seq)?;
        let head = transaction.committed.head;
        let expected = before.unwrap_or(Head {
            epoch: head.epoch,
            seq: seq.saturating_sub(1),
            n_ops: 0,
            digest: head.prev_digest,
            prev_digest: head.prev_digest,
        });
        if expected.next(&transaction.committed.ops) != head {
            return Err(TableError::Corrupt(format!(
                "the digest of transaction {seq} does not follow from it and the one before"
            )));
        }
        bytes = bytes.saturating_add(bytes_of(&transaction.committed.ops));
        chunks = chunks.saturating_add(u64::from(transaction.chunks));
        before = Some(head);
    }
    if before.is_some_and(|before| before != last) {
        return Err(TableError::Corrupt(
            "the last transaction does not end with the head".to_owned(),
        ));
    }
    if bytes != kept.bytes || chunks != tables.log.len()? {
        return Err(TableError::Corrupt("the log holds more or less than it should".to_owned()));
    }
    Ok(Checked { head: last, entries, entry_bytes, kept_from: kept.from })
}
