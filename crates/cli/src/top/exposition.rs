//! A parser of the OpenMetrics 1.0 text format: series with labels and values.
//!
//! **Invariant**: a malformed or truncated text is an error, never a smaller number. Timestamps and exemplars
//! after a value are ignored.

use thiserror::Error;

/// The text is not valid OpenMetrics.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum ParseError {
    /// A line is malformed.
    #[error("line {line}: {problem}")]
    Line {
        /// From 1.
        line: usize,
        problem: &'static str,
    },
    /// The final `# EOF` is missing: the text is truncated.
    #[error("it does not end with `# EOF`")]
    Truncated,
}

/// One series: name, labels in the order of the text, value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Series<'t> {
    pub(super) name: &'t str,
    pub(super) labels: Vec<(&'t str, String)>,
    pub(super) value: f64,
}

impl Series<'_> {
    /// The value of a label.
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        let mut labels = self.labels.iter();
        labels.find(|(label, _)| *label == name).map(|(_, value)| value.as_str())
    }
}

/// Parses every series, in the order of the text.
pub(super) fn parse(text: &str) -> Result<Vec<Series<'_>>, ParseError> {
    let mut all = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line == "# EOF" {
            return Ok(all);
        }
        if !line.starts_with('#') {
            let read =
                series(line).map_err(|problem| ParseError::Line { line: at + 1, problem })?;
            all.push(read);
        }
    }
    Err(ParseError::Truncated)
}

fn series(line: &str) -> Result<Series<'_>, &'static str> {
    let (name, rest) = name(line).ok_or("no name")?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (Vec::new(), rest),
    };
    let value = rest.strip_prefix(' ').and_then(|rest| rest.split(' ').next());
    let value = value.and_then(|value| value.parse().ok()).ok_or("no value")?;
    Ok(Series { name, labels, value })
}

/// Splits off a name.
fn name(text: &str) -> Option<(&str, &str)> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':');
    let end = text.find(|letter| !is_part(letter)).unwrap_or(text.len());
    text.split_at_checked(end).filter(|(name, _)| !name.is_empty())
}

type Labels<'t> = Vec<(&'t str, String)>;

/// Splits off the labels up to the closing brace.
fn labels(mut rest: &str) -> Result<(Labels<'_>, &str), &'static str> {
    let mut all = Vec::new();
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Ok((all, rest));
        }
        let (label, after) = name(rest).ok_or("a label without a name")?;
        let quoted = after.strip_prefix("=\"").ok_or("a label without a value")?;
        let (value, after) = unquoted(quoted).ok_or("a label's value does not end")?;
        all.push((label, value));
        rest = match after.strip_prefix(',') {
            Some(next) => next,
            None if after.starts_with('}') => after,
            None => return Err("no comma between two labels"),
        };
    }
}

/// Splits off a label's value up to the closing quote.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.chars();
    loop {
        match letters.next()? {
            '"' => return Some((value, letters.as_str())),
            '\\' => match letters.next()? {
                'n' => value.push('\n'),
                letter @ ('\\' | '"') => value.push(letter),
                _ => return None,
            },
            letter => value.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_have_names_labels_and_values() {
        let text = "# HELP a b {c=\"d\"} 1\na_total{x=\"1\",y=\"two words\"} 3\nb 2.5e-5 170\n\
                    c{le=\"+Inf\"} 7 # {trace=\"1\"} 0.5\nd{} NaN\n# EOF\n";
        let all = parse(text).unwrap();
        assert_eq!(all.len(), 4);
        assert_eq!(all[0].name, "a_total");
        assert_eq!(all[0].labels, [("x", "1".to_owned()), ("y", "two words".to_owned())]);
        assert_eq!((all[0].label("y"), all[0].label("z")), (Some("two words"), None));
        assert_eq!((all[0].value, all[1].value, all[2].value), (3.0, 2.5e-5, 7.0));
        assert!(all[3].value.is_nan() && all[3].labels.is_empty());
    }

    #[test]
    fn escapes_in_labels_are_undone() {
        let all = parse("a{x=\"\\\\ \\\" \\n }, \"} 1\n# EOF").unwrap();
        assert_eq!(all[0].label("x"), Some("\\ \" \n }, "));
    }

    #[test]
    fn a_malformed_line_is_an_error_with_its_number() {
        for (line, problem) in [
            ("", "no name"),
            ("{x=\"1\"} 1", "no name"),
            ("a", "no value"),
            ("a one", "no value"),
            ("a{x=\"1\"}1", "no value"),
            ("a{x=1} 1", "a label without a value"),
            ("a{=\"1\"} 1", "a label without a name"),
            ("a{x=\"1\" 1", "no comma between two labels"),
            ("a{x=\"1\"y=\"2\"} 1", "no comma between two labels"),
            ("a{x=\"1} 1", "a label's value does not end"),
            ("a{x=\"\\t\"} 1", "a label's value does not end"),
        ] {
            let text = format!("b 1\n{line}\n# EOF\n");
            assert_eq!(parse(&text), Err(ParseError::Line { line: 2, problem }), "{line}");
        }
        for cut in ["", "a 1\n", "a 1\n# EO"] {
            assert_eq!(parse(cut), Err(ParseError::Truncated), "{cut}");
        }
    }
}
