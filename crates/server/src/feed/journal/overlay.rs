//! The objects of a revision: those of the store's view, with the changes that are not committed yet.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use capstan_engine::{Path, PathBuf, Timestamp};
use capstan_iam::record::{self, KeyRange, prefix};
use capstan_iam::{InviteCode, Kind, Object, Objects, ObjectsError, Reference, SecretHash};
use capstan_store::{Op, StoreError, View};

use crate::feed::management::StoredObjects;

/// Values by key; `None` for a key that is removed.
type Changed = BTreeMap<Bytes, Option<Bytes>>;

/// A state of the store that is being written.
#[derive(Debug)]
pub(crate) struct Overlay {
    view: Arc<dyn View>,
    changed: Changed,
}

impl Overlay {
    /// The state of a view.
    pub(crate) fn new(view: Arc<dyn View>) -> Self {
        Self { view, changed: Changed::new() }
    }

    /// Makes the operations of a transaction.
    pub(crate) fn apply(&mut self, ops: &[Op]) {
        for op in ops {
            match op {
                Op::Put { key, value } => self.changed.insert(key.clone(), Some(value.clone())),
                Op::Delete { key } => self.changed.insert(key.clone(), None),
            };
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub(crate) fn value(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.changed.get(key) {
            Some(changed) => Ok(changed.clone()),
            None => self.view.get(key),
        }
    }

    /// Calls `each` with the entries of a range, in ascending order, until it returns false.
    ///
    /// # Errors
    ///
    /// The store cannot be read. `each` may have seen entries before it.
    pub(crate) fn scan(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let mut changed = self.changed.range::<[u8], _>(range).peekable();
        let mut goes_on = true;
        self.view.scan(range, &mut |key, value| {
            // What was changed before this key.
            while goes_on
                && let Some((other, value)) = changed.next_if(|(other, _)| other.as_ref() < key)
            {
                goes_on = value.as_ref().is_none_or(|value| each(other, value));
            }
            if goes_on {
                goes_on = match changed.next_if(|(other, _)| other.as_ref() == key) {
                    Some((_, Some(value))) => each(key, value),
                    Some((_, None)) => true,
                    None => each(key, value),
                };
            }
            goes_on
        })?;
        for (key, value) in changed {
            let Some(value) = value.as_ref().filter(|_| goes_on) else { continue };
            goes_on = each(key, value);
        }
        Ok(())
    }
}

impl Objects for Overlay {
    fn get(&self, kind: Kind, id: Path<'_>) -> Result<Option<Object>, ObjectsError> {
        let key = record::key(kind, id);
        decoded(&key, self.value(&key))
    }

    fn below(
        &self,
        kind: Kind,
        at: Option<Path<'_>>,
        each: &mut dyn FnMut(Object) -> bool,
    ) -> Result<(), ObjectsError> {
        let scan: Scan<'_> = &|range, each| self.scan(range, each);
        below(&|key| self.value(key), scan, (kind, at), each)
    }

    fn invite(&self, code: &SecretHash) -> Result<Option<InviteCode>, ObjectsError> {
        invite(self.value(&InviteCode::key(code)))
    }

    fn is_promised(&self, role: &str) -> Result<bool, ObjectsError> {
        is_promised(&|range, each| self.scan(range, each), role)
    }

    fn referring(
        &self,
        to: &Reference<'_>,
        each: &mut dyn FnMut(Kind, PathBuf) -> bool,
    ) -> Result<(), ObjectsError> {
        referring(&|range, each| self.scan(range, each), to, each)
    }
}

// === The objects of a view ===

/// The objects of a view that is served.
#[derive(Debug)]
pub(crate) struct ViewedObjects(pub(crate) Arc<dyn View>);

impl Objects for ViewedObjects {
    fn get(&self, kind: Kind, id: Path<'_>) -> Result<Option<Object>, ObjectsError> {
        let key = record::key(kind, id);
        decoded(&key, self.0.get(&key))
    }

    fn below(
        &self,
        kind: Kind,
        at: Option<Path<'_>>,
        each: &mut dyn FnMut(Object) -> bool,
    ) -> Result<(), ObjectsError> {
        let scan: Scan<'_> = &|range, each| self.0.scan(range, each);
        below(&|key| self.0.get(key), scan, (kind, at), each)
    }

    fn invite(&self, code: &SecretHash) -> Result<Option<InviteCode>, ObjectsError> {
        invite(self.0.get(&InviteCode::key(code)))
    }

    fn is_promised(&self, role: &str) -> Result<bool, ObjectsError> {
        is_promised(&|range, each| self.0.scan(range, each), role)
    }

    fn referring(
        &self,
        to: &Reference<'_>,
        each: &mut dyn FnMut(Kind, PathBuf) -> bool,
    ) -> Result<(), ObjectsError> {
        referring(&|range, each| self.0.scan(range, each), to, each)
    }
}

impl StoredObjects for ViewedObjects {
    fn scan(
        &self,
        kind: Kind,
        prefix: &str,
        after: Option<&str>,
        each: &mut dyn FnMut(Object) -> bool,
    ) -> Result<(), ObjectsError> {
        let range = KeyRange::starting(kind, prefix);
        let range = match after {
            Some(after) => range.after(kind, after),
            None => range,
        };
        let scan: Scan<'_> = &|range, each| self.0.scan(range, each);
        scan_objects(scan, &range, each).map(|_| ())
    }

    fn last_seen(&self, identity: &str) -> Result<Option<Timestamp>, ObjectsError> {
        let value = self.0.get(&last_seen_key(identity)).map_err(|error| unreadable(&error))?;
        let seconds = value.and_then(|value| Some(i64::from_be_bytes(*value.first_chunk()?)));
        Ok(seconds.map(|seconds| Timestamp::new(seconds, 0)))
    }
}

/// A time as it is kept of a caller that was seen then: the start of its hour, in seconds since 1970.
pub(super) fn last_seen_hour(now: Timestamp) -> i64 {
    let seconds = now.seconds();
    seconds.saturating_sub(seconds.rem_euclid(3_600))
}

/// The key of the time when an identity was last seen.
pub(super) fn last_seen_key(identity: &str) -> Vec<u8> {
    [&[prefix::LAST_SEEN], identity.as_bytes()].concat()
}

type EachEntry<'e> = &'e mut dyn FnMut(&[u8], &[u8]) -> bool;
type Get<'g> = &'g dyn Fn(&[u8]) -> Result<Option<Bytes>, StoreError>;
type Scan<'s> = &'s dyn Fn((Bound<&[u8]>, Bound<&[u8]>), EachEntry<'_>) -> Result<(), StoreError>;

/// The object at a path, and those below it, in the order of their paths.
fn below(
    value: Get<'_>,
    scan: Scan<'_>,
    (kind, at): (Kind, Option<Path<'_>>),
    each: &mut dyn FnMut(Object) -> bool,
) -> Result<(), ObjectsError> {
    let range = match at {
        None => KeyRange::all(kind),
        Some(at) => {
            let key = record::key(kind, at);
            if let Some(object) = decoded(&key, value(&key))?
                && !each(object)
            {
                return Ok(());
            }
            KeyRange::below(kind, at)
        }
    };
    scan_objects(scan, &range, each)
}

fn scan_objects(
    scan: Scan<'_>,
    range: &KeyRange,
    each: &mut dyn FnMut(Object) -> bool,
) -> Result<(), ObjectsError> {
    let mut broken = None;
    let scanned = scan(range.bounds(), &mut |key, value| match record::decode(key, value) {
        Ok(object) => each(object),
        Err(error) => {
            broken = Some(ObjectsError(error.to_string()));
            false
        }
    });
    scanned.map_err(|error| unreadable(&error))?;
    broken.map_or(Ok(()), Err)
}

fn decoded(
    key: &[u8],
    value: Result<Option<Bytes>, StoreError>,
) -> Result<Option<Object>, ObjectsError> {
    let value = value.map_err(|error| unreadable(&error))?;
    let object = value.map(|value| record::decode(key, &value)).transpose();
    object.map_err(|error| ObjectsError(error.to_string()))
}

fn invite(value: Result<Option<Bytes>, StoreError>) -> Result<Option<InviteCode>, ObjectsError> {
    let Some(value) = value.map_err(|error| unreadable(&error))? else { return Ok(None) };
    let invalid = || ObjectsError("the record of an invite's code is not valid".into());
    InviteCode::decode(&value).map(Some).ok_or_else(invalid)
}

fn is_promised(scan: Scan<'_>, role: &str) -> Result<bool, ObjectsError> {
    let (range, mut found) = (record::promises_of(role), false);
    let scanned = scan(range.bounds(), &mut |_, _| {
        found = true;
        false
    });
    scanned.map_err(|error| unreadable(&error))?;
    Ok(found)
}

fn referring(
    scan: Scan<'_>,
    to: &Reference<'_>,
    each: &mut dyn FnMut(Kind, PathBuf) -> bool,
) -> Result<(), ObjectsError> {
    let (range, mut broken) = (record::references_to(to), None);
    let scanned = scan(range.bounds(), &mut |key, _| match record::referring_object(to, key) {
        Some((kind, id)) => each(kind, id),
        None => {
            let text = format!("the record `{}` is no reference", key.escape_ascii());
            broken = Some(ObjectsError(text));
            false
        }
    });
    scanned.map_err(|error| unreadable(&error))?;
    broken.map_or(Ok(()), Err)
}

fn unreadable(error: &StoreError) -> ObjectsError {
    ObjectsError(error.to_string())
}

#[cfg(test)]
mod tests;
