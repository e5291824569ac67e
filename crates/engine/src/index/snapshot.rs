//! The immutable index that every question is answered from.
//!
//! ```text
//! identities   path ─▶ its bindings, sorted by their scope's fingerprint   ─▶ properties, expiries,
//! scopes       path ─▶ kind, children, identities bound at it                conditions, if any
//! roles        name ─▶ number ─▶ row of the capability matrix
//! ```
//!
//! **Invariant**: a [`Snapshot`] never changes. The next one shares with it all that did not change
//! (`table.rs`), so that a change costs microseconds and not a copy of the policy.

use std::{borrow::Cow, fmt, ops::ControlFlow, sync::Arc};

use crate::index::binding::{BINDING_BYTES, Below, Beside, Id, Packed, Special, first_with};
use crate::index::hash::Seed;
use crate::index::roles::Roles;
use crate::index::table::{Entry, Table};
use crate::model::path::contains;
use crate::rules::{Same, binding_id};
use crate::{Catalog, Condition, Of, Path, Properties, Role, Timestamp};

/// Bindings of one identity up to which all are looked at; of more, those are looked up whose scope
/// is on the path.
const SCAN_MAX: usize = 32;
/// Bytes before a scope's identities: what it is, and how many children it has.
const SCOPE_HEADER: usize = 8;

/// One revision of the policy, indexed.
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) revision: u64,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) roles: Roles,
    pub(crate) identities: Table<Beside>,
    /// Groups and registered resources, which may have properties.
    pub(crate) scopes: Table<Properties>,
    /// Ids that bindings declare.
    pub(crate) binding_ids: Table<()>,
    pub(crate) bindings: usize,
}

/// A role binding, where the index holds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding<'s> {
    pub(crate) packed: Packed,
    /// What few have; nothing, too, for one that should have it and does not.
    pub(crate) special: Option<&'s Special>,
}

/// What a scope is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScopeKind {
    Group,
    Resource,
}

/// A scope as its record says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScopeRecord<'s> {
    pub(crate) kind: ScopeKind,
    /// Groups, roles, identities and resources whose parent it is.
    pub(crate) children: u32,
    identities: &'s [u8],
}

impl<'s> ScopeRecord<'s> {
    /// Where in the payload the number of children stands.
    pub(crate) const CHILDREN_AT: usize = 4;

    pub(crate) fn read(payload: &'s [u8]) -> Option<Self> {
        let (header, identities) = payload.split_first_chunk::<SCOPE_HEADER>()?;
        let [kind, _, _, _, c0, c1, c2, c3] = *header;
        let kind = if kind == 0 { ScopeKind::Group } else { ScopeKind::Resource };
        Some(Self { kind, children: u32::from_le_bytes([c0, c1, c2, c3]), identities })
    }

    pub(crate) fn write(
        kind: ScopeKind,
        children: u32,
        identities: impl Iterator<Item = u32>,
    ) -> Vec<u8> {
        let mut payload = vec![u8::from(kind == ScopeKind::Resource), 0, 0, 0];
        payload.extend(children.to_le_bytes());
        identities.for_each(|number| payload.extend(number.to_le_bytes()));
        payload
    }

    /// The payload of one at which so many are bound.
    pub(crate) const fn length(bound: usize) -> usize {
        SCOPE_HEADER + bound * size_of::<u32>()
    }

    /// The payload with one more binding of this identity.
    pub(crate) fn with(&self, identity: u32) -> Vec<u8> {
        let header = Self::write(self.kind, self.children, std::iter::empty());
        [&header[..], self.identities, &identity.to_le_bytes()].concat()
    }

    /// The payload with one binding less of this identity, if it has any.
    pub(crate) fn without(&self, identity: u32) -> Vec<u8> {
        let header = Self::write(self.kind, self.children, std::iter::empty());
        let (bound, _) = self.identities.as_chunks::<{ size_of::<u32>() }>();
        let at = bound.iter().position(|bytes| u32::from_le_bytes(*bytes) == identity);
        let (before, from) = bound.split_at(at.unwrap_or(bound.len()));
        let after = from.get(1..).unwrap_or_default();
        [&header[..], before.as_flattened(), after.as_flattened()].concat()
    }

    /// The numbers of the identities that are bound here, once for each binding.
    pub(crate) fn identities(&self) -> impl Iterator<Item = u32> + use<'s> {
        let (numbers, _) = self.identities.as_chunks();
        numbers.iter().map(|bytes| u32::from_le_bytes(*bytes))
    }
}

impl Snapshot {
    /// Which revision this is.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The catalog that capabilities and built-in roles come from.
    #[must_use]
    pub const fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Built-in roles in the catalog's order, then custom ones by id.
    #[must_use]
    pub fn roles(&self) -> &[Arc<Role>] {
        self.roles.ordered()
    }

    /// How many identities are registered.
    #[must_use]
    pub fn identities_len(&self) -> usize {
        self.identities.len()
    }

    /// How many role bindings there are, whether or not they count.
    #[must_use]
    pub const fn bindings_len(&self) -> usize {
        self.bindings
    }

    /// Bytes that the index holds: names, bindings and what finds them. Not counted are roles, and
    /// the expiries, conditions and properties of those that have any.
    #[must_use]
    pub fn index_bytes(&self) -> usize {
        self.identities.bytes() + self.scopes.bytes() + self.binding_ids.bytes()
    }

    pub(crate) const fn seed(&self) -> &Seed {
        self.identities.seed()
    }

