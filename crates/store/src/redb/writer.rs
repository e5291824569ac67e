//! The only writer of a file, and what it does after a failure.
//!
//! redb lets a handle write no more after the disk has failed once. So the handle is dropped, and another one is
//! opened, which reads what the disk really has. That happens in the call that failed, or, if it is not possible
//! yet, in a later one. Three failures within a minute end the writing until the store is opened anew: a
//! disk that fails again and again must not be trusted with more.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

use super::Shared;
use super::commit::{After, CommitError, commit};
use super::opening::{Handle, Opened, open};
use super::schema::TableError;
use super::view::{Snapshot, Tables, caught};
use crate::batch::validate;
use crate::limits::{FAILURES_MAX, FREE_BYTES_MIN};
use crate::{AppendError, Batch, Head, Limits, StoreError};

/// See the module. It is locked for the whole of a commit.
pub(super) struct Writer {
    /// `None` after a failure, until it could be opened again.
    handle: Option<Handle>,
    after: After,
    /// The key of the store, which tells whether the file is still the same.
    page_key: [u8; 32],
    /// Commits made by this process, and those that may have been made.
    generation: u64,
    /// The number of the handle that was opened last.
    handles: u64,
    /// Where the store may be, if it is not known.
    perhaps: Option<Head>,
    /// Whether the next handle verifies the whole file.
    verify: bool,
    /// When the disk failed, within [`crate::Limits::failures_period`].
    failures: VecDeque<Instant>,
    /// Why nothing is written any more.
    stopped: Option<String>,
    /// When the next try to open the file may begin.
    open_after: Option<Instant>,
}

impl Writer {
    /// The writer of a store that was just opened.
    pub(super) fn new(opened: Opened) -> (Self, Tables) {
        let Opened { handle, tables, meta } = opened;
        let writer = Self {
            handles: handle.number,
            handle: Some(handle),
            after: After { head: meta.head, kept: meta.kept },
            page_key: meta.page_key,
            generation: 0,
            perhaps: None,
            verify: false,
            failures: VecDeque::new(),
            stopped: None,
            open_after: None,
        };
        (writer, tables)
    }

    /// The state as it is now, for readers.
    pub(super) fn snapshot(&self, tables: Tables, shared: &Arc<Shared>) -> Snapshot {
        let After { head, kept } = self.after;
        let tables = ArcSwap::from_pointee(tables);
        let shared = Arc::downgrade(shared);
        Snapshot { head, generation: self.generation, kept, tables, shared }
    }

    /// See [`crate::Journal::append`].
    pub(super) fn append(
        &mut self,
        shared: &Arc<Shared>,
        expected: &Head,
        batch: &Batch,
    ) -> Result<Head, AppendError> {
        // A reader met a failure, or redb one that it could do without. It may be the one that ends the writing.
        if let Some(cause) = self.handle.as_ref().and_then(|handle| handle.trace.failure()) {
            self.drop_handle(shared, Fault::of(&cause, true));
        }
        if let Some(reason) = &self.stopped {
            return Err(StoreError::ReadOnly(reason.clone()).into());
        }
        self.reopen(shared)?;
        if self.after.head != *expected {
            return Err(AppendError::Conflict(self.after.head));
        }
        validate(expected, batch, &shared.limits)?;
        if batch.transactions.is_empty() && batch.side.is_empty() {
            return Ok(*expected);
        }
        let room = shared.disk.room().map_err(StoreError::Unreachable)?;
        if room.read_only {
            let reason = "its file system is mounted read-only".to_owned();
            return Err(StoreError::ReadOnly(reason).into());
        }
        if room.free < FREE_BYTES_MIN.saturating_add(batch.bytes().saturating_mul(2)) {
            return Err(StoreError::Full.into());
        }
        let Some(handle) = &self.handle else {
            return Err(StoreError::Unreachable(pause()).into());
        };
        match commit(handle, self.after, batch, &shared.limits) {
            Ok(after) => {
                self.after = after;
                self.generation = self.generation.saturating_add(1);
                // It is durable, whatever comes now.
                match caught(|| Tables::latest(handle.database()?, handle.number)) {
                    Ok(tables) => shared.publish(self.snapshot(tables, shared)),
                    Err(_) => self.drop_handle(shared, Fault::Disk),
                }
                Ok(after.head)
            }
            Err(error) => Err(self.failed(shared, error).into()),
        }
    }

    /// Judges a failed commit, and opens a new handle.
    fn failed(&mut self, shared: &Arc<Shared>, failed: CommitError) -> StoreError {
        let cause = self.handle.as_ref().and_then(|handle| handle.trace.failure());
        let cause = match (cause, failed.error) {
            (Some(cause), _) | (None, TableError::Failed(cause)) => Ok(cause),
            (None, TableError::Corrupt(reason)) => Err(reason),
        };
        let is_unknown = failed.perhaps.is_some();
        let fault = cause.as_ref().map_or(Fault::Disk, |cause| Fault::of(cause, is_unknown));
        let answer = match (failed.perhaps, cause) {
            (Some(_), cause) => StoreError::OutcomeUnknown(cause.unwrap_or_else(io::Error::other)),
            (None, Ok(cause)) => definite(cause),
            (None, Err(reason)) => StoreError::Corrupt(reason),
        };
        if is_unknown {
            self.perhaps = failed.perhaps;
            self.generation = self.generation.saturating_add(1);
        }
        self.drop_handle(shared, fault);
        answer
    }

