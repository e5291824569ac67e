//! Role bindings as the index stores them: 24 bytes each, in the record of their identity.
//!
//! ```text
//! fingerprint of the scope's path: u128   scope: u32   role: 20 bits, bytes of the path less one: 10,
//!                                                      restricted: 1, numbered: 1
//! ```
//!
//! Whether a scope is an ancestor of a resource is decided by the length of the scope's path and its
//! fingerprint (`hash.rs`), without reading the scope's record.
//!
//! An expiry and conditions are stored apart: few bindings have any, and a binding without them pays one
//! bit. Ids are stored behind the bindings of the identity, 8 bytes each, if one of them has an explicit
//! id of the form scope `/` 16 hex digits; a check does not read them:
//!
//! ```text
//! payload of an identity:   bindings, 24 bytes each   numbers of their ids, 8 bytes each, or none
//! ```
//!
//! The payload of a disabled identity is in its extra value instead of its record ([`Standing::Disabled`]).

use std::sync::Arc;

use crate::index::hash::{Fingerprint, Seed};
use crate::index::table::Extra;
use crate::rules::{ROLES_MAX, split_binding_id};
use crate::{Condition, PathBuf, Properties, Timestamp, USER};

/// Bytes of a binding.
pub(crate) const BINDING_BYTES: usize = 24;
/// Bytes of a binding and the number of its id.
const BINDING_BYTES_NUMBERED: usize = 32;

const LENGTH_SHIFT: u32 = 20;
/// Paths have 1 to 1,024 bytes.
const LENGTH_MASK: u32 = (1 << 10) - 1;
const RESTRICTED: u32 = 1 << 30;
/// Set in the first binding of an identity whose payload ends with numbers.
const NUMBERED: u32 = 1 << 31;

/// A binding, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PackedBinding {
    /// The fingerprint of the scope's path. The first field, because bindings are sorted by it.
    pub(crate) fingerprint: Fingerprint,
    /// The number of the scope.
    pub(crate) scope: u32,
    /// The number of the role.
    pub(crate) role: u32,
    /// Bytes of the scope's path.
    pub(crate) length: u16,
    /// Whether it has [`Restrictions`].
    pub(crate) restricted: bool,
}

/// Expiry and conditions of a binding. Most bindings have neither.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Restrictions {
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) conditions: Box<[Condition]>,
}

/// The id of a binding.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum BindingId {
    /// Not stored, whether or not it is declared: it follows from identity, role, scope and conditions.
    #[default]
    Derived,
    /// The scope, a slash, and this number as 16 lower-case hex digits.
    Number(u64),
    /// Any other path below the scope.
    Text(Box<str>),
}

/// Whether an identity is registered, and whether its bindings count.
#[derive(Clone, Debug, Default)]
pub(crate) enum Standing {
    /// Registered, and not disabled.
    #[default]
    Registered,
    /// Not registered, and therefore bound: it is known only while it has a binding.
    Unregistered,
    /// Registered and disabled. Its payload is here, and that of its record is empty, so that no decision finds a
    /// binding of it.
    Disabled(Box<[u8]>),
}

/// The extra value of an identity: properties, and what few identities and few of the bindings have.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdentityExtra {
    /// The type, unless it is [`USER`](crate::USER).
    pub(crate) kind: Option<Arc<str>>,
    /// The registered properties.
    pub(crate) properties: Properties,
    pub(crate) standing: Standing,
    /// Restrictions by the position of their binding, ascending.
    pub(crate) restrictions: Vec<(u32, Restrictions)>,
    /// Ids that are not a number, by the position of their binding, ascending.
    pub(crate) ids: Vec<(u32, Box<str>)>,
}

impl Extra for IdentityExtra {}

impl IdentityExtra {
    /// The type that is kept of an identity.
    pub(crate) fn kept_kind(kind: &str) -> Option<Arc<str>> {
        (kind != USER).then(|| kind.into())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kind.is_none()
            && self.properties.is_empty()
            && matches!(self.standing, Standing::Registered)
            && self.restrictions.is_empty()
            && self.ids.is_empty()
    }

