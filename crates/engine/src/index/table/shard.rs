//! The records of a shard, and what they are numbered by.
//!
//! ```text
//! fingerprint: u128   bytes of the key: u16   number: u16   bytes of the payload: u32   payload   key
//! ```

use std::sync::Arc;

use super::NOTHING;
use crate::index::hash::Fingerprint;

/// Bytes before a payload.
const HEADER: usize = 24;
/// Bytes that a place counts: records begin at multiples of it.
pub(super) const UNIT: usize = 16;
/// Bytes that are made room for at least, once there is no more: a record of usual size.
const ROOM: usize = 512;

/// The records of a shard, and room for more. They stand apart from the rest of it: a look-up needs
/// no more, so that what finds them is near.
pub(super) type Records = Arc<[u8]>;

/// The rest of a shard.
#[derive(Debug)]
pub(super) struct Shard<X> {
    /// Where the record of each number begins, and room for more.
    places: Arc<[u32]>,
    /// What few entries have beside their payload, by number.
    extras: Arc<[(u32, Arc<X>)]>,
    /// How many bytes have records, or had.
    used: u32,
    /// Bytes of records that are no longer reached.
    garbage: u32,
    /// How many numbers are taken, or were.
    numbers: u32,
    taken: u32,
}

/// A record, as it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'t> {
    pub(super) fingerprint: Fingerprint,
    pub(super) within: u32,
    pub(super) payload: &'t [u8],
    pub(super) key: &'t [u8],
}

impl<'t> Record<'t> {
    pub(super) fn read(records: &'t [u8], place: u32) -> Option<Self> {
        let record = records.get(place as usize * UNIT..)?;
        let (header, rest) = record.split_first_chunk::<HEADER>()?;
        let (fingerprint, lengths) = header.split_first_chunk()?;
        let [k0, k1, n0, n1, p0, p1, p2, p3] = *lengths.first_chunk()?;
        let key = usize::from(u16::from_le_bytes([k0, k1]));
        let (payload, rest) =
            rest.split_at_checked(u32::from_le_bytes([p0, p1, p2, p3]) as usize)?;
        Some(Self {
            fingerprint: Fingerprint(u128::from_le_bytes(*fingerprint)),
            within: u32::from(u16::from_le_bytes([n0, n1])),
            payload,
            key: rest.get(..key)?,
        })
    }

    /// Bytes that it takes.
    fn length(&self) -> usize {
        length(self.key, self.payload.len())
    }

    /// Fills the bytes that it takes. Its lengths are such that a header can say them.
    fn write(self, mut rest: &mut [u8]) {
        let Self { fingerprint, within, payload, key } = self;
        for part in [
            &fingerprint.0.to_le_bytes()[..],
            &u16::try_from(key.len()).unwrap_or_default().to_le_bytes(),
            &u16::try_from(within).unwrap_or_default().to_le_bytes(),
            &u32::try_from(payload.len()).unwrap_or_default().to_le_bytes(),
            payload,
            key,
        ] {
            let Some((to, after)) = rest.split_at_mut_checked(part.len()) else { return };
            to.copy_from_slice(part);
            rest = after;
        }
    }
}

/// The records of a shard on their way to another place.
pub(super) struct Copy {
    bytes: Vec<u8>,
    places: Vec<u32>,
}

impl Copy {
    /// Copies the record of a place, and answers its new one.
    pub(super) fn record(&mut self, records: &[u8], place: u32) -> u32 {
        let start = place as usize * UNIT;
        let moved = u32::try_from(self.bytes.len() / UNIT).unwrap_or(NOTHING);
        if let Some(record) = Record::read(records, place)
            && let Some(copied) = records.get(start..start + record.length())
        {
            self.bytes.extend(copied);
            if let Some(place) = self.places.get_mut(record.within as usize) {
                *place = moved;
            }
        }
        moved
    }
}

/// Bytes that a record takes.
pub(super) const fn length(key: &[u8], payload: usize) -> usize {
    (HEADER + payload + key.len()).next_multiple_of(UNIT)
}

impl<X> Clone for Shard<X> {
    fn clone(&self) -> Self {
        Self { places: Arc::clone(&self.places), extras: Arc::clone(&self.extras), ..*self }
    }
}

impl<X> Default for Shard<X> {
    fn default() -> Self {
        let (places, extras) = (Arc::default(), Arc::default());
        Self { places, extras, used: 0, garbage: 0, numbers: 0, taken: 0 }
    }
}

impl<X> Shard<X> {
    pub(super) const fn taken(&self) -> usize {
        self.taken as usize
    }

    /// Where the record of a number is; [`NOTHING`] if there is none.
    pub(super) fn place(&self, within: u32) -> u32 {
        self.places.get(within as usize).copied().unwrap_or(NOTHING)
    }

    pub(super) fn places(&self) -> impl Iterator<Item = u32> + Clone {
        self.places.iter().copied().filter(|place| *place != NOTHING)
    }

