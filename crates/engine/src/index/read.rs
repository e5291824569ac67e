//! Reads of the index: bindings by path, by identity and by id, and what they refer to.

use std::borrow::Cow;
use std::ops::ControlFlow;

use crate::index::Index;
use crate::index::binding::{
    BINDING_BYTES, IdentityExtra, PackedBinding, PathMatcher, Restrictions, Standing, lower_bound,
    numbers, packed_bindings,
};
use crate::index::roles::RoleUse;
use crate::index::scope::{ScopeExtra, ScopeKind, ScopeRecord};
use crate::index::table::Entry;
use crate::model::path::contains;
use crate::rules::{BindingKey, View, binding_id, split_binding_id};
use crate::{AttributeCategory, Condition, Path, Properties, RoleBinding, Timestamp, USER};

/// Up to this many bindings of one identity are compared one by one. Of more, those on the path are
/// found by search.
const SCAN_MAX: usize = 32;

/// A role binding of an identity.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding<'s> {
    pub(crate) packed: PackedBinding,
    /// Its position among the identity's bindings.
    pub(crate) position: u32,
    /// `None` for unrestricted bindings and for corrupt ones (see [`Self::is_broken`]).
    pub(crate) restrictions: Option<&'s Restrictions>,
}

/// The type of an identity. One that is not registered will be a user.
pub(crate) fn kind_of_identity(identity: Entry<'_, IdentityExtra>) -> &str {
    identity.extra().and_then(|extra| extra.kind.as_deref()).unwrap_or(USER)
}

impl Index {
    /// A scope by its path.
    pub(crate) fn scope(&self, path: &str) -> Option<(Entry<'_, ScopeExtra>, ScopeRecord<'_>)> {
        let entry = self.scopes.get(path)?;
        Some((entry, ScopeRecord::read(entry)?))
    }

    /// The path of a binding's scope. For a scope that is not there, `/`, which is no path and no
    /// ancestor of one.
    pub(crate) fn scope_of(&self, binding: &Binding<'_>) -> &str {
        match self.scopes.key(binding.packed.scope) {
            "" => "/",
            scope => scope,
        }
    }

    /// The id of a binding's role. For a role that is not there, the empty text.
    pub(crate) fn role_id(&self, binding: &Binding<'_>) -> &str {
        self.roles.get(binding.packed.role).map_or("", |role| &role.id)
    }

    /// The registered properties of the resource of this path.
    pub(crate) fn resource_properties(&self, path: &str) -> Option<&Properties> {
        self.scopes.get(path)?.extra().map(|extra| &extra.properties)
    }

    /// The type of the resource of this path.
    pub(crate) fn resource_kind(&self, path: &str) -> Option<&str> {
        self.scopes.get(path)?.extra()?.kind.as_deref()
    }

    /// The registered properties of the identity of this id.
    pub(crate) fn identity_properties(&self, id: &str) -> Option<&Properties> {
        self.identities.get(id)?.extra().map(|extra| &extra.properties)
    }

