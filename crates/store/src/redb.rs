//! A journal in a file of redb.
//!
//! ```text
//! append ──▶ Writer ──▶ commit: one transaction of redb (state, log, head) ──▶ Snapshot published ──▶ Ok
//!              │ failure                                                          ▲        │
//!              └──▶ the handle is dropped, another one is opened ─────────────────┘        └──▶ views, watchers
//! ```
//!
//! Writes run on the thread that asks, one at a time: once one has begun, it ends, whoever stops waiting. Reads of a view run
//! on the thread that asks, too.
//!
//! docs/STORE.md draws the file. Read `schema`, `opening`, `commit`, `writer`, `view`, then `restore`; `dir` and `disk` are below
//! redb.

mod check;
mod commit;
mod dir;
mod disk;
mod error;
mod opening;
mod restore;
mod schema;
#[cfg(test)]
mod tests;
mod view;
mod writer;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use futures_util::future::{self, BoxFuture, FutureExt as _};
use futures_util::stream::BoxStream;
use tokio::sync::watch;

pub use check::{Checked, Compacted};
pub use error::OpenError;
pub use restore::{RestoreError, Restored};

use crate::batch::validate;
use crate::follow::{History, follow};
use crate::{
    AppendError, Batch, Committed, EPOCH_MAX, Head, Journal, Limits, StoreError, View, WatchError,
};
use commit::{After, commit};
use dir::Dir;
use disk::{Disk, FileBackend, Traced};
use opening::{Opened, make, open, open_and_read};
use schema::{Kept, Meta, TableError};
use view::{Snapshot, Tables};
use writer::Writer;

/// A journal in a file. Its directory is this process's alone until it is dropped, which writes to the file and blocks
/// for some milliseconds. Views and watches do not hold it.
///
/// Methods of [`Journal`] must be called in a runtime of tokio.
#[derive(Debug)]
pub struct RedbStore {
    shared: Arc<Shared>,
    page_key: [u8; 32],
    created: SystemTime,
}

struct Shared {
    limits: Limits,
    /// Dropped before `disk`, which holds the lock: closing writes to the file.
    writer: Mutex<Writer>,
    /// The state that readers get. Changed only while `writer` is locked.
    latest: ArcSwapOption<Snapshot>,
    /// The head, for watchers. Likewise.
    heads: watch::Sender<Head>,
    /// Whether there is no handle that works, so that `latest` may be behind.
    failed: AtomicBool,
    path: PathBuf,
    disk: Box<dyn Disk>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("path", &self.path).finish_non_exhaustive()
    }
}

impl RedbStore {
    /// Makes a store in a directory, with a first batch in it. The directory is made if it is not there. The store
    /// appears whole or not at all. This blocks.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]. A store that is there is never overwritten.
    pub fn init(dir: &Path, epoch: u16, first: &Batch, limits: &Limits) -> Result<(), OpenError> {
        if !(1..=EPOCH_MAX).contains(&epoch) {
            let text = format!("the epoch of a store is 1 to {EPOCH_MAX}, not {epoch}");
            return Err(OpenError::Invalid(text));
        }
        let head = Head::empty(epoch);
        validate(&head, first, limits).map_err(|error| OpenError::Invalid(error.to_string()))?;
        let dir = Dir::create(dir)?;
        let file = dir.create_new()?;
        let backend = Traced { backend: Box::new(FileBackend(file)), trace: Arc::default() };
        fill(backend, head, first, limits).map_err(|error| OpenError::of_file(&dir, error))?;
        dir.put_new_in_place()
    }

