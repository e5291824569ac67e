//! Who is bound at a scope: a list of identities, in the order of their ids, and of the numbers of the bindings' ids.
//!
//! ```text
//! part   identities: u32 each, once for each binding   numbers: u64 each, in the same order, if there are any
//! list   few bindings: one part, in the record of the scope
//!        many: parts of at most 1,024 bindings, in its extra value
//! ```
//!
//! A change copies one part, and the list of parts, however many bindings a scope has.

use std::ops::Range;
use std::sync::Arc;

/// The most bindings in the record of a scope.
pub(crate) const IN_RECORD_MAX: usize = 512;
/// The most bindings in a part.
const PART_MAX: usize = 1024;
/// Bindings in a part of a list that is made: more of them have a place.
const PART_MADE: usize = 768;
/// Bytes of a binding, without and with a number.
const BOUND_BYTES: usize = size_of::<u32>();
const BOUND_BYTES_NUMBERED: usize = BOUND_BYTES + size_of::<u64>();

/// Bindings next to each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'s> {
    identities: &'s [[u8; 4]],
    /// As many as identities, if there are any.
    numbers: Option<&'s [[u8; 8]]>,
}

/// A list in parts.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    parts: Vec<Arc<[u8]>>,
    /// The position behind the last binding of each part.
    ends: Vec<usize>,
    numbered: bool,
}

/// A list, wherever it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound<'s> {
    InRecord(Part<'s>),
    InParts(&'s Parts),
}

/// Bytes of a part.
pub(crate) const fn part_bytes(bindings: usize, numbered: bool) -> usize {
    bindings * if numbered { BOUND_BYTES_NUMBERED } else { BOUND_BYTES }
}

/// A list that is to be stored.
#[derive(Clone, Debug)]
pub(crate) enum List {
    InRecord(Vec<u8>),
    InParts(Parts),
}

/// The identities of a list.
#[derive(Clone, Debug)]
pub(crate) struct Identities<'s> {
    here: std::slice::Iter<'s, [u8; 4]>,
    /// The parts of the list, and which of them is next.
    behind: Option<(&'s Parts, usize)>,
}

impl Iterator for Identities<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        let found = match self.here.next() {
            Some(found) => found,
            None => self.next_part()?,
        };
        Some(u32::from_le_bytes(*found))
    }
}

impl<'s> Identities<'s> {
    /// The first identity of the next part.
    #[cold]
    fn next_part(&mut self) -> Option<&'s [u8; 4]> {
        let (parts, at) = self.behind.as_mut()?;
        self.here = parts.part(*at).identities.iter();
        *at += 1;
        self.here.next()
    }
}

impl<'s> Part<'s> {
    pub(crate) fn read(bytes: &'s [u8], numbered: bool) -> Self {
        if !numbered {
            return Self { identities: bytes.as_chunks().0, numbers: None };
        }
        let count = bytes.len() / BOUND_BYTES_NUMBERED;
        let (identities, numbers) = bytes.split_at_checked(count * BOUND_BYTES).unwrap_or_default();
        Self { identities: identities.as_chunks().0, numbers: Some(numbers.as_chunks().0) }
    }

    pub(crate) const fn len(&self) -> usize {
        self.identities.len()
    }

    fn slice(&self, range: Range<usize>) -> Self {
        let identities = self.identities.get(range.clone()).unwrap_or_default();
        let numbers = self.numbers.map(|numbers| numbers.get(range).unwrap_or_default());
        Self { identities, numbers }
    }

    /// What is before a position, and the rest.
    fn split_at(&self, position: usize) -> (Self, Self) {
        let position = position.min(self.len());
        (self.slice(0..position), self.slice(position..self.len()))
    }

    fn split(&self, size: usize) -> impl Iterator<Item = Self> {
        let starts = (0..self.len()).step_by(size);
        starts.map(move |start| self.slice(start..self.len().min(start + size)))
    }
}

