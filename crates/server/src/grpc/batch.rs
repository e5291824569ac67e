//! A batch, whether its names are borrowed from its bytes or it was decoded.

use capstan_engine::{Attributes, Snapshot, Timestamp};
use capstan_proto::v1;

use crate::RequestError;
use crate::grpc::answer;

/// What a batch asks.
#[derive(Debug)]
pub(crate) enum Batch<'r> {
    /// Identity, capability and resource of each check, and nothing else.
    Plain(Vec<[&'r str; 3]>),
    Decoded(&'r v1::BatchCheckRequest),
}

impl Batch<'_> {
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
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<v1::BatchCheckResponse, RequestError> {
        match self {
            Self::Plain(checks) => {
                let checks = checks.iter().map(|names| (*names, Attributes::NONE));
                answer::batch_check_names(snapshot, checks, now)
            }
            Self::Decoded(request) => answer::batch_check(snapshot, request, now),
        }
    }

    /// Identity, capability and resource of the check at this place; empty if there is none.
    pub(crate) fn names(&self, at: usize) -> [&str; 3] {
        let names = match self {
            Self::Plain(checks) => checks.get(at).copied(),
            Self::Decoded(request) => request.checks.get(at).map(|item| {
                let v1::CheckItem { identity, capability, resource, .. } = item;
                [identity, capability, resource].map(String::as_str)
            }),
        };
        names.unwrap_or_default()
    }
}