    /// Looks whether a directory has a store that this process could open, by owners, permissions and the first bytes of the file. It takes
    /// no lock and changes nothing, so that a process which has the store open is not disturbed. What is in the file is not verified.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn look_at(dir: &Path) -> Result<(), OpenError> {
        Dir::look_at(dir)
    }

    /// Opens the store of a directory. This verifies the whole file, audit records included, and blocks meanwhile:
    /// the time is that of reading the file, see docs/PERFORMANCE.md.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn open(dir: &Path, limits: Limits) -> Result<Self, OpenError> {
        let dir = Dir::open(dir)?;
        dir.look()?;
        let path = dir.file();
        Self::open_on(Box::new(dir), path, limits)
    }

    /// Opens the store of a directory as [`Self::open`] does, and reads from it while it is verified.
    ///
    /// `read` is called on another thread, with a view of what is *not verified yet*: a damaged file gives errors, or wrong
    /// records. What it returns is passed on if the whole file was found right and its head is that of the view, else
    /// dropped. So it must do nothing but read. It may not be called at all. The view ends with the call.
    ///
    /// # Errors
    ///
    /// Those of [`Self::open`]. Those of `read` are the caller's: a store may be opened without its result.
    pub fn open_and_read<T: Send>(
        dir: &Path,
        limits: Limits,
        read: impl FnOnce(&Arc<dyn View>) -> Option<T> + Send,
    ) -> Result<(Self, Option<T>), OpenError> {
        let dir = Dir::open(dir)?;
        dir.look()?;
        let path = dir.file();
        Self::open_and_read_on(Box::new(dir), path, limits, read)
    }

    fn open_on(disk: Box<dyn Disk>, path: PathBuf, limits: Limits) -> Result<Self, OpenError> {
        let opened = open(&*disk, &path, &limits, 1, true)?;
        Ok(Self::new(disk, path, limits, opened))
    }

    fn open_and_read_on<T: Send>(
        disk: Box<dyn Disk>,
        path: PathBuf,
        limits: Limits,
        read: impl FnOnce(&Arc<dyn View>) -> Option<T> + Send,
    ) -> Result<(Self, Option<T>), OpenError> {
        let (opened, read) = open_and_read(&*disk, &path, &limits, 1, read)?;
        Ok((Self::new(disk, path, limits, opened), read))
    }

    fn new(disk: Box<dyn Disk>, path: PathBuf, limits: Limits, opened: Opened) -> Self {
        let meta = opened.meta;
        let (writer, tables) = Writer::new(opened);
        let shared = Arc::new(Shared {
            limits,
            writer: Mutex::new(writer),
            latest: ArcSwapOption::empty(),
            heads: watch::Sender::new(meta.head),
            failed: AtomicBool::new(false),
            path,
            disk,
        });
        shared.publish(shared.lock().snapshot(tables, &shared));
        let since_1970 = std::time::Duration::from_secs(meta.created);
        let created = UNIX_EPOCH.checked_add(since_1970).unwrap_or(UNIX_EPOCH);
        Self { shared, page_key: meta.page_key, created }
    }

    /// A secret of the store, for tokens of lists: every process that has the store has it.
    #[must_use]
    pub const fn page_key(&self) -> &[u8; 32] {
        &self.page_key
    }

    /// When the store was made, to a second.
    #[must_use]
    pub const fn created(&self) -> SystemTime {
        self.created
    }
}

/// Makes a store in an empty file, with a batch in it.
fn fill(backend: Traced, head: Head, first: &Batch, limits: &Limits) -> Result<(), TableError> {
    let meta = new_meta(head)?;
    let handle = make(backend, &meta, limits)?;
    let committed = commit(&handle, After { head, kept: meta.kept }, first, limits);
    committed.map_err(|failed| failed.error)?;
    handle.close()
}

