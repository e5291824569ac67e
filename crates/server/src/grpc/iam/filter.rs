//! Filters of lists: `field = "value"` terms, joined by ` AND `.
//!
//! **Invariant**: a filter is evaluated on the response message, so it sees only what the caller sees.

use std::borrow::Cow;

use capstan_engine::Timestamp;
use capstan_policy::parse_timestamp;

use crate::RequestError;
use crate::limits::{FILTER_BYTES_MAX, FILTER_TERMS_MAX};

/// The value of a scalar field.
#[derive(Debug, PartialEq)]
pub(super) enum Scalar<'m> {
    Text(Cow<'m, str>),
    Boolean(bool),
    Number(u64),
    /// `None` if it is absent, which equals the empty text.
    Time(Option<&'m prost_types::Timestamp>),
}

impl<'m> From<&'m String> for Scalar<'m> {
    fn from(text: &'m String) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<&bool> for Scalar<'_> {
    fn from(flag: &bool) -> Self {
        Self::Boolean(*flag)
    }
}

/// One that is absent is false.
impl From<&Option<bool>> for Scalar<'_> {
    fn from(flag: &Option<bool>) -> Self {
        Self::Boolean(flag.unwrap_or_default())
    }
}

impl<'m> From<&'m Option<prost_types::Timestamp>> for Scalar<'m> {
    fn from(time: &'m Option<prost_types::Timestamp>) -> Self {
        Self::Time(time.as_ref())
    }
}

/// A message that a list has.
pub(super) trait Listed: prost::Message + Default {
    /// The value of a scalar field; `None` if there is no such field.
    fn scalar(&self, field: &str) -> Option<Scalar<'_>>;
}

/// Conditions on messages of one type. All must hold.
#[derive(Debug, Default)]
pub(super) struct Filter {
    terms: Vec<Term>,
}

#[derive(Debug)]
struct Term {
    field: String,
    wanted: Wanted,
}

#[derive(Debug, PartialEq)]
enum Wanted {
    Text(String),
    Boolean(bool),
    Number(u64),
    Time(Option<Timestamp>),
}

impl Filter {
    /// Reads a filter. An empty one matches everything.
    ///
    /// # Errors
    ///
    /// It is malformed, too long, names a field that the messages do not have, or a value that the field cannot have.
    pub(super) fn parse<M: Listed>(text: &str) -> Result<Self, RequestError> {
        let terms = terms(text).and_then(|terms| {
            let sample = M::default();
            terms.into_iter().map(|term| Term::new(&sample, term)).collect()
        });
        terms.map(|terms| Self { terms }).map_err(|problem| RequestError::field("filter", problem))
    }

    /// Whether a message is wanted.
    pub(super) fn matches<M: Listed>(&self, message: &M) -> bool {
        self.terms.iter().all(|Term { field, wanted }| match (message.scalar(field), wanted) {
            (Some(Scalar::Text(text)), Wanted::Text(wanted)) => text == *wanted,
            (Some(Scalar::Boolean(value)), Wanted::Boolean(wanted)) => value == *wanted,
            (Some(Scalar::Number(value)), Wanted::Number(wanted)) => value == *wanted,
            (Some(Scalar::Time(time)), Wanted::Time(wanted)) => time.map(instant) == *wanted,
            _ => false,
        })
    }
}

impl Term {
    fn new<M: Listed>(sample: &M, (field, value): (&str, String)) -> Result<Self, String> {
        let wanted = match sample.scalar(field) {
            None => return Err(format!("no scalar field `{field}`")),
            Some(Scalar::Text(_)) => Wanted::Text(value),
            Some(Scalar::Boolean(_)) => Wanted::Boolean(
                value.parse().map_err(|_| format!("{field}: expected \"true\" or \"false\""))?,
            ),
            Some(Scalar::Number(_)) => Wanted::Number(
                value.parse().map_err(|_| format!("{field}: expected a whole number"))?,
            ),
            Some(Scalar::Time(_)) if value.is_empty() => Wanted::Time(None),
            Some(Scalar::Time(_)) => Wanted::Time(Some(
                parse_timestamp(&value).map_err(|problem| format!("{field}: {problem}"))?,
            )),
        };
        Ok(Self { field: field.to_owned(), wanted })
    }
}

fn instant(time: &prost_types::Timestamp) -> Timestamp {
    Timestamp::new(time.seconds, u32::try_from(time.nanos).unwrap_or_default())
}