    /// The numbers that are taken.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> + Clone {
        (0u32..).zip(self.places.iter()).filter(|(_, place)| **place != NOTHING).map(|(at, _)| at)
    }

    pub(super) fn extra(&self, within: u32) -> Option<&Arc<X>> {
        let at = self.extras.binary_search_by_key(&within, |(number, _)| *number).ok()?;
        self.extras.get(at).map(|(_, extra)| extra)
    }

    pub(super) fn set_extra(&mut self, within: u32, extra: Option<Arc<X>>) {
        let at = self.extras.partition_point(|(number, _)| *number < within);
        let (before, after) = self.extras.split_at_checked(at).unwrap_or((&self.extras, &[]));
        let is_there = after.first().is_some_and(|(number, _)| *number == within);
        if is_there || extra.is_some() {
            let after = after.get(usize::from(is_there)..).unwrap_or_default();
            let one = extra.map(|extra| (within, extra));
            self.extras = before.iter().cloned().chain(one).chain(after.iter().cloned()).collect();
        }
    }

    /// A number that is free; nothing if none is.
    pub(super) fn free_number(&self) -> Option<u32> {
        let free = || self.places.iter().position(|place| *place == NOTHING);
        let has_free = self.taken < self.numbers;
        let within = has_free.then(free).flatten().unwrap_or(self.numbers as usize);
        // The numbers of a shard are 16 bits of an entry's.
        u16::try_from(within).ok().map(u32::from)
    }

    /// Puts a record behind the others, and answers its place, which is less than `end`; nothing if
    /// it would not be, or parts are longer than they can be.
    pub(super) fn append(
        &mut self,
        records: &mut Records,
        record: Record<'_>,
        end: u32,
    ) -> Option<u32> {
        let Record { within, key, payload, .. } = record;
        let start = self.used as usize;
        let place = u32::try_from(start / UNIT).ok().filter(|place| *place < end)?;
        let used = start + record.length();
        let next = u32::try_from(used).ok()?;
        // What a header can say.
        u16::try_from(key.len()).ok()?;
        u32::try_from(payload.len()).ok()?;
        if records.len() < used {
            *records = longer(records.get(..start)?, record.length() + (start / 8).max(ROOM), 0);
        }
        record.write(Arc::make_mut(records).get_mut(start..used)?);
        self.used = next;
        if within as usize >= self.places.len() {
            self.places = longer(&self.places, self.places.len() / 8 + 1, NOTHING);
        }
        let old = Arc::make_mut(&mut self.places).get_mut(within as usize)?;
        if std::mem::replace(old, place) == NOTHING {
            self.taken += 1;
            self.numbers = self.numbers.max(within + 1);
        }
        Some(place)
    }

    /// Writes a record over the one that has its number, which takes as many bytes or more.
    pub(super) fn rewrite(&self, records: &mut Records, record: Record<'_>) {
        let start = self.place(record.within) as usize * UNIT;
        let end = start + record.length();
        // A copy only for what is there, and changes.
        let is_same = Record::read(records, self.place(record.within))
            .is_none_or(|old| old.payload == record.payload);
        if !is_same && let Some(old) = Arc::make_mut(records).get_mut(start..end) {
            record.write(old);
        }
    }

    /// Overwrites a part of the payload of a number.
    pub(super) fn write_at(&self, records: &mut Records, within: u32, at: usize, bytes: &[u8]) {
        let start = self.place(within) as usize * UNIT + HEADER + at;
        // A copy only for what is there, and changes.
        if records.get(start..start + bytes.len()).is_some_and(|old| old != bytes)
            && let Some(old) = Arc::make_mut(records).get_mut(start..start + bytes.len())
        {
            old.copy_from_slice(bytes);
        }
    }

    pub(super) const fn has_garbage(&self) -> bool {
        self.garbage > 0
    }

    /// Gives a number back, with what it had beside its payload. Its record is the caller's to
    /// [`Self::abandon`].
    pub(super) fn release(&mut self, within: u32) {
        self.set_extra(within, None);
        if let Some(place) = Arc::make_mut(&mut self.places).get_mut(within as usize) {
            *place = NOTHING;
            self.taken -= 1;
        }
    }

    /// Counts the bytes of a record that is no longer reached. Answers whether a third of all bytes
    /// are such: then they are worth copying.
    pub(super) fn abandon(&mut self, length: usize) -> bool {
        self.garbage = self.garbage.saturating_add(u32::try_from(length).unwrap_or(u32::MAX));
        u64::from(self.garbage) * 3 > u64::from(self.used)
    }

    /// Begins to copy the records that are reached.
    pub(super) fn compact(&self, records: &Records) -> Copy {
        let room = (self.used.saturating_sub(self.garbage)) as usize + ROOM;
        let places = vec![NOTHING; self.places.len()];
        Copy { bytes: Vec::with_capacity(room.min(records.len() + ROOM)), places }
    }

    /// The records that were copied take the place of the others.
    pub(super) fn finish(&mut self, copy: Copy) -> Records {
        let Copy { mut bytes, places } = copy;
        self.used = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.garbage = 0;
        self.places = places.into();
        bytes.resize(bytes.len() + ROOM, 0);
        bytes.into()
    }

    /// Makes room for just so many entries and bytes, in a shard that has none.
    pub(super) fn reserve(&mut self, records: &mut Records, entries: usize, bytes: usize) {
        *records = longer(&[], bytes, 0);
        self.places = longer(&[], entries, NOTHING);
    }

    /// Bytes that it holds, apart from its records and what entries have beside their payload.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.places)
    }
}

/// A copy with room behind it.
fn longer<T: std::marker::Copy>(all: &[T], room: usize, nothing: T) -> Arc<[T]> {
    let mut copy = Vec::with_capacity(all.len() + room);
    copy.extend_from_slice(all);
    copy.resize(all.len() + room, nothing);
    copy.into()
}
