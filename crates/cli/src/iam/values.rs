//! Values of arguments: properties, conditions and times.

use std::collections::HashMap;
use std::io::Read as _;

use anyhow::{Context as _, anyhow, bail, ensure};
use capstan_engine::{Timestamp, parse_attribute, quote};
use capstan_policy::{parse_timestamp, whole};
use capstan_proto::iam::v1::{Condition, condition::Test};
use capstan_server::clock::Clock;
use prost_types::{Value, value::Kind};

use super::connection::Write;
use super::kind::time;
use crate::limits::CODE_BYTES_MAX;

/// `NAME=VALUE` arguments as properties.
///
/// # Errors
///
/// An argument without `=` or name, a name given twice, or a value that no condition can test.
pub(crate) fn properties(arguments: &[String]) -> anyhow::Result<HashMap<String, Value>> {
    let mut properties = HashMap::new();
    for argument in arguments {
        let (name, text) = argument.split_once('=').unwrap_or_default();
        ensure!(!name.is_empty(), "--property {}: expected NAME=VALUE", quote(argument));
        let value = value(text).with_context(|| format!("--property {}", quote(argument)))?;
        ensure!(
            properties.insert(name.to_owned(), value).is_none(),
            "--property: {} is given twice",
            quote(name)
        );
    }
    Ok(properties)
}

/// The options that change properties.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PropertyArgs {
    /// An attribute with its new value; repeat for several. Other attributes stay
    #[arg(long, value_name = "NAME=VALUE")]
    property: Vec<String>,

    /// An attribute that it no longer has; repeat for several
    #[arg(long, value_name = "NAME")]
    remove_property: Vec<String>,
}

/// A change of properties that are there.
#[derive(Debug)]
pub(crate) struct PropertyChange {
    added: HashMap<String, Value>,
    removed: Vec<String>,
}

impl PropertyArgs {
    /// The options, in messages.
    pub(crate) const OPTIONS: &str = "--property and --remove-property";

    /// The change; `None` if no option is given.
    ///
    /// # Errors
    ///
    /// As of [`properties`].
    pub(crate) fn change(self) -> anyhow::Result<Option<PropertyChange>> {
        let added = properties(&self.property)?;
        let change = PropertyChange { added, removed: self.remove_property };
        Ok((!change.added.is_empty() || !change.removed.is_empty()).then_some(change))
    }
}

impl PropertyChange {
    /// Changes properties. With `may_be_done` those that are taken away may be gone.
    ///
    /// # Errors
    ///
    /// A property that is taken away and is not there.
    pub(crate) fn apply(
        self,
        mut properties: HashMap<String, Value>,
        may_be_done: bool,
    ) -> anyhow::Result<HashMap<String, Value>> {
        for name in self.removed {
            ensure!(
                properties.remove(&name).is_some() || may_be_done,
                "--remove-property: there is no property {}",
                quote(&name)
            );
        }
        properties.extend(self.added);
        Ok(properties)
    }
}

/// A value as JSON or, if it is none, as a string.
///
/// # Errors
///
/// It is neither a string, a boolean, nor a whole number within ±(2^53 - 1) (contract, section 3).
fn value(text: &str) -> anyhow::Result<Value> {
    use serde_json::Value as Json;
    let kind = match serde_json::from_str(text) {
        Err(_) => Kind::StringValue(text.to_owned()),
        Ok(Json::String(text)) => Kind::StringValue(text),
        Ok(Json::Bool(value)) => Kind::BoolValue(value),
        Ok(Json::Number(number)) if number.as_f64().and_then(whole).is_some() => {
            Kind::NumberValue(number.as_f64().unwrap_or_default())
        }
        Ok(_) => bail!(
            "expected a string, true, false, or a whole number within ±(2^53 - 1); for other text as a string, quote \
             it: '\"...\"'"
        ),
    };
    Ok(Value { kind: Some(kind) })
}

