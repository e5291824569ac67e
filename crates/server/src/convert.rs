//! The one place where the words of the wire and those of the engine meet.

use capstan_engine::{Catalog, Decision, Family, Grant, Path, Question, Reason, Role, Timestamp};
use capstan_proto::v1;

use crate::RequestError;

// === From the wire ===

pub(crate) fn path<'r>(field: &str, text: &'r str) -> Result<Path<'r>, RequestError> {
    Path::parse(text).map_err(|error| RequestError::field(field, error))
}

pub(crate) fn question<'r>(
    identity: &'r str,
    capability: &'r str,
    resource: &'r str,
) -> Result<Question<'r>, RequestError> {
    Ok(Question {
        identity: path("identity", identity)?,
        capability,
        resource: path("resource", resource)?,
    })
}

// === To the wire ===

pub(crate) const fn reason(reason: Reason) -> v1::Reason {
    match reason {
        Reason::Granted => v1::Reason::Granted,
        Reason::UnknownIdentity => v1::Reason::UnknownIdentity,
        Reason::Expired => v1::Reason::Expired,
        Reason::ConditionNotMet => v1::Reason::ConditionNotMet,
        Reason::CapabilityNotInRole => v1::Reason::CapabilityNotInRole,
        Reason::NoBinding => v1::Reason::NoBinding,
    }
}

pub(crate) fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    // Nanoseconds are below 10^9, which fits.
    prost_types::Timestamp {
        seconds: time.seconds(),
        nanos: i32::try_from(time.nanos()).unwrap_or_default(),
    }
}

pub(crate) fn check_response(decision: Decision, revision: u64) -> v1::CheckResponse {
    v1::CheckResponse {
        allowed: decision.allowed(),
        reason: reason(decision.reason).into(),
        revision,
        valid_until: decision.valid_until.map(timestamp),
    }
}

pub(crate) fn check_result(decision: Decision) -> v1::CheckResult {
    v1::CheckResult {
        allowed: decision.allowed(),
        reason: reason(decision.reason).into(),
        error: None,
        valid_until: decision.valid_until.map(timestamp),
    }
}

pub(crate) fn grant(grant: Grant<'_>) -> v1::Grant {
    v1::Grant {
        binding: grant.binding.into_owned(),
        role: grant.role.into(),
        scope: grant.scope.into(),
        expires_at: grant.expires_at.map(timestamp),
    }
}

pub(crate) fn role(catalog: &Catalog, role: &Role) -> v1::Role {
    let names = role.capabilities.iter().filter_map(|at| catalog.capability_name(at));
    v1::Role {
        id: role.id.to_string(),
        name: String::new(),
        description: role.description.to_string(),
        family: Family::as_str(role.family).into(),
        capabilities: names.map(Into::into).collect(),
    }
}
