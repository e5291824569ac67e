//! Errors to gRPC statuses (contract, section 7).
//!
//! **Invariant**: no other file turns an error of this crate into a status.

use std::collections::HashMap;
use std::time::Duration;

use capstan_iam::{self as iam, Cause};
use capstan_proto::contract::{ACCEPT_ENCODING_KEY, RETRY_PUSHBACK_KEY};
use capstan_proto::v1;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::RequestError;
use crate::error::{CallError, StoreFailure};
use crate::jitter::jittered;
use crate::limits::{GUESS_EVERY, RETRY_PUSHBACK, REVISION_WAIT_MAX};

/// `ErrorInfo.domain` of every error.
const DOMAIN: &str = "capstan";

impl RequestError {
    const fn code(&self) -> Code {
        match self {
            Self::Field { .. } => Code::InvalidArgument,
            Self::AuthnFailed => Code::Unauthenticated,
            Self::CallerNotAllowed { .. } => Code::PermissionDenied,
            Self::NotFound => Code::NotFound,
            Self::Bug { .. } => Code::Internal,
            Self::Unimplemented(_) => Code::Unimplemented,
            Self::NotReady
            | Self::Draining
            | Self::RevisionNotAvailable { .. }
            | Self::PageTooOld { .. }
            | Self::RevisionGone { .. }
            | Self::Unreadable => Code::Unavailable,
            Self::StoreEpoch { .. }
            | Self::ReadOnly
            | Self::TokenAlreadyIssued { .. }
            | Self::RevisionCompacted { .. } => Code::FailedPrecondition,
            Self::Refused(refusal) => match refusal.told.code() {
                iam::Code::InvalidArgument => Code::InvalidArgument,
                iam::Code::NotFound => Code::NotFound,
                iam::Code::AlreadyExists => Code::AlreadyExists,
                iam::Code::PermissionDenied => Code::PermissionDenied,
                iam::Code::FailedPrecondition => Code::FailedPrecondition,
                iam::Code::Aborted => Code::Aborted,
                iam::Code::Unauthenticated => Code::Unauthenticated,
            },
            Self::TooLarge(_) | Self::CredentialsWait | Self::GuessesWait | Self::TurnsTaken => {
                Code::ResourceExhausted
            }
            Self::Store(failure) => match failure {
                StoreFailure::Unreachable
                | StoreFailure::ReadOnly
                | StoreFailure::Full
                | StoreFailure::OutcomeUnknown => Code::Unavailable,
                StoreFailure::Busy | StoreFailure::Quota(_) => Code::ResourceExhausted,
            },
        }
    }

