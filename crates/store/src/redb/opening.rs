//! From a disk to an open store. docs/STORE.md lists the steps.

use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope};

use ::redb::{
    Builder, Database, Durability, ReadableDatabase as _, StorageBackend, WriteTransaction,
};

use super::disk::{Disk, Overlay, Stoppable, Trace, Traced};
use super::error::OpenError;
use super::schema::{
    FORMAT, LOG, META, META_CREATED, META_FORMAT, META_HEAD, META_KEPT, META_PAGE_KEY, Meta, STATE,
    TableError, format_of, put, read_meta, read_transaction,
};
use super::view::{Snapshot, Tables, caught};
use crate::limits::OPENING_CACHE_BYTES;
use crate::{Limits, View};

/// How much the thread that verifies a file gives way to those that read it, see `nice(2)`: of a processor that another one
/// wants, it gets a tenth.
#[cfg(target_os = "linux")]
const VERIFY_NICE: i32 = 10;

/// A handle of redb.
pub(super) struct Handle {
    /// Empty only while it is dropped.
    database: Option<Database>,
    pub(super) trace: Arc<Trace>,
    pub(super) number: u64,
}

/// A handle closes with a commit. A panic of redb there, or because of an earlier one, must not end more than that.
impl Drop for Handle {
    fn drop(&mut self) {
        let database = self.database.take();
        drop(panic::catch_unwind(AssertUnwindSafe(|| drop(database))));
    }
}

impl Handle {
    pub(super) fn database(&self) -> Result<&Database, TableError> {
        let closed = || ::redb::Error::DatabaseClosed.into();
        self.database.as_ref().ok_or_else(closed)
    }

    pub(super) fn database_mut(&mut self) -> Result<&mut Database, TableError> {
        let closed = || ::redb::Error::DatabaseClosed.into();
        self.database.as_mut().ok_or_else(closed)
    }

    /// Closes it.
    ///
    /// # Errors
    ///
    /// What was not written.
    pub(super) fn close(mut self) -> Result<(), TableError> {
        let database = self.database.take();
        caught(|| database.map_or(Ok(()), |database| Ok(database.close()?)))
    }

    /// Begins a transaction as every one of a store is.
    pub(super) fn begin(&self) -> Result<WriteTransaction, TableError> {
        let mut transaction = self.database()?.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        Ok(transaction)
    }
}

/// An open store: the handle, the tables, and what the records about the store say.
pub(super) struct Opened {
    pub(super) handle: Handle,
    pub(super) tables: Tables,
    pub(super) meta: Meta,
}

/// Opens a handle. `path`: for messages. `verify`: read every page first, and write nothing before all of it was
/// found right. Without it, records are verified when they are read.
pub(super) fn open(
    disk: &dyn Disk,
    path: &Path,
    limits: &Limits,
    number: u64,
    verify: bool,
) -> Result<Opened, OpenError> {
    if verify {
        open_verified(disk, path, number)?;
    }
    open_for_use(disk, path, limits, number)
}

fn open_for_use(
    disk: &dyn Disk,
    path: &Path,
    limits: &Limits,
    number: u64,
) -> Result<Opened, OpenError> {
    let (file, _) = backend(disk, path, false)?;
    open_backend(file, path, limits.cache_bytes, number, false)
}

/// Reads and verifies every page, and opens a handle whose writes stay in memory.
pub(super) fn open_verified(
    disk: &dyn Disk,
    path: &Path,
    number: u64,
) -> Result<Opened, OpenError> {
    let (file, length) = backend(disk, path, true)?;
    thread::scope(|scope| {
        read_ahead(scope, disk);
        verify(file, length, path, number)
    })
}

/// Lets the system read the file, on another thread. That is only for speed, so a system that has no more threads does
/// without.
fn read_ahead<'s>(scope: &'s Scope<'s, '_>, disk: &'s dyn Disk) {
    drop(
        thread::Builder::new().name("read-ahead".into()).spawn_scoped(scope, || disk.read_ahead()),
    );
}

fn verify(
    file: Box<dyn StorageBackend>,
    length: u64,
    path: &Path,
    number: u64,
) -> Result<Opened, OpenError> {
    open_backend(Box::new(Overlay::over(file, length)), path, OPENING_CACHE_BYTES, number, true)
}

/// Opens a handle as [`open`] does that verifies, and meanwhile calls `read` with a view of what is not verified yet. What
/// it returns is passed on only if it has read what was verified.
///
/// Two handles of redb have the same file. None of them changes it, and both begin with the commit that its header says.
pub(super) fn open_and_read<T: Send>(
    disk: &dyn Disk,
    path: &Path,
    limits: &Limits,
    number: u64,
    read: impl FnOnce(&Arc<dyn View>) -> Option<T> + Send,
) -> Result<(Opened, Option<T>), OpenError> {
    let refused = Arc::new(AtomicBool::default());
    let read = || {
        let (file, length) = backend(disk, path, false).ok()?;
        let backend = Overlay::over(file, length);
        let backend = Box::new(Stoppable { backend, stopped: Arc::clone(&refused) });
        let Opened { handle: _open, tables, meta } =
            open_backend(backend, path, OPENING_CACHE_BYTES, number, false).ok()?;
        let view: Arc<dyn View> = Arc::new(Snapshot::unverified(tables, &meta));
        Some((meta.head, read(&view)?))
    };
    let (file, length) = backend(disk, path, true)?;
    let read = thread::scope(|scope| {
        read_ahead(scope, disk);
        let thread = |name: &str| thread::Builder::new().name(name.into());
        let read = thread("read").spawn_scoped(scope, read);
        let verified = thread("verify").spawn_scoped(scope, || {
            yield_to_others();
            let verified = verify(file, length, path, number).map(drop);
            refused.store(verified.is_err(), Ordering::Relaxed);
            verified
        });
        let verified = verified.map_err(|error| OpenError::io(path, error))?.join();
        verified.unwrap_or_else(|panicked| panic::resume_unwind(panicked))?;
        Ok(read.ok().and_then(|thread| thread.join().ok()).flatten())
    })?;
    let opened = open_for_use(disk, path, limits, number)?;
    // redb goes back to an earlier commit if the last one is damaged.
    let read = read.filter(|(head, _)| *head == opened.meta.head);
    Ok((opened, read.map(|(_, read)| read)))
}

