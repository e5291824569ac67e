//! Patterns of claims: regular expressions that match a claim as a whole or not at all.
//!
//! A document says a pattern with its anchors, a request with or without them. **Invariant**: limits are those of the
//! pattern with its anchors ([`anchored`]), so that whatever one of the two can say, the other can say, too.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Hir, Look};
use thiserror::Error;

use crate::limits::{PATTERN_BYTES_MAX, PATTERN_COMPILED_BYTES_MAX, PATTERN_NESTING_MAX};

/// Why a pattern cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatternError {
    /// It is empty.
    #[error("an empty pattern; expected a regular expression")]
    Empty,
    /// It has a control character.
    #[error("a control character; escape it")]
    ControlCharacter,
    /// It has so many bytes with its anchors, which are more than [`PATTERN_BYTES_MAX`].
    #[error("{0} bytes with its anchors are more than {PATTERN_BYTES_MAX}")]
    Long(usize),
    /// It is no regular expression. The text says why.
    #[error("{0}")]
    Malformed(String),
    /// With its anchors, it is nested deeper than [`PATTERN_NESTING_MAX`].
    #[error("it is nested deeper than {PATTERN_NESTING_MAX} with its anchors")]
    Nested,
    /// It takes more than [`PATTERN_COMPILED_BYTES_MAX`] when it is compiled.
    #[error(
        "it takes more than {PATTERN_COMPILED_BYTES_MAX} bytes when it is compiled; use fewer or smaller repetitions"
    )]
    Large,
    /// Of a pattern that must say its anchors: it can match a part of a text.
    #[error("it can match a part of the claim; put alternatives in parentheses")]
    Part,
}

/// Compiles a pattern, once, so that it matches whole texts only, in linear time.
///
/// # Errors
///
/// The pattern cannot be.
pub fn compile_pattern(pattern: &str) -> Result<Regex, PatternError> {
    if pattern.is_empty() {
        return Err(PatternError::Empty);
    }
    if pattern.chars().any(char::is_control) {
        return Err(PatternError::ControlCharacter);
    }
    let bytes = pattern.len();
    if bytes > PATTERN_BYTES_MAX {
        return Err(PatternError::Long(bytes));
    }
    // Parsed alone first, which is cheap: `a)|(b` is no pattern, and would be one inside the parentheses.
    let parsed = parse(pattern)?;
    let whole = with_anchors(pattern, Some(&parsed));
    if whole.len() > PATTERN_BYTES_MAX {
        return Err(PatternError::Long(whole.len()));
    }
    parse(&whole)?;
    let compiled = RegexBuilder::new(&whole).size_limit(PATTERN_COMPILED_BYTES_MAX).build();
    compiled.map_err(|_| PatternError::Large)
}

/// Checks a pattern that must say its anchors, as in a document.
///
/// # Errors
///
/// The pattern cannot be, or lacks its anchors.
pub fn check_anchored(pattern: &str) -> Result<(), PatternError> {
    let begins_and_ends = pattern.len() > 1 && pattern.starts_with('^') && pattern.ends_with('$');
    if !begins_and_ends || !is_anchored(pattern, &parse(pattern)?) {
        return Err(PatternError::Part);
    }
    compile_pattern(pattern).map(|_| ())
}

/// A pattern with its anchors, which matches the same texts. One that has them stays as it is.
#[must_use]
pub fn anchored(pattern: &str) -> Cow<'_, str> {
    with_anchors(pattern, parse(pattern).ok().as_ref())
}

fn with_anchors<'p>(pattern: &'p str, parsed: Option<&Hir>) -> Cow<'p, str> {
    if parsed.is_some_and(|parsed| is_anchored(pattern, parsed)) {
        Cow::Borrowed(pattern)
    } else {
        Cow::Owned(format!("^(?:{pattern})$"))
    }
}

fn parse(pattern: &str) -> Result<Hir, PatternError> {
    let parsed = ParserBuilder::new().nest_limit(PATTERN_NESTING_MAX).build().parse(pattern);
    parsed.map_err(|error| match error {
        regex_syntax::Error::Parse(error) => match error.kind() {
            regex_syntax::ast::ErrorKind::NestLimitExceeded(_) => PatternError::Nested,
            kind => PatternError::Malformed(kind.to_string()),
        },
        regex_syntax::Error::Translate(error) => PatternError::Malformed(error.kind().to_string()),
        _ => PatternError::Malformed("it is no regular expression".into()),
    })
}

