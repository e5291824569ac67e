//! Errors. None of them is a decision: on an error the caller must deny access.

use std::sync::Arc;

use thiserror::Error;
use tonic::Code;

use crate::address::{ParseAddressError, ServerAddress};

/// A client could not be created.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConnectError {
    /// The text is not an address.
    #[error(transparent)]
    Address(#[from] ParseAddressError),
    /// Options of TLS are given, and the address is not `https`.
    #[error("{0} has no TLS: options of TLS are for https://HOST:PORT")]
    NoTls(ServerAddress),
    /// Options of TLS cannot be used: what is wrong.
    #[error("TLS: {0}")]
    Tls(String),
    /// A token is given, and other machines would see it on its way.
    #[error("{to} is asked in plain text, and everybody on the way would see the token: ask https://{}", to.authority())]
    PlainToken {
        /// The server.
        to: ServerAddress,
    },
    /// Not called inside a tokio runtime, which the client needs for its background tasks.
    #[error("no tokio runtime here: a client is made inside one")]
    NoRuntime,
}

/// A check has no decision. A denial is a decision, not an error.
///
/// It has the short name that crates commonly give their only error of calls, as in `std::io::Error`; code
/// outside uses it as `capstan_client::Error`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// The check is invalid, or the server rejects it. A retry does not help.
    #[error("{0}")]
    Refused(Arc<Refusal>),
    /// No answer before the deadline.
    #[error("no answer in time{}", .0.as_ref().map(|last| format!(" (last: {last})")).unwrap_or_default())]
    DeadlineExceeded(
        /// The last problem between the client and the server since the last answer, if there was one.
        Option<Arc<str>>,
    ),
    /// The server's reply violates the contract.
    #[error("the server's answer cannot be one: {0}")]
    Protocol(&'static str),
    /// The client was shut down.
    #[error("the client was shut down")]
    Closed,
}

/// The server's error, or the client's before it sends the check.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{code:?}: {message}")]
pub struct Refusal {
    /// The gRPC status code.
    pub code: Code,
    /// `ErrorInfo.reason` (contract, section 7), such as `INVALID_FIELD`; empty if there is none.
    pub reason: String,
    /// The message. For a malformed field it begins with the field's path.
    pub message: String,
}

impl Error {
    pub(crate) fn refused(code: Code, reason: &str, message: impl Into<String>) -> Self {
        let (reason, message) = (reason.into(), message.into());
        Self::Refused(Arc::new(Refusal { code, reason, message }))
    }
}