    /// About so many identities, spread evenly, in an order that must not be visible outside.
    pub(crate) fn sample_identities(
        &self,
        count: usize,
    ) -> impl Iterator<Item = Entry<'_, IdentityExtra>> {
        self.identities.every((self.identities.len() / count.max(1)).max(1))
    }

    /// Every group and resource, in an order that must not be visible outside.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = (Entry<'_, ScopeExtra>, ScopeRecord<'_>)> {
        let records = self.scopes.iter().map(|entry| (entry, ScopeRecord::read(entry)));
        records.filter_map(|(entry, record)| Some((entry, record?)))
    }

    /// The number of scopes.
    pub(crate) fn scopes_len(&self) -> usize {
        self.scopes.len()
    }

    /// About so many scopes, spread evenly, in an order that must not be visible outside.
    pub(crate) fn sample_scopes(
        &self,
        count: usize,
    ) -> impl Iterator<Item = Entry<'_, ScopeExtra>> {
        self.scopes.every((self.scopes.len() / count.max(1)).max(1))
    }

    /// About so many of the bindings' ids that are not a number, spread evenly, in an order that must not be
    /// visible outside.
    pub(crate) fn sample_binding_ids(&self, count: usize) -> impl Iterator<Item = &str> {
        let step = (self.binding_ids.len() / count.max(1)).max(1);
        self.binding_ids.every(step).map(|entry| entry.key())
    }

    /// The position of the first identity of a scope whose id is not `before`, by binary search.
    pub(crate) fn first_bound(
        &self,
        record: &ScopeRecord<'_>,
        before: impl Fn(&[u8]) -> bool,
    ) -> usize {
        let (mut low, mut high) = (0, record.bound_len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let identity = record.bound.identity(middle);
            let entry = identity.and_then(|number| self.identities.entry(number));
            if before(entry.map_or(&[], |entry| entry.key_bytes())) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// All bindings of an identity that may count, in an order that must not be visible outside: none of a
    /// disabled identity.
    pub(crate) fn bindings_of<'s>(
        &'s self,
        identity: Entry<'s, IdentityExtra>,
    ) -> impl Iterator<Item = Binding<'s>> {
        bindings_in(identity.payload(), identity)
    }

    /// All bindings of an identity, those of a disabled one, too, in an order that must not be visible outside.
    pub(crate) fn stored_bindings_of<'s>(
        &'s self,
        identity: Entry<'s, IdentityExtra>,
    ) -> impl Iterator<Item = Binding<'s>> {
        bindings_in(stored_payload(identity), identity)
    }

    /// Calls `visit` for each binding of an identity whose scope is the resource or an ancestor of it,
    /// until `visit` breaks.
    #[inline]
    pub(crate) fn on_path<'s>(
        &'s self,
        identity: Entry<'s, IdentityExtra>,
        resource: Path<'_>,
        mut visit: impl FnMut(Binding<'s>) -> ControlFlow<()>,
    ) {
        let bindings = packed_bindings(identity.payload());
        let mut visit = |position, packed: PackedBinding| {
            debug_assert!(contains(self.scopes.key(packed.scope), resource.as_str()));
            let restrictions = restrictions(packed, position, identity);
            visit(Binding { packed, position, restrictions })
        };
        if bindings.len() > SCAN_MAX {
            self.search(bindings, resource, &mut visit);
            return;
        }
        let mut matcher = PathMatcher::new(self.seed(), resource.as_str());
        for (position, bytes) in (0u32..).zip(bindings) {
            let packed = PackedBinding::read(*bytes);
            if matcher.covers(&packed) && visit(position, packed).is_break() {
                return;
            }
        }
    }

    /// [`Self::on_path`] for many bindings: searches, among those sorted by fingerprint, for each prefix of
    /// the path.
    #[inline(never)]
    fn search(
        &self,
        bindings: &[[u8; BINDING_BYTES]],
        resource: Path<'_>,
        visit: &mut dyn FnMut(u32, PackedBinding) -> ControlFlow<()>,
    ) {
        let prefixes = self.seed().prefixes(resource.as_str());
        for (fingerprint, length) in prefixes.iter() {
            let first = lower_bound(fingerprint.rank(), bindings);
            let from = bindings.get(first..).unwrap_or_default().iter();
            let from = from.map(|bytes| PackedBinding::read(*bytes));
            let candidates = from.take_while(|one| one.fingerprint <= fingerprint);
            for (position, packed) in (first..).zip(candidates) {
                let Ok(position) = u32::try_from(position) else { return };
                let matches = (packed.fingerprint, packed.length) == (fingerprint, length);
                if matches && visit(position, packed).is_break() {
                    return;
                }
            }
        }
    }

    // === Ids of bindings ===

    /// The key that makes this binding the same as another.
    pub(crate) fn key_of<'s>(
        &'s self,
        identity: Entry<'s, IdentityExtra>,
        binding: &Binding<'s>,
    ) -> BindingKey<'s> {
        let (role, scope) = (self.role_id(binding), self.scope_of(binding));
        BindingKey::new(identity.key(), role, scope, binding.conditions())
    }

    /// The number in the last segment of a binding's id: the stored one, otherwise the derived one.
    /// `None` if the id has another form.
    pub(crate) fn number_of(
        &self,
        identity: Entry<'_, IdentityExtra>,
        binding: &Binding<'_>,
    ) -> Option<u64> {
        if id_text(identity, binding.position).is_some() {
            return None;
        }
        let stored = numbers(stored_payload(identity));
        match stored.and_then(|numbers| numbers.get(binding.position as usize)) {
            Some(bytes) => Some(u64::from_le_bytes(*bytes)),
            None => Some(self.key_of(identity, binding).derived_number()),
        }
    }

    /// The path of a binding.
    pub(crate) fn binding_id<'s>(
        &'s self,
        identity: Entry<'s, IdentityExtra>,
        binding: &Binding<'s>,
    ) -> Cow<'s, str> {
        match self.number_of(identity, binding) {
            Some(number) => Cow::Owned(binding_id(self.scope_of(binding), number)),
            None => Cow::Borrowed(id_text(identity, binding.position).unwrap_or_default()),
        }
    }

    /// The binding of this id, explicit or derived, and its identity.
    ///
    /// Costs one look-up for an id that is not a number. For a number it reads the numbers of the scope;
    /// if the scope has none, because all ids there are derived, it derives those of all bindings there.
    pub(crate) fn find_binding(&self, id: &str) -> Option<(Entry<'_, IdentityExtra>, Binding<'_>)> {
        if let Some(found) = self.binding_ids.get(id) {
            let identity = u32::from_le_bytes(*found.payload().first_chunk()?);
            let identity = self.identities.entry(identity)?;
            let ids = &identity.extra()?.ids;
            let (position, _) = ids.iter().find(|(_, text)| **text == *id)?;
            let binding = self.binding_at(identity, *position)?;
            return Some((identity, binding));
        }
        let (scope, number) = split_binding_id(id)?;
        let (scope, record) = self.scope(scope)?;
        let of_identity = |identity| {
            let identity = self.identities.entry(identity)?;
            let at_scope =
                self.stored_bindings_of(identity).filter(|one| one.packed.scope == scope.number());
            let mut found = at_scope.filter(|one| self.number_of(identity, one) == Some(number));
            Some((identity, found.next()?))
        };
        let identities = record.bound.identities();
        if record.numbered {
            let mut matching =
                record.bound.numbers().zip(identities).filter(|(one, _)| *one == number);
            return matching.find_map(|(_, identity)| of_identity(identity));
        }
        let mut last = None;
        identities.filter(|one| last.replace(*one) != Some(*one)).find_map(of_identity)
    }

    /// The stored bindings of an identity at a scope, given by its entry: by search, whatever the number of others.
    pub(crate) fn stored_at_scope<'s>(
        &'s self,
        identity: Entry<'s, IdentityExtra>,
        scope: Entry<'s, ScopeExtra>,
    ) -> impl Iterator<Item = Binding<'s>> {
        let fingerprint = self.seed().fingerprint(scope.key_bytes());
        let bindings = packed_bindings(stored_payload(identity));
        (lower_bound(fingerprint.rank(), bindings)..)
            .map_while(move |at| self.binding_at(identity, u32::try_from(at).ok()?))
            .take_while(move |one| one.packed.fingerprint <= fingerprint)
            .filter(move |one| one.packed.scope == scope.number())
    }

    /// The stored bindings of an identity that have a condition on this category of attributes.
    pub(crate) fn stored_conditional<'s>(
        &'s self,
        identity: Entry<'s, IdentityExtra>,
        category: AttributeCategory,
    ) -> impl Iterator<Item = Binding<'s>> {
        let restrictions = identity.extra().into_iter().flat_map(|extra| &extra.restrictions);
        let tests = move |restrictions: &Restrictions| {
            restrictions.conditions.iter().any(|condition| condition.category == category)
        };
        let conditional = restrictions.filter(move |(_, restrictions)| tests(restrictions));
        conditional.filter_map(move |(position, _)| self.binding_at(identity, *position))
    }

    /// The binding of an identity that has this key, where a binding with it would be `packed`. The identity is
    /// that of the key, so of bindings with the same scope and role only the conditions are compared.
    pub(crate) fn find_same<'s>(
        &'s self,
        identity: Entry<'s, IdentityExtra>,
        packed: PackedBinding,
        key: &BindingKey<'_>,
    ) -> Option<Binding<'s>> {
        let bindings = packed_bindings(stored_payload(identity));
        let first = lower_bound(packed.fingerprint.rank(), bindings);
        (first..)
            .map_while(|position| self.binding_at(identity, u32::try_from(position).ok()?))
            .take_while(|one| one.packed.fingerprint <= packed.fingerprint)
            .filter(|one| (one.packed.scope, one.packed.role) == (packed.scope, packed.role))
            .find(|one| {
                let is_same = key.has_conditions(one.conditions());
                debug_assert!(one.is_broken() || is_same == (self.key_of(identity, one) == *key));
                is_same
            })
    }

    /// The binding at a position among those of an identity.
    fn binding_at<'s>(
        &'s self,
        identity: Entry<'s, IdentityExtra>,
        position: u32,
    ) -> Option<Binding<'s>> {
        let bytes = packed_bindings(stored_payload(identity)).get(position as usize)?;
        let packed = PackedBinding::read(*bytes);
        Some(Binding { packed, position, restrictions: restrictions(packed, position, identity) })
    }

    /// A binding as a fact. Its id is `None` if the derived one is longer than a path can be. `None` if the
    /// binding is corrupt: a part of it is not there.
    pub(crate) fn role_binding(
        &self,
        identity: Entry<'_, IdentityExtra>,
        binding: &Binding<'_>,
    ) -> Option<RoleBinding> {
        if binding.is_broken() {
            return None;
        }
        Some(RoleBinding {
            id: self.binding_id(identity, binding).parse().ok(),
            identity: identity.key().parse().ok()?,
            role: Some(self.role_id(binding)).filter(|role| !role.is_empty())?.into(),
            scope: self.scope_of(binding).parse().ok()?,
            expires_at: binding.expires_at(),
            when: binding.conditions().to_vec(),
        })
    }

    // === What a path names ===

    /// Whether the path names anything: a group, resource, identity, custom role or binding.
    pub(crate) fn is_taken(&self, id: &str) -> bool {
        self.is_named(id) || self.find_binding(id).is_some()
    }

    /// [`Self::is_taken`] by anything but a binding.
    pub(crate) fn is_named(&self, id: &str) -> bool {
        // All tables have one seed.
        let fingerprint = self.seed().fingerprint(id.as_bytes());
        self.scopes.contains(fingerprint)
            || self.identities.contains(fingerprint)
            // The name of a built-in role is no path and has no slash. An organization may be called the same.
            || id.contains('/') && self.roles.contains(fingerprint)
    }
}

