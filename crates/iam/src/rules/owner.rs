//! R11: an organization that has an owner, and stays, keeps one.
//!
//! ```text
//! changes ▸ those that can take an owner ▸ one owner that stays? ▸ somebody who becomes one? ▸ refused
//! ```
//!
//! Nearly every operation ends at the first step, which reads no list. The second ends at the first owner that it finds.

use std::collections::{BTreeMap, BTreeSet};

use capstan_engine::{CapabilitySet, Path, PathBuf};

use crate::rights::nothing;
use crate::rules::access::Access;
use crate::{
    Cause, Identity, JudgeError, Kind, Object, ObjectChange, ObjectsError, Refusal, RoleBinding,
    Rule,
};

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
        let concerned = self.organizations(&owned, changes);
        if concerned.is_empty() {
            return Ok(());
        }
        let after = After::new(self, &owned, changes);
        for organization in concerned {
            if after.loses_owner(organization.as_path())? {
                let cause = Cause::LastOwner { organization };
                return Err(Refusal::open(Some(Rule::LastOwner), cause).into());
            }
        }
        Ok(())
    }

    /// The organizations that stay and of which the changes can take an owner. Nearly always none.
    fn organizations(&self, owned: &CapabilitySet, changes: &[ObjectChange]) -> BTreeSet<PathBuf> {
        let snapshot = self.view.snapshot();
        let mut concerned: BTreeSet<PathBuf> = BTreeSet::new();
        for change in changes {
            match (&change.before, &change.after) {
                (Some(Object::RoleBinding(binding)), after) if takes_binding(binding, after) => {
                    let scope = binding.scope.as_path();
                    if self.is_owner(owned, binding.identity.as_path(), scope) {
                        concerned.insert(scope.into());
                    }
                }
                (Some(Object::Identity(identity)), after) if takes_identity(identity, after) => {
                    let id = identity.id.as_path();
                    let owns = |scope: &Path<'_>| self.is_owner(owned, id, *scope);
                    concerned.extend(snapshot.bound_scopes(id).filter(owns).map(PathBuf::from));
                }
                // Bound at a root, a role has its home there. It concerns everybody who has it.
                (Some(Object::Role(role)), after) if role.home().parent().is_none() => {
                    let kept = match after {
                        Some(Object::Role(after)) => self.named(&after.capabilities),
                        _ => nothing(snapshot.catalog()),
                    };
                    let lost = self.named(&role.capabilities).without(&kept);
                    let is_bound = snapshot.role_bindings_len(role.id.as_str()) != Some(0);
                    if is_bound && lost.iter().any(|one| owned.contains(one)) {
                        concerned.insert(role.home().into());
                    }
                }
                _ => {}
            }
        }
        let is_deleted = |root: &PathBuf| {
            let is_it = |change: &ObjectChange| change.kind == Kind::Group && change.id == *root;
            changes.iter().any(|change| is_it(change) && change.after.is_none())
        };
        concerned.retain(|root| self.view.is_group(root.as_path()) && !is_deleted(root));
        concerned
    }

    fn named(&self, capabilities: &[String]) -> CapabilitySet {
        self.view.snapshot().catalog().capability_set(capabilities)
    }

    /// Whether an identity holds at a root, before the changes, what makes an owner.
    fn is_owner(&self, owned: &CapabilitySet, identity: Path<'_>, scope: Path<'_>) -> bool {
        if scope.parent().is_some() || !self.view.snapshot().is_registered(identity) {
            return false;
        }
        let held = self.view.snapshot().held(identity, scope, self.now);
        held.capabilities.covers(owned) && held.first_end(owned).is_none()
    }
}

/// Whether a binding that counted for ownership is deleted, or given to somebody else or in another way.
fn takes_binding(before: &RoleBinding, after: &Option<Object>) -> bool {
    let is_same = matches!(after, Some(Object::RoleBinding(after))
        if (&after.identity, &after.role) == (&before.identity, &before.role) && lasts(after));
    lasts(before) && !is_same
}

/// Whether an identity is deleted, or disabled.
fn takes_identity(before: &Identity, after: &Option<Object>) -> bool {
    let is_active = matches!(after, Some(Object::Identity(after)) if !after.disabled);
    !before.disabled && !is_active
}

/// Only a binding without conditions and without end makes an owner.
fn lasts(binding: &RoleBinding) -> bool {
    binding.when.is_empty() && binding.expires_at.is_none()
}

