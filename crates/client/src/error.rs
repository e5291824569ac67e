//! Why there is no answer. None of these is an allow: whoever gets one must refuse.

use std::sync::Arc;

use thiserror::Error;
use tonic::Code;

use crate::address::ParseAddressError;

/// Why a client could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConnectError {
    /// The text is not an address.
    #[error(transparent)]
    Address(#[from] ParseAddressError),
    /// There is no tokio runtime here for the client's tasks.
    #[error("no tokio runtime here: a client is made inside one")]
    NoRuntime,
}

/// Why a check has no answer. A denial is not among these: it is an answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// The question cannot be answered, or the server will not. Asking again does not help.
    #[error("{0}")]
    Refused(Arc<Refusal>),
    /// No answer in time.
    #[error("no answer in time{}", .0.as_ref().map(|last| format!(" (last: {last})")).unwrap_or_default())]
    DeadlineExceeded(
        /// What went wrong last between the client and its server, if anything did.
        Option<Arc<str>>,
    ),
    /// What the server said cannot be an answer, and is not taken for one.
    #[error("the server's answer cannot be one: {0}")]
    Protocol(&'static str),
    /// The client was shut down.
    #[error("the client was shut down")]
    Closed,
}

/// What the server said instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{code:?}: {message}")]
pub struct Refusal {
    /// As gRPC codes it.
    pub code: Code,
    /// `ErrorInfo.reason`, such as `INVALID_FIELD`; empty if there is none.
    pub reason: String,
    /// What is wrong, beginning with the field's path if a field is malformed.
    pub message: String,
}

impl Error {
    pub(crate) fn refused(code: Code, reason: &str, message: impl Into<String>) -> Self {
        let (reason, message) = (reason.into(), message.into());
        Self::Refused(Arc::new(Refusal { code, reason, message }))
    }
}
