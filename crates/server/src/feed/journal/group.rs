//! Writes that are committed together.
//!
//! Each write is judged on the state after those before it, and becomes a transaction of its own: the objects it
//! changes, its audit record, and its answer for a retry. Refusals become audit records beside the transactions.

use std::sync::Arc;

use capstan_engine::PathBuf;
use capstan_engine::{ApplyError, Change, ChangeError, Snapshot, Timestamp, Writer as IndexWriter};
use capstan_iam::audit::{AuditHead, AuditRecord};
use capstan_iam::record::prefix;
use capstan_iam::{
    Actor, Context, Credential, JudgeError, Kind, Object, ObjectChange, Outcome, Reader, Response,
    RuleSet, State, judge, record,
};
use capstan_store::{Batch, Head, Op, StoreError, Transaction, View};

use super::auditor::{self, RefusalRate};
use super::beside;
use super::overlay::{Overlay, last_seen_hour, last_seen_key};
use super::quotas::{Quotas, Uncommitted};
use super::requests::{self, RequestId};
use super::whole::WholeChange;
use super::writer::Answer;
use crate::RequestError;
use crate::authn::secrets::Tokens;
use crate::error::StoreFailure;
use crate::feed::management::{Write, Written};
use crate::feed::position::Position;
use crate::limits::Limits;

/// The committed state that a group begins with.
#[derive(Clone, Debug)]
pub(super) struct Base {
    pub(super) snapshot: Snapshot,
    pub(super) tokens: Tokens,
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
    pub(super) reserved_issuers: Vec<String>,
    pub(super) trusted_issuers: Vec<String>,
}

