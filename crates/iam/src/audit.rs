//! Audit records, and the chain of digests that proves that none was changed, removed or reordered.
//!
//! ```text
//! digest 0 = zeros        digest n = SHA-256(digest n-1, bytes of record n)        numbers have no gaps
//!
//! start of what is kept ─▶ record 18 ─▶ record 19 ─▶ … ─▶ end
//!   (number 17, digest)                                  (number, digest)
//! ```
//!
//! Start and end are records of their own. A record is made for every mutation, in its transaction, and for every
//! refusal. No record holds a secret.

use std::fmt;

use capstan_engine::{PathBuf, Timestamp};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::record::{AUDIT_KEY, META_KEY};
use crate::record::{Audit, AuditChange, Link, StoredAudit, decode, read_time, time, write};
use crate::{Actor, Cause, Code, Object, ObjectChange, Outcome, RecordError, Refusal};

/// SHA-256.
pub type AuditDigest = [u8; 32];

/// One mutation, or one that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its place in the chain, from 1. Given by [`Chain::append`].
    pub number: u64,
    /// The revision that it made; of a refusal, the one that it was judged on.
    pub revision: u64,
    /// When.
    pub time: Timestamp,
    /// The identity that asked; `None` for the operator.
    pub actor: Option<PathBuf>,
    /// How the actor proved who it is: a word.
    pub authentication: String,
    /// Which credential it used: an id, never a secret. Empty if there is none.
    pub credential: String,
    /// Where the call came from. Empty if it is not known.
    pub source: String,
    /// Service and method.
    pub method: String,
    /// The path that the operation names. Empty if there is none.
    pub object: String,
    /// SHA-256 of the request.
    pub request_digest: Vec<u8>,
    /// The status code that the caller was told; 0 for a mutation that was made.
    pub code: i32,
    /// What it really was: a reason of the contract. Empty if there is none.
    pub reason: String,
    /// The number of the rule that refused. Empty if there is none.
    pub rule: String,
    /// Where something was missing. Empty if nothing was.
    pub scope: String,
    /// The capabilities that were missing, sorted.
    pub missing: Vec<String>,
    /// The refusal in words, whole. Empty for a mutation that was made.
    pub message: String,
    /// What changed, cascades included.
    pub changes: Vec<ObjectChange>,
}

/// Who asked for what, how and when: what a record has before the outcome is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When.
    pub time: Timestamp,
    /// Who.
    pub actor: Actor,
    /// How the actor proved who it is: a word.
    pub authentication: String,
    /// Which credential it used: an id, never a secret.
    pub credential: String,
    /// Where the call came from.
    pub source: String,
    /// Service and method.
    pub method: String,
    /// The path that the operation names.
    pub object: String,
    /// SHA-256 of the request.
    pub request_digest: Vec<u8>,
}

impl Attempt {
    /// The record of an attempt that was made at a revision.
    #[must_use]
    pub fn done(self, revision: u64, outcome: &Outcome) -> AuditRecord {
        AuditRecord { changes: outcome.objects.clone(), ..self.record(revision) }
    }

    /// The record of an attempt that was refused on the state of a revision.
    #[must_use]
    pub fn refused(self, revision: u64, refusal: &Refusal) -> AuditRecord {
        let (scope, missing) = match &refusal.real {
            Cause::MissingCapability { scope, missing } => (scope.as_str(), missing.clone()),
            Cause::DurationExceeded { scope, .. } => (scope.as_str(), vec![]),
            Cause::OperatorOnly { scope, absent } => {
                (scope.as_ref().map_or("", |scope| scope.as_str()), absent.clone())
            }
            _ => ("", vec![]),
        };
        let code: Code = refusal.told.code();
        AuditRecord {
            code: code as i32,
            reason: refusal.real.reason().unwrap_or_default().to_owned(),
            rule: refusal.rule.map(|rule| rule.number().to_owned()).unwrap_or_default(),
            scope: scope.to_owned(),
            missing,
            message: refusal.audit_text(),
            ..self.record(revision)
        }
    }

    fn record(self, revision: u64) -> AuditRecord {
        AuditRecord {
            number: 0,
            revision,
            time: self.time,
            actor: self.actor.id().cloned(),
            authentication: self.authentication,
            credential: self.credential,
            source: self.source,
            method: self.method,
            object: self.object,
            request_digest: self.request_digest,
            code: 0,
            reason: String::new(),
            rule: String::new(),
            scope: String::new(),
            missing: vec![],
            message: String::new(),
            changes: vec![],
        }
    }
}

/// The key of a record. Keys are in the order of numbers.
#[must_use]
pub fn audit_key(number: u64) -> Vec<u8> {
    let mut key = vec![AUDIT_KEY];
    key.extend(number.to_be_bytes());
    key
}

