//! Errors of requests and of calls.
//!
//! A denial is not an error: it is an answer.
//!
//! **Invariant**: these types know no gRPC code. `grpc/status.rs` turns them into statuses.

use capstan_engine::PathBuf;
use capstan_iam::{Cause, JudgeError, ObjectsError, Refusal};
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
    /// The caller is not known, not registered or disabled. One text for all.
    #[error("the caller is not authenticated")]
    AuthnFailed,
    /// A caller of decisions may not ask this: why.
    #[error("this caller may not ask this: {problem}")]
    CallerNotAllowed {
        /// What it may do, or not.
        problem: String,
    },
    /// Too many callers show credentials that are not known yet.
    #[error("too many credentials are looked up: try again in a moment")]
    CredentialsWait,
    /// Too many secrets from this address have proved nothing.
    #[error("too many secrets from this address have proved nothing: try again in a second")]
    GuessesWait,
    /// Too many calls wait to be computed.
    #[error("too many calls wait to be computed: ask again in a moment")]
    TurnsTaken,
    /// It is not there, or the caller may not see it. One text for both.
    #[error("not found")]
    NotFound,
    /// It is in the schema and not implemented: what, and what is.
    #[error("{0}")]
    Unimplemented(&'static str),
    /// A policy file is served, which nobody changes through the server.
    #[error("the policy is a file: change the file, or serve a store with --data")]
    ReadOnly,
    /// A retry asks for a secret that was shown by an earlier process, or too long ago.
    #[error(
        "the token `{id}` was made by an earlier request, and its secret is not known any more: create another one, and \
         revoke this one if it is still there"
    )]
    TokenAlreadyIssued {
        /// The token.
        id: PathBuf,
    },
    /// An operation is refused by the rules of management.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The store cannot do what the call needs.
    #[error(transparent)]
    Store(StoreFailure),
    /// A bug of the server. Its details are in the log only.
    #[error("internal error {correlation}")]
    Bug {
        /// The id of the log line.
        correlation: String,
    },
    /// The objects of a revision cannot be read.
    #[error("the store cannot be read: try again, and look into the log of the server")]
    Unreadable,
    /// A change is larger than the store takes at once: what, and what is possible.
    #[error("{0}")]
    TooLarge(String),
    /// The changes from a revision on are not all kept any more.
    #[error(
        "the changes from revision {revision} on are not all kept: read the state anew, and watch from the revision behind it"
    )]
    RevisionCompacted {
        /// The revision.
        revision: u64,
    },
    /// The revision of a paged list is no longer kept.
    #[error("revision {revision}, which the list began with, is no longer kept: begin it anew")]
    RevisionGone {
        /// The revision in the page token.
        revision: u64,
    },
}

/// Why a store does not make a change.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreFailure {
    /// It cannot be reached or does not work. Nothing was changed.
    #[error("the store does not work: nothing was changed, try again")]
    Unreachable,
    /// It cannot be written. Nothing was changed.
    #[error("the store is read-only: nothing was changed, the log of the server says why")]
    ReadOnly,
    /// There is no room. Nothing was changed.
    #[error("the disk is full: nothing was changed, try again when there is room")]
    Full,
    /// The change may have been made or not.
    #[error("it is not known whether the change was made: send it again with the same request_id")]
    OutcomeUnknown,
    /// Too many changes wait.
    #[error("too many changes wait: try again in a moment")]
    Busy,
    /// A quota is used up: which, and when there is more.
    #[error("{0}")]
    Quota(String),
}

/// What a caller is told that the rules of management refuse. Refusals with one text for several causes have errors of
/// their own.
impl From<Refusal> for RequestError {
    fn from(refusal: Refusal) -> Self {
        match refusal.told {
            Cause::AuthnFailed => Self::AuthnFailed,
            Cause::NotFound => Self::NotFound,
            _ => Self::Refused(Box::new(refusal)),
        }
    }
}

impl From<JudgeError> for RequestError {
    fn from(error: JudgeError) -> Self {
        match error {
            JudgeError::Refused(refusal) => (*refusal).into(),
            JudgeError::Objects(error) => error.into(),
        }
    }
}

impl From<ObjectsError> for RequestError {
    fn from(error: ObjectsError) -> Self {
        // What is wrong with a store is for its operator only.
        tracing::error!(%error, "objects cannot be read");
        Self::Unreadable
    }
}

impl RequestError {
    /// The error of a bug, which the log describes.
    pub(crate) fn bug(text: &str) -> Self {
        let correlation = format!("{:016x}", fastrand::u64(..));
        tracing::error!(correlation, "internal error: {text}");
        Self::Bug { correlation }
    }

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
