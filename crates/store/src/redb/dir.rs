//! The directory of a store: who may use it, who has it open, and the file in it.
//!
//! ```text
//! DIR/             0700, of the user of this process
//!   lock           0600, held by flock as long as the store is open; holds the process id
//!   store.redb     0600, the store
//!   store.redb.new 0600, a store that is being made; without use when found
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
#[cfg(any(target_os = "linux", test))]
use std::ops::Range;
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use ::redb::StorageBackend;
use rustix::fs::{Access, OFlags, access};
use rustix::io::Errno;
use rustix::process::{Pid, geteuid, test_kill_process};

use super::disk::{Disk, FileBackend, Room, room_of};
use super::error::OpenError;
#[cfg(any(target_os = "linux", test))]
use crate::limits::{READ_AHEAD_BYTES, READ_AHEAD_BYTES_MAX};

const LOCK: &str = "lock";
const FILE: &str = "store.redb";
const NEW: &str = "store.redb.new";
/// The first bytes of each file of redb.
const MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";
/// Permissions that let others change a file or directory.
const OTHERS_WRITE: u32 = 0o022;

/// A directory that this process alone uses, until it is dropped.
#[derive(Debug)]
pub(super) struct Dir {
    path: PathBuf,
    handle: File,
    /// Holds the lock. A closed file has none, however the process ended.
    _lock: File,
}

impl Dir {
    /// Takes the directory, which must be there.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let handle = usable(path)?;
        let _lock = lock(path)?;
        Ok(Self { path: path.to_owned(), handle, _lock })
    }

    /// Looks whether the directory can be taken and what is in it can be a store, without the lock. Nothing is changed, also if another
    /// process has the store open.
    pub(super) fn look_at(path: &Path) -> Result<(), OpenError> {
        usable(path)?;
        store_of(path, OpenOptions::new().read(true))?;
        for needed in [path.to_owned(), path.join(FILE), path.join(LOCK)] {
            match access(&needed, Access::WRITE_OK) {
                // The lock is made where there is none.
                Err(Errno::NOENT) | Ok(()) => {}
                Err(error) => return Err(OpenError::io(needed, error.into())),
            }
        }
        Ok(())
    }

    /// Takes the directory, and makes it if it is not there.
    pub(super) fn create(path: &Path) -> Result<Self, OpenError> {
        let is_there = path.symlink_metadata().is_ok();
        if !is_there {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|error| OpenError::io(path, error))?;
        }
        let dir = Self::open(path)?;
        if !is_there && let Some(parent) = path.parent() {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            let synced = File::open(parent).and_then(|parent| parent.sync_all());
            synced.map_err(|error| OpenError::io(parent, error))?;
        }
        Ok(dir)
    }

    /// The file of the store.
    pub(super) fn file(&self) -> PathBuf {
        self.path.join(FILE)
    }

    /// Refuses what is there in place of a store. What it lets pass may still be damaged.
    pub(super) fn look(&self) -> Result<(), OpenError> {
        let (file, metadata) = store_of(&self.path, OpenOptions::new().read(true).write(true))?;
        // A restored copy may have the mode of its archive.
        if metadata.mode() & 0o077 != 0 {
            let made_private = file.set_permissions(Permissions::from_mode(0o600));
            made_private.map_err(|error| OpenError::io(self.file(), error))?;
        }
        Ok(())
    }

    fn open_file(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(flags(OFlags::NOFOLLOW));
        options.open(self.file())
    }

    /// An empty file, for a store that is being made. There must be no store.
    pub(super) fn create_new(&self) -> Result<File, OpenError> {
        if fs::symlink_metadata(self.file()).is_ok() {
            return Err(OpenError::Exists(self.file()));
        }
        let path = self.path.join(NEW);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::io(path, error));
            }
            _ => {}
        }
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create_new(true).mode(0o600);
        options.open(&path).map_err(|error| OpenError::io(path, error))
    }

    /// Deletes the file of [`Self::create_new`], which is of no use. If that fails, the next one deletes it.
    pub(super) fn remove_new(&self) {
        let _ = fs::remove_file(self.path.join(NEW));
    }

    /// Makes the file of [`Self::create_new`] the store.
    pub(super) fn put_new_in_place(&self) -> Result<(), OpenError> {
        let new = self.path.join(NEW);
        let synced = File::open(&new).and_then(|file| file.sync_all());
        let renamed = synced.and_then(|()| fs::rename(&new, self.file()));
        renamed.and_then(|()| self.handle.sync_all()).map_err(|error| OpenError::io(new, error))
    }
}

