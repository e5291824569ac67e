//! One read: a revision, who reads, and the objects, of a store or of a policy file.
//!
//! **Invariant**: the objects and the rights of the reader are of one revision.

use std::sync::Arc;

use capstan_engine::{Path, PathBuf, Snapshot, Timestamp};
use capstan_iam::{Kind, Object};

use super::visible::{Rights, Viewer};
use crate::RequestError;
use crate::authn::caller::CallerKind;
use crate::feed::Current;
use crate::feed::management::StoredObjects;

/// A revision, and who reads it at which time.
#[derive(Clone)]
pub(super) struct Reading {
    pub(super) current: Arc<Current>,
    /// `None` if the policy is a file.
    pub(super) objects: Option<Arc<dyn StoredObjects>>,
    pub(super) caller: CallerKind,
    pub(super) now: Timestamp,
}

impl Reading {
    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.current.snapshot
    }

    pub(super) fn revision(&self) -> u64 {
        self.current.snapshot.revision()
    }

    /// Who reads. If the policy is a file, everybody sees everything, as decisions are open.
    ///
    /// # Errors
    ///
    /// [`RequestError::AuthnFailed`]: nobody that the server knows.
    pub(super) fn viewer(&self) -> Result<Viewer<'_>, RequestError> {
        match &self.caller {
            _ if self.objects.is_none() => Ok(Viewer::Everything),
            CallerKind::Operator => Ok(Viewer::Everything),
            CallerKind::Identity { path, .. } => {
                Rights::of(path, self.snapshot(), self.now).map(Viewer::Identity)
            }
            CallerKind::Nobody => Err(RequestError::AuthnFailed),
        }
    }

    /// The object of this kind and id; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub(super) fn get(&self, kind: Kind, id: Path<'_>) -> Result<Option<Object>, RequestError> {
        match &self.objects {
            Some(objects) => Ok(objects.get(kind, id)?),
            None => Ok(None),
        }
    }

    /// Who calls, as a part of page tokens: a token of one caller is of no use to another.
    pub(super) fn caller_name(&self) -> &str {
        match &self.caller {
            CallerKind::Identity { path, .. } => path.as_str(),
            // No path is empty or has a space.
            CallerKind::Operator => "the operator",
            CallerKind::Nobody => "",
        }
    }
}

/// Whether an identity is a root identity.
pub(super) fn is_root(id: &PathBuf) -> bool {
    id.as_path().parent().is_none()
}