/// One part from several.
fn joined(parts: &[Part<'_>]) -> Vec<u8> {
    let len = parts.iter().map(Part::len).sum();
    let numbered = parts.iter().any(|part| part.numbers.is_some());
    let mut bytes = Vec::with_capacity(part_bytes(len, numbered));
    parts.iter().for_each(|part| bytes.extend_from_slice(part.identities.as_flattened()));
    let numbers = parts.iter().filter_map(|part| part.numbers);
    numbers.for_each(|numbers| bytes.extend_from_slice(numbers.as_flattened()));
    bytes
}

/// A part with one more binding at a position. Its number is ignored in a list without numbers.
pub(crate) fn with(part: Part<'_>, position: usize, identity: u32, number: u64) -> Vec<u8> {
    let (before, after) = part.split_at(position);
    let (identity, number) = ([identity.to_le_bytes()], [number.to_le_bytes()]);
    let numbers = part.numbers.is_some().then_some(&number[..]);
    joined(&[before, Part { identities: &identity, numbers }, after])
}

/// A part without the binding at a position.
pub(crate) fn without(part: Part<'_>, position: usize) -> Vec<u8> {
    let (before, after) = part.split_at(position);
    joined(&[before, after.split_at(1).1])
}

impl Parts {
    fn part(&self, at: usize) -> Part<'_> {
        Part::read(self.parts.get(at).map_or(&[], |part| part), self.numbered)
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or_default()
    }

    /// The part with this position, and the position in it. For the position behind the last binding, the last part.
    fn find(&self, position: usize) -> (usize, usize) {
        let at = self.ends.partition_point(|end| *end <= position);
        let at = at.min(self.ends.len().saturating_sub(1));
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before));
        (at, position - start.copied().unwrap_or_default())
    }

    fn counted(mut self) -> Self {
        let mut end = 0;
        let each = part_bytes(1, self.numbered);
        self.ends.clear();
        self.ends.extend(self.parts.iter().map(|part| {
            end += part.len() / each;
            end
        }));
        self
    }

    /// The list with one more binding at a position.
    fn with(&self, position: usize, identity: u32, number: u64) -> Self {
        let (at, within) = self.find(position);
        let longer = with(self.part(at), within, identity, number);
        let longer = Part::read(&longer, self.numbered);
        let size = if longer.len() > PART_MAX { longer.len().div_ceil(2) } else { PART_MAX };
        self.replaced(at..at + 1, longer.split(size).map(|part| joined(&[part])))
    }

    /// The list without the binding at a position. A part that has become small joins the one behind it.
    fn without(&self, position: usize) -> Self {
        let (at, within) = self.find(position);
        let shorter = without(self.part(at), within);
        let shorter = Part::read(&shorter, self.numbered);
        let next = self.part(at + 1);
        if shorter.len() + next.len() <= PART_MAX / 2 {
            let end = self.parts.len().min(at + 2);
            return self.replaced(at..end, [joined(&[shorter, next])]);
        }
        self.replaced(at..at + 1, [joined(&[shorter])])
    }

    fn replaced(&self, range: Range<usize>, by: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut list = self.clone();
        let by = by.into_iter().filter(|part| !part.is_empty()).map(Arc::from);
        list.parts.splice(range, by);
        list.counted()
    }

    /// Bytes of the parts.
    pub(crate) fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    /// Bytes of the parts that another list does not have, at most.
    pub(crate) fn bytes_beside(&self, other: &Self) -> usize {
        let mut others = other.parts.iter();
        // Both are in the same order, so that what they share comes in the same order, too.
        let is_shared = |part: &&Arc<[u8]>| {
            let mut rest = others.clone();
            let found = rest.any(|other| Arc::ptr_eq(part, other));
            if found {
                others = rest;
            }
            found
        };
        let shared: usize = self.parts.iter().filter(is_shared).map(|part| part.len()).sum();
        self.bytes() - shared
    }
}

