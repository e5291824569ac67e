//! The last revisions of the change log, read and decoded once for all deliveries.

use std::collections::VecDeque;
use std::sync::Arc;

use super::compose::Told;
use super::wakes::concerns;
use crate::limits::{
    DELIVERY_READ_CHANGES, DELIVERY_READ_REVISIONS, RECENT_BYTES_MAX, RECENT_REVISIONS_MAX,
};

/// The last revisions of the change log.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// All revisions of the records from this one on are here,
    from: u64,
    /// to this one.
    next: u64,
    revisions: VecDeque<Arc<Told>>,
    bytes: usize,
}

/// Revisions that a delivery reads at a time.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) revisions: VecDeque<Arc<Told>>,
    changes: usize,
}

impl Batch {
    /// Adds a revision. Whether there is room for another one.
    pub(super) fn push(&mut self, told: Arc<Told>) -> bool {
        self.changes = self.changes.saturating_add(told.revision.changes.len());
        self.revisions.push_back(told);
        self.revisions.len() < DELIVERY_READ_REVISIONS && self.changes < DELIVERY_READ_CHANGES
    }
}

impl Recent {
    /// Begins anew at a record.
    pub(super) fn begin(&mut self, next: u64) {
        *self = Self { from: next, next, ..Self::default() };
    }

    /// Adds the next revision.
    pub(super) fn push(&mut self, told: Arc<Told>) {
        self.next = told.revision.number.saturating_add(1);
        self.bytes = self.bytes.saturating_add(told.revision.bytes);
        self.revisions.push_back(told);
        while self.revisions.len() > RECENT_REVISIONS_MAX || self.bytes > RECENT_BYTES_MAX {
            let Some(first) = self.revisions.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(first.revision.bytes);
            self.from = first.revision.number.saturating_add(1);
        }
    }

    /// All before this record are looked at.
    pub(super) fn looked(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// What concerns an organization from a record on, of revisions up to this one, and the number of the record behind
    /// what was looked at. `None` if that is not all here.
    pub(super) fn read(
        &self,
        from: u64,
        revision: u64,
        organization: &str,
    ) -> Option<(Batch, u64)> {
        if from < self.from || from >= self.next {
            return None;
        }
        let mut batch = Batch::default();
        let first = self.revisions.partition_point(|one| one.revision.number < from);
        for told in self.revisions.range(first..) {
            let one = &told.revision;
            if one.record.revision > revision {
                return Some((batch, one.number));
            }
            if concerns(one, organization) && !batch.push(Arc::clone(told)) {
                return Some((batch, one.number.saturating_add(1)));
            }
        }
        Some((batch, self.next))
    }
}

#[cfg(test)]
mod tests {
    use super::super::wakes::revision_of;
    use super::*;
    use crate::feed::change_log::Revision;

    fn told(revision: Revision) -> Arc<Told> {
        Arc::new(Told::new(revision))
    }

    fn numbers(found: Option<(Batch, u64)>) -> Option<(Vec<u64>, u64)> {
        found.map(|(batch, next)| {
            (batch.revisions.iter().map(|one| one.revision.number).collect(), next)
        })
    }

    #[test]
    fn reads_what_concerns_an_organization() {
        let mut recent = Recent::default();
        recent.begin(5);
        for (number, groups) in [(5, ["acme"]), (6, ["other"]), (8, ["acme/web"])] {
            recent.push(told(revision_of(number, &groups)));
        }
        recent.looked(10);
        let read = |from, revision| numbers(recent.read(from, revision, "acme"));
        assert_eq!(read(5, 100), Some((vec![5, 8], 10)));
        assert_eq!(read(6, 100), Some((vec![8], 10)));
        assert_eq!(read(9, 100), Some((vec![], 10)));
        // Not before its revision is the one that the creator is judged at.
        assert_eq!(read(5, 7), Some((vec![5], 8)));
        // Before and behind it the log itself is read.
        assert_eq!((read(4, 100), read(10, 100)), (None, None));
    }

    #[test]
    fn keeps_the_last_ones() {
        let mut recent = Recent::default();
        recent.begin(0);
        let first = 1_000;
        for number in 0..RECENT_REVISIONS_MAX as u64 + 10 {
            recent.push(told(revision_of(first + number, &["acme"])));
        }
        assert_eq!(recent.revisions.len(), RECENT_REVISIONS_MAX);
        assert!(recent.read(first + 9, u64::MAX, "acme").is_none());
        let (batch, next) = recent.read(first + 10, u64::MAX, "acme").unwrap();
        assert_eq!(batch.revisions.len(), DELIVERY_READ_REVISIONS);
        assert_eq!(next, first + 10 + DELIVERY_READ_REVISIONS as u64);
        let large = Revision { bytes: RECENT_BYTES_MAX, ..revision_of(9_000, &["acme"]) };
        recent.push(told(large));
        assert_eq!(recent.revisions.len(), 1);
        assert_eq!(numbers(recent.read(9_000, u64::MAX, "acme")), Some((vec![9_000], 9_001)));
        let larger = Revision { bytes: RECENT_BYTES_MAX + 1, ..revision_of(9_001, &["acme"]) };
        recent.push(told(larger));
        assert!(recent.read(9_001, u64::MAX, "acme").is_none());
        assert_eq!((recent.bytes, recent.next), (0, 9_002));
    }

    #[test]
    fn a_batch_ends_with_its_changes() {
        let mut batch = Batch::default();
        let groups = vec!["acme"; DELIVERY_READ_CHANGES - 1];
        assert!(batch.push(told(revision_of(1, &groups))));
        assert!(!batch.push(told(revision_of(2, &["acme"]))));
    }
}
