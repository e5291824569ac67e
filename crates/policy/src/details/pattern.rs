//! Patterns of claims: regular expressions that match a claim as a whole or not at all.

use regex::RegexBuilder;
use regex_syntax::hir::Look;

use crate::reader::{Node, Reader};

/// Most bytes of a compiled pattern. A class such as `\w` of all of Unicode takes some ten thousand.
pub const PATTERN_COMPILED_BYTES_MAX: usize = 256 * 1024;

/// Reads a pattern.
pub(super) fn read_pattern<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<String> {
    let mark = node.mark;
    let text = reader.text(node)?;
    match check(&text) {
        Ok(()) => Some(text),
        Err(why) => {
            reader.report(
                mark,
                capstan_engine::quote(&text),
                format!("a pattern that begins with `^` and ends with `$` ({why})"),
            );
            None
        }
    }
}

/// A pattern as a document has it, which matches the same whole claims as this one does.
#[must_use]
pub fn anchored(pattern: &str) -> String {
    if check(pattern).is_ok() { pattern.to_owned() } else { format!("^(?:{pattern})$") }
}

/// The first and last characters are not enough: `^a|b$` matches `ab`, `a$` with a backslash is no end, and `(?m)` lets
/// both match within a text. So the expression itself is asked.
fn check(text: &str) -> Result<(), String> {
    if !(text.starts_with('^') && text.ends_with('$') && text.len() > 1) {
        return Err("it would match a part of the claim".into());
    }
    let expression = regex_syntax::parse(text).map_err(|error| match error {
        regex_syntax::Error::Parse(error) => error.kind().to_string(),
        regex_syntax::Error::Translate(error) => error.kind().to_string(),
        _ => "it is no regular expression".into(),
    })?;
    let looks = expression.properties();
    let is_anchored = looks.look_set_prefix().contains(Look::Start)
        && looks.look_set_suffix().contains(Look::End);
    if !is_anchored {
        return Err("it can match a part of the claim; put alternatives in parentheses".into());
    }
    let compiled = RegexBuilder::new(text).size_limit(PATTERN_COMPILED_BYTES_MAX).build();
    compiled.map(|_| ()).map_err(|_| {
        format!("it takes more than {PATTERN_COMPILED_BYTES_MAX} bytes when it is compiled")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchored_patterns_are_accepted() {
        for text in
            ["^$", "^a$", "^https://[a-z.]+/x$", "^(a|b)$", "^(?i)x$", "^a$|^b$", r"^\$$", "^(^a)$"]
        {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn every_pattern_can_be_anchored() {
        assert_eq!(anchored("^(a|b)$"), "^(a|b)$");
        for text in ["a", "a|b", "^a|b$", "(?m)^a$", ""] {
            assert_eq!(check(&anchored(text)), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_can_match_a_part_is_refused() {
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
            assert!(check(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_does_not_compile_is_refused() {
        assert_eq!(check("^(x$"), Err("unclosed group".into()));
        assert!(check(r"^\p{No}x{2,1}$").is_err());
        assert_eq!(check(r"^(?:\w{9}){9}$").unwrap_err().split(' ').nth(3), Some("than"));
    }
}
