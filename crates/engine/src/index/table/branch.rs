//! A branch: up to 64 shards, and the slots that lead to their records.
//!
//! The slots of a branch are contiguous, four bytes each, so that those of a million entries need few entries of
//! the translation look-aside buffer.
//!
//! **Invariant**: every record that has a number has one slot, between its home slot and the next empty
//! one (linear probing).

use std::sync::Arc;

use super::shard::{Record, Records, Shard, length};
use super::{EMPTY, Entry, Extra, number};
use crate::index::hash::Fingerprint;
use crate::index::prefetch::prefetch;

/// Bits of a slot for the offset of the record, in [`UNIT`](super::shard::UNIT)s; the other 8 bits are the
/// topmost of the fingerprint's tag.
const OFFSET_BITS: u32 = 24;
/// All offsets are below this, so a shard has at most 256 MiB of records. No used slot looks like an empty
/// one.
pub(super) const OFFSETS_END: u32 = (1 << OFFSET_BITS) - 1;

#[derive(Debug)]
pub(super) struct Branch<X> {
    /// 2^`bits` for each shard, at most seven eighths of them used.
    slots: Arc<[u32]>,
    bits: u32,
    records: Box<[Records]>,
    shards: Box<[Shard<X>]>,
    /// [`OFFSETS_END`], or less in tests.
    offsets_end: u32,
}

impl<X> Clone for Branch<X> {
    fn clone(&self) -> Self {
        Self {
            slots: Arc::clone(&self.slots),
            bits: self.bits,
            records: self.records.clone(),
            shards: self.shards.clone(),
            offsets_end: self.offsets_end,
        }
    }
}

const fn slot(fingerprint: Fingerprint, offset: u32) -> u32 {
    fingerprint.tag() >> OFFSET_BITS << OFFSET_BITS | offset
}

const fn offset_of(slot: u32) -> u32 {
    slot & ((1 << OFFSET_BITS) - 1)
}

/// The slot where the search starts; modulo the number of slots.
const fn home(fingerprint: Fingerprint) -> usize {
    fingerprint.tag() as usize
}

impl<X> Branch<X> {
    pub(super) fn new(shards: usize, offsets_end: u32) -> Self {
        Self {
            slots: Arc::default(),
            bits: 0,
            records: (0..shards).map(|_| Arc::default()).collect(),
            shards: (0..shards).map(|_| Shard::default()).collect(),
            offsets_end,
        }
    }

    /// The slots of a shard.
    fn slots(&self, shard: usize) -> &[u32] {
        let slots = self.slots.get(shard << self.bits..).and_then(|all| all.get(..1 << self.bits));
        slots.unwrap_or_default()
    }

    fn slots_mut(&mut self, shard: usize) -> &mut [u32] {
        let slots = Arc::make_mut(&mut self.slots).get_mut(shard << self.bits..);
        slots.and_then(|all| all.get_mut(..1 << self.bits)).unwrap_or_default()
    }

    /// The first slot from `from` on that has the fingerprint's bits, and its offset.
    fn next(slots: &[u32], fingerprint: Fingerprint, from: usize) -> Option<(usize, u32)> {
        let mask = slots.len().wrapping_sub(1);
        let mut at = from & mask;
        loop {
            let found = *slots.get(at)?;
            if found == EMPTY {
                return None;
            }
            if found >> OFFSET_BITS == fingerprint.tag() >> OFFSET_BITS {
                return Some((at, offset_of(found)));
            }
            at = (at + 1) & mask;
        }
    }

    /// The offset of the first record that may have the fingerprint; [`EMPTY`] if there is none.
    pub(super) fn first(&self, shard: usize, fingerprint: Fingerprint) -> u32 {
        let found = Self::next(self.slots(shard), fingerprint, home(fingerprint));
        found.map_or(EMPTY, |(_, offset)| offset)
    }

    /// The slot and the record of a fingerprint.
    pub(super) fn find(
        &self,
        shard: usize,
        fingerprint: Fingerprint,
    ) -> Option<(usize, Record<'_>)> {
        let (slots, records) = (self.slots(shard), self.records.get(shard)?);
        let mut from = home(fingerprint);
        loop {
            let (at, offset) = Self::next(slots, fingerprint, from)?;
            let record = Record::read(records, offset)?;
            if record.fingerprint == fingerprint {
                return Some((at, record));
            }
            from = at + 1;
        }
    }

