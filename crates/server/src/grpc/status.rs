//! Errors to gRPC statuses (contract, section 7).
//!
//! **Invariant**: no other file turns an error of this crate into a status.

use capstan_proto::contract::{ACCEPT_ENCODING_KEY, RETRY_PUSHBACK_KEY};
use capstan_proto::v1;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::RequestError;
use crate::error::CallError;
use crate::jitter::jittered;
use crate::limits::{RETRY_PUSHBACK, REVISION_WAIT_MAX};

/// `ErrorInfo.domain` of every error.
const DOMAIN: &str = "capstan";

impl RequestError {
    const fn code(&self) -> Code {
        match self {
            Self::Field { .. } => Code::InvalidArgument,
            Self::NotReady
            | Self::Draining
            | Self::RevisionNotAvailable { .. }
            | Self::PageTooOld { .. }
            | Self::RevisionGone { .. } => Code::Unavailable,
            Self::StoreEpoch { .. } => Code::FailedPrecondition,
        }
    }

    /// `ErrorInfo.reason` (contract, section 7).
    const fn reason(&self) -> &'static str {
        match self {
            Self::Field { .. } => "INVALID_FIELD",
            Self::NotReady | Self::Draining => "NOT_READY",
            Self::RevisionNotAvailable { .. }
            | Self::PageTooOld { .. }
            | Self::RevisionGone { .. } => "REVISION_NOT_AVAILABLE",
            Self::StoreEpoch { .. } => "STORE_EPOCH",
        }
    }

    /// The error of one check of a batch.
    pub(crate) fn item(&self) -> v1::ItemError {
        v1::ItemError {
            code: self.code().into(),
            reason: self.reason().into(),
            message: self.to_string(),
        }
    }
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        let mut details = ErrorDetails::new();
        let metadata = match &error {
            RequestError::Field { field, problem } => {
                details.add_bad_request_violation(field, problem);
                vec![("field".to_owned(), field.clone())]
            }
            RequestError::NotReady
            | RequestError::Draining
            | RequestError::RevisionNotAvailable { .. } => {
                details.set_retry_info(Some(REVISION_WAIT_MAX));
                vec![]
            }
            RequestError::StoreEpoch { .. }
            | RequestError::PageTooOld { .. }
            | RequestError::RevisionGone { .. } => vec![],
        };
        details.set_error_info(
            error.reason(),
            DOMAIN,
            metadata.into_iter().collect::<std::collections::HashMap<_, _>>(),
        );
        let mut status = Self::with_error_details(error.code(), error.to_string(), details);
        if matches!(error, RequestError::RevisionGone { .. } | RequestError::PageTooOld { .. }) {
            // The list is of that revision for good: never retry.
            status.metadata_mut().insert(RETRY_PUSHBACK_KEY, (-1).into());
        }
        status
    }
}

impl CallError {
    const fn code(&self) -> Code {
        match self {
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::Overloaded | Self::TooLarge { .. } => Code::ResourceExhausted,
            Self::InvalidFraming | Self::InvalidGzip => Code::InvalidArgument,
            Self::Unimplemented | Self::UnknownEncoding => Code::Unimplemented,
            Self::Bug { .. } => Code::Internal,
        }
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        let mut details = ErrorDetails::new();
        let mut pushback = None;
        match &error {
            // The code says it all; of a bug the caller learns nothing.
            CallError::DeadlineExceeded
            | CallError::Unimplemented
            | CallError::UnknownEncoding
            | CallError::Bug { .. } => {}
            CallError::Overloaded => {
                // Half of it less to half of it more, so that shed calls do not return together.
                let wait = jittered(RETRY_PUSHBACK, 2);
                details.set_error_info("OVERLOADED", DOMAIN, []);
                details.set_retry_info(Some(wait));
                pushback = Some(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX));
            }
            CallError::TooLarge { bytes_max } => {
                let metadata = [("bytes_max".to_owned(), bytes_max.to_string())];
                details.set_error_info("TOO_LARGE", DOMAIN, metadata);
                pushback = Some(-1);
            }
            CallError::InvalidFraming | CallError::InvalidGzip => {
                details.set_error_info("INVALID_FIELD", DOMAIN, [("field".into(), "".into())]);
            }
        }
        let mut status = Self::with_error_details(error.code(), error.to_string(), details);
        if error == CallError::UnknownEncoding {
            let known = MetadataValue::from_static("gzip,identity");
            status.metadata_mut().insert(ACCEPT_ENCODING_KEY, known);
        }
        if let Some(pushback) = pushback {
            status.metadata_mut().insert(RETRY_PUSHBACK_KEY, pushback.into());
        }
        status
    }
}
