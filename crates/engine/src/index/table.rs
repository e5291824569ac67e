//! A persistent (copy-on-write) hash table from texts to payloads: a new version shares all but some kilobytes
//! with the version before it.
//!
//! ```text
//! root ─▶ 2^h branches of 2^l shards each ─▶ slots     8 bits of the fingerprint, offset of the record
//!                                            records   fingerprint, number, payload, key
//!                                            shards    number → offset of the record
//! ```
//!
//! The topmost bits of a text's fingerprint choose a branch and a shard, the next ones a slot; slots are searched
//! by linear probing. A change copies the root, the slots of one branch (at most 64 KiB until the table is
//! crowded) and one shard, and each of them only if an older version still uses it. A look-up has two
//! cache misses: the slot, and the record, whose payload follows its fingerprint. The root, branches and
//! shards are few and mostly cached.
//!
//! **Invariant**: an entry's number does not change while the entry exists, and no other entry has it.

mod branch;
mod shard;

use std::sync::Arc;

use branch::{Branch, OFFSETS_END};
use shard::{Shard, UNIT};

use crate::index::hash::{Fingerprint, Seed, TEXT_BYTES_MAX};

/// Entries per shard of a new table, at most: a change copies about so many.
const SHARD_ENTRIES: usize = 192;
/// A table is made anew once its shards have this many times [`SHARD_ENTRIES`].
const CROWDED: usize = 2;
/// Most shards, as a power of two: numbers have 16 bits for the shard.
const SHARD_BITS_MAX: u32 = 16;
/// Most shards in a branch, as a power of two: a change can copy the slots of all of them.
const BRANCH_BITS_MAX: u32 = 6;
/// Bytes of a cache line.
const LINE: usize = 64;
/// An empty slot, or the offset of a record that is not there.
pub(crate) const EMPTY: u32 = u32::MAX;

/// An extra value. Bytes that it does not name are not counted as those of the index.
pub(crate) trait Extra {
    /// Bytes of the index in it.
    fn bytes(&self) -> usize {
        0
    }

    /// Those that another version of it does not share, at most.
    fn bytes_beside(&self, _other: &Self) -> usize {
        self.bytes()
    }
}

impl Extra for () {}

/// Texts, each with a payload of bytes, and some with an extra value.
#[derive(Debug)]
pub(crate) struct Table<X> {
    seed: Seed,
    root: Arc<[Arc<Branch<X>>]>,
    /// How many bits of the fingerprint choose a branch, and how many a shard in it.
    high: u32,
    low: u32,
    len: usize,
}

/// An entry of a table.
#[derive(Debug)]
pub(crate) struct Entry<'t, X> {
    shard: &'t Shard<X>,
    number: u32,
    within: u32,
    payload: &'t [u8],
    key: &'t [u8],
}

impl<X> Clone for Table<X> {
    fn clone(&self) -> Self {
        Self { seed: self.seed.clone(), root: Arc::clone(&self.root), ..*self }
    }
}

impl<X> Clone for Entry<'_, X> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<X> Copy for Entry<'_, X> {}

impl<'t, X> Entry<'t, X> {
    /// Its number in the table.
    pub(crate) const fn number(&self) -> u32 {
        self.number
    }

    pub(crate) const fn payload(&self) -> &'t [u8] {
        self.payload
    }

    pub(crate) const fn key_bytes(&self) -> &'t [u8] {
        self.key
    }

    /// The text. Never fails to decode: keys are inserted as `str`.
    pub(crate) fn key(&self) -> &'t str {
        str::from_utf8(self.key).unwrap_or_default()
    }

    /// Its extra value.
    pub(crate) fn extra(&self) -> Option<&'t Arc<X>> {
        self.shard.extra(self.within)
    }
}

/// A look-up in three steps, so that a batch can prefetch between them.
#[derive(Debug)]
pub(crate) struct Probe<'t, X> {
    branch: &'t Branch<X>,
    /// The number of the shard in the table, and in the branch.
    shard: (usize, usize),
    fingerprint: Fingerprint,
}

impl<X> Table<X> {
    /// An empty table, with shards for so many entries. It accepts more, at a higher cost of changes.
    pub(crate) fn new(seed: Seed, entries: usize) -> Self {
        let shards = (entries / SHARD_ENTRIES).max(1).next_power_of_two();
        let bits = shards.trailing_zeros().min(SHARD_BITS_MAX);
        let low = (bits / 2).min(BRANCH_BITS_MAX);
        let high = bits - low;
        let branch = || Arc::new(Branch::new(1 << low, OFFSETS_END));
        Self { seed, root: (0..1 << high).map(|_| branch()).collect(), high, low, len: 0 }
    }