    /// The record at an offset.
    pub(super) fn record(&self, shard: usize, offset: u32) -> Option<Record<'_>> {
        Record::read(self.records.get(shard)?, offset)
    }

    /// Prefetches the home slot of a fingerprint.
    pub(super) fn prefetch_slot(&self, shard: usize, fingerprint: Fingerprint) {
        let slots = self.slots(shard);
        prefetch(slots, home(fingerprint) & slots.len().wrapping_sub(1));
    }

    /// Prefetches the cache lines of these bytes of a shard's records.
    pub(super) fn prefetch_records<const N: usize>(&self, shard: usize, offsets: [usize; N]) {
        if let Some(records) = self.records.get(shard) {
            offsets.into_iter().for_each(|at| prefetch(records, at));
        }
    }

    /// The entry of a number in a shard, which is the `shard_number`th of the table.
    pub(super) fn entry(
        &self,
        (shard_number, shard): (usize, usize),
        within: u32,
    ) -> Option<Entry<'_, X>> {
        let offset = self.shards.get(shard)?.offset(within);
        let record = Record::read(self.records.get(shard)?, offset)?;
        self.entry_of((shard_number, shard), record)
    }

    pub(super) fn entry_of<'t>(
        &'t self,
        (shard_number, shard): (usize, usize),
        record: Record<'t>,
    ) -> Option<Entry<'t, X>> {
        let Record { within, payload, key, .. } = record;
        let number = number(shard_number, within)?;
        Some(Entry { shard: self.shards.get(shard)?, number, within, payload, key })
    }

    /// The entries of a shard, which is the `shard_number`th of the table.
    pub(super) fn entries(
        &self,
        (shard_number, shard): (usize, usize),
    ) -> impl Iterator<Item = Entry<'_, X>> + Clone {
        let both = self.shards.get(shard).zip(self.records.get(shard));
        both.into_iter().flat_map(move |(numbered, records)| {
            let all = numbered.offsets().filter_map(|offset| Record::read(records, offset));
            all.filter_map(move |record| self.entry_of((shard_number, shard), record))
        })
    }

    /// The numbers that are taken in a shard.
    pub(super) fn numbers(&self, shard: usize) -> impl Iterator<Item = u32> + Clone {
        self.shards.get(shard).into_iter().flat_map(Shard::numbers)
    }

    /// Inserts or replaces a record. Returns whether the key is new, and its number; `None`, without a
    /// change, if the shard has no free number or no space.
    pub(super) fn put(
        &mut self,
        shard: usize,
        fingerprint: Fingerprint,
        key: &[u8],
        payload: &[u8],
    ) -> Option<(bool, u32)> {
        if let Some((at, old)) = self.find(shard, fingerprint) {
            debug_assert_eq!(old.key, key, "two texts with one fingerprint");
            let (within, old_length) = (old.within, length(key, old.payload.len()));
            // Records are rounded up to units, so a longer one may fit.
            let fits = length(key, payload.len()) <= old_length;
            let record = Record { fingerprint, within, payload, key };
            let left = if fits {
                let (numbered, records) = self.shard_mut(shard)?;
                numbered.rewrite(records, record);
                old_length - length(key, payload.len())
            } else {
                let offset = self.append(shard, record)?;
                // Compaction may have moved the old record, but not its slot.
                *self.slots_mut(shard).get_mut(at)? = slot(fingerprint, offset);
                old_length
            };
            self.abandon(shard, left);
            return Some((false, within));
        }
        let within = self.shards.get(shard)?.free_number()?;
        let offset = self.append(shard, Record { fingerprint, within, payload, key })?;
        let taken = self.shards.get(shard)?.taken();
        if taken * 8 > self.slots(shard).len() * 7 {
            self.resize(if self.slots.is_empty() { 2 } else { self.bits + 1 });
        } else {
            insert(self.slots_mut(shard), home(fingerprint), slot(fingerprint, offset));
        }
        Some((true, within))
    }

    /// Appends a record. If there is no space, compacts the shard first.
    fn append(&mut self, shard: usize, record: Record<'_>) -> Option<u32> {
        let end = self.offsets_end;
        let (numbered, records) = self.shard_mut(shard)?;
        if let Some(offset) = numbered.append(records, record, end) {
            return Some(offset);
        }
        if !numbered.has_garbage() {
            return None;
        }
        self.compact(shard);
        let (numbered, records) = self.shard_mut(shard)?;
        numbered.append(records, record, end)
    }

    /// Counts bytes as garbage, and compacts the shard once a third of it is.
    fn abandon(&mut self, shard: usize, bytes: usize) {
        if self.shards.get_mut(shard).is_some_and(|shard| shard.abandon(bytes)) {
            self.compact(shard);
        }
    }

    /// A shard and its records, to be changed.
    pub(super) fn shard_mut(&mut self, shard: usize) -> Option<(&mut Shard<X>, &mut Records)> {
        Some((self.shards.get_mut(shard)?, self.records.get_mut(shard)?))
    }

    pub(super) fn remove(&mut self, shard: usize, fingerprint: Fingerprint) {
        let Some((mut hole, record)) = self.find(shard, fingerprint) else { return };
        let (within, length) = (record.within, length(record.key, record.payload.len()));
        // Backward-shift deletion: a slot behind the hole that would no longer be found moves into it.
        let mask = (1 << self.bits) - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let Some(found) = self.slots(shard).get(at).copied() else { return };
            if found == EMPTY {
                break;
            }
            let records = self.records.get(shard).map_or(&[][..], |records| records);
            let Some(record) = Record::read(records, offset_of(found)) else { return };
            let home = home(record.fingerprint);
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                if let Some(slot) = self.slots_mut(shard).get_mut(hole) {
                    *slot = found;
                }
                hole = at;
            }
        }
        if let Some(slot) = self.slots_mut(shard).get_mut(hole) {
            *slot = EMPTY;
        }
        if let Some(numbered) = self.shards.get_mut(shard) {
            numbered.release(within);
        }
        self.abandon(shard, length);
    }

    /// Reserves exactly so many entries and bytes in each shard of an empty branch.
    pub(super) fn reserve(&mut self, capacity: &[(usize, usize)]) {
        for ((shard, records), (entries, bytes)) in
            self.shards.iter_mut().zip(&mut self.records).zip(capacity)
        {
            shard.reserve(records, *entries, *bytes);
        }
        let most = capacity.iter().map(|(entries, _)| *entries).max().unwrap_or_default();
        self.resize((most * 8).div_ceil(7).next_power_of_two().trailing_zeros());
    }

    /// Gives each shard 2^`bits` slots.
    fn resize(&mut self, bits: u32) {
        let mut slots = vec![EMPTY; self.shards.len() << bits];
        for ((shard, records), slots) in
            self.shards.iter().zip(&self.records).zip(slots.chunks_exact_mut(1 << bits))
        {
            for offset in shard.offsets() {
                let Some(record) = Record::read(records, offset) else { continue };
                insert(slots, home(record.fingerprint), slot(record.fingerprint, offset));
            }
        }
        (self.slots, self.bits) = (slots.into(), bits);
    }

    /// Copies the records of a shard without its garbage.
    fn compact(&mut self, shard: usize) {
        let (Some(numbered), Some(records)) =
            (self.shards.get_mut(shard), self.records.get_mut(shard))
        else {
            return;
        };
        let mut copy = numbered.compact(records);
        let slots = Arc::make_mut(&mut self.slots).get_mut(shard << self.bits..);
        let slots = slots.and_then(|all| all.get_mut(..1 << self.bits)).unwrap_or_default();
        for slot in slots.iter_mut().filter(|slot| **slot != EMPTY) {
            let moved = copy.record(records, offset_of(*slot));
            *slot = *slot >> OFFSET_BITS << OFFSET_BITS | moved;
        }
        *records = numbered.finish(copy);
    }
}

