//! Scopes as the index stores them: a group or registered resource, and who is bound at it.
//!
//! ```text
//! kind: u8   has numbers: u8   unused: 2 bytes   children: u32
//! identities: u32 each, once for each binding, in the order of the identities' ids
//! numbers: u64 each, in the order of the identities, if there are any
//! ```
//!
//! The number of a binding is that in the last segment of its id (see
//! [`binding_id`](crate::rules::binding_id)). A scope has numbers if a binding at it has an explicit id of
//! that form; then there is one for each binding, the derived one for a binding without an explicit id,
//! and 0 for a binding whose id has another form.

/// Bytes of a payload before the identities.
pub(crate) const SCOPE_HEADER: usize = 8;
/// Bytes of a scope's payload for each binding, without and with numbers.
const BOUND_BYTES: usize = size_of::<u32>();
const BOUND_BYTES_NUMBERED: usize = BOUND_BYTES + size_of::<u64>();

/// What a scope is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScopeKind {
    Group,
    Resource,
}

/// The payload of a scope, read in place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScopeRecord<'s> {
    pub(crate) kind: ScopeKind,
    /// The number of groups, roles, identities and resources whose parent it is.
    pub(crate) children: u32,
    identities: &'s [[u8; 4]],
    numbers: Option<&'s [[u8; 8]]>,
}

/// The payload of a scope, to be changed and written.
#[derive(Clone, Debug)]
pub(crate) struct ScopePayload {
    pub(crate) kind: ScopeKind,
    pub(crate) children: u32,
    pub(crate) identities: Vec<u32>,
    /// As many as identities, if there are any.
    pub(crate) numbers: Option<Vec<u64>>,
}

impl<'s> ScopeRecord<'s> {
    /// The offset of the number of children in the payload.
    pub(crate) const CHILDREN_AT: usize = 4;

    /// `None` if the payload is too short for its header.
    pub(crate) fn read(payload: &'s [u8]) -> Option<Self> {
        let (header, bound) = payload.split_first_chunk::<SCOPE_HEADER>()?;
        let [kind, numbered, _, _, c0, c1, c2, c3] = *header;
        let kind = if kind == 0 { ScopeKind::Group } else { ScopeKind::Resource };
        let children = u32::from_le_bytes([c0, c1, c2, c3]);
        if numbered == 0 {
            return Some(Self { kind, children, identities: bound.as_chunks().0, numbers: None });
        }
        let count = bound.len() / BOUND_BYTES_NUMBERED;
        let (identities, numbers) = bound.split_at_checked(count * BOUND_BYTES)?;
        let (identities, numbers) = (identities.as_chunks().0, Some(numbers.as_chunks().0));
        Some(Self { kind, children, identities, numbers })
    }

    /// The number of bindings at this scope.
    pub(crate) const fn bound_len(&self) -> usize {
        self.identities.len()
    }

    /// The number of the identity at this position.
    pub(crate) fn identity(&self, position: usize) -> Option<u32> {
        self.identities.get(position).map(|bytes| u32::from_le_bytes(*bytes))
    }

    /// The numbers of the identities that are bound here, once for each binding.
    pub(crate) fn identities(&self) -> impl ExactSizeIterator<Item = u32> + use<'s> {
        self.identities.iter().map(|bytes| u32::from_le_bytes(*bytes))
    }

    /// The numbers of the bindings here, in the order of their identities, if the scope has them.
    pub(crate) fn numbers(&self) -> Option<impl ExactSizeIterator<Item = u64> + use<'s>> {
        Some(self.numbers?.iter().map(|bytes| u64::from_le_bytes(*bytes)))
    }

    pub(crate) fn to_payload(self) -> ScopePayload {
        let Self { kind, children, .. } = self;
        let numbers = self.numbers().map(Iterator::collect);
        ScopePayload { kind, children, identities: self.identities().collect(), numbers }
    }
}

impl ScopePayload {
    /// A scope at which nothing is bound.
    pub(crate) const fn empty(kind: ScopeKind, children: u32) -> Self {
        Self { kind, children, identities: vec![], numbers: None }
    }

    /// Bytes of the payload of a scope with this many bindings.
    pub(crate) const fn length(bound: usize, numbered: bool) -> usize {
        SCOPE_HEADER + bound * if numbered { BOUND_BYTES_NUMBERED } else { BOUND_BYTES }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let Self { kind, children, identities, numbers } = self;
        let mut bytes = Vec::with_capacity(Self::length(identities.len(), numbers.is_some()));
        bytes.extend([u8::from(*kind == ScopeKind::Resource), u8::from(numbers.is_some()), 0, 0]);
        bytes.extend(children.to_le_bytes());
        identities.iter().for_each(|identity| bytes.extend(identity.to_le_bytes()));
        numbers.iter().flatten().for_each(|number| bytes.extend(number.to_le_bytes()));
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_they_were_written() {
        for (identities, numbers) in [
            (vec![], None),
            (vec![7, 7, 3], None),
            (vec![], Some(vec![])),
            (vec![1, u32::MAX, 5], Some(vec![0, u64::MAX, 9])),
        ] {
            for kind in [ScopeKind::Group, ScopeKind::Resource] {
                let (identities, numbers) = (identities.clone(), numbers.clone());
                let written = ScopePayload { kind, children: 70_000, identities, numbers };
                let bytes = written.bytes();
                let (bound, numbered) = (written.identities.len(), written.numbers.is_some());
                assert_eq!(bytes.len(), ScopePayload::length(bound, numbered));
                let read = ScopeRecord::read(&bytes).unwrap().to_payload();
                assert_eq!(format!("{read:?}"), format!("{written:?}"));
            }
        }
        assert!(ScopeRecord::read(&[0; 7]).is_none());
    }
}
