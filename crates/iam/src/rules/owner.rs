//! R11: an organization that has an owner, and stays, keeps one.

use std::collections::{BTreeMap, BTreeSet};

use capstan_engine::{CapabilitySet, Path, PathBuf, RoleBinding};

use crate::rights::nothing;
use crate::rules::access::Access;
use crate::{Cause, Identity, JudgeError, Object, ObjectChange, ObjectsError, Refusal, Rule};

/// Objects that change, by path, as they are after it.
type After<'c> = BTreeMap<&'c str, Option<&'c Object>>;

impl Access<'_> {
    /// Refuses if the changes take the last owner of an organization. An owner holds every capability of the
    /// catalog's owner role at the root, unconditionally and without end, is registered and enabled, and is no pull
    /// token.
    pub(crate) fn keep_owner(&self, changes: &[ObjectChange]) -> Result<(), JudgeError> {
        let catalog = self.view.snapshot().catalog();
        let Some(owner) = catalog.owner_role().filter(|_| self.rules.keeps(Rule::LastOwner)) else {
            return Ok(());
        };
        let owned = catalog.capability_set(&owner.capabilities);
        for organization in self.organizations(&owned, changes) {
            let organization = organization.as_path();
            let stays = self.has_untouched_owner(&owned, organization, changes)?;
            if !stays
                && self.has_owner(&owned, organization, &[])?
                && !self.has_owner(&owned, organization, changes)?
            {
                let cause = Cause::LastOwner { organization: organization.into() };
                return Err(Refusal::open(Some(Rule::LastOwner), cause).into());
            }
        }
        Ok(())
    }

    /// The organizations that stay and of whose owners the changes concern one. Nearly always none, and then nothing
    /// else is read.
    fn organizations(&self, owned: &CapabilitySet, changes: &[ObjectChange]) -> BTreeSet<PathBuf> {
        let mut concerned: BTreeSet<PathBuf> = BTreeSet::new();
        for change in changes {
            match &change.before {
                Some(Object::RoleBinding(binding)) => {
                    let scope = binding.scope.as_path();
                    if self.is_owner(owned, binding.identity.as_path(), scope) {
                        concerned.insert(scope.into());
                    }
                }
                Some(Object::Identity(identity)) => {
                    let bindings = self.view.snapshot().role_bindings(identity.id.as_path());
                    let scopes = bindings.into_iter().map(|binding| binding.scope);
                    concerned.extend(scopes.filter(|scope| {
                        self.is_owner(owned, identity.id.as_path(), scope.as_path())
                    }));
                }
                // Bound at a root, it has its home there. It concerns everybody who has it.
                Some(Object::Role(role)) if role.home().parent().is_none() => {
                    concerned.insert(role.home().into());
                }
                _ => {}
            }
        }
        let is_deleted = |root: &PathBuf| {
            changes.iter().any(|change| change.id == *root && change.after.is_none())
        };
        concerned.retain(|root| self.view.is_group(root.as_path()) && !is_deleted(root));
        concerned
    }

    /// Whether an identity holds at a root, before the changes, what makes an owner.
    fn is_owner(&self, owned: &CapabilitySet, identity: Path<'_>, scope: Path<'_>) -> bool {
        if scope.parent().is_some() || !self.view.snapshot().is_registered(identity) {
            return false;
        }
        let held = self.view.snapshot().held(identity, scope, self.now);
        held.capabilities.covers(owned) && held.first_end(owned).is_none()
    }

    /// Whether there is an owner whom the changes do not concern: the usual answer, without reading every binding at
    /// the root.
    fn has_untouched_owner(
        &self,
        owned: &CapabilitySet,
        organization: Path<'_>,
        changes: &[ObjectChange],
    ) -> Result<bool, ObjectsError> {
        let mut touched: BTreeSet<&str> = BTreeSet::new();
        for change in changes {
            match &change.before {
                Some(Object::RoleBinding(binding)) => touched.insert(binding.identity.as_str()),
                Some(Object::Identity(identity)) => touched.insert(identity.id.as_str()),
                Some(Object::Role(_)) => return Ok(false),
                _ => false,
            };
        }
        for holder in self.view.snapshot().holders(organization, owned) {
            let id = Path::parse(holder).ok().filter(|_| !touched.contains(holder));
            let identity = id.map(|id| self.view.identity(id)).transpose()?.flatten();
            if identity.is_some_and(|identity| !identity.is_pull_token()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn has_owner(
        &self,
        owned: &CapabilitySet,
        organization: Path<'_>,
        changes: &[ObjectChange],
    ) -> Result<bool, ObjectsError> {
        let after: After<'_> =
            changes.iter().map(|change| (change.id.as_str(), change.after.as_ref())).collect();
        let snapshot = self.view.snapshot();
        let catalog = snapshot.catalog();
        let mut held: BTreeMap<PathBuf, CapabilitySet> = BTreeMap::new();
        let mut count = |binding: &RoleBinding| {
            let lasts = binding.when.is_empty() && binding.expires_at.is_none();
            if lasts && binding.scope.as_path() == organization {
                let capabilities = self.capabilities_after(&binding.role, &after);
                let held = held.entry(binding.identity.clone());
                held.or_insert_with(|| nothing(catalog)).add(&capabilities);
            }
        };
        for binding in snapshot.bindings_at(organization) {
            if !binding.id.as_ref().is_some_and(|id| after.contains_key(id.as_str())) {
                count(&binding);
            }
        }
        for object in after.values().flatten() {
            if let Object::RoleBinding(binding) = object {
                count(&binding.fact());
            }
        }
        for (identity, held) in held {
            if held.covers(owned) && self.can_own(&identity, &after)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn capabilities_after(&self, id: &str, after: &After<'_>) -> CapabilitySet {
        let catalog = self.view.snapshot().catalog();
        match after.get(id) {
            Some(Some(Object::Role(role))) => catalog.capability_set(&role.capabilities),
            // A built-in role may be called as an organization is.
            _ => self.role_capabilities(id),
        }
    }

    fn can_own(&self, id: &PathBuf, after: &After<'_>) -> Result<bool, ObjectsError> {
        let can = |identity: &Identity| !identity.disabled && !identity.is_pull_token();
        match after.get(id.as_str()) {
            Some(Some(Object::Identity(identity))) => Ok(can(identity)),
            Some(_) => Ok(false),
            None => Ok(self.view.identity(id.as_path())?.as_ref().is_some_and(can)),
        }
    }
}
