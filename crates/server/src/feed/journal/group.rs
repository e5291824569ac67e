//! Writes that are committed together.
//!
//! Each write is judged on the state after those before it, and becomes a transaction of its own: the objects it
//! changes, its audit record, and its answer for a retry. Refusals become audit records beside the transactions.

use std::sync::Arc;

use capstan_engine::{Snapshot, Timestamp, Writer as IndexWriter};
use capstan_iam::audit::{AuditHead, AuditRecord, Origin};
use capstan_iam::{
    Actor, Context, JudgeError, ObjectChange, Outcome, Reader, RuleSet, State, judge, record,
};
use capstan_store::{Batch, Head, Op, StoreError, Transaction, View};
use sha2::{Digest as _, Sha256};

use super::auditor::{self, RefusalRate};
use super::overlay::{Overlay, last_seen_key};
use super::quotas::{Quotas, Uncommitted};
use super::requests::{self, RequestId};
use super::whole::WholeChange;
use super::writer::{Answer, AnswerTo};
use crate::RequestError;
use crate::error::StoreFailure;
use crate::feed::management::{Write, Written};
use crate::limits::Limits;

/// The committed state that a group begins with.
#[derive(Clone, Debug)]
pub(super) struct Base {
    pub(super) snapshot: Snapshot,
    pub(super) view: Arc<dyn View>,
}

impl Base {
    pub(super) fn head(&self) -> Head {
        self.view.head()
    }
}

/// What writes are judged with beside the state. It outlives a group.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) quotas: Quotas,
    pub(super) refusals: RefusalRate,
    pub(super) limits: Limits,
}

/// Writes that are judged and not committed yet.
pub(super) struct Group {
    index: IndexWriter,
    /// The state after the writes so far.
    pub(super) snapshot: Snapshot,
    state: Overlay,
    /// The head after the transactions so far.
    pub(super) head: Head,
    audit: AuditHead,
    /// Whether the head of the audit log is not in a transaction.
    audited_beside: bool,
    pub(super) batch: Batch,
    pub(super) counts: Uncommitted,
    pub(super) answers: Vec<(AnswerTo, Answer)>,
}

