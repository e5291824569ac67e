//! Scopes as the index stores them: a group or registered resource, and who is bound at it.
//!
//! ```text
//! kind: u8   has numbers: u8   unsorted: u16   children: u32
//! identities: u32 each, once for each binding, in the order of the identities' ids but for the last `unsorted`
//! numbers: u64 each, in the order of the identities, if there are any
//! ```
//!
//! The number of a binding is that in the last segment of its id (see
//! [`binding_id`](crate::rules::binding_id)). A scope has numbers if a binding at it has an explicit id of
//! that form; then there is one for each binding, the derived one for a binding without an explicit id,
//! and 0 for a binding whose id has another form.
//!
//! While several changes are applied, new bindings are appended, and sorted in once at the end: in published
//! snapshots `unsorted` is 0.

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
    /// The number of bindings at the end that are not in order.
    pub(crate) unsorted: u16,
    identities: &'s [[u8; 4]],
    numbers: Option<&'s [[u8; 8]]>,
}

/// The payload of a scope, to be changed and written.
#[derive(Clone, Debug)]
pub(crate) struct ScopePayload {
    pub(crate) kind: ScopeKind,
    pub(crate) children: u32,
    pub(crate) unsorted: u16,
    pub(crate) identities: Vec<u32>,
    /// As many as identities, if there are any.
    pub(crate) numbers: Option<Vec<u64>>,
}

impl<'s> ScopeRecord<'s> {
    /// The offset of the number of unsorted bindings in the payload.
    pub(crate) const UNSORTED_AT: usize = 2;
    /// The offset of the number of children in the payload.
    pub(crate) const CHILDREN_AT: usize = 4;

    /// `None` if the payload is too short for its header.
    pub(crate) fn read(payload: &'s [u8]) -> Option<Self> {
        let (header, bound) = payload.split_first_chunk::<SCOPE_HEADER>()?;
        let [kind, numbered, u0, u1, c0, c1, c2, c3] = *header;
        let kind = if kind == 0 { ScopeKind::Group } else { ScopeKind::Resource };
        let unsorted = u16::from_le_bytes([u0, u1]);
        let children = u32::from_le_bytes([c0, c1, c2, c3]);
        if numbered == 0 {
            let (identities, _) = bound.as_chunks();
            return Some(Self { kind, children, unsorted, identities, numbers: None });
        }
        let count = bound.len() / BOUND_BYTES_NUMBERED;
        let (identities, numbers) = bound.split_at_checked(count * BOUND_BYTES)?;
        let (identities, numbers) = (identities.as_chunks().0, Some(numbers.as_chunks().0));
        Some(Self { kind, children, unsorted, identities, numbers })
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

    /// The payload with one more binding, of this identity, at a position. The number is ignored if the
    /// scope has none.
    pub(crate) fn with(&self, position: usize, identity: u32, number: u64) -> Vec<u8> {
        self.spliced(position, identity, number, self.unsorted)
    }

    /// [`Self::with`] at the end, out of order. `None` if there are too many unsorted ones.
    pub(crate) fn appended(&self, identity: u32, number: u64) -> Option<Vec<u8>> {
        let unsorted = self.unsorted.checked_add(1)?;
        Some(self.spliced(self.bound_len(), identity, number, unsorted))
    }

    fn spliced(&self, position: usize, identity: u32, number: u64, unsorted: u16) -> Vec<u8> {
        let numbered = self.numbers.is_some();
        let mut bytes = Vec::with_capacity(ScopePayload::length(self.bound_len() + 1, numbered));
        bytes.extend(ScopePayload::header(self.kind, numbered, unsorted, self.children));
        let (before, after) =
            self.identities.split_at_checked(position).unwrap_or((self.identities, &[]));
        bytes.extend_from_slice(before.as_flattened());
        bytes.extend(identity.to_le_bytes());
        bytes.extend_from_slice(after.as_flattened());
        if let Some(numbers) = self.numbers {
            let (before, after) = numbers.split_at_checked(position).unwrap_or((numbers, &[]));
            bytes.extend_from_slice(before.as_flattened());
            bytes.extend(number.to_le_bytes());
            bytes.extend_from_slice(after.as_flattened());
        }
        bytes
    }

    /// The payload without the binding at a position.
    pub(crate) fn without(&self, position: usize) -> Vec<u8> {
        fn parts<const N: usize>(all: &[[u8; N]], position: usize) -> [&[u8]; 2] {
            let (before, after) = all.split_at_checked(position).unwrap_or((all, &[]));
            [before.as_flattened(), after.get(1..).unwrap_or_default().as_flattened()]
        }
        let in_order = self.bound_len().saturating_sub(usize::from(self.unsorted));
        let unsorted = self.unsorted.saturating_sub(u16::from(position >= in_order));
        let numbered = self.numbers.is_some();
        let header = ScopePayload::header(self.kind, numbered, unsorted, self.children);
        let identities = parts(self.identities, position).concat();
        let numbers = self.numbers.map(|numbers| parts(numbers, position).concat());
        [&header[..], &identities, numbers.as_deref().unwrap_or_default()].concat()
    }

    pub(crate) fn to_payload(self) -> ScopePayload {
        let Self { kind, children, unsorted, .. } = self;
        let numbers = self.numbers().map(Iterator::collect);
        let identities = self.identities().collect();
        ScopePayload { kind, children, unsorted, identities, numbers }
    }
}

impl ScopePayload {
    /// A scope at which nothing is bound.
    pub(crate) const fn empty(kind: ScopeKind, children: u32) -> Self {
        Self { kind, children, unsorted: 0, identities: vec![], numbers: None }
    }

