//! A disk in memory: it keeps apart what is durable and what is only written, and fails on demand.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use ::redb::StorageBackend;

use crate::redb::disk::{Disk, Room};

/// Bytes that a disk writes wholly or not at all.
const SECTOR: usize = 512;

/// A disk with one file. Clones are the same disk.
#[derive(Clone, Default)]
pub(super) struct Sim(Arc<Mutex<State>>);

struct State {
    /// What a power cut leaves.
    durable: Vec<u8>,
    /// What is read.
    current: Vec<u8>,
    /// Since the last sync, in order.
    unsynced: Vec<Change>,
    /// Operations that were tried, reads included.
    operations: u64,
    fault: Option<Fault>,
    room: Room,
    random: fastrand::Rng,
    /// Called after each change, with no lock held.
    observer: Option<Observer>,
}

type Observer = Arc<dyn Fn(&Sim) + Send + Sync>;

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

/// A failure of one operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    /// The number of the operation.
    pub(super) at: u64,
    pub(super) kind: FaultKind,
    /// How many operations from there on fail.
    pub(super) count: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// The error of the system with this number. A write leaves nothing behind, a sync random parts.
    Error(i32),
    /// A write that leaves its first half behind; other operations fail with EIO.
    ShortWrite,
    /// A sync fails with this error; other operations work, and the fault waits for the next sync.
    Sync(i32),
}

pub(super) const EINTR: i32 = 4;
pub(super) const EIO: i32 = 5;
pub(super) const ENOSPC: i32 = 28;
pub(super) const EROFS: i32 = 30;

impl Default for State {
    fn default() -> Self {
        Self {
            durable: Vec::new(),
            current: Vec::new(),
            unsynced: Vec::new(),
            operations: 0,
            fault: None,
            room: Room { free: u64::MAX, read_only: false },
            random: fastrand::Rng::with_seed(1),
            observer: None,
        }
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sim")
    }
}

impl Sim {
    /// A disk that holds this file.
    pub(super) fn of(file: Vec<u8>) -> Self {
        let sim = Self::default();
        sim.lock().current.clone_from(&file);
        sim.lock().durable = file;
        sim
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn observe(&self, observer: impl Fn(&Self) + Send + Sync + 'static) {
        self.lock().observer = Some(Arc::new(observer));
    }

    pub(super) fn stop_observing(&self) {
        self.lock().observer = None;
    }

    pub(super) fn set_fault(&self, fault: Option<Fault>) {
        self.lock().fault = fault;
    }

    pub(super) fn set_room(&self, free: u64, read_only: bool) {
        self.lock().room = Room { free, read_only };
    }

    pub(super) fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Puts another file in place of this one.
    pub(super) fn replace(&self, file: Vec<u8>) {
        let mut state = self.lock();
        state.unsynced.clear();
        state.current.clone_from(&file);
        state.durable = file;
    }

    /// What is durable.
    pub(super) fn file(&self) -> Vec<u8> {
        self.lock().durable.clone()
    }

    /// What a power cut may leave now: what is durable, and a random part of what is not.
    pub(super) fn image(&self, random: &mut fastrand::Rng) -> Vec<u8> {
        let state = self.lock();
        let mut image = state.durable.clone();
        persist_some(&mut image, &state.unsynced, random);
        image
    }
}

/// Makes a random part of the changes durable: all or nothing of a change, or some of its sectors.
fn persist_some(file: &mut Vec<u8>, changes: &[Change], random: &mut fastrand::Rng) {
    let share = [0.0, 0.1, 0.5, 0.9, 1.0][random.usize(..5)];
    let torn = random.bool();
    for change in changes {
        match change {
            Change::SetLen(length) if random.f64() < share => {
                file.resize(usize::try_from(*length).unwrap(), 0);
            }
            Change::SetLen(_) => {}
            Change::Write(offset, bytes) => {
                let whole = random.f64() < share;
                for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                    if if torn { random.f64() < share } else { whole } {
                        write(file, *offset + (number * SECTOR) as u64, sector);
                    }
                }
            }
        }
    }
}

fn write(file: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let offset = usize::try_from(offset).unwrap();
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

impl State {
    /// Counts an operation, and answers with which error it fails.
    fn fails(&mut self, is_sync: bool) -> Option<FaultKind> {
        let number = self.operations;
        self.operations += 1;
        let fault = self.fault.as_mut()?;
        if number < fault.at
            || fault.count == 0
            || (matches!(fault.kind, FaultKind::Sync(_)) && !is_sync)
        {
            return None;
        }
        fault.count -= 1;
        Some(fault.kind)
    }
}

fn error(kind: FaultKind) -> io::Error {
    io::Error::from_raw_os_error(match kind {
        FaultKind::Error(number) | FaultKind::Sync(number) => number,
        FaultKind::ShortWrite => EIO,
    })
}

impl Disk for Sim {
    fn open(&self, _anew: bool) -> io::Result<Box<dyn StorageBackend>> {
        match self.lock().fails(false) {
            Some(kind) => Err(error(kind)),
            None => Ok(Box::new(self.clone())),
        }
    }

    fn room(&self) -> io::Result<Room> {
        Ok(self.lock().room)
    }
}

impl Sim {
    /// Makes a change, and tells the observer.
    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.lock();
        let failed = state.fails(false);
        match (&change, failed) {
            (Change::Write(offset, bytes), Some(FaultKind::ShortWrite)) => {
                let half = bytes[..bytes.len() / 2].to_vec();
                write(&mut state.current, *offset, &half);
                state.unsynced.push(Change::Write(*offset, half));
            }
            (_, Some(_)) => {}
            (Change::Write(offset, bytes), None) => {
                write(&mut state.current, *offset, bytes);
                state.unsynced.push(change);
            }
            (Change::SetLen(length), None) => {
                state.current.resize(usize::try_from(*length).unwrap(), 0);
                state.unsynced.push(change);
            }
        }
        let observer = state.observer.clone();
        drop(state);
        if let Some(observer) = observer {
            observer(self);
        }
        failed.map_or(Ok(()), |kind| Err(error(kind)))
    }
}

impl StorageBackend for Sim {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.lock();
        if let Some(kind) = state.fails(false) {
            return Err(error(kind));
        }
        let offset = usize::try_from(offset).unwrap();
        let read = state.current.get(offset..offset + out.len());
        out.copy_from_slice(read.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Change::SetLen(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.lock();
        let unsynced = std::mem::take(&mut state.unsynced);
        if let Some(kind) = state.fails(true) {
            // As Linux does it: the pages count as clean now, written or not, and a new handle reads what is there.
            let State { durable, current, random, .. } = &mut *state;
            persist_some(durable, &unsynced, random);
            current.clone_from(durable);
            return Err(error(kind));
        }
        let State { durable, current, .. } = &mut *state;
        durable.clone_from(current);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(offset, data.to_vec()))
    }
}