    /// An empty table with capacity for exactly these entries, given by key and length of payload.
    pub(crate) fn with_capacity<'k>(
        seed: Seed,
        entries: impl Iterator<Item = (&'k str, usize)> + Clone,
    ) -> Self {
        Self::with_lengths(seed, entries.clone().count(), |reserve| {
            entries.for_each(|(key, payload)| reserve(key, payload));
        })
    }

    /// [`Self::with_capacity`] for so many entries, each of which `each` passes on by key and length of payload.
    pub(crate) fn with_lengths(
        seed: Seed,
        entries: usize,
        each: impl FnOnce(&mut dyn FnMut(&str, usize)),
    ) -> Self {
        let mut table = Self::new(seed, entries);
        let bits = table.high + table.low;
        let mut capacity = vec![(0, 0); 1 << bits];
        each(&mut |key, payload| {
            let shard = table.seed.fingerprint(key.as_bytes()).top(bits);
            if let Some((count, bytes)) = capacity.get_mut(shard) {
                *count += 1;
                *bytes += shard::length(key.as_bytes(), payload);
            }
        });
        let branches = Arc::make_mut(&mut table.root).iter_mut();
        for (branch, capacity) in branches.zip(capacity.chunks(1 << table.low)) {
            Arc::make_mut(branch).reserve(capacity);
        }
        table
    }

    pub(crate) const fn seed(&self) -> &Seed {
        &self.seed
    }

    /// The number of entries.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Whether its shards have far more entries than those of a table that is made, so that changes cost more.
    pub(crate) fn is_crowded(&self) -> bool {
        self.high + self.low < SHARD_BITS_MAX
            && self.len >> (self.high + self.low) > SHARD_ENTRIES * CROWDED
    }

    /// The branch of a shard, and the shard's number in the table and in the branch.
    fn branch(&self, shard: usize) -> Option<(&Branch<X>, (usize, usize))> {
        let branch = self.root.get(shard >> self.low)?;
        Some((branch, (shard, shard & ((1 << self.low) - 1))))
    }

    fn branch_mut(&mut self, shard: usize) -> Option<(&mut Branch<X>, usize)> {
        let low = self.low;
        let branch = Arc::make_mut(&mut self.root).get_mut(shard >> low)?;
        Some((Arc::make_mut(branch), shard & ((1 << low) - 1)))
    }

