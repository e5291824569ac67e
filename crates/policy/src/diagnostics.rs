//! What is wrong with a document: where, what was found, what was expected.

use std::fmt;

/// Most diagnostics that are kept; the rest are counted.
pub const DIAGNOSTICS_MAX: usize = 100;

/// Most characters of the document that a diagnostic repeats.
const QUOTE_CHARS_MAX: usize = 80;

/// One thing that is wrong, or worth a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The field's path, such as `role_bindings[3].scope`; empty for the document.
    pub field: String,
    /// What is there.
    pub found: String,
    /// What should be there.
    pub expected: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "found {}; expected {}", self.found, self.expected)
    }
}

/// The first [`DIAGNOSTICS_MAX`] diagnostics in the order of the text, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    first: Vec<Diagnostic>,
    total: usize,
}

impl Diagnostics {
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.total += 1;
        if self.first.len() < DIAGNOSTICS_MAX {
            self.first.push(diagnostic);
        }
    }

    /// Counts what was found elsewhere and not kept there.
    pub(crate) fn count_more(&mut self, more: usize) {
        self.total += more;
    }

    pub(crate) fn sort(&mut self) {
        self.first.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
    }

    /// The first ones.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.first.iter()
    }

    /// How many there are, kept or not.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.total
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.total == 0
    }
}

impl fmt::Display for Diagnostics {
    /// One line each, then how many are not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, diagnostic) in self.first.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnostic}")?;
        }
        match self.total - self.first.len() {
            0 => Ok(()),
            more => write!(f, "\nand {more} more, {} in all", self.total),
        }
    }
}

impl std::error::Error for Diagnostics {}

/// A piece of the document in backticks: shortened, and with nothing that a terminal would obey.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted: String =
        text.chars().take(QUOTE_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTE_CHARS_MAX).is_some() {
        quoted.push('…');
    }
    // Quotation marks need no escape between backticks.
    format!("`{}`", quoted.replace("\\\"", "\"").replace("\\'", "'"))
}