/// Writes that are judged and not committed yet.
pub(super) struct Group {
    /// The state that it begins with.
    base: Snapshot,
    index: IndexWriter,
    /// What the writes so far have changed in the index.
    changes: Vec<Vec<Change>>,
    /// The state after the writes so far.
    pub(super) snapshot: Snapshot,
    /// Likewise.
    pub(super) tokens: Tokens,
    state: Overlay,
    /// The head after the transactions so far.
    pub(super) head: Head,
    audit: AuditHead,
    /// Whether the head of the audit log is not in a transaction.
    audited_beside: bool,
    batch: Batch,
    /// Bytes of the transactions.
    pub(super) bytes: u64,
    pub(super) counts: Uncommitted,
    /// One for each write that was judged, in order.
    pub(super) answers: Vec<Answer>,
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
            base: base.snapshot.clone(),
            index: IndexWriter::new(&base.snapshot),
            changes: vec![],
            snapshot: base.snapshot.clone(),
            tokens: base.tokens.clone(),
            audit: auditor::head_of(&state)?,
            state,
            head: base.head(),
            audited_beside: false,
            batch: Batch::default(),
            bytes: 0,
            counts: Uncommitted::default(),
            answers: vec![],
        })
    }

    /// Judges a write.
    pub(super) fn take(&mut self, write: &Write, judge: &mut Judge, now: Timestamp) {
        let answered = self.answer(write, judge, now);
        if answered.is_ok() && !write.validate_only {
            self.saw(&write.actor, now);
        }
        self.answers.push(answered);
    }

    /// Keeps when a caller was last seen, to the hour. It is no change: no revision, no etag and no record has it.
    pub(super) fn saw(&mut self, actor: &Actor, now: Timestamp) {
        // One that has just deleted itself was never here.
        let Some(caller) = actor.id().filter(|id| self.snapshot.is_registered(id.as_path())) else {
            return;
        };
        let key = last_seen_key(caller.as_str());
        let hour = last_seen_hour(now).to_be_bytes();
        // What cannot be read is written anew.
        if !matches!(self.state.value(&key), Ok(Some(last)) if *last == hour) {
            self.put_beside(vec![Op::Put { key: key.into(), value: hour.to_vec().into() }]);
        }
    }

    /// Keeps how far deliveries are. One that was begun anew meanwhile does not go back.
    pub(super) fn put_positions(&mut self, positions: &[(PathBuf, Position)]) {
        for (subscription, position) in positions {
            let key = Position::key(subscription.as_path());
            let Ok(Some(kept)) = self.state.value(&key) else { continue };
            let goes_on = Position::decode(&kept).is_some_and(|kept| {
                kept.created == position.created
                    && (kept.next, kept.event) <= (position.next, position.event)
            });
            if goes_on {
                let value = position.encode().into();
                self.put_beside(vec![Op::Put { key: key.into(), value }]);
            }
        }
    }

    /// Makes operations that are no change.
    fn put_beside(&mut self, ops: Vec<Op>) {
        self.state.apply(&ops);
        self.batch.side.extend(ops);
    }

    fn answer(&mut self, write: &Write, with: &mut Judge, now: Timestamp) -> Answer {
        let state = State { snapshot: &self.snapshot, objects: &self.state };
        let request = RequestId::of(write, &state)?;
        let kept = request.as_ref().map(|request| request.find(&self.state, now)).transpose()?;
        if let (Some(request), Some(kept)) = (&request, kept.flatten())
            // An answer is given again only to a caller that is still let in.
            && Reader::new(&RuleSet::FULL, &state, &write.actor, now).is_ok()
        {
            return request.again(kept);
        }
        let asked = with.quotas.ask((&write.actor, now), &with.limits.quotas);
        if let Err(failure) = asked {
            return self.refuse(write, RequestError::Store(failure), (with, now));
        }
        let mut context = Context {
            now,
            revision: self.head.revision().saturating_add(1),
            new_id: &mut random,
            reserved_issuers: &with.reserved_issuers,
            trusted_issuers: &with.trusted_issuers,
        };
        let judged = judge(&RuleSet::FULL, &state, &write.actor, &write.operation, &mut context);
        match judged {
            Ok(outcome) => self.accept(write, request.as_ref(), outcome, (with, now)),
            Err(JudgeError::Objects(error)) => Err(error.into()),
            Err(JudgeError::Refused(refusal)) => {
                let at = (self.head.revision(), now);
                let (actor, operation) = (&write.actor, &write.operation);
                let origin = write.origin.audited();
                let record = AuditRecord::of_refusal(actor, operation, &origin, at, &refusal);
                self.audit_refusal(record, with, now);
                Err((*refusal).into())
            }
        }
    }

    /// Refuses a write for another reason than the rules.
    fn refuse(
        &mut self,
        write: &Write,
        error: RequestError,
        (with, now): (&mut Judge, Timestamp),
    ) -> Answer {
        let at = (self.head.revision(), now);
        let (actor, operation) = (&write.actor, &write.operation);
        let record = AuditRecord::of_change(actor, operation, &write.origin.audited(), at, &[]);
        // gRPC's RESOURCE_EXHAUSTED.
        let (code, reason, text) = (8, "QUOTA".into(), error.to_string());
        self.audit_refusal(AuditRecord { code, reason, text, ..record }, with, now);
        Err(error)
    }

    /// Keeps the record of an attempt that was refused, unless the caller has had too many. Attempts that only validate
    /// are attempts, too.
    pub(super) fn audit_refusal(&mut self, record: AuditRecord, with: &mut Judge, now: Timestamp) {
        if let Some(suppressed) = with.refusals.admit(&record.actor, now) {
            let record = AuditRecord { suppressed, ..record };
            self.batch.side.push(auditor::record_op(&mut self.audit, &record));
            self.audited_beside = true;
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
            let written = Written { response, revision: self.head.revision() };
            // A late retry must not do what the first one found to be done.
            if let Some(request) = request {
                self.put_beside(request.keep(&written, now).into());
            }
            return Ok(written);
        }
        let limits = with.limits.quotas;
        let by = (&write.actor, now);
        let admitted = with.quotas.judge(&self.counts, by, &objects, (&self.state, &limits));
        let admitted = match admitted.map_err(unreadable)? {
            Ok(admitted) => admitted,
            Err(failure) => {
                return self.refuse(write, RequestError::Store(failure), (with, now));
            }
        };
        let applied = if write.validate_only {
            self.index.clone().apply(&changes)
        } else {
            self.apply(&changes)
        };
        if let Err(ApplyError { error, .. }) = applied {
            return match error {
                ChangeError::TooManyRoles(_) | ChangeError::IndexFull(_) => {
                    let full = StoreFailure::Quota(format!("{error}: delete some first"));
                    self.refuse(write, RequestError::Store(full), (with, now))
                }
                error => Err(RequestError::bug(&format!(
                    "a judged change of {} does not apply: {error}",
                    write.operation.method()
                ))),
            };
        }
        if write.validate_only {
            return Ok(Written { response, revision: self.head.revision() });
        }
        let creators = with.quotas.count(&mut self.counts, admitted);
        let kept = self.keep(write, request, (response, &objects), creators, now);
        match &kept {
            Ok(_) => self.changes.push(changes),
            Err(_) => self.undo(),
        }
        kept
    }

    /// Makes a transaction of what is in the index.
    fn keep(
        &mut self,
        write: &Write,
        request: Option<&RequestId>,
        (response, objects): (Response, &[ObjectChange]),
        creators: Vec<Op>,
        now: Timestamp,
    ) -> Answer {
        let revision = self.head.revision().saturating_add(1);
        let written = Written { response, revision };
        let mut ops: Vec<Op> = objects.iter().map(object_op).collect();
        ops.extend(creators);
        ops.extend(self.credential_ops(&written.response, objects).map_err(unreadable)?);
        for change in objects {
            let (before, after) = (change.before.as_ref(), change.after.as_ref());
            let more = beside::ops(&self.state, (before, after), self.audit.next);
            ops.extend(more.map_err(unreadable)?);
        }
        if let Response::NewGroupInvite(invite, code) = &written.response {
            ops.extend(beside::code_ops(invite, code));
        }
        ops.extend(objects.iter().filter_map(forget_last_seen));
        // It may have been put beside in this group, and what is beside would come last.
        let is_beside = |op: &&Op| {
            op.key()
                .first()
                .is_some_and(|first| [prefix::LAST_SEEN, prefix::POSITION].contains(first))
        };
        let both_ways: Vec<_> = ops.iter().filter(is_beside).map(|op| op.key().to_vec()).collect();
        if !both_ways.is_empty() {
            self.batch.side.retain(|op| !both_ways.iter().any(|key| *key == *op.key()));
        }
        if let Some(request) = request {
            ops.extend(request.keep(&written, now));
        }
        let (actor, operation) = (&write.actor, &write.operation);
        let at = (revision, now);
        let record = AuditRecord::of_change(actor, operation, &write.origin.audited(), at, objects);
        ops.push(auditor::record_op(&mut self.audit, &record));
        ops.push(auditor::head_op(&self.audit));
        self.head = self.head.next(&ops);
        debug_assert_eq!(self.head.revision(), revision);
        self.state.apply(&ops);
        self.snapshot = Snapshot::clone(&self.index.publish(revision));
        self.bytes = ops.iter().map(Op::bytes).fold(self.bytes, u64::saturating_add);
        self.batch.transactions.push(Transaction { ops });
        Ok(written)
    }

    /// Applies changes to the index, all or none. [`Self::snapshot`] is that of the base until the next one is published: whatever another
    /// snapshot has is copied before it is changed.
    pub(super) fn apply(&mut self, changes: &[Change]) -> Result<(), ApplyError> {
        self.snapshot = self.base.clone();
        let applied = self.index.apply_in_place(changes);
        applied.inspect_err(|_| self.undo())
    }

    /// Takes back what was done to the index since the last transaction. That is rare: the index is full, or the store unreadable.
    fn undo(&mut self) {
        self.index = IndexWriter::new(&self.base);
        let again = self.changes.iter().try_for_each(|one| self.index.apply_in_place(one));
        assert_eq!(again, Ok(()), "changes that were made are refused");
        self.snapshot = Snapshot::clone(&self.index.publish(self.head.revision()));
    }

    /// Keeps what knows the secret of a new pull token, and forgets it with the token.
    fn credential_ops(
        &mut self,
        response: &Response,
        objects: &[ObjectChange],
    ) -> Result<Vec<Op>, StoreError> {
        let mut ops = vec![];
        if let Response::PullToken(token, secret) = response
            && let Some(expires_at) = token.binding.expires_at
        {
            let identity = &token.identity;
            let created = identity.meta.created;
            let credential = Credential { created, expires_at, secret: *secret };
            self.tokens.insert(identity.id.clone(), &credential);
            let key = Credential::key(identity.id.as_path()).into();
            ops.push(Op::Put { key, value: credential.encode().into() });
        }
        for change in objects {
            let (Some(Object::Identity(gone)), None) = (&change.before, &change.after) else {
                continue;
            };
            if gone.is_pull_token() {
                let key = Credential::key(gone.id.as_path());
                let value = self.state.value(&key)?;
                if let Some(credential) = value.and_then(|value| Credential::decode(&value)) {
                    self.tokens.remove(&credential.secret);
                }
                ops.push(Op::Delete { key: key.into() });
            }
        }
        Ok(ops)
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

/// An identity that is made again under the same id was not seen yet.
fn forget_last_seen(change: &ObjectChange) -> Option<Op> {
    let is_gone = change.kind == Kind::Identity && change.after.is_none();
    is_gone.then(|| Op::Delete { key: last_seen_key(change.id.as_str()).into() })
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