    /// The entry of a text.
    pub(crate) fn get(&self, key: &str) -> Option<Entry<'_, X>> {
        let probe = self.probe(key)?;
        probe.entry(probe.offset(), key)
    }

    /// Whether the text of this fingerprint has an entry.
    pub(crate) fn contains(&self, fingerprint: Fingerprint) -> bool {
        let found = self.branch(fingerprint.top(self.high + self.low));
        found.is_some_and(|(branch, (_, shard))| branch.find(shard, fingerprint).is_some())
    }

    /// The first of the three steps of [`Self::get`]: reads memory that is mostly cached.
    pub(crate) fn probe(&self, key: &str) -> Option<Probe<'_, X>> {
        let fingerprint = self.seed.fingerprint(key.as_bytes());
        let (branch, shard) = self.branch(fingerprint.top(self.high + self.low))?;
        Some(Probe { branch, shard, fingerprint })
    }

    /// The entry of a number.
    pub(crate) fn entry(&self, number: u32) -> Option<Entry<'_, X>> {
        let (branch, shard) = self.branch((number >> 16) as usize)?;
        branch.entry(shard, number & 0xffff)
    }

    /// The text of a number; empty if there is no such entry.
    pub(crate) fn key(&self, number: u32) -> &str {
        self.entry(number).map_or("", |entry| entry.key())
    }

    /// Every entry, in an order that must not be visible outside.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Entry<'_, X>> + Clone {
        let shards = (0..1 << (self.high + self.low)).filter_map(|shard| self.branch(shard));
        shards.flat_map(|(branch, shard)| branch.entries(shard))
    }

    /// Every `step`th entry, in an order that must not be visible outside.
    pub(crate) fn every(&self, step: usize) -> impl Iterator<Item = Entry<'_, X>> {
        let shards = (0..1 << (self.high + self.low)).filter_map(|shard| self.branch(shard));
        let numbers = shards.flat_map(|(branch, shard)| {
            branch.numbers(shard.1).map(move |within| (branch, shard, within))
        });
        let some = numbers.step_by(step.max(1));
        some.filter_map(|(branch, shard, within)| branch.entry(shard, within))
    }

    /// Inserts an entry, or replaces the payload of an existing one. Returns its number; `None`, without a
    /// change, if its shard is full or the text is longer than [`TEXT_BYTES_MAX`].
    pub(crate) fn put(&mut self, key: &str, payload: &[u8]) -> Option<u32> {
        if key.len() > TEXT_BYTES_MAX {
            return None;
        }
        let fingerprint = self.seed.fingerprint(key.as_bytes());
        let shard_number = fingerprint.top(self.high + self.low);
        let (branch, shard) = self.branch_mut(shard_number)?;
        let (is_new, within) = branch.put(shard, fingerprint, key.as_bytes(), payload)?;
        self.len += usize::from(is_new);
        number(shard_number, within)
    }

    /// Overwrites a part of an entry's payload, from the byte `at` on.
    pub(crate) fn write_at(&mut self, number: u32, at: usize, bytes: &[u8]) {
        if let Some((branch, shard)) = self.branch_mut((number >> 16) as usize)
            && let Some((shard, records)) = branch.shard_mut(shard)
        {
            shard.write_at(records, number & 0xffff, at, bytes);
        }
    }

    /// Sets or removes the extra value of an entry.
    pub(crate) fn set_extra(&mut self, number: u32, extra: Option<Arc<X>>) {
        if let Some((branch, shard)) = self.branch_mut((number >> 16) as usize)
            && let Some((shard, _)) = branch.shard_mut(shard)
        {
            shard.set_extra(number & 0xffff, extra);
        }
    }

    /// Removes an entry, if it is there.
    pub(crate) fn remove(&mut self, key: &str) {
        let fingerprint = self.seed.fingerprint(key.as_bytes());
        let shard = fingerprint.top(self.high + self.low);
        if self.contains(fingerprint)
            && let Some((branch, shard)) = self.branch_mut(shard)
        {
            branch.remove(shard, fingerprint);
            self.len -= 1;
        }
    }
}

impl<X: Extra> Table<X> {
    /// Bytes of the table that another version does not share, at most.
    pub(crate) fn bytes_beside(&self, other: &Self) -> usize {
        let branches = self.root.iter().enumerate();
        let bytes = branches.map(|(at, branch)| match other.root.get(at) {
            Some(other) if Arc::ptr_eq(branch, other) => 0,
            Some(other) => branch.memory_beside(other),
            None => branch.bytes(),
        });
        bytes.sum()
    }

    /// Bytes of the table.
    pub(crate) fn bytes(&self) -> usize {
        self.root.iter().map(|branch| branch.bytes()).sum()
    }
}

fn number(shard: usize, within: u32) -> Option<u32> {
    Some(u32::try_from(shard).ok()? << 16 | within)
}

impl<'t, X> Probe<'t, X> {
    /// Prefetches the slot that [`Self::offset`] reads first.
    pub(crate) fn prefetch_slot(&self) {
        self.branch.prefetch_slot(self.shard.1, self.fingerprint);
    }

    /// The second step of [`Table::get`]: reads the slot. Returns the offset of the first record that may be the
    /// one; [`EMPTY`] if there is none.
    pub(crate) fn offset(&self) -> u32 {
        self.branch.first(self.shard.1, self.fingerprint)
    }

    /// Prefetches the two cache lines that a record of usual size has before its key.
    pub(crate) fn prefetch_record(&self, offset: u32) {
        let start = offset as usize * UNIT;
        self.branch.prefetch_records(self.shard.1, [start, start + LINE]);
    }

    /// The third step of [`Table::get`]: reads the record, which is most probably at this offset. If another
    /// text is there, the other slots are searched.
    pub(crate) fn entry(&self, offset: u32, key: &str) -> Option<Entry<'t, X>> {
        if offset == EMPTY {
            return None;
        }
        let record = self.branch.record(self.shard.1, offset);
        let record = match record.filter(|record| record.fingerprint == self.fingerprint) {
            Some(record) => record,
            None => self.branch.find(self.shard.1, self.fingerprint)?.1,
        };
        debug_assert_eq!(record.key, key.as_bytes(), "two texts with one fingerprint");
        self.branch.entry_of(self.shard, record)
    }
}

#[cfg(test)]
mod tests;
