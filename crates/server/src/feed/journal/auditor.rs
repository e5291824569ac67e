//! The audit log as the writer keeps it: how much of it, and how many refusals of one caller.

use std::collections::HashMap;

use capstan_engine::Timestamp;
use capstan_iam::audit::{AuditHead, AuditRecord, HEAD_KEY, key};
use capstan_store::{Op, StoreError};

use super::overlay::Overlay;
use crate::limits::{AUDIT_PRUNED_MAX, REFUSALS_PER_MINUTE, REFUSED_CALLERS_MAX};

/// The refusals of a caller in a minute.
#[derive(Clone, Copy, Debug, Default)]
struct Refusals {
    /// The number of the minute.
    minute: i64,
    recorded: u32,
    /// Without a record, since the last record.
    suppressed: u64,
}

/// Bounds the records of refusals: a caller that is refused again and again would otherwise write as much as it asks.
#[derive(Debug, Default)]
pub(super) struct RefusalRate {
    callers: HashMap<String, Refusals>,
}

impl RefusalRate {
    /// Whether a refusal gets a record. Returns how many had none since the last record of the caller.
    pub(super) fn admit(&mut self, caller: &str, now: Timestamp) -> Option<u64> {
        let minute = now.seconds().div_euclid(60);
        if self.callers.len() >= REFUSED_CALLERS_MAX && !self.callers.contains_key(caller) {
            // Callers of earlier minutes are forgotten first, with what was suppressed; then all.
            self.callers.retain(|_, refusals| refusals.minute == minute);
            if self.callers.len() >= REFUSED_CALLERS_MAX {
                self.callers.clear();
            }
        }
        let refusals = self.callers.entry(caller.into()).or_default();
        if refusals.minute != minute {
            (refusals.minute, refusals.recorded) = (minute, 0);
        }
        if refusals.recorded >= REFUSALS_PER_MINUTE {
            refusals.suppressed = refusals.suppressed.saturating_add(1);
            return None;
        }
        refusals.recorded = refusals.recorded.saturating_add(1);
        Some(std::mem::take(&mut refusals.suppressed))
    }
}

/// The operation that writes the head of the log.
pub(super) fn head_op(head: &AuditHead) -> Op {
    Op::Put { key: HEAD_KEY.into(), value: head.encode().into() }
}

/// The operation that writes a record. The head is behind it then.
pub(super) fn record_op(head: &mut AuditHead, record: &AuditRecord) -> Op {
    let (key, value) = head.append(record);
    Op::Put { key: key.into(), value: value.into() }
}

/// Operations that delete the oldest records beyond the limit, some of them. The head keeps the digest of the last one.
///
/// # Errors
///
/// The store cannot be read.
pub(super) fn prune(
    head: &mut AuditHead,
    state: &Overlay,
    records_max: u64,
) -> Result<Vec<Op>, StoreError> {
    let mut ops = vec![];
    while head.kept() > records_max && ops.len() < AUDIT_PRUNED_MAX {
        let first = head.first;
        let value = state.value(&key(first))?.unwrap_or_default();
        let Some(key) = head.delete_first(&value) else {
            tracing::error!(
                record = first,
                "the audit log was tampered with, so old records stay: run `capstan audit verify`"
            );
            break;
        };
        ops.push(Op::Delete { key: key.into() });
    }
    Ok(ops)
}

/// The head of the log of a state.
///
/// # Errors
///
/// The store cannot be read, or holds something else.
pub(super) fn head_of(state: &Overlay) -> Result<AuditHead, StoreError> {
    let Some(value) = state.value(HEAD_KEY)? else { return Ok(AuditHead::empty()) };
    let corrupt = || StoreError::Corrupt("the head of the audit log is not valid".into());
    AuditHead::decode(&value).ok_or_else(corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_a_caller_are_bounded_and_counted() {
        let mut rate = RefusalRate::default();
        let at = |seconds| Timestamp::new(seconds, 0);
        for _ in 0..REFUSALS_PER_MINUTE {
            assert_eq!(rate.admit("alice", at(60)), Some(0));
        }
        assert_eq!(rate.admit("alice", at(119)), None);
        assert_eq!(rate.admit("alice", at(119)), None);
        assert_eq!(rate.admit("bob", at(119)), Some(0), "another caller has a share of its own");
        assert_eq!(rate.admit("alice", at(120)), Some(2));
        assert_eq!(rate.admit("alice", at(121)), Some(0));
    }

    #[test]
    fn callers_that_are_remembered_are_bounded() {
        let mut rate = RefusalRate::default();
        for caller in 0..3 * REFUSED_CALLERS_MAX {
            rate.admit(&caller.to_string(), Timestamp::UNIX_EPOCH);
            assert!(rate.callers.len() <= REFUSED_CALLERS_MAX);
        }
        let later = Timestamp::new(60, 0);
        rate.admit("alice", later);
        for caller in 0..REFUSED_CALLERS_MAX - 1 {
            rate.admit(&format!("x{caller}"), later);
        }
        assert!(rate.callers.contains_key("alice"), "callers of earlier minutes go first");
    }
}
