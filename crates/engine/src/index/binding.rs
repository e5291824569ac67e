//! Role bindings as the index holds them: 24 bytes each, in the record of their identity.
//!
//! ```text
//! fingerprint of the scope's path: u128   scope: u32   role: 20 bits, bytes of the path less one: 10, special: 1
//! ```
//!
//! Whether a scope is above a resource is seen without looking at any text but the resource's: by
//! the length of the scope's path and its fingerprint (`hash.rs`).
//!
//! An expiry, conditions and an id of its own stand apart: few bindings have any, and those that
//! have none pay one bit for it.

use crate::index::hash::{Fingerprint, Seed};
use crate::{Condition, Properties, Timestamp};

/// Bytes of a binding.
pub(crate) const BINDING_BYTES: usize = 24;
/// Most roles: their numbers have 20 bits.
pub(crate) const ROLES_MAX: u32 = 1 << 20;

const LENGTH_SHIFT: u32 = 20;
/// Paths have 1 to 1,024 bytes.
const LENGTH_MASK: u32 = (1 << 10) - 1;
const SPECIAL: u32 = 1 << 30;

/// A binding, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Packed {
    /// Of the scope's path. First, because bindings are sorted and searched by it.
    pub(crate) fingerprint: Fingerprint,
    pub(crate) scope: u32,
    pub(crate) role: u32,
    /// Bytes of the scope's path.
    pub(crate) length: u16,
    /// Whether something about it stands apart.
    pub(crate) special: bool,
}

/// What few bindings have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Special {
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) when: Box<[Condition]>,
    pub(crate) id: Id,
}

/// A binding's id.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Id {
    /// Follows from identity, role, scope and conditions.
    #[default]
    Derived,
    /// The derived one was another's.
    Moved(u64),
    Declared(Box<str>),
}

/// What few identities have, beside their bindings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beside {
    /// What is registered of it.
    pub(crate) properties: Properties,
    /// What special bindings have, by their place among the identity's.
    pub(crate) special: Vec<(u32, Special)>,
}

impl Packed {
    /// A plain binding of a role at a scope, given by its number and its path.
    pub(crate) fn new(seed: &Seed, (scope, path): (u32, &str), role: u32) -> Self {
        Self {
            fingerprint: seed.fingerprint(path.as_bytes()),
            scope,
            role,
            length: u16::try_from(path.len()).unwrap_or(u16::MAX),
            special: false,
        }
    }

    pub(crate) fn write(self, bytes: &mut Vec<u8>) {
        let special = if self.special { SPECIAL } else { 0 };
        let length = u32::from(self.length.wrapping_sub(1)) & LENGTH_MASK;
        let packed = self.role | length << LENGTH_SHIFT | special;
        bytes.extend(self.fingerprint.0.to_le_bytes());
        bytes.extend(self.scope.to_le_bytes());
        bytes.extend(packed.to_le_bytes());
    }

    pub(crate) fn read(bytes: [u8; BINDING_BYTES]) -> Self {
        let (mut fingerprint, mut scope, mut packed) = ([0; 16], [0; 4], [0; 4]);
        let (start, end) = bytes.split_at(16);
        fingerprint.copy_from_slice(start);
        let (start, end) = end.split_at(4);
        scope.copy_from_slice(start);
        packed.copy_from_slice(end);
        let packed = u32::from_le_bytes(packed);
        Self {
            fingerprint: Fingerprint(u128::from_le_bytes(fingerprint)),
            scope: u32::from_le_bytes(scope),
            role: packed & (ROLES_MAX - 1),
            length: (packed >> LENGTH_SHIFT & LENGTH_MASK) as u16 + 1,
            special: packed & SPECIAL != 0,
        }
    }
}

/// A resource's path, to be held against the scopes of bindings.
pub(crate) struct Below<'p> {
    seed: &'p Seed,
    path: &'p [u8],
    /// The fingerprint of its first so many bytes: many scopes are of one length.
    last: (u16, Fingerprint),
}

impl<'p> Below<'p> {
    pub(crate) const fn new(seed: &'p Seed, path: &'p str) -> Self {
        Self { seed, path: path.as_bytes(), last: (0, Fingerprint(0)) }
    }

    /// Whether the binding's scope is this path or above it.
    pub(crate) fn is_below(&mut self, binding: &Packed) -> bool {
        let start = self.path.split_at_checked(usize::from(binding.length));
        let Some((start, None | Some(b'/'))) = start.map(|(start, rest)| (start, rest.first()))
        else {
            return false;
        };
        if self.last.0 != binding.length {
            self.last = (binding.length, self.seed.fingerprint(start));
        }
        self.last.1 == binding.fingerprint
    }
}

