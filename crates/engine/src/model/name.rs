//! Names of capabilities, built-in roles, resources and catalogs (section 4 of the contract).

use thiserror::Error;

/// Most bytes in a name.
pub const NAME_BYTES_MAX: usize = 128;

/// Most characters of a text that a message repeats.
const QUOTE_CHARS_MAX: usize = 80;

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseNameError {
    /// No text, or more than [`NAME_BYTES_MAX`] bytes.
    #[error("{bytes} bytes, not 1 to {NAME_BYTES_MAX}")]
    Length {
        /// Bytes in the text.
        bytes: usize,
    },
    /// A character that names do not have.
    #[error("character {found:?}: only A-Z a-z 0-9 {}", spaced(.marks))]
    Character {
        /// The first such character.
        found: char,
        /// The marks that such a name may have.
        marks: &'static str,
    },
    /// A slash or a colon at either end.
    #[error("{} at either end", quote(&found.to_string()))]
    End {
        /// Which of the two.
        found: char,
    },
    /// A dot at either end, or two in a row.
    #[error("a dot at either end or two in a row")]
    Dots,
}

/// Checks a name: 1 to 128 of `A-Z a-z 0-9 _ - . +`, no dot at either end and no two in a row.
///
/// # Errors
///
/// The first rule that the text breaks.
pub fn parse_name(text: &str) -> Result<(), ParseNameError> {
    parse(text, "_-.+")
}

/// Checks the name of a capability, or of a resource or action that makes one: as [`parse_name`], also `/`
/// and `:`, which permissions of other clouds have, not at either end.
///
/// # Errors
///
/// The first rule that the text breaks.
pub fn parse_capability_name(text: &str) -> Result<(), ParseNameError> {
    parse(text, "_-.+/:")?;
    let is_end = |c: Option<char>| c.filter(|c| matches!(c, '/' | ':'));
    let end = is_end(text.chars().next()).or_else(|| is_end(text.chars().next_back()));
    end.map_or(Ok(()), |found| Err(ParseNameError::End { found }))
}

fn spaced(marks: &str) -> String {
    let marks: Vec<String> = marks.chars().map(String::from).collect();
    marks.join(" ")
}

fn parse(text: &str, marks: &'static str) -> Result<(), ParseNameError> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(ParseNameError::Length { bytes: text.len() });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || marks.contains(c);
    if let Some(found) = text.chars().find(|c| !allowed(*c)) {
        return Err(ParseNameError::Character { found, marks });
    }
    if text.split('.').any(str::is_empty) {
        return Err(ParseNameError::Dots);
    }
    Ok(())
}

/// A text in backticks, for a message: shortened, and with nothing that a terminal would obey.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut quoted: String =
        text.chars().take(QUOTE_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTE_CHARS_MAX).is_some() {
        quoted.push('…');
    }
    // Quotation marks need no escape between backticks.
    format!("`{}`", quoted.replace("\\\"", "\"").replace("\\'", "'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_short_and_harmless() {
        assert_eq!(quote("it's \"a\""), "`it's \"a\"`");
        assert_eq!(quote("a\n\u{1b}[31m\u{202e}\u{85}"), r"`a\n\u{1b}[31m\u{202e}\u{85}`");
        assert_eq!(quote(&"é".repeat(80)), format!("`{}`", "é".repeat(80)));
        assert_eq!(quote(&"é".repeat(81)), format!("`{}…`", "é".repeat(80)));
    }

    #[test]
    fn names_of_capabilities_have_slashes_and_colons() {
        for good in
            ["a.b", "s3:GetObject", "Microsoft.Compute/virtualMachines/read", "a::b//c", "x"]
        {
            assert_eq!(parse_capability_name(good), Ok(()), "{good}");
        }
        for (bad, found) in [("/a", '/'), ("a/", '/'), (":a", ':'), ("a:", ':'), ("/", '/')] {
            assert_eq!(parse_capability_name(bad), Err(ParseNameError::End { found }), "{bad}");
        }
        assert_eq!(parse_capability_name("a./b..c"), Err(ParseNameError::Dots));
        assert_eq!(
            parse_capability_name("a*"),
            Err(ParseNameError::Character { found: '*', marks: "_-.+/:" })
        );
        assert_eq!(parse_capability_name(""), Err(ParseNameError::Length { bytes: 0 }));
    }

    #[test]
    fn names_follow_the_contract() {
        for good in ["owner", "manifest.metadata.list", "chainguard-2025-08-14+errata", "A_1"] {
            assert_eq!(parse_name(good), Ok(()), "{good}");
        }
        assert!(parse_name(&"x".repeat(128)).is_ok());
        assert_eq!(parse_name(&"x".repeat(129)), Err(ParseNameError::Length { bytes: 129 }));
        assert_eq!(parse_name(""), Err(ParseNameError::Length { bytes: 0 }));
        for bad in [".", ".a", "a.", "a..b"] {
            assert_eq!(parse_name(bad), Err(ParseNameError::Dots), "{bad}");
        }
        for bad in ['*', '/', ' ', '\n', '\u{e9}', ':'] {
            let text = format!("a{bad}b");
            assert_eq!(
                parse_name(&text),
                Err(ParseNameError::Character { found: bad, marks: "_-.+" })
            );
        }
    }
}
