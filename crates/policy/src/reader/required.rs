//! A key that a mapping must have.

use super::{Mark, Node, Reader};

/// A required key of a mapping. Reported as missing only if the key is absent, not if its value is
/// wrong.
pub(crate) struct Required<T> {
    key: &'static str,
    seen: bool,
    value: Option<T>,
}

impl<T> Required<T> {
    pub(crate) const fn new(key: &'static str) -> Self {
        Self { key, seen: false, value: None }
    }

    pub(crate) fn read<'t>(
        &mut self,
        reader: &mut Reader<'t>,
        node: Node<'t>,
        read: impl FnOnce(&mut Reader<'t>, Node<'t>) -> Option<T>,
    ) {
        self.seen = true;
        let value = read(reader, node);
        // If the key is repeated, the first readable value counts.
        self.value = self.value.take().or(value);
    }

    pub(crate) const fn seen(&self) -> bool {
        self.seen
    }

    /// The value. Reports a missing key, unless `is_mapping` is false: then no key could be read.
    pub(crate) fn get(self, reader: &mut Reader<'_>, mark: Mark, is_mapping: bool) -> Option<T> {
        if is_mapping && !self.seen {
            reader.missing(mark, self.key);
        }
        self.value
    }
}
