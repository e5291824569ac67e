//! Which deliveries have to look at the change log: those of the organizations that a record concerns.
//!
//! ```text
//! record ─▶ organizations of its objects ─▶ the number of the record ─▶ their deliveries wake
//!              └─ of none, or not known: all
//! ```
//!
//! **Invariants**: once [`Wake::looked`] is a number, every record before it has been told to whom it concerns. So a
//! delivery that was not woken may pass over what is before that number.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use capstan_engine::Path;
use tokio::sync::watch;

use super::compose::group_of;
use crate::feed::change_log::{Changed, Revision};

/// Wakes deliveries.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    /// The number of the last record that concerns each organization that has a delivery; 0 if none was told yet.
    organizations: HashMap<Box<str>, watch::Sender<u64>>,
    looked: Arc<AtomicU64>,
}

/// What wakes a delivery.
#[derive(Clone, Debug)]
pub(super) struct Wake {
    last: watch::Receiver<u64>,
    looked: Arc<AtomicU64>,
}

/// The organization that a path is in.
pub(super) fn organization_of(path: Path<'_>) -> &str {
    path.as_str().split('/').next().unwrap_or_default()
}

/// Whether a revision concerns an organization.
pub(super) fn concerns(revision: &Revision, organization: &str) -> bool {
    concerned(revision).is_none_or(|concerned| concerned.contains(&organization))
}

/// The organizations that a revision concerns; `None` for all.
fn concerned(revision: &Revision) -> Option<Vec<&str>> {
    if revision.is_cut || revision.changes.is_empty() {
        return None;
    }
    let group = |change| Changed::last(change).and_then(group_of);
    let mut found = vec![];
    for change in &revision.changes {
        // A root identity is in no organization, and may have made any subscription.
        let organization = organization_of(group(change)?);
        if found.last() != Some(&organization) {
            found.push(organization);
        }
    }
    Some(found)
}

impl Wakes {
    /// Of a delivery in this organization.
    pub(super) fn wake(&mut self, organization: &str) -> Wake {
        let sender = self.organizations.entry(organization.into()).or_default();
        Wake { last: sender.subscribe(), looked: Arc::clone(&self.looked) }
    }

    /// Tells those whom a revision concerns.
    pub(super) fn tell(&self, revision: &Revision) {
        match concerned(revision) {
            None => self.tell_all(revision.number),
            Some(organizations) => {
                for organization in organizations {
                    if let Some(sender) = self.organizations.get(organization) {
                        sender.send_replace(revision.number);
                    }
                }
            }
        }
    }

    /// Tells all, of any record up to this one.
    pub(super) fn tell_all(&self, number: u64) {
        for sender in self.organizations.values() {
            sender.send_replace(number);
        }
    }

    /// All before this record was told.
    pub(super) fn looked(&self, next: u64) {
        self.looked.store(next, Ordering::Release);
    }

    /// Forgets organizations without a delivery.
    pub(super) fn forget_unused(&mut self) {
        self.organizations.retain(|_, sender| sender.receiver_count() > 0);
    }
}

impl Wake {
    /// Waits for a record from this one on that concerns the organization.
    pub(super) async fn wait(&mut self, next: u64) {
        if self.last.wait_for(|last| *last >= next).await.is_err() {
            // The dispatcher is gone, and with it the runtime.
            std::future::pending().await
        }
    }

    /// The record up to which nothing from `next` on concerns the organization.
    pub(super) fn passed_over(&self, next: u64) -> u64 {
        let looked = self.looked.load(Ordering::Acquire);
        if *self.last.borrow() < next { looked.max(next) } else { next }
    }
}

/// A revision that made these groups.
#[cfg(test)]
pub(super) fn revision_of(number: u64, groups: &[&str]) -> Revision {
    use capstan_engine::{PathBuf, Timestamp};
    use capstan_iam::audit::{AuditRecord, Origin};
    use capstan_iam::{Group, Kind, Meta, Object};

    let group = |id: &&str| {
        let id: PathBuf = id.parse().unwrap();
        let meta = Meta::new(number, Timestamp::UNIX_EPOCH);
        let (name, description) = (String::new(), String::new());
        let group = Object::Group(Group { id: id.clone(), name, description, meta });
        Changed { kind: Kind::Group, id, before: None, after: Some(group) }
    };
    let changes = groups.iter().map(group).collect();
    let (authentication, source) = (String::new(), String::new());
    let origin = Origin { authentication, source, request: [0; 32] };
    let record = AuditRecord::of_whole("", &origin, (number, Timestamp::UNIX_EPOCH), "");
    Revision { number, record, changes, is_cut: false, bytes: 1 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn wakes(wake: &mut Wake, next: u64) -> bool {
        timeout(Duration::ZERO, wake.wait(next)).await.is_ok()
    }

    #[tokio::test]
    async fn a_record_wakes_those_whom_it_concerns() {
        let mut all = Wakes::default();
        let (mut acme, mut other) = (all.wake("acme"), all.wake("other"));
        all.tell(&revision_of(7, &["acme/web", "acme", "nobody"]));
        all.looked(8);
        assert!(wakes(&mut acme, 7).await);
        assert!(!wakes(&mut acme, 8).await);
        assert!(!wakes(&mut other, 7).await);
        assert_eq!((acme.passed_over(7), acme.passed_over(8)), (7, 8));
        assert_eq!(other.passed_over(3), 8);
        // One that is further than the dispatcher does not go back.
        assert_eq!(other.passed_over(12), 12);
    }

    #[tokio::test]
    async fn what_concerns_no_organization_wakes_all() {
        let mut all = Wakes::default();
        let mut acme = all.wake("acme");
        all.tell(&revision_of(7, &[]));
        assert!(wakes(&mut acme, 7).await);
        all.tell(&Revision { is_cut: true, ..revision_of(8, &["other"]) });
        assert!(wakes(&mut acme, 8).await);
        drop(acme);
        all.wake("other");
        all.forget_unused();
        assert!(all.organizations.is_empty());
    }
}
