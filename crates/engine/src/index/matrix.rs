//! Roles × capabilities: the matrix with one row a role.

use crate::model::capabilities::words;
use crate::{CapabilityIx, CapabilitySet};

/// Roles × capabilities, row-major: one row is one role's set.
#[derive(Clone, Debug)]
pub(crate) struct RoleMatrix {
    row_words: usize,
    words: Vec<u64>,
}

impl RoleMatrix {
    pub(crate) fn new(capabilities: usize) -> Self {
        Self { row_words: words(capabilities), words: Vec::new() }
    }

    /// Sets a role's row, which is one of those there are or the next.
    pub(crate) fn set(&mut self, role: u32, set: &CapabilitySet) {
        debug_assert_eq!(set.words().len(), self.row_words);
        let start = role as usize * self.row_words;
        match self.words.get_mut(start..start + self.row_words) {
            Some(row) => row.copy_from_slice(set.words()),
            None => self.words.extend_from_slice(set.words()),
        }
    }

    /// Empties a role's row: a role that is not there gives nothing.
    pub(crate) fn clear(&mut self, role: u32) {
        let start = role as usize * self.row_words;
        if let Some(row) = self.words.get_mut(start..start + self.row_words) {
            row.fill(0);
        }
    }

    /// A role's row, empty if there is no such role: a role that is not there gives nothing.
    pub(crate) fn row(&self, role: u32) -> &[u64] {
        let start = role as usize * self.row_words;
        self.words.get(start..start + self.row_words).unwrap_or_default()
    }

    /// Whether the role has the capability.
    pub(crate) fn has(&self, role: u32, capability: CapabilityIx) -> bool {
        let word = role as usize * self.row_words + capability.word();
        capability.word() < self.row_words
            && self.words.get(word).is_some_and(|word| word & capability.mask() != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_role_has_nothing() {
        let mut matrix = RoleMatrix::new(64);
        let mut set = CapabilitySet::empty(64);
        set.insert(CapabilityIx(3));
        matrix.set(0, &set);
        assert!(matrix.has(0, CapabilityIx(3)));
        assert!(!matrix.has(1, CapabilityIx(3)));
        assert!(!matrix.has(u32::MAX, CapabilityIx(3)));
    }
}
