//! The writer: makes changes to its own version of the index, and publishes it as snapshots.
//!
//! ```text
//! Snapshot ─▶ Writer ──apply(changes)──▶ all of them, or none and why ──publish(revision)──▶ Snapshot
//! ```
//!
//! **Invariant**: a writer's facts keep the same rules as those of a [`Model`](crate::Model) (`rules.rs`), so
//! whatever order changes come in, the answers are those of the same facts as one document. Published
//! snapshots never change.
//!
//! The order of changes shows in one place only. A binding without an id gets the derived id, or the next
//! number if that path is taken at the time; it keeps the id, and nothing else can take it later. A document
//! instead gives derived ids after all declared ones. A store names every binding before it is applied
//! ([`Snapshot::free_binding_id`](crate::Snapshot::free_binding_id)), so this does not concern it; a derived id that is
//! declared takes no more memory than one that is not.
//! Derived ids of bindings at one scope are compared with each other only if the scope stores numbers
//! (`scope.rs`): two of them are equal with a probability of 2⁻⁶⁴ a pair.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::index::Index;
use crate::{ApplyError, Change, Snapshot};

/// Makes changes. Readers keep the snapshots that were published and see no change before it is.
#[derive(Clone)]
pub struct Writer {
    next: Index,
}

impl Writer {
    /// Starts from a snapshot.
    #[must_use]
    pub fn new(snapshot: &Snapshot) -> Self {
        Self { next: snapshot.index().clone() }
    }

    /// Makes all changes, in order, or none. The shards they touch are copied once, however many changes
    /// there are, so a store that starts can hand over everything at once, from an iterator.
    ///
    /// # Errors
    ///
    /// The first change that is refused, and why.
    pub fn apply<C: Borrow<Change>>(
        &mut self,
        changes: impl IntoIterator<Item = C>,
    ) -> Result<(), ApplyError> {
        let mut next = self.clone();
        next.apply_in_place(changes)?;
        *self = next;
        Ok(())
    }

    /// As [`Self::apply`], but copies nothing that only this writer has: of a snapshot that was published and dropped
    /// since, no shard is copied again.
    ///
    /// # Errors
    ///
    /// The first change that is refused, and why. Those before it are made, and it may be in part: use the writer no more.
    pub fn apply_in_place<C: Borrow<Change>>(
        &mut self,
        changes: impl IntoIterator<Item = C>,
    ) -> Result<(), ApplyError> {
        for (position, change) in changes.into_iter().enumerate() {
            let applied = self.next.apply(change.borrow());
            applied.map_err(|error| ApplyError { position, error })?;
            // Rare: a table has grown to many times its size. If the larger copy has no place for an
            // entry, the old one stays.
            if self.next.is_crowded()
                && let Some(larger) = self.next.resized()
            {
                self.next = larger;
            }
        }
        Ok(())
    }

    /// The facts as they are now, as a snapshot. The caller chooses the revision; revisions only grow.
    #[must_use]
    pub fn publish(&self, revision: u64) -> Arc<Snapshot> {
        Arc::new(Snapshot::new(revision, self.next.clone()))
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("bindings", &self.next.bindings_len())
            .finish_non_exhaustive()
    }
}
