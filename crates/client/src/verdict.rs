//! What an error of a whole batch means for the calls in it.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use capstan_proto::contract::RETRY_PUSHBACK_KEY;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::address::chain;
use crate::error::Error;
use crate::limits::PUSHBACK_MAX;

/// What an error of a whole batch means.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// Nothing for the calls: they are asked again, no sooner than the server says.
    Again { why: Arc<str>, after: Option<Duration> },
    /// Something in the batch is wrong: its parts are asked apart, and a single call gets the error.
    Apart(Error),
    /// The same for every call.
    All(Error),
}

impl Verdict {
    /// Nothing was heard from the server.
    pub(crate) fn lost(why: impl Into<Arc<str>>) -> Self {
        Self::Again { why: why.into(), after: None }
    }

    /// The server's error, or the transport's.
    pub(crate) fn of(status: &Status) -> Self {
        // What the server says has no cause here.
        if status.source().is_some() {
            return Self::lost(format!("connection lost: {}", chain(status)));
        }
        let pushback =
            status.metadata().get(RETRY_PUSHBACK_KEY).and_then(|text| text.to_str().ok());
        let pushback = pushback.and_then(|text| text.parse::<i64>().ok());
        let again = |after| Self::Again {
            why: format!("{:?}: {}", status.code(), status.message()).into(),
            after,
        };
        let error = || {
            let reason = status.get_details_error_info().map(|info| info.reason);
            Error::refused(status.code(), &reason.unwrap_or_default(), status.message())
        };
        match (status.code(), pushback.map(u64::try_from)) {
            (Code::Unavailable | Code::ResourceExhausted, Some(Ok(after))) => {
                again(Some(Duration::from_millis(after).min(PUSHBACK_MAX)))
            }
            (Code::ResourceExhausted, Some(Err(_))) => Self::Apart(error()),
            (
                Code::Unavailable
                | Code::ResourceExhausted
                | Code::Aborted
                | Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Unknown,
                _,
            ) => again(None),
            (
                Code::InvalidArgument
                | Code::OutOfRange
                | Code::FailedPrecondition
                | Code::Internal
                | Code::DataLoss,
                _,
            ) => Self::Apart(error()),
            (
                Code::Ok
                | Code::NotFound
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::Unimplemented
                | Code::Unauthenticated,
                _,
            ) => Self::All(error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_cannot_ask_for_a_wait_without_end() {
        for (asked, expected) in
            [("70", Duration::from_millis(70)), ("9000000000000", PUSHBACK_MAX)]
        {
            let mut status = Status::resource_exhausted("later");
            status.metadata_mut().insert(RETRY_PUSHBACK_KEY, asked.parse().unwrap());
            let Verdict::Again { after, .. } = Verdict::of(&status) else { panic!("{asked}") };
            assert_eq!(after, Some(expected));
        }
    }
}
