//! Tests below redb: on a disk that loses power, fails, fills up, or flips bits.

mod crash;
mod faults;
mod flips;
mod sim;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;

use super::check::verify;
use super::opening::make;
use super::schema::{Kept, Meta, read_transaction};
use super::view::caught;
use super::*;
use crate::limits::{LOG_CHUNK_BYTES, OPENING_CACHE_BYTES};
use crate::{HEAD_BYTES, Op, Transaction};
use sim::Sim;

type State = BTreeMap<Bytes, Bytes>;

/// Nothing waits, and nothing stops after failures.
fn limits() -> Limits {
    Limits {
        history_transactions_max: 8,
        failures_period: Duration::ZERO,
        reopen_pause: Duration::ZERO,
        ..Limits::default()
    }
}

/// A disk with an empty store, durable.
fn new_disk() -> Sim {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    let file = FILE.get_or_init(|| {
        let sim = Sim::default();
        let backend = Traced { backend: sim.open(true).unwrap(), trace: Arc::default() };
        let kept = Kept { from: 1, bytes: 0 };
        let meta = Meta { head: Head::empty(1), kept, page_key: [7; 32], created: 9 };
        make(backend, &meta, &limits()).unwrap().close().unwrap();
        sim.file()
    });
    Sim::of(file.clone())
}

fn open_sim(sim: &Sim, limits: Limits) -> Result<RedbStore, OpenError> {
    RedbStore::open_on(Box::new(sim.clone()), PathBuf::from("store.redb"), limits)
}

fn head_of(store: &RedbStore) -> Head {
    store.shared.latest.load_full().unwrap().head
}

/// Appends on this thread.
fn append(store: &RedbStore, expected: &Head, batch: &Batch) -> Result<Head, AppendError> {
    store.shared.lock().append(&store.shared, expected, batch)
}

/// What [`Journal::head`] answers, on this thread.
fn recovered(store: &RedbStore) -> Result<Arc<Snapshot>, StoreError> {
    store.shared.latest().map_or_else(|| store.shared.recovered(), Ok)
}

/// Verifies an open store as [`RedbStore::check`] does. Its tables share nothing with those of readers, which hold some
/// pages.
fn scrub(store: &RedbStore) -> Result<Checked, StoreError> {
    let mut writer = store.shared.lock();
    writer.reopen(&store.shared)?;
    let (tables, After { head, kept }) = writer.tables()?;
    Ok(caught(|| verify(&tables, head, kept, &mut |_, _| {}))?)
}

fn dump(view: &dyn View) -> Result<State, StoreError> {
    let mut state = State::new();
    view.scan((Bound::Unbounded, Bound::Unbounded), &mut |key, value| {
        state.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        true
    })?;
    Ok(state)
}

fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Op {
    Op::Put {
        key: Bytes::copy_from_slice(key.as_ref()),
        value: Bytes::copy_from_slice(value.as_ref()),
    }
}

fn applied(mut state: State, batch: &Batch) -> State {
    let ops = batch.transactions.iter().flat_map(|it| &it.ops).chain(&batch.side);
    for op in ops.cloned() {
        match op {
            Op::Put { key, value } => state.insert(key, value),
            Op::Delete { key } => state.remove(&key),
        };
    }
    state
}

/// A batch as a server writes them: mostly one short transaction, now and then many, long ones, only side
/// operations, or deletes.
fn random_batch(random: &mut fastrand::Rng) -> Batch {
    let mut batch = Batch::default();
    for _ in 0..random.usize(0..3) {
        let mut ops = BTreeMap::new();
        for _ in 0..random.usize(1..6) {
            let key = format!("key/{}", random.u8(..60));
            let length = if random.u8(..20) == 0 { 20_000 } else { random.usize(..200) };
            let op = if random.u8(..4) == 0 {
                Op::Delete { key: key.clone().into() }
            } else {
                put(&key, vec![random.u8(..); length])
            };
            ops.insert(key, op);
        }
        batch.transactions.push(Transaction { ops: ops.into_values().collect() });
    }
    if batch.transactions.is_empty() || random.bool() {
        batch.side.push(put(format!("side/{}", random.u8(..5)), [random.u8(..)]));
    }
    batch
}

/// A transaction is cut after [`LOG_CHUNK_BYTES`], and read whole.
#[test]
fn a_long_transaction_is_kept_in_chunks() {
    let sim = new_disk();
    let store = open_sim(&sim, limits()).unwrap();
    let mut head = head_of(&store);
    // Before the value: chunks, bytes, head; kind, length and key; length.
    let around = 4 + 8 + HEAD_BYTES + 1 + 4 + 1 + 4;
    for (length, chunks) in [
        (LOG_CHUNK_BYTES - around, 1),
        (LOG_CHUNK_BYTES - around + 1, 2),
        (3 * LOG_CHUNK_BYTES - around, 3),
    ] {
        let ops = vec![put("k", vec![1; length])];
        let batch = Batch { transactions: vec![Transaction { ops }], side: Vec::new() };
        head = append(&store, &head, &batch).unwrap();
        let snapshot = recovered(&store).unwrap();
        let logged = read_transaction(&snapshot.tables.load().log, head.seq).unwrap();
        assert_eq!(logged.chunks, chunks);
        assert_eq!(logged.committed, Committed { head, ops: batch.transactions[0].ops.clone() });
    }
}

/// redb reads the file several times to verify it. A larger cache would spare one of them, and be memory of each start.
#[test]
fn few_pages_are_kept_while_a_file_is_verified() {
    let sim = new_disk();
    let store = open_sim(&sim, limits()).unwrap();
    let values = 8 * OPENING_CACHE_BYTES / 3_000;
    let ops = (0..values).map(|at| put(format!("{at}"), vec![7; 3_000])).collect();
    let batch = Batch { transactions: vec![Transaction { ops }], side: Vec::new() };
    append(&store, &head_of(&store), &batch).unwrap();
    drop(store);
    let before = sim.operations();
    drop(open_sim(&sim, limits()).unwrap());
    let (reads, pages) = (sim.operations() - before, values as u64);
    assert!(reads > 5 * pages / 2, "{reads} operations on {pages} pages");
}
