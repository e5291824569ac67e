//! One read: a revision, who reads, and the objects, of a store or of a policy file.
//!
//! **Invariant**: the objects and the rights of the reader are of one revision.

use std::sync::Arc;

use capstan_engine::{Path, PathBuf, Snapshot, Timestamp};
use capstan_iam::{Actor, Kind, Object, Reader, RuleSet, State};
use capstan_store::View;

use super::pieces::Pieces;
use crate::RequestError;
use crate::feed::Current;
use crate::feed::management::StoredObjects;
use crate::grpc::convert::timestamp;

/// A revision, and who reads it at which time.
#[derive(Clone)]
pub(super) struct Reading {
    pub(super) current: Arc<Current>,
    pub(super) source: Source,
    pub(super) now: Timestamp,
}

/// Where the objects are.
#[derive(Clone)]
pub(super) enum Source {
    /// In a policy file, as far as the index keeps them. Whoever is let in reads.
    File,
    /// In a store.
    Store {
        objects: Arc<dyn StoredObjects>,
        /// The state that the objects are of.
        view: Arc<dyn View>,
        /// Who reads.
        actor: Actor,
    },
}

/// What the reader may see.
pub(super) enum Viewer<'r> {
    /// Everything that a policy file declares.
    Everybody,
    /// What the rules show.
    Actor(Reader<'r>),
}

impl Reading {
    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.current.snapshot
    }

    pub(super) fn revision(&self) -> u64 {
        self.current.snapshot.revision()
    }

    /// What the reader may see.
    ///
    /// # Errors
    ///
    /// [`RequestError::AuthnFailed`]: the reader is not registered, or disabled.
    pub(super) fn viewer(&self) -> Result<Viewer<'_>, RequestError> {
        let Source::Store { objects, actor, .. } = &self.source else {
            return Ok(Viewer::Everybody);
        };
        let state = State { snapshot: &self.current.snapshot, objects: &**objects };
        Ok(Viewer::Actor(Reader::new(&RuleSet::FULL, &state, actor, self.now)?))
    }

    /// The identity that reads a store; `None` for the operator, and for everybody.
    pub(super) fn identity(&self) -> Option<&PathBuf> {
        match &self.source {
            Source::File => None,
            Source::Store { actor, .. } => actor.id(),
        }
    }

    /// Who reads, as a part of page tokens: a token of one caller is of no use to another. No path is empty or has a space.
    pub(super) fn caller_name(&self) -> &str {
        match &self.source {
            Source::File => "",
            Source::Store { actor, .. } => actor.id().map_or("the operator", PathBuf::as_str),
        }
    }

    /// The state of a store.
    pub(super) const fn view(&self) -> Option<&Arc<dyn View>> {
        match &self.source {
            Source::File => None,
            Source::Store { view, .. } => Some(view),
        }
    }

    /// The object of a store.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub(super) fn stored(&self, kind: Kind, id: Path<'_>) -> Result<Option<Object>, RequestError> {
        match &self.source {
            Source::File => Ok(None),
            Source::Store { objects, .. } => Ok(objects.get(kind, id)?),
        }
    }

    /// When an identity of a store was last seen.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub(super) fn last_seen(
        &self,
        identity: &str,
    ) -> Result<Option<prost_types::Timestamp>, RequestError> {
        match &self.source {
            Source::File => Ok(None),
            Source::Store { objects, .. } => Ok(objects.last_seen(identity)?.map(timestamp)),
        }
    }

    /// Where objects lie that need one of these capabilities, as far as the reader holds it there; at or below `parent`, if
    /// there is one.
    pub(super) fn pieces(
        &self,
        viewer: &Viewer<'_>,
        capabilities: &[&str],
        parent: Option<Path<'_>>,
    ) -> Pieces {
        match viewer {
            Viewer::Actor(reader) if self.identity().is_some() => {
                Pieces::below(&reader.topmost(capabilities), parent)
            }
            Viewer::Actor(_) | Viewer::Everybody => Pieces::all(parent),
        }
    }
}
