//! Application of one change to the index: proved first, then made.

use std::sync::Arc;

use crate::index::Index;
use crate::index::binding::{Beside, Id, Packed, Special};
use crate::index::read::Binding;
use crate::index::scope::{ScopeKind, ScopeRecord};
use crate::index::table::Entry;
use crate::rules::{Same, binding_id};
use crate::{
    CONDITIONS_MAX, Change, Condition, CustomRole, Family, Identity, Path, PathBuf, Refused,
    RegisteredResource, Role, RoleBinding,
};

type Made = Result<(), Refused>;

impl Index {
    pub(super) fn apply(&mut self, change: &Change) -> Made {
        match change {
            Change::CreateGroup(id) => self.create_scope(id, ScopeKind::Group),
            Change::DeleteGroup(id) => self.delete_scope(id, ScopeKind::Group),
            Change::PutRole(role) => self.put_role(role),
            Change::DeleteRole(id) => self.delete_role(id),
            Change::PutIdentity(identity) => self.put_identity(identity),
            Change::DeleteIdentity(id) => self.delete_identity(id),
            Change::PutResource(resource) => self.put_resource(resource),
            Change::DeleteResource(id) => self.delete_scope(id, ScopeKind::Resource),
            Change::Bind(binding) => self.add_binding(binding),
            Change::Unbind(binding) => self.take_binding(binding),
        }
    }

    /// Whether the path names anything.
    fn is_taken(&self, id: &str) -> bool {
        self.scopes.get(id).is_some()
            || self.identities.get(id).is_some()
            || self.custom_role(id)
            || self.binding_ids.get(id).is_some()
    }

    /// Whether it is a custom role's path. A built-in role's name has no slash and is no path.
    fn custom_role(&self, id: &str) -> bool {
        id.contains('/') && self.roles.find(id).is_some()
    }

    /// A path for something new: free, and below a group or at the root.
    fn claim(&mut self, id: &PathBuf) -> Made {
        if self.is_taken(id.as_str()) {
            return Err(Refused::Taken(id.to_string()));
        }
        let Some(parent) = id.as_path().parent() else { return Ok(()) };
        match self.scope(parent.as_str()) {
            Some((_, record)) if record.kind == ScopeKind::Group => {
                self.count_children(parent, 1);
                Ok(())
            }
            _ => Err(missing("group", parent.as_str())),
        }
    }

    fn release(&mut self, id: &PathBuf) {
        if let Some(parent) = id.as_path().parent() {
            self.count_children(parent, -1);
        }
    }

    fn count_children(&mut self, group: Path<'_>, more: i32) {
        if let Some((entry, record)) = self.scope(group.as_str()) {
            let (number, children) = (entry.number(), record.children.saturating_add_signed(more));
            self.scopes.write_at(number, ScopeRecord::CHILDREN_AT, &children.to_le_bytes());
        }
    }

    fn create_scope(&mut self, id: &PathBuf, kind: ScopeKind) -> Made {
        self.claim(id)?;
        let payload = ScopeRecord::write(kind, 0, std::iter::empty());
        let put = self.scopes.put(id.as_str(), &payload);
        put.map(|_| ()).ok_or_else(|| Refused::Full(id.to_string()))
    }

    fn delete_scope(&mut self, id: &PathBuf, kind: ScopeKind) -> Made {
        let record = self.scope(id.as_str()).map(|(_, record)| record);
        let word = if kind == ScopeKind::Group { "group" } else { "resource" };
        let record = record.filter(|record| record.kind == kind);
        let record = record.ok_or_else(|| missing(word, id.as_str()))?;
        if record.children > 0 || record.identities().next().is_some() {
            return Err(Refused::NotEmpty(id.to_string()));
        }
        self.scopes.remove(id.as_str());
        self.release(id);
        Ok(())
    }

    fn put_resource(&mut self, resource: &RegisteredResource) -> Made {
        let id = resource.id.as_str();
        let known = self.scope(id).map(|(_, record)| record.kind);
        if known != Some(ScopeKind::Resource) {
            self.create_scope(&resource.id, ScopeKind::Resource)?;
        }
        let properties = Some(&resource.properties).filter(|properties| !properties.is_empty());
        if let Some(number) = self.scopes.get(id).map(|entry| entry.number()) {
            self.scopes.set_extra(number, properties.cloned().map(Arc::new));
        }
        Ok(())
    }

