//! The builder: an index from facts that keep the rules (`plan.rs`). Every table is allocated once, at its final size.

use std::ops::Range;
use std::sync::Arc;

use thiserror::Error;

use crate::index::Index;
use crate::index::binding::{
    BindingId, IdentityExtra, PackedBinding, Restrictions, Standing, payload_length, write_numbers,
};
use crate::index::bound::List;
use crate::index::plan::Plan;
use crate::index::roles::Roles;
use crate::index::scope::{SCOPE_HEADER, ScopeExtra, ScopeKind, ScopePayload};
use crate::index::sort::order_of;
use crate::index::table::Table;
use crate::rules::References;
use crate::{Family, Map, Role, USER};

/// The policy is larger than an index can be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the policy is too large for the index: there is no place for `{0}`")]
pub struct TooLargeError(pub String);

/// What does not fit must be an error: it must not be missing from answers.
fn fits<T>(put: Option<T>, id: &str) -> Result<T, TooLargeError> {
    put.ok_or_else(|| TooLargeError(id.into()))
}

impl Index {
    /// Indexes facts that keep the rules.
    ///
    /// # Errors
    ///
    /// A part of the index is full, see [`Snapshot::build`](crate::Snapshot::build).
    pub(crate) fn build(mut plan: impl Plan) -> Result<Self, TooLargeError> {
        let catalog = Arc::clone(plan.catalog());
        let seed = plan.seed();
        let mut index = Self {
            roles: Roles::new(seed.clone(), &catalog, plan.roles().len()),
            identities: Table::new(seed.clone(), 0),
            scopes: Table::new(seed.clone(), 0),
            binding_ids: Table::new(seed, 0),
            bindings: plan.references().len(),
            unregistered: plan.identities_len() - plan.registered_len(),
            catalog,
        };
        for role in plan.roles() {
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
        let ids = Ids::new(&plan);
        let scopes = index.put_scopes(&plan, &ids)?;
        let are_sorted = identities_are_sorted(&plan);
        let identities = index.put_identities(&plan, &ids, &scopes)?;
        let Identities { numbers, by_identity } = identities;
        // A large policy is built with little memory beside it. Derived numbers need paths.
        if ids.scopes.is_empty() {
            plan.forget_paths();
        }
        let bound = BoundAt::new(&plan, &ids, by_identity);
        plan.forget_paths();
        plan.forget_references();
        drop(plan);
        index.put_bound(&ids, &scopes, bound, (&numbers, are_sorted));
        Ok(index)
    }

    /// Groups and resources, with how many children each has, and places for those bound there. Returns
    /// a binding to each of them, of the role 0.
    fn put_scopes(
        &mut self,
        plan: &impl Plan,
        ids: &Ids,
    ) -> Result<Vec<PackedBinding>, TooLargeError> {
        let children = plan.children();
        let mut bound = vec![0usize; plan.scopes_len()];
        for scope in plan.references().iter().map(|references| references.scope) {
            if let Some(bound) = bound.get_mut(scope as usize) {
                *bound += 1;
            }
        }
        let mut buffer = String::new();
        self.scopes = Table::with_lengths(self.seed().clone(), plan.scopes_len(), |reserve| {
            for (at, bound) in bound.iter().enumerate() {
                let length = ScopePayload::length(*bound, ids.at_scope(at));
                reserve(plan.scope(at, &mut buffer), length);
            }
        });
        let mut put = Vec::with_capacity(bound.len());
        for (at, (bound, children)) in bound.into_iter().zip(children).enumerate() {
            let is_group = at < plan.groups_len();
            let kind = if is_group { ScopeKind::Group } else { ScopeKind::Resource };
            // Filled in by `put_bound`.
            let numbers = ids.at_scope(at).then(|| vec![0; bound]);
            let identities = vec![u32::MAX; bound];
            let scope = ScopePayload { kind, children, identities, numbers }.stored();
            let id = plan.scope(at, &mut buffer);
            let number = fits(self.scopes.put(id, &scope.payload), id)?;
            put.push(PackedBinding::new(self.scopes.seed(), (number, id), 0));
        }
        // Resources of one type share what they have in common: most have nothing else.
        let mut plain: Map<&str, Arc<ScopeExtra>> = Map::default();
        for (at, packed) in put.iter().skip(plan.groups_len()).enumerate() {
            let kind = plan.resource_kind(at);
            let plain = plain.entry(kind).or_insert_with(|| {
                Arc::new(ScopeExtra { kind: Some(kind.into()), ..ScopeExtra::default() })
            });
            let extra = match plan.resource_properties(at).filter(|all| !all.is_empty()) {
                None => Arc::clone(plain),
                Some(properties) => {
                    let (kind, properties) = (plain.kind.clone(), properties.clone());
                    Arc::new(ScopeExtra { kind, properties, bound: None })
                }
            };
            self.scopes.set_extra(packed.scope, Some(extra));
        }
        Ok(put)
    }

    /// Identities with their bindings. Returns the number of each, and where its bindings are.
    fn put_identities(
        &mut self,
        plan: &impl Plan,
        ids: &Ids,
        scopes: &[PackedBinding],
    ) -> Result<Identities, TooLargeError> {
        let by_identity = ByIdentity::new(plan);
        let count = plan.identities_len();
        let mut buffer = String::new();
        self.identities = Table::with_lengths(self.seed().clone(), count, |reserve| {
            for at in 0..count {
                let bound = if plan.is_disabled(at) { 0 } else { by_identity.of(at).len() };
                let length = payload_length(bound, ids.of_identity(at));
                reserve(plan.identity(at, &mut buffer), length);
            }
        });
        self.binding_ids = Table::with_lengths(self.seed().clone(), ids.texts.len(), |reserve| {
            for position in &ids.texts {
                if let BindingId::Text(id) = plan.id(*position) {
                    reserve(&id, size_of::<u32>());
                }
            }
        });

        // By number of the role.
        let mut uses = vec![0i32; self.roles.ordered().len()];
        let (mut entries, mut payload) = (Vec::<Stored>::new(), Vec::new());
        let mut numbers = Vec::with_capacity(count);
        let mut plain: Map<&str, Arc<IdentityExtra>> = Map::default();
        for at in 0..count {
            for place in by_identity.of(at) {
                let Some(References { role, scope, .. }) =
                    plan.references().get(*place as usize).copied()
                else {
                    continue;
                };
                let Some(scope) = scopes.get(scope as usize).copied() else { continue };
                if let Some(uses) = uses.get_mut(role as usize) {
                    *uses += 1;
                }
                let restrictions = plan.restrictions(*place);
                let restricted = !restrictions.is_empty();
                let packed = PackedBinding { role, restricted, ..scope };
                let id = plan.id(*place);
                let number = match id {
                    BindingId::Derived if !ids.of_identity(at) => 0,
                    BindingId::Derived => plan.derived_number(*place),
                    BindingId::Number(number) => number,
                    BindingId::Text(_) => 0,
                };
                entries.push(Stored { packed, restrictions, id, number });
            }
            let mut extra = write_payload(&mut entries, ids.of_identity(at), &mut payload);
            extra.standing = match at < plan.registered_len() {
                true if plan.is_disabled(at) => Standing::Disabled([].into()),
                true => Standing::Registered,
                false => Standing::Unregistered,
            };
            extra.take_payload(&mut payload);
            let id = plan.identity(at, &mut buffer);
            let number = fits(self.identities.put(id, &payload), id)?;
            numbers.push(number);
            for (_, id) in &extra.ids {
                fits(self.binding_ids.put(id, &number.to_le_bytes()), id)?;
            }
            let properties = plan.identity_properties(at).cloned().unwrap_or_default();
            let extra = IdentityExtra { properties, ..extra };
            let kind = plan.identity_kind(at);
            if kind == USER {
                if !extra.is_empty() {
                    self.identities.set_extra(number, Some(Arc::new(extra)));
                }
                continue;
            }
            // As with resources.
            let plain = plain.entry(kind).or_insert_with(|| {
                let kind = IdentityExtra::kept_kind(kind);
                Arc::new(IdentityExtra { kind, ..IdentityExtra::default() })
            });
            let extra = match extra.is_empty() {
                true => Arc::clone(plain),
                false => Arc::new(IdentityExtra { kind: plain.kind.clone(), ..extra }),
            };
            self.identities.set_extra(number, Some(extra));
        }
        for (role, bindings) in (0u32..).zip(uses) {
            self.roles.count(role, bindings);
        }
        Ok(Identities { numbers, by_identity })
    }

    /// At each scope the identities bound there, in the order of their ids.
    fn put_bound(
        &mut self,
        ids: &Ids,
        scopes: &[PackedBinding],
        all: BoundAt,
        (identities, are_sorted): (&[u32], bool),
    ) {
        let order: Vec<u32> = if are_sorted {
            (0u32..).take(identities.len()).collect()
        } else {
            order_of(&identities.iter().map(|at| self.identities.key(*at)).collect::<Vec<_>>())
        };
        // Counting sort: the bindings come in the order of their identities' ids, and each goes to the next
        // place of its scope.
        let mut next: Vec<usize> = vec![0; scopes.len() + 1];
        for scope in &all.scopes {
            if let Some(count) = next.get_mut(*scope as usize + 1) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for start in &mut next {
            sum += *start;
            *start = sum;
        }
        let starts = next.clone();
        let mut bound = vec![u32::MAX; all.scopes.len()];
        let mut numbers = vec![0u64; all.numbers.len()];
        for at in order {
            let Some(identity) = identities.get(at as usize) else { continue };
            for place in all.range(at as usize) {
                let Some(scope) = all.scopes.get(place) else { continue };
                let Some(free) = next.get_mut(*scope as usize) else { continue };
                if let Some(slot) = bound.get_mut(*free) {
                    *slot = *identity;
                }
                if let Some((slot, number)) = numbers.get_mut(*free).zip(all.numbers.get(place)) {
                    *slot = *number;
                }
                *free += 1;
            }
        }
        drop(all);
        let mut bytes = Vec::new();
        for (at, packed) in scopes.iter().enumerate() {
            let range = starts.get(at).copied().zip(starts.get(at + 1).copied());
            let range = range.map_or(0..0, |(start, end)| start..end);
            bytes.clear();
            let here = bound.get(range.clone()).unwrap_or_default();
            bytes.extend(here.iter().flat_map(|identity| identity.to_le_bytes()));
            if ids.at_scope(at) {
                let here = numbers.get(range).unwrap_or_default();
                bytes.extend(here.iter().flat_map(|number| number.to_le_bytes()));
            }
            match List::new(std::mem::take(&mut bytes), ids.at_scope(at)) {
                List::InRecord(list) => {
                    self.scopes.write_at(packed.scope, SCOPE_HEADER, &list);
                    bytes = list;
                }
                List::InParts(parts) => self.set_parts(packed.scope, Some(parts)),
            }
        }
    }
}

/// Whether the identities come in the order of their paths, as those of a store do. Here their texts are next to each other,
/// and not in the table.
fn identities_are_sorted(plan: &impl Plan) -> bool {
    let (mut last, mut buffer) = (String::new(), String::new());
    (0..plan.identities_len()).all(|at| {
        let text = plan.identity(at, &mut buffer);
        let is_next = last.as_str() <= text;
        last.clear();
        last.push_str(text);
        is_next
    })
}

/// The scopes of all bindings, those of an identity next to each other.
struct BoundAt {
    /// Where those of each identity start; one more at the end.
    starts: Vec<u32>,
    scopes: Vec<u32>,
    /// The numbers of the bindings' ids, 0 for an id that is not a number; none if no scope needs them.
    numbers: Vec<u64>,
}

impl BoundAt {
    fn new(plan: &impl Plan, ids: &Ids, by_identity: ByIdentity) -> Self {
        let ByIdentity { starts, positions } = by_identity;
        let scope = |position: &u32| {
            plan.references().get(*position as usize).map_or(u32::MAX, |one| one.scope)
        };
        let number = |position: &u32| match plan.id(*position) {
            _ if !ids.at_scope(scope(position) as usize) => 0,
            BindingId::Derived => plan.derived_number(*position),
            BindingId::Number(number) => number,
            BindingId::Text(_) => 0,
        };
        let numbered = positions.get(..if ids.scopes.is_empty() { 0 } else { positions.len() });
        Self {
            starts,
            scopes: positions.iter().map(scope).collect(),
            numbers: numbered.unwrap_or_default().iter().map(number).collect(),
        }
    }

    /// The places of an identity's bindings.
    fn range(&self, identity: usize) -> Range<usize> {
        let range = self.starts.get(identity).zip(self.starts.get(identity + 1));
        range.map_or(0..0, |(start, end)| *start as usize..*end as usize)
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
    fn new(plan: &impl Plan) -> Self {
        let mut starts = vec![0u32; plan.identities_len() + 1];
        for identity in plan.references().iter().map(|references| references.identity) {
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
        let mut positions = vec![u32::MAX; plan.references().len()];
        for (position, references) in (0u32..).zip(plan.references()) {
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
    fn new(plan: &impl Plan) -> Self {
        let mut ids = Self::default();
        for (position, references) in (0u32..).zip(plan.references()) {
            match plan.id(position) {
                BindingId::Derived => continue,
                BindingId::Text(_) => {
                    ids.texts.push(position);
                    continue;
                }
                BindingId::Number(_) => {}
            }
            if ids.identities.is_empty() {
                ids.identities = vec![false; plan.identities_len()];
                ids.scopes = vec![false; plan.scopes_len()];
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
