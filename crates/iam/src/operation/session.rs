//! What the credential of a caller gives beside role bindings, and what it is held to.

use std::collections::BTreeSet;

use capstan_engine::{Path, PathBuf, Timestamp};

use crate::Incarnation;

/// What a credential gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The roles, in no order.
    pub grants: Vec<SessionGrant>,
    /// When the credential ends, and what it gives with it.
    pub ends: Timestamp,
}

/// A role that a credential gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionGrant {
    /// The mapping that gives it, or the provider whose default role it is.
    pub source: Incarnation,
    /// A built-in role's name (no slash) or a custom role's path.
    pub role: Box<str>,
    /// Where it is given: a group.
    pub scope: PathBuf,
}

/// What a credential is held to: less than what its identity can, never more (R21 of the privilege rules).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrowing {
    /// Only what is at or below this group counts; `None` for everywhere.
    pub subtree: Option<PathBuf>,
    /// Only these capabilities count; `None` for all. One that the catalog lacks is held by nobody.
    pub capabilities: Option<BTreeSet<String>>,
}

impl Narrowing {
    /// Whether a capability counts at a resource, if the identity has it there.
    #[must_use]
    pub fn allows(&self, capability: &str, resource: Path<'_>) -> bool {
        let Self { subtree, capabilities } = self;
        subtree.as_ref().is_none_or(|subtree| subtree.as_path().contains(resource))
            && capabilities.as_ref().is_none_or(|all| all.contains(capability))
    }
}
