//! The hash of the index, for the benches that measure it alone. Not part of the API.

use std::hint::black_box;

use crate::index::hash;

/// The random keys of fingerprints.
#[derive(Debug)]
pub struct Seed(hash::Seed);

impl Seed {
    /// New random keys.
    #[must_use]
    pub fn random() -> Self {
        Self(hash::Seed::random())
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
