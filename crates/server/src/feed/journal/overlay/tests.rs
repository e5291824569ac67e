//! An overlay reads as the state that its operations make.

use capstan_store::{Batch, Head, Journal as _, Limits, MemoryStore, Transaction};
use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;

fn op() -> impl Strategy<Value = Op> {
    let key = "[a-c]{1,2}".prop_map(|key| Bytes::from(format!("g{key}")));
    let value = "[x-z]{0,2}".prop_map(Bytes::from);
    (key, proptest::option::of(value)).prop_map(|(key, value)| match value {
        Some(value) => Op::Put { key, value },
        None => Op::Delete { key },
    })
}

/// One operation for each key, as a transaction has.
fn distinct(ops: Vec<Op>) -> Vec<Op> {
    let mut last = BTreeMap::new();
    ops.into_iter().for_each(|op| {
        last.insert(op.key().clone(), op);
    });
    last.into_values().collect()
}

proptest! {
    #[test]
    fn it_reads_as_the_state_that_its_operations_make(
        before in proptest::collection::vec(op(), 0..12),
        after in proptest::collection::vec(op(), 0..12),
        from in "g[a-c]{0,2}",
        to in "g[a-d]{0,2}",
        most in 1..8_usize,
    ) {
        let run = |batches: &[Vec<Op>]| {
            let store = MemoryStore::new(1, Limits::default());
            let mut head = Head::empty(1);
            for ops in batches {
                let transactions = vec![Transaction { ops: distinct(ops.clone()) }];
                let batch = Batch { transactions, side: vec![] };
                head = store.append(head, batch).now_or_never().unwrap().unwrap();
            }
            store.view().now_or_never().unwrap().unwrap()
        };
        let mut overlay = Overlay::new(run(std::slice::from_ref(&before)));
        overlay.apply(&distinct(after.clone()));
        let whole = run(&[before, after]);
        let range = (Bound::Included(from.as_bytes()), Bound::Excluded(to.as_bytes()));
        if from <= to {
            let seen = |scan: &dyn Fn(EachEntry<'_>) -> Result<(), StoreError>| {
                let mut seen = vec![];
                scan(&mut |key, value| {
                    seen.push((key.to_vec(), value.to_vec()));
                    seen.len() < most
                })
                .unwrap();
                seen
            };
            prop_assert_eq!(
                seen(&|each| overlay.scan(range, each)),
                seen(&|each| whole.scan(range, each))
            );
        }
        for key in [&from, &to] {
            prop_assert_eq!(overlay.value(key.as_bytes()).unwrap(), whole.get(key.as_bytes()).unwrap());
        }
    }
}
