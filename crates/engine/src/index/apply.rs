//! Application of one change: checked against the rules first (`rules.rs`), then made.
//!
//! **Invariant**: a change that is refused may leave the index half changed. The writer applies changes to a copy,
//! which shares all tables, and drops it then.

use std::sync::Arc;

use crate::index::Index;
use crate::index::binding::{
    BindingId, IdentityExtra, IdentityPayload, PackedBinding, Restrictions,
};
use crate::index::read::Binding;
use crate::index::scope::{ScopeKind, ScopePayload, ScopeRecord};
use crate::index::table::Entry;
use crate::rules::{self, BindingKey, BrokenRule, View as _, binding_id};
use crate::{
    Change, ChangeError, CustomRole, Family, Identity, Path, PathBuf, Properties,
    RegisteredResource, Role, RoleBinding,
};

type Applied = Result<(), ChangeError>;

impl Index {
    pub(super) fn apply(&mut self, change: &Change) -> Applied {
        match change {
            Change::CreateGroup(group) => self.create_scope(&group.id, ScopeKind::Group),
            // Its name decides nothing and is not stored here.
            Change::UpdateGroup(group) => {
                self.expect_scope(&group.id, ScopeKind::Group).map(|_| ())
            }
            Change::DeleteGroup(id) => self.delete_scope(id, ScopeKind::Group),
            Change::CreateRole(role) => self.create_role(role),
            Change::UpdateRole(role) => self.update_role(role),
            Change::DeleteRole(id) => self.delete_role(id),
            Change::CreateIdentity(identity) => self.create_identity(identity),
            Change::UpdateIdentity(identity) => self.update_identity(identity),
            Change::DeleteIdentity(id) => self.delete_identity(id),
            Change::CreateResource(resource) => self.create_resource(resource),
            Change::UpdateResource(resource) => self.update_resource(resource),
            Change::DeleteResource(id) => self.delete_scope(id, ScopeKind::Resource),
            Change::CreateRoleBinding(binding) => self.create_binding(binding),
            Change::UpdateRoleBinding(binding) => self.update_binding(binding),
            Change::DeleteRoleBinding(id) => self.delete_binding(id),
        }
    }

    // === Paths ===

    /// Checks the path of something new, and counts it as a child of its parent.
    fn claim(&mut self, id: &PathBuf) -> Applied {
        rules::check_id(id.as_str(), self.is_taken(id.as_str()))?;
        rules::check_parent(&&*self, id.as_path())?;
        self.count_child(id, 1);
        Ok(())
    }

    fn release(&mut self, id: &PathBuf) {
        self.count_child(id, -1);
    }

    fn count_child(&mut self, id: &PathBuf, more: i32) {
        let parent = id.as_path().parent().map(Path::as_str);
        if let Some((entry, record)) = parent.and_then(|parent| self.scope(parent)) {
            let (number, children) = (entry.number(), record.children.saturating_add_signed(more));
            self.scopes.write_at(number, ScopeRecord::CHILDREN_AT, &children.to_le_bytes());
        }
    }

    // === Groups and resources ===

    fn expect_scope(
        &self,
        id: &PathBuf,
        kind: ScopeKind,
    ) -> Result<(Entry<'_, Properties>, ScopeRecord<'_>), ChangeError> {
        let found = self.scope(id.as_str()).filter(|(_, record)| record.kind == kind);
        found.ok_or_else(|| match kind {
            ScopeKind::Group => ChangeError::not_found("group", id.as_str()),
            ScopeKind::Resource => ChangeError::not_found("resource", id.as_str()),
        })
    }

    fn create_scope(&mut self, id: &PathBuf, kind: ScopeKind) -> Applied {
        self.claim(id)?;
        let put = self.scopes.put(id.as_str(), &ScopePayload::empty(kind, 0).bytes());
        put.map(|_| ()).ok_or_else(|| full(id.as_str()))
    }

    fn delete_scope(&mut self, id: &PathBuf, kind: ScopeKind) -> Applied {
        let (_, record) = self.expect_scope(id, kind)?;
        rules::check_scope_deletion(id.as_str(), record.children, record.bound_len())?;
        self.scopes.remove(id.as_str());
        self.release(id);
        Ok(())
    }

    fn create_resource(&mut self, resource: &RegisteredResource) -> Applied {
        self.create_scope(&resource.id, ScopeKind::Resource)?;
        self.update_resource(resource)
    }

    fn update_resource(&mut self, resource: &RegisteredResource) -> Applied {
        let (entry, _) = self.expect_scope(&resource.id, ScopeKind::Resource)?;
        let (number, had_any) = (entry.number(), entry.extra().is_some());
        let properties = Some(&resource.properties).filter(|properties| !properties.is_empty());
        if had_any || properties.is_some() {
            self.scopes.set_extra(number, properties.cloned().map(Arc::new));
        }
        Ok(())
    }

