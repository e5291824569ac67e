//! Quotas of organizations and of callers: objects, and changes a minute.
//!
//! **Invariant**: what counts is what is in the store. Counts of a group of writes are kept apart until its commit.

use std::collections::HashMap;

use capstan_engine::{PathBuf, Timestamp};
use capstan_iam::record::{self, prefix};
use capstan_iam::{Actor, Kind, ObjectChange};
use capstan_store::{Op, StoreError};

use super::overlay::Overlay;
use crate::error::StoreFailure;
use crate::feed::management::{Action, ChangedObject};
use crate::limits::Quotas as Limits;

/// Counts by the first segment of a path, or by the path of a caller.
type Counts = HashMap<Box<str>, i64>;

/// Changes in a minute.
#[derive(Debug, Default)]
struct Rate {
    minute: i64,
    changes: HashMap<Box<str>, u32>,
}

/// The counts of a store.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    /// Objects of an organization.
    organizations: Counts,
    /// Objects that a caller has made and that are still there.
    creators: Counts,
    rate: Rate,
}

/// Counts of a group that is not committed.
#[derive(Debug, Default)]
pub(super) struct Uncommitted {
    organizations: Counts,
    creators: Counts,
}

/// A change that the quotas allow.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    counts: Uncommitted,
    ops: Vec<Op>,
    /// Whether it counts for the minute of its organizations. The operator's do not.
    is_timed: bool,
}

/// The organization of an object; `None` if it is in none.
fn organization(kind: Kind, id: &str) -> Option<&str> {
    match id.split_once('/') {
        Some((organization, _)) => Some(organization),
        None => matches!(kind, Kind::Group | Kind::AccountAssociation).then_some(id),
    }
}

/// The key that says who made an object.
fn creator_key(kind: Kind, id: &PathBuf) -> Vec<u8> {
    [&[prefix::CREATOR][..], &record::key(kind, id.as_path())].concat()
}

impl Quotas {
    /// Counts an object that is loaded.
    pub(super) fn loaded(&mut self, kind: Kind, id: &str) {
        if let Some(organization) = organization(kind, id) {
            count(&mut self.organizations, organization, 1);
        }
    }

    /// Counts an object that a caller has made, when the store is loaded.
    pub(super) fn loaded_creator(&mut self, caller: &str) {
        count(&mut self.creators, caller, 1);
    }

    /// Counts a change that a caller asks for. The operator's are not counted.
    ///
    /// # Errors
    ///
    /// The caller has asked for its share of this minute.
    pub(super) fn ask(
        &mut self,
        (actor, now): (&Actor, Timestamp),
        limits: &Limits,
    ) -> Result<(), StoreFailure> {
        let Some(caller) = actor.id() else { return Ok(()) };
        self.rate.check([caller.as_str()], limits.creator_changes, now)?;
        self.rate.count(caller.as_str());
        Ok(())
    }

    /// Judges a change by the quotas.
    ///
    /// # Errors
    ///
    /// A quota is used up, or the store cannot be read.
    pub(super) fn judge(
        &mut self,
        group: &Uncommitted,
        (actor, now): (&Actor, Timestamp),
        objects: &[ObjectChange],
        (state, limits): (&Overlay, &Limits),
    ) -> Result<Result<Admitted, StoreFailure>, StoreError> {
        let caller = actor.id().map(capstan_engine::PathBuf::as_str);
        let mut admitted = Admitted::default();
        let Admitted { counts: Uncommitted { organizations, creators }, ops, is_timed } =
            &mut admitted;
        *is_timed = caller.is_some();
        for change in objects {
            let key = creator_key(change.kind, &change.id);
            let more = match (&change.before, &change.after) {
                (None, Some(_)) => {
                    if let Some(caller) = caller {
                        count(creators, caller, 1);
                        let value = caller.to_owned().into();
                        ops.push(Op::Put { key: key.into(), value });
                    }
                    1
                }
                (Some(_), None) => {
                    if let Some(creator) = state.value(&key)? {
                        count(creators, &String::from_utf8_lossy(&creator), -1);
                        ops.push(Op::Delete { key: key.into() });
                    }
                    -1
                }
                _ => 0,
            };
            if let Some(organization) = organization(change.kind, change.id.as_str()) {
                count(organizations, organization, more);
            }
        }
        let over = |what: &str, id: &str, most: u64| {
            let more = "delete some, or ask the operator for a larger one";
            Err(StoreFailure::Quota(format!("{what} `{id}` has {most} objects, its quota: {more}")))
        };
        for (id, more) in organizations.iter().filter(|(_, more)| **more > 0) {
            let has = got(&self.organizations, id) + got(&group.organizations, id);
            if exceeds(has + more, limits.organization_objects) {
                return Ok(over("organization", id, limits.organization_objects));
            }
        }
        for (id, more) in creators.iter().filter(|(_, more)| **more > 0) {
            let has = got(&self.creators, id) + got(&group.creators, id);
            if exceeds(has + more, limits.creator_objects) {
                return Ok(over("caller", id, limits.creator_objects));
            }
        }
        if caller.is_some() {
            let ids = organizations.keys().map(|id| &**id);
            if let Err(failure) = self.rate.check(ids, limits.organization_changes, now) {
                return Ok(Err(failure));
            }
        }
        Ok(Ok(admitted))
    }