/// The terms of a filter: field and value of each.
fn terms(text: &str) -> Result<Vec<(&str, String)>, String> {
    if text.len() > FILTER_BYTES_MAX {
        return Err(format!("{} bytes: at most {FILTER_BYTES_MAX}", text.len()));
    }
    let (mut terms, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        if terms.len() == FILTER_TERMS_MAX {
            return Err(format!("more than {FILTER_TERMS_MAX} terms"));
        }
        let (term, after) = term(rest).ok_or_else(|| {
            let at = text.len() - rest.len();
            format!("expected `field = \"value\"` at byte {at}, as in `type = \"service\" AND name = \"CI\"`")
        })?;
        terms.push(term);
        rest = match after.strip_prefix(" AND ") {
            Some(next) if !next.is_empty() => next,
            None if after.is_empty() => after,
            _ => {
                let at = text.len() - after.len();
                return Err(format!("expected ` AND ` and a term at byte {at}"));
            }
        };
    }
    Ok(terms)
}

/// The first term of a text, and what follows it.
fn term(text: &str) -> Option<((&str, String), &str)> {
    let is_of_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let (field, rest) = text.split_at(text.find(|c| !is_of_name(c))?);
    let rest = rest.trim_start_matches(' ').strip_prefix('=')?.trim_start_matches(' ');
    let rest = rest.strip_prefix('"')?;
    let (mut value, mut characters) = (String::new(), rest.char_indices());
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some(((field, value), rest.get(at + 1..)?)),
            '\\' => match characters.next()? {
                (_, escaped @ ('"' | '\\')) => value.push(escaped),
                _ => return None,
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message with a field of each type.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Sample {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(bool, tag = "2")]
        disabled: bool,
        #[prost(message, optional, tag = "3")]
        expires_at: Option<prost_types::Timestamp>,
        #[prost(uint64, tag = "4")]
        revision: u64,
    }

    impl Listed for Sample {
        fn scalar(&self, field: &str) -> Option<Scalar<'_>> {
            Some(match field {
                "name" => (&self.name).into(),
                "disabled" => Scalar::Boolean(self.disabled),
                "expires_at" => (&self.expires_at).into(),
                "revision" => Scalar::Number(self.revision),
                _ => return None,
            })
        }
    }

    fn matches(filter: &str, message: &Sample) -> bool {
        Filter::parse::<Sample>(filter).unwrap().matches(message)
    }

    #[test]
    fn all_terms_must_hold() {
        let time = parse_timestamp("2026-01-02T03:04:05Z").unwrap();
        let message = Sample {
            name: r#"a "b\" AND"#.into(),
            disabled: true,
            expires_at: Some(super::super::super::convert::timestamp(time)),
            revision: 7,
        };
        let name = r#"name = "a \"b\\\" AND""#;
        for filter in [
            "",
            name,
            r#"disabled = "true""#,
            r#"disabled="true""#,
            r#"revision  =  "7""#,
            r#"expires_at = "2026-01-02T04:04:05+01:00""#,
            &format!(r#"{name} AND disabled = "true" AND revision = "7""#),
        ] {
            assert!(matches(filter, &message), "{filter}");
        }
        for filter in [
            r#"name = """#,
            r#"name = "a""#,
            r#"disabled = "false""#,
            r#"revision = "8""#,
            r#"expires_at = """#,
            r#"expires_at = "2026-01-02T03:04:06Z""#,
            &format!(r#"{name} AND disabled = "false""#),
        ] {
            assert!(!matches(filter, &message), "{filter}");
        }
        assert!(matches(r#"expires_at = "" AND name = """#, &Sample::default()));
    }

    #[test]
    fn malformed_filters_are_refused() {
        let term = r#"name = "x""#;
        let many = |terms: usize| vec![term; terms].join(" AND ");
        let long = |bytes: usize| format!(r#"name = "{}""#, "x".repeat(bytes - 9));
        assert!(Filter::parse::<Sample>(&many(FILTER_TERMS_MAX)).is_ok());
        assert!(Filter::parse::<Sample>(&long(FILTER_BYTES_MAX)).is_ok());
        for filter in [
            "name",
            "name = x",
            r#"name = "x"#,
            r#"name = "\n""#,
            r#"name == "x""#,
            r#"name != "x""#,
            r#" name = "x""#,
            r#"name = "x" "#,
            r#"name = "x" AND "#,
            r#"name = "x" and name = "x""#,
            r#"name = "x" OR name = "x""#,
            r#"name = "x"AND name = "x""#,
            r#"= "x""#,
            r#"owner = "x""#,
            r#"Name = "x""#,
            r#"disabled = "yes""#,
            r#"revision = "-1""#,
            r#"expires_at = "tomorrow""#,
            &many(FILTER_TERMS_MAX + 1),
            &long(FILTER_BYTES_MAX + 1),
        ] {
            match Filter::parse::<Sample>(filter) {
                Err(RequestError::Field { field, .. }) => assert_eq!(field, "filter"),
                other => panic!("{filter}: {other:?}"),
            }
        }
    }
}
