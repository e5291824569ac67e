//! The audit log: a record for each change and for refused attempts, chained by digests.
//!
//! ```text
//! key `a` number 8 bytes, big-endian ─▶ digest of this record, 32 bytes | the record, a protobuf message
//! digest of record n = SHA-256(digest of record n - 1 | number n, 8 bytes, big-endian | the record)
//! ```
//!
//! Numbers have no gap. Old records are deleted from the front; then the digest before the first kept one is the
//! closing digest, which the head keeps.
//!
//! **Invariant**: a record that is changed, removed, inserted or moved does not fit its neighbours, and [`Verifier`]
//! names it. Field numbers are never used again, as in [`record`].

use capstan_engine::{PathBuf, Timestamp};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::record::prefix;
use crate::{Actor, ObjectChange, Operation, Refusal, limits, record};

/// SHA-256.
pub type Digest = [u8; 32];

/// The key of the head of the audit log.
pub const HEAD_KEY: &[u8] = b"maudit";

/// The state of the log: where it begins and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditHead {
    /// The number of the next record. The first record has 1.
    pub next: u64,
    /// The digest of the last record.
    pub digest: Digest,
    /// The number of the first record that is kept.
    pub first: u64,
    /// The digest of the record before that one.
    pub closing: Digest,
}

impl AuditHead {
    /// Of an empty log.
    #[must_use]
    pub const fn empty() -> Self {
        Self { next: 1, digest: [0; 32], first: 1, closing: [0; 32] }
    }

    /// As the store keeps it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let numbers = [self.next.to_be_bytes(), self.first.to_be_bytes()].concat();
        [&*numbers, &self.digest, &self.closing].concat()
    }

    /// Reads what [`Self::encode`] made; `None` if it is something else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (next, rest) = bytes.split_first_chunk()?;
        let (first, rest) = rest.split_first_chunk()?;
        let (digest, rest) = rest.split_first_chunk()?;
        let closing = rest.try_into().ok()?;
        let (next, first) = (u64::from_be_bytes(*next), u64::from_be_bytes(*first));
        (first >= 1 && first <= next).then_some(Self { next, digest: *digest, first, closing })
    }

    /// The number of records that are kept.
    #[must_use]
    pub const fn kept(&self) -> u64 {
        self.next.saturating_sub(self.first)
    }

    /// The key and value of one more record, which the head then is behind.
    pub fn append(&mut self, record: &AuditRecord) -> (Vec<u8>, Vec<u8>) {
        let message = record.message().encode_to_vec();
        let key = key(self.next);
        self.digest = digest(&self.digest, self.next, &message);
        self.next = self.next.saturating_add(1);
        (key, [&self.digest, &*message].concat())
    }

    /// Deletes the first record, of this value. Returns its key. `None` if it is not the first record.
    pub fn delete_first(&mut self, value: &[u8]) -> Option<Vec<u8>> {
        let (digest_of_it, message) = value.split_first_chunk()?;
        if self.kept() == 0 || digest(&self.closing, self.first, message) != *digest_of_it {
            return None;
        }
        let key = key(self.first);
        self.closing = *digest_of_it;
        self.first = self.first.saturating_add(1);
        Some(key)
    }
}

/// The key of the record of this number.
#[must_use]
pub fn key(number: u64) -> Vec<u8> {
    [&[prefix::AUDIT][..], &number.to_be_bytes()].concat()
}

/// The number in a key; `None` if the key is that of no audit record.
#[must_use]
pub fn number(key: &[u8]) -> Option<u64> {
    let (prefix, number) = key.split_first()?;
    let number = u64::from_be_bytes(number.try_into().ok()?);
    (*prefix == prefix::AUDIT).then_some(number)
}

fn digest(before: &Digest, number: u64, message: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(before);
    hash.update(number.to_be_bytes());
    hash.update(message);
    hash.finalize().into()
}

/// How a call came in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// How the caller was identified, such as `operator`.
    pub authentication: String,
    /// Where the call came from: an IP address, or `unix`.
    pub source: String,
    /// SHA-256 of the request.
    pub request: Digest,
}

