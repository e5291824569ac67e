//! What operations are judged on: the engine's snapshot, and whole objects.

use capstan_engine::{Path, Snapshot};
use thiserror::Error;

use crate::{Kind, Object};

/// The objects could not be read, so nothing is judged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("objects cannot be read: {0}")]
pub struct ObjectsError(pub String);

/// Whole objects of one revision.
pub trait Objects {
    /// The object of this kind and path.
    ///
    /// # Errors
    ///
    /// The store cannot be read, or holds what is no object.
    fn get(&self, kind: Kind, id: Path<'_>) -> Result<Option<Object>, ObjectsError>;

    /// Calls `each` with the objects of this kind whose path is the given one or below it, sorted by path, until
    /// it returns false. Without a path, with all of them.
    ///
    /// # Errors
    ///
    /// As [`Self::get`]. `each` may have seen objects before it.
    fn below(
        &self,
        kind: Kind,
        at: Option<Path<'_>>,
        each: &mut dyn FnMut(Object) -> bool,
    ) -> Result<(), ObjectsError>;
}

/// One revision: the state before an operation.
#[derive(Clone, Copy)]
pub struct State<'s> {
    /// What decides.
    pub snapshot: &'s Snapshot,
    /// Whole objects of the same revision.
    pub objects: &'s dyn Objects,
}

impl std::fmt::Debug for State<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("snapshot", self.snapshot).finish_non_exhaustive()
    }
}