impl Disk for Dir {
    fn open(&self, anew: bool) -> io::Result<Box<dyn StorageBackend>> {
        let file = self.open_file()?;
        if anew {
            forget_cached(&file)?;
        }
        Ok(Box::new(FileBackend(file)))
    }

    fn read_ahead(&self) {
        // It is only faster.
        let _ = self.open_file().and_then(|file| read_ahead(&file));
    }

    fn room(&self) -> io::Result<Room> {
        room_of(&self.handle)
    }
}

/// Lets the kernel drop what it has cached of a file. After a failed fsync it may hold pages as clean that the disk does
/// not have. Without them, what is read is what the disk has.
#[cfg(target_os = "linux")]
fn forget_cached(file: &File) -> io::Result<()> {
    use rustix::fs::{Advice, fadvise};

    Ok(fadvise(file, 0, None, Advice::DontNeed)?)
}

/// Lets the kernel read a file.
///
/// redb reads pages in the order of its trees. Read in the order of the file, as here, a large one is there in a fraction
/// of the time (docs/PERFORMANCE.md).
#[cfg(target_os = "linux")]
fn read_ahead(file: &File) -> io::Result<()> {
    use std::num::NonZeroU64;

    use rustix::fs::{Advice, SeekFrom, fadvise, seek};

    let length = file.metadata()?.len();
    let mut end = 0;
    // redb makes a file longer than it needs: the rest is a hole, whose zeros would only need time and memory.
    while end < length
        && let Ok(start) = seek(file, SeekFrom::Data(end))
    {
        end = seek(file, SeekFrom::Hole(start))?;
        for start in ahead(start..end) {
            fadvise(file, start, NonZeroU64::new(READ_AHEAD_BYTES), Advice::WillNeed)?;
        }
    }
    Ok(())
}

/// Other kernels have no such calls.
#[cfg(not(target_os = "linux"))]
fn forget_cached(_: &File) -> io::Result<()> {
    Ok(())
}

/// As [`forget_cached`].
#[cfg(not(target_os = "linux"))]
fn read_ahead(_: &File) -> io::Result<()> {
    Ok(())
}

/// Where the parts of a range begin that are read ahead, of [`READ_AHEAD_BYTES`] each: in one call the kernel reads no more
/// than a few megabytes. What is behind [`READ_AHEAD_BYTES_MAX`] is not read ahead.
#[cfg(any(target_os = "linux", test))]
fn ahead(range: Range<u64>) -> impl Iterator<Item = u64> {
    let bytes = range.end.min(READ_AHEAD_BYTES_MAX).saturating_sub(range.start);
    let parts = 0..bytes.div_ceil(READ_AHEAD_BYTES);
    parts.map(move |part| range.start.saturating_add(part.saturating_mul(READ_AHEAD_BYTES)))
}

fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

/// A directory that this process may use: nobody else can change it.
fn usable(path: &Path) -> Result<File, OpenError> {
    let metadata = fs::symlink_metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => OpenError::Missing(path.to_owned()),
        _ => OpenError::io(path, error),
    })?;
    if !metadata.is_dir() {
        let found = type_of(&metadata);
        return Err(OpenError::WrongType { path: path.to_owned(), found, wanted: "a directory" });
    }
    let handle = OpenOptions::new()
        .read(true)
        .custom_flags(flags(OFlags::NOFOLLOW | OFlags::DIRECTORY))
        .open(path)
        .map_err(|error| OpenError::io(path, error))?;
    let metadata = handle.metadata().map_err(|error| OpenError::io(path, error))?;
    refuse_others(path, &metadata)?;
    Ok(handle)
}

/// The file of a store in a directory, if it can be one.
fn store_of(dir: &Path, options: &mut OpenOptions) -> Result<(File, fs::Metadata), OpenError> {
    let path = dir.join(FILE);
    let metadata = fs::symlink_metadata(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => OpenError::Missing(dir.to_owned()),
        _ => OpenError::io(&path, error),
    })?;
    if !metadata.is_file() {
        return Err(OpenError::WrongType { path, found: type_of(&metadata), wanted: "a file" });
    }
    let opened = options.custom_flags(flags(OFlags::NOFOLLOW)).open(&path);
    let file = opened.map_err(|error| OpenError::io(&path, error))?;
    if metadata.len() == 0 {
        return Err(OpenError::Empty(path));
    }
    let mut start = [0; MAGIC.len()];
    match file.read_exact_at(&mut start, 0) {
        Ok(()) if start == MAGIC => Ok((file, metadata)),
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            Err(OpenError::io(&path, error))
        }
        _ => {
            let reason = "it begins with other bytes".to_owned();
            Err(OpenError::Foreign { path, reason })
        }
    }
}

