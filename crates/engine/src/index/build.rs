//! The builder: an index from a model. every table is filled once, with room for just what it gets.

use std::sync::Arc;

use hashbrown::hash_map::Entry;
use thiserror::Error;

use crate::index::Index;
use crate::index::binding::{BINDING_BYTES, Beside, Id, Packed, Special};
use crate::index::hash::Seed;
use crate::index::roles::Roles;
use crate::index::scope::{ScopeKind, ScopeRecord};
use crate::index::table::Table;
use crate::{Family, Identity, Map, Model, PathBuf, Role, RoleBinding};

/// The policy is larger than an index can be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the policy is too large for the index: there is no room for `{0}`")]
pub struct TooLarge(pub String);

/// Whatever has no place in a table must not be missing from answers without a word.
fn room<T>(put: Option<T>, id: &str) -> Result<T, TooLarge> {
    put.ok_or_else(|| TooLarge(id.into()))
}

impl Index {
    /// Indexes a model.
    ///
    /// # Errors
    ///
    /// A part of the index is full, see [`Snapshot::build`](crate::Snapshot::build).
    pub(crate) fn build(model: &Model) -> Result<Self, TooLarge> {
        let (catalog, facts) = (Arc::clone(model.catalog()), model.facts());
        let seed = Seed::random();
        let mut index = Self {
            roles: Roles::new(seed.clone(), &catalog, facts.roles.len()),
            identities: Table::new(seed.clone(), 0),
            scopes: Table::new(seed.clone(), 0),
            binding_ids: Table::new(seed.clone(), 0),
            bindings: facts.role_bindings.len(),
            catalog,
        };
        for role in &facts.roles {
            let role_id = role.id.as_str();
            let capabilities = index.catalog.capability_set(&role.capabilities);
            let (id, description) = (role_id.into(), (*role.description).into());
            let role = Role { id, description, family: Family::Custom, capabilities };
            room(index.roles.put(role), role_id)?;
        }
        let scopes = index.put_scopes(model)?;
        index.put_identities(model, &scopes)?;
        Ok(index)
    }

    /// Groups and resources, with how many children each has, and room for those bound there.
    /// Answers them as bindings refer to them.
    fn put_scopes(&mut self, model: &Model) -> Result<Vec<Packed>, TooLarge> {
        let facts = model.facts();
        let groups = facts.groups.iter().map(|one| (&one.id, ScopeKind::Group));
        let resources = facts.resources.iter().map(|one| (&one.id, ScopeKind::Resource));
        let scopes = groups.chain(resources);
        let mut children: Map<&str, u32> = scopes.clone().map(|(id, _)| (id.as_str(), 0)).collect();
        let roles = facts.roles.iter().map(|role| &role.id);
        let identities = facts.identities.iter().map(|identity| &identity.id);
        for id in scopes.clone().map(|(id, _)| id).chain(roles).chain(identities) {
            let parent = id.as_path().parent().and_then(|parent| children.get_mut(parent.as_str()));
            if let Some(children) = parent {
                *children += 1;
            }
        }
        let mut bound = vec![0u32; facts.groups.len() + facts.resources.len()];
        for scope in model.bound().iter().map(|bound| bound.scope) {
            if let Some(bound) = bound.get_mut(scope as usize) {
                *bound += 1;
            }
        }
        // Whoever is bound there is not known yet, but takes the place that is given here.
        let payload = |id: &str, kind, bound: u32| {
            let children = children.get(id).copied().unwrap_or_default();
            ScopeRecord::write(kind, children, (0..bound).map(|_| u32::MAX))
        };
        let scopes = scopes.zip(&bound).map(|((id, kind), bound)| (id.as_str(), kind, *bound));
        let entries =
            scopes.clone().map(|(id, _, bound)| (id, ScopeRecord::length(bound as usize)));
        self.scopes = Table::with_room_for(self.seed().clone(), entries);
        let put = scopes.map(|(id, kind, bound)| {
            let number = room(self.scopes.put(id, &payload(id, kind, bound)), id)?;
            Ok(Packed::new(self.scopes.seed(), (number, id), 0))
        });
        let put = put.collect::<Result<Vec<Packed>, TooLarge>>()?;
        for (resource, packed) in facts.resources.iter().zip(put.iter().skip(facts.groups.len())) {
            if !resource.properties.is_empty() {
                self.scopes.set_extra(packed.scope, Some(Arc::new(resource.properties.clone())));
            }
        }
        Ok(put)
    }