/// The number of a record's key; `None` if it is not one.
#[must_use]
pub fn audit_number(key: &[u8]) -> Option<u64> {
    match key {
        [AUDIT_KEY, number @ ..] => number.try_into().ok().map(u64::from_be_bytes),
        _ => None,
    }
}

/// The key of the record of where the kept part of the chain starts: the last record that was pruned.
#[must_use]
pub fn audit_start_key() -> Vec<u8> {
    [&[META_KEY], &b"audit_start"[..]].concat()
}

/// The key of the record of where the chain ends.
#[must_use]
pub fn audit_end_key() -> Vec<u8> {
    [&[META_KEY], &b"audit_end"[..]].concat()
}

/// An end of a chain: the number and the digest of the record before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The number of the last record; 0 before the first.
    pub number: u64,
    /// Its digest.
    pub digest: AuditDigest,
}

impl Chain {
    /// Before the first record.
    pub const EMPTY: Self = Self { number: 0, digest: [0; 32] };

    /// Numbers a record, and chains it. Returns the key and the value that the store keeps.
    pub fn append(&mut self, record: &mut AuditRecord) -> (Vec<u8>, Vec<u8>) {
        record.number = self.number.saturating_add(1);
        let bytes = Audit::from(&*record).encode_to_vec();
        *self = self.then(&bytes);
        let stored = StoredAudit { record: bytes, digest: self.digest.to_vec() };
        (audit_key(self.number), stored.encode_to_vec())
    }

    fn then(self, record: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.digest);
        hash.update(record);
        Self { number: self.number.saturating_add(1), digest: hash.finalize().into() }
    }

    /// The end of the chain behind a stored record: where it starts if the record and all before it are pruned.
    ///
    /// # Errors
    ///
    /// The record cannot be read.
    pub fn behind(key: &[u8], value: &[u8]) -> Result<Self, RecordError> {
        let number = audit_number(key);
        let number =
            number.ok_or_else(|| RecordError::new(key, "not the key of an audit record"))?;
        let stored =
            StoredAudit::decode(value).map_err(|error| RecordError::new(key, error.to_string()))?;
        Ok(Self { number, digest: digest(key, &stored.digest)? })
    }

    /// The bytes that the store keeps of a start or an end.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Link { number: self.number, digest: self.digest.to_vec() }.encode_to_vec()
    }

    /// Reads what [`Self::encode`] has written.
    ///
    /// # Errors
    ///
    /// The bytes are no start or end of a chain.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, RecordError> {
        let link = Link::decode(value).map_err(|error| RecordError::new(key, error.to_string()))?;
        Ok(Self { number: link.number, digest: digest(key, &link.digest)? })
    }
}

fn digest(key: &[u8], bytes: &[u8]) -> Result<AuditDigest, RecordError> {
    bytes.try_into().map_err(|_| RecordError::new(key, "the digest has another length"))
}

/// Reads a stored record and its digest.
///
/// # Errors
///
/// The key or the value is not one of an audit record.
pub fn decode_audit(key: &[u8], value: &[u8]) -> Result<(AuditRecord, AuditDigest), RecordError> {
    let error = |problem: String| RecordError::new(key, problem);
    let stored = StoredAudit::decode(value).map_err(|it| error(it.to_string()))?;
    let digest = digest(key, &stored.digest)?;
    let audit = Audit::decode(&*stored.record).map_err(|it| error(it.to_string()))?;
    let change = |change: AuditChange| {
        let key = change.key;
        let object = |value: Option<Vec<u8>>| value.map(|value| decode(&key, &value)).transpose();
        let (before, after) = (object(change.before)?, object(change.after)?);
        let known = after.as_ref().or(before.as_ref());
        let known = known.ok_or_else(|| error("a change of nothing".to_owned()))?;
        Ok(ObjectChange { kind: known.kind(), id: known.id().clone(), before, after })
    };
    let time = read_time(audit.time.as_ref()).ok_or_else(|| error("no time".to_owned()))?;
    let actor = Some(audit.actor).filter(|actor| !actor.is_empty());
    let actor = actor.map(|actor| actor.parse()).transpose();
    let record = AuditRecord {
        number: audit.number,
        revision: audit.revision,
        time,
        actor: actor.map_err(|problem| error(format!("actor: {problem}")))?,
        authentication: audit.authentication,
        credential: audit.credential,
        source: audit.source,
        method: audit.method,
        object: audit.object,
        request_digest: audit.request_digest,
        code: audit.code,
        reason: audit.reason,
        rule: audit.rule,
        scope: audit.scope,
        missing: audit.missing,
        message: audit.message,
        changes: audit.changes.into_iter().map(change).collect::<Result<_, RecordError>>()?,
    };
    Ok((record, digest))
}