fn type_of(metadata: &fs::Metadata) -> &'static str {
    match metadata {
        it if it.is_symlink() => "a symbolic link",
        it if it.is_dir() => "a directory",
        it if it.is_file() => "a file",
        _ => "neither a file nor a directory",
    }
}

fn refuse_others(path: &Path, metadata: &fs::Metadata) -> Result<(), OpenError> {
    let refuse =
        |detail, remedy| Err(OpenError::OpenToOthers { path: path.to_owned(), detail, remedy });
    let (owner, user) = (metadata.uid(), geteuid().as_raw());
    if owner != user && owner != 0 {
        let detail = format!("it belongs to user {owner}, this process is of user {user}");
        return refuse(detail, "run as that user, or change the owner with `chown`".to_owned());
    }
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 {
        let remedy = format!("run `chmod 700 {}`", path.display());
        return refuse(format!("its mode is {mode:04o}"), remedy);
    }
    Ok(())
}

/// Takes the lock of a directory, and writes the process id into it.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(flags(OFlags::NOFOLLOW));
    loop {
        let file = options.open(&path).map_err(|error| OpenError::io(&path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::AlreadyOpen { path: dir.to_owned(), pid: holder(&path) });
            }
            Err(TryLockError::Error(error)) => return Err(OpenError::io(&path, error)),
        }
        // Somebody may have removed the file in between: then this lock is of a file that nobody finds.
        let inode =
            |metadata: io::Result<fs::Metadata>| metadata.map(|it| (it.dev(), it.ino())).ok();
        if inode(file.metadata()) == inode(fs::symlink_metadata(&path)) {
            return match write_pid(&file) {
                // The process id is for messages only. A store on a full disk must open.
                Err(error) if error.kind() != io::ErrorKind::StorageFull => {
                    Err(OpenError::io(&path, error))
                }
                _ => Ok(file),
            };
        }
    }
}

/// The process that a lock file names, if there is such a process: its holder writes its own id only after it has the
/// lock, and cannot do so on a full disk. Then the file still names one that has ended.
fn holder(lock: &Path) -> Option<u32> {
    let pid: u32 = fs::read_to_string(lock).ok()?.trim().parse().ok()?;
    let process = Pid::from_raw(i32::try_from(pid).ok()?)?;
    // A process of another user may not be signalled, but is there.
    (test_kill_process(process) != Err(Errno::SRCH)).then_some(pid)
}

fn write_pid(file: &File) -> io::Result<()> {
    let text = format!("{}\n", std::process::id());
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_ahead_in_parts_up_to_a_limit() {
        let parts = |length| ahead(0..length).collect::<Vec<_>>();
        assert_eq!(parts(0), []);
        assert_eq!(parts(1), [0]);
        assert_eq!(parts(READ_AHEAD_BYTES), [0]);
        assert_eq!(parts(READ_AHEAD_BYTES + 1), [0, READ_AHEAD_BYTES]);
        let last = parts(READ_AHEAD_BYTES_MAX).pop();
        assert_eq!(last, Some(READ_AHEAD_BYTES_MAX - READ_AHEAD_BYTES));
        assert_eq!(parts(u64::MAX).pop(), last);
        let behind_a_hole: Vec<_> = ahead(7..READ_AHEAD_BYTES + 8).collect();
        assert_eq!(behind_a_hole, [7, READ_AHEAD_BYTES + 7]);
    }

    /// Data, holes, and nothing else than a hole: it ends.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_with_holes_is_read_ahead() {
        for written in [&[][..], &[0], &[8], &[0, 8]] {
            let file = tempfile::tempfile().unwrap();
            file.set_len(10 * READ_AHEAD_BYTES).unwrap();
            for part in written {
                file.write_all_at(b"data", part * READ_AHEAD_BYTES).unwrap();
            }
            read_ahead(&file).unwrap();
        }
    }
}