impl<'s> View for &'s Index {
    type Identity = Entry<'s, IdentityExtra>;
    type Role = RoleUse;
    type Scope = (Entry<'s, ScopeExtra>, ScopeRecord<'s>);

    fn is_group(&self, id: &str) -> bool {
        (*self).scope(id).is_some_and(|(_, record)| record.kind == ScopeKind::Group)
    }

    fn identity(&self, id: &str) -> Option<Self::Identity> {
        self.identities.get(id)
    }

    fn scope(&self, id: &str) -> Option<Self::Scope> {
        (*self).scope(id)
    }

    fn custom_role(&self, id: &str) -> Option<RoleUse> {
        if id.contains('/') { self.roles.find(id) } else { None }
    }

    fn built_in_role(&self, name: &str) -> Option<RoleUse> {
        if name.contains('/') { None } else { self.roles.find(name) }
    }

    fn has_capability(&self, name: &str) -> bool {
        self.catalog.capability(name).is_some()
    }
}

/// The payload of an identity, that of a disabled one, too.
pub(crate) fn stored_payload(identity: Entry<'_, IdentityExtra>) -> &[u8] {
    let record = identity.payload();
    match identity.extra().filter(|_| record.is_empty()).map(|extra| &extra.standing) {
        Some(Standing::Disabled(payload)) => payload,
        _ => record,
    }
}