impl<'s> Bound<'s> {
    /// The number of bindings.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::InRecord(part) => part.len(),
            Self::InParts(parts) => parts.len(),
        }
    }

    /// The part with this position, and the position in it.
    fn find(&self, position: usize) -> (Part<'s>, usize) {
        match *self {
            Self::InRecord(part) => (part, position),
            Self::InParts(parts) => {
                let (at, within) = parts.find(position);
                (parts.part(at), within)
            }
        }
    }

    /// The number of the identity at this position.
    pub(crate) fn identity(&self, position: usize) -> Option<u32> {
        let (part, within) = self.find(position);
        part.identities.get(within).map(|bytes| u32::from_le_bytes(*bytes))
    }

    /// The number of the binding at this position, in a list with numbers.
    pub(crate) fn number(&self, position: usize) -> Option<u64> {
        let (part, within) = self.find(position);
        part.numbers?.get(within).map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn parts(&self) -> impl Iterator<Item = Part<'s>> + use<'s> {
        let (one, many) = match *self {
            Self::InRecord(part) => (Some(part), None),
            Self::InParts(parts) => (None, Some(parts)),
        };
        let many = many.into_iter().flat_map(|many| (0..many.parts.len()).map(|at| many.part(at)));
        one.into_iter().chain(many)
    }

    /// The numbers of the identities, once for each binding.
    pub(crate) fn identities(&self) -> Identities<'s> {
        self.identities_from(0)
    }

    /// [`Self::identities`] from a position on.
    pub(crate) fn identities_from(&self, position: usize) -> Identities<'s> {
        let (here, behind) = match *self {
            Self::InRecord(part) => (part.split_at(position).1, None),
            Self::InParts(parts) => {
                let (at, within) = parts.find(position);
                (parts.part(at).split_at(within).1, Some((parts, at + 1)))
            }
        };
        Identities { here: here.identities.iter(), behind }
    }

    /// The numbers of the bindings, in the order of their identities; none in a list without numbers.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> + use<'s> {
        let numbers = self.parts().filter_map(|part| part.numbers).flatten();
        numbers.map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn is_numbered(&self) -> bool {
        match self {
            Self::InRecord(part) => part.numbers.is_some(),
            Self::InParts(parts) => parts.numbered,
        }
    }

    /// The list with one more binding at a position. Its number is ignored in a list without numbers.
    pub(crate) fn with(&self, position: usize, identity: u32, number: u64) -> List {
        match self {
            Self::InRecord(part) => {
                List::new(with(*part, position, identity, number), self.is_numbered())
            }
            Self::InParts(parts) => List::InParts(parts.with(position, identity, number)),
        }
    }

    /// The list without the binding at a position.
    pub(crate) fn without(&self, position: usize) -> List {
        match self {
            Self::InRecord(part) => List::InRecord(without(*part, position)),
            Self::InParts(parts) => {
                let shorter = parts.without(position);
                if shorter.len() > IN_RECORD_MAX / 2 {
                    return List::InParts(shorter);
                }
                let all: Vec<_> = Bound::InParts(&shorter).parts().collect();
                List::InRecord(joined(&all))
            }
        }
    }
}

