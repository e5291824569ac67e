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

use std::sync::Arc;

use crate::hash::{Hash, Seed};

/// Entries that a shard is made for: a change copies about so many.
const SHARD_ENTRIES: usize = 192;
/// Most shards, as a power of two.
const SHARD_BITS_MAX: u32 = 16;
/// Bytes that a copy of a shard has to spare, for a record of usual size.
const ROOM: usize = 512;
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

#[derive(Debug)]
struct Shard<X> {
    /// Open addressing by the tag; a power of two of them, at most three quarters taken.
    slots: Vec<(u32, u32)>,
    /// Where the record of each number begins.
    places: Vec<u32>,
    bytes: Vec<u8>,
    /// Bytes of records that are no longer reached.
    garbage: usize,
    taken: usize,
    /// What few entries have beside their payload, by number.
    extras: Vec<(u32, Arc<X>)>,
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
        Self { root: Arc::clone(&self.root), ..*self }
    }
}

impl<X> Clone for Shard<X> {
    fn clone(&self) -> Self {
        Self {
            slots: self.slots.clone(),
            places: with_room(&self.places, 1),
            bytes: with_room(&self.bytes, ROOM),
            extras: self.extras.clone(),
            ..*self
        }
    }
}

/// A copy that the change it is made for can be appended to.
fn with_room<T: Copy>(all: &[T], room: usize) -> Vec<T> {
    let mut copy = Vec::with_capacity(all.len() + room);
    copy.extend_from_slice(all);
    copy
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

impl<X> Default for Shard<X> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            places: Vec::new(),
            bytes: Vec::new(),
            garbage: 0,
            taken: 0,
            extras: Vec::new(),
        }
    }
}

impl<X> Shard<X> {
    /// The first slot with this tag from a place on, and its record's place.
    fn find(&self, tag: u32, from: usize) -> Option<(usize, u32)> {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = from & mask;
        loop {
            let (found, place) = *self.slots.get(at)?;
            if place == NOTHING {
                return None;
            }
            if found == tag {
                return Some((at, place));
            }
            at = (at + 1) & mask;
        }
    }