/// The state that the changes leave, as far as ownership goes.
struct After<'c> {
    access: &'c Access<'c>,
    owned: &'c CapabilitySet,
    /// Objects that change, by path, as they are after it.
    objects: BTreeMap<&'c str, Option<&'c Object>>,
    /// The bindings that are made or changed, by the identity that has them then.
    bindings: BTreeMap<&'c str, Vec<&'c RoleBinding>>,
    /// The identities of which a binding or the object changes.
    touched: BTreeSet<&'c str>,
    /// Whether a role changes, so that it concerns everybody who has it.
    roles: bool,
    /// Whether a role comes to give more of what makes an owner.
    gains: bool,
}

impl<'c> After<'c> {
    fn new(access: &'c Access<'c>, owned: &'c CapabilitySet, changes: &'c [ObjectChange]) -> Self {
        let objects =
            changes.iter().map(|change| (change.id.as_str(), change.after.as_ref())).collect();
        let (bindings, touched) = (BTreeMap::new(), BTreeSet::new());
        let mut found =
            Self { access, owned, objects, bindings, touched, roles: false, gains: false };
        for change in changes {
            for object in [&change.before, &change.after].into_iter().flatten() {
                match object {
                    Object::RoleBinding(one) => found.touched.insert(one.identity.as_str()),
                    Object::Identity(one) => found.touched.insert(one.id.as_str()),
                    _ => false,
                };
            }
            match (&change.before, &change.after) {
                (_, Some(Object::RoleBinding(one))) => {
                    found.bindings.entry(one.identity.as_str()).or_default().push(one);
                }
                (Some(Object::Role(before)), Some(Object::Role(after))) => {
                    let gained = access.named(&after.capabilities);
                    let gained = gained.without(&access.named(&before.capabilities));
                    found.roles = true;
                    found.gains |= gained.iter().any(|one| owned.contains(one));
                }
                (Some(Object::Role(_)), None) => found.roles = true,
                _ => {}
            }
        }
        found
    }

    /// Whether the organization had an owner and has none any more.
    fn loses_owner(&self, organization: Path<'_>) -> Result<bool, ObjectsError> {
        let snapshot = self.access.view.snapshot();
        let mut had_owner = false;
        for holder in snapshot.holders(organization, self.owned) {
            let Ok(id) = Path::parse(holder) else { continue };
            let is_untouched = !self.roles && !self.touched.contains(holder);
            if (is_untouched || self.holds(id, organization)) && self.can_own(id)? {
                return Ok(false);
            }
            // It is registered and enabled. Once one owner is found, no other object is read for that.
            had_owner = had_owner
                || self.access.view.identity(id)?.is_some_and(|before| !before.is_pull_token());
        }
        if !had_owner {
            return Ok(false);
        }
        // Who was no owner becomes one only by a change of its own, or of a role.
        for id in self.touched.iter().filter_map(|id| Path::parse(id).ok()) {
            if self.holds(id, organization) && self.can_own(id)? {
                return Ok(false);
            }
        }
        if self.gains {
            let mut seen = None;
            for binding in snapshot.bindings_at(organization) {
                let id = binding.identity;
                // In the order of their identities.
                if seen.as_ref() == Some(&id) {
                    continue;
                }
                if self.holds(id.as_path(), organization) && self.can_own(id.as_path())? {
                    return Ok(false);
                }
                seen = Some(id);
            }
        }
        Ok(true)
    }

    /// Whether an identity holds after the changes what makes an owner.
    fn holds(&self, identity: Path<'_>, organization: Path<'_>) -> bool {
        let snapshot = self.access.view.snapshot();
        let mut held = nothing(snapshot.catalog());
        for binding in snapshot.role_bindings_at(identity, organization) {
            let is_changed =
                binding.id.as_ref().is_some_and(|id| self.objects.contains_key(id.as_str()));
            if !is_changed && binding.when.is_empty() && binding.expires_at.is_none() {
                held.add(&self.capabilities(&binding.role));
            }
        }
        for binding in self.bindings.get(identity.as_str()).into_iter().flatten() {
            if lasts(binding) && binding.scope.as_path() == organization {
                held.add(&self.capabilities(&binding.role));
            }
        }
        held.covers(self.owned)
    }

    fn capabilities(&self, id: &str) -> CapabilitySet {
        match self.objects.get(id) {
            Some(Some(Object::Role(role))) => self.access.named(&role.capabilities),
            // A built-in role may be called as an organization is.
            _ => self.access.role_capabilities(id),
        }
    }

    fn can_own(&self, id: Path<'_>) -> Result<bool, ObjectsError> {
        let can = |identity: &Identity| !identity.disabled && !identity.is_pull_token();
        match self.objects.get(id.as_str()) {
            Some(Some(Object::Identity(identity))) => Ok(can(identity)),
            Some(_) => Ok(false),
            None => Ok(self.access.view.identity(id)?.as_ref().is_some_and(can)),
        }
    }
}