/// One change, or one refused attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// The revision that a change made, or that an attempt was judged at.
    pub revision: u64,
    /// The time.
    pub time: Timestamp,
    /// Path of the caller. Empty for the operator.
    pub actor: String,
    /// How the call came in.
    pub origin: Origin,
    /// Service and method, as in the path of a call.
    pub method: String,
    /// Path of the object, or of the parent of one that was not made. Empty at the root.
    pub object: String,
    /// The gRPC code: 0 for a change.
    pub code: u32,
    /// Of a refusal, its reason. It may be one that the caller was not told.
    pub reason: String,
    /// Of a refusal, the whole text; of a restore, what was restored.
    pub text: String,
    /// Of a refusal, what the caller lacked, sorted.
    pub missing: Vec<String>,
    /// Of a refusal, where it lacked that.
    pub scope: String,
    /// What was changed.
    pub changes: Vec<AuditChange>,
    /// How many objects were changed, if that is more than are in `changes`.
    pub changes_count: u64,
    /// Refused attempts of the same caller before this one that have no record of their own.
    pub suppressed: u64,
}

/// An object before and after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditChange {
    /// The key of the object.
    pub key: Vec<u8>,
    /// The record before; `None` if the object is new.
    pub before: Option<Vec<u8>>,
    /// The record after; `None` if the object is deleted.
    pub after: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RecordMessage {
    #[prost(uint64, tag = "1")]
    revision: u64,
    #[prost(int64, tag = "2")]
    seconds: i64,
    #[prost(uint32, tag = "3")]
    nanos: u32,
    #[prost(string, tag = "4")]
    actor: String,
    #[prost(string, tag = "5")]
    authentication: String,
    #[prost(string, tag = "6")]
    source: String,
    #[prost(bytes = "vec", tag = "7")]
    request: Vec<u8>,
    #[prost(string, tag = "8")]
    method: String,
    #[prost(string, tag = "9")]
    object: String,
    #[prost(uint32, tag = "10")]
    code: u32,
    #[prost(string, tag = "11")]
    reason: String,
    #[prost(string, tag = "12")]
    text: String,
    #[prost(string, repeated, tag = "13")]
    missing: Vec<String>,
    #[prost(string, tag = "14")]
    scope: String,
    #[prost(message, repeated, tag = "15")]
    changes: Vec<ChangeMessage>,
    #[prost(uint64, tag = "16")]
    changes_count: u64,
    #[prost(uint64, tag = "17")]
    suppressed: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ChangeMessage {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", optional, tag = "2")]
    before: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "3")]
    after: Option<Vec<u8>>,
}

/// An audit record is not valid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("audit record {number} is not valid: {problem}")]
pub struct AuditRecordError {
    /// Its number.
    pub number: u64,
    /// What is wrong.
    pub problem: String,
}

impl AuditRecord {
    fn new(actor: &Actor, operation: &Operation, origin: &Origin, at: (u64, Timestamp)) -> Self {
        Self {
            actor: actor.id().map(ToString::to_string).unwrap_or_default(),
            object: operation.object().map(ToString::to_string).unwrap_or_default(),
            ..Self::empty(operation.method(), origin, at)
        }
    }

    fn empty(method: &str, origin: &Origin, at: (u64, Timestamp)) -> Self {
        Self {
            revision: at.0,
            time: at.1,
            actor: String::new(),
            origin: origin.clone(),
            method: method.into(),
            object: String::new(),
            code: 0,
            reason: String::new(),
            text: String::new(),
            missing: vec![],
            scope: String::new(),
            changes: vec![],
            changes_count: 0,
            suppressed: 0,
        }
    }

    /// Of an operation that was made. Of many objects only the first are in it.
    #[must_use]
    pub fn of_change(
        actor: &Actor,
        operation: &Operation,
        origin: &Origin,
        at: (u64, Timestamp),
        objects: &[ObjectChange],
    ) -> Self {
        let mut record = Self::new(actor, operation, origin, at);
        record.put(objects);
        // The id that was made for it. What is made with it, such as the binding of an organization's owner, has another
        // kind.
        let is_made = |change: &&ObjectChange| {
            change.before.is_none() && Some(change.kind) == operation.creates()
        };
        if let Some(made) = objects.iter().find(is_made) {
            record.object = made.id.to_string();
        }
        record
    }