    fn entry(&self, shard_number: usize, place: u32) -> Option<Entry<'_, X>> {
        let record = self.bytes.get(place as usize..)?;
        let (header, rest) = record.split_first_chunk::<HEADER>()?;
        let [k0, k1, n0, n1, p0, p1, p2, p3] = *header;
        let key = usize::from(u16::from_le_bytes([k0, k1]));
        let within = u32::from(u16::from_le_bytes([n0, n1]));
        let (payload, rest) =
            rest.split_at_checked(u32::from_le_bytes([p0, p1, p2, p3]) as usize)?;
        let number = number(shard_number, within)?;
        Some(Entry { shard: self, number, within, payload, key: rest.get(..key)? })
    }

    /// Answers whether the key is new, and its number.
    fn put(&mut self, tag: u32, key: &str, payload: &[u8]) -> Option<(bool, u32)> {
        let mut from = tag as usize;
        while let Some((at, place)) = self.find(tag, from) {
            let entry = self.entry(0, place)?;
            if entry.key == key.as_bytes() {
                let (within, before) = (entry.within, entry.payload.len());
                self.replace(at, place, within, key, payload, before)?;
                return Some((false, within));
            }
            from = at + 1;
        }
        if (self.taken + 1) * 4 > self.slots.len() * 3 {
            self.resize((self.slots.len() * 2).max(4));
        }
        let has_free = self.taken < self.places.len();
        let free = || self.places.iter().position(|place| *place == NOTHING);
        let within = has_free.then(free).flatten().unwrap_or(self.places.len());
        // The numbers of a shard are 16 bits of an entry's.
        let within = u32::from(u16::try_from(within).ok()?);
        let place = self.append(within, key, payload)?;
        match self.places.get_mut(within as usize) {
            Some(free) => *free = place,
            None => self.places.push(place),
        }
        self.taken += 1;
        insert(&mut self.slots, tag, place);
        Some((true, within))
    }

    fn replace(
        &mut self,
        at: usize,
        place: u32,
        within: u32,
        key: &str,
        payload: &[u8],
        before: usize,
    ) -> Option<()> {
        if payload.len() == before {
            let start = place as usize + HEADER;
            self.bytes.get_mut(start..start + before)?.copy_from_slice(payload);
            return Some(());
        }
        self.garbage += HEADER + before + key.len();
        let place = self.append(within, key, payload)?;
        self.slots.get_mut(at)?.1 = place;
        *self.places.get_mut(within as usize)? = place;
        self.compact_if_worth_it();
        Some(())
    }

    fn append(&mut self, within: u32, key: &str, payload: &[u8]) -> Option<u32> {
        let place = u32::try_from(self.bytes.len()).ok().filter(|place| *place != NOTHING)?;
        self.bytes.extend(u16::try_from(key.len()).ok()?.to_le_bytes());
        self.bytes.extend(u16::try_from(within).ok()?.to_le_bytes());
        self.bytes.extend(u32::try_from(payload.len()).ok()?.to_le_bytes());
        self.bytes.extend(payload);
        self.bytes.extend(key.as_bytes());
        Some(place)
    }

    fn remove(&mut self, tag: u32, within: u32) {
        let mask = self.slots.len().wrapping_sub(1);
        let mut from = tag as usize;
        let mut hole = loop {
            let Some((at, place)) = self.find(tag, from) else { return };
            match self.entry(0, place) {
                Some(entry) if entry.within == within => {
                    self.garbage += HEADER + entry.payload.len() + entry.key.len();
                    break at;
                }
                _ => from = at + 1,
            }
        };
        if let Some(place) = self.places.get_mut(within as usize) {
            *place = NOTHING;
        }
        self.taken -= 1;
        // What follows the hole and would no longer be found moves into it.
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let Some((tag, place)) = self.slots.get(at).copied() else { return };
            if place == NOTHING {
                break;
            }
            let home = tag as usize & mask;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                if let Some(slot) = self.slots.get_mut(hole) {
                    *slot = (tag, place);
                }
                hole = at;
            }
        }
        if let Some(slot) = self.slots.get_mut(hole) {
            *slot = (0, NOTHING);
        }
        self.compact_if_worth_it();
    }

    fn reserve(&mut self, entries: usize, bytes: usize) {
        self.bytes.reserve_exact(bytes);
        self.places.reserve_exact(entries);
        self.resize((entries * 4).div_ceil(3).next_power_of_two());
    }

    fn resize(&mut self, slots: usize) {
        let mut slots = vec![(0, NOTHING); slots];
        for (tag, place) in self.slots.iter().filter(|(_, place)| *place != NOTHING) {
            insert(&mut slots, *tag, *place);
        }
        self.slots = slots;
    }

    /// Copies what is reached once a third of the bytes is not.
    fn compact_if_worth_it(&mut self) {
        if self.garbage * 3 <= self.bytes.len() {
            return;
        }
        let mut bytes = Vec::with_capacity(self.bytes.len() - self.garbage + ROOM);
        let (mut slots, mut places) = (self.slots.clone(), self.places.clone());
        for (_, place) in slots.iter_mut().filter(|(_, place)| *place != NOTHING) {
            let (Some(entry), Ok(moved)) = (self.entry(0, *place), u32::try_from(bytes.len()))
            else {
                return;
            };
            let length = HEADER + entry.payload.len() + entry.key.len();
            let start = *place as usize;
            let Some(record) = self.bytes.get(start..start + length) else { return };
            bytes.extend(record);
            *place = moved;
            if let Some(place) = places.get_mut(entry.within as usize) {
                *place = moved;
            }
        }
        (self.slots, self.places) = (slots, places);
        self.bytes = bytes;
        self.garbage = 0;
    }
}