/// Lets other threads go first on a busy processor. What is read goes on to be indexed, on one thread at the end; to verify
/// the file fills the time that they leave.
#[cfg(target_os = "linux")]
fn yield_to_others() {
    // Of this thread only, on Linux. It is only for speed.
    let _ = rustix::process::nice(VERIFY_NICE);
}

/// Elsewhere it would be of the whole process.
#[cfg(not(target_os = "linux"))]
const fn yield_to_others() {}

/// The bytes of a disk, and how many there are. redb would make a new store of an empty file.
fn backend(
    disk: &dyn Disk,
    path: &Path,
    anew: bool,
) -> Result<(Box<dyn StorageBackend>, u64), OpenError> {
    let backend = disk.open(anew).map_err(|error| OpenError::io(path, error))?;
    let length = backend.len().map_err(|error| OpenError::io(path, error))?;
    if length == 0 { Err(OpenError::Empty(path.to_owned())) } else { Ok((backend, length)) }
}

/// Opens a handle on a backend that is not empty. `verify`: let redb read and verify every page; it then
/// writes, too.
fn open_backend(
    backend: Box<dyn StorageBackend>,
    path: &Path,
    cache_bytes: usize,
    number: u64,
    verify: bool,
) -> Result<Opened, OpenError> {
    let trace = Arc::new(Trace::default());
    let backend = Traced { backend, trace: Arc::clone(&trace) };
    let opened = caught(|| {
        let mut builder = Builder::new();
        builder.set_cache_size(cache_bytes).set_check_integrity_on_open(verify);
        let database = Some(builder.create_with_backend(backend)?);
        let handle = Handle { database, trace: Arc::clone(&trace), number };
        let Some(format) = format_in(handle.database()?)? else { return Ok(Err(foreign(path))) };
        if format != FORMAT {
            return Ok(Err(other_format(path, format)));
        }
        let tables = Tables::latest(handle.database()?, number)?;
        let meta = read_meta(&tables.meta)?;
        verify_last(&tables, &meta)?;
        Ok(Ok(Opened { handle, tables, meta }))
    });
    opened.unwrap_or_else(|error| {
        let path = path.to_owned();
        Err(match error {
            _ if trace.read_past_end() => OpenError::Truncated(path),
            TableError::Failed(error) => OpenError::io(path, trace.failure().unwrap_or(error)),
            // redb's words; a test has them.
            TableError::Corrupt(reason) if reason.starts_with("File truncated") => {
                OpenError::Truncated(path)
            }
            TableError::Corrupt(reason) => match trace.failure() {
                Some(error) => OpenError::io(path, error),
                None => OpenError::Corrupt { path, reason },
            },
        })
    })
}

/// The format of a store; `None` of another program's file.
fn format_in(database: &Database) -> Result<Option<u32>, TableError> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => format_of(&meta),
        Err(::redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn foreign(path: &Path) -> OpenError {
    let reason = "it is a redb file without the records of a store".to_owned();
    OpenError::Foreign { path: path.to_owned(), reason }
}

fn other_format(path: &Path, found: u32) -> OpenError {
    if found > FORMAT {
        OpenError::Newer { path: path.to_owned(), found, known: FORMAT }
    } else {
        let reason = format!("there is no format {found}");
        OpenError::Corrupt { path: path.to_owned(), reason }
    }
}

/// The last transaction of the log must end with the head.
fn verify_last(tables: &Tables, meta: &Meta) -> Result<(), TableError> {
    let seq = meta.head.seq;
    if meta.kept.from > seq || read_transaction(&tables.log, seq)?.committed.head == meta.head {
        return Ok(());
    }
    Err(TableError::Corrupt(format!("transaction {seq} in the log does not end with the head")))
}

/// Makes a store in an empty file.
pub(super) fn make(backend: Traced, meta: &Meta, limits: &Limits) -> Result<Handle, TableError> {
    caught(|| {
        let trace = Arc::clone(&backend.trace);
        let database =
            Some(Builder::new().set_cache_size(limits.cache_bytes).create_with_backend(backend)?);
        let handle = Handle { database, trace, number: 0 };
        let transaction = handle.begin()?;
        transaction.open_table(STATE)?;
        transaction.open_table(LOG)?;
        {
            let mut table = transaction.open_table(META)?;
            let records: [(&[u8], &[u8]); 5] = [
                (META_FORMAT, &FORMAT.to_le_bytes()),
                (META_HEAD, &meta.head.to_bytes()),
                (META_KEPT, &meta.kept.to_bytes()),
                (META_PAGE_KEY, &meta.page_key),
                (META_CREATED, &meta.created.to_le_bytes()),
            ];
            for (key, value) in records {
                put(&mut table, key, value, &mut Vec::new())?;
            }
        }
        transaction.commit()?;
        Ok(handle)
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    /// The program goes on as before.
    #[test]
    fn only_the_thread_that_verifies_gives_way() {
        let before = getpriority_process(None).unwrap();
        let verifying = thread::spawn(|| {
            yield_to_others();
            getpriority_process(None).unwrap()
        });
        assert_eq!(verifying.join().unwrap(), (before + VERIFY_NICE).min(19));
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