    /// Of the first content of a store, which no caller has made. Of many objects only the first are in it.
    #[must_use]
    pub fn of_bootstrap(
        method: &str,
        origin: &Origin,
        at: (u64, Timestamp),
        objects: &[ObjectChange],
    ) -> Self {
        let mut record = Self::empty(method, origin, at);
        record.put(objects);
        record
    }

    /// Of a restore, whose store has this first record of its own.
    #[must_use]
    pub fn of_restore(origin: &Origin, at: (u64, Timestamp), text: String) -> Self {
        Self { text: cut(text), ..Self::empty("restore", origin, at) }
    }

    /// Of an import or of another catalog, which the operator makes. The caller puts what was changed.
    #[must_use]
    pub fn of_whole(method: &str, origin: &Origin, at: (u64, Timestamp), object: &str) -> Self {
        Self { object: object.into(), ..Self::empty(method, origin, at) }
    }

    fn put(&mut self, objects: &[ObjectChange]) {
        let mut bytes = 0_usize;
        for change in objects {
            let change = AuditChange {
                key: record::key(change.kind, change.id.as_path()),
                before: change.before.as_ref().map(record::encode),
                after: change.after.as_ref().map(record::encode),
            };
            let length = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
            let more = change.key.len() + length(&change.before) + length(&change.after);
            bytes = bytes.saturating_add(more);
            if bytes > limits::AUDIT_CHANGES_BYTES_MAX {
                break;
            }
            self.changes.push(change);
        }
        if self.changes.len() < objects.len() {
            self.changes_count = objects.len() as u64;
        }
    }

    /// Of an attempt that was refused.
    #[must_use]
    pub fn of_refusal(
        actor: &Actor,
        operation: &Operation,
        origin: &Origin,
        at: (u64, Timestamp),
        refusal: &Refusal,
    ) -> Self {
        let (scope, missing) = refusal.missing();
        Self {
            code: refusal.real.code() as u32,
            reason: refusal.real.reason().unwrap_or_default().into(),
            text: cut(refusal.audit_text()),
            missing: missing.to_vec(),
            scope: scope.map(ToString::to_string).unwrap_or_default(),
            ..Self::new(actor, operation, origin, at)
        }
    }

    fn message(&self) -> RecordMessage {
        let changes = self.changes.iter().map(|change| {
            let AuditChange { key, before, after } = change.clone();
            ChangeMessage { key, before, after }
        });
        RecordMessage {
            revision: self.revision,
            seconds: self.time.seconds(),
            nanos: self.time.nanos(),
            actor: self.actor.clone(),
            authentication: self.origin.authentication.clone(),
            source: self.origin.source.clone(),
            request: self.origin.request.to_vec(),
            method: self.method.clone(),
            object: self.object.clone(),
            code: self.code,
            reason: self.reason.clone(),
            text: self.text.clone(),
            missing: self.missing.clone(),
            scope: self.scope.clone(),
            changes: changes.collect(),
            changes_count: self.changes_count,
            suppressed: self.suppressed,
        }
    }

    /// Reads the value of a record. Returns its digest, too, which is not checked here.
    ///
    /// # Errors
    ///
    /// The value is no digest and message.
    pub fn decode(number: u64, value: &[u8]) -> Result<(Self, Digest), AuditRecordError> {
        let error = |problem: String| AuditRecordError { number, problem };
        let (digest, message) =
            value.split_first_chunk().ok_or_else(|| error("it is too short".into()))?;
        let message =
            RecordMessage::decode(message).map_err(|problem| error(problem.to_string()))?;
        let request = message.request.try_into();
        let changes = message.changes.into_iter().map(|change| {
            let ChangeMessage { key, before, after } = change;
            AuditChange { key, before, after }
        });
        let record = Self {
            revision: message.revision,
            time: Timestamp::new(message.seconds, message.nanos),
            actor: message.actor,
            origin: Origin {
                authentication: message.authentication,
                source: message.source,
                request: request.map_err(|_| error("the digest of the request".into()))?,
            },
            method: message.method,
            object: message.object,
            code: message.code,
            reason: message.reason,
            text: message.text,
            missing: message.missing,
            scope: message.scope,
            changes: changes.collect(),
            changes_count: message.changes_count,
            suppressed: message.suppressed,
        };
        Ok((record, *digest))
    }