/// Puts a record into the first free slot from its tag's own on. There is one.
fn insert(slots: &mut [(u32, u32)], tag: u32, place: u32) {
    let mask = slots.len().wrapping_sub(1);
    let mut at = tag as usize & mask;
    while let Some(slot) = slots.get_mut(at) {
        if slot.1 == NOTHING {
            *slot = (tag, place);
            return;
        }
        at = (at + 1) & mask;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The same numbers on every run.
    struct Draw(u64);

    impl Draw {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
            (self.0 >> 33) as usize % end
        }
    }

    fn same(table: &Table<u32>, map: &BTreeMap<String, (Vec<u8>, Option<u32>)>) {
        assert_eq!(table.len(), map.len());
        for (key, (payload, extra)) in map {
            let entry = table.get(key).unwrap();
            assert_eq!((entry.key(), entry.payload()), (key.as_str(), &payload[..]));
            assert_eq!(entry.extra().map(|extra| **extra), *extra);
            assert_eq!(table.key(entry.number()), key);
        }
        let mut keys: Vec<_> = table.iter().map(|entry| entry.key()).collect();
        keys.sort_unstable();
        assert!(keys.iter().eq(map.keys()));
    }

    /// Whatever comes and goes, in one shard or in many, a table holds what a map does, and versions
    /// that were kept hold what they held.
    #[test]
    fn it_holds_what_a_map_does() {
        for made_for in [0, 5_000] {
            let mut table = Table::new(Seed::random(), made_for);
            let mut map: BTreeMap<String, (Vec<u8>, Option<u32>)> = BTreeMap::new();
            let (mut draw, mut kept) = (Draw(7), Vec::new());
            for step in 0..6_000 {
                let key = format!("acme/{}", draw.below(700));
                match draw.below(10) {
                    0..3 => {
                        table.remove(&key);
                        map.remove(&key);
                    }
                    3 => {
                        if let Some(number) = table.get(&key).map(|entry| entry.number()) {
                            let extra = (draw.below(2) == 0).then_some(step);
                            table.set_extra(number, extra.map(Arc::new));
                            map.get_mut(&key).unwrap().1 = extra;
                        }
                    }
                    4 => {
                        let number = table.get(&key).map(|entry| entry.number());
                        if let Some(number) = number {
                            table.append(number, b"more").unwrap();
                            table.write_at(number, 0, b"M");
                            let payload = &mut map.get_mut(&key).unwrap().0;
                            payload.extend(b"more");
                            payload[0] = b'M';
                        }
                    }
                    5 => {
                        let entry = table.get(&key).filter(|entry| entry.payload().len() > 3);
                        if let Some(number) = entry.map(|entry| entry.number()) {
                            table.cut(number, 1, 2).unwrap();
                            map.get_mut(&key).unwrap().0.drain(1..3);
                        }
                    }
                    _ => {
                        let payload = vec![b'x'; draw.below(40)];
                        let number = table.put(&key, &payload).unwrap();
                        assert_eq!(table.get(&key).unwrap().number(), number);
                        map.entry(key).or_insert((vec![], None)).0 = payload;
                    }
                }
                if step % 1_500 == 700 {
                    kept.push((table.clone(), map.clone()));
                }
            }
            same(&table, &map);
            kept.iter().for_each(|(table, map)| same(table, map));
        }
    }

    /// Keys whose tags are equal are told apart by their text.
    #[test]
    fn equal_tags_are_told_apart() {
        let mut shard: Shard<()> = Shard::default();
        for key in ["a", "b", "c"] {
            assert!(shard.put(7, key, key.as_bytes()).unwrap().0);
        }
        assert_eq!(shard.put(7, "b", b"B"), Some((false, 1)));
        let probe = |key: &str| {
            let (at, place) = shard.find(7, 7)?;
            let probe = Probe { shard: &shard, shard_number: 0, tag: 7, at, place };
            probe.entry(key).map(|entry| entry.payload().to_vec())
        };
        assert_eq!(probe("a").unwrap(), b"a");
        assert_eq!(probe("b").unwrap(), b"B");
        assert_eq!(probe("c").unwrap(), b"c");
        assert_eq!(probe("d"), None);
    }

    /// A shard that has given out all its numbers says so, and loses nothing.
    #[test]
    fn a_full_table_refuses() {
        let mut table: Table<()> = Table::new(Seed::random(), 0);
        for at in 0..=u32::from(u16::MAX) {
            assert!(table.put(&format!("k{at}"), &[]).is_some());
        }
        assert_eq!(table.put("one more", &[]), None);
        assert!(table.get("one more").is_none() && table.get("k65535").is_some());
        assert!(table.is_crowded());
        table.remove("k7");
        assert!(table.put("one more", &[]).is_some());
    }
}
