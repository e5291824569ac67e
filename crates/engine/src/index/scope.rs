//! Scopes as the index stores them: a group or registered resource, and who is bound at it.
//!
//! ```text
//! record        kind: u8   has numbers: 1, list is in parts: 2: u8   nothing: u16   children: u32   list (`bound.rs`)
//! extra value   type and properties of a resource, and a list that is in parts; scopes with none of them have none
//! ```
//!
//! The number of a binding is that in the last segment of its id (see
//! [`binding_id`](crate::rules::binding_id)). A scope has numbers if a binding at it has an explicit id of
//! that form; then there is one for each binding, the derived one for a binding without an explicit id,
//! and 0 for a binding whose id has another form.

use std::sync::Arc;

use crate::Properties;
use crate::index::bound::{Bound, IN_RECORD_MAX, List, Part, Parts, part_bytes};
use crate::index::table::{Entry, Extra};

/// Bytes of a record before the list.
pub(crate) const SCOPE_HEADER: usize = 8;

const NUMBERED: u8 = 1;
const IN_PARTS: u8 = 2;

/// What a scope is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScopeKind {
    Group,
    Resource,
}

/// A scope, read in place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScopeRecord<'s> {
    pub(crate) kind: ScopeKind,
    /// The number of groups, roles, identities and resources whose parent it is.
    pub(crate) children: u32,
    /// Whether the bindings here have numbers.
    pub(crate) numbered: bool,
    /// Who is bound here.
    pub(crate) bound: Bound<'s>,
}

/// The extra value of a scope.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScopeExtra {
    /// The type of a resource; `None` for a group.
    pub(crate) kind: Option<Arc<str>>,
    /// The registered properties of a resource.
    pub(crate) properties: Properties,
    /// A list that is in parts.
    pub(crate) bound: Option<Parts>,
}

/// A scope, to be changed and written.
#[derive(Clone, Debug)]
pub(crate) struct ScopePayload {
    pub(crate) kind: ScopeKind,
    pub(crate) children: u32,
    pub(crate) identities: Vec<u32>,
    /// As many as identities, if there are any.
    pub(crate) numbers: Option<Vec<u64>>,
}

/// A scope that is to be stored.
pub(crate) struct StoredScope {
    /// The payload of its record.
    pub(crate) payload: Vec<u8>,
    /// What its extra value has.
    pub(crate) bound: Option<Parts>,
}

impl ScopeExtra {
    /// The extra value, unless it would be empty.
    pub(crate) fn stored(self) -> Option<Arc<Self>> {
        let is_empty = self.kind.is_none() && self.properties.is_empty() && self.bound.is_none();
        (!is_empty).then(|| Arc::new(self))
    }
}

impl Extra for ScopeExtra {
    fn bytes(&self) -> usize {
        self.bound.as_ref().map_or(0, Parts::bytes)
    }

    fn bytes_beside(&self, other: &Self) -> usize {
        match (&self.bound, &other.bound) {
            (Some(one), Some(other)) => one.bytes_beside(other),
            _ => self.bytes(),
        }
    }
}

impl<'s> ScopeRecord<'s> {
    /// The offset of the number of children in the payload.
    pub(crate) const CHILDREN_AT: usize = 4;

    /// `None` if the record is too short for its header, or its list is missing.
    pub(crate) fn read(entry: Entry<'s, ScopeExtra>) -> Option<Self> {
        Self::of(entry.payload(), || entry.extra()?.bound.as_ref())
    }

    fn of(payload: &'s [u8], parts: impl FnOnce() -> Option<&'s Parts>) -> Option<Self> {
        let (header, list) = payload.split_first_chunk::<SCOPE_HEADER>()?;
        let [kind, flags, _, _, children @ ..] = *header;
        let numbered = flags & NUMBERED != 0;
        Some(Self {
            kind: if kind == 0 { ScopeKind::Group } else { ScopeKind::Resource },
            children: u32::from_le_bytes(children),
            numbered,
            bound: match flags & IN_PARTS {
                0 => Bound::InRecord(Part::read(list, numbered)),
                _ => Bound::InParts(parts()?),
            },
        })
    }

    /// The number of bindings at this scope.
    pub(crate) fn bound_len(&self) -> usize {
        self.bound.len()
    }

    /// The scope with another list.
    pub(crate) fn stored(&self, list: List) -> StoredScope {
        StoredScope::new(self.kind, self.children, self.numbered, list)
    }

    pub(crate) fn to_payload(self) -> ScopePayload {
        let Self { kind, children, numbered, bound } = self;
        let numbers = numbered.then(|| bound.numbers().collect());
        ScopePayload { kind, children, identities: bound.identities().collect(), numbers }
    }
}

impl ScopePayload {
    /// A scope at which nothing is bound.
    pub(crate) const fn empty(kind: ScopeKind, children: u32) -> Self {
        Self { kind, children, identities: vec![], numbers: None }
    }

    /// Bytes of the record of a scope with this many bindings.
    pub(crate) const fn length(bound: usize, numbered: bool) -> usize {
        SCOPE_HEADER + if bound > IN_RECORD_MAX { 0 } else { part_bytes(bound, numbered) }
    }

    pub(crate) fn stored(&self) -> StoredScope {
        let Self { kind, children, identities, numbers } = self;
        let identities = identities.iter().flat_map(|identity| identity.to_le_bytes());
        let all = numbers.iter().flatten().flat_map(|number| number.to_le_bytes());
        let list = List::new(identities.chain(all).collect(), numbers.is_some());
        StoredScope::new(*kind, *children, numbers.is_some(), list)
    }
}

impl StoredScope {
    fn new(kind: ScopeKind, children: u32, numbered: bool, list: List) -> Self {
        let (bytes, bound) = match list {
            List::InRecord(bytes) => (bytes, None),
            List::InParts(parts) => (vec![], Some(parts)),
        };
        let flags =
            if numbered { NUMBERED } else { 0 } | if bound.is_some() { IN_PARTS } else { 0 };
        let kind = u8::from(kind == ScopeKind::Resource);
        let [c0, c1, c2, c3] = children.to_le_bytes();
        Self { payload: [&[kind, flags, 0, 0, c0, c1, c2, c3][..], &bytes].concat(), bound }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_they_were_written() {
        let many = u32::try_from(IN_RECORD_MAX).unwrap() + 1;
        for (identities, numbers) in [
            (vec![], None),
            (vec![7, 7, 3], None),
            (vec![], Some(vec![])),
            (vec![1, u32::MAX, 5], Some(vec![0, u64::MAX, 9])),
            ((1..many).collect(), None),
            ((0..many).collect(), None),
            ((0..many).collect(), Some((0..u64::from(many)).collect())),
        ] {
            for kind in [ScopeKind::Group, ScopeKind::Resource] {
                let (identities, numbers) = (identities.clone(), numbers.clone());
                let written = ScopePayload { kind, children: 70_000, identities, numbers };
                let StoredScope { payload, bound } = written.stored();
                let (len, numbered) = (written.identities.len(), written.numbers.is_some());
                assert_eq!(payload.len(), ScopePayload::length(len, numbered));
                assert_eq!(bound.is_some(), len > IN_RECORD_MAX);
                let read = ScopeRecord::of(&payload, || bound.as_ref()).unwrap();
                assert_eq!(format!("{:?}", read.to_payload()), format!("{written:?}"));
                let has_list = ScopeRecord::of(&payload, || None).is_some();
                assert_eq!(has_list, bound.is_none(), "a list that is missing is no empty list");
            }
        }
        assert!(ScopeRecord::of(&[0; 7], || None).is_none());
    }
}