    /// A scope by its path.
    pub(crate) fn scope(&self, path: &str) -> Option<(Entry<'_, Properties>, ScopeRecord<'_>)> {
        let entry = self.scopes.get(path)?;
        Some((entry, ScopeRecord::read(entry.payload())?))
    }

    /// A binding's scope; for a number that is not there, a text that is no path's ancestor.
    pub(crate) fn scope_of(&self, binding: &Binding<'_>) -> &str {
        match self.scopes.key(binding.packed.scope) {
            "" => "/",
            scope => scope,
        }
    }

    pub(crate) fn role_id(&self, binding: &Binding<'_>) -> &str {
        self.roles.get(binding.packed.role).map_or("", |role| &role.id)
    }

    /// The registered properties of the resource of this path.
    pub(crate) fn resource(&self, path: &str) -> Option<&Properties> {
        self.scopes.get(path)?.extra().map(|properties| &**properties)
    }

    pub(crate) fn binding_id<'s>(&'s self, identity: &str, binding: &Binding<'s>) -> Cow<'s, str> {
        let scope = self.scope_of(binding);
        let moved = match binding.special.map(|special| &special.id) {
            Some(Id::Declared(id)) => return Cow::Borrowed(id),
            Some(Id::Moved(id)) => Some(*id),
            Some(Id::Derived) | None => None,
        };
        let derived = || {
            let when = binding.special.map_or(&[][..], |special| &special.when);
            Same::new(identity, self.role_id(binding), scope, when).derived_id()
        };
        Cow::Owned(binding_id(scope, moved.unwrap_or_else(derived)))
    }

    /// All bindings of an identity, in no order that means anything.
    pub(crate) fn bindings_of<'s>(
        &'s self,
        identity: Entry<'s, Beside>,
    ) -> impl Iterator<Item = Binding<'s>> {
        let (bindings, _) = identity.payload().as_chunks::<BINDING_BYTES>();
        (0u32..).zip(bindings).map(move |(at, bytes)| Binding::read(*bytes, at, identity))
    }

    /// Looks at the bindings of an identity whose scope is the resource or above it, until `look`
    /// has seen enough.
    #[inline]
    pub(crate) fn on_path<'s>(
        &'s self,
        identity: Entry<'s, Beside>,
        resource: Path<'_>,
        mut look: impl FnMut(Binding<'s>) -> ControlFlow<()>,
    ) {
        let (bindings, _) = identity.payload().as_chunks::<BINDING_BYTES>();
        let mut look = |at, packed: Packed| {
            debug_assert!(contains(self.scopes.key(packed.scope), resource.as_str()));
            look(Binding { packed, special: special(packed, at, identity) })
        };
        if bindings.len() > SCAN_MAX {
            self.search(bindings, resource, &mut look);
            return;
        }
        let mut path = Below::new(self.seed(), resource.as_str());
        for (at, bytes) in (0u32..).zip(bindings) {
            let packed = Packed::read(*bytes);
            if path.is_below(&packed) && look(at, packed).is_break() {
                return;
            }
        }
    }

    /// Finds among many bindings, which are sorted by their fingerprints, those with one of the path.
    #[inline(never)]
    fn search(
        &self,
        bindings: &[[u8; BINDING_BYTES]],
        resource: Path<'_>,
        look: &mut dyn FnMut(u32, Packed) -> ControlFlow<()>,
    ) {
        let prefixes = self.seed().prefixes(resource.as_str());
        for (fingerprint, length) in prefixes.iter() {
            let first = first_with(fingerprint.rank(), bindings);
            let from = bindings.get(first..).unwrap_or_default().iter();
            let from = from.map(|bytes| Packed::read(*bytes));
            let near = from.take_while(|one| one.fingerprint <= fingerprint);
            for (at, packed) in (first..).zip(near) {
                let Ok(at) = u32::try_from(at) else { return };
                let found = (packed.fingerprint, packed.length) == (fingerprint, length);
                if found && look(at, packed).is_break() {
                    return;
                }
            }
        }
    }
}

fn special(packed: Packed, at: u32, identity: Entry<'_, Beside>) -> Option<&Special> {
    if !packed.special {
        return None;
    }
    let special = &identity.extra()?.special;
    let found = special.binary_search_by_key(&at, |(place, _)| *place).ok()?;
    special.get(found).map(|(_, special)| special)
}

impl<'s> Binding<'s> {
    fn read(bytes: [u8; BINDING_BYTES], at: u32, identity: Entry<'s, Beside>) -> Self {
        let packed = Packed::read(bytes);
        Self { packed, special: special(packed, at, identity) }
    }

    /// Whether what should stand apart does not: then nothing is known of it, and it must not count.
    pub(crate) const fn is_broken(&self) -> bool {
        self.packed.special && self.special.is_none()
    }

    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        self.special.and_then(|special| special.expires_at)
    }

    pub(crate) fn conditions(&self) -> &'s [Condition] {
        self.special.map_or(&[], |special| &special.when)
    }

    /// Whether it has a test on the resource.
    pub(crate) fn tests_resource(&self) -> bool {
        self.conditions().iter().any(|condition| condition.of == Of::Resource)
    }
}

impl fmt::Debug for Snapshot {
    /// Sizes only: a policy can have millions of bindings.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("revision", &self.revision)
            .field("catalog", &self.catalog.name())
            .field("identities", &self.identities_len())
            .field("bindings", &self.bindings)
            .finish_non_exhaustive()
    }
}
