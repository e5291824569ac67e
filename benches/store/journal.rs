//! Writes to a store in this process, without a server, beside the same writes to redb alone.
//!
//! A writer waits until its write is durable. A loop takes what waits and makes one commit of it; both sides have the
//! same loop, and take turns. `redb` puts keys and values into one table, as durably; the store adds its log, its
//! head, its checksums and its digests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use capstan_store::{Batch, Journal as _, Limits, Op, RedbStore, Transaction};
use redb::Database;
use tokio::sync::{mpsc, oneshot};

use crate::Options;
use crate::raw;

const ROUNDS: u32 = 21;
/// As a binding and its audit record.
const KEY_BYTES: usize = 60;
const VALUE_BYTES: usize = 300;
/// Writes that a commit takes at most.
const GROUP_MAX: usize = 1_024;

/// Where a loop makes its commits.
enum Side {
    Store(RedbStore),
    Redb(Arc<Database>),
}

impl Side {
    async fn commit(&self, transactions: Vec<Transaction>) -> anyhow::Result<()> {
        let batch = Batch { transactions, side: Vec::new() };
        match self {
            Self::Store(store) => {
                let head = store.head().await?;
                store.append(head, batch).await?;
            }
            Self::Redb(database) => {
                let database = Arc::clone(database);
                tokio::task::spawn_blocking(move || raw::commit(&database, &batch)).await??;
            }
        }
        Ok(())
    }
}

fn write(number: u64) -> Transaction {
    // Writes are spread over the keys.
    let spread = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let key = format!("{spread:0KEY_BYTES$x}").into();
    Transaction { ops: vec![Op::Put { key, value: vec![b'v'; VALUE_BYTES].into() }] }
}

/// Writes of a round, and commits.
async fn round(
    side: &Side,
    (writers, first): (u64, u64),
    time: Duration,
) -> anyhow::Result<(u64, u64)> {
    let (sender, mut receiver) = mpsc::channel::<(Transaction, oneshot::Sender<()>)>(GROUP_MAX);
    let end = Instant::now() + time;
    let writing = tokio::task::LocalSet::new();
    for writer in 0..writers {
        let sender = sender.clone();
        writing.spawn_local(async move {
            let mut number = first + writer;
            while Instant::now() < end {
                let (done, durable) = oneshot::channel();
                if sender.send((write(number), done)).await.is_err() || durable.await.is_err() {
                    break;
                }
                number += writers;
            }
        });
    }
    drop(sender);
    let committing = async {
        let (mut writes, mut commits) = (0, 0);
        let mut waiting = Vec::new();
        while receiver.recv_many(&mut waiting, GROUP_MAX).await > 0 {
            let (transactions, done): (Vec<_>, Vec<_>) = waiting.drain(..).unzip();
            writes += transactions.len() as u64;
            commits += 1;
            side.commit(transactions).await?;
            done.into_iter().for_each(|done| done.send(()).unwrap_or_default());
        }
        anyhow::Ok((writes, commits))
    };
    tokio::join!(committing, writing).0
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

/// Writes a second of a store and of redb alone, in turns that take `--seconds` together a number of writers and side.
pub(crate) fn rates(options: &Options, writers: u64) -> anyhow::Result<String> {
    let dir = options.folder.join(format!("journal-{writers}"));
    RedbStore::init(&dir, 1, &Batch::default(), &Limits::default())?;
    let store = RedbStore::open(&dir, Limits::default())?;
    let database = raw::create(&options.folder.join(format!("journal-{writers}.redb")))?;
    let sides = [Side::Store(store), Side::Redb(Arc::new(database))];
    let time = options.time / ROUNDS;
    let (mut rates, mut counts) = ([vec![], vec![]], [(0, 0); 2]);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for number in 0..u64::from(ROUNDS) {
        for ((side, rates), counted) in sides.iter().zip(&mut rates).zip(&mut counts) {
            let (writes, commits) = runtime.block_on(round(side, (writers, number << 32), time))?;
            #[expect(clippy::cast_precision_loss, reason = "a rate needs no 16 digits")]
            rates.push(writes as f64 / time.as_secs_f64());
            *counted = (counted.0 + writes, counted.1 + commits);
        }
    }
    let [store, raw] = rates.each_mut().map(|rates| median(rates));
    let [of_store, of_raw] =
        counts.map(|(writes, commits): (u64, u64)| writes.checked_div(commits));
    let (of_store, of_raw) = (of_store.context("no commits")?, of_raw.context("no commits")?);
    Ok(format!(
        "journal: {writers} writers make {store:.0} writes a second to the store, {of_store} a commit; to redb alone {raw:.0}, \
         {of_raw} a commit; ratio of the medians of {ROUNDS} turns {:.2}",
        store / raw
    ))
}
