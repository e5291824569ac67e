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
        snapshot.put_scopes(model);
        snapshot.put_identities(model);
        snapshot
    }

    /// Groups and resources, with how many children each has, and room for those bound there.
    fn put_scopes(&mut self, model: &Model) {
        let facts = model.facts();
        let groups = facts.groups.iter().map(|one| (&one.id, ScopeKind::Group));
        let resources = facts.resources.iter().map(|one| (&one.id, ScopeKind::Resource));
        let scopes = groups.chain(resources);
        let mut records: Map<&str, (u32, u32)> =
            scopes.clone().map(|(id, _)| (id.as_str(), (0, 0))).collect();
        let roles = facts.roles.iter().map(|role| &role.id);
        let identities = facts.identities.iter().map(|identity| &identity.id);
        for id in scopes.clone().map(|(id, _)| id).chain(roles).chain(identities) {
            let parent = id.as_path().parent().and_then(|parent| records.get_mut(parent.as_str()));
            if let Some((children, _)) = parent {
                *children += 1;
            }
        }
        let mut uses: Map<&str, i32> = Map::new();
        for binding in &facts.role_bindings {
            if let Some((_, bound)) = records.get_mut(binding.scope.as_str()) {
                *bound += 1;
            }
            *uses.entry(&binding.role).or_default() += 1;
        }
        for (role, bindings) in uses {
            self.roles.count(role, bindings);
        }
        // Whoever is bound there is not known yet, but takes the place that is given here.
        let payload = |id: &str, kind| {
            let (children, bound) = records.get(id).copied().unwrap_or_default();
            ScopeRecord::write(kind, children, (0..bound).map(|_| u32::MAX))
        };
        let entries = scopes.clone().map(|(id, kind)| {
            let id = id.as_str();
            (id, payload(id, kind).len())
        });
        self.scopes = Table::with_room_for(self.seed().clone(), entries);
        for (id, kind) in scopes {
            let _ = self.scopes.put(id.as_str(), &payload(id.as_str(), kind));
        }
        for resource in facts.resources.iter().filter(|one| !one.properties.is_empty()) {
            if let Some(number) = self.scopes.get(resource.id.as_str()).map(|entry| entry.number())
            {
                self.scopes.set_extra(number, Some(Arc::new(resource.properties.clone())));
            }
        }
    }

    /// Identities with their bindings, and at each scope those bound there.
    fn put_identities(&mut self, model: &Model) {
        let facts = model.facts();
        let numbers: Map<&str, u32> =
            facts.identities.iter().map(|one| one.id.as_str()).zip(0..).collect();
        let of = |binding: &RoleBinding| numbers.get(binding.identity.as_str()).copied();
        let mut counts = vec![0usize; facts.identities.len()];
        for count in facts.role_bindings.iter().filter_map(of) {
            if let Some(count) = counts.get_mut(count as usize) {
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
        for (place, binding) in facts.role_bindings.iter().enumerate() {
            let start = of(binding).and_then(|identity| starts.get_mut(identity as usize));
            let Some(start) = start else { continue };
            if let Some(slot) = order.get_mut(*start) {
                *slot = place;
            }
            *start += 1;
        }
        let mut rest = &order[..];
        let mut bound: Vec<(u32, u32)> = Vec::with_capacity(self.bindings);
        for (one, count) in facts.identities.iter().zip(counts) {
            let Some((places, after)) = rest.split_at_checked(count) else { break };
            rest = after;
            let declared = places.iter().filter_map(|place| {
                Some((facts.role_bindings.get(*place)?, model.moved_id(*place)))
            });
            let bindings = declared.filter_map(|(binding, moved)| self.bind(binding, moved));
            let bindings: Vec<_> = bindings.collect();
            let scopes: Vec<u32> = bindings.iter().map(|(packed, _)| packed.scope).collect();
            let (payload, special) = pack(bindings);
            let Some(number) = self.identities.put(one.id.as_str(), &payload) else { continue };
            bound.extend(scopes.into_iter().map(|scope| (scope, number)));
            if !one.properties.is_empty() || !special.is_empty() {
                let beside = Beside { properties: one.properties.clone(), special };
                self.identities.set_extra(number, Some(Arc::new(beside)));
            }
        }
        for id in facts.role_bindings.iter().filter_map(|binding| binding.id.as_ref()) {
            let _ = self.binding_ids.put(id.as_str(), &[]);
        }
        self.put_bound(bound);
    }

    /// A binding, packed. What is not there gives nothing: a model names nothing that is not.
    fn bind(&self, binding: &RoleBinding, moved: Option<u64>) -> Option<(Packed, Special)> {
        let (scope, _) = self.scope(binding.scope.as_str())?;
        let id = match (&binding.id, moved) {
            (Some(id), _) => Id::Declared(id.as_str().into()),
            (None, Some(moved)) => Id::Moved(moved),
            (None, None) => Id::Derived,
        };
        let when = binding.when.clone().into();
        let special = Special { expires_at: binding.expires_at, when, id };
        let role = self.roles.find(&binding.role)?.number;
        let plain = Packed::new(self.seed(), (scope.number(), binding.scope.as_path()), role);
        Some((Packed { special: !special.is_plain(), ..plain }, special))
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

/// Bindings as a record holds them, and what some of them have beside it.
pub(crate) fn pack(mut bindings: Vec<(Packed, Special)>) -> (Vec<u8>, Vec<(u32, Special)>) {
    bindings.sort_by_key(|(packed, _)| *packed);
    let mut payload = Vec::with_capacity(bindings.len() * BINDING_BYTES);
    let mut special = Vec::new();
    for (at, (packed, beside)) in (0u32..).zip(bindings) {
        packed.write(&mut payload);
        if packed.special {
            special.push((at, beside));
        }
    }
    (payload, special)
}
