//! Syntax errors in words: what the parser of YAML found, as a person who writes policies would say it, and at the
//! place that is wrong.
//!
//! The parser reports where it could not go on, which for a bracket or a quote without its end is many lines later.

use crate::NESTING_MAX;
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
    if has("is only valid inside a block") {
        // Behind a bracket or a comma it begins an item; behind anything else, the block goes on.
        let read = before(text, mark).map(|(_, character)| character);
        let last = read.filter(|character| *character != ' ').last();
        return match open_bracket(text, mark)
            .filter(|_| last.is_none_or(|one| !"[{,".contains(one)))
        {
            Some((place, open)) => unclosed(place, open, Some(mark.0)),
            None => {
                let expected = "the closing bracket before it, or items divided by `,`";
                error(mark, "a `- ` within brackets", expected)
            }
        };
    }
    if has("flow mapping") && has("expected ','") {
        return error(mark, "two entries without a comma between them", "`,` or `}`");
    }
    if has("flow sequence") && has("expected ','") {
        return error(mark, "two items without a comma between them", "`,` or `]`");
    }
    if has("did not find expected '-' indicator") || has("did not find expected key") {
        if !begins_line(text, mark) {
            return error(mark, "more text behind an entry", "the next entry on a line of its own");
        }
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
        if let Some(place) = only_key(text, mark) {
            let found = format!("a key that begins in column {}", place.1);
            let expected = "the column of the other keys; it continues the text of the line before";
            return error(place, &found, expected);
        }
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
        // What ends here may have begun many lines above: a quote was forgotten there, and this one begins a text.
        if let Some(place) = last_opened(text, mark).filter(|place| place.0 < mark.0) {
            let found = format!("a quote that is not closed before line {}", mark.0);
            return error(place, &found, "the same quote at the end of the text");
        }
        let expected = "one text in quotes, and `,` before the next entry";
        return error(mark, "more text after a closing quote", expected);
    }
    if has("block sequence entries are not allowed") {
        let expected = "the `-` on a line of its own, or the text in quotes";
        return error(mark, "a `-` behind a key in one line", expected);
    }
    if has("surrogate") {
        let found = "half of a surrogate pair (`\\uD800` to `\\uDFFF`)";
        return error(mark, found, "both halves, or the character itself");
    }
    if has("while parsing a quoted scalar") {
        let expected = "`\\\\` for a backslash, or the text in single quotes";
        return error(mark, "an escape with `\\` that YAML does not have", expected);
    }
    if has("recursion limit exceeded") {
        let expected = format!("at most {NESTING_MAX} levels");
        return error(mark, "lists or mappings within each other, too many", &expected);
    }
    if has("directives are disallowed") {
        return error(mark, "a directive, which begins with `%`", "a document without directives");
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

/// What is open at a place, or was opened last before it.
#[derive(Default)]
struct Opened {
    brackets: Vec<(Mark, &'static str)>,
    /// The last quote that begins a text.
    quote: Option<Mark>,
}

/// Quotes hide brackets, and so do comments.
fn opened(text: &str, end: Mark) -> Opened {
    let (mut opened, mut quote, mut last) = (Opened::default(), None, (0, ' '));
    let open = &mut opened.brackets;
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
            (None, '"' | '\'') if follows_blank => {
                quote = Some(character);
                opened.quote = Some(place);
            }
            (None, '#') if follows_blank => is_comment = true,
            (None, '[') => open.push((place, "[")),
            (None, '{') => open.push((place, "{")),
            (None, ']' | '}') => drop(open.pop()),
            _ => {}
        }
    }
    opened
}

/// The innermost bracket that is open at this place, and not in its line.
fn open_bracket(text: &str, end: Mark) -> Option<(Mark, &'static str)> {
    opened(text, end).brackets.pop().filter(|(place, _)| place.0 < end.0)
}

/// The last quote before this place that begins a text.
fn last_opened(text: &str, end: Mark) -> Option<Mark> {
    opened(text, end).quote
}

/// Whether only blanks are before this place in its line.
fn begins_line(text: &str, place: Mark) -> bool {
    let mut before = before(text, place).filter(|((line, _), _)| *line == place.0);
    before.all(|(_, character)| character == ' ')
}

/// The start of the line, if it has one `key:`, whose colon is at this place.
fn only_key(text: &str, colon: Mark) -> Option<Mark> {
    let line = before(text, colon).filter(|((line, _), _)| *line == colon.0);
    let written: Vec<_> = line.skip_while(|(_, character)| *character == ' ').collect();
    let (start, first) = *written.first()?;
    let is_key =
        !"-?[{\"'".contains(first) && !written.iter().any(|(_, one)| ": \t".contains(*one));
    is_key.then_some(start)
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
            "groups:\n- {id: acme, name: x\nidentities:\n- {id: a}\n",
            "4:3: groups: found `{` that is not closed before line 6; expected `}`",
        );
        check(
            "groups: [\n  - {id: acme}\n]\n",
            "4:3: groups: found a `- ` within brackets; expected the closing bracket before it, or items divided by `,`",
        );
        let more = "found more text behind an entry; expected the next entry on a line of its own";
        check("groups:\n- {id: acme},\n- {id: b}\n", &format!("4:13: {more}"));
        check("groups:\n- {id: acme} {id: b}\n", &format!("4:14: {more}"));
        check(
            &format!("groups: {}", "[".repeat(40)),
            "3:41: groups: found lists or mappings within each other, too many; expected at most 32 levels",
        );
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
        let deeper =
            "expected the column of the other keys; it continues the text of the line before";
        for line in ["- id: a\n   name: x", "- id: a\n  name: x\n     type: y"] {
            let column = line.rsplit('\n').next().unwrap().find(char::is_alphabetic).unwrap() + 1;
            let number = 3 + line.lines().count();
            let found = format!("found a key that begins in column {column}");
            check(
                &format!("groups:\n{line}\n"),
                &format!("{number}:{column}: groups[0]: {found}; {deeper}"),
            );
        }
        check(" groups: []\n", &format!("3:2: found a key that begins in column 2; {deeper}"));
        check(
            "groups: - id: a\n",
            "3:9: groups: found a `-` behind a key in one line; expected the `-` on a line of its own, or the text in quotes",
        );
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
        check(
            "groups: [\n {\"id\": \"a, \"name\": \"x\"},\n {\"id\": \"b\"}]\n",
            "4:14: groups: found more text after a closing quote; expected one text in quotes, and `,` before the next entry",
        );
        check(
            "groups: [\n {\"id\": \"a},\n {\"id\": \"b\"}]\n",
            &format!("4:9: groups: found a quote that is not closed before line 5; {quote}"),
        );
        let escape = "found an escape with `\\` that YAML does not have; expected `\\\\` for a backslash, or the text in \
                      single quotes";
        check("groups:\n- id: a\n  name: \"a\\qb\"\n", &format!("5:9: groups[0].name: {escape}"));
        check("groups:\n- id: a\n  name: \"a\\u00\"\n", &format!("5:9: groups[0].name: {escape}"));
        check(
            "%YAML 1.2\n",
            "3:1: found a directive, which begins with `%`; expected a document without directives",
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
