//! The failure of a batch: what it means for the batch's calls.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use capstan_proto::contract::RETRY_PUSHBACK_KEY;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::address::chain;
use crate::error::Error;
use crate::limits::PUSHBACK_MAX;

/// The failure of a batch.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// Transient: the batch is sent again.
    Retry {
        /// For [`Error::DeadlineExceeded`].
        problem: Arc<str>,
        /// The server's push-back: the minimum wait before the next attempt.
        wait: Option<Duration>,
    },
    /// A call in the batch is invalid: both halves of the batch are sent again, and a batch of one call
    /// fails with the error.
    Split(Error),
    /// Every call fails with the error.
    Final(Error),
}

impl Failure {
    /// There was no answer from the server.
    pub(crate) fn lost(problem: impl Into<Arc<str>>) -> Self {
        Self::Retry { problem: problem.into(), wait: None }
    }

    /// The failure that a status means. Push-back: gRFC A6; codes: the contract, section 7.
    pub(crate) fn of(status: &Status) -> Self {
        // Only a status that the transport made has a source.
        if status.source().is_some() {
            return Self::lost(format!("connection lost: {}", chain(status)));
        }
        let pushback =
            status.metadata().get(RETRY_PUSHBACK_KEY).and_then(|text| text.to_str().ok());
        let pushback = pushback.and_then(|text| text.parse::<i64>().ok());
        let retry = |wait| Self::Retry {
            problem: format!("{:?}: {}", status.code(), status.message()).into(),
            wait,
        };
        let error = || {
            let reason = status.get_details_error_info().map(|info| info.reason);
            Error::refused(status.code(), &reason.unwrap_or_default(), status.message())
        };
        match (status.code(), pushback.map(u64::try_from)) {
            (Code::Unavailable | Code::ResourceExhausted, Some(Ok(millis))) => {
                retry(Some(Duration::from_millis(millis).min(PUSHBACK_MAX)))
            }
            (Code::ResourceExhausted, Some(Err(_))) => Self::Split(error()),
            (
                Code::Unavailable
                | Code::ResourceExhausted
                | Code::Aborted
                | Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Unknown,
                _,
            ) => retry(None),
            (
                Code::InvalidArgument
                | Code::OutOfRange
                | Code::FailedPrecondition
                | Code::Internal
                | Code::DataLoss,
                _,
            ) => Self::Split(error()),
            (
                Code::Ok
                | Code::NotFound
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::Unimplemented
                | Code::Unauthenticated,
                _,
            ) => Self::Final(error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn push_back_is_limited() {
        for (asked, expected) in
            [("70", Duration::from_millis(70)), ("9000000000000", PUSHBACK_MAX)]
        {
            let mut status = Status::resource_exhausted("later");
            status.metadata_mut().insert(RETRY_PUSHBACK_KEY, asked.parse().unwrap());
            let Failure::Retry { wait, .. } = Failure::of(&status) else { panic!("{asked}") };
            assert_eq!(wait, Some(expected));
        }
    }
}