/// The records about a store that begins behind a head.
fn new_meta(head: Head) -> Result<Meta, TableError> {
    let mut page_key = [0; 32];
    getrandom::fill(&mut page_key).map_err(|error| TableError::Failed(io::Error::other(error)))?;
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let kept = Kept { from: head.seq.saturating_add(1), bytes: 0 };
    Ok(Meta { head, kept, page_key, created: since_1970.as_secs() })
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a state to readers and watchers.
    fn publish(&self, snapshot: Snapshot) {
        let head = snapshot.head;
        self.latest.store(Some(Arc::new(snapshot)));
        self.heads.send_if_modified(|current| std::mem::replace(current, head) != head);
    }

    fn set_failed(&self, failed: bool) {
        self.failed.store(failed, Ordering::Release);
    }

    /// The state that was published last. After a failure, once the file could be opened again.
    fn latest(&self) -> Option<Arc<Snapshot>> {
        if self.failed.load(Ordering::Acquire) { None } else { self.latest.load_full() }
    }

    /// The latest state; opens the file again if need be.
    fn recovered(self: &Arc<Self>) -> Result<Arc<Snapshot>, StoreError> {
        self.lock().reopen(self)?;
        self.latest.load_full().ok_or_else(|| StoreError::Unreachable(ended()))
    }

    /// The tables of a snapshot behind a new handle, if nothing was written since. `handle`: what failed.
    fn renewed(
        self: &Arc<Self>,
        snapshot: &Snapshot,
        handle: u64,
    ) -> Result<Arc<Tables>, StoreError> {
        self.lock().renew(self, handle)?;
        let latest = self.latest.load_full();
        let same = latest.filter(|latest| latest.generation == snapshot.generation);
        let tables = same.map(|latest| latest.tables.load_full());
        tables.ok_or_else(|| StoreError::Unreachable(ended()))
    }

    fn snapshot(self: &Arc<Self>) -> BoxFuture<'static, Result<Arc<Snapshot>, StoreError>> {
        if let Some(latest) = self.latest() {
            return future::ready(Ok(latest)).boxed();
        }
        let shared = Arc::clone(self);
        async move {
            let stopped = |error| Err(StoreError::Unreachable(io::Error::other(error)));
            blocking(move || shared.recovered()).await.unwrap_or_else(stopped)
        }
        .boxed()
    }
}

fn ended() -> io::Error {
    io::Error::other(
        "the file was opened again after a failure and has changed since: take a new view",
    )
}

/// Runs blocking work.
///
/// # Errors
///
/// The runtime is shutting down, and the work was not begun.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    let result = tokio::task::spawn_blocking(work).await;
    result.map_err(|error| match error.try_into_panic() {
        Ok(panicked) => std::panic::resume_unwind(panicked),
        Err(error) => error,
    })
}

impl History for Shared {
    fn read(
        self: Arc<Self>,
        from: u64,
    ) -> BoxFuture<'static, Result<VecDeque<Committed>, WatchError>> {
        async move {
            let snapshot = self.snapshot().await?;
            let bytes_max = self.limits.watch_queue_bytes;
            let read = blocking(move || snapshot.transactions(from, bytes_max)).await;
            read.unwrap_or_else(
                |error| Err(StoreError::Unreachable(io::Error::other(error)).into()),
            )
        }
        .boxed()
    }
}

impl Journal for RedbStore {
    fn head(&self) -> BoxFuture<'_, Result<Head, StoreError>> {
        self.shared.snapshot().map(|snapshot| Ok(snapshot?.head)).boxed()
    }

    fn view(&self) -> BoxFuture<'_, Result<Arc<dyn View>, StoreError>> {
        self.shared.snapshot().map(|snapshot| Ok(snapshot? as Arc<dyn View>)).boxed()
    }

    fn append(&self, expected: Head, batch: Batch) -> BoxFuture<'_, Result<Head, AppendError>> {
        // Not on another thread: each write would wait for that one to wake, and then for its own (docs/PERFORMANCE.md, the store).
        async move { self.shared.lock().append(&self.shared, &expected, &batch) }.boxed()
    }

    fn watch(
        &self,
        from: u64,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<Committed, WatchError>>, WatchError>> {
        follow(&self.shared, self.shared.heads.subscribe(), from).boxed()
    }
}