impl List {
    /// A list from the bytes of one part.
    pub(crate) fn new(bytes: Vec<u8>, numbered: bool) -> Self {
        if bytes.len() <= part_bytes(IN_RECORD_MAX, numbered) {
            return Self::InRecord(bytes);
        }
        let all = Part::read(&bytes, numbered);
        let parts = all.split(PART_MADE).map(|part| joined(&[part]).into()).collect();
        Self::InParts(Parts { parts, ends: vec![], numbered }.counted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same numbers on every run.
    fn draw(state: &mut u64, end: usize) -> usize {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
        (*state >> 33) as usize % end
    }

    fn read(list: &List, numbered: bool) -> Bound<'_> {
        match list {
            List::InRecord(bytes) => Bound::InRecord(Part::read(bytes, numbered)),
            List::InParts(parts) => Bound::InParts(parts),
        }
    }

    fn same(list: &List, model: &[(u32, u64)], numbered: bool) {
        let bound = read(list, numbered);
        assert_eq!(bound.len(), model.len());
        assert!(bound.identities().eq(model.iter().map(|(identity, _)| *identity)));
        let numbers = model.iter().map(|(_, number)| *number);
        assert!(bound.numbers().eq(numbers.filter(|_| numbered)));
        for at in [0, model.len() / 3, model.len().saturating_sub(1), model.len()] {
            assert_eq!(bound.identity(at), model.get(at).map(|(identity, _)| *identity));
            let number = model.get(at).map(|(_, number)| *number);
            assert_eq!(bound.number(at), number.filter(|_| numbered));
            let rest = model[at..].iter().map(|(identity, _)| *identity);
            assert!(bound.identities_from(at).eq(rest));
        }
        if let List::InParts(parts) = list {
            let lens: Vec<_> = (0..parts.parts.len()).map(|at| parts.part(at).len()).collect();
            assert!(lens.iter().all(|len| (1..=PART_MAX).contains(len)), "{lens:?}");
            let small = lens.array_windows().filter(|[a, b]| a + b <= PART_MAX / 2).count();
            assert!(small <= lens.len() / 2, "{lens:?}");
        }
    }

    /// A list grows to several parts and shrinks again, and is always that of a model. Older lists do not change.
    #[test]
    fn a_list_is_that_of_a_model() {
        for numbered in [false, true] {
            let (mut list, mut model) = (List::new(vec![], numbered), vec![]);
            let (mut state, mut kept) = (11, vec![]);
            let (mut most, mut moves) = (0, 0);
            for step in 0..24_000_u32 {
                let grows = (step / 6_000).is_multiple_of(2) == (draw(&mut state, 8) > 0);
                let was_in_parts = matches!(list, List::InParts(_));
                if grows || model.is_empty() {
                    // Mostly at the end, sometimes anywhere.
                    let at =
                        model.len() - draw(&mut state, model.len() + 1) / (1 + step as usize % 3);
                    list = read(&list, numbered).with(at, step, u64::from(step) << 32);
                    model.insert(at, (step, u64::from(step) << 32));
                } else {
                    let at = draw(&mut state, model.len());
                    list = read(&list, numbered).without(at);
                    model.remove(at);
                }
                moves += usize::from(was_in_parts != matches!(list, List::InParts(_)));
                most = most.max(model.len());
                if step % 500 == 0 {
                    same(&list, &model, numbered);
                    kept.push((list.clone(), model.clone()));
                }
            }
            assert!(most > 3 * PART_MAX && moves >= 3, "{most} {moves}");
            kept.iter().for_each(|(list, model)| same(list, model, numbered));
        }
    }

    #[test]
    fn a_change_copies_one_part() {
        let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let list = List::new(bytes.clone(), false);
        let List::InParts(old) = &list else { panic!("in parts") };
        assert_eq!((old.len(), old.bytes()), (100_000, 400_000));
        assert_eq!((old.bytes_beside(old), old.parts.len()), (0, 131));
        for at in [0, 50_000, 100_000] {
            let List::InParts(new) = read(&list, false).with(at, 7, 0) else { panic!("in parts") };
            assert_eq!(new.bytes(), 400_004);
            assert!(new.bytes_beside(old) <= part_bytes(PART_MADE + 1, false));
            assert!(old.bytes_beside(&new) <= part_bytes(PART_MADE, false));
        }
        let split = read(&list, false);
        let mut split = split.with(0, 7, 0);
        for _ in PART_MADE..PART_MAX {
            split = read(&split, false).with(0, 7, 0);
        }
        let List::InParts(split) = split else { panic!("in parts") };
        assert_eq!(split.parts.len(), old.parts.len() + 1);
    }
}
