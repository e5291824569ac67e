//! What a batch must keep to, whichever store it is for.

use std::collections::HashSet;
use std::ops::Bound;

use crate::limits::{KEY_BYTES_MAX, Limits, VALUE_BYTES_MAX};
use crate::{AppendError, Batch, Head, Op, SEQ_BITS};

/// The bytes of all keys and values.
pub(crate) fn bytes_of(ops: &[Op]) -> u64 {
    ops.iter().map(Op::bytes).fold(0, u64::saturating_add)
}

impl Batch {
    /// The bytes of all keys and values.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let transactions = self.transactions.iter().map(|it| bytes_of(&it.ops));
        transactions.fold(bytes_of(&self.side), u64::saturating_add)
    }
}

/// Whether a batch can be appended behind this head.
pub(crate) fn validate(head: &Head, batch: &Batch, limits: &Limits) -> Result<(), AppendError> {
    let invalid = |text: String| Err(AppendError::Invalid(text));
    let last = head.seq.saturating_add(batch.transactions.len() as u64);
    if last >= 1 << SEQ_BITS {
        return invalid(format!(
            "the sequence number {last} is beyond the last one, 2^{SEQ_BITS} - 1"
        ));
    }
    let (mut ops, mut bytes) = (0_usize, 0_u64);
    let of_transactions = batch.transactions.iter().map(|it| &*it.ops);
    for list in of_transactions.chain([&*batch.side]) {
        for op in list {
            check_op(op)?;
        }
        ops = ops.saturating_add(list.len());
        bytes = bytes.saturating_add(bytes_of(list));
    }
    if ops > limits.batch_ops_max {
        return invalid(format!(
            "the batch has {ops} operations, at most {} are allowed: divide it",
            limits.batch_ops_max
        ));
    }
    if bytes > limits.batch_bytes_max {
        return invalid(format!(
            "the batch has {bytes} bytes, at most {} are allowed: divide it",
            limits.batch_bytes_max
        ));
    }
    match batch.transactions.iter().find_map(|it| repeated_key(&it.ops)) {
        Some(key) => {
            invalid(format!("a transaction has two operations for key `{}`", text_of(key)))
        }
        None => Ok(()),
    }
}

fn check_op(op: &Op) -> Result<(), AppendError> {
    let key = op.key();
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(AppendError::Invalid(format!(
            "a key has 1 to {KEY_BYTES_MAX} bytes, this one has {}",
            key.len()
        )));
    }
    match op {
        Op::Put { value, .. } if value.len() > VALUE_BYTES_MAX => {
            Err(AppendError::Invalid(format!(
                "the value of key `{}` has {} bytes, at most {VALUE_BYTES_MAX} are allowed",
                text_of(key),
                value.len()
            )))
        }
        _ => Ok(()),
    }
}

/// A key that has more than one operation. Keys in ascending order, as imports have them, need no table.
fn repeated_key(ops: &[Op]) -> Option<&[u8]> {
    if ops.is_sorted_by(|one, next| one.key() < next.key()) {
        return None;
    }
    let mut seen = HashSet::with_capacity(ops.len());
    ops.iter().map(|op| &**op.key()).find(|key| !seen.insert(*key))
}

/// The start of a key as text for messages.
pub(crate) fn text_of(key: &[u8]) -> String {
    const SHOWN: usize = 100;
    let (start, rest) = key.split_at_checked(SHOWN).unwrap_or((key, &[]));
    format!("{}{}", start.escape_ascii(), if rest.is_empty() { "" } else { "..." })
}

/// Whether a range can hold no key. Ordered maps panic at ranges whose start is behind their end.
pub(crate) fn is_empty(range: (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match range {
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end))
        | (Bound::Excluded(start), Bound::Included(end)) => start >= end,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Transaction;

    #[test]
    fn sequence_numbers_have_an_end() {
        let batch = Batch { transactions: vec![Transaction::default(); 2], side: Vec::new() };
        let at = |seq| Head { seq, ..Head::empty(1) };
        let validated = |seq| validate(&at(seq), &batch, &Limits::default());
        validated((1 << SEQ_BITS) - 3).unwrap();
        assert_eq!(
            validated((1 << SEQ_BITS) - 2).unwrap_err().to_string(),
            "the sequence number 1099511627776 is beyond the last one, 2^40 - 1"
        );
    }
}