    /// Whether the record is about this organization: its object, what was missing or one of the changed objects lies
    /// there. A root object, such as a person, is an organization of its own here.
    #[must_use]
    pub fn is_about(&self, organization: &str) -> bool {
        let is_in = |path: &str| path.split('/').next() == Some(organization);
        let changed = self.changes.iter().filter_map(|change| record::parse_key(&change.key));
        is_in(&self.object)
            || is_in(&self.scope)
            || changed.into_iter().any(|(_, id): (_, PathBuf)| is_in(id.as_str()))
    }
}

/// A text of at most [`limits::AUDIT_TEXT_BYTES_MAX`] bytes.
fn cut(mut text: String) -> String {
    while text.len() > limits::AUDIT_TEXT_BYTES_MAX {
        text.pop();
    }
    text
}

// === Verification ===

/// What is wrong with the log.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BrokenChain {
    /// A record does not fit the one before it: it was changed, or another one was put in its place.
    #[error(
        "audit record {0} was changed: its digest does not fit the record and the one before it"
    )]
    Changed(u64),
    /// Records are not there.
    #[error("audit records {from} to {to} are missing")]
    Missing {
        /// The first that is missing.
        from: u64,
        /// The last that is missing.
        to: u64,
    },
    /// A record comes where another is expected.
    #[error("audit record {0} is in the wrong place, or there twice")]
    Misplaced(u64),
    /// The last record is another one than the head says.
    #[error("the audit log ends with record {last}, and its head says {head}")]
    OtherEnd {
        /// The last record that is there.
        last: u64,
        /// The last record by the head.
        head: u64,
    },
}

/// Verifies records in order.
#[derive(Clone, Debug)]
pub struct Verifier {
    /// The number of the next record, once it is known.
    next: Option<u64>,
    /// The digest of the record before it.
    digest: Digest,
    /// The first record, if the one before it is not known yet.
    unproved: Option<(u64, Vec<u8>)>,
}

impl Verifier {
    /// A verifier of the records that this head says there are.
    #[must_use]
    pub const fn new(head: &AuditHead) -> Self {
        Self { next: Some(head.first), digest: head.closing, unproved: None }
    }

    /// A verifier of records that are read before their head is, as in the order of their keys. It keeps the first one until
    /// the end.
    #[must_use]
    pub const fn before_head() -> Self {
        Self { next: None, digest: [0; 32], unproved: None }
    }

    /// Verifies the next record, by its number and value.
    ///
    /// # Errors
    ///
    /// It is not the next one, or does not fit the one before it.
    pub fn next(&mut self, number: u64, value: &[u8]) -> Result<(), BrokenChain> {
        let (stored, message) = value.split_first_chunk().ok_or(BrokenChain::Changed(number))?;
        match self.next {
            None => self.unproved = Some((number, value.to_vec())),
            Some(next) if number < next => return Err(BrokenChain::Misplaced(number)),
            Some(next) if number > next => {
                return Err(BrokenChain::Missing { from: next, to: number.saturating_sub(1) });
            }
            Some(_) if digest(&self.digest, number, message) != *stored => {
                return Err(BrokenChain::Changed(number));
            }
            Some(_) => {}
        }
        self.digest = *stored;
        self.next = Some(number.saturating_add(1));
        Ok(())
    }

    /// Whether the records are those that the head says.
    ///
    /// # Errors
    ///
    /// They are not.
    pub fn finish(self, head: &AuditHead) -> Result<(), BrokenChain> {
        let Some(next) = self.next else { return Self::new(head).finish(head) };
        if let Some((number, value)) = &self.unproved {
            Self::new(head).next(*number, value)?;
        }
        let (last, of_head) = (next.saturating_sub(1), head.next.saturating_sub(1));
        if last < of_head {
            return Err(BrokenChain::Missing { from: next, to: of_head });
        }
        if last > of_head || self.digest != head.digest {
            return Err(BrokenChain::OtherEnd { last, head: of_head });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