    // === Roles ===

    fn create_role(&mut self, role: &CustomRole) -> Applied {
        rules::check_role_place(role)?;
        let built_in = self.catalog.roles().len();
        rules::check_role_count(built_in, self.roles.ordered().len() + 1 - built_in)?;
        self.claim(&role.id)?;
        self.put_role(role)
    }

    fn update_role(&mut self, role: &CustomRole) -> Applied {
        let id = role.id.as_str();
        (&*self).custom_role(id).ok_or_else(|| ChangeError::not_found("role", id))?;
        self.put_role(role)
    }

    fn put_role(&mut self, role: &CustomRole) -> Applied {
        let mut first = None;
        rules::check_role_capabilities(&&*self, role, |broken| {
            first.get_or_insert(broken);
        });
        first.map_or(Ok(()), Err)?;
        let role = Role {
            id: role.id.as_str().into(),
            name: (*role.name).into(),
            description: (*role.description).into(),
            family: Family::Custom,
            capabilities: self.catalog.capability_set(&role.capabilities),
        };
        let id = role.id.clone();
        self.roles.put(role).map(|_| ()).ok_or_else(|| full(&id))
    }

    fn delete_role(&mut self, id: &PathBuf) -> Applied {
        let role = (&*self).custom_role(id.as_str());
        let role = role.ok_or_else(|| ChangeError::not_found("role", id.as_str()))?;
        rules::check_bound_deletion(id.as_str(), role.bindings as usize)?;
        self.roles.remove(id.as_str());
        self.release(id);
        Ok(())
    }

    // === Identities ===

    fn create_identity(&mut self, identity: &Identity) -> Applied {
        self.claim(&identity.id)?;
        let id = identity.id.as_str();
        self.identities.put(id, &[]).ok_or_else(|| full(id))?;
        self.update_identity(identity)
    }

    fn update_identity(&mut self, identity: &Identity) -> Applied {
        let entry = self.expect_identity(&identity.id)?;
        let mut extra = entry.extra().map(|extra| (**extra).clone()).unwrap_or_default();
        extra.properties.clone_from(&identity.properties);
        let number = entry.number();
        self.set_extra(number, extra);
        Ok(())
    }