    fn put_role(&mut self, role: &CustomRole) -> Made {
        let unknown = role.capabilities.iter().find(|name| self.catalog.capability(name).is_none());
        if let Some(name) = unknown {
            return Err(Refused::UnknownCapability(name.clone()));
        }
        if role.id.as_path().parent().is_none() {
            return Err(Refused::OutOfSubtree(role.id.to_string(), "a group".into()));
        }
        if self.roles.find(role.id.as_str()).is_none() {
            self.claim(&role.id)?;
        }
        let put = self.roles.put(Role {
            id: role.id.as_str().into(),
            description: (*role.description).into(),
            family: Family::Custom,
            capabilities: self.catalog.capability_set(&role.capabilities),
        });
        put.map(|_| ()).ok_or_else(|| Refused::Full(role.id.to_string()))
    }

    fn delete_role(&mut self, id: &PathBuf) -> Made {
        let known = self.roles.find(id.as_str()).filter(|_| self.custom_role(id.as_str()));
        match known {
            None => Err(missing("custom role", id.as_str())),
            Some(known) if known.bindings > 0 => Err(Refused::Bound(id.to_string())),
            Some(_) => {
                self.roles.remove(id.as_str());
                self.release(id);
                Ok(())
            }
        }
    }

    fn put_identity(&mut self, identity: &Identity) -> Made {
        let id = identity.id.as_str();
        if self.identities.get(id).is_none() {
            self.claim(&identity.id)?;
            let put = self.identities.put(id, &[]);
            put.ok_or_else(|| Refused::Full(id.into()))?;
        }
        let Some(entry) = self.identities.get(id) else { return Ok(()) };
        let special = entry.extra().map(|beside| beside.special.clone()).unwrap_or_default();
        let number = entry.number();
        self.set_beside(number, Beside { properties: identity.properties.clone(), special });
        Ok(())
    }

    fn set_beside(&mut self, identity: u32, beside: Beside) {
        let is_plain = beside.properties.is_empty() && beside.special.is_empty();
        self.identities.set_extra(identity, (!is_plain).then(|| Arc::new(beside)));
    }

    fn delete_identity(&mut self, id: &PathBuf) -> Made {
        let entry = self.identities.get(id.as_str());
        let entry = entry.ok_or_else(|| missing("identity", id.as_str()))?;
        if !entry.payload().is_empty() {
            return Err(Refused::Bound(id.to_string()));
        }
        self.identities.remove(id.as_str());
        self.release(id);
        Ok(())
    }
}

// === Bindings ===

impl Index {
    fn add_binding(&mut self, binding: &RoleBinding) -> Made {
        let (identity, role) = (binding.identity.as_str(), &*binding.role);
        let scope = binding.scope.as_str();
        let entry = self.identities.get(identity);
        let entry = entry.ok_or_else(|| missing("identity", identity))?;
        let (at, record) = self.scope(scope).ok_or_else(|| missing("scope", scope))?;
        let known = self.roles.find(role).ok_or_else(|| missing("role", role))?;
        if let Some((home, _)) = role.rsplit_once('/')
            && !crate::model::path::contains(home, scope)
        {
            return Err(Refused::OutOfSubtree(scope.into(), home.into()));
        }
        if binding.when.len() > CONDITIONS_MAX {
            return Err(Refused::TooManyConditions);
        }
        let at_scope = (at.number(), scope);
        let packed = Packed::new(self.seed(), at_scope, known.number);
        if self.find_binding(entry, packed, binding).is_some() {
            return Err(Refused::Taken(format!("{role} of {identity} at {scope}")));
        }
        let (when, expires_at) = (binding.when.clone().into(), binding.expires_at);
        let special = Special { expires_at, when, id: self.id_for(binding)? };
        let packed = Packed { special: !special.is_plain(), ..packed };

        let number = entry.number();
        let place = record.after(identity, |number| self.identities.key(number));
        let bound = record.with(number, place);
        let (payload, beside) = with_binding(entry, packed, special);
        let full = || Refused::Full(identity.into());
        self.identities.put(identity, &payload).ok_or_else(full)?;
        if let Some(beside) = beside {
            self.set_beside(number, beside);
        }
        self.scopes.put(scope, &bound).ok_or_else(full)?;
        if let Some(id) = &binding.id {
            self.binding_ids.put(id.as_str(), &[]).ok_or_else(full)?;
        }
        self.roles.count(role, 1);
        self.bindings += 1;
        Ok(())
    }

    /// What a new binding is called.
    fn id_for(&self, binding: &RoleBinding) -> Result<Id, Refused> {
        let scope = &binding.scope;
        let Some(id) = &binding.id else {
            let same = same(binding, &binding.when);
            let derived = same.derived_id();
            let mut free = derived;
            while self.is_taken(&binding_id(scope.as_str(), free)) {
                free = free.wrapping_add(1);
            }
            return Ok(if free == derived { Id::Derived } else { Id::Moved(free) });
        };
        if scope == id || !scope.as_path().contains(id.as_path()) {
            return Err(Refused::OutOfSubtree(id.to_string(), scope.to_string()));
        }
        if self.is_taken(id.as_str()) {
            return Err(Refused::Taken(id.to_string()));
        }
        Ok(Id::Declared(id.as_str().into()))
    }