impl<X: Extra> Branch<X> {
    /// [`Self::memory`] without the slots, records and extra values that another branch shares.
    pub(super) fn memory_beside(&self, other: &Self) -> usize {
        let slots = Arc::ptr_eq(&self.slots, &other.slots).then(|| size_of_val(&*self.slots));
        let both = self.records.iter().zip(&other.records);
        let records = both.filter(|(one, other)| Arc::ptr_eq(one, other));
        let shared: usize = records.map(|(one, _)| size_of_val(&**one)).sum();
        let both = self.shards.iter().zip(&other.shards);
        let extras: usize = both.map(|(one, other)| one.extras_beside(other)).sum();
        (self.memory() + extras).saturating_sub(shared + slots.unwrap_or(0))
    }

    /// Bytes of the branch, without extra values.
    fn memory(&self) -> usize {
        let records: usize = self.records.iter().map(|records| size_of_val(&**records)).sum();
        let shards: usize = self.shards.iter().map(Shard::memory).sum();
        size_of::<Self>()
            + size_of_val(&*self.slots)
            + size_of_val(&*self.records)
            + records
            + shards
    }

    /// Bytes of the branch.
    pub(super) fn bytes(&self) -> usize {
        self.memory() + self.shards.iter().map(Shard::extras_bytes).sum::<usize>()
    }
}

/// Fills the first empty slot from the home slot on. There always is one.
fn insert(slots: &mut [u32], home: usize, new: u32) {
    let mask = slots.len().wrapping_sub(1);
    let mut at = home & mask;
    while let Some(slot) = slots.get_mut(at) {
        if *slot == EMPTY {
            *slot = new;
            return;
        }
        at = (at + 1) & mask;
    }
}