    fn expect_identity(&self, id: &PathBuf) -> Result<Entry<'_, IdentityExtra>, ChangeError> {
        let entry = self.identities.get(id.as_str());
        entry.ok_or_else(|| ChangeError::not_found("identity", id.as_str()))
    }

    fn set_extra(&mut self, identity: u32, extra: IdentityExtra) {
        self.identities.set_extra(identity, (!extra.is_empty()).then(|| Arc::new(extra)));
    }

    fn delete_identity(&mut self, id: &PathBuf) -> Applied {
        let entry = self.expect_identity(id)?;
        rules::check_bound_deletion(id.as_str(), self.bindings_of(entry).count())?;
        self.identities.remove(id.as_str());
        self.release(id);
        Ok(())
    }

    // === Bindings ===

    fn create_binding(&mut self, binding: &RoleBinding) -> Applied {
        let (identity, scope) = (binding.identity.as_str(), binding.scope.as_str());
        let mut first = None;
        let found = rules::check_binding(&&*self, binding, |broken| {
            first.get_or_insert(broken);
        });
        first.map_or(Ok(()), Err)?;
        let (Some(entry), Some(role), Some((at_scope, _))) =
            (found.identity, found.role, found.scope)
        else {
            return Err(ChangeError::not_found("role binding", identity));
        };
        let packed = PackedBinding::new(self.seed(), (at_scope.number(), scope), role.number);
        let key = BindingKey::of(binding);
        if self.find_same(entry, packed, &key).is_some() {
            let role = &binding.role;
            return Err(BrokenRule::SameBinding { identity, role, scope }.into());
        }
        let (expires_at, conditions) = (binding.expires_at, binding.when.clone().into());
        let restrictions = Restrictions { expires_at, conditions };
        let (number, at_scope) = (entry.number(), at_scope.number());
        let packed = PackedBinding { restricted: !restrictions.is_empty(), ..packed };

        let mut id = BindingId::of(binding.id.as_ref(), scope);
        if matches!(id, BindingId::Number(_)) {
            self.number_scope(scope)?;
        }
        match &binding.id {
            Some(id) => rules::check_id(id.as_str(), self.is_taken(id.as_str()))?,
            None => id = self.free_derived_id(scope, &key)?,
        }
        let scope_number = match id {
            BindingId::Derived => key.derived_number(),
            BindingId::Number(number) => number,
            BindingId::Text(_) => 0,
        };
        if let BindingId::Text(id) = &id {
            self.binding_ids.put(id, &number.to_le_bytes()).ok_or_else(|| full(id))?;
        }
        self.add_to_identity(number, packed, restrictions, &id, &key)?;
        self.add_to_scope(at_scope, number, scope_number)?;
        self.roles.count(&binding.role, 1);
        self.bindings += 1;
        Ok(())
    }

    /// The derived id if the path is free, otherwise the next number that is.
    fn free_derived_id(
        &mut self,
        scope: &str,
        key: &BindingKey<'_>,
    ) -> Result<BindingId, ChangeError> {
        let derived = key.derived_number();
        // A scope whose ids are all derived is not searched for an equal one, see `writer.rs`.
        let is_numbered = self.scope(scope).is_some_and(|(_, record)| record.numbers().is_some());
        let is_free = |index: &Self, number| {
            let id = binding_id(scope, number);
            if is_numbered { !index.is_taken(&id) } else { !index.is_named(&id) }
        };
        if is_free(self, derived) {
            return Ok(BindingId::Derived);
        }
        self.number_scope(scope)?;
        let mut number = derived.wrapping_add(1);
        while self.is_taken(&binding_id(scope, number)) {
            number = number.wrapping_add(1);
        }
        Ok(BindingId::Number(number))
    }

    fn update_binding(&mut self, binding: &RoleBinding) -> Applied {
        let id = binding.id.as_ref().ok_or(ChangeError::MissingId)?;
        let (identity, old) = self.expect_binding(id)?;
        if self.scope_of(&old) != binding.scope.as_str() {
            return Err(ChangeError::ScopeIsImmutable(id.to_string()));
        }
        let (identity, position) = (identity.number(), old.position);
        self.remove_binding(identity, position, id)?;
        self.create_binding(binding)
    }

    fn delete_binding(&mut self, id: &PathBuf) -> Applied {
        let (identity, binding) = self.expect_binding(id)?;
        let (identity, position) = (identity.number(), binding.position);
        self.remove_binding(identity, position, id)
    }

    fn expect_binding(
        &self,
        id: &PathBuf,
    ) -> Result<(Entry<'_, IdentityExtra>, Binding<'_>), ChangeError> {
        let found = self.find_binding(id.as_str());
        found.ok_or_else(|| ChangeError::not_found("role binding", id.as_str()))
    }

    /// Removes the binding at a position among those of an identity.
    fn remove_binding(&mut self, identity: u32, position: u32, id: &PathBuf) -> Applied {
        let absent = || ChangeError::not_found("role binding", id.as_str());
        let entry = self.identities.entry(identity).ok_or_else(absent)?;
        let at = position as usize;
        let binding = self.bindings_of(entry).nth(at).ok_or_else(absent)?;
        let number = self.number_of(entry, &binding);
        let (scope, role) = (binding.packed.scope, Box::<str>::from(self.role_id(&binding)));

        let mut payload = IdentityPayload::read(entry.payload());
        payload.bindings.remove(at);
        if let Some(numbers) = &mut payload.numbers {
            numbers.remove(at);
        }
        let extra = entry.extra().map(|extra| {
            let mut extra = (**extra).clone();
            remove_position(&mut extra.restrictions, position);
            remove_position(&mut extra.ids, position);
            extra
        });
        self.put_identity(identity, &payload, extra)?;
        self.remove_from_scope(scope, identity, number.unwrap_or(0))?;
        if number.is_none() {
            self.binding_ids.remove(id.as_str());
        }
        self.roles.count(&role, -1);
        self.bindings -= 1;
        Ok(())
    }

    fn put_identity(
        &mut self,
        identity: u32,
        payload: &IdentityPayload,
        extra: Option<IdentityExtra>,
    ) -> Applied {
        let key = self.identities.key(identity).to_owned();
        self.identities.put(&key, &payload.bytes()).ok_or_else(|| full(&key))?;
        if let Some(extra) = extra {
            self.set_extra(identity, extra);
        }
        Ok(())
    }

    fn add_to_identity(
        &mut self,
        identity: u32,
        packed: PackedBinding,
        restrictions: Restrictions,
        id: &BindingId,
        key: &BindingKey<'_>,
    ) -> Applied {
        let Some(entry) = self.identities.entry(identity) else { return Ok(()) };
        let mut payload = IdentityPayload::read(entry.payload());
        if payload.numbers.is_none() && matches!(id, BindingId::Number(_)) {
            let all = self.bindings_of(entry);
            payload.numbers =
                Some(all.map(|one| self.number_of(entry, &one).unwrap_or(0)).collect());
        }
        let at = payload.bindings.partition_point(|one| one.fingerprint < packed.fingerprint);
        payload.bindings.insert(at, packed);
        if let Some(numbers) = &mut payload.numbers {
            numbers.insert(
                at,
                match id {
                    BindingId::Derived => key.derived_number(),
                    BindingId::Number(number) => *number,
                    BindingId::Text(_) => 0,
                },
            );
        }
        let position = u32::try_from(at).unwrap_or(u32::MAX);
        let has_more = packed.restricted || matches!(id, BindingId::Text(_));
        let extra = (has_more || entry.extra().is_some()).then(|| {
            let mut extra = entry.extra().map(|extra| (**extra).clone()).unwrap_or_default();
            let restrictions = packed.restricted.then_some(restrictions);
            insert_position(&mut extra.restrictions, position, restrictions);
            let text = match id {
                BindingId::Text(text) => Some(text.clone()),
                BindingId::Derived | BindingId::Number(_) => None,
            };
            insert_position(&mut extra.ids, position, text);
            extra
        });
        self.put_identity(identity, &payload, extra)
    }

    // === Who is bound at a scope ===

    /// Gives a scope the numbers of its bindings, if it has none.
    fn number_scope(&mut self, scope: &str) -> Applied {
        let Some((_, record)) = self.scope(scope) else { return Ok(()) };
        if record.numbers().is_some() {
            return Ok(());
        }
        let mut payload = record.to_payload();
        let numbers = self.numbers_at(scope, &payload.identities);
        payload.numbers = Some(numbers);
        self.scopes.put(scope, &payload.bytes()).map(|_| ()).ok_or_else(|| full(scope))
    }

    /// The numbers of the bindings at a scope of these identities, which are in the order of their ids.
    fn numbers_at(&self, scope: &str, identities: &[u32]) -> Vec<u64> {
        let at = self.scopes.get(scope).map(|entry| entry.number());
        let mut numbers = Vec::with_capacity(identities.len());
        for run in identities.chunk_by(|a, b| a == b) {
            let Some(entry) = run.first().and_then(|one| self.identities.entry(*one)) else {
                continue;
            };
            let here = self.bindings_of(entry).filter(|one| Some(one.packed.scope) == at);
            numbers.extend(here.map(|one| self.number_of(entry, &one).unwrap_or(0)));
        }
        numbers
    }

    /// Adds a binding of an identity to a scope, both by their numbers.
    fn add_to_scope(&mut self, scope: u32, identity: u32, number: u64) -> Applied {
        let Some(entry) = self.scopes.entry(scope) else { return Ok(()) };
        let Some(record) = ScopeRecord::read(entry.payload()) else { return Ok(()) };
        let mut payload = record.to_payload();
        let id = self.identities.key(identity);
        let at = payload.identities.partition_point(|one| self.identities.key(*one) <= id);
        payload.identities.insert(at, identity);
        if let Some(numbers) = &mut payload.numbers {
            numbers.insert(at, number);
        }
        self.put_scope(scope, &payload)
    }

    /// Removes a binding of an identity from a scope, both by their numbers.
    fn remove_from_scope(&mut self, scope: u32, identity: u32, number: u64) -> Applied {
        let Some(entry) = self.scopes.entry(scope) else { return Ok(()) };
        let Some(record) = ScopeRecord::read(entry.payload()) else { return Ok(()) };
        let mut payload = record.to_payload();
        let numbers = payload.numbers.as_deref();
        let found = payload.identities.iter().enumerate().position(|(at, one)| {
            let same_number = numbers.is_none_or(|numbers| numbers.get(at) == Some(&number));
            *one == identity && same_number
        });
        if let Some(at) = found {
            payload.identities.remove(at);
            if let Some(numbers) = &mut payload.numbers {
                numbers.remove(at);
            }
        }
        self.put_scope(scope, &payload)
    }

    fn put_scope(&mut self, scope: u32, payload: &ScopePayload) -> Applied {
        let key = self.scopes.key(scope).to_owned();
        self.scopes.put(&key, &payload.bytes()).map(|_| ()).ok_or_else(|| full(&key))
    }
}

fn full(id: &str) -> ChangeError {
    ChangeError::IndexFull(id.into())
}

/// Inserts a value at a position of the bindings, and moves those behind it.
fn insert_position<T>(values: &mut Vec<(u32, T)>, position: u32, value: Option<T>) {
    for (at, _) in values.iter_mut().filter(|(at, _)| *at >= position) {
        *at += 1;
    }
    if let Some(value) = value {
        let at = values.partition_point(|(at, _)| *at < position);
        values.insert(at, (position, value));
    }
}

/// Removes the value at a position of the bindings, and moves those behind it.
fn remove_position<T>(values: &mut Vec<(u32, T)>, position: u32) {
    values.retain(|(at, _)| *at != position);
    for (at, _) in values.iter_mut().filter(|(at, _)| *at > position) {
        *at -= 1;
    }
}