    /// Drops a handle that failed, and opens another one if that is possible now.
    fn drop_handle(&mut self, shared: &Arc<Shared>, fault: Fault) {
        self.handle = None;
        self.verify |= fault != Fault::Full;
        if fault == Fault::Disk {
            self.count_failure(&shared.limits);
        }
        let _later = self.reopen(shared);
    }

    /// What a reader calls whose read failed: opens a new handle, if the one it read with is still in use.
    pub(super) fn renew(&mut self, shared: &Arc<Shared>, handle: u64) -> Result<(), StoreError> {
        if self.handle.as_ref().is_some_and(|current| current.number == handle) {
            self.drop_handle(shared, Fault::Disk);
        }
        self.reopen(shared)
    }

    fn count_failure(&mut self, limits: &Limits) {
        let now = Instant::now();
        self.failures.retain(|then| now.duration_since(*then) < limits.failures_period);
        self.failures.push_back(now);
        if self.failures.len() >= FAILURES_MAX && self.stopped.is_none() {
            self.stopped = Some(format!(
                "its disk failed {FAILURES_MAX} times within {} s; look at the disk, then restart the server",
                limits.failures_period.as_secs()
            ));
        }
    }

    /// Opens a handle if there is none.
    pub(super) fn reopen(&mut self, shared: &Arc<Shared>) -> Result<(), StoreError> {
        if self.handle.is_some() {
            return Ok(());
        }
        shared.set_failed(true);
        if self.open_after.is_some_and(|time| Instant::now() < time) {
            return Err(StoreError::Unreachable(pause()));
        }
        let number = self.handles.saturating_add(1);
        let opened = open(&*shared.disk, &shared.path, &shared.limits, number, self.verify)
            .map_err(StoreError::from)
            .and_then(|opened| self.expect(opened));
        match opened {
            Ok(opened) => {
                let Opened { handle, tables, meta } = opened;
                self.handles = number;
                self.handle = Some(handle);
                self.after = After { head: meta.head, kept: meta.kept };
                self.perhaps = None;
                self.verify = false;
                self.open_after = None;
                shared.publish(self.snapshot(tables, shared));
                shared.set_failed(false);
                Ok(())
            }
            Err(error) => {
                // The failure for which it is opened again was counted.
                self.open_after = Instant::now().checked_add(shared.limits.reopen_pause);
                Err(error)
            }
        }
    }

    /// Refuses a store that is not the one that was open before.
    fn expect(&self, opened: Opened) -> Result<Opened, StoreError> {
        let found = opened.meta.head;
        let is_same = opened.meta.page_key == self.page_key
            && (found == self.after.head || Some(found) == self.perhaps);
        if is_same {
            return Ok(opened);
        }
        Err(StoreError::Corrupt(format!(
            "transaction {} was acknowledged, but the file ends with transaction {}",
            self.after.head.seq, found.seq
        )))
    }
}

#[cfg(test)]
impl Writer {
    /// New tables of the state as it is now.
    pub(super) fn tables(&self) -> Result<(Tables, After), TableError> {
        let Some(handle) = &self.handle else { return Err(TableError::Failed(pause())) };
        let tables = caught(|| Tables::latest(handle.database()?, handle.number))?;
        Ok((tables, self.after))
    }

    /// Lets the next try to open the file begin now.
    pub(super) fn end_pause(&mut self) {
        self.open_after = None;
    }

    /// Closes the handle, as after a failure.
    pub(super) fn forget_handle(&mut self) {
        self.handle = None;
    }
}

/// What a failure says of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It was full before something was committed: what it has is as it was.
    Full,
    /// It was full, perhaps while something was committed: no fault, but it may lack pages that were written.
    FullMeanwhile,
    /// It failed.
    Disk,
}

impl Fault {
    /// `is_unknown`: a commit may have been made, or it is not known when the failure was.
    fn of(cause: &io::Error, is_unknown: bool) -> Self {
        match (is_full(cause), is_unknown) {
            (true, false) => Self::Full,
            (true, true) => Self::FullMeanwhile,
            (false, _) => Self::Disk,
        }
    }
}

fn is_full(cause: &io::Error) -> bool {
    use io::ErrorKind;
    let kinds = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge];
    kinds.contains(&cause.kind())
}

/// A failure before which nothing was committed.
fn definite(cause: io::Error) -> StoreError {
    use io::ErrorKind;
    match cause.kind() {
        _ if is_full(&cause) => StoreError::Full,
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
            StoreError::ReadOnly(cause.to_string())
        }
        _ => StoreError::Unreachable(cause),
    }
}

fn pause() -> io::Error {
    io::Error::other("the file could not be opened again; the next call tries it in a moment")
}
