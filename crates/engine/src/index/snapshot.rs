//! A snapshot: one revision of the policy, indexed, for reads.

use std::fmt;
use std::sync::Arc;

use crate::index::Index;
use crate::{Catalog, Model, Role, TooLarge};

/// One revision of the policy, indexed. It offers reads only and never changes: the next revision is
/// another snapshot, made by a [`Writer`](crate::Writer) or from another [`Model`].
#[derive(Clone)]
pub struct Snapshot {
    revision: u64,
    index: Index,
}

impl Snapshot {
    pub(super) const fn new(revision: u64, index: Index) -> Self {
        Self { revision, index }
    }

    /// Indexes a model. The caller chooses the revision; revisions only grow.
    ///
    /// # Errors
    ///
    /// A part of the index is full. That takes hundreds of megabytes of names and bindings in one shard,
    /// for example ten million bindings of one identity.
    pub fn build(model: &Model, revision: u64) -> Result<Self, TooLarge> {
        Ok(Self::new(revision, Index::build(model)?))
    }

    /// The revision, as it was given to [`Snapshot::build`] or [`Writer::publish`](crate::Writer::publish).
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The catalog that capabilities and built-in roles come from.
    #[must_use]
    pub const fn catalog(&self) -> &Arc<Catalog> {
        self.index.catalog()
    }

    /// Built-in roles in the catalog's order, then custom ones by id.
    #[must_use]
    pub fn roles(&self) -> &[Arc<Role>] {
        self.index.roles().ordered()
    }

    /// The number of registered identities.
    #[must_use]
    pub fn identities_len(&self) -> usize {
        self.index.identities().len()
    }

    /// The number of role bindings, whether or not they count.
    #[must_use]
    pub const fn bindings_len(&self) -> usize {
        self.index.bindings_len()
    }

    /// Bytes of the index: names, bindings, and the tables that find them. Roles, expiries, conditions
    /// and properties are not counted.
    #[must_use]
    pub fn index_bytes(&self) -> usize {
        self.index.bytes()
    }

    pub(crate) const fn index(&self) -> &Index {
        &self.index
    }
}

impl fmt::Debug for Snapshot {
    /// Sizes only: a policy can have millions of bindings.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("revision", &self.revision)
            .field("catalog", &self.catalog().name())
            .field("identities", &self.identities_len())
            .field("bindings", &self.bindings_len())
            .finish_non_exhaustive()
    }
}
