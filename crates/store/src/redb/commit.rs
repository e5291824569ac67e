//! One batch as one commit.

use ::redb::{Table, WriteTransaction};

use super::opening::Handle;
use super::schema::{
    Kept, LOG, META, META_HEAD, META_KEPT, STATE, TableError, put, put_transaction,
    remove_transaction,
};
use super::view::caught;
use crate::batch::bytes_of;
use crate::{Batch, Head, Limits, Op};

/// What a store holds after a commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct After {
    pub(super) head: Head,
    pub(super) kept: Kept,
}

/// Why a batch was not committed.
#[derive(Debug)]
pub(super) struct CommitError {
    pub(super) error: TableError,
    /// Where the store would be now. Set if it may be: the failure was so late that the commit may have been made.
    pub(super) perhaps: Option<Head>,
}

/// Writes a valid batch behind this head.
pub(super) fn commit(
    handle: &Handle,
    before: After,
    batch: &Batch,
    limits: &Limits,
) -> Result<After, CommitError> {
    let written = caught(|| {
        let transaction = handle.begin()?;
        let after = write(&transaction, before, batch, limits)?;
        Ok((transaction, after))
    });
    let (transaction, after) = written.map_err(|error| CommitError { error, perhaps: None })?;
    handle.trace.begin();
    let committed = caught(|| Ok(transaction.commit()?));
    committed.map_err(|error| CommitError {
        error,
        perhaps: handle.trace.header_written().then_some(after.head),
    })?;
    Ok(after)
}

fn write(
    transaction: &WriteTransaction,
    before: After,
    batch: &Batch,
    limits: &Limits,
) -> Result<After, TableError> {
    let mut scratch = Vec::new();
    let mut head = before.head;
    let mut heads = Vec::with_capacity(batch.transactions.len());
    let mut state = transaction.open_table(STATE)?;
    for it in &batch.transactions {
        apply(&mut state, &it.ops, &mut scratch)?;
        head = head.next(&it.ops);
        heads.push(head);
    }
    apply(&mut state, &batch.side, &mut scratch)?;
    if heads.is_empty() {
        return Ok(before);
    }
    let kept = write_log(transaction, before, &heads, batch, limits, &mut scratch)?;
    let mut meta = transaction.open_table(META)?;
    put(&mut meta, META_HEAD, &head.to_bytes(), &mut scratch)?;
    put(&mut meta, META_KEPT, &kept.to_bytes(), &mut scratch)?;
    Ok(After { head, kept })
}

/// Makes operations in the order of their keys: so redb fills pages, and a large import, and each start after it, reads and
/// writes fewer of them (`findings/redb-half-full-pages.sh`).
fn apply(
    state: &mut Table<'_, &'static [u8], &'static [u8]>,
    ops: &[Op],
    scratch: &mut Vec<u8>,
) -> Result<(), TableError> {
    let mut sorted: Vec<&Op> = ops.iter().collect();
    // Of one key, the last one counts: this sort is stable.
    sorted.sort_by(|a, b| a.key().cmp(b.key()));
    for op in sorted {
        match op {
            Op::Put { key, value } => put(state, key, value, scratch)?,
            Op::Delete { key } => {
                state.remove(&**key)?;
            }
        }
    }
    Ok(())
}

/// Adds the transactions to the log, and removes what is beyond the limits.
fn write_log(
    transaction: &WriteTransaction,
    before: After,
    heads: &[Head],
    batch: &Batch,
    limits: &Limits,
    scratch: &mut Vec<u8>,
) -> Result<Kept, TableError> {
    let (count_max, bytes_max) = (limits.history_transactions_max, limits.history_bytes_max);
    // Of the batch, the last ones that fit.
    let (mut count, mut bytes) = (0_u64, 0_u64);
    for it in batch.transactions.iter().rev() {
        let more = bytes.saturating_add(bytes_of(&it.ops));
        if count >= count_max || more > bytes_max {
            break;
        }
        (count, bytes) = (count.saturating_add(1), more);
    }
    let skipped = heads.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
    let first = before.head.seq.saturating_add(1).saturating_add(skipped as u64);

    let mut kept = before.kept;
    if skipped > 0 {
        transaction.delete_table(LOG)?;
        kept = Kept { from: first, bytes: 0 };
    }
    let mut log = transaction.open_table(LOG)?;
    while first.saturating_sub(kept.from).saturating_add(count) > count_max
        || kept.bytes.saturating_add(bytes) > bytes_max
    {
        let removed = remove_transaction(&mut log, kept.from)?;
        kept.from = kept.from.saturating_add(1);
        kept.bytes = kept.bytes.saturating_sub(removed);
    }
    for (head, it) in heads.iter().zip(&batch.transactions).skip(skipped) {
        put_transaction(&mut log, head, &it.ops, scratch)?;
    }
    kept.bytes = kept.bytes.saturating_add(bytes);
    Ok(kept)
}
