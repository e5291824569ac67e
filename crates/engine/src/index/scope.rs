//! Scopes as the index stores them: a group or registered resource, and the identities bound at it.
//!
//! ```text
//! kind: u8   unused: 3 bytes   children: u32   identities bound here: u32 each, once for each binding
//! ```
//!
//! **Invariant**: the identities stand in the order of their ids, so that a list goes on after any id without
//! a look at those before it.

/// Bytes of a scope's payload before the identities.
const SCOPE_HEADER: usize = 8;

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

    /// The payload with one more binding of this identity, at its place in the order of ids: see
    /// [`Self::after`].
    pub(crate) fn with(&self, identity: u32, place: usize) -> Vec<u8> {
        let header = Self::write(self.kind, self.children, std::iter::empty());
        let (before, after) = self
            .identities
            .split_at_checked(place * size_of::<u32>())
            .unwrap_or((self.identities, &[]));
        [&header[..], before, &identity.to_le_bytes(), after].concat()
    }

    /// How many of the identities have an id up to this one.
    pub(crate) fn after<'k>(&self, id: &str, key: impl Fn(u32) -> &'k str) -> usize {
        let (numbers, _) = self.identities.as_chunks::<{ size_of::<u32>() }>();
        numbers.partition_point(|bytes| key(u32::from_le_bytes(*bytes)) <= id)
    }

    /// The numbers of the identities from this place on.
    pub(crate) fn identities_from(&self, place: usize) -> impl Iterator<Item = u32> + use<'s> {
        let (numbers, _) = self.identities.as_chunks();
        numbers.get(place..).unwrap_or_default().iter().map(|bytes| u32::from_le_bytes(*bytes))
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

    /// The numbers of the identities that are bound here, in the order of their ids, once for each binding.
    pub(crate) fn identities(&self) -> impl Iterator<Item = u32> + use<'s> {
        self.identities_from(0)
    }
}
