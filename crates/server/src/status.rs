//! The only place where our errors become gRPC statuses (contract, section 7).

use capstan_proto::v1;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::RequestError;
use crate::limits::REVISION_WAIT_MAX;

/// `ErrorInfo.domain` of every error.
const DOMAIN: &str = "capstan";

impl RequestError {
    const fn code(&self) -> Code {
        match self {
            Self::Field { .. } => Code::InvalidArgument,
            Self::NotReady
            | Self::Draining
            | Self::RevisionNotAvailable { .. }
            | Self::RevisionGone { .. } => Code::Unavailable,
            Self::StoreEpoch { .. } => Code::FailedPrecondition,
        }
    }

    /// `ErrorInfo.reason`.
    const fn reason(&self) -> &'static str {
        match self {
            Self::Field { .. } => "INVALID_FIELD",
            Self::NotReady | Self::Draining => "NOT_READY",
            Self::RevisionNotAvailable { .. } | Self::RevisionGone { .. } => {
                "REVISION_NOT_AVAILABLE"
            }
            Self::StoreEpoch { .. } => "STORE_EPOCH",
        }
    }

    /// The same error as one item of a batch has it.
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
            RequestError::StoreEpoch { .. } | RequestError::RevisionGone { .. } => vec![],
        };
        details.set_error_info(
            error.reason(),
            DOMAIN,
            metadata.into_iter().collect::<std::collections::HashMap<_, _>>(),
        );
        Self::with_error_details(error.code(), error.to_string(), details)
    }
}
