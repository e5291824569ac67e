//! The bytes below redb: a file, and a record of what failed.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ::redb::StorageBackend;
use rustix::fs::{StatVfsMountFlags, fstatvfs};

/// Where the bytes of a store are: a file, or what tests put in its place.
pub(super) trait Disk: Send + Sync + fmt::Debug {
    /// A new handle, which sees what the disk holds and nothing of what an earlier handle failed to write.
    fn open(&self) -> io::Result<Box<dyn StorageBackend>>;

    /// Whether there is room to write.
    fn room(&self) -> io::Result<Room>;
}

/// See [`Disk::room`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Bytes that are free for this process.
    pub(super) free: u64,
    pub(super) read_only: bool,
}

/// What happened below one handle of redb.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// Whether the header was written since the last [`Self::begin`]. A commit begins with it, so before it nothing
    /// is committed.
    header_written: AtomicBool,
    /// Whether something behind the end of the file was read.
    read_past_end: AtomicBool,
    /// The first failure: its kind, and the number that the system gave it.
    failure: Mutex<Option<(io::ErrorKind, Option<i32>)>>,
}

/// Bytes at the start of the file that hold redb's header.
const HEADER_END: u64 = 4_096;

impl Trace {
    /// Begins a transaction.
    pub(super) fn begin(&self) {
        self.header_written.store(false, Ordering::Relaxed);
    }

    pub(super) fn header_written(&self) -> bool {
        self.header_written.load(Ordering::Relaxed)
    }

    pub(super) fn read_past_end(&self) -> bool {
        self.read_past_end.load(Ordering::Relaxed)
    }

    /// The first failure of the disk below this handle.
    pub(super) fn failure(&self) -> Option<io::Error> {
        let (kind, number) = (*self.failure.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some(number.map_or_else(|| kind.into(), io::Error::from_raw_os_error))
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert((error.kind(), error.raw_os_error()));
        }
        result
    }
}

/// A backend, with its [`Trace`].
#[derive(Debug)]
pub(super) struct Traced {
    pub(super) backend: Box<dyn StorageBackend>,
    pub(super) trace: Arc<Trace>,
}

impl StorageBackend for Traced {
    fn len(&self) -> io::Result<u64> {
        self.trace.note(self.backend.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let result = self.backend.read(offset, out);
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::UnexpectedEof) {
            self.trace.read_past_end.store(true, Ordering::Relaxed);
        }
        self.trace.note(result)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.trace.note(self.backend.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.trace.note(self.backend.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset < HEADER_END {
            self.trace.header_written.store(true, Ordering::Relaxed);
        }
        self.trace.note(self.backend.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }
}

/// A file as redb's backend. It takes no lock: [`super::dir`] has one of its own.
#[derive(Debug)]
pub(super) struct FileBackend(pub(super) File);

impl StorageBackend for FileBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}

/// The room of the file system of a file or directory.
pub(super) fn room_of(file: &File) -> io::Result<Room> {
    let stat = fstatvfs(file)?;
    Ok(Room {
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        read_only: stat.f_flag.contains(StatVfsMountFlags::RDONLY),
    })
}