    /// Moves the payload of a disabled identity here, and leaves the payload of its record.
    pub(crate) fn take_payload(&mut self, payload: &mut Vec<u8>) {
        if let Standing::Disabled(taken) = &mut self.standing {
            *taken = std::mem::take(payload).into();
        }
    }
}

impl BindingId {
    /// The id of a binding at this scope that declares `id`, or none. `derived` is the number of its derived id.
    pub(crate) fn of(id: Option<&PathBuf>, scope: &str, derived: impl FnOnce() -> u64) -> Self {
        match id.map(|id| (id, split_binding_id(id.as_str()))) {
            None => Self::Derived,
            Some((_, Some((parent, number)))) if parent == scope => {
                if number == derived() {
                    Self::Derived
                } else {
                    Self::Number(number)
                }
            }
            Some((id, _)) => Self::Text(id.as_str().into()),
        }
    }
}

impl Restrictions {
    pub(crate) fn is_empty(&self) -> bool {
        self.expires_at.is_none() && self.conditions.is_empty()
    }
}

impl PackedBinding {
    /// An unrestricted binding of a role at a scope, given by its number and its path.
    pub(crate) fn new(seed: &Seed, (scope, path): (u32, &str), role: u32) -> Self {
        Self {
            fingerprint: seed.fingerprint(path.as_bytes()),
            scope,
            role,
            length: u16::try_from(path.len()).unwrap_or(u16::MAX),
            restricted: false,
        }
    }

    pub(crate) fn bytes(self) -> [u8; BINDING_BYTES] {
        let restricted = if self.restricted { RESTRICTED } else { 0 };
        let length = u32::from(self.length.wrapping_sub(1)) & LENGTH_MASK;
        let packed = self.role | length << LENGTH_SHIFT | restricted;
        let mut bytes = [0; BINDING_BYTES];
        let (fingerprint, rest) = bytes.split_at_mut(size_of::<u128>());
        fingerprint.copy_from_slice(&self.fingerprint.0.to_le_bytes());
        let (scope, rest) = rest.split_at_mut(size_of::<u32>());
        scope.copy_from_slice(&self.scope.to_le_bytes());
        rest.copy_from_slice(&packed.to_le_bytes());
        bytes
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
            restricted: packed & RESTRICTED != 0,
        }
    }
}

// === The payload of an identity ===

/// The bindings of an identity's payload.
#[inline]
pub(crate) fn packed_bindings(payload: &[u8]) -> &[[u8; BINDING_BYTES]] {
    let (bindings, _) = payload.as_chunks();
    if has_numbers(payload) {
        return bindings.get(..payload.len() / BINDING_BYTES_NUMBERED).unwrap_or_default();
    }
    bindings
}

/// The numbers behind the bindings, one for each, if there are any: the derived one for a binding
/// without an explicit id, 0 for one whose id is not a number.
pub(crate) fn numbers(payload: &[u8]) -> Option<&[[u8; 8]]> {
    if !has_numbers(payload) {
        return None;
    }
    let bindings = payload.len() / BINDING_BYTES_NUMBERED * BINDING_BYTES;
    Some(payload.get(bindings..)?.as_chunks().0)
}

/// Whether [`NUMBERED`] is set.
fn has_numbers(payload: &[u8]) -> bool {
    payload.get(BINDING_BYTES - 1).is_some_and(|byte| byte & (NUMBERED >> 24) as u8 != 0)
}

/// The payload of an identity with one more binding at a position, and a number for it if it has numbers.
pub(crate) fn payload_with(
    payload: &[u8],
    position: usize,
    binding: PackedBinding,
    number: u64,
) -> Vec<u8> {
    let (bindings, numbers) = (packed_bindings(payload), numbers(payload));
    let length = payload_length(bindings.len() + 1, numbers.is_some());
    let mut bytes = Vec::with_capacity(length);
    let (before, after) = bindings.split_at_checked(position).unwrap_or((bindings, &[]));
    bytes.extend_from_slice(before.as_flattened());
    bytes.extend(binding.bytes());
    bytes.extend_from_slice(after.as_flattened());
    if let Some(numbers) = numbers {
        if position == 0 {
            set_numbered(bytes.get_mut(BINDING_BYTES..).unwrap_or_default(), false);
        }
        set_numbered(&mut bytes, true);
        let (before, after) = numbers.split_at_checked(position).unwrap_or((numbers, &[]));
        bytes.extend_from_slice(before.as_flattened());
        bytes.extend(number.to_le_bytes());
        bytes.extend_from_slice(after.as_flattened());
    }
    bytes
}

