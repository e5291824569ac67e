//! Reads of the index: bindings by path, by identity, and what they refer to.

use std::borrow::Cow;
use std::ops::ControlFlow;

use crate::index::Index;
use crate::index::binding::{BINDING_BYTES, Below, Beside, Id, Packed, Special, first_with};
use crate::index::scope::ScopeRecord;
use crate::index::table::Entry;
use crate::model::path::contains;
use crate::rules::{Same, binding_id};
use crate::{Condition, Of, Path, Properties, Timestamp};

/// Up to this many bindings of one identity are compared one by one. Of more, those on the path are
/// found by search.
const SCAN_MAX: usize = 32;

/// A role binding, where the index holds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding<'s> {
    pub(crate) packed: Packed,
    /// What few have; nothing, too, for one that should have it and does not.
    pub(crate) special: Option<&'s Special>,
}

impl Index {
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
    pub(crate) fn resource_properties(&self, path: &str) -> Option<&Properties> {
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
