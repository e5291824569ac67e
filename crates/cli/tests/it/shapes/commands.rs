//! The questions as commands: their JSON output and exit codes.

use capstan_engine::{Properties, Timestamp, Value as Property};
use capstan_policy::format_timestamp;
use capstan_proto::v1;
use capstan_testkit::generate::Question;
use proptest::prelude::*;
use prost_types::value::Kind;
use serde_json::{Value, json};

use super::{Answers, without_resource};
use crate::common::{capstan, stderr, stdout};

/// The lines of a file for `check --file`.
pub(super) fn queries(questions: &[Question]) -> String {
    let line = |question: &Question| {
        let Question { identity, capability, resource, attributes } = question;
        let query = json!({
            "identity": identity.as_str(),
            "capability": capability,
            "resource": resource.as_str(),
            "properties": {
                "subject": properties(&attributes.subject),
                "resource": properties(&attributes.resource),
                "action": properties(&attributes.action),
                "context": properties(&attributes.context),
            },
        });
        query.to_string() + "\n"
    };
    questions.iter().map(line).collect()
}

/// `check --file` prints one line for each question, in order.
pub(super) fn check_file(
    queries: &str,
    target: &[&str; 2],
    answers: &[Answers],
) -> Result<(), TestCaseError> {
    let output = capstan(&[&["check", "--file", queries], &target[..]].concat());
    let printed = stdout(&output);
    let found = printed.lines().map(|it| without_advice(serde_json::from_str(it).unwrap()));
    let found: Vec<Value> = found.collect();
    let expected: Vec<_> = answers.iter().map(|answers| decision(&answers.check)).collect();
    prop_assert_eq!(found, expected, "{}", stderr(&output));
    let failed = answers.iter().any(|answers| answers.check.is_err());
    prop_assert_eq!(output.status.code(), Some(if failed { 2 } else { 0 }));
    Ok(())
}

/// Compares the commands that answer one question.
pub(super) fn agree(
    question: &Question,
    target: &[&str; 2],
    answers: &Answers,
) -> Result<(), TestCaseError> {
    let Question { identity, capability, resource, .. } = question;
    let (identity, resource) = (identity.as_str(), resource.as_str());
    let supplied = supplied(question);
    // ListScopes accepts no properties of the resource.
    let of_identity =
        self::supplied(&Question { attributes: without_resource(question), ..question.clone() });
    let run = |command: &[&str], supplied: &[String], expected: Value, code: i32| {
        let supplied = supplied.iter().map(String::as_str);
        let arguments: Vec<_> =
            command.iter().copied().chain(supplied).chain(target.iter().copied()).collect();
        let output = capstan(&[&arguments[..], &["--output", "json"]].concat());
        let found = serde_json::from_str::<Value>(&stdout(&output)).ok().map(without_advice);
        prop_assert_eq!(found, Some(expected), "{:?}: {}", arguments, stderr(&output));
        prop_assert_eq!(output.status.code(), Some(code), "{:?}", arguments);
        Ok(())
    };

    let code = answers.check.as_ref().map_or(2, |check| i32::from(!check.allowed));
    run(&["check", identity, capability, resource], &supplied, decision(&answers.check), code)?;

    let v1::ListCapabilitiesResponse { capabilities, grants, revision } = &answers.capabilities;
    let grants: Vec<_> = grants.iter().map(grant).collect();
    let expected = json!({"capabilities": capabilities, "grants": grants, "revision": revision});
    run(&["capabilities", identity, resource], &supplied, expected, 0)?;

    // The other commands fail only if Check fails.
    let code = code / 2 * 2;
    let expected = match &answers.identities {
        Ok(identities) => {
            let found = answers.conditional_identities.as_ref().unwrap().iter();
            let found = found
                .map(|one| json!({"identity": one.identity, "grants": conditional(&one.grants)}));
            let json = json!({"identities": identities, "revision": 1});
            with(json, "conditional", listed(found.collect()))
        }
        Err(error) => json!({"error": error}),
    };
    run(&["who", capability, resource], &supplied, expected, code)?;

    let expected = match &answers.scopes {
        Ok(scopes) => {
            let scope =
                |it: &v1::ScopeResult| json!({"scope": it.scope, "conditional": it.conditional});
            let json =
                json!({"scopes": scopes.iter().map(scope).collect::<Vec<_>>(), "revision": 1});
            let found = answers.conditional_scopes.as_ref().unwrap().iter();
            let found =
                found.map(|one| json!({"scope": one.scope, "grants": conditional(&one.grants)}));
            with(json, "conditional", listed(found.collect()))
        }
        Err(error) => json!({"error": error}),
    };
    run(&["where", identity, capability], &of_identity, expected, code)?;

    let expected = explanation(&answers.explanation);
    run(&["explain", identity, capability, resource], &supplied, expected, code)
}

/// An answer without the advice behind its error. The only possible error is an unknown capability.
fn without_advice(mut answer: Value) -> Value {
    if let Some(error) = answer["error"].as_str() {
        let starts = ["; did you mean `", "; `capstan catalog capabilities"];
        let end =
            starts.iter().find_map(|start| error.find(start)).expect("an error without advice");
        answer["error"] = error[..end].into();
    }
    answer
}

