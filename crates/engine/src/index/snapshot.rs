//! A snapshot: one revision of the policy, indexed, for reads.

use std::fmt;
use std::sync::Arc;

use crate::index::Index;
use crate::{Catalog, Model, Path, Role, RoleBinding, TooLargeError};

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
    pub fn build(model: &Model, revision: u64) -> Result<Self, TooLargeError> {
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

    /// The roles of [`Self::roles`] that follow the one of this id. If there is none of this id any more,
    /// those that would follow it.
    #[must_use]
    pub fn roles_after(&self, id: &str) -> &[Arc<Role>] {
        self.index.roles().after(id)
    }

    /// All role bindings of an identity, whether or not they count, sorted by id; those of a disabled one, too. Every one has its id, also
    /// if that is derived, unless its scope is as deep or as long as a path can be. Empty for an unknown
    /// identity.
    #[must_use]
    pub fn role_bindings(&self, identity: Path<'_>) -> Vec<RoleBinding> {
        let Some(entry) = self.index.identities().get(identity.as_str()) else { return vec![] };
        let bindings = self.index.stored_bindings_of(entry);
        let mut found: Vec<_> =
            bindings.filter_map(|binding| self.index.role_binding(entry, &binding)).collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }

    /// Whether any role binding of an identity has an id that is wanted. It asks for ids in no order, and makes no
    /// binding: a fraction of the time of [`Self::role_bindings`].
    #[must_use]
    pub fn has_role_binding(
        &self,
        identity: Path<'_>,
        mut is_wanted: impl FnMut(&str) -> bool,
    ) -> bool {
        let Some(entry) = self.index.identities().get(identity.as_str()) else { return false };
        let mut bindings = self.index.stored_bindings_of(entry);
        bindings.any(|binding| {
            !binding.is_broken() && is_wanted(&self.index.binding_id(entry, &binding))
        })
    }

    /// The scopes at which an identity is bound, whether or not the bindings count, those of a disabled one, too. In no
    /// order; a scope comes once for each binding. Empty for an unknown identity.
    ///
    /// Costs one look-up, and no hash of an id: whoever asks only where an identity is bound asks this.
    pub fn bound_scopes(&self, identity: Path<'_>) -> impl Iterator<Item = Path<'_>> + use<'_> {
        let entry = self.index.identities().get(identity.as_str());
        let bindings = entry.into_iter().flat_map(|entry| self.index.stored_bindings_of(entry));
        // A corrupt binding has no scope, and `/` is no path.
        bindings.filter_map(|binding| Path::parse(self.index.scope_of(&binding)).ok())
    }

    /// The role binding of this id, explicit or derived.
    #[must_use]
    pub fn role_binding(&self, id: Path<'_>) -> Option<RoleBinding> {
        let (entry, binding) = self.index.find_binding(id.as_str())?;
        self.index.role_binding(entry, &binding)
    }

    /// The number of registered identities.
    #[must_use]
    pub const fn identities_len(&self) -> usize {
        self.index.registered_len()
    }

    /// The number of role bindings, whether or not they count.
    #[must_use]
    pub const fn bindings_len(&self) -> usize {
        self.index.bindings_len()
    }

    /// Bytes of the index: names, bindings, and the tables that find them. Roles, expiries, conditions,
    /// properties and the bindings of disabled identities are not counted.
    #[must_use]
    pub fn index_bytes(&self) -> usize {
        self.index.bytes()
    }

    /// Bytes of the index that another snapshot does not share with this one, at most; those that
    /// [`Self::index_bytes`] does not count are not counted here either.
    #[must_use]
    pub fn bytes_beside(&self, other: &Self) -> usize {
        self.index.bytes_beside(&other.index)
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
