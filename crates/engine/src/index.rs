//! The index: every question is answered from it. How it is built, read and changed.
//!
//! ```text
//! identities   path ─▶ its bindings, sorted by the fingerprint of their scope   ─▶ properties, expiries,
//! scopes       path ─▶ kind, children, identities bound at it                     conditions, if any
//! roles        name ─▶ number ─▶ row of the capability matrix
//! ```
//!
//! **Invariant**: only the builder (`build.rs`, `resize.rs`) and the application of changes (`apply.rs`) take
//! `&mut Index`. A [`Snapshot`](crate::Snapshot) owns an index and offers reads only. Two versions of an
//! index share every part that did not change (`table.rs`), so a change costs microseconds and not a copy of
//! the policy.

mod apply;
pub(crate) mod binding;
pub(crate) mod bound;
pub(crate) mod build;
#[cfg(test)]
pub(crate) mod corrupt;
pub(crate) mod difference;
pub(crate) mod hash;
mod ids;
pub(crate) mod load;
pub(crate) mod matrix;
mod plan;
mod prefetch;
pub(crate) mod read;
mod resize;
pub(crate) mod roles;
pub(crate) mod scope;
pub(crate) mod snapshot;
mod sort;
pub(crate) mod table;
pub(crate) mod writer;

use std::sync::Arc;

use binding::IdentityExtra;
use hash::Seed;
use roles::Roles;
use scope::ScopeExtra;
use table::Table;

use crate::Catalog;

/// All tables of one version of the policy. A clone shares them with the original.
#[derive(Clone)]
pub(crate) struct Index {
    catalog: Arc<Catalog>,
    roles: Roles,
    identities: Table<IdentityExtra>,
    /// Groups and registered resources.
    scopes: Table<ScopeExtra>,
    /// Ids of bindings that are not a number, each with the number of the identity: u32.
    binding_ids: Table<()>,
    bindings: usize,
    /// The number of identities that are bound and not registered.
    unregistered: usize,
}

impl Index {
    pub(crate) const fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    pub(crate) const fn roles(&self) -> &Roles {
        &self.roles
    }

    pub(crate) const fn identities(&self) -> &Table<IdentityExtra> {
        &self.identities
    }

    /// The number of registered identities.
    pub(crate) const fn registered_len(&self) -> usize {
        self.identities.len().saturating_sub(self.unregistered)
    }

    /// The number of role bindings, whether or not they count.
    pub(crate) const fn bindings_len(&self) -> usize {
        self.bindings
    }

    /// Bytes of the tables: names, bindings, and the slots that lead to them. Roles, expiries,
    /// conditions, properties and the bindings of disabled identities are not counted.
    pub(crate) fn bytes(&self) -> usize {
        self.identities.bytes() + self.scopes.bytes() + self.binding_ids.bytes()
    }

    /// Bytes of the tables that another version does not share, at most.
    pub(crate) fn bytes_beside(&self, other: &Self) -> usize {
        self.identities.bytes_beside(&other.identities)
            + self.scopes.bytes_beside(&other.scopes)
            + self.binding_ids.bytes_beside(&other.binding_ids)
    }

    pub(crate) const fn seed(&self) -> &Seed {
        self.identities.seed()
    }
}
