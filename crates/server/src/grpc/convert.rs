//! Conversion between the schema's values and the engine's.

use std::borrow::Cow;
use std::collections::HashMap;

use capstan_engine::{
    Attributes, Capabilities, ConditionalGrant, Decision, Explanation, Grant, Properties, Reason,
    Scope, Snapshot, Timestamp, Uncounted, Value,
};
use capstan_policy::whole;
use capstan_proto::v1::{self, consistency::Mode, failed_test, open_test};
use prost_types::value::Kind;

use crate::RequestError;
use crate::feed::Freshness;
use crate::limits::PROPERTIES_MAX;

// === From the wire ===

/// The attributes of a request. Without properties it allocates nothing.
///
/// # Errors
///
/// More than [`PROPERTIES_MAX`] properties.
pub(crate) fn attributes(
    properties: Option<&v1::Properties>,
) -> Result<Cow<'static, Attributes>, RequestError> {
    let Some(v1::Properties { subject, resource, action, context }) = properties else {
        return Ok(Cow::Borrowed(Attributes::NONE));
    };
    let count: usize = [subject, resource, action, context].map(HashMap::len).iter().sum();
    if count > PROPERTIES_MAX {
        let problem = format!("{count} properties: at most {PROPERTIES_MAX} are allowed");
        return Err(RequestError::field("properties", problem));
    }
    Ok(Cow::Owned(Attributes {
        subject: values(subject),
        resource: values(resource),
        action: values(action),
        context: values(context),
    }))
}

/// Strings, booleans, and whole numbers within 2^53. Any other value counts as absent.
fn values(all: &HashMap<String, prost_types::Value>) -> Properties {
    let known = |value: &prost_types::Value| match value.kind.as_ref()? {
        Kind::StringValue(text) => Some(Value::String(text.clone())),
        Kind::BoolValue(value) => Some(Value::Boolean(*value)),
        Kind::NumberValue(number) => whole(*number).map(Value::Integer),
        Kind::NullValue(_) | Kind::StructValue(_) | Kind::ListValue(_) => None,
    };
    all.iter().filter_map(|(name, value)| Some((name.clone(), known(value)?))).collect()
}

/// The freshness that the consistency of a request asks for.
pub(crate) fn freshness(consistency: Option<&v1::Consistency>) -> Freshness {
    match consistency.and_then(|consistency| consistency.mode.as_ref()) {
        Some(Mode::AtLeast(revision)) => Freshness::AtLeast(*revision),
        Some(Mode::FullyConsistent(true)) => Freshness::Full,
        Some(Mode::FullyConsistent(false)) | None => Freshness::Any,
    }
}

// === To the wire ===

const fn reason(reason: Reason) -> v1::Reason {
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
    // Nanoseconds are below 10^9 and fit into an `i32`.
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

pub(crate) fn capabilities_response(
    found: Capabilities<'_>,
    snapshot: &Snapshot,
) -> v1::ListCapabilitiesResponse {
    let Capabilities { capabilities, grants } = found;
    let names = capabilities.iter().filter_map(|at| snapshot.catalog().capability_name(at));
    v1::ListCapabilitiesResponse {
        capabilities: names.map(Into::into).collect(),
        grants: grants.into_iter().map(grant).collect(),
        revision: snapshot.revision(),
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

pub(crate) fn explain_response(
    explanation: Explanation<'_>,
    capability: &str,
    revision: u64,
) -> v1::ExplainResponse {
    let Explanation { decision, disabled, witness, roles, uncounted, elsewhere, declared, similar } =
        explanation;
    let missing = if decision.allowed() { vec![] } else { vec![capability.to_owned()] };
    v1::ExplainResponse {
        allowed: decision.allowed(),
        reason: reason(decision.reason).into(),
        witness: witness.map(grant),
        missing,
        roles: roles.into_iter().map(Into::into).collect(),
        revision,
        uncounted: uncounted.into_iter().map(self::uncounted).collect(),
        elsewhere: elsewhere.into_iter().map(grant).collect(),
        declared: declared.unwrap_or_default().into(),
        similar: similar.into_iter().map(Into::into).collect(),
        disabled,
    }
}

fn uncounted(binding: Uncounted<'_>) -> v1::UncountedBinding {
    let failed = binding.failed.into_iter().map(|(condition, seen)| v1::FailedTest {
        attribute: condition.attribute(),
        wanted: Some(if condition.equals {
            failed_test::Wanted::Equals(value(&condition.value))
        } else {
            failed_test::Wanted::NotEquals(value(&condition.value))
        }),
        seen: seen.as_ref().map(value),
    });
    v1::UncountedBinding {
        expired: binding.expired,
        failed: failed.collect(),
        grant: Some(grant(binding.grant)),
    }
}

pub(crate) fn conditional_grant(conditional: ConditionalGrant<'_>) -> v1::ConditionalGrant {
    let open = conditional.open.into_iter().map(|condition| v1::OpenTest {
        attribute: condition.attribute(),
        wanted: Some(if condition.equals {
            open_test::Wanted::Equals(value(&condition.value))
        } else {
            open_test::Wanted::NotEquals(value(&condition.value))
        }),
    });
    v1::ConditionalGrant { open: open.collect(), grant: Some(grant(conditional.grant)) }
}

pub(crate) fn value(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Boolean(value) => Kind::BoolValue(*value),
        Value::Integer(number) => Kind::NumberValue(*number as f64),
    };
    prost_types::Value { kind: Some(kind) }
}

pub(crate) fn scope(scope: Scope<'_>) -> v1::ScopeResult {
    v1::ScopeResult { scope: scope.scope.into(), conditional: scope.conditional }
}