    /// Where among the identity's bindings the one is that has this role, scope and conditions.
    fn find_binding<'s>(
        &'s self,
        entry: Entry<'s, Beside>,
        packed: Packed,
        wanted: &RoleBinding,
    ) -> Option<(usize, Binding<'s>)> {
        let wanted = same(wanted, &wanted.when);
        self.bindings_of(entry).enumerate().find(|(_, binding)| {
            let Packed { scope, role, .. } = binding.packed;
            if (scope, role) != (packed.scope, packed.role) {
                return false;
            }
            Same::new(wanted.identity, wanted.role, wanted.scope, binding.conditions()) == wanted
        })
    }

    fn take_binding(&mut self, binding: &RoleBinding) -> Made {
        let (identity, role) = (binding.identity.as_str(), &*binding.role);
        let scope = binding.scope.as_str();
        let absent = || missing("binding", &format!("{role} of {identity} at {scope}"));
        let entry = self.identities.get(identity).ok_or_else(absent)?;
        let (at, record) = self.scope(scope).ok_or_else(absent)?;
        let known = self.roles.find(role).ok_or_else(absent)?;
        let at_scope = (at.number(), scope);
        let packed = Packed::new(self.seed(), at_scope, known.number);
        let (place, found) = self.find_binding(entry, packed, binding).ok_or_else(absent)?;

        let number = entry.number();
        let left = record.without(number);
        let declared = match found.special.map(|special| &special.id) {
            Some(Id::Declared(id)) => Some(id.clone()),
            _ => None,
        };
        let (payload, beside) = without_binding(entry, place);
        let full = || Refused::Full(identity.into());
        self.identities.put(identity, &payload).ok_or_else(full)?;
        if let Some(beside) = beside {
            self.set_beside(number, beside);
        }
        self.scopes.put(scope, &left).ok_or_else(full)?;
        if let Some(id) = declared {
            self.binding_ids.remove(&id);
        }
        self.roles.count(role, -1);
        self.bindings -= 1;
        Ok(())
    }
}

fn missing(what: &'static str, id: &str) -> Refused {
    Refused::Missing(what, id.into())
}

fn same<'b>(binding: &'b RoleBinding, when: &'b [Condition]) -> Same<'b> {
    Same::new(binding.identity.as_str(), &binding.role, binding.scope.as_str(), when)
}

/// An identity's payload with one more binding, and what stands beside it if that changes.
fn with_binding(
    entry: Entry<'_, Beside>,
    packed: Packed,
    special: Special,
) -> (Vec<u8>, Option<Beside>) {
    let (bindings, _) = entry.payload().as_chunks();
    let place =
        bindings.partition_point(|bytes| Packed::read(*bytes).fingerprint < packed.fingerprint);
    let (before, after) = bindings.split_at_checked(place).unwrap_or((bindings, &[]));
    let mut payload =
        Vec::with_capacity(entry.payload().len() + crate::index::binding::BINDING_BYTES);
    payload.extend(before.as_flattened());
    packed.write(&mut payload);
    payload.extend(after.as_flattened());

    let has_special = entry.extra().is_some_and(|beside| !beside.special.is_empty());
    if !has_special && !packed.special {
        return (payload, None);
    }
    let mut beside = entry.extra().map(|beside| (**beside).clone()).unwrap_or_default();
    let place = u32::try_from(place).unwrap_or(u32::MAX);
    for (at, _) in beside.special.iter_mut().filter(|(at, _)| *at >= place) {
        *at += 1;
    }
    if packed.special {
        let at = beside.special.partition_point(|(at, _)| *at < place);
        beside.special.insert(at, (place, special));
    }
    (payload, Some(beside))
}

/// An identity's payload without the binding at this place, and what stands beside it if that
/// changes.
fn without_binding(entry: Entry<'_, Beside>, place: usize) -> (Vec<u8>, Option<Beside>) {
    let (bindings, _) = entry.payload().as_chunks::<{ crate::index::binding::BINDING_BYTES }>();
    let left = bindings.iter().enumerate().filter(|(at, _)| *at != place);
    let payload = left.flat_map(|(_, bytes)| *bytes).collect();
    let Some(beside) = entry.extra().filter(|beside| !beside.special.is_empty()) else {
        return (payload, None);
    };
    let mut beside = (**beside).clone();
    let place = u32::try_from(place).unwrap_or(u32::MAX);
    beside.special.retain(|(at, _)| *at != place);
    for (at, _) in beside.special.iter_mut().filter(|(at, _)| *at > place) {
        *at -= 1;
    }
    (payload, Some(beside))
}
