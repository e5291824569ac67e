//! A hash table of texts that shares all but a few kilobytes with the version before it.
//!
//! ```text
//! root ─▶ 2^h branches ─▶ 2^l shards each ─▶ slots   tag of the hash, place of the record
//!                                            places  number → record
//!                                            bytes   records: header, payload, key
//! ```
//!
//! A change copies the root, one branch and one shard, and only those that an older version still
//! holds. A look-up touches one slot and one record, whose key it compares.
//!
//! **Invariant**: an entry's number stays the same while it is there, and names nothing else.

mod shard;

use std::sync::Arc;

use shard::Shard;

use crate::hash::{Hash, Seed};

/// Entries that a shard is made for: a change copies about so many.
const SHARD_ENTRIES: usize = 192;
/// Most shards, as a power of two.
const SHARD_BITS_MAX: u32 = 16;
/// Bytes that come from memory together.
const LINE: usize = 64;
/// A slot or place that holds nothing.
const NOTHING: u32 = u32::MAX;
/// Bytes before an entry's payload: length of the key, number in the shard, length of the payload.
const HEADER: usize = 8;

/// Texts, each with a payload of bytes and perhaps something beside it.
#[derive(Debug)]
pub(crate) struct Table<X> {
    seed: Seed,
    root: Arc<[Branch<X>]>,
    /// Bits of the hash that choose a branch, and a shard in it.
    high: u32,
    low: u32,
    len: usize,
}

/// Shards that share a copy.
type Branch<X> = Arc<[Arc<Shard<X>>]>;

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
        Self { root: Arc::clone(&self.root), ..*self }
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

    /// The text. It was one when it was put in.
    pub(crate) fn key(&self) -> &'t str {
        str::from_utf8(self.key).unwrap_or_default()
    }

    /// What it has beside its payload.
    pub(crate) fn extra(&self) -> Option<&'t Arc<X>> {
        let extras = &self.shard.extras;
        let at = extras.binary_search_by_key(&self.within, |(number, _)| *number).ok()?;
        extras.get(at).map(|(_, extra)| extra)
    }
}

/// A look-up that has found its slot but has not touched the record yet.
#[derive(Debug)]
pub(crate) struct Probe<'t, X> {
    shard: &'t Shard<X>,
    shard_number: usize,
    tag: u32,
    at: usize,
    /// The record of the first slot with that tag.
    place: u32,
}

impl<X> Table<X> {
    /// An empty table, with shards for so many entries. It takes more, at a higher cost of changes.
    pub(crate) fn new(seed: Seed, entries: usize) -> Self {
        let shards = (entries / SHARD_ENTRIES).max(1).next_power_of_two();
        let bits = shards.trailing_zeros().min(SHARD_BITS_MAX);
        let (high, low) = (bits.div_ceil(2), bits / 2);
        let branch = || (0..1 << low).map(|_| Arc::new(Shard::default())).collect();
        Self { seed, root: (0..1 << high).map(|_| branch()).collect(), high, low, len: 0 }
    }

    /// An empty table with room for these entries, given by key and length of payload.
    pub(crate) fn with_room_for<'k>(
        seed: Seed,
        entries: impl Iterator<Item = (&'k str, usize)> + Clone,
    ) -> Self {
        let mut table = Self::new(seed, entries.clone().count());
        let bits = table.high + table.low;
        let mut room = vec![(0, 0); 1 << bits];
        for (key, payload) in entries {
            if let Some((count, bytes)) = room.get_mut(seed.hash(key).top(bits)) {
                *count += 1;
                *bytes += HEADER + key.len() + payload;
            }
        }
        for (at, (count, bytes)) in room.into_iter().enumerate() {
            if let Some(shard) = table.shard_mut(at) {
                shard.reserve(count, bytes);
            }
        }
        table
    }

    pub(crate) const fn seed(&self) -> &Seed {
        &self.seed
    }

    /// How many entries there are.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are so many more entries than it was made for that changes cost much more than
    /// they would in a new one.
    pub(crate) fn is_crowded(&self) -> bool {
        self.high + self.low < SHARD_BITS_MAX
            && self.len >> (self.high + self.low) > SHARD_ENTRIES * 8
    }

    fn shard(&self, at: usize) -> Option<&Shard<X>> {
        Some(self.root.get(at >> self.low)?.get(at & ((1 << self.low) - 1))?)
    }

