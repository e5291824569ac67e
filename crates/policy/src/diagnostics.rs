//! What is wrong with a document: where, what was found, what was expected.

use std::{collections::BTreeMap, fmt};

/// Most diagnostics that are kept; the rest are counted.
pub const DIAGNOSTICS_MAX: usize = 100;

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
    /// By line and column, then in the order of the rules.
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

    /// Counts what was found elsewhere and not kept there.
    pub(crate) fn count_more(&mut self, more: usize) {
        self.total += more;
    }

    /// The first ones.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.first.values()
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