    /// `ErrorInfo.reason` (contract, section 7). What is hidden or absent, and what exists, has none.
    const fn reason(&self) -> Option<&'static str> {
        Some(match self {
            Self::Field { .. } => "INVALID_FIELD",
            Self::AuthnFailed => "AUTHN_FAILED",
            Self::CallerNotAllowed { .. } => "CALLER_NOT_ALLOWED",
            Self::NotFound | Self::Bug { .. } | Self::Unimplemented(_) => return None,
            Self::NotReady | Self::Draining => "NOT_READY",
            Self::RevisionNotAvailable { .. }
            | Self::PageTooOld { .. }
            | Self::RevisionGone { .. } => "REVISION_NOT_AVAILABLE",
            Self::StoreEpoch { .. } => "STORE_EPOCH",
            Self::ReadOnly => "READ_ONLY",
            Self::RevisionCompacted { .. } => "REVISION_COMPACTED",
            Self::TokenAlreadyIssued { .. } => "TOKEN_ALREADY_ISSUED",
            Self::Refused(refusal) => return refusal.told.reason(),
            Self::Unreadable => "STORE_UNREACHABLE",
            Self::TooLarge(_) => "TOO_LARGE",
            Self::CredentialsWait | Self::GuessesWait | Self::TurnsTaken => "OVERLOADED",
            Self::Store(failure) => match failure {
                StoreFailure::Unreachable => "STORE_UNREACHABLE",
                StoreFailure::ReadOnly => "STORE_READ_ONLY",
                StoreFailure::Full => "DISK_FULL",
                StoreFailure::OutcomeUnknown => "COMMIT_OUTCOME_UNKNOWN",
                StoreFailure::Busy => "OVERLOADED",
                StoreFailure::Quota(_) => "QUOTA",
            },
        })
    }

    /// When to try again; `None` if that depends on more than time.
    fn retry(&self) -> Option<Duration> {
        match self {
            Self::NotReady | Self::Draining | Self::RevisionNotAvailable { .. } => {
                Some(REVISION_WAIT_MAX)
            }
            Self::Unreadable
            | Self::CredentialsWait
            | Self::TurnsTaken
            | Self::Store(
                StoreFailure::Unreachable | StoreFailure::OutcomeUnknown | StoreFailure::Busy,
            ) => Some(jittered(RETRY_PUSHBACK, 2)),
            Self::GuessesWait => Some(GUESS_EVERY),
            _ => None,
        }
    }

    /// `ErrorInfo.metadata`.
    fn metadata(&self) -> HashMap<String, String> {
        let refusal = match self {
            Self::Field { field, .. } => return [("field".to_owned(), field.clone())].into(),
            Self::Refused(refusal) => refusal,
            _ => return HashMap::new(),
        };
        let mut metadata = HashMap::new();
        let mut add = |name: &str, value: String| metadata.insert(name.to_owned(), value);
        match &refusal.told {
            Cause::InvalidField { field, .. } => {
                add("field", field.clone());
            }
            Cause::MissingCapability { scope, missing } => {
                add("scope", scope.to_string());
                add("missing", joined(missing));
                add("missing_count", missing.len().to_string());
            }
            Cause::OperatorOnly { scope, absent } => {
                scope.iter().for_each(|scope| drop(add("scope", scope.to_string())));
                if !absent.is_empty() {
                    add("missing", joined(absent));
                    add("missing_count", absent.len().to_string());
                }
            }
            Cause::DurationExceeded { scope, .. } => {
                add("scope", scope.to_string());
            }
            _ => {}
        }
        // A reference that is foreign is told as one that is absent, which breaks no rule.
        let is_field = matches!(refusal.told, Cause::InvalidField { .. });
        let rule = refusal.rule.filter(|_| refusal.told == refusal.real && !is_field);
        if let Some(rule) = rule {
            add("rule", rule.number().to_owned());
        }
        metadata
    }

    /// The error of one check of a batch.
    pub(crate) fn item(&self) -> v1::ItemError {
        v1::ItemError {
            code: self.code().into(),
            reason: self.reason().unwrap_or_default().into(),
            message: self.to_string(),
        }
    }
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        let text = error.to_string();
        let Some(reason) = error.reason() else {
            // What carries no reason carries nothing: a hidden object is as an absent one, byte for byte, and of a bug
            // the caller learns nothing.
            return Self::new(error.code(), text);
        };
        let (mut details, metadata) = (ErrorDetails::new(), error.metadata());
        if let Some(field) = metadata.get("field") {
            let problem = text.strip_prefix(field).and_then(|rest| rest.strip_prefix(": "));
            details.add_bad_request_violation(field, problem.unwrap_or(&text));
        }
        let retry = error.retry();
        if retry.is_some() {
            details.set_retry_info(retry);
        }
        details.set_error_info(reason, DOMAIN, metadata);
        let mut status = Self::with_error_details(error.code(), text, details);
        if matches!(error, RequestError::RevisionGone { .. } | RequestError::PageTooOld { .. }) {
            // The list is of that revision for good: never retry.
            status.metadata_mut().insert(RETRY_PUSHBACK_KEY, (-1).into());
        }
        // What is exhausted has a push-back (contract, section 7). A quota is not used up by chance: no retry.
        if error.code() == Code::ResourceExhausted {
            let wait = retry.map_or(Ok(-1), |wait| i32::try_from(wait.as_millis()));
            status.metadata_mut().insert(RETRY_PUSHBACK_KEY, wait.unwrap_or(i32::MAX).into());
        }
        status
    }
}

/// Most capabilities in the metadata `missing` (contract, section 7).
const MISSING_MAX: usize = 50;

