//! Shards that share a copy, and the slots that lead to their records.
//!
//! The slots of a branch stand side by side, four bytes each: those of a million entries are few
//! enough pages for the processor to know where all of them are.
//!
//! **Invariant**: every record that has a number has one slot, between its home and the next free
//! one.

use std::sync::Arc;

use super::shard::{Record, Records, Shard, length};
use super::{Entry, NOTHING, number};
use crate::index::hash::Fingerprint;
use crate::index::prefetch::prefetch;

/// Bits of a slot that say where the record is, in [`UNIT`](super::shard::UNIT)s; the others are of
/// the fingerprint's tag.
const PLACE_BITS: u32 = 24;
/// What no place reaches, 256 MiB behind the first: so no slot that is taken looks like one that is
/// free.
pub(super) const PLACES_END: u32 = (1 << PLACE_BITS) - 1;

#[derive(Debug)]
pub(super) struct Branch<X> {
    /// 2^`bits` for each shard, at most seven eighths of them taken; open addressing.
    slots: Arc<[u32]>,
    bits: u32,
    records: Box<[Records]>,
    shards: Box<[Shard<X>]>,
    /// [`PLACES_END`], but in tests.
    places_end: u32,
}

impl<X> Clone for Branch<X> {
    fn clone(&self) -> Self {
        Self {
            slots: Arc::clone(&self.slots),
            bits: self.bits,
            records: self.records.clone(),
            shards: self.shards.clone(),
            places_end: self.places_end,
        }
    }
}

const fn slot(fingerprint: Fingerprint, place: u32) -> u32 {
    fingerprint.tag() >> PLACE_BITS << PLACE_BITS | place
}

const fn place_of(slot: u32) -> u32 {
    slot & ((1 << PLACE_BITS) - 1)
}

/// Where a slot is looked for first.
const fn home(fingerprint: Fingerprint) -> usize {
    fingerprint.tag() as usize
}

impl<X> Branch<X> {
    pub(super) fn new(shards: usize, places_end: u32) -> Self {
        Self {
            slots: Arc::default(),
            bits: 0,
            records: (0..shards).map(|_| Arc::default()).collect(),
            shards: (0..shards).map(|_| Shard::default()).collect(),
            places_end,
        }
    }

    /// Of a shard.
    fn slots(&self, shard: usize) -> &[u32] {
        let slots = self.slots.get(shard << self.bits..).and_then(|all| all.get(..1 << self.bits));
        slots.unwrap_or_default()
    }

    fn slots_mut(&mut self, shard: usize) -> &mut [u32] {
        let slots = Arc::make_mut(&mut self.slots).get_mut(shard << self.bits..);
        slots.and_then(|all| all.get_mut(..1 << self.bits)).unwrap_or_default()
    }

    /// The first slot from `from` on that may be the fingerprint's, and the place it says.
    fn next(slots: &[u32], fingerprint: Fingerprint, from: usize) -> Option<(usize, u32)> {
        let mask = slots.len().wrapping_sub(1);
        let mut at = from & mask;
        loop {
            let found = *slots.get(at)?;
            if found == NOTHING {
                return None;
            }
            if found >> PLACE_BITS == fingerprint.tag() >> PLACE_BITS {
                return Some((at, place_of(found)));
            }
            at = (at + 1) & mask;
        }
    }