/// Whether an identity of the index is registered. One that is not is bound.
pub(crate) fn is_registered(identity: Entry<'_, IdentityExtra>) -> bool {
    identity.extra().is_none_or(|extra| !matches!(extra.standing, Standing::Unregistered))
}

/// Whether an identity is disabled.
pub(crate) fn is_disabled(identity: Entry<'_, IdentityExtra>) -> bool {
    identity.extra().is_some_and(|extra| matches!(extra.standing, Standing::Disabled(_)))
}

/// The bindings of a payload of an identity.
fn bindings_in<'s>(
    payload: &'s [u8],
    identity: Entry<'s, IdentityExtra>,
) -> impl Iterator<Item = Binding<'s>> {
    (0u32..).zip(packed_bindings(payload)).map(move |(position, bytes)| {
        let packed = PackedBinding::read(*bytes);
        Binding { packed, position, restrictions: restrictions(packed, position, identity) }
    })
}

fn restrictions(
    packed: PackedBinding,
    position: u32,
    identity: Entry<'_, IdentityExtra>,
) -> Option<&Restrictions> {
    if !packed.restricted {
        return None;
    }
    let restrictions = &identity.extra()?.restrictions;
    let found = restrictions.binary_search_by_key(&position, |(at, _)| *at).ok()?;
    restrictions.get(found).map(|(_, restrictions)| restrictions)
}

/// The id of the binding at this position, if it is not a number.
pub(crate) fn id_text(identity: Entry<'_, IdentityExtra>, position: u32) -> Option<&str> {
    let ids = &identity.extra()?.ids;
    let found = ids.binary_search_by_key(&position, |(at, _)| *at).ok()?;
    ids.get(found).map(|(_, id)| &**id)
}

impl<'s> Binding<'s> {
    /// Whether it should have restrictions and has none: it is corrupt, and must not count.
    pub(crate) const fn is_broken(&self) -> bool {
        self.packed.restricted && self.restrictions.is_none()
    }

    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        self.restrictions.and_then(|restrictions| restrictions.expires_at)
    }

    pub(crate) fn conditions(&self) -> &'s [Condition] {
        self.restrictions.map_or(&[], |restrictions| &restrictions.conditions)
    }

    /// Whether it has a condition on the resource.
    pub(crate) fn tests_resource(&self) -> bool {
        self.conditions().iter().any(|condition| condition.category == AttributeCategory::Resource)
    }
}