/// The payload of an identity without the binding at a position.
pub(crate) fn payload_without(payload: &[u8], position: usize) -> Vec<u8> {
    fn parts<const N: usize>(all: &[[u8; N]], position: usize) -> [&[u8]; 2] {
        let (before, after) = all.split_at_checked(position).unwrap_or((all, &[]));
        [before.as_flattened(), after.get(1..).unwrap_or_default().as_flattened()]
    }
    let mut bytes = parts(packed_bindings(payload), position).concat();
    if let Some(numbers) = numbers(payload).filter(|numbers| numbers.len() > 1) {
        set_numbered(&mut bytes, true);
        bytes.extend(parts(numbers, position).concat());
    }
    bytes
}

/// Sets or clears [`NUMBERED`] in the first binding.
fn set_numbered(payload: &mut [u8], numbered: bool) {
    if let Some(byte) = payload.get_mut(BINDING_BYTES - 1) {
        let flag = (NUMBERED >> 24) as u8;
        *byte = if numbered { *byte | flag } else { *byte & !flag };
    }
}

/// Bytes of the payload of an identity with this many bindings.
pub(crate) const fn payload_length(bindings: usize, numbered: bool) -> usize {
    bindings * if numbered { BINDING_BYTES_NUMBERED } else { BINDING_BYTES }
}

/// The payload of an identity, to be changed and written.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdentityPayload {
    /// Sorted.
    pub(crate) bindings: Vec<PackedBinding>,
    /// As many as bindings, if there are any.
    pub(crate) numbers: Option<Vec<u64>>,
}

impl IdentityPayload {
    pub(crate) fn read(payload: &[u8]) -> Self {
        let bindings = packed_bindings(payload).iter().map(|bytes| PackedBinding::read(*bytes));
        let numbers = numbers(payload)
            .map(|numbers| numbers.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect());
        Self { bindings: bindings.collect(), numbers }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let Self { bindings, numbers } = self;
        let mut bytes = Vec::with_capacity(payload_length(bindings.len(), numbers.is_some()));
        bindings.iter().for_each(|binding| bytes.extend(binding.bytes()));
        if let Some(numbers) = numbers {
            write_numbers(&mut bytes, numbers.iter().copied());
        }
        bytes
    }
}

/// Writes the numbers of all bindings behind them.
pub(crate) fn write_numbers(payload: &mut Vec<u8>, numbers: impl Iterator<Item = u64>) {
    if !payload.is_empty() {
        set_numbered(payload, true);
        payload.extend(numbers.flat_map(u64::to_le_bytes));
    }
}

// === Comparison with a path ===

/// Decides which scopes are a resource or its ancestors.
pub(crate) struct PathMatcher<'p> {
    seed: &'p Seed,
    path: &'p [u8],
    /// The last length asked for, and the fingerprint of the prefix of that length: many scopes have
    /// the same length.
    last: (u16, Fingerprint),
}

impl<'p> PathMatcher<'p> {
    pub(crate) const fn new(seed: &'p Seed, path: &'p str) -> Self {
        Self { seed, path: path.as_bytes(), last: (0, Fingerprint(0)) }
    }

    /// Whether the binding's scope is this path or an ancestor of it: the path's prefix of the scope's
    /// length ends at a segment and has the scope's fingerprint.
    pub(crate) fn covers(&mut self, binding: &PackedBinding) -> bool {
        let prefix = self.path.split_at_checked(usize::from(binding.length));
        let Some((prefix, None | Some(b'/'))) = prefix.map(|(prefix, rest)| (prefix, rest.first()))
        else {
            return false;
        };
        if self.last.0 != binding.length {
            self.last = (binding.length, self.seed.fingerprint(prefix));
        }
        self.last.1 == binding.fingerprint
    }
}

