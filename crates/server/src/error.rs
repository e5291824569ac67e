//! Why a question could not be answered. A denial is not among these: it is an answer.

use capstan_proto::contract::epoch;
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
    #[error(
        "revision {wanted} is of epoch {}, this store is in epoch {}: drop it and read anew",
        epoch(*wanted), epoch(*held)
    )]
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

/// Why a call was ended, whatever it asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum CallError {
    /// The client's deadline has passed, or the server's.
    #[error("the deadline has passed")]
    DeadlineExceeded,
    /// Too many calls are in flight, from everybody or from one peer.
    #[error("too many calls are in flight: ask again in a moment")]
    Overloaded,
    /// A request or its answer is larger than messages may be.
    #[error("a request or its answer is larger than {bytes_max} bytes: ask for less at once")]
    TooLarge {
        /// Bytes that a message may have.
        bytes_max: usize,
    },
    /// The bytes of the request are not gRPC's messages.
    #[error("the request is not framed as gRPC messages")]
    InvalidFraming,
    /// The service has no such method.
    #[error("this service has no such method")]
    Unimplemented,
    /// A bug. What is known of it is in the log.
    #[error("internal error {correlation}")]
    Bug {
        /// What the log calls it.
        correlation: String,
    },
}
