//! Fields of management requests to values of the engine.
//!
//! **Invariant**: every refusal names the field by its path in the request, such as `role_binding.expires_at`.

use std::collections::HashMap;
use std::time::Duration;

use capstan_engine::{Condition, PathBuf, Properties, Timestamp, Value, parse_attribute};
use capstan_policy::whole;
use capstan_proto::iam::v1::{self, condition::Test};
use prost_types::value::Kind;

use crate::RequestError;
use crate::limits::REQUEST_ID_BYTES_MAX;

/// Seconds of 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z: the range of `google.protobuf.Timestamp`.
pub(super) const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A message that must be there.
///
/// # Errors
///
/// It is absent.
pub(super) fn required<M>(field: &str, message: Option<M>) -> Result<M, RequestError> {
    message.ok_or_else(|| RequestError::field(field, "missing"))
}

/// A path.
///
/// # Errors
///
/// It is empty or malformed.
pub(super) fn path(field: &str, text: &str) -> Result<PathBuf, RequestError> {
    text.parse().map_err(|error| RequestError::field(field, error))
}

/// A path; `None` if it is empty.
///
/// # Errors
///
/// It is malformed.
pub(super) fn optional_path(field: &str, text: &str) -> Result<Option<PathBuf>, RequestError> {
    if text.is_empty() { Ok(None) } else { path(field, text).map(Some) }
}