    /// Counts a change that was judged and is made. Returns operations that keep who has made the new objects; the
    /// operator's are nobody's.
    pub(super) fn count(&mut self, group: &mut Uncommitted, admitted: Admitted) -> Vec<Op> {
        let Admitted { counts: Uncommitted { organizations, creators }, ops, is_timed } = admitted;
        if is_timed {
            organizations.keys().for_each(|id| self.rate.count(id));
        }
        add(&mut group.organizations, organizations);
        add(&mut group.creators, creators);
        ops
    }

    /// Counts what an import creates and deletes. It is the operator's, who has no quota there. Returns operations that
    /// forget who has made what is deleted.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub(super) fn import(
        changes: &[ChangedObject],
        state: &Overlay,
    ) -> Result<(Uncommitted, Vec<Op>), StoreError> {
        let (mut counts, mut ops) = (Uncommitted::default(), vec![]);
        for change in changes {
            let more = match change.action {
                Action::Created => 1,
                Action::Updated => 0,
                Action::Deleted => {
                    let key = creator_key(change.kind, &change.id);
                    if let Some(creator) = state.value(&key)? {
                        count(&mut counts.creators, &String::from_utf8_lossy(&creator), -1);
                        ops.push(Op::Delete { key: key.into() });
                    }
                    -1
                }
            };
            if let Some(organization) = organization(change.kind, change.id.as_str()) {
                count(&mut counts.organizations, organization, more);
            }
        }
        Ok((counts, ops))
    }

    /// Takes over the counts of a group that is committed.
    pub(super) fn commit(&mut self, group: Uncommitted) {
        add(&mut self.organizations, group.organizations);
        add(&mut self.creators, group.creators);
    }
}

impl Rate {
    /// Whether all of these have a share of this minute left.
    fn check<'n>(
        &mut self,
        names: impl IntoIterator<Item = &'n str>,
        most: u32,
        now: Timestamp,
    ) -> Result<(), StoreFailure> {
        let minute = now.seconds().div_euclid(60);
        if self.minute != minute {
            (self.minute, self.changes) = (minute, HashMap::new());
        }
        let made = |name: &str| self.changes.get(name).copied().unwrap_or(0);
        match names.into_iter().find(|name| made(name) >= most) {
            None => Ok(()),
            Some(name) => Err(StoreFailure::Quota(format!(
                "`{name}` has had {most} changes in this minute, its quota: wait for the next one"
            ))),
        }
    }

    fn count(&mut self, name: &str) {
        let made = self.changes.entry(name.into()).or_default();
        *made = made.saturating_add(1);
    }
}

fn got(counts: &Counts, id: &str) -> i64 {
    counts.get(id).copied().unwrap_or(0)
}

fn exceeds(count: i64, most: u64) -> bool {
    u64::try_from(count).is_ok_and(|count| count > most)
}

fn count(counts: &mut Counts, id: &str, more: i64) {
    let count = match counts.get_mut(id) {
        Some(count) => count,
        None => counts.entry(id.into()).or_default(),
    };
    *count = count.saturating_add(more);
}

fn add(counts: &mut Counts, more: Counts) {
    for (id, more) in more {
        count(counts, &id, more);
        if got(counts, &id) == 0 {
            counts.remove(&id);
        }
    }
}
