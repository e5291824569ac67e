//! Each limit is met exactly, and exceeded by one.

use capstan_store::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX, WATCH_QUEUE_TRANSACTIONS};
use capstan_store::{
    AppendError, Batch, Journal, Limits, MemoryStore, Op, RedbStore, Transaction, WatchError,
};
use futures_util::StreamExt as _;

use crate::common::{batch, put};

/// Runs on both journals.
fn on_both<F: Future<Output = ()>>(limits: Limits, test: impl Fn(Box<dyn Journal>) -> F) {
    let run = tokio::runtime::Builder::new_current_thread().build().unwrap();
    run.block_on(test(Box::new(MemoryStore::new(1, limits))));
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    RedbStore::init(&dir, 1, &Batch::default(), &limits).unwrap();
    run.block_on(test(Box::new(RedbStore::open(&dir, limits).unwrap())));
    RedbStore::check(&dir).unwrap();
}

/// The error of an append, after which the head is where it was.
async fn refused(journal: &dyn Journal, batch: Batch) -> String {
    let head = journal.head().await.unwrap();
    let error = journal.append(head, batch).await.unwrap_err();
    assert!(matches!(error, AppendError::Invalid(_)), "{error:?}");
    assert_eq!(journal.head().await.unwrap(), head);
    error.to_string()
}

async fn accepted(journal: &dyn Journal, batch: Batch) {
    journal.append(journal.head().await.unwrap(), batch).await.unwrap();
}

#[test]
fn keys_and_values_have_a_longest_length() {
    on_both(Limits::default(), async |journal| {
        let key = |length| "k".repeat(length);
        accepted(&*journal, batch(vec![put(&key(KEY_BYTES_MAX), "")])).await;
        let error = refused(&*journal, batch(vec![put(&key(KEY_BYTES_MAX + 1), "")])).await;
        assert_eq!(error, "a key has 1 to 2048 bytes, this one has 2049");
        let error = refused(&*journal, batch(vec![Op::Delete { key: "".into() }])).await;
        assert_eq!(error, "a key has 1 to 2048 bytes, this one has 0");

        accepted(&*journal, batch(vec![put("long", vec![1; VALUE_BYTES_MAX])])).await;
        let side = vec![put("long", vec![1; VALUE_BYTES_MAX + 1])];
        let error = refused(&*journal, Batch { side, ..Batch::default() }).await;
        assert_eq!(
            error,
            "the value of key `long` has 16777217 bytes, at most 16777216 are allowed"
        );
    });
}

/// `BATCH_OPS_MAX` and `BATCH_BYTES_MAX`, with smaller values.
#[test]
fn a_batch_has_a_longest_length() {
    let limits = Limits { batch_ops_max: 3, batch_bytes_max: 12, ..Limits::default() };
    on_both(limits, async |journal| {
        let of = |transactions: &[&[&Op]], side: &Op| Batch {
            transactions: transactions
                .iter()
                .map(|ops| Transaction { ops: ops.iter().copied().cloned().collect() })
                .collect(),
            side: vec![side.clone()],
        };
        let [one, two, three] = ["1", "2", "3"].map(|key| put(key, "abc"));
        accepted(&*journal, of(&[&[&one], &[&two]], &three)).await;
        let short = ["1", "2", "3"].map(|key| put(key, ""));
        let error = refused(&*journal, of(&[&short.each_ref()], &put("4", ""))).await;
        assert_eq!(error, "the batch has 4 operations, at most 3 are allowed: divide it");
        let error = refused(&*journal, of(&[&[&one, &two]], &put("33", "abc"))).await;
        assert_eq!(error, "the batch has 13 bytes, at most 12 are allowed: divide it");
    });
}

#[test]
fn a_transaction_has_one_operation_for_a_key() {
    on_both(Limits::default(), async |journal| {
        let twice = vec![put("b", ""), put("a", "1"), Op::Delete { key: "a".into() }];
        let error = refused(&*journal, batch(twice)).await;
        assert_eq!(error, "a transaction has two operations for key `a`");
        // Of side operations the last one counts.
        let side = vec![put("a", "1"), put("a", "2")];
        accepted(&*journal, Batch { side, ..Batch::default() }).await;
        let view = journal.view().await.unwrap();
        assert_eq!(view.get(b"a").unwrap().unwrap(), "2");
    });
}

