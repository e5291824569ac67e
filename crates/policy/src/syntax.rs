//! Syntax errors in words: what the parser of YAML found, as a person who writes policies would say it, and at the
//! place that is wrong.
//!
//! The parser reports where it could not go on, which for a bracket or a quote without its end is many lines later.

use crate::reader::Mark;

/// The form of all documents.
const ANY: &str = "YAML 1.2 or JSON";

/// A syntax error: the place, what was found there, and what was expected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) mark: Mark,
    pub(crate) found: String,
    pub(crate) expected: String,
}

/// The words for what the parser says of a text. What it says itself, if there are none.
pub(crate) fn explain(text: &str, mark: Mark, says: &str) -> SyntaxError {
    let error = |mark, found: &str, expected: &str| SyntaxError {
        mark,
        found: found.into(),
        expected: expected.into(),
    };
    let has = |part| says.contains(part);
    if let Some(open) = between(says, "unclosed bracket '", "'") {
        return unclosed(mark, open, None);
    }
    if has("unclosed quote") {
        return error(mark, "a quote that is not closed", "the same quote at the end of the text");
    }
    if has("illegal placement of ':'") {
        return match open_bracket(text, mark) {
            Some((place, open)) => unclosed(place, open, Some(mark.0)),
            None => error(mark, "a `:` in a place of its own", "`key: value`"),
        };
    }
    if let (Some(open), Some(close)) =
        (between(says, "mismatched bracket '", "'"), between(says, "closed by '", "'"))
    {
        let found = format!("`{open}` that is closed by `{close}`");
        return error(mark, &found, closing(open));
    }
    if has("misplaced bracket") {
        return error(mark, "a closing bracket", "an opening bracket before it");
    }
    if has("flow mapping") && has("expected ','") {
        return error(mark, "two entries without a comma between them", "`,` or `}`");
    }
    if has("flow sequence") && has("expected ','") {
        return error(mark, "two items without a comma between them", "`,` or `]`");
    }
    if has("did not find expected '-' indicator") || has("did not find expected key") {
        let found = format!("a line that begins in column {}", mark.1);
        return error(mark, &found, "the same column as in the list or mapping that it continues");
    }
    if has("invalid indentation in multiline quoted scalar") {
        let place = last_quote(text, mark).unwrap_or(mark);
        let found = format!("a quote that is not closed before line {}", mark.0);
        return error(place, &found, "the same quote at the end of the text");
    }
    if has("tab") {
        return error(first_tab(text, mark), "a tab", "spaces: no tab indents or divides YAML");
    }
    if has("simple key expected ':'") {
        let expected = "`key: value`, with a key of at most 1,024 characters";
        return error(mark, "a line without a colon", expected);
    }
    if has("mapping values are not allowed") {
        let expected = "`key: value` on a line of its own; a text with `: ` in quotes";
        return error(mark, "a second `: ` in one line", expected);
    }
    if let Some(start) = between(says, "unexpected character: `", "'").filter(|c| is_sign(c)) {
        let found = format!("a text that begins with `{start}`");
        return error(mark, &found, "the text in quotes");
    }
    if has("invalid trailing content after double-quoted scalar")
        || has("invalid trailing content after single-quoted scalar")
    {
        let expected = "one text in quotes, and `,` before the next entry";
        return error(mark, "more text after a closing quote", expected);
    }
    error(mark, says, ANY)
}

/// A bracket that is not closed, at least not before this line.
fn unclosed(mark: Mark, open: &str, before: Option<usize>) -> SyntaxError {
    let before = before.map(|line| format!(" before line {line}")).unwrap_or_default();
    let found = format!("`{open}` that is not closed{before}");
    SyntaxError { mark, found, expected: closing(open).into() }
}

const fn closing(open: &str) -> &'static str {
    if matches!(open.as_bytes(), b"[") { "`]`" } else { "`}`" }
}

fn is_sign(text: &str) -> bool {
    matches!(text.as_bytes(), [sign] if sign.is_ascii_punctuation())
}

/// What stands between two parts of a text.
fn between<'s>(says: &'s str, before: &str, after: &str) -> Option<&'s str> {
    let (_, rest) = says.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

