//! The builder: an index from a model. Every table is allocated once, at its final size.

use std::sync::Arc;

use thiserror::Error;

use crate::index::Index;
use crate::index::binding::{
    BindingId, IdentityExtra, PackedBinding, Restrictions, payload_length, write_numbers,
};
use crate::index::hash::Seed;
use crate::index::roles::Roles;
use crate::index::scope::{ScopeKind, ScopePayload};
use crate::index::sort::order_of;
use crate::index::table::Table;
use crate::rules::BindingKey;
use crate::{Family, Map, Model, Role, RoleBinding};

/// The policy is larger than an index can be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the policy is too large for the index: there is no place for `{0}`")]
pub struct TooLargeError(pub String);

/// What does not fit must be an error: it must not be missing from answers.
fn fits<T>(put: Option<T>, id: &str) -> Result<T, TooLargeError> {
    put.ok_or_else(|| TooLargeError(id.into()))
}

impl Index {
    /// Indexes a model.
    ///
    /// # Errors
    ///
    /// A part of the index is full, see [`Snapshot::build`](crate::Snapshot::build).
    pub(crate) fn build(model: &Model) -> Result<Self, TooLargeError> {
        let (catalog, facts) = (Arc::clone(model.catalog()), model.facts());
        let seed = Seed::random();
        let mut index = Self {
            roles: Roles::new(seed.clone(), &catalog, facts.roles.len()),
            identities: Table::new(seed.clone(), 0),
            scopes: Table::new(seed.clone(), 0),
            binding_ids: Table::new(seed, 0),
            bindings: facts.role_bindings.len(),
            catalog,
        };
        for role in &facts.roles {
            let id = role.id.as_str();
            let put = index.roles.put(Role {
                id: id.into(),
                name: (*role.name).into(),
                description: (*role.description).into(),
                family: Family::Custom,
                capabilities: index.catalog.capability_set(&role.capabilities),
            });
            fits(put, id)?;
        }
        let ids = Ids::new(model);
        let scopes = index.put_scopes(model, &ids)?;
        let identities = index.put_identities(model, &ids, &scopes)?;
        index.put_bound(model, &ids, &scopes, &identities);
        Ok(index)
    }

    /// Groups and resources, with how many children each has, and places for those bound there. Returns
    /// a binding to each of them, of the role 0.
    fn put_scopes(
        &mut self,
        model: &Model,
        ids: &Ids,
    ) -> Result<Vec<PackedBinding>, TooLargeError> {
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
        let mut bound = vec![0usize; facts.groups.len() + facts.resources.len()];
        for scope in model.references().iter().map(|references| references.scope) {
            if let Some(bound) = bound.get_mut(scope as usize) {
                *bound += 1;
            }
        }
        let scopes = scopes
            .zip(&bound)
            .enumerate()
            .map(|(at, ((id, kind), bound))| (id.as_str(), kind, *bound, ids.at_scope(at)));
        let entries = scopes
            .clone()
            .map(|(id, _, bound, numbered)| (id, ScopePayload::length(bound, numbered)));
        self.scopes = Table::with_capacity(self.seed().clone(), entries);
        let put = scopes.map(|(id, kind, bound, numbered)| {
            let children = children.get(id).copied().unwrap_or_default();
            // Filled in by `put_bound`.
            let (identities, numbers) = (vec![u32::MAX; bound], numbered.then(|| vec![0; bound]));
            let payload = ScopePayload { kind, children, unsorted: 0, identities, numbers };
            let number = fits(self.scopes.put(id, &payload.bytes()), id)?;
            Ok(PackedBinding::new(self.scopes.seed(), (number, id), 0))
        });
        let put = put.collect::<Result<Vec<PackedBinding>, TooLargeError>>()?;
        for (resource, packed) in facts.resources.iter().zip(put.iter().skip(facts.groups.len())) {
            if !resource.properties.is_empty() {
                self.scopes.set_extra(packed.scope, Some(Arc::new(resource.properties.clone())));
            }
        }
        Ok(put)
    }

