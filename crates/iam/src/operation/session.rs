//! What the credential of a caller gives beside role bindings.

use capstan_engine::{PathBuf, Timestamp};

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