/// A `--property` option for each attribute. Values are JSON, so that `"1"` is not a number.
fn supplied(question: &Question) -> Vec<String> {
    let attributes = &question.attributes;
    let all = [
        ("subject", &attributes.subject),
        ("resource", &attributes.resource),
        ("action", &attributes.action),
        ("context", &attributes.context),
    ];
    let each = |(of, properties): (&str, &Properties)| {
        let each = |(name, held)| ["--property".to_owned(), format!("{of}.{name}={}", value(held))];
        properties.iter().flat_map(each).collect::<Vec<_>>()
    };
    all.into_iter().flat_map(each).collect()
}

// === Answers as JSON ===

fn decision(check: &Result<v1::CheckResponse, String>) -> Value {
    match check {
        Ok(check) => {
            let (reason, revision) = (reason(check.reason()), check.revision);
            let json = json!({"allowed": check.allowed, "reason": reason, "revision": revision});
            with(json, "valid_until", check.valid_until.map(time))
        }
        Err(error) => json!({"error": error}),
    }
}

fn explanation(explanation: &Result<v1::ExplainResponse, String>) -> Value {
    match explanation {
        Ok(found) => {
            let json = json!({
                "allowed": found.allowed,
                "reason": reason(found.reason()),
                "missing": found.missing,
                "roles": found.roles,
                "revision": found.revision,
            });
            let text = |text: &String| Value::from(text.as_str());
            let declared = Some(&found.declared).filter(|path| !path.is_empty());
            let json = with(json, "witness", found.witness.as_ref().map(grant));
            let uncounted = found.uncounted.iter().map(uncounted).collect();
            let json = with(json, "uncounted", listed(uncounted));
            let json = with(json, "elsewhere", listed(found.elsewhere.iter().map(grant).collect()));
            let json = with(json, "declared", declared.map(text));
            let similar = found.similar.iter().map(text).collect();
            let json = with(json, "similar", listed(similar));
            with(json, "disabled", found.disabled.then_some(Value::Bool(true)))
        }
        Err(error) => json!({"error": error}),
    }
}

fn conditional(grants: &[v1::ConditionalGrant]) -> Vec<Value> {
    let open = |test: &v1::OpenTest| {
        let (key, wanted) = match test.wanted.as_ref().unwrap() {
            v1::open_test::Wanted::Equals(wanted) => ("equals", wanted),
            v1::open_test::Wanted::NotEquals(refused) => ("not_equals", refused),
        };
        json!({"attribute": test.attribute, key: plain(wanted)})
    };
    let grants = grants.iter().map(|one| {
        let open: Vec<_> = one.open.iter().map(open).collect();
        json!({"grant": grant(one.grant.as_ref().unwrap()), "open": open})
    });
    grants.collect()
}

/// An empty list has no key.
fn listed(values: Vec<Value>) -> Option<Value> {
    (!values.is_empty()).then_some(values.into())
}

fn uncounted(binding: &v1::UncountedBinding) -> Value {
    let failed = binding.failed.iter().map(|test| {
        let (key, wanted) = match test.wanted.as_ref().unwrap() {
            v1::failed_test::Wanted::Equals(wanted) => ("equals", wanted),
            v1::failed_test::Wanted::NotEquals(refused) => ("not_equals", refused),
        };
        let json = json!({"attribute": test.attribute, key: plain(wanted)});
        with(json, "seen", test.seen.as_ref().map(plain))
    });
    let failed: Vec<_> = failed.collect();
    let grant = grant(binding.grant.as_ref().unwrap());
    json!({"grant": grant, "expired": binding.expired, "failed": failed})
}

fn plain(value: &prost_types::Value) -> Value {
    match value.kind.as_ref().unwrap() {
        Kind::StringValue(text) => text.as_str().into(),
        Kind::BoolValue(value) => (*value).into(),
        Kind::NumberValue(number) => capstan_policy::whole(*number).unwrap().into(),
        other => panic!("{other:?} is no attribute"),
    }
}

fn grant(grant: &v1::Grant) -> Value {
    let v1::Grant { binding, role, scope, expires_at } = grant;
    let json = json!({"binding": binding, "role": role, "scope": scope});
    with(json, "expires_at", expires_at.map(time))
}

/// An absent value has no key.
fn with(mut json: Value, key: &str, value: Option<Value>) -> Value {
    if let Some(value) = value {
        json[key] = value;
    }
    json
}

fn reason(reason: v1::Reason) -> &'static str {
    reason.as_str_name().strip_prefix("REASON_").unwrap()
}

fn time(time: prost_types::Timestamp) -> Value {
    let nanos = u32::try_from(time.nanos).unwrap();
    format_timestamp(Timestamp::new(time.seconds, nanos)).unwrap().into()
}

/// Properties as JSON, as in a query line.
fn properties(properties: &Properties) -> Value {
    properties.iter().map(|(name, held)| (name.clone(), value(held))).collect()
}

fn value(value: &Property) -> Value {
    match value {
        Property::String(text) => text.as_str().into(),
        Property::Boolean(value) => (*value).into(),
        Property::Integer(number) => (*number).into(),
    }
}