    /// Identities with their bindings. Returns the number of each, and where its bindings are.
    fn put_identities(
        &mut self,
        model: &Model,
        ids: &Ids,
        scopes: &[PackedBinding],
    ) -> Result<Identities, TooLargeError> {
        let facts = model.facts();
        let by_identity = ByIdentity::new(model);
        let entries = facts.identities.iter().enumerate();
        let entries = entries.map(|(at, one)| {
            let length = payload_length(by_identity.of(at).len(), ids.of_identity(at));
            (one.id.as_str(), length)
        });
        self.identities = Table::with_capacity(self.seed().clone(), entries);
        let text_ids = ids.texts.iter().filter_map(|position| {
            let binding = facts.role_bindings.get(*position as usize)?;
            Some((binding.id.as_ref()?.as_str(), size_of::<u32>()))
        });
        self.binding_ids = Table::with_capacity(self.seed().clone(), text_ids);

        // By number of the role.
        let mut uses = vec![0i32; self.roles.ordered().len()];
        let (mut entries, mut payload) = (Vec::<Stored>::new(), Vec::new());
        let mut numbers = Vec::with_capacity(facts.identities.len());
        for (at, one) in facts.identities.iter().enumerate() {
            for place in by_identity.of(at) {
                let Some(Declared { binding, role, scope }) = declared(model, scopes, *place)
                else {
                    continue;
                };
                if let Some(uses) = uses.get_mut(role as usize) {
                    *uses += 1;
                }
                let (expires_at, conditions) = (binding.expires_at, binding.when.clone().into());
                let restrictions = Restrictions { expires_at, conditions };
                let restricted = !restrictions.is_empty();
                let packed = PackedBinding { role, restricted, ..scope };
                let id = id_of(model, *place, binding);
                let number = match id {
                    BindingId::Derived if !ids.of_identity(at) => 0,
                    BindingId::Derived => BindingKey::of(binding).derived_number(),
                    BindingId::Number(number) => number,
                    BindingId::Text(_) => 0,
                };
                entries.push(Stored { packed, restrictions, id, number });
            }
            let extra = write_payload(&mut entries, ids.of_identity(at), &mut payload);
            let id = one.id.as_str();
            let number = fits(self.identities.put(id, &payload), id)?;
            numbers.push(number);
            for (_, id) in &extra.ids {
                fits(self.binding_ids.put(id, &number.to_le_bytes()), id)?;
            }
            let extra = IdentityExtra { properties: one.properties.clone(), ..extra };
            if !extra.is_empty() {
                self.identities.set_extra(number, Some(Arc::new(extra)));
            }
        }
        for (role, bindings) in (0u32..).zip(uses) {
            self.roles.count(role, bindings);
        }
        Ok(Identities { numbers, by_identity })
    }

    /// At each scope the identities bound there, in the order of their ids.
    fn put_bound(
        &mut self,
        model: &Model,
        ids: &Ids,
        scopes: &[PackedBinding],
        identities: &Identities,
    ) {
        let facts = model.facts();
        // Counting sort: the bindings come in the order of their identities' ids, and each goes to the next
        // place of its scope.
        let mut next: Vec<usize> = vec![0; scopes.len() + 1];
        for references in model.references() {
            if let Some(count) = next.get_mut(references.scope as usize + 1) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for start in &mut next {
            sum += *start;
            *start = sum;
        }
        let starts = next.clone();
        let mut bound = vec![(u32::MAX, u32::MAX); facts.role_bindings.len()];
        let texts: Vec<&str> = facts.identities.iter().map(|one| one.id.as_str()).collect();
        for at in order_of(&texts) {
            let Some(number) = identities.numbers.get(at as usize) else { continue };
            for place in identities.by_identity.of(at as usize) {
                let Some(references) = model.references().get(*place as usize) else { continue };
                let Some(free) = next.get_mut(references.scope as usize) else { continue };
                if let Some(slot) = bound.get_mut(*free) {
                    *slot = (*number, *place);
                }
                *free += 1;
            }
        }
        for (at, packed) in scopes.iter().enumerate() {
            let range = starts.get(at).copied().zip(starts.get(at + 1).copied());
            let here = range.and_then(|(start, end)| bound.get(start..end)).unwrap_or_default();
            let mut bytes: Vec<u8> =
                here.iter().flat_map(|(identity, _)| identity.to_le_bytes()).collect();
            if ids.at_scope(at) {
                let number = |place: u32| {
                    let binding = facts.role_bindings.get(place as usize)?;
                    match id_of(model, place, binding) {
                        BindingId::Derived => Some(BindingKey::of(binding).derived_number()),
                        BindingId::Number(number) => Some(number),
                        BindingId::Text(_) => None,
                    }
                };
                let numbers = here.iter().map(|(_, place)| number(*place).unwrap_or(0));
                bytes.extend(numbers.flat_map(u64::to_le_bytes));
            }
            self.scopes.write_at(packed.scope, crate::index::scope::SCOPE_HEADER, &bytes);
        }
    }
}

/// The numbers of identities, by their positions, and their bindings.
struct Identities {
    numbers: Vec<u32>,
    by_identity: ByIdentity,
}

/// The positions of all bindings, those of an identity next to each other in their order.
struct ByIdentity {
    /// Where those of each identity start; one more at the end.
    starts: Vec<u32>,
    positions: Vec<u32>,
}

impl ByIdentity {
    fn new(model: &Model) -> Self {
        let mut starts = vec![0u32; model.facts().identities.len() + 1];
        for identity in model.references().iter().map(|references| references.identity) {
            if let Some(count) = starts.get_mut(identity as usize + 1) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let mut next = starts.clone();
        let mut positions = vec![u32::MAX; model.references().len()];
        for (position, references) in (0u32..).zip(model.references()) {
            let Some(free) = next.get_mut(references.identity as usize) else { continue };
            if let Some(slot) = positions.get_mut(*free as usize) {
                *slot = position;
            }
            *free += 1;
        }
        Self { starts, positions }
    }

    fn of(&self, identity: usize) -> &[u32] {
        let range = self.starts.get(identity).zip(self.starts.get(identity + 1));
        let positions =
            range.and_then(|(start, end)| self.positions.get(*start as usize..*end as usize));
        positions.unwrap_or_default()
    }
}

// === Ids of bindings ===

/// Which identities and scopes store the numbers of their bindings' ids, and which ids are no number.
#[derive(Default)]
struct Ids {
    /// By position; empty if no binding has an id that is a number.
    identities: Vec<bool>,
    scopes: Vec<bool>,
    /// Positions of the bindings whose id is another path.
    texts: Vec<u32>,
}

impl Ids {
    fn new(model: &Model) -> Self {
        let facts = model.facts();
        let mut ids = Self::default();
        for (position, (references, binding)) in
            (0u32..).zip(model.references().iter().zip(&facts.role_bindings))
        {
            match id_of(model, position, binding) {
                BindingId::Derived => continue,
                BindingId::Text(_) => {
                    ids.texts.push(position);
                    continue;
                }
                BindingId::Number(_) => {}
            }
            if ids.identities.is_empty() {
                ids.identities = vec![false; facts.identities.len()];
                ids.scopes = vec![false; facts.groups.len() + facts.resources.len()];
            }
            if let Some(numbered) = ids.identities.get_mut(references.identity as usize) {
                *numbered = true;
            }
            if let Some(numbered) = ids.scopes.get_mut(references.scope as usize) {
                *numbered = true;
            }
        }
        ids
    }

