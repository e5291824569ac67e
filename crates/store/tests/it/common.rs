//! What tests share.

use std::ops::Bound;

use capstan_store::{Batch, Entry, Op, Transaction, View};

pub(crate) fn put(key: &str, value: impl AsRef<[u8]>) -> Op {
    let value = value.as_ref().to_vec().into();
    Op::Put { key: key.as_bytes().to_vec().into(), value }
}

/// A batch of one transaction.
pub(crate) fn batch(ops: Vec<Op>) -> Batch {
    Batch { transactions: vec![Transaction { ops }], side: Vec::new() }
}

/// Every entry of a view.
pub(crate) fn dump(view: &dyn View) -> Vec<Entry> {
    scanned(view, (Bound::Unbounded, Bound::Unbounded), usize::MAX)
}

/// Up to `limit` entries of a range.
pub(crate) fn scanned(
    view: &dyn View,
    range: (Bound<&[u8]>, Bound<&[u8]>),
    limit: usize,
) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut each = |key: &[u8], value: &[u8]| {
        entries.push((key.to_vec().into(), value.to_vec().into()));
        entries.len() < limit
    };
    view.scan(range, &mut each).unwrap();
    entries
}
