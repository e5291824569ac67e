//! Application of one change: checked against the rules first (`rules.rs`), then made.
//!
//! **Invariant**: a change that is refused may leave the index half changed. The writer applies changes to a copy,
//! which shares all tables, and drops it then; of `Writer::apply_in_place` the caller drops the writer.

use std::sync::Arc;

use crate::index::Index;
use crate::index::binding::{
    BINDING_BYTES, BindingId, IdentityExtra, IdentityPayload, PackedBinding, Restrictions,
    Standing, numbers, packed_bindings, payload_with, payload_without,
};
use crate::index::bound::Parts;
use crate::index::read::{Binding, is_registered, stored_payload};
use crate::index::roles::RoleUse;
use crate::index::scope::{ScopeExtra, ScopeKind, ScopePayload, ScopeRecord, StoredScope};
use crate::index::table::Entry;
use crate::rules::{self, BindingKey, BrokenRule, Referenced, View as _};
use crate::{
    Change, ChangeError, CustomRole, Family, Identity, Path, PathBuf, RegisteredResource, Role,
    RoleBinding,
};

type Applied = Result<(), ChangeError>;

/// What a binding refers to.
struct References<'i> {
    identity: Entry<'i, IdentityExtra>,
    role: RoleUse,
    scope: Entry<'i, ScopeExtra>,
    /// The payload of the scope.
    record: ScopeRecord<'i>,
}

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
    ) -> Result<(Entry<'_, ScopeExtra>, ScopeRecord<'_>), ChangeError> {
        let found = self.scope(id.as_str()).filter(|(_, record)| record.kind == kind);
        found.ok_or_else(|| match kind {
            ScopeKind::Group => ChangeError::not_found("group", id.as_str()),
            ScopeKind::Resource => ChangeError::not_found("resource", id.as_str()),
        })
    }

    fn create_scope(&mut self, id: &PathBuf, kind: ScopeKind) -> Applied {
        self.claim(id)?;
        self.put_scope(id.as_str(), ScopePayload::empty(kind, 0).stored())
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
        let (number, old) = (entry.number(), entry.extra());
        let bound = old.and_then(|old| old.bound.clone());
        let (kind, properties) = (Some((*resource.kind).into()), resource.properties.clone());
        self.scopes.set_extra(number, ScopeExtra { kind, properties, bound }.stored());
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
        let id = identity.id.as_str();
        if self.identities.get(id).is_some_and(|entry| !is_registered(entry)) {
            // Its path is claimed already, and has no parent.
            self.unregistered -= 1;
        } else {
            self.claim(&identity.id)?;
            self.identities.put(id, &[]).ok_or_else(|| full(id))?;
        }
        self.set_identity(identity)
    }

    fn update_identity(&mut self, identity: &Identity) -> Applied {
        self.expect_identity(&identity.id)?;
        self.set_identity(identity)
    }

    /// Stores what is declared of an identity that is known. It keeps its bindings.
    fn set_identity(&mut self, identity: &Identity) -> Applied {
        let id = identity.id.as_str();
        let entry = self.identities.get(id);
        let entry = entry.ok_or_else(|| ChangeError::not_found("identity", id))?;
        let (number, payload) = (entry.number(), stored_payload(entry).to_vec());
        let mut extra = entry.extra().map(|extra| (**extra).clone()).unwrap_or_default();
        extra.kind = IdentityExtra::kept_kind(&identity.kind);
        extra.properties.clone_from(&identity.properties);
        extra.standing = match identity.disabled {
            true => Standing::Disabled([].into()),
            false => Standing::Registered,
        };
        self.put_identity(number, id, payload, Some(extra))
    }

    fn expect_identity(&self, id: &PathBuf) -> Result<Entry<'_, IdentityExtra>, ChangeError> {
        let entry = self.identities.get(id.as_str()).filter(|entry| is_registered(*entry));
        entry.ok_or_else(|| ChangeError::not_found("identity", id.as_str()))
    }

    fn set_extra(&mut self, identity: u32, extra: IdentityExtra) {
        self.identities.set_extra(identity, (!extra.is_empty()).then(|| Arc::new(extra)));
    }

    fn delete_identity(&mut self, id: &PathBuf) -> Applied {
        let entry = self.expect_identity(id)?;
        rules::check_bound_deletion(id.as_str(), self.stored_bindings_of(entry).count())?;
        self.identities.remove(id.as_str());
        self.release(id);
        Ok(())
    }

    // === Bindings ===

    fn create_binding(&mut self, binding: &RoleBinding) -> Applied {
        let (identity, scope) = (binding.identity.as_str(), binding.scope.as_str());
        self.ensure_identity(binding)?;
        let mut found = self.expect_references(binding)?;
        let at_scope = (found.scope.number(), scope);
        let packed = PackedBinding::new(self.seed(), at_scope, found.role.number);
        let key = BindingKey::of(binding);
        if self.find_same(found.identity, packed, &key).is_some() {
            let role = &binding.role;
            return Err(BrokenRule::SameBinding { identity, role, scope }.into());
        }
        let (expires_at, conditions) = (binding.expires_at, binding.when.clone().into());
        let restrictions = Restrictions { expires_at, conditions };
        let packed = PackedBinding { restricted: !restrictions.is_empty(), ..packed };

        let (id, id_number) = self.free_id(binding, &key, &found.record)?;
        if matches!(id, BindingId::Number(_)) && !found.record.numbered {
            self.number_scope(scope)?;
            found = self.expect_references(binding)?;
        }
        let number = found.identity.number();
        let (payload, extra) =
            self.with_binding(found.identity, packed, restrictions, &id, id_number);
        let record = &found.record;
        let at = self.first_bound(record, |other| other <= found.identity.key_bytes());
        let bound = record.stored(record.bound.with(at, number, id_number));
        if let BindingId::Text(id) = &id {
            self.binding_ids.put(id, &number.to_le_bytes()).ok_or_else(|| full(id))?;
        }
        self.put_identity(number, identity, payload, extra)?;
        self.put_scope(scope, bound)?;
        self.roles.count(packed.role, 1);
        self.bindings += 1;
        Ok(())
    }

    /// Makes the identity of a binding known, if the binding may name it before it is registered.
    fn ensure_identity(&mut self, binding: &RoleBinding) -> Applied {
        let id = binding.identity.as_str();
        if self.identities.get(id).is_some() {
            return Ok(());
        }
        self.check_binding(binding)?;
        let number = self.identities.put(id, &[]).ok_or_else(|| full(id))?;
        let standing = Standing::Unregistered;
        self.set_extra(number, IdentityExtra { standing, ..IdentityExtra::default() });
        self.unregistered += 1;
        Ok(())
    }

    /// What a binding refers to, if it keeps the rules that compare it with no other.
    fn check_binding(&self, binding: &RoleBinding) -> Result<Referenced<&Self>, ChangeError> {
        let mut first = None;
        let found = rules::check_binding(&self, binding, |broken| {
            first.get_or_insert(broken);
        });
        first.map_or(Ok(()), Err)?;
        Ok(found)
    }

    /// [`Self::check_binding`] for a binding whose identity is known.
    fn expect_references(&self, binding: &RoleBinding) -> Result<References<'_>, ChangeError> {
        let found = self.check_binding(binding)?;
        let (Some(identity), Some(role), Some((scope, record))) =
            (found.identity, found.role, found.scope)
        else {
            return Err(ChangeError::not_found("role binding", binding.identity.as_str()));
        };
        Ok(References { identity, role, scope, record })
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
        let binding = self.stored_bindings_of(entry).nth(at).ok_or_else(absent)?;
        let number = self.number_of(entry, &binding);
        let PackedBinding { scope, role, .. } = binding.packed;

        let payload = payload_without(stored_payload(entry), at);
        let is_gone = payload.is_empty() && !is_registered(entry);
        let extra = entry.extra().map(|extra| {
            let mut extra = (**extra).clone();
            remove_position(&mut extra.restrictions, position);
            remove_position(&mut extra.ids, position);
            extra
        });
        let id_of_identity = entry.key().to_owned();
        // While the identity is there: the list is searched by its id.
        self.remove_from_scope(scope, identity, number.unwrap_or(0))?;
        if is_gone {
            self.identities.remove(&id_of_identity);
            self.unregistered -= 1;
        } else {
            self.put_identity(identity, &id_of_identity, payload, extra)?;
        }
        if number.is_none() {
            self.binding_ids.remove(id.as_str());
        }
        self.roles.count(role, -1);
        self.bindings -= 1;
        Ok(())
    }

    /// Stores the bindings of an identity, and its extra value if that changes, as it must of a disabled one.
    fn put_identity(
        &mut self,
        identity: u32,
        id: &str,
        mut payload: Vec<u8>,
        mut extra: Option<IdentityExtra>,
    ) -> Applied {
        if let Some(extra) = &mut extra {
            extra.take_payload(&mut payload);
        }
        self.identities.put(id, &payload).ok_or_else(|| full(id))?;
        if let Some(extra) = extra {
            self.set_extra(identity, extra);
        }
        Ok(())
    }

    /// The payload of an identity with one more binding, and its extra value if that changes.
    fn with_binding(
        &self,
        identity: Entry<'_, IdentityExtra>,
        packed: PackedBinding,
        restrictions: Restrictions,
        id: &BindingId,
        number: u64,
    ) -> (Vec<u8>, Option<IdentityExtra>) {
        let stored = stored_payload(identity);
        let bindings = packed_bindings(stored);
        let fingerprint = |bytes: &[u8; BINDING_BYTES]| PackedBinding::read(*bytes).fingerprint;
        let at = bindings.partition_point(|bytes| fingerprint(bytes) < packed.fingerprint);
        let payload = if matches!(id, BindingId::Number(_)) && numbers(stored).is_none() {
            let mut payload = IdentityPayload::read(stored);
            let all = self.stored_bindings_of(identity);
            let mut numbers: Vec<u64> =
                all.map(|one| self.number_of(identity, &one).unwrap_or(0)).collect();
            payload.bindings.insert(at, packed);
            numbers.insert(at, number);
            payload.numbers = Some(numbers);
            payload.bytes()
        } else {
            payload_with(stored, at, packed, number)
        };
        let position = u32::try_from(at).unwrap_or(u32::MAX);
        let has_more = packed.restricted || matches!(id, BindingId::Text(_));
        let extra = (has_more || identity.extra().is_some()).then(|| {
            let mut extra = identity.extra().map(|extra| (**extra).clone()).unwrap_or_default();
            let restrictions = packed.restricted.then_some(restrictions);
            insert_position(&mut extra.restrictions, position, restrictions);
            let text = match id {
                BindingId::Text(text) => Some(text.clone()),
                BindingId::Derived | BindingId::Number(_) => None,
            };
            insert_position(&mut extra.ids, position, text);
            extra
        });
        (payload, extra)
    }

    // === Who is bound at a scope ===

    /// Stores a scope that is new, or has another list. It keeps its properties.
    pub(super) fn put_scope(&mut self, id: &str, scope: StoredScope) -> Applied {
        let number = self.scopes.put(id, &scope.payload).ok_or_else(|| full(id))?;
        self.set_parts(number, scope.bound);
        Ok(())
    }

    /// Sets the list of a scope that is in parts, or that it has none.
    pub(super) fn set_parts(&mut self, scope: u32, bound: Option<Parts>) {
        let old = self.scopes.entry(scope).and_then(|entry| entry.extra());
        if bound.is_some() || old.is_some_and(|old| old.bound.is_some()) {
            let old = old.map(|old| (**old).clone()).unwrap_or_default();
            self.scopes.set_extra(scope, ScopeExtra { bound, ..old }.stored());
        }
    }

    /// Gives a scope the numbers of its bindings, if it has none.
    fn number_scope(&mut self, scope: &str) -> Applied {
        let Some((_, record)) = self.scope(scope).filter(|(_, record)| !record.numbered) else {
            return Ok(());
        };
        let mut payload = record.to_payload();
        payload.numbers = Some(self.numbers_at(scope, &payload.identities));
        self.put_scope(scope, payload.stored())
    }

    /// The numbers of the bindings at a scope of these identities, which are in the order of their ids.
    fn numbers_at(&self, scope: &str, identities: &[u32]) -> Vec<u64> {
        let at = self.scopes.get(scope).map(|entry| entry.number());
        let mut numbers = Vec::with_capacity(identities.len());
        for run in identities.chunk_by(|a, b| a == b) {
            let Some(entry) = run.first().and_then(|one| self.identities.entry(*one)) else {
                continue;
            };
            let here = self.stored_bindings_of(entry).filter(|one| Some(one.packed.scope) == at);
            numbers.extend(here.map(|one| self.number_of(entry, &one).unwrap_or(0)));
        }
        numbers
    }

    /// Removes a binding of an identity from a scope, both by their numbers.
    fn remove_from_scope(&mut self, scope: u32, identity: u32, number: u64) -> Applied {
        let Some(entry) = self.scopes.entry(scope) else { return Ok(()) };
        let Some(record) = ScopeRecord::read(entry) else { return Ok(()) };
        let id = self.identities.key(identity).as_bytes();
        let first = self.first_bound(&record, |other| other < id);
        let of_identity = (first..).map_while(|at| Some((at, record.bound.identity(at)?)));
        let mut of_identity = of_identity.take_while(|(_, other)| *other == identity);
        let found = of_identity
            .find(|(at, _)| !record.numbered || record.bound.number(*at) == Some(number));
        let Some((at, _)) = found else { return Ok(()) };
        let (id, without) = (entry.key().to_owned(), record.stored(record.bound.without(at)));
        self.put_scope(&id, without)
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