/// `HISTORY_TRANSACTIONS_MAX` and `HISTORY_BYTES_MAX`, with smaller values.
#[test]
fn the_history_has_a_longest_length() {
    let limits = Limits { history_transactions_max: 3, history_bytes_max: 20, ..Limits::default() };
    on_both(limits, async |journal| {
        let kept_from = async || match journal.watch(0).await {
            Err(WatchError::Compacted { kept_from }) => kept_from,
            Ok(_) => 1,
            Err(other) => panic!("{other}"),
        };
        for seq in 1..=4 {
            accepted(&*journal, batch(vec![put("k", "v")])).await;
            assert_eq!(kept_from().await, if seq == 4 { 2 } else { 1 });
        }
        accepted(&*journal, batch(vec![put("k", vec![1; 15])])).await;
        assert_eq!(kept_from().await, 3, "20 bytes in three transactions");
        accepted(&*journal, batch(vec![put("k", vec![1; 19])])).await;
        assert_eq!(kept_from().await, 6, "20 bytes alone");

        // A transaction that is longer than the history is not in it, and ends watches.
        let mut watch = journal.watch(6).await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap().head.seq, 6);
        accepted(&*journal, batch(vec![put("k", vec![1; 20])])).await;
        assert_eq!(kept_from().await, 8);
        assert!(matches!(watch.next().await, Some(Err(WatchError::TooSlow))));
        assert!(watch.next().await.is_none());
        let mut watch = journal.watch(8).await.unwrap();
        accepted(&*journal, batch(vec![put("k", "v")])).await;
        assert_eq!(watch.next().await.unwrap().unwrap().head.seq, 8);
    });
}

/// `WATCH_QUEUE_BYTES`, with a smaller value: what a watcher has not read ahead is lost to it when it is removed.
#[test]
fn a_watcher_reads_ahead_no_more_than_its_queue_holds() {
    // Two transactions of two bytes fit, and a third does not; nor does it into five bytes.
    for watch_queue_bytes in [4, 5] {
        let limits =
            Limits { history_transactions_max: 10, watch_queue_bytes, ..Limits::default() };
        reads_two_ahead(limits);
    }
}

fn reads_two_ahead(limits: Limits) {
    on_both(limits, async |journal| {
        for _ in 0..10 {
            accepted(&*journal, batch(vec![put("k", "v")])).await;
        }
        let mut watch = journal.watch(1).await.unwrap();
        for _ in 0..10 {
            accepted(&*journal, batch(vec![put("k", "v")])).await;
        }
        for seq in 1..=2 {
            assert_eq!(watch.next().await.unwrap().unwrap().head.seq, seq);
        }
        assert!(matches!(watch.next().await, Some(Err(WatchError::TooSlow))));
    });
}

/// A transaction that is longer than the queue is read alone, and only a transaction that is longer than what is left ends
/// what is read at a time.
#[test]
fn a_watcher_reads_a_long_transaction_alone() {
    let limits = Limits { history_transactions_max: 3, watch_queue_bytes: 4, ..Limits::default() };
    on_both(limits, async |journal| {
        for length in [1, 9, 1] {
            accepted(&*journal, batch(vec![put("k", vec![1; length])])).await;
        }
        let mut watch = journal.watch(1).await.unwrap();
        accepted(&*journal, batch(vec![put("k", "v")])).await;
        assert_eq!(watch.next().await.unwrap().unwrap().head.seq, 1);
        assert_eq!(watch.next().await.unwrap().unwrap().head.seq, 2);
        for _ in 0..2 {
            accepted(&*journal, batch(vec![put("k", "v")])).await;
        }
        assert!(matches!(watch.next().await, Some(Err(WatchError::TooSlow))));
    });
}

/// Transactions without operations have no bytes, but are not read without end.
#[test]
fn a_watcher_reads_ahead_no_more_transactions_than_its_queue_holds() {
    let limits = Limits { history_transactions_max: 2_000, ..Limits::default() };
    on_both(limits, async |journal| {
        let empty = || Batch { transactions: vec![Transaction::default(); 2_000], side: vec![] };
        accepted(&*journal, empty()).await;
        let mut watch = journal.watch(1).await.unwrap();
        accepted(&*journal, empty()).await;
        for seq in 1..=WATCH_QUEUE_TRANSACTIONS as u64 {
            assert_eq!(watch.next().await.unwrap().unwrap().head.seq, seq);
        }
        assert!(matches!(watch.next().await, Some(Err(WatchError::TooSlow))));
    });
}

/// A watch is woken by a commit, and ends with the store.
#[test]
fn a_watch_waits_for_commits() {
    on_both(Limits::default(), async |journal| {
        let mut watch = journal.watch(1).await.unwrap();
        let append = accepted(&*journal, batch(vec![put("k", "v")]));
        let (found, ()) = tokio::join!(watch.next(), append);
        assert_eq!(found.unwrap().unwrap().ops, [put("k", "v")]);
        drop(journal);
        assert!(watch.next().await.is_none());
    });
}