    /// Where the record of a fingerprint is, most probably; [`NOTHING`] if there is none.
    pub(super) fn first(&self, shard: usize, fingerprint: Fingerprint) -> u32 {
        let found = Self::next(self.slots(shard), fingerprint, home(fingerprint));
        found.map_or(NOTHING, |(_, place)| place)
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
            let (at, place) = Self::next(slots, fingerprint, from)?;
            let record = Record::read(records, place)?;
            if record.fingerprint == fingerprint {
                return Some((at, record));
            }
            from = at + 1;
        }
    }

    /// The record of a place.
    pub(super) fn record(&self, shard: usize, place: u32) -> Option<Record<'_>> {
        Record::read(self.records.get(shard)?, place)
    }

    /// Asks for the first slot of a fingerprint.
    pub(super) fn prefetch_slot(&self, shard: usize, fingerprint: Fingerprint) {
        let slots = self.slots(shard);
        prefetch(slots, home(fingerprint) & slots.len().wrapping_sub(1));
    }

    /// Asks for these bytes of a shard's records.
    pub(super) fn prefetch_records<const N: usize>(&self, shard: usize, places: [usize; N]) {
        if let Some(records) = self.records.get(shard) {
            places.into_iter().for_each(|at| prefetch(records, at));
        }
    }

    /// The entry of a number in a shard, which is the `shard_number`th of the table.
    pub(super) fn entry(
        &self,
        (shard_number, shard): (usize, usize),
        within: u32,
    ) -> Option<Entry<'_, X>> {
        let place = self.shards.get(shard)?.place(within);
        let record = Record::read(self.records.get(shard)?, place)?;
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
            let all = numbered.places().filter_map(|place| Record::read(records, place));
            all.filter_map(move |record| self.entry_of((shard_number, shard), record))
        })
    }

    /// The numbers that are taken in a shard.
    pub(super) fn numbers(&self, shard: usize) -> impl Iterator<Item = u32> + Clone {
        self.shards.get(shard).into_iter().flat_map(Shard::numbers)
    }

    /// Answers whether the key is new, and its number; nothing, and nothing is changed, if there is
    /// no number or no place for it.
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
            // What it takes is a multiple of a unit, so there may be room for more.
            let fits = length(key, payload.len()) <= old_length;
            let record = Record { fingerprint, within, payload, key };
            let left = if fits {
                let (numbered, records) = self.shard_mut(shard)?;
                numbered.rewrite(records, record);
                old_length - length(key, payload.len())
            } else {
                let place = self.append(shard, record)?;
                // Making room for it may have moved the old one, but not its slot.
                *self.slots_mut(shard).get_mut(at)? = slot(fingerprint, place);
                old_length
            };
            self.abandon(shard, left);
            return Some((false, within));
        }
        let within = self.shards.get(shard)?.free_number()?;
        let place = self.append(shard, Record { fingerprint, within, payload, key })?;
        let taken = self.shards.get(shard)?.taken();
        if taken * 8 > self.slots(shard).len() * 7 {
            self.resize(if self.slots.is_empty() { 2 } else { self.bits + 1 });
        } else {
            insert(self.slots_mut(shard), home(fingerprint), slot(fingerprint, place));
        }
        Some((true, within))
    }

    /// Puts a record behind the others; if there is no place, where others were before.
    fn append(&mut self, shard: usize, record: Record<'_>) -> Option<u32> {
        let end = self.places_end;
        let (numbered, records) = self.shard_mut(shard)?;
        if let Some(place) = numbered.append(records, record, end) {
            return Some(place);
        }
        if !numbered.has_garbage() {
            return None;
        }
        self.compact(shard);
        let (numbered, records) = self.shard_mut(shard)?;
        numbered.append(records, record, end)
    }

    /// Counts bytes that are no longer reached, and copies the others once it is worth it.
    fn abandon(&mut self, shard: usize, bytes: usize) {
        if self.shards.get_mut(shard).is_some_and(|shard| shard.abandon(bytes)) {
            self.compact(shard);
        }
    }

    /// What a change of a shard is made in.
    pub(super) fn shard_mut(&mut self, shard: usize) -> Option<(&mut Shard<X>, &mut Records)> {
        Some((self.shards.get_mut(shard)?, self.records.get_mut(shard)?))
    }

    pub(super) fn remove(&mut self, shard: usize, fingerprint: Fingerprint) {
        let Some((mut hole, record)) = self.find(shard, fingerprint) else { return };
        let (within, length) = (record.within, length(record.key, record.payload.len()));
        // What follows the hole and would no longer be found moves into it.
        let mask = (1 << self.bits) - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let Some(found) = self.slots(shard).get(at).copied() else { return };
            if found == NOTHING {
                break;
            }
            let records = self.records.get(shard).map_or(&[][..], |records| records);
            let Some(record) = Record::read(records, place_of(found)) else { return };
            let home = home(record.fingerprint);
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                if let Some(slot) = self.slots_mut(shard).get_mut(hole) {
                    *slot = found;
                }
                hole = at;
            }
        }
        if let Some(slot) = self.slots_mut(shard).get_mut(hole) {
            *slot = NOTHING;
        }
        if let Some(numbered) = self.shards.get_mut(shard) {
            numbered.release(within);
        }
        self.abandon(shard, length);
    }

    /// Makes room for just so many entries and bytes in each shard, in a branch that has none.
    pub(super) fn reserve(&mut self, room: &[(usize, usize)]) {
        for ((shard, records), (entries, bytes)) in
            self.shards.iter_mut().zip(&mut self.records).zip(room)
        {
            shard.reserve(records, *entries, *bytes);
        }
        let most = room.iter().map(|(entries, _)| *entries).max().unwrap_or_default();
        self.resize((most * 8).div_ceil(7).next_power_of_two().trailing_zeros());
    }

    /// Gives each shard 2^`bits` slots.
    fn resize(&mut self, bits: u32) {
        let mut slots = vec![NOTHING; self.shards.len() << bits];
        for ((shard, records), slots) in
            self.shards.iter().zip(&self.records).zip(slots.chunks_exact_mut(1 << bits))
        {
            for place in shard.places() {
                let Some(record) = Record::read(records, place) else { continue };
                insert(slots, home(record.fingerprint), slot(record.fingerprint, place));
            }
        }
        (self.slots, self.bits) = (slots.into(), bits);
    }

    /// Copies the records of a shard that are reached.
    fn compact(&mut self, shard: usize) {
        let (Some(numbered), Some(records)) =
            (self.shards.get_mut(shard), self.records.get_mut(shard))
        else {
            return;
        };
        let mut copy = numbered.compact(records);
        let slots = Arc::make_mut(&mut self.slots).get_mut(shard << self.bits..);
        let slots = slots.and_then(|all| all.get_mut(..1 << self.bits)).unwrap_or_default();
        for slot in slots.iter_mut().filter(|slot| **slot != NOTHING) {
            let moved = copy.record(records, place_of(*slot));
            *slot = *slot >> PLACE_BITS << PLACE_BITS | moved;
        }
        *records = numbered.finish(copy);
    }

    /// Bytes that it holds, apart from what entries have beside their payload.
    pub(super) fn memory(&self) -> usize {
        let records: usize = self.records.iter().map(|records| size_of_val(&**records)).sum();
        let shards: usize = self.shards.iter().map(Shard::memory).sum();
        size_of::<Self>()
            + size_of_val(&*self.slots)
            + size_of_val(&*self.records)
            + records
            + shards
    }
}

/// Takes the first free slot from a home on. There is one.
fn insert(slots: &mut [u32], home: usize, new: u32) {
    let mask = slots.len().wrapping_sub(1);
    let mut at = home & mask;
    while let Some(slot) = slots.get_mut(at) {
        if *slot == NOTHING {
            *slot = new;
            return;
        }
        at = (at + 1) & mask;
    }
}