fn joined(capabilities: &[String]) -> String {
    capabilities.get(..MISSING_MAX).unwrap_or(capabilities).join(",")
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

#[cfg(test)]
mod tests {
    use super::*;
    use capstan_iam::{Refusal, Rule};

    fn refused(told: Cause, rule: Option<Rule>) -> RequestError {
        RequestError::from(Refusal {
            real: told.clone(),
            told,
            rule,
            who_could: vec![],
            item: None,
        })
    }

    /// Code and reason of section 7 of the contract.
    #[test]
    fn errors_of_management_have_the_codes_of_the_contract() {
        let id = || "acme".parse().unwrap();
        let scope = || Some("acme".parse().unwrap());
        let cases = [
            (RequestError::AuthnFailed, Code::Unauthenticated, "AUTHN_FAILED"),
            (
                RequestError::CallerNotAllowed {
                    problem: "Explain is not among its methods".into(),
                },
                Code::PermissionDenied,
                "CALLER_NOT_ALLOWED",
            ),
            (refused(Cause::AuthnFailed, None), Code::Unauthenticated, "AUTHN_FAILED"),
            (RequestError::CredentialsWait, Code::ResourceExhausted, "OVERLOADED"),
            (RequestError::GuessesWait, Code::ResourceExhausted, "OVERLOADED"),
            (RequestError::TurnsTaken, Code::ResourceExhausted, "OVERLOADED"),
            (RequestError::ReadOnly, Code::FailedPrecondition, "READ_ONLY"),
            (
                RequestError::TokenAlreadyIssued { id: id() },
                Code::FailedPrecondition,
                "TOKEN_ALREADY_ISSUED",
            ),
            (
                refused(
                    Cause::RoleNotAllowed {
                        role: "owner".into(),
                        capability: Some("roles.create".into()),
                    },
                    Some(Rule::PullToken),
                ),
                Code::FailedPrecondition,
                "ROLE_NOT_ALLOWED",
            ),
            (RequestError::Unreadable, Code::Unavailable, "STORE_UNREACHABLE"),
            (
                RequestError::Store(StoreFailure::Unreachable),
                Code::Unavailable,
                "STORE_UNREACHABLE",
            ),
            (RequestError::Store(StoreFailure::ReadOnly), Code::Unavailable, "STORE_READ_ONLY"),
            (RequestError::Store(StoreFailure::Full), Code::Unavailable, "DISK_FULL"),
            (
                RequestError::Store(StoreFailure::OutcomeUnknown),
                Code::Unavailable,
                "COMMIT_OUTCOME_UNKNOWN",
            ),
            (RequestError::Store(StoreFailure::Busy), Code::ResourceExhausted, "OVERLOADED"),
            (
                RequestError::Store(StoreFailure::Quota("x".into())),
                Code::ResourceExhausted,
                "QUOTA",
            ),
            (RequestError::TooLarge("x".into()), Code::ResourceExhausted, "TOO_LARGE"),
            (
                refused(Cause::OperatorOnly { scope: scope(), absent: vec![] }, None),
                Code::PermissionDenied,
                "OPERATOR_ONLY",
            ),
            (refused(Cause::BuiltIn { id: id() }, None), Code::FailedPrecondition, "BUILT_IN"),
            (refused(Cause::RoleInUse { id: id() }, None), Code::FailedPrecondition, "ROLE_IN_USE"),
            (refused(Cause::PullToken { id: id() }, None), Code::FailedPrecondition, "PULL_TOKEN"),
            (
                refused(Cause::LastOwner { organization: id() }, Some(Rule::LastOwner)),
                Code::FailedPrecondition,
                "LAST_OWNER",
            ),
            (refused(Cause::Conflict { id: id() }, None), Code::Aborted, "CONFLICT"),
        ];
        for (error, code, reason) in cases {
            let status = Status::from(error.clone());
            let info = status.get_details_error_info().unwrap();
            assert_eq!((status.code(), &*info.reason), (code, reason), "{error:?}");
            assert_eq!(info.domain, DOMAIN);
            if code == Code::ResourceExhausted {
                let wait = status.metadata().get(RETRY_PUSHBACK_KEY).unwrap().to_str().unwrap();
                assert_eq!(wait == "-1", reason != "OVERLOADED", "{error:?}");
            }
        }
    }

    #[test]
    fn what_is_missing_is_sorted_and_cut() {
        let missing: Vec<_> = (0..60).map(|at| format!("r{at:02}.get")).collect();
        let scope = "acme/a".parse().unwrap();
        let cause = Cause::MissingCapability { scope, missing };
        let status = Status::from(refused(cause, Some(Rule::Grant)));
        assert_eq!(status.code(), Code::PermissionDenied);
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.reason, "MISSING_CAPABILITY");
        assert_eq!(info.metadata.get("scope").map(String::as_str), Some("acme/a"));
        assert_eq!(info.metadata.get("missing_count").map(String::as_str), Some("60"));
        assert_eq!(info.metadata.get("rule").map(String::as_str), Some("R1"));
        let named: Vec<_> = info.metadata.get("missing").unwrap().split(',').collect();
        assert_eq!(named.len(), MISSING_MAX);
        assert!(named.is_sorted());
    }

    /// A hidden object is as an absent one, byte for byte.
    #[test]
    fn what_is_hidden_says_nothing() {
        let missing = vec!["groups.list".to_owned()];
        let real = Cause::MissingCapability { scope: "acme".parse().unwrap(), missing };
        let rule = Some(Rule::Visibility);
        let hidden = Refusal { told: Cause::NotFound, real, rule, who_could: vec![], item: None };
        for error in [RequestError::NotFound, hidden.into(), refused(Cause::NotFound, None)] {
            let status = Status::from(error);
            assert_eq!((status.code(), status.message()), (Code::NotFound, "not found"));
            assert!(status.details().is_empty() && status.metadata().is_empty());
        }
        let id = "acme".parse().unwrap();
        let status = Status::from(refused(Cause::AlreadyExists { id, same_binding: false }, None));
        assert_eq!(status.code(), Code::AlreadyExists);
        assert!(status.details().is_empty());
    }

    #[test]
    fn a_field_is_named_once() {
        let (field, problem) = ("group.id".to_owned(), "two segments".to_owned());
        let told = Cause::InvalidField { field, problem };
        let status = Status::from(refused(told.clone(), None));
        let foreign = Status::from(refused(told, Some(Rule::AcrossOrganizations)));
        assert_eq!(foreign.details(), status.details(), "as if it were absent");
        assert_eq!(status.code(), Code::InvalidArgument);
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata.get("field").map(String::as_str), Some("group.id"));
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].description, "two segments");
    }
}
