//! Violations: which entry of a document breaks a rule, what was found, and what was expected.

use std::{collections::BTreeMap, fmt};

/// Most violations of one list that are kept; the others are counted.
pub const VIOLATIONS_MAX: usize = 100;

/// A rule that a fact breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The list of the document: `groups`, `role_bindings`, and so on.
    pub kind: &'static str,
    /// Position in that list, from 0.
    pub index: usize,
    /// The field of the entry, such as `scope` or `capabilities[2]`; empty for the entry itself.
    pub field: String,
    /// What was found.
    pub found: String,
    /// The other entry that `found` ends with, as list and position, if there is one.
    pub other: Option<(&'static str, usize)>,
    /// What the rule expects.
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
    /// By list, then by position, then in the order of the rules.
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

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Violation> {
        self.first.values_mut().flat_map(BTreeMap::values_mut)
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
