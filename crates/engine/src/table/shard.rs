//! A shard of a table: slots by tag, and the records that they point to.

use std::sync::Arc;

use super::{Entry, HEADER, NOTHING, number};

/// Bytes that a copy of a shard has to spare, for a record of usual size.
const ROOM: usize = 512;

#[derive(Debug)]
pub(crate) struct Shard<X> {
    /// Open addressing by the tag; a power of two of them, at most three quarters taken.
    pub(super) slots: Vec<(u32, u32)>,
    /// Where the record of each number begins.
    pub(super) places: Vec<u32>,
    pub(super) bytes: Vec<u8>,
    /// Bytes of records that are no longer reached.
    pub(super) garbage: usize,
    pub(super) taken: usize,
    /// What few entries have beside their payload, by number.
    pub(super) extras: Vec<(u32, Arc<X>)>,
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
    pub(super) fn find(&self, tag: u32, from: usize) -> Option<(usize, u32)> {
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

    pub(super) fn entry(&self, shard_number: usize, place: u32) -> Option<Entry<'_, X>> {
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
    pub(super) fn put(&mut self, tag: u32, key: &str, payload: &[u8]) -> Option<(bool, u32)> {
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

    pub(super) fn remove(&mut self, tag: u32, within: u32) {
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

    pub(super) fn reserve(&mut self, entries: usize, bytes: usize) {
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
