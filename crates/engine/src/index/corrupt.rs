//! Corrupts one part of an index, for the tests of the self-check.

use std::sync::Arc;

use crate::index::Index;
use crate::index::binding::{IdentityExtra, IdentityPayload};
use crate::index::scope::{ScopePayload, ScopeRecord};
use crate::{CapabilitySet, Snapshot};

impl Snapshot {
    /// A copy with another index.
    pub(crate) fn corrupted(&self, corrupt: impl FnOnce(&mut Index)) -> Self {
        let mut index = self.index().clone();
        corrupt(&mut index);
        Self::new(self.revision(), index)
    }
}

impl Index {
    /// Replaces the payload of an identity.
    pub(crate) fn corrupt_identity(&mut self, id: &str, change: impl FnOnce(&mut IdentityPayload)) {
        let mut payload = IdentityPayload::read(self.identities.get(id).unwrap().payload());
        change(&mut payload);
        self.identities.put(id, &payload.bytes()).unwrap();
    }

    /// Replaces the extra value of an identity.
    pub(crate) fn corrupt_extra(&mut self, id: &str, change: impl FnOnce(&mut IdentityExtra)) {
        let entry = self.identities.get(id).unwrap();
        let mut extra = entry.extra().map(|extra| (**extra).clone()).unwrap_or_default();
        change(&mut extra);
        let number = entry.number();
        self.identities.set_extra(number, Some(Arc::new(extra)));
    }

    /// Replaces the payload of a scope.
    pub(crate) fn corrupt_scope(&mut self, id: &str, change: impl FnOnce(&mut ScopePayload)) {
        let entry = self.scopes.get(id).unwrap();
        let mut payload = ScopeRecord::read(entry).unwrap().to_payload();
        change(&mut payload);
        self.scopes.put(id, &payload.stored().payload).unwrap();
    }

    pub(crate) fn forget_scope(&mut self, id: &str) {
        self.scopes.remove(id);
    }

    pub(crate) fn forget_identity(&mut self, id: &str) {
        self.identities.remove(id);
    }

    pub(crate) fn forget_role(&mut self, id: &str) {
        self.roles.remove(id);
    }

    pub(crate) fn forget_binding_id(&mut self, id: &str) {
        assert!(self.binding_ids.get(id).is_some());
        self.binding_ids.remove(id);
    }

    /// Lets the path name an identity, too.
    pub(crate) fn add_identity(&mut self, id: &str) {
        self.identities.put(id, &[]).unwrap();
    }

    pub(crate) fn count_bindings(&mut self, role: &str, more: i32) {
        let number = self.roles.find(role).unwrap().number;
        self.roles.count(number, more);
    }

    /// Replaces the matrix row of a role, and not its capabilities.
    pub(crate) fn set_row(&mut self, role: &str, set: &CapabilitySet) {
        self.roles.set_row(role, set);
    }

    /// Gives a role the capabilities of another, in all places.
    pub(crate) fn replace_role(&mut self, id: &str, other: &str) {
        let find = |id: &str| self.roles.find(id).and_then(|role| self.roles.get(role.number));
        let (mut role, other) = (find(id).unwrap().clone(), find(other).unwrap());
        role.capabilities = other.capabilities.clone();
        self.roles.put(role).unwrap();
    }

    /// The numbers of a role and of a scope.
    pub(crate) fn numbers(&self, role: &str, scope: &str) -> (u32, u32) {
        (self.roles.find(role).unwrap().number, self.scopes.get(scope).unwrap().number())
    }

    pub(crate) fn identity_number(&self, id: &str) -> u32 {
        self.identities.get(id).unwrap().number()
    }
}
