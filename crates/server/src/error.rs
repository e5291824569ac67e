//! Errors of requests and of calls.
//!
//! A denial is not an error: it is an answer.
//!
//! **Invariant**: these types know no gRPC code. `grpc/status.rs` turns them into statuses.

use capstan_proto::contract::epoch;
use thiserror::Error;

/// The question of a request could not be answered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// A field is malformed, or names something that does not exist.
    #[error("{field}: {problem}")]
    Field {
        /// The field's path in the request, such as `resource` or `checks`.
        field: String,
        /// What is wrong with the field, and what would be right.
        problem: String,
    },
    /// No policy has been loaded and self-checked yet.
    #[error("not ready: the policy is being loaded")]
    NotReady,
    /// The server is draining.
    #[error("draining: ask again on another connection")]
    Draining,
    /// The requested revision did not arrive within `REVISION_WAIT_MAX`.
    #[error("revision {wanted} is not here yet: {held} is")]
    RevisionNotAvailable {
        /// The lowest revision that the request accepts.
        wanted: u64,
        /// The revision that is served.
        held: u64,
    },
    /// The requested revision belongs to another epoch of the store.
    #[error(
        "revision {wanted} is of epoch {}, this store is in epoch {}: drop it and read anew",
        epoch(*wanted), epoch(*held)
    )]
    StoreEpoch {
        /// The lowest revision that the request accepts.
        wanted: u64,
        /// The revision that is served.
        held: u64,
    },
    /// A page token is of an earlier revision than the request accepts.
    #[error("the list began with revision {revision}, before revision {wanted}: begin it anew")]
    PageTooOld {
        /// The revision in the page token.
        revision: u64,
        /// The lowest revision that the request accepts.
        wanted: u64,
    },
    /// The revision of a paged list is no longer kept.
    #[error("revision {revision}, which the list began with, is no longer kept: begin it anew")]
    RevisionGone {
        /// The revision in the page token.
        revision: u64,
    },
}

impl RequestError {
    pub(crate) fn field(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::Field { field: field.into(), problem: format!("{problem}") }
    }
}

/// A call failed for a reason that does not depend on its question.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum CallError {
    /// The deadline has passed: the client's, or the server's own.
    #[error("the deadline has passed")]
    DeadlineExceeded,
    /// Too many calls are in flight, in the whole server or from one peer.
    #[error("too many calls are in flight: ask again in a moment")]
    Overloaded,
    /// A request or a response is larger than the limit of messages.
    #[error("a request or its answer is larger than {bytes_max} bytes: ask for less at once")]
    TooLarge {
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// The body of the request is not framed as gRPC messages.
    #[error("the request is not framed as gRPC messages")]
    InvalidFraming,
    /// A compressed message is not one gzip member.
    #[error("a message of the request does not decompress: send one gzip member")]
    InvalidGzip,
    /// The messages of the request are compressed in a way that the server does not know.
    #[error("the grpc-encoding of the request is not served: use gzip or identity")]
    UnknownEncoding,
    /// The service has no such method.
    #[error("this service has no such method")]
    Unimplemented,
    /// A bug of the server. Its details are in the log only.
    #[error("internal error {correlation}")]
    Bug {
        /// The id of the log line.
        correlation: String,
    },
}
