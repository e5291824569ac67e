//! What the store costs beside redb alone, in one run: writes a second, and the start of a large store.
//!
//! ```sh
//! cargo run --release -p capstan-store --example speed -- [DIRECTORY]
//! ```
//!
//! A writer waits until its write is durable. A loop takes what waits and makes one commit of it; both sides have the same
//! loop. `redb` writes keys and values into one table, with the same durability; the store adds its log, its
//! head, its checksums and its digest. Both take turns, and the ratio is that of their medians.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "an example prints, and ends with the first error"
)]

use std::fs;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use capstan_store::{Batch, Journal, Limits, Op, RedbStore, Transaction};
use redb::{Builder, Database, Durability, TableDefinition};
use tokio::sync::{mpsc, oneshot};

const ROUNDS: usize = 21;
const ROUND: Duration = Duration::from_millis(400);
/// As a binding and its audit record.
const KEY_BYTES: usize = 60;
const VALUE_BYTES: usize = 300;
const RECORDS: u32 = 3_000_000;

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("table");

/// Where a loop makes its commits.
enum Side {
    Store(RedbStore),
    Redb(Arc<Database>),
}

impl Side {
    async fn commit(&self, transactions: Vec<Transaction>) {
        match self {
            Self::Store(store) => {
                let head = store.head().await.unwrap();
                let batch = Batch { transactions, side: Vec::new() };
                store.append(head, batch).await.unwrap();
            }
            Self::Redb(database) => {
                let database = Arc::clone(database);
                let commit = move || {
                    let mut transaction = database.begin_write().unwrap();
                    transaction.set_durability(Durability::Immediate).unwrap();
                    transaction.set_two_phase_commit(true);
                    transaction.set_quick_repair(true);
                    let mut table = transaction.open_table(TABLE).unwrap();
                    for op in transactions.iter().flat_map(|it| &it.ops) {
                        let Op::Put { key, value } = op else { continue };
                        table.insert(&**key, &**value).unwrap();
                    }
                    drop(table);
                    transaction.commit().unwrap();
                };
                tokio::task::spawn_blocking(commit).await.unwrap();
            }
        }
    }
}

fn key(number: u64) -> Bytes {
    // Writes are spread over the keys.
    let spread = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    format!("{spread:0KEY_BYTES$x}").into()
}

/// Writes of a round, and commits.
async fn round(side: &Side, writers: u64, first: u64) -> (u64, u64) {
    let (sender, mut receiver) = mpsc::channel::<(Transaction, oneshot::Sender<()>)>(1_024);
    let end = Instant::now() + ROUND;
    let writing = tokio::task::LocalSet::new();
    for writer in 0..writers {
        let sender = sender.clone();
        writing.spawn_local(async move {
            for number in 0.. {
                if Instant::now() >= end {
                    break;
                }
                let key = key(first + writer + number * writers);
                let value = vec![b'v'; VALUE_BYTES].into();
                let (done, durable) = oneshot::channel();
                let transaction = Transaction { ops: vec![Op::Put { key, value }] };
                sender.send((transaction, done)).await.unwrap();
                durable.await.unwrap();
            }
        });
    }
    drop(sender);
    let committing = async {
        let (mut writes, mut commits) = (0, 0);
        let mut waiting = Vec::new();
        while receiver.recv_many(&mut waiting, 1_024).await > 0 {
            let (transactions, done): (Vec<_>, Vec<_>) = waiting.drain(..).unzip();
            writes += transactions.len() as u64;
            commits += 1;
            side.commit(transactions).await;
            done.into_iter().for_each(|done| done.send(()).unwrap());
        }
        (writes, commits)
    };
    let (counted, ()) = tokio::join!(committing, writing);
    counted
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.into_iter().nth(ROUNDS / 2).unwrap()
}

async fn writes(dir: &Path) {
    RedbStore::init(&dir.join("store"), 1, &Batch::default(), &Limits::default()).unwrap();
    let store = RedbStore::open(&dir.join("store"), Limits::default()).unwrap();
    let mut builder = Builder::new();
    builder.set_cache_size(capstan_store::limits::CACHE_BYTES);
    let database = builder.create(dir.join("raw.redb")).unwrap();
    let sides = [Side::Store(store), Side::Redb(Arc::new(database))];
    for writers in [1, 64] {
        let mut rates = [Vec::new(), Vec::new()];
        let mut batches = [0.0; 2];
        for number in 0..ROUNDS as u64 {
            for ((side, rates), batch) in sides.iter().zip(&mut rates).zip(&mut batches) {
                let (writes, commits) =
                    round(side, writers, (writers << 40) + (number << 32)).await;
                rates.push(writes as f64 / ROUND.as_secs_f64());
                *batch = writes as f64 / commits as f64;
            }
        }
        let [store, raw] = rates.map(median);
        let [of_store, of_raw] = batches;
        println!(
            "{writers:>2} writers: store {store:.0} writes/s ({of_store:.1} a commit), \
             redb {raw:.0} ({of_raw:.1}), ratio {:.2}",
            store / raw
        );
    }
}

fn resident_mib() -> f64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096.0 / 1024.0 / 1024.0
}

async fn large(dir: &Path) {
    let put = |number: u32| {
        let value = vec![b'v'; 100].into();
        Op::Put { key: format!("binding/{number:032x}").into(), value }
    };
    let ops = (0..RECORDS).map(put).collect();
    let batch = Batch { transactions: vec![Transaction { ops }], side: Vec::new() };
    let started = Instant::now();
    RedbStore::init(dir, 1, &Batch::default(), &Limits::default()).unwrap();
    let store = RedbStore::open(dir, Limits::default()).unwrap();
    store.append(store.head().await.unwrap(), batch).await.unwrap();
    println!("{RECORDS} records in one transaction: {:.2} s", started.elapsed().as_secs_f64());
    drop(store);
    let length = fs::metadata(dir.join("store.redb")).unwrap().len();
    println!("the file: {} MB", length / 1_000_000);

    let before = resident_mib();
    let started = Instant::now();
    let store = RedbStore::open(dir, Limits::default()).unwrap();
    println!("open, which verifies every page: {:.2} s", started.elapsed().as_secs_f64());
    let view = store.view().await.unwrap();
    for _ in 0..3 {
        let started = Instant::now();
        let (mut records, mut bytes) = (0_u32, 0);
        let mut each = |key: &[u8], value: &[u8]| {
            records += 1;
            bytes += key.len() + value.len();
            true
        };
        view.scan((Bound::Unbounded, Bound::Unbounded), &mut each).unwrap();
        assert_eq!(records, RECORDS);
        let seconds = started.elapsed().as_secs_f64();
        println!("scan of {} MB in {records} records: {seconds:.2} s", bytes / 1_000_000);
    }
    println!("resident memory after it: {:.0} MiB more", resident_mib() - before);
    let started = Instant::now();
    drop((view, store));
    println!("close: {:.2} s", started.elapsed().as_secs_f64());
}

fn main() {
    let within = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(within).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        writes(dir.path()).await;
        large(&dir.path().join("large")).await;
    });
}