impl From<&AuditRecord> for Audit {
    fn from(record: &AuditRecord) -> Self {
        let change = |change: &ObjectChange| {
            let bytes = |object: &Option<Object>| object.as_ref().map(crate::record::encode);
            let (key, after) = write(change);
            AuditChange { key, before: bytes(&change.before), after }
        };
        Self {
            number: record.number,
            revision: record.revision,
            time: Some(time(record.time)),
            actor: record.actor.as_ref().map_or("", |id| id.as_str()).to_owned(),
            authentication: record.authentication.clone(),
            credential: record.credential.clone(),
            source: record.source.clone(),
            method: record.method.clone(),
            object: record.object.clone(),
            request_digest: record.request_digest.clone(),
            code: record.code,
            reason: record.reason.clone(),
            rule: record.rule.clone(),
            scope: record.scope.clone(),
            missing: record.missing.clone(),
            message: record.message.clone(),
            changes: record.changes.iter().map(change).collect(),
        }
    }
}

// === Verification ===

/// Most findings that a verification names.
pub const FINDINGS_MAX: usize = 100;

/// Something that is wrong with a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Records are not there.
    Missing {
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
    },
    /// A record does not match its digest.
    Changed {
        /// Its number.
        number: u64,
    },
    /// A record stands in the place of another.
    Moved {
        /// The place.
        number: u64,
        /// The number that the record has.
        says: u64,
    },
    /// A record cannot be read.
    Unreadable {
        /// Its number.
        number: u64,
    },
    /// A record is there that the chain does not have: twice, before its start or behind its end.
    Added {
        /// Its number.
        number: u64,
    },
    /// The end is not that of the last record, though the number is.
    End {
        /// The number.
        number: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { first, last } if first == last => {
                write!(f, "record {first} was removed")
            }
            Self::Missing { first, last } => write!(f, "records {first} to {last} were removed"),
            Self::Changed { number } => write!(
                f,
                "record {number} was changed, or the digest of the one before it: it does not continue the chain"
            ),
            Self::Moved { number, says } => {
                write!(f, "record {says} was put in the place of record {number}")
            }
            Self::Unreadable { number } => write!(f, "record {number} cannot be read"),
            Self::Added { number } => write!(f, "record {number} was added"),
            Self::End { number } => {
                write!(f, "the end of the chain is not that of record {number}, the last one")
            }
        }
    }
}

/// What a verification has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The number of records that were read.
    pub records: u64,
    /// What is wrong, the first [`FINDINGS_MAX`]. Empty if everything is right.
    pub findings: Vec<Finding>,
}

/// Checks stored records, in the order of their keys, from `start` to `end`.
pub fn verify<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    start: Chain,
    records: impl IntoIterator<Item = (K, V)>,
    end: Chain,
) -> Verified {
    let verified = Verified { records: 0, findings: vec![] };
    let mut verifier =
        Verifier { last: start.number, digest: Some(start.digest), end: end.number, verified };
    for (key, value) in records {
        verifier.next(audit_number(key.as_ref()).unwrap_or(0), value.as_ref());
    }
    if verifier.last < end.number {
        verifier.find(Finding::Missing { first: verifier.last + 1, last: end.number });
    } else if verifier.digest.is_some_and(|digest| digest != end.digest) {
        verifier.find(Finding::End { number: end.number });
    }
    verifier.verified
}

struct Verifier {
    last: u64,
    /// The digest of the last record, as it is stored. `None` if it cannot be read.
    digest: Option<AuditDigest>,
    end: u64,
    verified: Verified,
}

impl Verifier {
    fn find(&mut self, finding: Finding) {
        if self.verified.findings.len() < FINDINGS_MAX {
            self.verified.findings.push(finding);
        }
    }

    fn next(&mut self, number: u64, value: &[u8]) {
        self.verified.records += 1;
        if number <= self.last || number > self.end {
            return self.find(Finding::Added { number });
        }
        if number > self.last + 1 {
            self.find(Finding::Missing { first: self.last + 1, last: number - 1 });
            self.digest = None; // there is none to compare with
        }
        let before = self.digest.map(|digest| Chain { number: self.last, digest });
        let stored = StoredAudit::decode(value).ok();
        self.last = number;
        self.digest = stored.as_ref().and_then(|stored| (*stored.digest).try_into().ok());
        let record = stored.filter(|_| self.digest.is_some()).map(|stored| stored.record);
        let audit = record.as_ref().and_then(|record| Audit::decode(&**record).ok());
        let (Some(record), Some(audit)) = (record, audit) else {
            return self.find(Finding::Unreadable { number });
        };
        if audit.number != number {
            self.find(Finding::Moved { number, says: audit.number });
        } else if before.is_some_and(|before| Some(before.then(&record).digest) != self.digest) {
            self.find(Finding::Changed { number });
        }
    }
}
