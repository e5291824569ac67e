//! R11: an organization that has an owner, and stays, keeps one.

use std::collections::{BTreeMap, BTreeSet};

use capstan_engine::{Path, PathBuf, RoleBinding};

use crate::object::root_of;
use crate::rights::{Capabilities, role};
use crate::rules::access::Access;
use crate::{Cause, Identity, JudgeError, Object, ObjectChange, ObjectsError, Refusal, Rule};

impl Access<'_> {
    /// Refuses if the changes take the last owner of an organization. An owner holds every capability of the
    /// catalog's owner role at the root, unconditionally and without end, is registered and enabled, and is no pull
    /// token.
    pub(crate) fn keep_owner(&self, changes: &[ObjectChange]) -> Result<(), JudgeError> {
        let catalog = self.view.snapshot().catalog();
        let owner = catalog.roles().iter().find(|role| role.owner);
        let Some(owner) = owner.filter(|_| self.rules.keeps(Rule::LastOwner)) else {
            return Ok(());
        };
        let owned: Capabilities = catalog.capability_set(&owner.capabilities).iter().collect();
        for organization in self.organizations(changes)? {
            let organization = organization.as_path();
            let had = self.has_owner(&owned, organization, &[])?;
            if had && !self.has_owner(&owned, organization, changes)? {
                let cause = Cause::LastOwner { organization: organization.into() };
                return Err(Refusal::open(Some(Rule::LastOwner), cause).into());
            }
        }
        Ok(())
    }

    /// The organizations that stay and whose owners the changes may take.
    fn organizations(&self, changes: &[ObjectChange]) -> Result<BTreeSet<PathBuf>, ObjectsError> {
        let mut roots = BTreeSet::new();
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
        let deleted = |root: &PathBuf| {
            let is_root = |change: &&ObjectChange| change.id == *root && change.after.is_none();
            changes.iter().any(|change| is_root(&change))
        };
        let mut organizations = BTreeSet::new();
        for root in roots {
            if !deleted(&root) && self.view.is_group(root.as_path())? {
                organizations.insert(root);
            }
        }
        Ok(organizations)
    }

    fn has_owner(
        &self,
        owned: &Capabilities,
        organization: Path<'_>,
        changes: &[ObjectChange],
    ) -> Result<bool, ObjectsError> {
        let after: BTreeMap<&PathBuf, Option<&Object>> =
            changes.iter().map(|change| (&change.id, change.after.as_ref())).collect();
        let mut held: BTreeMap<PathBuf, Capabilities> = BTreeMap::new();
        let mut count = |binding: &RoleBinding| {
            let lasts = binding.when.is_empty() && binding.expires_at.is_none();
            if lasts && binding.scope.as_path() == organization {
                let capabilities = self.capabilities_after(&binding.role, &after);
                held.entry(binding.identity.clone()).or_default().extend(capabilities);
            }
        };
        self.view.bindings_at(organization, &mut |binding| {
            let is_changed = binding.id.as_ref().is_some_and(|id| after.contains_key(id));
            if !is_changed {
                count(binding);
            }
            true
        })?;
        for object in after.values().flatten() {
            if let Object::RoleBinding(binding) = object {
                count(&binding.fact());
            }
        }
        for (identity, held) in held {
            if held.is_superset(owned) && self.can_own(&identity, &after)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn capabilities_after(
        &self,
        id: &str,
        after: &BTreeMap<&PathBuf, Option<&Object>>,
    ) -> Capabilities {
        let changed = if id.contains('/') {
            after.iter().find(|(changed, _)| changed.as_str() == id)
        } else {
            None
        };
        let catalog = self.view.snapshot().catalog();
        match changed {
            Some((_, Some(Object::Role(role)))) => {
                catalog.capability_set(&role.capabilities).iter().collect()
            }
            Some(_) => Capabilities::new(),
            None => {
                let role = role(self.view.snapshot(), id);
                role.map(|role| role.capabilities.iter().collect()).unwrap_or_default()
            }
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