impl Group {
    /// A group on a committed state.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub(super) fn new(base: &Base) -> Result<Self, StoreError> {
        let state = Overlay::new(Arc::clone(&base.view));
        Ok(Self {
            index: IndexWriter::new(&base.snapshot),
            snapshot: base.snapshot.clone(),
            audit: auditor::head_of(&state)?,
            state,
            head: base.head(),
            audited_beside: false,
            batch: Batch::default(),
            counts: Uncommitted::default(),
            answers: vec![],
        })
    }

    /// Judges a write, unless nobody waits for it any more.
    pub(super) fn take(
        &mut self,
        (write, answer): (Write, AnswerTo),
        judge: &mut Judge,
        now: Timestamp,
    ) {
        if answer.is_closed() {
            return;
        }
        let answered = self.answer(&write, judge, now);
        if answered.is_ok() && !write.validate_only {
            self.saw(&write.actor, now);
        }
        self.answers.push((answer, answered));
    }

    /// Keeps when a caller was last seen, to the hour. It is no change: no revision, no etag and no record has it.
    fn saw(&mut self, actor: &Actor, now: Timestamp) {
        let Some(caller) = actor.id() else { return };
        let key = last_seen_key(caller.as_str());
        let seconds = now.seconds();
        let hour = seconds.saturating_sub(seconds.rem_euclid(3_600)).to_be_bytes();
        // What cannot be read is written anew.
        if !matches!(self.state.value(&key), Ok(Some(last)) if *last == hour) {
            let op = Op::Put { key: key.into(), value: hour.to_vec().into() };
            self.state.apply(std::slice::from_ref(&op));
            self.batch.side.push(op);
        }
    }

    fn answer(&mut self, write: &Write, with: &mut Judge, now: Timestamp) -> Answer {
        let state = State { snapshot: &self.snapshot, objects: &self.state };
        let request = RequestId::of(write);
        if let Some(request) = &request
            // An answer is given again only to a caller that is still let in.
            && Reader::new(&RuleSet::FULL, &state, &write.actor, now).is_ok()
            && let Some(written) = request.find(&self.state, now)?
        {
            return Ok(written);
        }
        let mut context = Context {
            now,
            revision: self.head.revision().saturating_add(1),
            new_id: &mut random,
            reserved_issuers: &[],
        };
        let judged = judge(&RuleSet::FULL, &state, &write.actor, &write.operation, &mut context);
        match judged {
            Ok(outcome) => self.accept(write, request.as_ref(), outcome, (with, now)),
            Err(JudgeError::Objects(error)) => Err(error.into()),
            Err(JudgeError::Refused(refusal)) => {
                let caller = write.actor.id().map(ToString::to_string).unwrap_or_default();
                if !write.validate_only
                    && let Some(suppressed) = with.refusals.admit(&caller, now)
                {
                    let at = (self.head.revision(), now);
                    let (actor, operation) = (&write.actor, &write.operation);
                    let record =
                        AuditRecord::of_refusal(actor, operation, &origin(write), at, &refusal);
                    let record = AuditRecord { suppressed, ..record };
                    self.batch.side.push(auditor::record_op(&mut self.audit, &record));
                    self.audited_beside = true;
                }
                Err((*refusal).into())
            }
        }
    }

    fn accept(
        &mut self,
        write: &Write,
        request: Option<&RequestId>,
        outcome: Outcome,
        (with, now): (&mut Judge, Timestamp),
    ) -> Answer {
        let Outcome { objects, changes, response } = outcome;
        if objects.is_empty() {
            return Ok(Written { response, revision: self.head.revision() });
        }
        let mut index = self.index.clone();
        index.apply(&changes).map_err(|error| {
            tracing::error!(%error, method = write.operation.method(), "a judged change does not apply");
            RequestError::Store(StoreFailure::Unreachable)
        })?;
        if write.validate_only {
            return Ok(Written { response, revision: self.head.revision() });
        }
        let limits = &with.limits.quotas;
        let creators = with
            .quotas
            .admit(&mut self.counts, (&write.actor, now), &objects, (&self.state, limits))
            .map_err(unreadable)?
            .map_err(RequestError::Store)?;
        let revision = self.head.revision().saturating_add(1);
        let written = Written { response, revision };
        let mut ops: Vec<Op> = objects.iter().map(object_op).collect();
        ops.extend(creators);
        if let Some(request) = request {
            ops.extend(request.keep(&written, now));
        }
        let (actor, operation) = (&write.actor, &write.operation);
        let record =
            AuditRecord::of_change(actor, operation, &origin(write), (revision, now), &objects);
        ops.push(auditor::record_op(&mut self.audit, &record));
        ops.push(auditor::head_op(&self.audit));
        self.head = self.head.next(&ops);
        debug_assert_eq!(self.head.revision(), revision);
        self.state.apply(&ops);
        self.snapshot = Snapshot::clone(&index.publish(revision));
        self.index = index;
        self.batch.transactions.push(Transaction { ops });
        Ok(written)
    }

    /// Makes a change of the policy as a whole the only transaction of the group.
    pub(super) fn replace(&mut self, change: WholeChange) {
        let WholeChange { mut ops, record, snapshot, counts } = change;
        let audited = ops.len();
        ops.push(auditor::record_op(&mut self.audit, &record));
        ops.push(auditor::head_op(&self.audit));
        self.head = self.head.next(&ops);
        debug_assert_eq!(self.head.revision(), snapshot.revision());
        self.state.apply(ops.get(audited..).unwrap_or_default());
        (self.snapshot, self.counts) = (snapshot, counts);
        self.batch.transactions.push(Transaction { ops });
    }

    /// The number of audit records that are kept then.
    pub(super) const fn audit_records(&self) -> u64 {
        self.audit.kept()
    }

    /// Bytes of the batch.
    pub(super) fn bytes(&self) -> u64 {
        let ops = self.batch.transactions.iter().flat_map(|transaction| &transaction.ops);
        ops.map(Op::bytes).sum()
    }

    /// The batch, with what is done at each commit: answers and audit records whose time is over go.
    pub(super) fn finish(&mut self, with: &Judge, now: Timestamp) -> Result<Batch, StoreError> {
        let mut batch = std::mem::take(&mut self.batch);
        if batch.transactions.is_empty() && batch.side.is_empty() {
            return Ok(batch);
        }
        let count = batch.transactions.len();
        batch.side.extend(requests::forget(&self.state, now, count.saturating_mul(2).max(2))?);
        let pruned = auditor::prune(&mut self.audit, &self.state, with.limits.audit_records_max)?;
        if self.audited_beside || !pruned.is_empty() {
            batch.side.extend(pruned);
            batch.side.push(auditor::head_op(&self.audit));
        }
        Ok(batch)
    }
}

fn object_op(change: &ObjectChange) -> Op {
    let key = record::key(change.kind, change.id.as_path()).into();
    match &change.after {
        Some(object) => Op::Put { key, value: record::encode(object).into() },
        None => Op::Delete { key },
    }
}

fn origin(write: &Write) -> Origin {
    Origin {
        authentication: write.origin.authentication.into(),
        source: write.origin.source.clone(),
        request: Sha256::digest(format!("{:?}", write.operation)).into(),
    }
}

/// 64 random bits. Ids need not be secret, only new; two that are equal are found when the object is made.
fn random() -> u64 {
    getrandom::u64().unwrap_or_else(|_| fastrand::u64(..))
}

#[expect(clippy::needless_pass_by_value, reason = "an argument of map_err")]
fn unreadable(error: StoreError) -> RequestError {
    tracing::error!(%error, "the store cannot be read");
    RequestError::Unreadable
}
