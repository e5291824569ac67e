//! A batch of checks, with names borrowed from its bytes or decoded by prost.

use capstan_engine::Attributes;
use capstan_proto::plain::BatchRequest;
use capstan_proto::v1;
use tonic::Status;

use super::answer;
use crate::RequestError;
use crate::ask::{Ask, Basis, Names, too_many_checks};
use crate::error::CallError;

/// The checks of a batch.
#[derive(Debug)]
pub(crate) enum Batch<'r> {
    /// Identity, capability and resource of each check; no check has properties.
    Plain(Vec<Names<'r>>),
    /// Decoded checks, of which some have properties.
    Decoded(&'r v1::BatchCheckRequest),
}

impl<'r> Batch<'r> {
    /// The checks of a request, and its consistency.
    ///
    /// # Errors
    ///
    /// Too many checks, or a name that is not UTF-8.
    pub(crate) fn of(
        request: &'r BatchRequest,
    ) -> Result<(Self, Option<&'r v1::Consistency>), Status> {
        match request {
            BatchRequest::Plain(plain) => Ok((Self::Plain(plain.checks()?), plain.consistency())),
            BatchRequest::Decoded(request) => {
                Ok((Self::Decoded(request), request.consistency.as_ref()))
            }
            // Not reached: `Services::batch` decodes long batches first.
            BatchRequest::Long(_) => Err(CallError::Bug { correlation: "long".into() }.into()),
            BatchRequest::TooMany(checks) => Err(too_many_checks(*checks).into()),
        }
    }

    /// The number of checks.
    pub(crate) const fn len(&self) -> usize {
        match self {
            Self::Plain(checks) => checks.len(),
            Self::Decoded(request) => request.checks.len(),
        }
    }

    /// Decides the batch.
    ///
    /// # Errors
    ///
    /// As [`answer::batch_check`].
    pub(crate) fn answer(
        &self,
        ask: &Ask,
        basis: Basis<'_>,
    ) -> Result<v1::BatchCheckResponse, RequestError> {
        match self {
            Self::Plain(checks) => {
                let checks = checks.iter().map(|names| (*names, Ok(Attributes::NONE)));
                answer::batch_check_names(ask, basis, checks)
            }
            Self::Decoded(request) => answer::batch_check(ask, basis, &request.checks),
        }
    }
}