/// `ATTRIBUTE=VALUE` or `ATTRIBUTE!=VALUE` as a condition.
///
/// # Errors
///
/// It has neither `=` nor `!=`, the attribute is of no category, or no condition can test the value.
pub(crate) fn condition(argument: &str) -> anyhow::Result<Condition> {
    let what = || format!("--when {}", quote(argument));
    let (attribute, text) = argument
        .split_once('=')
        .with_context(|| format!("{}: expected ATTRIBUTE=VALUE or ATTRIBUTE!=VALUE", what()))?;
    let (attribute, test): (_, fn(Value) -> Test) = match attribute.strip_suffix('!') {
        Some(attribute) => (attribute, Test::NotEquals),
        None => (attribute, Test::Equals),
    };
    ensure!(
        parse_attribute(attribute).is_some(),
        "{}: expected subject.NAME, resource.NAME, action.NAME or context.NAME before the sign",
        what()
    );
    let value = value(text).with_context(what)?;
    Ok(Condition { attribute: attribute.to_owned(), test: Some(test(value)) })
}

/// The options for the end of a role binding or a key.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(multiple = false, id = "end")]
pub(crate) struct EndArgs {
    /// It counts until this time: RFC 3339, such as 2027-01-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,

    /// It counts for so long from now: a number with s, m, h, d or w, such as 30d
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
}

impl EndArgs {
    /// The end; `None` if none is given.
    ///
    /// # Errors
    ///
    /// No time, or no duration.
    pub(crate) fn end(&self) -> anyhow::Result<Option<prost_types::Timestamp>> {
        self.end_after(Clock::System.now())
    }

    fn end_after(&self, now: Timestamp) -> anyhow::Result<Option<prost_types::Timestamp>> {
        let end = match (&self.expires_at, &self.ttl) {
            (None, None) => return Ok(None),
            (Some(time), _) => parse_timestamp(time)
                .map_err(|expected| anyhow!("--expires-at {}: expected {expected}", quote(time)))?,
            (None, Some(ttl)) => {
                let seconds = duration(ttl)
                    .and_then(|seconds| now.seconds().checked_add(seconds))
                    .with_context(|| format!("--ttl {}: {TTL_EXPECTED}", quote(ttl)))?;
                // Whoever reads it reads seconds.
                Timestamp::new(seconds, 0)
            }
        };
        let (seconds, nanos) = (end.seconds(), i32::try_from(end.nanos())?);
        Ok(Some(prost_types::Timestamp { seconds, nanos }))
    }

    /// Notes the end in the write: with `--ttl` each run of a command has another one.
    ///
    /// # Errors
    ///
    /// `--ttl` and `--request-id`.
    pub(crate) fn ensure_repeatable(
        &self,
        end: Option<prost_types::Timestamp>,
        write: &mut Write,
    ) -> anyhow::Result<()> {
        if self.ttl.is_some() {
            write.ensure_first("--ttl", "--expires-at instead")?;
            write.repeat_with(format!("--expires-at {} instead of --ttl", time(end)));
        }
        Ok(())
    }
}

/// The value of `--ttl` as a message.
///
/// # Errors
///
/// No duration.
pub(crate) fn ttl(text: &str) -> anyhow::Result<prost_types::Duration> {
    match duration(text) {
        Some(seconds) => Ok(prost_types::Duration { seconds, nanos: 0 }),
        None => bail!("--ttl {}: {TTL_EXPECTED}", quote(text)),
    }
}

/// A code that is given, or that standard input has if `-` is given: so other users of the machine do not see it.
///
/// # Errors
///
/// Standard input cannot be read, or has more than a code.
pub(crate) fn code(given: String) -> anyhow::Result<String> {
    let mut code = given;
    if code == "-" {
        code.clear();
        let most = u64::try_from(CODE_BYTES_MAX).unwrap_or(u64::MAX);
        let read = std::io::stdin().lock().take(most.saturating_add(1)).read_to_string(&mut code);
        read.context("standard input cannot be read as a code")?;
        ensure!(
            code.len() <= CODE_BYTES_MAX,
            "standard input has more than {CODE_BYTES_MAX} bytes, and a code is shorter"
        );
    }
    Ok(code.trim().to_owned())
}

