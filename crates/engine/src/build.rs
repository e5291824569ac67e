//! A snapshot from a model: every table is filled once, with room for just what it gets.

use std::sync::Arc;

use crate::binding::{BINDING_BYTES, Beside, Id, Packed, Special};
use crate::hash::Seed;
use crate::roles::Roles;
use crate::snapshot::{ScopeKind, ScopeRecord};
use crate::table::Table;
use crate::{Family, Map, Model, Role, RoleBinding, Snapshot};

impl Snapshot {
    /// Indexes a model. The revision is the caller's to give, and only grows.
    #[must_use]
    pub fn build(model: &Model, revision: u64) -> Self {
        let (catalog, facts) = (Arc::clone(model.catalog()), model.facts());
        let seed = Seed::random();
        let mut snapshot = Self {
            revision,
            roles: Roles::new(seed.clone(), &catalog, facts.roles.len()),
            identities: Table::new(seed.clone(), 0),
            scopes: Table::new(seed.clone(), 0),
            binding_ids: Table::new(seed.clone(), 0),
            bindings: facts.role_bindings.len(),
            catalog,
        };
        for role in &facts.roles {
            let capabilities = snapshot.catalog.capability_set(&role.capabilities);
            let (id, description) = (role.id.as_str().into(), (*role.description).into());
            // What has no number is found by no binding, and so gives nothing.
            let _ =
                snapshot.roles.put(Role { id, description, family: Family::Custom, capabilities });
        }
        let scopes = snapshot.put_scopes(model);
        snapshot.put_identities(model, &scopes);
        snapshot
    }

    /// Groups and resources, with how many children each has, and room for those bound there.
    /// Answers them as bindings refer to them.
    fn put_scopes(&mut self, model: &Model) -> Vec<Packed> {
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
        let entries = scopes.clone().map(|(id, kind, bound)| (id, payload(id, kind, bound).len()));
        self.scopes = Table::with_room_for(self.seed().clone(), entries);
        let put = scopes.map(|(id, kind, bound)| {
            let number = self.scopes.put(id, &payload(id, kind, bound)).unwrap_or(u32::MAX);
            Packed::new(self.scopes.seed(), (number, id), 0)
        });
        let put: Vec<Packed> = put.collect();
        for (resource, packed) in facts.resources.iter().zip(put.iter().skip(facts.groups.len())) {
            if !resource.properties.is_empty() {
                self.scopes.set_extra(packed.scope, Some(Arc::new(resource.properties.clone())));
            }
        }
        put
    }

    /// Identities with their bindings, and at each scope those bound there.
    fn put_identities(&mut self, model: &Model, scopes: &[Packed]) {
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

        // The places of all bindings, those of each identity side by side.
        let mut starts: Vec<usize> = counts
            .iter()
            .scan(0, |next, count| {
                let start = *next;
                *next += count;
                Some(start)
            })
            .collect();
        let mut order = vec![usize::MAX; self.bindings];
        for (place, bound) in model.bound().iter().enumerate() {
            let Some(start) = starts.get_mut(bound.identity as usize) else { continue };
            if let Some(slot) = order.get_mut(*start) {
                *slot = place;
            }
            *start += 1;
        }
        let mut uses: Map<&str, (u32, i32)> = Map::new();
        let mut rest = &order[..];
        let mut bound: Vec<(u32, u32)> = Vec::with_capacity(self.bindings);
        let mut held = Vec::new();
        for (one, count) in facts.identities.iter().zip(counts) {
            let Some((places, after)) = rest.split_at_checked(count) else { break };
            rest = after;
            for place in places {
                let Some((binding, scope)) = declared(model, scopes, *place) else { continue };
                // What is not there gives nothing: a model names nothing that is not.
                let role = || Some((self.roles.find(&binding.role)?.number, 0));
                let used = match uses.get_mut(&*binding.role) {
                    Some(used) => used,
                    None => match role() {
                        Some(used) => uses.entry(&binding.role).or_insert(used),
                        None => continue,
                    },
                };
                used.1 += 1;
                let special = special(binding, model.moved_id(*place));
                held.push((
                    Packed { role: used.0, special: !special.is_plain(), ..scope },
                    special,
                ));
            }
            let from = bound.len();
            bound.extend(held.iter().map(|(packed, _)| (packed.scope, u32::MAX)));
            let (payload, special) = pack(&mut held);
            let Some(number) = self.identities.put(one.id.as_str(), &payload) else {
                bound.truncate(from);
                continue;
            };
            bound.iter_mut().skip(from).for_each(|(_, identity)| *identity = number);
            if !one.properties.is_empty() || !special.is_empty() {
                let beside = Beside { properties: one.properties.clone(), special };
                self.identities.set_extra(number, Some(Arc::new(beside)));
            }
        }
        for (role, (_, bindings)) in uses {
            self.roles.count(role, bindings);
        }
        for id in facts.role_bindings.iter().filter_map(|binding| binding.id.as_ref()) {
            let _ = self.binding_ids.put(id.as_str(), &[]);
        }
        self.put_bound(bound);
    }

    fn put_bound(&mut self, mut bound: Vec<(u32, u32)>) {
        bound.sort_unstable();
        for run in bound.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((scope, _)) = run.first() else { continue };
            let path = self.scopes.key(*scope).to_owned();
            let Some((_, record)) = self.scope(&path) else { continue };
            let identities = run.iter().map(|(_, identity)| *identity);
            let payload = ScopeRecord::write(record.kind, record.children, identities);
            let _ = self.scopes.put(&path, &payload);
        }
    }
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

impl Snapshot {
    /// The same with tables made for what is in them: everything gets another number.
    pub(crate) fn resized(&self) -> Self {
        let mut next = self.clone();
        let scopes = || self.scopes.iter().map(|entry| (entry.key(), entry.payload().len()));
        next.scopes = Table::with_room_for(self.seed().clone(), scopes());
        let identities =
            || self.identities.iter().map(|entry| (entry.key(), entry.payload().len()));
        next.identities = Table::with_room_for(self.seed().clone(), identities());

        let scopes = renumber(&self.scopes, &mut next.scopes);
        let identities = renumber(&self.identities, &mut next.identities);
        let other =
            |numbers: &Map<u32, u32>, old: u32| numbers.get(&old).copied().unwrap_or(u32::MAX);
        for entry in self.scopes.iter() {
            let Some(record) = ScopeRecord::read(entry.payload()) else { continue };
            let bound = record.identities().map(|old| other(&identities, old));
            let payload = ScopeRecord::write(record.kind, record.children, bound);
            let _ = next.scopes.put(entry.key(), &payload);
        }
        for entry in self.identities.iter() {
            let (bindings, _) = entry.payload().as_chunks::<BINDING_BYTES>();
            let mut payload = Vec::with_capacity(entry.payload().len());
            for packed in bindings.iter().map(|bytes| Packed::read(*bytes)) {
                Packed { scope: other(&scopes, packed.scope), ..packed }.write(&mut payload);
            }
            let _ = next.identities.put(entry.key(), &payload);
        }
        next
    }
}

/// Copies entries as they are, and answers which number became which.
fn renumber<X>(from: &Table<X>, to: &mut Table<X>) -> Map<u32, u32> {
    let mut numbers = Map::with_capacity(from.len());
    for entry in from.iter() {
        let Some(number) = to.put(entry.key(), entry.payload()) else { continue };
        to.set_extra(number, entry.extra().map(Arc::clone));
        numbers.insert(entry.number(), number);
    }
    numbers
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
