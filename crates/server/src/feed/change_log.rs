//! The change log: what each revision changed, read from the audit log, which has it in the transaction of the change.
//!
//! ```text
//! audit log of a view ─▶ records of changes, in order ─▶ objects before and after
//! ```
//!
//! Records of refusals are passed over. Old records are not kept: whoever comes too late reads the state anew.

use std::ops::Bound;

use capstan_engine::PathBuf;
use capstan_iam::audit::{self, AuditChange, AuditHead, AuditRecord};
use capstan_iam::{Kind, Object, ObjectsError, record};
use capstan_store::{StoreError, View};

use crate::feed::management::Action;

/// An object before and after a change.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its path.
    pub(crate) id: PathBuf,
    /// `None` for one that is new.
    pub(crate) before: Option<Object>,
    /// `None` for one that is deleted.
    pub(crate) after: Option<Object>,
}

impl Changed {
    /// The objects of a record; `None` for what is no object, such as a catalog.
    pub(crate) fn decode(change: &AuditChange) -> Option<Self> {
        let (kind, id) = record::parse_key(&change.key)?;
        let of = |value: &Option<Vec<u8>>| record::decode(&change.key, value.as_ref()?).ok();
        Some(Self { kind, id, before: of(&change.before), after: of(&change.after) })
    }

    /// What happened to the object.
    pub(crate) const fn action(&self) -> Action {
        match (&self.before, &self.after) {
            (None, _) => Action::Created,
            (Some(_), None) => Action::Deleted,
            (Some(_), Some(_)) => Action::Updated,
        }
    }

    /// The object as it was before and as it is after.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &Object> {
        [&self.before, &self.after].into_iter().flatten()
    }

    /// The object as it is, or as it was.
    pub(crate) fn last(&self) -> Option<&Object> {
        self.after.as_ref().or(self.before.as_ref())
    }
}

/// What one revision changed.
#[derive(Clone, Debug)]
pub(crate) struct Revision {
    /// The number of its record.
    pub(crate) number: u64,
    /// The record, without its changes.
    pub(crate) record: AuditRecord,
    /// The objects that changed.
    pub(crate) changes: Vec<Changed>,
    /// Whether the record has only the first of them.
    pub(crate) is_cut: bool,
    /// Bytes of the whole record in the store.
    pub(crate) bytes: usize,
}

/// Where in the log the changes from a revision on begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// At the record with this number, or behind the last one.
    At(u64),
    /// They are not all kept.
    Compacted,
}

/// The head of the log.
///
/// # Errors
///
/// The store cannot be read.
pub(crate) fn head(view: &dyn View) -> Result<AuditHead, ObjectsError> {
    let value = view.get(audit::HEAD_KEY).map_err(unreadable)?;
    let head = value.map_or(Some(AuditHead::empty()), |value| AuditHead::decode(&value));
    head.ok_or_else(|| ObjectsError("the head of the audit log is not valid".into()))
}

/// Where the changes from this revision on begin.
///
/// # Errors
///
/// The store cannot be read.
pub(crate) fn start(view: &dyn View, revision: u64) -> Result<Start, ObjectsError> {
    let head = head(view)?;
    // Revisions of records never descend: a refusal has that of the change before it.
    let (mut low, mut high) = (head.first, head.next);
    while low < high {
        let middle = low + (high - low) / 2;
        if record_at(view, middle)?.revision < revision { low = middle + 1 } else { high = middle }
    }
    if head.first > 1 && low == head.first && low < head.next {
        let first = record_at(view, low)?;
        let is_its_change = first.code == 0 && first.revision == revision;
        if !is_its_change {
            return Ok(Start::Compacted);
        }
    }
    Ok(Start::At(low))
}

fn record_at(view: &dyn View, number: u64) -> Result<AuditRecord, ObjectsError> {
    let value = view.get(&audit::key(number)).map_err(unreadable)?;
    let missing = || ObjectsError(format!("audit record {number} is missing"));
    let decoded = AuditRecord::decode(number, &value.ok_or_else(missing)?);
    decoded.map(|(record, _)| record).map_err(|error| ObjectsError(error.to_string()))
}

/// Calls `each` with what revisions changed, from a record on, until it returns false. Returns the number of the record
/// behind the last one that was read.
///
/// # Errors
///
/// The store cannot be read. `each` may have seen revisions before it.
pub(crate) fn read(
    view: &dyn View,
    from: u64,
    each: &mut dyn FnMut(Revision) -> bool,
) -> Result<u64, ObjectsError> {
    let (first, end) = (audit::key(from), audit::key(u64::MAX));
    let (mut next, mut broken) = (from, None);
    let range = (Bound::Included(&*first), Bound::Included(&*end));
    let scanned = view.scan(range, &mut |key, value| {
        let Some(number) = audit::number(key) else { return true };
        match revision(number, value) {
            Ok(found) => {
                next = number.saturating_add(1);
                found.is_none_or(&mut *each)
            }
            Err(error) => {
                broken = Some(error);
                false
            }
        }
    });
    scanned.map_err(unreadable)?;
    broken.map_or(Ok(next), Err)
}

/// What a record changed; `None` for a refusal, and for a change of no object.
fn revision(number: u64, value: &[u8]) -> Result<Option<Revision>, ObjectsError> {
    let decoded = AuditRecord::decode(number, value);
    let (mut record, _) = decoded.map_err(|error| ObjectsError(error.to_string()))?;
    let changes = std::mem::take(&mut record.changes);
    if record.code != 0 || changes.is_empty() {
        return Ok(None);
    }
    let is_cut = record.changes_count > changes.len() as u64;
    let changes = changes.iter().filter_map(Changed::decode).collect();
    Ok(Some(Revision { number, record, changes, is_cut, bytes: value.len() }))
}

#[expect(clippy::needless_pass_by_value, reason = "an argument of map_err")]
fn unreadable(error: StoreError) -> ObjectsError {
    ObjectsError(error.to_string())
}