/// What `--ttl` is, in messages.
const TTL_EXPECTED: &str = "expected a number with s, m, h, d or w, such as 30d";

/// Seconds of a duration such as `30d`; `None` if it is none, or zero.
fn duration(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        "w" => 7 * 24 * 60 * 60,
        _ => return None,
    };
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    let number: i64 = is_number.then(|| number.parse().ok())??;
    number.checked_mul(unit).filter(|seconds| *seconds > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Option<Kind> {
        value(text).ok()?.kind
    }

    #[test]
    fn values_are_json_or_strings() {
        assert_eq!(kind("true"), Some(Kind::BoolValue(true)));
        assert_eq!(kind("-3"), Some(Kind::NumberValue(-3.0)));
        assert_eq!(kind("\"3\""), Some(Kind::StringValue("3".into())));
        assert_eq!(kind("platform team"), Some(Kind::StringValue("platform team".into())));
        assert_eq!(kind(""), Some(Kind::StringValue(String::new())));
        for not_testable in ["null", "1.5", "[1]", "{}", "9007199254740992"] {
            assert_eq!(kind(not_testable), None, "{not_testable}");
        }
        assert!(kind("9007199254740991").is_some());
    }

    #[test]
    fn properties_have_names_and_are_given_once() {
        let read = |arguments: &[&str]| {
            properties(&arguments.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>())
        };
        let found = read(&["team=platform", "note=a=b"]).unwrap();
        assert_eq!(found["note"].kind, Some(Kind::StringValue("a=b".into())));
        for bad in [&["team"][..], &["=x"], &["a=1", "a=2"], &["a=null"]] {
            assert!(read(bad).unwrap_err().to_string().starts_with("--property"), "{bad:?}");
        }
    }

    #[test]
    fn a_condition_tests_equality_or_its_opposite() {
        let found = condition("resource.status!=archived").unwrap();
        assert_eq!(found.attribute, "resource.status");
        let archived = Value { kind: Some(Kind::StringValue("archived".into())) };
        assert_eq!(found.test, Some(Test::NotEquals(archived)));
        let found = condition("subject.level=3").unwrap();
        assert_eq!(found.test, Some(Test::Equals(Value { kind: Some(Kind::NumberValue(3.0)) })));
        let found = condition("context.query=a!=b").unwrap();
        assert_eq!(found.attribute, "context.query");
        for bad in ["resource.status", "status=1", "resource.=1", "resource.a=1.5"] {
            assert!(condition(bad).unwrap_err().to_string().starts_with("--when"), "{bad}");
        }
    }

    #[test]
    fn an_end_is_a_time_or_a_duration_from_now() {
        let now = Timestamp::new(1_000, 500);
        let end = |expires_at: Option<&str>, ttl: Option<&str>| {
            let [expires_at, ttl] = [expires_at, ttl].map(|text| text.map(str::to_owned));
            EndArgs { expires_at, ttl }.end_after(now)
        };
        let seconds = |ttl| end(None, Some(ttl)).ok().flatten().map(|end| end.seconds - 1_000);
        assert_eq!(end(None, None).unwrap(), None);
        assert_eq!(seconds("45s"), Some(45));
        assert_eq!(seconds("90m"), Some(5_400));
        assert_eq!(seconds("12h"), Some(43_200));
        assert_eq!(seconds("30d"), Some(2_592_000));
        assert_eq!(seconds("2w"), Some(1_209_600));
        for bad in ["", "d", "30", "-1d", "+1d", "1.5d", "0s", "1y", "30ä", "9223372036854775807w"]
        {
            assert_eq!(seconds(bad), None, "{bad}");
        }
        let time = end(Some("2027-01-01T00:00:00.25Z"), None).unwrap().unwrap();
        assert_eq!((time.seconds, time.nanos), (1_798_761_600, 250_000_000));
        let error = end(Some("tomorrow"), None).unwrap_err().to_string();
        assert!(error.contains("--expires-at `tomorrow`: expected"), "{error}");
    }
}
