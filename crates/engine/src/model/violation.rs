//! The rules that a document's facts break: which entry, what was found, what was expected.

use std::{collections::BTreeMap, fmt};

/// Most violations of a list that are kept; the rest are counted.
pub const VIOLATIONS_MAX: usize = 100;

/// A rule that a fact breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which list of the document: `groups`, `role_bindings`, and so on.
    pub kind: &'static str,
    /// Place in that list, from 0.
    pub index: usize,
    /// Which field of it, such as `scope` or `capabilities[2]`; empty for the entry itself.
    pub field: String,
    /// What is there.
    pub found: String,
    /// The entry, list and place, that `found` ends by naming, if it names one.
    pub other: Option<(&'static str, usize)>,
    /// What the rule wants.
    pub expected: String,
}

impl Violation {
    /// The field's path in the document, such as `role_bindings[3].scope`.
    #[must_use]
    pub fn path(&self) -> String {
        match (self.kind, self.field.as_str()) {
            ("name", _) => "name".into(),
            (kind, "") => format!("{kind}[{}]", self.index),
            (kind, field) => format!("{kind}[{}].{field}", self.index),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: found {}", self.path(), self.found)?;
        if let Some((list, place)) = self.other {
            write!(f, " {list}[{place}]")?;
        }
        write!(f, "; expected {}", self.expected)
    }
}

/// Facts break rules: the first [`VIOLATIONS_MAX`] violations of each list, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FactsError {
    /// By list; in it by place, then in the order of the rules.
    first: BTreeMap<&'static str, BTreeMap<(usize, usize), Violation>>,
    total: usize,
}

impl FactsError {
    pub(crate) fn push(
        &mut self,
        kind: &'static str,
        index: usize,
        field: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) {
        let (field, found, expected) = (field.into(), found.into(), expected.into());
        self.add(Violation { kind, index, field, found, other: None, expected });
    }

    pub(crate) fn add(&mut self, violation: Violation) {
        let list = self.first.entry(violation.kind).or_default();
        list.insert((violation.index, self.total), violation);
        if list.len() > VIOLATIONS_MAX {
            list.pop_last();
        }
        self.total += 1;
    }

    /// The first ones of each list.
    pub fn iter(&self) -> impl Iterator<Item = &Violation> {
        self.first.values().flat_map(BTreeMap::values)
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

impl fmt::Display for FactsError {
    /// The first violations, one a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().count();
        for (at, violation) in self.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{violation}")?;
        }
        match self.total.saturating_sub(shown) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl std::error::Error for FactsError {}
