//! Why a question could not be answered. A denial is not among these: it is an answer.

use thiserror::Error;

/// Why a question could not be answered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// A field is malformed or names something that cannot be.
    #[error("{field}: {problem}")]
    Field {
        /// The field's path in the request, such as `resource` or `checks`.
        field: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// No policy has been loaded and checked yet.
    #[error("not ready: the policy is being loaded")]
    NotReady,
    /// The server is about to stop.
    #[error("draining: ask again on another connection")]
    Draining,
    /// The wanted revision did not arrive in time.
    #[error("revision {wanted} is not here yet: {held} is")]
    RevisionNotAvailable {
        /// What the request wants at least.
        wanted: u64,
        /// What is served.
        held: u64,
    },
    /// The wanted revision belongs to another store's history.
    #[error("revision {wanted} is of another epoch than {held}: drop it and read anew")]
    StoreEpoch {
        /// What the request wants at least.
        wanted: u64,
        /// What is served.
        held: u64,
    },
    /// The list began at a revision that is no longer kept.
    #[error("revision {revision}, which the list began with, is no longer kept: begin it anew")]
    RevisionGone {
        /// What the page token was given out at.
        revision: u64,
    },
}

impl RequestError {
    pub(crate) fn field(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::Field { field: field.into(), problem: format!("{problem}") }
    }
}
