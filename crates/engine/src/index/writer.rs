//! Changes: what a store drives. Each is proved against what is there, and copies only what it
//! touches.
//!
//! ```text
//! Snapshot ─▶ Writer ──apply(changes)──▶ all of them, or none and why ──publish(revision)──▶ Snapshot
//! ```
//!
//! **Invariant**: a writer's policy keeps the rules that a [`Model`](crate::Model) proves of a whole
//! document, so whatever order changes come in, the answers are those of the same facts as one
//! document. Published snapshots never change. One thing depends on the order: the path of a binding
//! that declares none, which moves when another has it already, is not kept free of what comes later. A
//! store names every binding.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::index::Index;
use crate::{Change, Refused, Snapshot};

/// Makes changes. Readers hold what was published; nobody sees a change before it is.
#[derive(Clone)]
pub struct Writer {
    next: Index,
}

impl Writer {
    /// Goes on from a snapshot.
    #[must_use]
    pub fn new(snapshot: &Snapshot) -> Self {
        Self { next: snapshot.index().clone() }
    }

    /// Makes all the changes, in order, or none. What they are made in is copied once, however many
    /// they are, unless tables grow to many times their size: a store that starts hands over everything
    /// at once, and holds none of it in memory.
    ///
    /// # Errors
    ///
    /// The place of the first change that cannot be made, and why.
    pub fn apply<C: Borrow<Change>>(
        &mut self,
        changes: impl IntoIterator<Item = C>,
    ) -> Result<(), (usize, Refused)> {
        let mut next = self.next.clone();
        for (at, change) in changes.into_iter().enumerate() {
            next.apply(change.borrow()).map_err(|refused| (at, refused))?;
            // Rarely, when a table has grown to many times its size, everything is copied: readers go
            // on with what they have. If there is no place for something, all stays as it is.
            if next.is_crowded()
                && let Some(resized) = next.resized()
            {
                next = resized;
            }
        }
        self.next = next;
        Ok(())
    }

    /// What there is now, as a snapshot of this revision, which is the caller's to give and only
    /// grows.
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