/// The position of the first binding of at least this rank among bindings sorted by fingerprint:
/// interpolation search, because ranks are spread evenly, corrected by exponential and then binary search.
pub(crate) fn lower_bound(rank: u32, bindings: &[[u8; BINDING_BYTES]]) -> usize {
    let at = |position: usize| {
        bindings.get(position).map(|bytes| PackedBinding::read(*bytes).fingerprint.rank())
    };
    let guess = (bindings.len() as u64 * u64::from(rank)) >> 32;
    let mut low = usize::try_from(guess).unwrap_or_default();
    let mut high = low;
    let mut step = 1;
    // All before `low` are less.
    while low > 0 && at(low - 1).is_some_and(|found| found >= rank) {
        high = low - 1;
        low = low.saturating_sub(step);
        step *= 2;
    }
    step = 1;
    // All from `high` on are at least the rank.
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
    fn bindings_are_read_as_they_were_written() {
        for (role, length, restricted) in
            [(0, 1, false), (ROLES_MAX - 1, 1024, true), (7, 3, false)]
        {
            let fingerprint = Fingerprint(0xdead_beef_0001_0203_0405_0607_0809_0a0b);
            let binding =
                PackedBinding { fingerprint, scope: 0x0102_0304, role, length, restricted };
            assert_eq!(PackedBinding::read(binding.bytes()), binding);
        }
    }

    #[test]
    fn payloads_with_and_without_numbers_are_told_apart() {
        let binding = |at: u32| PackedBinding {
            fingerprint: Fingerprint(u128::from(at)),
            scope: at,
            role: at,
            length: 1024,
            restricted: at.is_multiple_of(2),
        };
        for count in 0..20 {
            for numbered in [false, true] {
                let bindings = (0..count).map(binding).collect();
                let numbers = numbered.then(|| (0..u64::from(count)).collect());
                let written = IdentityPayload { bindings, numbers };
                let bytes = written.bytes();
                let read = IdentityPayload::read(&bytes);
                assert_eq!(bytes.len(), payload_length(count as usize, numbered));
                assert_eq!(read.bindings, written.bindings);
                for at in 0..=count as usize {
                    let with = payload_with(&bytes, at, binding(99), 98);
                    let longer = IdentityPayload::read(&with);
                    assert_eq!(longer.bindings.len(), count as usize + 1);
                    assert_eq!(longer.bindings[at], binding(99));
                    let number = longer.numbers.map(|all| all[at]);
                    assert_eq!(number, (numbered && count > 0).then_some(98));
                    assert_eq!(payload_without(&with, at), bytes);
                }
                // Nothing is numbered where nothing is bound.
                assert_eq!(read.numbers, written.numbers.filter(|_| count > 0));
            }
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
                let (scope, role, length) = (0, 0, 1);
                let binding = PackedBinding { fingerprint, scope, role, length, restricted: false };
                bytes.extend(binding.bytes());
            }
            let (bindings, _) = bytes.as_chunks();
            let probed = ranks
                .iter()
                .flat_map(|rank| [rank.saturating_sub(1), *rank, rank.saturating_add(1)]);
            for rank in probed.chain([0, 1, u32::MAX / 2, u32::MAX]) {
                let expected = ranks.partition_point(|found| *found < rank);
                assert_eq!(lower_bound(rank, bindings), expected, "{rank} in {ranks:?}");
            }
        }
    }

    #[test]
    fn ancestors_match_and_other_paths_do_not() {
        let seed = Seed::random();
        let path = "acme/platform/images/base-2026-11/nginx";
        let scope = |scope| PackedBinding::new(&seed, (0, scope), 0);
        let covers = |scope| PathMatcher::new(&seed, path).covers(&scope);
        for above in Path::parse(path).unwrap().ancestors() {
            assert!(covers(scope(above.as_str())), "{above}");
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
            assert!(!covers(scope(other)), "{other}");
        }
        // In any order, of one length or of several.
        let mut matcher = PathMatcher::new(&seed, path);
        let (above, sibling) = (scope("acme/platform"), scope("acme/platfosm"));
        assert!(matcher.covers(&above) && !matcher.covers(&sibling) && matcher.covers(&above));
        assert!(matcher.covers(&scope("acme")) && matcher.covers(&above));
    }
}