    /// The entry of a text.
    pub(crate) fn get(&self, key: &str) -> Option<Entry<'_, X>> {
        self.probe(self.seed.hash(key))?.entry(key)
    }

    /// The first half of [`Self::get`]: what touches memory that is mostly near.
    pub(crate) fn probe(&self, hash: Hash) -> Option<Probe<'_, X>> {
        let shard_number = hash.top(self.high + self.low);
        let shard = self.shard(shard_number)?;
        let tag = hash.tag();
        let at = tag as usize & shard.slots.len().wrapping_sub(1);
        let (at, place) = shard.find(tag, at)?;
        Some(Probe { shard, shard_number, tag, at, place })
    }

    /// The entry of a number.
    pub(crate) fn entry(&self, number: u32) -> Option<Entry<'_, X>> {
        let (shard_number, within) = ((number >> 16) as usize, number & 0xffff);
        let shard = self.shard(shard_number)?;
        let place = *shard.places.get(within as usize)?;
        shard.entry(shard_number, place)
    }

    /// The text of a number, as bytes; empty if it names nothing.
    pub(crate) fn key_bytes(&self, number: u32) -> &[u8] {
        self.entry(number).map_or(&[], |entry| entry.key)
    }

    /// Reads a byte of the record of a number, so that it is near when it is wanted.
    pub(crate) fn touch(&self, number: u32) -> u8 {
        let place = self
            .shard((number >> 16) as usize)
            .and_then(|shard| Some((shard, *shard.places.get((number & 0xffff) as usize)?)));
        place
            .and_then(|(shard, place)| shard.bytes.get(place as usize).copied())
            .unwrap_or_default()
    }

    pub(crate) fn key(&self, number: u32) -> &str {
        self.entry(number).map_or("", |entry| entry.key())
    }

    /// Every entry, in no order that means anything.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Entry<'_, X>> + Clone {
        let shards = self.root.iter().flat_map(|branch| branch.iter()).enumerate();
        shards.flat_map(|(number, shard)| {
            shard.places.iter().filter_map(move |place| shard.entry(number, *place))
        })
    }

    /// Puts an entry in, or another payload into one that is there. Answers its number, or nothing
    /// if its shard is full.
    pub(crate) fn put(&mut self, key: &str, payload: &[u8]) -> Option<u32> {
        let hash = self.seed.hash(key);
        let shard_number = hash.top(self.high + self.low);
        let shard = self.shard_mut(shard_number)?;
        let (is_new, within) = shard.put(hash.tag(), key, payload)?;
        self.len += usize::from(is_new);
        number(shard_number, within)
    }

    /// Overwrites a part of an entry's payload.
    pub(crate) fn write_at(&mut self, number: u32, at: usize, bytes: &[u8]) {
        let Some(shard) = self.shard_mut((number >> 16) as usize) else { return };
        let place = shard.places.get((number & 0xffff) as usize).copied().unwrap_or(NOTHING);
        let start = place as usize + HEADER + at;
        if let Some(old) = shard.bytes.get_mut(start..start + bytes.len()) {
            old.copy_from_slice(bytes);
        }
    }

    /// Appends to an entry's payload; nothing if its shard is full.
    pub(crate) fn append(&mut self, number: u32, bytes: &[u8]) -> Option<()> {
        let entry = self.entry(number)?;
        let payload = [entry.payload(), bytes].concat();
        let key = entry.key().to_owned();
        self.put(&key, &payload).map(|_| ())
    }

    /// Cuts a part out of an entry's payload; nothing if its shard is full.
    pub(crate) fn cut(&mut self, number: u32, at: usize, length: usize) -> Option<()> {
        let entry = self.entry(number)?;
        let (before, after) = (entry.payload().get(..at)?, entry.payload().get(at + length..)?);
        let payload = [before, after].concat();
        let key = entry.key().to_owned();
        self.put(&key, &payload).map(|_| ())
    }

    /// Sets what an entry has beside its payload.
    pub(crate) fn set_extra(&mut self, number: u32, extra: Option<Arc<X>>) {
        let within = number & 0xffff;
        let Some(shard) = self.shard_mut((number >> 16) as usize) else { return };
        let found = shard.extras.binary_search_by_key(&within, |(number, _)| *number);
        match (found, extra) {
            (Ok(at), Some(extra)) => {
                if let Some((_, old)) = shard.extras.get_mut(at) {
                    *old = extra;
                }
            }
            (Ok(at), None) => drop(shard.extras.remove(at)),
            (Err(at), Some(extra)) => shard.extras.insert(at, (within, extra)),
            (Err(_), None) => {}
        }
    }

    /// Takes an entry out, if it is there.
    pub(crate) fn remove(&mut self, key: &str) {
        let Some(number) = self.get(key).map(|entry| entry.number()) else { return };
        self.set_extra(number, None);
        let tag = self.seed.hash(key).tag();
        if let Some(shard) = self.shard_mut((number >> 16) as usize) {
            shard.remove(tag, number & 0xffff);
            self.len -= 1;
        }
    }

    fn shard_mut(&mut self, at: usize) -> Option<&mut Shard<X>> {
        let low = self.low;
        let branch = Arc::make_mut(&mut self.root).get_mut(at >> low)?;
        Arc::make_mut(branch).get_mut(at & ((1 << low) - 1)).map(Arc::make_mut)
    }

    /// Bytes that the table holds, apart from what entries have beside their payload.
    pub(crate) fn bytes(&self) -> usize {
        let shards = self.root.iter().flat_map(|branch| branch.iter());
        let of = |shard: &Shard<X>| {
            shard.slots.capacity() * 8 + shard.places.capacity() * 4 + shard.bytes.capacity()
        };
        shards.map(|shard| size_of::<Shard<X>>() + 16 + of(shard)).sum()
    }
}

fn number(shard: usize, within: u32) -> Option<u32> {
    Some(u32::try_from(shard).ok()? << 16 | within)
}

impl<'t, X> Probe<'t, X> {
    /// The second half of [`Table::get`]: what touches the record.
    pub(crate) fn entry(&self, key: &str) -> Option<Entry<'t, X>> {
        let (mut at, mut place) = (self.at, self.place);
        loop {
            let entry = self.shard.entry(self.shard_number, place)?;
            if entry.key == key.as_bytes() {
                return Some(entry);
            }
            (at, place) = self.shard.find(self.tag, at + 1)?;
        }
    }

    /// Reads a byte of each line of a record of usual size, so that it is near when it is wanted.
    pub(crate) fn touch(&self) -> u8 {
        let line = |line: usize| {
            self.shard.bytes.get(self.place as usize + line * LINE).copied().unwrap_or_default()
        };
        line(0) | line(1) | line(2)
    }
}

#[cfg(test)]
mod tests;