/// Whether every match of it is a whole text. The first and last characters are not enough: `^a|b$` matches `ab`, `a$`
/// with a backslash is no end, and `(?m)` lets both match within a text. So the expression itself is asked.
fn is_anchored(pattern: &str, parsed: &Hir) -> bool {
    let looks = parsed.properties();
    pattern.starts_with('^')
        && pattern.ends_with('$')
        && looks.look_set_prefix().contains(Look::Start)
        && looks.look_set_suffix().contains(Look::End)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchored_patterns_are_accepted() {
        for text in
            ["^$", "^a$", "^https://[a-z.]+/x$", "^(a|b)$", "^(?i)x$", "^a$|^b$", r"^\$$", "^(^a)$"]
        {
            assert_eq!(check_anchored(text), Ok(()), "{text}");
            assert_eq!(anchored(text), text);
        }
    }

    /// Of whatever can be, the form with its anchors can be, too, and is its own.
    #[test]
    fn a_pattern_can_be_if_it_can_be_with_its_anchors() {
        let agrees = |text: &str| {
            let whole = anchored(text);
            let found = compile_pattern(text).map(|_| ());
            assert_eq!(found.is_ok(), compile_pattern(&whole).is_ok(), "{text}");
            assert_eq!(found.is_ok(), check_anchored(&whole).is_ok(), "{text}");
            assert!(found.is_err() || anchored(&whole) == whole, "{text}");
            found
        };
        for text in ["a", "a|b", "^a|b$", "(?m)^a$", "^", "$", "x{3}", r"^a\$", "(?x)a "] {
            assert_eq!(agrees(text), Ok(()), "{text}");
        }
        let long = |bytes: usize| "x".repeat(bytes);
        let around = "^(?:)$".len();
        assert_eq!(agrees(&long(PATTERN_BYTES_MAX - around)), Ok(()));
        let error = PatternError::Long(PATTERN_BYTES_MAX + 1);
        assert_eq!(agrees(&long(PATTERN_BYTES_MAX - around + 1)), Err(error));
        let nested = |depth: u32| {
            let [open, close] = ["(", ")"].map(|one| one.repeat(depth as usize));
            format!("{open}x{close}")
        };
        let depths = PATTERN_NESTING_MAX - 5..PATTERN_NESTING_MAX + 5;
        let deepest = depths.take_while(|depth| agrees(&nested(*depth)).is_ok()).last().unwrap();
        assert_eq!(agrees(&nested(deepest + 1)), Err(PatternError::Nested));
        // A letter of Unicode takes hundreds of bytes.
        let classes = |count: usize| format!(r"\w{{{count}}}");
        let most = (1..1_000).take_while(|count| agrees(&classes(*count)).is_ok()).last().unwrap();
        assert_eq!(agrees(&classes(most + 1)), Err(PatternError::Large));
    }

    #[test]
    fn what_can_match_a_part_has_no_anchors() {
        for text in [
            "",
            "^",
            "$",
            "a",
            "^a",
            "a$",
            "^a|b$",
            "^a|^b$",
            "^a$|b$",
            r"^a\$",
            "(?m)^a$",
            "^(?m)a$",
            "^(?m:^)a$|$",
        ] {
            assert_eq!(check_anchored(text), Err(PatternError::Part), "{text}");
        }
    }

    #[test]
    fn what_does_not_compile_is_refused() {
        let unclosed = PatternError::Malformed("unclosed group".into());
        assert_eq!(check_anchored("^(x$"), Err(unclosed));
        assert!(matches!(check_anchored(r"^\p{No}x{2,1}$"), Err(PatternError::Malformed(_))));
        assert_eq!(check_anchored(r"^(?:\w{9}){99}$"), Err(PatternError::Large));
        assert_eq!(compile_pattern("").unwrap_err(), PatternError::Empty);
        assert_eq!(compile_pattern("a\nb").unwrap_err(), PatternError::ControlCharacter);
        // A group that would end the one around it, and a comment that would hide the end.
        for text in ["a)|(b", "(?x) a # "] {
            assert!(matches!(compile_pattern(text), Err(PatternError::Malformed(_))), "{text}");
        }
    }
}
