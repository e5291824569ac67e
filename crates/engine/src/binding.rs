//! Role bindings as the index holds them: sixteen bytes each, in the record of their identity.
//!
//! ```text
//! scope: u32   tag of its path: u32   its ending: u32   role: 20 bits, bytes of the path less one: 10, special: 1
//! ```
//!
//! Whether a scope can be above a resource is seen without looking at any text but the resource's:
//! by the length of the scope's path and a hash of its last bytes ([`Seed::ending`]).
//!
//! An expiry, conditions and an id of its own stand apart: few bindings have any, and those that
//! have none pay one bit for it.

use crate::hash::Seed;
use crate::{Condition, Path, Properties, Timestamp};

/// Bytes of a binding.
pub(crate) const BINDING_BYTES: usize = 16;
/// Most roles: their numbers have 20 bits.
pub(crate) const ROLES_MAX: u32 = 1 << 20;

const LENGTH_SHIFT: u32 = 20;
/// Paths have 1 to 1,024 bytes.
const LENGTH_MASK: u32 = (1 << 10) - 1;
const SPECIAL: u32 = 1 << 30;

/// A binding, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Packed {
    /// First, because bindings are sorted and searched by it.
    pub(crate) tag: u32,
    pub(crate) scope: u32,
    pub(crate) role: u32,
    /// Bytes of the scope's path.
    pub(crate) length: u16,
    pub(crate) ending: u32,
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
    pub(crate) fn new(seed: &Seed, (scope, path): (u32, Path<'_>), role: u32) -> Self {
        let path = path.as_str();
        Self {
            tag: seed.hash(path).tag(),
            scope,
            role,
            length: u16::try_from(path.len()).unwrap_or(u16::MAX),
            ending: seed.ending(path.as_bytes()),
            special: false,
        }
    }

    /// Whether the scope's path can be this one or above it: it has its length and its ending. Of
    /// paths that pass, most do; the text decides.
    pub(crate) fn can_be_above(&self, seed: &Seed, path: &[u8]) -> bool {
        let Some((start, below)) = path.split_at_checked(usize::from(self.length)) else {
            return false;
        };
        matches!(below.first(), None | Some(b'/')) && seed.ending(start) == self.ending
    }

    pub(crate) fn write(self, bytes: &mut Vec<u8>) {
        let special = if self.special { SPECIAL } else { 0 };
        let length = u32::from(self.length.wrapping_sub(1)) & LENGTH_MASK;
        let packed = self.role | length << LENGTH_SHIFT | special;
        for word in [self.scope, self.tag, self.ending, packed] {
            bytes.extend(word.to_le_bytes());
        }
    }

    pub(crate) fn read(bytes: [u8; BINDING_BYTES]) -> Self {
        let [s0, s1, s2, s3, t0, t1, t2, t3, e0, e1, e2, e3, p0, p1, p2, p3] = bytes;
        let packed = u32::from_le_bytes([p0, p1, p2, p3]);
        Self {
            tag: u32::from_le_bytes([t0, t1, t2, t3]),
            scope: u32::from_le_bytes([s0, s1, s2, s3]),
            role: packed & (ROLES_MAX - 1),
            length: (packed >> LENGTH_SHIFT & LENGTH_MASK) as u16 + 1,
            ending: u32::from_le_bytes([e0, e1, e2, e3]),
            special: packed & SPECIAL != 0,
        }
    }
}

impl Special {
    /// Whether it says nothing, so that it need not stand anywhere.
    pub(crate) fn is_plain(&self) -> bool {
        self.expires_at.is_none() && self.when.is_empty() && self.id == Id::Derived
    }
}

/// Where the bindings with this tag begin among bindings sorted by it. Tags are spread evenly, so
/// the place is guessed, and the guess corrected by steps that double.
pub(crate) fn first_with(tag: u32, bindings: &[[u8; BINDING_BYTES]]) -> usize {
    let at = |place: usize| bindings.get(place).map(|bytes| Packed::read(*bytes).tag);
    let guess = (bindings.len() as u64 * u64::from(tag)) >> 32;
    let mut low = usize::try_from(guess).unwrap_or_default();
    let mut high = low;
    let mut step = 1;
    // Below `low` all are less.
    while low > 0 && at(low - 1).is_some_and(|found| found >= tag) {
        high = low - 1;
        low = low.saturating_sub(step);
        step *= 2;
    }
    step = 1;
    // From `high` on all are at least.
    while at(high).is_some_and(|found| found < tag) {
        low = high + 1;
        high = (high + step).min(bindings.len());
        step *= 2;
    }
    while low < high {
        let middle = usize::midpoint(low, high);
        if at(middle).is_some_and(|found| found < tag) {
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

    #[test]
    fn bindings_come_back_as_they_were() {
        for (role, length, special) in [(0, 1, false), (ROLES_MAX - 1, 1024, true), (7, 3, false)] {
            let (tag, scope, ending) = (0xdead_beef, 0x0102_0304, 0x0506_0708);
            let binding = Packed { tag, scope, role, length, ending, special };
            let mut bytes = vec![];
            binding.write(&mut bytes);
            assert_eq!(Packed::read(bytes.try_into().unwrap()), binding);
        }
    }

    #[test]
    fn the_first_of_equal_tags_is_found() {
        let step = u32::MAX / 997;
        for tags in [
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
            for tag in &tags {
                Packed { tag: *tag, scope: 0, role: 0, length: 1, ending: 0, special: false }
                    .write(&mut bytes);
            }
            let (bindings, _) = bytes.as_chunks();
            let near =
                tags.iter().flat_map(|tag| [tag.saturating_sub(1), *tag, tag.saturating_add(1)]);
            for tag in near.chain([0, 1, u32::MAX / 2, u32::MAX]) {
                let expected = tags.partition_point(|found| *found < tag);
                assert_eq!(first_with(tag, bindings), expected, "{tag} in {tags:?}");
            }
        }
    }

    /// What is above a path always passes; what is not never does, but for endings that are alike.
    #[test]
    fn what_is_above_can_be_above() {
        let seed = Seed::random();
        let path = "acme/platform/images/base-2026-11/nginx";
        let scope = |scope| Packed::new(&seed, (0, Path::parse(scope).unwrap()), 0);
        for above in Path::parse(path).unwrap().ancestors() {
            assert!(scope(above.as_str()).can_be_above(&seed, path.as_bytes()), "{above}");
        }
        for other in [
            "acm",
            "acme/platforn",
            "acme/platform/image",
            "acmf",
            "acme/platform/images/a",
            "acme/platform/images/base-2026-11/nginx/a",
            "acme/platform/images/base-2026-12",
        ] {
            assert!(!scope(other).can_be_above(&seed, path.as_bytes()), "{other}");
        }
        // Found by its last sixteen bytes: which of these is above, the text tells.
        let alike = scope("bcme/platform/images/base-2026-11");
        assert!(alike.can_be_above(&seed, path.as_bytes()));
    }
}