    fn of_identity(&self, position: usize) -> bool {
        self.identities.get(position).copied().unwrap_or_default()
    }

    fn at_scope(&self, position: usize) -> bool {
        self.scopes.get(position).copied().unwrap_or_default()
    }
}

/// The id of the binding at this position.
fn id_of(model: &Model, position: u32, binding: &RoleBinding) -> BindingId {
    match (&binding.id, model.moved_number(position as usize)) {
        (None, Some(moved)) => BindingId::Number(moved),
        (id, _) => BindingId::of(id.as_ref(), binding.scope.as_str()),
    }
}

/// A binding of the facts, and what it refers to.
struct Declared<'m> {
    binding: &'m RoleBinding,
    /// The number of its role.
    role: u32,
    /// A packed binding at its scope.
    scope: PackedBinding,
}

fn declared<'m>(model: &'m Model, scopes: &[PackedBinding], position: u32) -> Option<Declared<'m>> {
    let references = model.references().get(position as usize)?;
    let binding = model.facts().role_bindings.get(position as usize)?;
    let scope = *scopes.get(references.scope as usize)?;
    Some(Declared { binding, role: references.role, scope })
}

/// A binding with everything that is stored of it.
struct Stored {
    packed: PackedBinding,
    restrictions: Restrictions,
    id: BindingId,
    number: u64,
}

/// Writes the payload of an identity with these bindings, and returns its extra value. Drains the
/// bindings.
fn write_payload(
    bindings: &mut Vec<Stored>,
    numbered: bool,
    payload: &mut Vec<u8>,
) -> IdentityExtra {
    bindings.sort_by_key(|binding| binding.packed);
    payload.clear();
    for binding in &*bindings {
        payload.extend(binding.packed.bytes());
    }
    if numbered {
        write_numbers(payload, bindings.iter().map(|binding| binding.number));
    }
    let mut extra = IdentityExtra::default();
    for (at, Stored { packed, restrictions, id, .. }) in (0u32..).zip(bindings.drain(..)) {
        if packed.restricted {
            extra.restrictions.push((at, restrictions));
        }
        if let BindingId::Text(id) = id {
            extra.ids.push((at, id));
        }
    }
    extra
}
