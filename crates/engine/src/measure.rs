//! The index's hash by itself, for the benches of `docs/PERFORMANCE.md`. Not part of the API.

use std::hint::black_box;

use crate::index::hash;

/// The random keys of one process's fingerprints.
#[derive(Debug)]
pub struct Seed(hash::Seed);

impl Seed {
    /// With the products that the index uses on this processor.
    #[must_use]
    pub fn random() -> Self {
        Self(hash::Seed::random())
    }

    /// With integer products, which every processor has.
    #[must_use]
    pub fn portable() -> Self {
        Self(hash::Seed::with(None))
    }

    /// Computes the fingerprint of a text of at most 1,024 bytes.
    pub fn fingerprint(&self, text: &str) {
        black_box(self.0.fingerprint(text.as_bytes()));
    }

    /// Computes the fingerprints of a path and of all its ancestors.
    pub fn prefixes(&self, path: &str) {
        black_box(self.0.prefixes(path));
    }
}
