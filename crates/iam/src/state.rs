//! What operations are judged on: the engine's snapshot, and whole objects.

use capstan_engine::{Path, PathBuf, Snapshot};
use thiserror::Error;

use crate::{InviteCode, Kind, Object, Reference, SecretHash};

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

    /// The path and the create revision of the invite with this code.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    fn invite(&self, code: &SecretHash) -> Result<Option<InviteCode>, ObjectsError>;

    /// Whether an object that the engine does not know promises this role (see [`Object::promises`]).
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    fn is_promised(&self, role: &str) -> Result<bool, ObjectsError>;

    /// Calls `each` with the kinds and paths of the objects that have this reference (see [`Object::reference`]), in an order
    /// that is always the same, until it returns false.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    fn referring(
        &self,
        to: &Reference<'_>,
        each: &mut dyn FnMut(Kind, PathBuf) -> bool,
    ) -> Result<(), ObjectsError>;

    /// Whether the path names an object that the engine does not know.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    fn is_taken_beside(&self, id: Path<'_>) -> Result<bool, ObjectsError> {
        // None of them is at the root.
        if id.parent().is_none() {
            return Ok(false);
        }
        for kind in Kind::BESIDE.into_iter().filter(|kind| kind.has_own_path()) {
            if self.get(kind, id)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
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
