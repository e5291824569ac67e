//! Diagnostics of a document: position, what was found, what was expected.

use std::{collections::BTreeMap, fmt};

/// Most diagnostics that are kept. Further ones are only counted.
pub const DIAGNOSTICS_MAX: usize = 100;

/// One error or warning. `Display`: `LINE:COLUMN: FIELD: found FOUND; expected EXPECTED`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The field's path, such as `role_bindings[3].scope`; empty for the whole document.
    pub field: String,
    /// What the document has at this position.
    pub found: String,
    /// What it should have.
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

/// The first [`DIAGNOSTICS_MAX`] diagnostics by position, and the number of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    /// Key: line, column, number of diagnostics before this one.
    first: BTreeMap<(usize, usize, usize), Diagnostic>,
    total: usize,
}

impl Diagnostics {
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.first.insert((diagnostic.line, diagnostic.column, self.total), diagnostic);
        if self.first.len() > DIAGNOSTICS_MAX {
            self.first.pop_last();
        }
        self.total += 1;
    }

    /// Adds violations that the engine counted but did not keep.
    pub(crate) fn count_more(&mut self, more: usize) {
        self.total += more;
    }

    /// The kept diagnostics, in order of position.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.first.values()
    }

    /// The number of all diagnostics, kept or not.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.total
    }

    /// Whether there are no diagnostics.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.total == 0
    }
}

impl fmt::Display for Diagnostics {
    /// One line for each kept diagnostic; then, if there are more, a line with their number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, diagnostic) in self.first.values().enumerate() {
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