impl Special {
    /// Whether it says nothing, so that it need not stand anywhere.
    pub(crate) fn is_plain(&self) -> bool {
        self.expires_at.is_none() && self.when.is_empty() && self.id == Id::Derived
    }
}

/// Where the bindings of this rank begin among bindings sorted by fingerprint. Ranks are spread
/// evenly, so the place is guessed, and the guess corrected by steps that double.
pub(crate) fn first_with(rank: u32, bindings: &[[u8; BINDING_BYTES]]) -> usize {
    let at =
        |place: usize| bindings.get(place).map(|bytes| Packed::read(*bytes).fingerprint.rank());
    let guess = (bindings.len() as u64 * u64::from(rank)) >> 32;
    let mut low = usize::try_from(guess).unwrap_or_default();
    let mut high = low;
    let mut step = 1;
    // Below `low` all are less.
    while low > 0 && at(low - 1).is_some_and(|found| found >= rank) {
        high = low - 1;
        low = low.saturating_sub(step);
        step *= 2;
    }
    step = 1;
    // From `high` on all are at least.
    while at(high).is_some_and(|found| found < rank) {
        low = high + 1;
        high = (high + step).min(bindings.len());
        step *= 2;
    }
    while low < high {
        let middle = usize::midpoint(low, high);
        if at(middle).is_some_and(|found| found < rank) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Path;

    #[test]
    fn bindings_come_back_as_they_were() {
        for (role, length, special) in [(0, 1, false), (ROLES_MAX - 1, 1024, true), (7, 3, false)] {
            let fingerprint = Fingerprint(0xdead_beef_0001_0203_0405_0607_0809_0a0b);
            let binding = Packed { fingerprint, scope: 0x0102_0304, role, length, special };
            let mut bytes = vec![];
            binding.write(&mut bytes);
            assert_eq!(Packed::read(bytes.try_into().unwrap()), binding);
        }
    }

    #[test]
    fn the_first_of_equal_ranks_is_found() {
        let step = u32::MAX / 997;
        for ranks in [
            vec![],
            vec![5],
            vec![5, 5, 5],
            (0..990).map(|at| at / 3 * step * 3).collect::<Vec<u32>>(),
            vec![0; 100],
            vec![u32::MAX; 100],
            (0..100).collect(),
            (0..100).map(|at| u32::MAX - 100 + at).collect(),
        ] {
            let mut bytes = vec![];
            for rank in &ranks {
                let fingerprint = Fingerprint(u128::from(*rank) << 96);
                Packed { fingerprint, scope: 0, role: 0, length: 1, special: false }
                    .write(&mut bytes);
            }
            let (bindings, _) = bytes.as_chunks();
            let near = ranks
                .iter()
                .flat_map(|rank| [rank.saturating_sub(1), *rank, rank.saturating_add(1)]);
            for rank in near.chain([0, 1, u32::MAX / 2, u32::MAX]) {
                let expected = ranks.partition_point(|found| *found < rank);
                assert_eq!(first_with(rank, bindings), expected, "{rank} in {ranks:?}");
            }
        }
    }

    #[test]
    fn what_is_above_is_told_from_what_is_not() {
        let seed = Seed::random();
        let path = "acme/platform/images/base-2026-11/nginx";
        let scope = |scope| Packed::new(&seed, (0, scope), 0);
        let is_below = |scope| Below::new(&seed, path).is_below(&scope);
        for above in Path::parse(path).unwrap().ancestors() {
            assert!(is_below(scope(above.as_str())), "{above}");
        }
        for other in [
            "acm",
            "acme/platforn",
            "acme/platform/image",
            "acmf",
            "acme/platform/images/a",
            "acme/platform/images/base-2026-11/nginx/a",
            "acme/platform/images/base-2026-12",
            "bcme/platform/images/base-2026-11",
        ] {
            assert!(!is_below(scope(other)), "{other}");
        }
        // In any order, of one length or of several.
        let mut below = Below::new(&seed, path);
        let (above, beside) = (scope("acme/platform"), scope("acme/platfosm"));
        assert!(below.is_below(&above) && !below.is_below(&beside) && below.is_below(&above));
        assert!(below.is_below(&scope("acme")) && below.is_below(&above));
    }
}
