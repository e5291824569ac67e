//! R11: an organization that has an owner, and stays, keeps one.

use std::collections::{BTreeMap, BTreeSet};

use capstan_engine::{CapabilitySet, Path, PathBuf, RoleBinding};

use crate::object::root_of;
use crate::rights::nothing;
use crate::rules::access::Access;
use crate::{Cause, Identity, JudgeError, Object, ObjectChange, ObjectsError, Refusal, Rule};

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
        for organization in self.organizations(changes) {
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

    /// Whether there is an owner that the changes do not concern: the usual answer, without reading every binding at
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
                // It concerns everybody who has the role.
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

    /// The organizations that stay and whose owners the changes may take.
    fn organizations(&self, changes: &[ObjectChange]) -> BTreeSet<PathBuf> {
        let mut roots: BTreeSet<PathBuf> = BTreeSet::new();
        for change in changes {
            match &change.before {
                Some(Object::RoleBinding(binding)) => {
                    roots.insert(root_of(binding.scope.as_path()).into());
                }
                Some(Object::Role(role)) => {
                    roots.insert(root_of(role.id.as_path()).into());
                }
                Some(Object::Identity(identity)) => {
                    let bindings = self.view.snapshot().role_bindings(identity.id.as_path());
                    roots.extend(
                        bindings.into_iter().map(|one| root_of(one.scope.as_path()).into()),
                    );
                }
                _ => {}
            }
        }
        let is_deleted = |root: &PathBuf| {
            changes.iter().any(|change| change.id == *root && change.after.is_none())
        };
        roots.retain(|root| self.view.is_group(root.as_path()) && !is_deleted(root));
        roots
    }

    fn has_owner(
        &self,
        owned: &CapabilitySet,
        organization: Path<'_>,
        changes: &[ObjectChange],
    ) -> Result<bool, ObjectsError> {
        let after: BTreeMap<&PathBuf, Option<&Object>> =
            changes.iter().map(|change| (&change.id, change.after.as_ref())).collect();
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
            if !binding.id.as_ref().is_some_and(|id| after.contains_key(id)) {
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

    fn capabilities_after(
        &self,
        id: &str,
        after: &BTreeMap<&PathBuf, Option<&Object>>,
    ) -> CapabilitySet {
        let changed = if id.contains('/') {
            after.iter().find(|(changed, _)| changed.as_str() == id)
        } else {
            None
        };
        let catalog = self.view.snapshot().catalog();
        match changed {
            Some((_, Some(Object::Role(role)))) => catalog.capability_set(&role.capabilities),
            Some(_) => nothing(catalog),
            None => self.role_capabilities(id),
        }
    }

    fn can_own(
        &self,
        id: &PathBuf,
        after: &BTreeMap<&PathBuf, Option<&Object>>,
    ) -> Result<bool, ObjectsError> {
        let can = |identity: &Identity| !identity.disabled && !identity.is_pull_token();
        match after.get(id) {
            Some(Some(Object::Identity(identity))) => Ok(can(identity)),
            Some(_) => Ok(false),
            None => Ok(self.view.identity(id.as_path())?.as_ref().is_some_and(can)),
        }
    }
}