    /// Bytes of the payload of a scope with this many bindings.
    pub(crate) const fn length(bound: usize, numbered: bool) -> usize {
        SCOPE_HEADER + bound * if numbered { BOUND_BYTES_NUMBERED } else { BOUND_BYTES }
    }

    fn header(kind: ScopeKind, numbered: bool, unsorted: u16, children: u32) -> [u8; SCOPE_HEADER] {
        let kind = u8::from(kind == ScopeKind::Resource);
        let [c0, c1, c2, c3] = children.to_le_bytes();
        let [u0, u1] = unsorted.to_le_bytes();
        [kind, u8::from(numbered), u0, u1, c0, c1, c2, c3]
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let Self { kind, children, unsorted, identities, numbers } = self;
        let mut bytes = Vec::with_capacity(Self::length(identities.len(), numbers.is_some()));
        bytes.extend(Self::header(*kind, numbers.is_some(), *unsorted, *children));
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
                let written =
                    ScopePayload { kind, children: 70_000, unsorted: 0, identities, numbers };
                let bytes = written.bytes();
                let (bound, numbered) = (written.identities.len(), written.numbers.is_some());
                assert_eq!(bytes.len(), ScopePayload::length(bound, numbered));
                let read = ScopeRecord::read(&bytes).unwrap().to_payload();
                assert_eq!(format!("{read:?}"), format!("{written:?}"));

                let record = ScopeRecord::read(&bytes).unwrap();
                for at in 0..=bound {
                    let with = record.with(at, 77, 78);
                    let read = ScopeRecord::read(&with).unwrap();
                    let longer = read.to_payload();
                    assert_eq!((longer.identities.len(), longer.identities[at]), (bound + 1, 77));
                    assert_eq!(longer.numbers.map(|all| all[at]), numbered.then_some(78));
                    assert_eq!(read.without(at), bytes);
                }
                let appended = record.appended(77, 78).unwrap();
                let read = ScopeRecord::read(&appended).unwrap();
                assert_eq!((read.unsorted, read.identity(bound)), (1, Some(77)));
                assert_eq!(read.without(bound), bytes);
                if bound > 0 {
                    assert_eq!(ScopeRecord::read(&read.without(0)).unwrap().unsorted, 1);
                }
            }
        }
        assert!(ScopeRecord::read(&[0; 7]).is_none());
    }
}
