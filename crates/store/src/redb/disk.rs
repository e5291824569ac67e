//! The bytes below redb: a file, and a record of what failed.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::redb::StorageBackend;
use rustix::fs::{StatVfsMountFlags, fstatvfs};

/// Where the bytes of a store are: a file, or what tests put in its place.
pub(super) trait Disk: Send + Sync + fmt::Debug {
    /// A new handle. `anew`: it reads from the disk, and sees nothing of what an earlier handle failed to write.
    fn open(&self, anew: bool) -> io::Result<Box<dyn StorageBackend>>;

    /// Lets the system read the file before it is asked for, where that is possible.
    fn read_ahead(&self) {}

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

/// A backend whose writes stay in memory: to repair and verify a file without a change of it. redb writes little
/// then: its header, and which pages are free.
#[derive(Debug)]
pub(super) struct Overlay {
    file: Box<dyn StorageBackend>,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    length: u64,
    /// The length of what is still read from the file: a shortened and lengthened file ends with zeros.
    file_length: u64,
    /// Blocks of [`BLOCK`] bytes, by their number.
    blocks: BTreeMap<u64, Vec<u8>>,
}

/// Bytes of a block of an overlay: a page of redb.
const BLOCK: u64 = 4_096;

impl Overlay {
    pub(super) const fn over(file: Box<dyn StorageBackend>, length: u64) -> Self {
        let written = Written { length, file_length: length, blocks: BTreeMap::new() };
        Self { file, written: Mutex::new(written) }
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Written {
    /// The bytes of a block as they are now.
    fn block(&self, file: &dyn StorageBackend, number: u64) -> io::Result<Vec<u8>> {
        if let Some(block) = self.blocks.get(&number) {
            return Ok(block.clone());
        }
        let mut block = vec![0; usize::try_from(BLOCK).unwrap_or(usize::MAX)];
        let start = number.saturating_mul(BLOCK);
        let there = self.file_length.saturating_sub(start).min(BLOCK);
        if let Some(there) = block.get_mut(..usize::try_from(there).unwrap_or(0))
            && !there.is_empty()
        {
            file.read(start, there)?;
        }
        Ok(block)
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.lock();
        let end = offset.saturating_add(out.len() as u64);
        if end > written.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let blocks = offset / BLOCK..end.div_ceil(BLOCK);
        if end <= written.file_length && written.blocks.range(blocks.clone()).next().is_none() {
            return self.file.read(offset, out);
        }
        let mut skipped = usize::try_from(offset % BLOCK).unwrap_or(0);
        let mut out = out.iter_mut();
        for number in blocks {
            let block = written.block(&*self.file, number)?;
            // `zip` asks the block first, so it takes no place of `out` behind the block's end.
            block.iter().skip(skipped).zip(out.by_ref()).for_each(|(from, to)| *to = *from);
            skipped = 0;
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut written = self.lock();
        if length < written.length {
            let keep = written.block(&*self.file, length / BLOCK)?;
            written.blocks.split_off(&(length / BLOCK));
            let rest = keep.into_iter().take(usize::try_from(length % BLOCK).unwrap_or(0));
            let zeros = std::iter::repeat(0);
            let block = rest.chain(zeros).take(usize::try_from(BLOCK).unwrap_or(0)).collect();
            written.blocks.insert(length / BLOCK, block);
            written.file_length = written.file_length.min(length);
        }
        written.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.lock();
        let mut skipped = usize::try_from(offset % BLOCK).unwrap_or(0);
        let end = offset.saturating_add(data.len() as u64);
        let mut data = data.iter();
        for number in offset / BLOCK..end.div_ceil(BLOCK) {
            let mut block = written.block(&*self.file, number)?;
            let room = block.iter_mut().skip(skipped);
            // As in `read`.
            room.zip(data.by_ref()).for_each(|(to, from)| *to = *from);
            written.blocks.insert(number, block);
            skipped = 0;
        }
        written.length = written.length.max(end);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// A backend that can be made to fail: then whoever reads through it ends soon.
#[derive(Debug)]
pub(super) struct Stoppable {
    pub(super) backend: Overlay,
    pub(super) stopped: Arc<AtomicBool>,
}

impl StorageBackend for Stoppable {
    fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(io::Error::other("nobody needs what is read any more"));
        }
        self.backend.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.backend.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.backend.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.backend.write(offset, data)
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

#[cfg(test)]
mod tests {
    use ::redb::backends::InMemoryBackend;

    use super::*;

    /// Random writes, reads and lengths: an overlay reads as the changed file would, and changes nothing below it.
    #[test]
    fn an_overlay_reads_as_the_written_file() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut model: Vec<u8> = (0..random.usize(1..20_000)).map(|_| random.u8(..)).collect();
            let original = model.clone();
            let file = Arc::new(InMemoryBackend::new());
            file.set_len(model.len() as u64).unwrap();
            file.write(0, &model).unwrap();
            let overlay = Overlay::over(Box::new(Shared(Arc::clone(&file))), model.len() as u64);
            for _ in 0..30 {
                match random.u8(..4) {
                    0 => {
                        let length = random.usize(..25_000);
                        model.resize(length, 0);
                        overlay.set_len(length as u64).unwrap();
                    }
                    1 | 2 if !model.is_empty() => {
                        let start = random.usize(..model.len());
                        let end = random.usize(start..=model.len());
                        let data = vec![random.u8(..); end - start];
                        model[start..end].copy_from_slice(&data);
                        overlay.write(start as u64, &data).unwrap();
                    }
                    _ => {}
                }
                let start = random.usize(..=model.len());
                let mut read = vec![0; random.usize(..=model.len() - start)];
                overlay.read(start as u64, &mut read).unwrap();
                assert_eq!(read, model[start..start + read.len()], "seed {seed}");
                assert_eq!(overlay.len().unwrap(), model.len() as u64);
                let mut behind = vec![0; model.len() - start + 1];
                overlay.read(start as u64, &mut behind).unwrap_err();
            }
            let mut below = vec![0; original.len()];
            file.read(0, &mut below).unwrap();
            assert_eq!(below, original);
        }
    }

    #[derive(Debug)]
    struct Shared(Arc<InMemoryBackend>);

    impl StorageBackend for Shared {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.read(offset, out)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }
        fn sync_data(&self) -> io::Result<()> {
            self.0.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.0.write(offset, data)
        }
    }
}