/// The lines of a text, each with its number. YAML divides lines by `\n`, `\r\n` and `\r`.
fn lines(text: &str) -> impl Iterator<Item = (&str, usize)> {
    let mut rest = Some(text.trim_start_matches('\u{feff}'));
    let lines = std::iter::from_fn(move || {
        let text = rest?;
        let (line, after) = match text.find(['\n', '\r']) {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let after = after.strip_prefix("\r\n").or_else(|| after.strip_prefix(['\n', '\r']));
        rest = after;
        Some(line)
    });
    lines.zip(1..)
}

/// The characters before this place, with their places.
fn before(text: &str, end: Mark) -> impl Iterator<Item = (Mark, char)> {
    let lines = lines(text).take(end.0);
    lines.flat_map(move |(line, number)| {
        let places = (1..).map(move |column| (number, column));
        places.zip(line.chars()).take_while(move |(place, _)| *place < end)
    })
}

/// The innermost bracket that is open at this place, and not in its line. Quotes hide brackets, and so do comments.
fn open_bracket(text: &str, end: Mark) -> Option<(Mark, &'static str)> {
    let (mut open, mut quote, mut last) = (Vec::new(), None, (0, ' '));
    let mut is_comment = false;
    for (place, character) in before(text, end) {
        let is_first = place.0 != last.0;
        let follows_blank = is_first || " \t[]{},:".contains(last.1);
        last = (place.0, character);
        is_comment &= !is_first;
        match (quote, character) {
            _ if is_comment => {}
            (Some(begun), _) if begun == character => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') if follows_blank => quote = Some(character),
            (None, '#') if follows_blank => is_comment = true,
            (None, '[') => open.push((place, "[")),
            (None, '{') => open.push((place, "{")),
            (None, ']' | '}') => drop(open.pop()),
            _ => {}
        }
    }
    open.pop().filter(|(place, _)| place.0 < end.0)
}

/// The last quote before this place.
fn last_quote(text: &str, end: Mark) -> Option<Mark> {
    let quotes = before(text, end).filter(|(_, character)| "\"'".contains(*character));
    quotes.last().map(|(place, _)| place)
}

/// The first tab at or behind this place.
fn first_tab(text: &str, start: Mark) -> Mark {
    let lines = lines(text).skip(start.0.saturating_sub(1)).take(2);
    let tabs = lines.flat_map(|(line, number)| {
        let tabs = line.chars().zip(1..).filter(|(character, _)| *character == '\t');
        tabs.map(move |(_, column)| (number, column))
    });
    let mut tabs = tabs.skip_while(|place| *place < start);
    tabs.next().unwrap_or(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first diagnostic of this text, read as a policy.
    fn first(text: &str) -> String {
        let found = crate::load_policy(text.as_bytes(), &crate::Catalogs::default()).unwrap_err();
        found.iter().last().unwrap().to_string()
    }

    /// A document whose last diagnostic is the syntax error.
    fn check(body: &str, expected: &str) {
        let text = format!("version: 1\ncatalog: chainguard-2025-08-14+errata\n{body}");
        assert_eq!(first(&text), expected, "{text}");
    }

    #[test]
    fn brackets() {
        check(
            "groups:\n- {id: a\n- {id: b}\n",
            "4:3: groups: found `{` that is not closed; expected `}`",
        );
        check(
            "groups: [{id: a}, {id: b}\nidentities: []\n",
            "3:9: groups: found `[` that is not closed before line 4; expected `]`",
        );
        check(
            "groups: [{id: a, name: \"[\"}, # [\n {id: b, name: it's}\nroles: []\n",
            "3:9: groups: found `[` that is not closed before line 5; expected `]`",
        );
        check("groups: {id: a]\n", "3:9: groups: found `{` that is closed by `]`; expected `}`");
        check(
            "groups: []\n]",
            "4:1: found a closing bracket; expected an opening bracket before it",
        );
    }

    #[test]
    fn commas() {
        check(
            "groups: [{id: a} {id: b}]\n",
            "3:18: groups: found two items without a comma between them; expected `,` or `]`",
        );
        check(
            "groups: [{id: acme name: x}]\n",
            "3:24: groups[0]: found two entries without a comma between them; expected `,` or `}`",
        );
        check(
            "groups: [{\"id\": \"a\" \"name\": \"x\"}]\n",
            "3:21: groups: found more text after a closing quote; expected one text in quotes, and `,` before the next entry",
        );
    }

    #[test]
    fn indentation() {
        let expected = "expected the same column as in the list or mapping that it continues";
        let line = "found a line that begins in column";
        check("groups:\n  - id: a\n   name: x\n", &format!("5:4: groups: {line} 4; {expected}"));
        check("groups:\n  - id: a\n name: x\n", &format!("5:2: {line} 2; {expected}"));
        let spaces = "found a tab; expected spaces: no tab indents or divides YAML";
        check("\tgroups: []\n", &format!("3:1: catalog: {spaces}"));
    }

    #[test]
    fn colons_and_quotes() {
        check(
            "groups []\nroles: []\n",
            "3:1: found a line without a colon; expected `key: value`, with a key of at most 1,024 characters",
        );
        let second = "found a second `: ` in one line; expected `key: value` on a line of its own; a text with `: ` in \
                      quotes";
        check("groups:\n- id: a\n  name: b: c\n", &format!("5:10: groups[0]: {second}"));
        let quote = "expected the same quote at the end of the text";
        check(
            "groups:\n- id: \"a\nroles: []\n",
            &format!("4:7: groups[0].id: found a quote that is not closed before line 5; {quote}"),
        );
        check("groups: 'a", &format!("3:9: groups: found a quote that is not closed; {quote}"));
        check(
            "groups:\n- id: a\n  name: \"x\" y\n",
            "5:13: groups[0].name: found more text after a closing quote; expected one text in quotes, and `,` before the next entry",
        );
        for sign in ["@", "`", "%"] {
            let text = format!("groups:\n- id: {sign}a\n");
            let found = format!("a text that begins with `{sign}`; expected the text in quotes");
            check(&text, &format!("4:7: groups[0].id: found {found}"));
        }
    }

    #[test]
    fn what_has_no_words_is_said_as_the_parser_says_it() {
        let error = explain("", (1, 1), "a new kind of error");
        let (found, expected) = ("a new kind of error".into(), ANY.into());
        assert_eq!(error, SyntaxError { mark: (1, 1), found, expected });
    }
}