/// A text; `None` if it is empty.
pub(super) fn optional(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// A request id; `None` if it is empty.
///
/// # Errors
///
/// It is longer than [`REQUEST_ID_BYTES_MAX`], or has characters other than visible ASCII.
pub(super) fn request_id(text: String) -> Result<Option<String>, RequestError> {
    let refused = |problem| Err(RequestError::field("request_id", problem));
    if text.len() > REQUEST_ID_BYTES_MAX {
        return refused(format!("{} bytes: at most {REQUEST_ID_BYTES_MAX}", text.len()));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return refused("only visible ASCII characters, such as a UUID".into());
    }
    Ok(optional(text))
}

/// A time.
///
/// # Errors
///
/// Its year is not 1 to 9999, or its nanoseconds are not below a second.
pub(super) fn timestamp(
    field: &str,
    time: prost_types::Timestamp,
) -> Result<Timestamp, RequestError> {
    match u32::try_from(time.nanos) {
        Ok(nanos) if nanos < 1_000_000_000 && SECONDS.contains(&time.seconds) => {
            Ok(Timestamp::new(time.seconds, nanos))
        }
        _ => Err(RequestError::field(field, "not a time of the years 1 to 9999")),
    }
}

/// A time; `None` if it is absent.
///
/// # Errors
///
/// As [`timestamp`].
pub(super) fn optional_timestamp(
    field: &str,
    time: Option<prost_types::Timestamp>,
) -> Result<Option<Timestamp>, RequestError> {
    time.map(|time| timestamp(field, time)).transpose()
}

/// A duration of 0 or more; `None` if it is absent.
///
/// # Errors
///
/// It is negative, or its nanoseconds are not below a second.
pub(super) fn optional_duration(
    field: &str,
    duration: Option<prost_types::Duration>,
) -> Result<Option<Duration>, RequestError> {
    let Some(prost_types::Duration { seconds, nanos }) = duration else { return Ok(None) };
    match (u64::try_from(seconds), u32::try_from(nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => {
            Ok(Some(Duration::new(seconds, nanos)))
        }
        _ => Err(RequestError::field(field, "not a duration of 0 or more seconds")),
    }
}

/// The id of a role, built in or custom.
///
/// # Errors
///
/// It is empty.
pub(super) fn role(field: &str, id: String) -> Result<Box<str>, RequestError> {
    if id.is_empty() { Err(RequestError::field(field, "missing")) } else { Ok(id.into()) }
}

/// Properties. Unlike in a question, every value must be of a known type.
///
/// # Errors
///
/// A value is neither a string, a boolean nor a whole number.
pub(super) fn properties(
    field: &str,
    all: HashMap<String, prost_types::Value>,
) -> Result<Properties, RequestError> {
    let one = |(name, of): (String, prost_types::Value)| {
        let value =
            value(of).map_err(|problem| RequestError::field(&format!("{field}.{name}"), problem));
        value.map(|value| (name, value))
    };
    all.into_iter().map(one).collect()
}

fn value(value: prost_types::Value) -> Result<Value, &'static str> {
    match value.kind {
        Some(Kind::StringValue(text)) => Ok(Value::String(text)),
        Some(Kind::BoolValue(value)) => Ok(Value::Boolean(value)),
        Some(Kind::NumberValue(number)) => match whole(number) {
            Some(number) => Ok(Value::Integer(number)),
            None => Err("a number must be whole and within ±(2^53 - 1)"),
        },
        Some(Kind::NullValue(_) | Kind::StructValue(_) | Kind::ListValue(_)) | None => {
            Err("expected a string, a boolean or a whole number")
        }
    }
}

/// Conditions.
///
/// # Errors
///
/// An attribute is not `subject.NAME`, `resource.NAME`, `action.NAME` or `context.NAME`, there is not exactly one test, or
/// its value is of no known type.
pub(super) fn conditions(
    field: &str,
    all: Vec<v1::Condition>,
) -> Result<Vec<Condition>, RequestError> {
    let one = |(at, condition): (usize, v1::Condition)| {
        let refused = |name: &str, problem: &str| {
            RequestError::field(&format!("{field}[{at}].{name}"), problem)
        };
        let Some((category, name)) = parse_attribute(&condition.attribute) else {
            let problem = "expected `subject.`, `resource.`, `action.` or `context.`, and a name";
            return Err(refused("attribute", problem));
        };
        let (equals, name, wanted) = match condition.test {
            Some(Test::Equals(value)) => (true, (name, "equals"), value),
            Some(Test::NotEquals(value)) => (false, (name, "not_equals"), value),
            None => return Err(refused("equals", "set `equals` or `not_equals`")),
        };
        let value = value(wanted).map_err(|problem| refused(name.1, problem))?;
        Ok(Condition { category, name: name.0.to_owned(), equals, value })
    };
    all.into_iter().enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<T: std::fmt::Debug>(result: Result<T, RequestError>) -> String {
        match result {
            Err(RequestError::Field { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    }

    const fn of(kind: Kind) -> prost_types::Value {
        prost_types::Value { kind: Some(kind) }
    }

    #[test]
    fn times_are_of_the_range_of_the_schema() {
        let time = |seconds, nanos| timestamp("t", prost_types::Timestamp { seconds, nanos });
        assert_eq!(time(0, 7).unwrap(), Timestamp::new(0, 7));
        assert_eq!(time(*SECONDS.end(), 999_999_999).unwrap().seconds(), *SECONDS.end());
        assert!(time(*SECONDS.start(), 0).is_ok());
        for (seconds, nanos) in
            [(SECONDS.end() + 1, 0), (SECONDS.start() - 1, 0), (0, -1), (0, 1_000_000_000)]
        {
            assert_eq!(field(time(seconds, nanos)), "t", "{seconds} {nanos}");
        }
    }

    #[test]
    fn request_ids_are_short_and_visible() {
        let longest = "x".repeat(REQUEST_ID_BYTES_MAX);
        assert_eq!(request_id(String::new()).unwrap(), None);
        assert_eq!(request_id(longest.clone()).unwrap(), Some(longest.clone()));
        for refused in [longest + "x", "a b".into(), "\u{e4}".into(), "a\0".into()] {
            assert_eq!(field(request_id(refused)), "request_id");
        }
    }

    #[test]
    fn properties_have_known_types() {
        let all = [
            ("s", of(Kind::StringValue("1".into()))),
            ("b", of(Kind::BoolValue(true))),
            ("n", of(Kind::NumberValue(-1.0))),
        ];
        let found = properties("p", all.map(|(name, value)| (name.to_owned(), value)).into());
        let expected = [
            ("s", Value::String("1".into())),
            ("b", Value::Boolean(true)),
            ("n", Value::Integer(-1)),
        ];
        assert_eq!(found.unwrap(), expected.map(|(name, value)| (name.to_owned(), value)).into());
        for kind in [Kind::NumberValue(0.5), Kind::NumberValue(f64::NAN), Kind::NullValue(0)] {
            assert_eq!(field(properties("p", [("x".to_owned(), of(kind))].into())), "p.x");
        }
        let empty = prost_types::Value { kind: None };
        assert_eq!(field(properties("p", [("x".to_owned(), empty)].into())), "p.x");
    }

    #[test]
    fn a_condition_is_one_test_of_one_attribute() {
        let condition = |attribute: &str, test| v1::Condition { attribute: attribute.into(), test };
        let yes = || of(Kind::BoolValue(true));
        let equals = condition("subject.a.b", Some(Test::Equals(yes())));
        let found = conditions("when", vec![equals.clone()]).unwrap();
        assert_eq!((found[0].attribute(), found[0].equals), ("subject.a.b".into(), true));
        let differs = condition("context.x", Some(Test::NotEquals(yes())));
        assert!(!conditions("when", vec![differs]).unwrap()[0].equals);
        for (refused, at) in [
            (condition("subject", Some(Test::Equals(yes()))), "when[1].attribute"),
            (condition("", Some(Test::Equals(yes()))), "when[1].attribute"),
            (condition("subject.a", None), "when[1].equals"),
            (condition("subject.a", Some(Test::Equals(of(Kind::NullValue(0))))), "when[1].equals"),
            (
                condition("subject.a", Some(Test::NotEquals(of(Kind::NumberValue(0.5))))),
                "when[1].not_equals",
            ),
        ] {
            assert_eq!(field(conditions("when", vec![equals.clone(), refused])), at);
        }
    }

    #[test]
    fn empty_paths_are_absent_only_where_they_may_be() {
        assert_eq!(optional_path("parent", "").unwrap(), None);
        assert_eq!(optional_path("parent", "a/b").unwrap(), Some("a/b".parse().unwrap()));
        assert_eq!(field(optional_path("parent", "a//b")), "parent");
        assert_eq!(field(path("id", "")), "id");
        assert_eq!(field(required("group", None::<()>)), "group");
    }
}
