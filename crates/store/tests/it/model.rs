//! Random sequences of calls: every answer of each journal is that of a naive model, a map and a list of
//! transactions.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use capstan_store::{
    AppendError, Batch, Committed, Head, Journal, Limits, MemoryStore, Op, RedbStore, Transaction,
    View, WatchError,
};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use sha2::{Digest as _, Sha256};

use crate::common::{dump, scanned};

const EPOCH: u16 = 3;

/// Small, so that sequences reach them.
fn limits() -> Limits {
    Limits {
        history_transactions_max: 6,
        history_bytes_max: 150,
        watch_queue_bytes: 30,
        ..Limits::default()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(Batch),
    /// An append that expects another head.
    AppendStale(Batch, Index),
    /// Keeps a view.
    View,
    /// Reads some entries of a range.
    Scan(Bound<Bytes>, Bound<Bytes>, usize),
    /// Begins to watch at a sequence number.
    Watch(u64),
    /// Lets a watcher read some transactions.
    Read(Index, usize),
    /// Closes the store and opens it again; nothing for a store in memory.
    Reopen,
}

fn key() -> impl Strategy<Value = Bytes> {
    "[ab]{1,3}".prop_map(Bytes::from)
}

fn op() -> impl Strategy<Value = Op> {
    let put = (key(), vec(any::<u8>(), 0..20));
    prop_oneof![
        3 => put.prop_map(|(key, value)| Op::Put { key, value: value.into() }),
        1 => key().prop_map(|key| Op::Delete { key }),
    ]
}

/// At most one operation for each key.
fn transaction() -> impl Strategy<Value = Transaction> {
    vec(op(), 0..6).prop_map(|ops| {
        let mut seen = Vec::new();
        let is_first = |op: &Op| {
            let is_new = !seen.contains(op.key());
            seen.push(op.key().clone());
            is_new
        };
        Transaction { ops: ops.into_iter().filter(is_first).collect() }
    })
}

fn batch() -> impl Strategy<Value = Batch> {
    let side = vec(op(), 0..3).prop_map(|ops| {
        let renamed = |key: Bytes| Bytes::from([b"side/", &*key].concat());
        let rename = |op| match op {
            Op::Put { key, value } => Op::Put { key: renamed(key), value },
            Op::Delete { key } => Op::Delete { key: renamed(key) },
        };
        ops.into_iter().map(rename).collect()
    });
    (vec(transaction(), 0..4), side).prop_map(|(transactions, side)| Batch { transactions, side })
}

fn bound() -> impl Strategy<Value = Bound<Bytes>> {
    prop_oneof![
        Just(Bound::Unbounded),
        key().prop_map(Bound::Included),
        key().prop_map(Bound::Excluded)
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => batch().prop_map(Step::Append),
        1 => (batch(), any::<Index>()).prop_map(|(batch, head)| Step::AppendStale(batch, head)),
        1 => Just(Step::View),
        2 => (bound(), bound(), 1..5_usize).prop_map(|(from, to, limit)| Step::Scan(from, to, limit)),
        2 => (0..25_u64).prop_map(Step::Watch),
        2 => (any::<Index>(), 1..8_usize).prop_map(|(which, count)| Step::Read(which, count)),
        1 => Just(Step::Reopen),
    ];
    vec(step, 1..25)
}

type State = BTreeMap<Bytes, Bytes>;

#[derive(Debug)]
struct Model {
    state: State,
    history: Vec<Committed>,
}

impl Model {
    fn head(&self) -> Head {
        self.history.last().map_or(Head::empty(EPOCH), |last| last.head)
    }

    fn append(&mut self, batch: &Batch) {
        for transaction in &batch.transactions {
            let head = next(&self.head(), &transaction.ops);
            self.apply(&transaction.ops);
            self.history.push(Committed { head, ops: transaction.ops.clone() });
        }
        self.apply(&batch.side);
    }

    fn apply(&mut self, ops: &[Op]) {
        for op in ops {
            match op.clone() {
                Op::Put { key, value } => self.state.insert(key, value),
                Op::Delete { key } => self.state.remove(&key),
            };
        }
    }

    /// The first sequence number that is kept: what is kept is as long as the limits allow.
    fn kept_from(&self) -> u64 {
        let (mut count, mut bytes) = (0, 0);
        let limits = limits();
        let mut from = self.head().seq + 1;
        for committed in self.history.iter().rev() {
            count += 1;
            bytes += committed.ops.iter().map(Op::bytes).sum::<u64>();
            if count > limits.history_transactions_max || bytes > limits.history_bytes_max {
                break;
            }
            from = committed.head.seq;
        }
        from
    }
}

/// The encoding of digests, written a second time.
fn next(before: &Head, ops: &[Op]) -> Head {
    let (epoch, seq, n_ops) = (before.epoch, before.seq + 1, u32::try_from(ops.len()).unwrap());
    let mut text = before.digest.to_vec();
    text.extend(epoch.to_le_bytes());
    text.extend(seq.to_le_bytes());
    text.extend(n_ops.to_le_bytes());
    for op in ops {
        let (kind, parts) = match op {
            Op::Put { key, value } => (1, vec![key, value]),
            Op::Delete { key } => (2, vec![key]),
        };
        text.push(kind);
        for part in parts {
            text.extend(u32::try_from(part.len()).unwrap().to_le_bytes());
            text.extend(part);
        }
    }
    let digest = Sha256::digest(&text).into();
    Head { epoch, seq, n_ops, digest, prev_digest: before.digest }
}

struct Watched {
    stream: BoxStream<'static, Result<Committed, WatchError>>,
    next: u64,
}

/// Plays the steps on a journal; `reopened` closes it and opens it again.
async fn play(
    mut journal: Box<dyn Journal>,
    mut reopened: impl FnMut(Box<dyn Journal>) -> Box<dyn Journal>,
    steps: Vec<Step>,
) {
    let mut model = Model { state: State::new(), history: Vec::new() };
    let mut views: Vec<(Arc<dyn View>, Head, State)> = Vec::new();
    let mut watchers: Vec<Watched> = Vec::new();
    for step in steps {
        match step {
            Step::Append(batch) => {
                let expected = model.head();
                model.append(&batch);
                assert_eq!(journal.append(expected, batch).await.unwrap(), model.head());
            }
            Step::AppendStale(batch, head) => {
                let heads = model.history.len();
                let stale = match head.index(heads + 1) {
                    0 => Head { epoch: EPOCH + 1, ..model.head() },
                    older if older == heads => Head { digest: [1; 32], ..model.head() },
                    older => model.history[older - 1].head,
                };
                match journal.append(stale, batch).await {
                    Err(AppendError::Conflict(head)) => assert_eq!(head, model.head()),
                    other => panic!("{other:?}"),
                }
            }
            Step::View => {
                let view = journal.view().await.unwrap();
                views.push((view, model.head(), model.state.clone()));
            }
            Step::Scan(from, to, limit) => {
                let view = journal.view().await.unwrap();
                let range = (from.as_ref().map(|key| &**key), to.as_ref().map(|key| &**key));
                let within = model
                    .state
                    .iter()
                    .filter(|(key, _)| std::ops::RangeBounds::<[u8]>::contains(&range, &key[..]));
                let expected: Vec<_> =
                    within.map(|(key, value)| (key.clone(), value.clone())).take(limit).collect();
                assert_eq!(scanned(&*view, range, limit), expected);
            }
            Step::Watch(from) => {
                let (next, head) = (from.max(1), model.head().seq);
                match journal.watch(from).await {
                    Ok(stream) => {
                        assert!(next <= head + 1 && next >= model.kept_from());
                        watchers.push(Watched { stream, next });
                    }
                    Err(WatchError::Compacted { kept_from }) => {
                        assert!(next < kept_from);
                        assert_eq!(kept_from, model.kept_from());
                    }
                    Err(WatchError::Future(last)) => {
                        assert!(next > head + 1);
                        assert_eq!(last, head);
                    }
                    Err(other) => panic!("{other:?}"),
                }
            }
            Step::Read(which, count) if !watchers.is_empty() => {
                let which = which.index(watchers.len());
                let (head, kept_from) = (model.head().seq, model.kept_from());
                let watcher = &mut watchers[which];
                let mut ended = false;
                for _ in 0..count {
                    if watcher.next > head {
                        break;
                    }
                    match watcher.stream.next().await.unwrap() {
                        Ok(committed) => {
                            let at = usize::try_from(watcher.next).unwrap() - 1;
                            assert_eq!(committed, model.history[at]);
                            watcher.next += 1;
                        }
                        Err(WatchError::TooSlow) => {
                            assert!(watcher.next < kept_from);
                            ended = true;
                            break;
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                }
                if ended {
                    assert!(watcher.stream.next().await.is_none());
                    watchers.remove(which);
                }
            }
            Step::Read(..) => {}
            Step::Reopen => {
                views.clear();
                watchers.clear();
                journal = reopened(journal);
            }
        }
        assert_eq!(journal.head().await.unwrap(), model.head());
        let view = journal.view().await.unwrap();
        assert_eq!(view.head(), model.head());
        assert_eq!(dump(&*view), Vec::from_iter(model.state.clone()));
        for (view, head, state) in &views {
            assert_eq!(view.head(), *head);
            assert_eq!(dump(&**view), Vec::from_iter(state.clone()));
            for key in model.state.keys().chain(state.keys()) {
                assert_eq!(view.get(key).unwrap().as_ref(), state.get(key));
            }
        }
    }
}

fn run(play: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(play);
}

proptest! {
    #[test]
    fn a_journal_in_memory_answers_as_the_model(steps in steps()) {
        run(play(Box::new(MemoryStore::new(EPOCH, limits())), |journal| journal, steps));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.div_ceil(8), ..ProptestConfig::default() })]

    #[test]
    fn a_journal_in_a_file_answers_as_the_model(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("data");
        RedbStore::init(&dir, EPOCH, &Batch::default(), &limits()).unwrap();
        let open = || Box::new(RedbStore::open(&dir, limits()).unwrap()) as Box<dyn Journal>;
        let reopened = |journal: Box<dyn Journal>| {
            drop(journal);
            RedbStore::check(&dir).unwrap();
            open()
        };
        run(play(open(), reopened, steps));
    }
}
