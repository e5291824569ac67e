//! Capabilities as bits: dense numbers, and sets of them.

/// A capability's position in its catalog's sorted list. Not valid for another catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CapabilityIx(pub(crate) u32);

impl CapabilityIx {
    pub(crate) const fn word(self) -> usize {
        self.0 as usize / 64
    }

    pub(crate) const fn mask(self) -> u64 {
        1 << (self.0 % 64)
    }
}

pub(crate) const fn words(capabilities: usize) -> usize {
    capabilities.div_ceil(64)
}

/// A set of one catalog's capabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapabilitySet(Box<[u64]>);

impl CapabilitySet {
    /// The empty set, for a catalog with this number of capabilities.
    pub(crate) fn empty(capabilities: usize) -> Self {
        Self(vec![0; words(capabilities)].into())
    }

    /// As words of 64 capabilities each, like a row of the matrix.
    pub(crate) const fn words(&self) -> &[u64] {
        &self.0
    }

    pub(crate) fn insert(&mut self, capability: CapabilityIx) {
        debug_assert!(capability.word() < self.0.len());
        if let Some(word) = self.0.get_mut(capability.word()) {
            *word |= capability.mask();
        }
    }

    /// Whether the capability is in the set.
    #[must_use]
    pub fn contains(&self, capability: CapabilityIx) -> bool {
        has(&self.0, capability)
    }

    /// Adds every capability of a matrix row.
    pub(crate) fn extend(&mut self, row: &[u64]) {
        for (word, more) in self.0.iter_mut().zip(row) {
            *word |= more;
        }
    }

    /// Whether every capability of the other set is in this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let mut words = self.0.iter().chain(std::iter::repeat(&0)).zip(&other.0);
        words.all(|(word, other)| other & !word == 0)
    }

    /// The capabilities of this set that are not in the other one.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let others = other.0.iter().copied().chain(std::iter::repeat(0));
        Self(self.0.iter().zip(others).map(|(word, other)| word & !other).collect())
    }

    /// Adds every capability of the other set.
    pub fn add(&mut self, other: &Self) {
        self.extend(other.words());
    }

    /// The capabilities, in the catalog's order, which is by name.
    pub fn iter(&self) -> impl Iterator<Item = CapabilityIx> {
        (0u32..)
            .zip(&self.0)
            .flat_map(|(at, word)| {
                (0..64u32).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit)
            })
            .map(CapabilityIx)
    }

    /// The number of capabilities.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

fn has(row: &[u64], capability: CapabilityIx) -> bool {
    row.get(capability.word()).is_some_and(|word| word & capability.mask() != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_cross_word_borders() {
        let mut set = CapabilitySet::empty(130);
        for bit in [0, 63, 64, 127, 128, 129] {
            set.insert(CapabilityIx(bit));
        }
        assert_eq!(set.iter().map(|c| c.0).collect::<Vec<_>>(), [0, 63, 64, 127, 128, 129]);
        assert_eq!(set.len(), 6);
        assert!(set.contains(CapabilityIx(64)) && !set.contains(CapabilityIx(65)));
        assert!(!set.contains(CapabilityIx(4_000)), "out of range is absent");
    }

    #[test]
    fn sets_are_compared_bit_by_bit() {
        let set = |bits: &[u32]| {
            let mut set = CapabilitySet::empty(130);
            bits.iter().for_each(|bit| set.insert(CapabilityIx(*bit)));
            set
        };
        let (all, some) = (set(&[0, 64, 129]), set(&[0, 129]));
        assert!(all.covers(&some) && all.covers(&all) && !some.covers(&all));
        assert_eq!((all.without(&some), some.without(&all)), (set(&[64]), set(&[])));
        let mut both = set(&[1]);
        both.add(&some);
        assert_eq!(both, set(&[0, 1, 129]));
        // Of another catalog: nothing more is covered.
        let none = CapabilitySet::empty(0);
        assert!(!none.covers(&some) && none.covers(&none) && some.covers(&none));
    }
}