    /// Identities with their bindings, and at each scope those bound there.
    fn put_identities(&mut self, model: &Model, scopes: &[Packed]) -> Result<(), TooLarge> {
        let facts = model.facts();
        let mut counts = vec![0usize; facts.identities.len()];
        for identity in model.bound().iter().map(|bound| bound.identity) {
            if let Some(count) = counts.get_mut(identity as usize) {
                *count += 1;
            }
        }
        let entries = facts.identities.iter().zip(&counts);
        let entries = entries.map(|(one, count)| (one.id.as_str(), count * BINDING_BYTES));
        self.identities = Table::with_room_for(self.seed().clone(), entries);

        // The places of all bindings, those of each identity side by side. `ends` are first the starts.
        let mut ends: Vec<usize> = counts
            .iter()
            .scan(0, |next, count| {
                let start = *next;
                *next += count;
                Some(start)
            })
            .collect();
        let mut order = vec![usize::MAX; self.bindings];
        for (place, bound) in model.bound().iter().enumerate() {
            let Some(end) = ends.get_mut(bound.identity as usize) else { continue };
            if let Some(slot) = order.get_mut(*end) {
                *slot = place;
            }
            *end += 1;
        }
        let mut uses: Map<&str, (u32, i32)> = Map::new();
        let mut bound: Vec<(u32, u32)> = Vec::with_capacity(self.bindings);
        let mut held = Vec::new();
        for (at, one) in by_id(&facts.identities) {
            let ends = ends.get(at).copied().unwrap_or_default();
            let count = counts.get(at).copied().unwrap_or_default();
            for place in order.get(ends - count..ends).unwrap_or_default() {
                let Some((binding, scope)) = declared(model, scopes, *place) else { continue };
                let used = match uses.entry(&*binding.role) {
                    Entry::Occupied(used) => used.into_mut(),
                    Entry::Vacant(unused) => match self.roles.find(&binding.role) {
                        Some(known) => unused.insert((known.number, 0)),
                        // A model names nothing that is not there.
                        None => continue,
                    },
                };
                used.1 += 1;
                let special = special(binding, model.moved_id(*place));
                let packed = Packed { role: used.0, special: !special.is_plain(), ..scope };
                held.push((packed, special));
            }
            let (payload, special) = pack(&mut held);
            let number = room(self.identities.put(one.id.as_str(), &payload), one.id.as_str())?;
            let (packed, _) = payload.as_chunks();
            bound.extend(packed.iter().map(|bytes| (Packed::read(*bytes).scope, number)));
            if !one.properties.is_empty() || !special.is_empty() {
                let beside = Beside { properties: one.properties.clone(), special };
                self.identities.set_extra(number, Some(Arc::new(beside)));
            }
        }
        for (role, (_, bindings)) in uses {
            self.roles.count(role, bindings);
        }
        let ids = facts.role_bindings.iter().filter_map(|binding| binding.id.as_ref());
        let entries = ids.clone().map(|id| (id.as_str(), 0));
        self.binding_ids = Table::with_room_for(self.seed().clone(), entries);
        for id in ids.map(PathBuf::as_str) {
            room(self.binding_ids.put(id, &[]), id)?;
        }
        self.put_bound(bound)
    }

    /// Writes who is bound at each scope, given in the order of the identities' ids.
    fn put_bound(&mut self, mut bound: Vec<(u32, u32)>) -> Result<(), TooLarge> {
        // A stable sort: the order of ids stays within each scope.
        bound.sort_by_key(|(scope, _)| *scope);
        for run in bound.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((scope, _)) = run.first() else { continue };
            let path = self.scopes.key(*scope).to_owned();
            let Some((_, record)) = self.scope(&path) else { continue };
            let identities = run.iter().map(|(_, identity)| *identity);
            let payload = ScopeRecord::write(record.kind, record.children, identities);
            room(self.scopes.put(&path, &payload), &path)?;
        }
        Ok(())
    }
}

/// The identities with their places, in the order of their ids. Documents often have them in that order.
fn by_id(identities: &[Identity]) -> impl Iterator<Item = (usize, &Identity)> {
    let mut sorted: Vec<_> = identities.iter().enumerate().collect();
    if !identities.is_sorted_by_key(|one| &one.id) {
        sorted.sort_unstable_by_key(|(_, one)| &one.id);
    }
    sorted.into_iter()
}

/// A binding of the facts, and its scope.
fn declared<'m>(
    model: &'m Model,
    scopes: &[Packed],
    place: usize,
) -> Option<(&'m RoleBinding, Packed)> {
    let scope = model.bound().get(place)?.scope;
    Some((model.facts().role_bindings.get(place)?, *scopes.get(scope as usize)?))
}

/// What stands beside a binding.
fn special(binding: &RoleBinding, moved: Option<u64>) -> Special {
    let id = match (&binding.id, moved) {
        (Some(id), _) => Id::Declared(id.as_str().into()),
        (None, Some(moved)) => Id::Moved(moved),
        (None, None) => Id::Derived,
    };
    Special { expires_at: binding.expires_at, when: binding.when.clone().into(), id }
}

/// Bindings as a record holds them, and what some of them have beside it. None are left over.
pub(crate) fn pack(bindings: &mut Vec<(Packed, Special)>) -> (Vec<u8>, Vec<(u32, Special)>) {
    bindings.sort_by_key(|(packed, _)| *packed);
    let mut payload = Vec::with_capacity(bindings.len() * BINDING_BYTES);
    let mut special = Vec::new();
    for (at, (packed, beside)) in (0u32..).zip(bindings.drain(..)) {
        packed.write(&mut payload);
        if packed.special {
            special.push((at, beside));
        }
    }
    (payload, special)
}
