//! A batch, whether its names are borrowed from its bytes or it was decoded.

use capstan_engine::Attributes;
use capstan_proto::plain::BatchRequest;
use capstan_proto::v1;
use tonic::Status;

use super::answer;
use crate::RequestError;
use crate::ask::{Ask, Basis, Names, too_many_checks};

/// What a batch asks.
#[derive(Debug)]
pub(crate) enum Batch<'r> {
    /// Identity, capability and resource of each check, and nothing else.
    Plain(Vec<Names<'r>>),
    /// Checks of which some supply properties.
    Decoded(&'r v1::BatchCheckRequest),
}

impl<'r> Batch<'r> {
    /// The checks of a request, and how recent their snapshot must be.
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
            BatchRequest::TooMany(checks) => Err(too_many_checks(*checks).into()),
        }
    }

    /// How many checks there are.
    pub(crate) const fn len(&self) -> usize {
        match self {
            Self::Plain(checks) => checks.len(),
            Self::Decoded(request) => request.checks.len(),
        }
    }

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
                let checks = checks.iter().map(|names| (*names, Attributes::NONE));
                answer::batch_check_names(ask, basis, checks)
            }
            Self::Decoded(request) => answer::batch_check(ask, basis, request),
        }
    }
}
