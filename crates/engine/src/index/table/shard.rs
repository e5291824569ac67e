//! A shard: its records, and the offset of each by its number.
//!
//! ```text
//! fingerprint: u128   bytes of the key: u16   number: u16   bytes of the payload: u32   payload   key
//! ```

use std::sync::Arc;

use super::{EMPTY, Extra};
use crate::index::hash::Fingerprint;

/// Bytes of a record before its payload.
const HEADER: usize = 24;
/// Bytes of one unit of an offset: records start at multiples of it.
pub(super) const UNIT: usize = 16;
/// The least number of bytes by which records grow: a record of usual size.
const GROWTH_MIN: usize = 512;

/// The records of a shard, and spare capacity. They are separate from the rest of the shard because a look-up
/// needs nothing else, so that the pointers to them stay cached.
pub(super) type Records = Arc<[u8]>;

/// A shard without its records.
#[derive(Debug)]
pub(super) struct Shard<X> {
    /// The offset of the record of each number, and spare capacity.
    offsets: Arc<[u32]>,
    /// The extra values of the few entries that have one, sorted by number.
    extras: Arc<[(u32, Arc<X>)]>,
    /// Bytes of all records that were written, garbage included.
    used: u32,
    /// Bytes of records that no number leads to any more.
    garbage: u32,
    /// One more than the highest number that was ever used.
    numbers: u32,
    taken: u32,
}

/// A record, read in offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'t> {
    pub(super) fingerprint: Fingerprint,
    pub(super) within: u32,
    pub(super) payload: &'t [u8],
    pub(super) key: &'t [u8],
}

impl<'t> Record<'t> {
    pub(super) fn read(records: &'t [u8], offset: u32) -> Option<Self> {
        let record = records.get(offset as usize * UNIT..)?;
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

    /// Writes it to its bytes. Its lengths fit into the header.
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

/// The records of a shard while they are copied without garbage.
pub(super) struct Compaction {
    bytes: Vec<u8>,
    offsets: Vec<u32>,
}

impl Compaction {
    /// Copies the record at an offset, and returns its new offset.
    pub(super) fn record(&mut self, records: &[u8], offset: u32) -> u32 {
        let start = offset as usize * UNIT;
        let moved = u32::try_from(self.bytes.len() / UNIT).unwrap_or(EMPTY);
        if let Some(record) = Record::read(records, offset)
            && let Some(copied) = records.get(start..start + record.length())
        {
            self.bytes.extend(copied);
            if let Some(offset) = self.offsets.get_mut(record.within as usize) {
                *offset = moved;
            }
        }
        moved
    }
}

/// Bytes of a record, rounded up to units.
pub(super) const fn length(key: &[u8], payload: usize) -> usize {
    (HEADER + payload + key.len()).next_multiple_of(UNIT)
}

impl<X> Clone for Shard<X> {
    fn clone(&self) -> Self {
        Self { offsets: Arc::clone(&self.offsets), extras: Arc::clone(&self.extras), ..*self }
    }
}

impl<X> Default for Shard<X> {
    fn default() -> Self {
        let (offsets, extras) = (Arc::default(), Arc::default());
        Self { offsets, extras, used: 0, garbage: 0, numbers: 0, taken: 0 }
    }
}

impl<X> Shard<X> {
    pub(super) const fn taken(&self) -> usize {
        self.taken as usize
    }

    /// The offset of the record of a number; [`EMPTY`] if there is none.
    pub(super) fn offset(&self, within: u32) -> u32 {
        self.offsets.get(within as usize).copied().unwrap_or(EMPTY)
    }

    pub(super) fn offsets(&self) -> impl Iterator<Item = u32> + Clone {
        self.offsets.iter().copied().filter(|offset| *offset != EMPTY)
    }

    /// The numbers that are taken.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> + Clone {
        (0u32..).zip(self.offsets.iter()).filter(|(_, offset)| **offset != EMPTY).map(|(at, _)| at)
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

    /// A number that is not used; `None` if all are.
    pub(super) fn free_number(&self) -> Option<u32> {
        let free = || self.offsets.iter().position(|offset| *offset == EMPTY);
        let has_free = self.taken < self.numbers;
        let within = has_free.then(free).flatten().unwrap_or(self.numbers as usize);
        // Numbers within a shard have 16 bits.
        u16::try_from(within).ok().map(u32::from)
    }

    /// Appends a record, and returns its offset. `None` if the offset would not be below `end`, or a part is
    /// too long for the header.
    pub(super) fn append(
        &mut self,
        records: &mut Records,
        record: Record<'_>,
        end: u32,
    ) -> Option<u32> {
        let Record { within, key, payload, .. } = record;
        let start = self.used as usize;
        let offset = u32::try_from(start / UNIT).ok().filter(|offset| *offset < end)?;
        let used = start + record.length();
        let next = u32::try_from(used).ok()?;
        // The header has 16 and 32 bits for them.
        u16::try_from(key.len()).ok()?;
        u32::try_from(payload.len()).ok()?;
        if records.len() < used {
            *records =
                longer(records.get(..start)?, record.length() + (start / 8).max(GROWTH_MIN), 0);
        }
        record.write(Arc::make_mut(records).get_mut(start..used)?);
        self.used = next;
        if within as usize >= self.offsets.len() {
            self.offsets = longer(&self.offsets, self.offsets.len() / 8 + 1, EMPTY);
        }
        let old = Arc::make_mut(&mut self.offsets).get_mut(within as usize)?;
        if std::mem::replace(old, offset) == EMPTY {
            self.taken += 1;
            self.numbers = self.numbers.max(within + 1);
        }
        Some(offset)
    }

    /// Overwrites the record that has the same number, which has as many bytes or more.
    pub(super) fn rewrite(&self, records: &mut Records, record: Record<'_>) {
        let start = self.offset(record.within) as usize * UNIT;
        let end = start + record.length();
        // Copies the shard only if the record is there and changes.
        let is_same = Record::read(records, self.offset(record.within))
            .is_none_or(|old| old.payload == record.payload);
        if !is_same && let Some(old) = Arc::make_mut(records).get_mut(start..end) {
            record.write(old);
        }
    }

    /// Overwrites a part of the payload of a number.
    pub(super) fn write_at(&self, records: &mut Records, within: u32, at: usize, bytes: &[u8]) {
        let start = self.offset(within) as usize * UNIT + HEADER + at;
        // Copies the shard only if the record is there and changes.
        if records.get(start..start + bytes.len()).is_some_and(|old| old != bytes)
            && let Some(old) = Arc::make_mut(records).get_mut(start..start + bytes.len())
        {
            old.copy_from_slice(bytes);
        }
    }

    pub(super) const fn has_garbage(&self) -> bool {
        self.garbage > 0
    }

    /// Frees a number, and drops its extra value. The caller counts its record as garbage with
    /// [`Self::abandon`].
    pub(super) fn release(&mut self, within: u32) {
        self.set_extra(within, None);
        if let Some(offset) = Arc::make_mut(&mut self.offsets).get_mut(within as usize) {
            *offset = EMPTY;
            self.taken -= 1;
        }
    }

    /// Counts bytes as garbage. Returns whether a third of all bytes are: then the shard is worth
    /// compacting.
    pub(super) fn abandon(&mut self, length: usize) -> bool {
        self.garbage = self.garbage.saturating_add(u32::try_from(length).unwrap_or(u32::MAX));
        u64::from(self.garbage) * 3 > u64::from(self.used)
    }

    /// Starts a copy without garbage.
    pub(super) fn compact(&self, records: &Records) -> Compaction {
        let capacity = (self.used.saturating_sub(self.garbage)) as usize + GROWTH_MIN;
        let offsets = vec![EMPTY; self.offsets.len()];
        Compaction { bytes: Vec::with_capacity(capacity.min(records.len() + GROWTH_MIN)), offsets }
    }

    /// Ends the copy. Returns the records, which replace the old ones.
    pub(super) fn finish(&mut self, copy: Compaction) -> Records {
        let Compaction { mut bytes, offsets } = copy;
        self.used = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.garbage = 0;
        self.offsets = offsets.into();
        bytes.resize(bytes.len() + GROWTH_MIN, 0);
        bytes.into()
    }

    /// Reserves exactly so many entries and bytes in an empty shard.
    pub(super) fn reserve(&mut self, records: &mut Records, entries: usize, bytes: usize) {
        *records = longer(&[], bytes, 0);
        self.offsets = longer(&[], entries, EMPTY);
    }

    /// Bytes of the shard, without records and extra values.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.offsets)
    }
}

impl<X: Extra> Shard<X> {
    /// Bytes of the index in extra values.
    pub(super) fn extras_bytes(&self) -> usize {
        self.extras.iter().map(|(_, extra)| extra.bytes()).sum()
    }

    /// Those of [`Self::extras_bytes`] that another shard does not share, at most.
    pub(super) fn extras_beside(&self, other: &Self) -> usize {
        if Arc::ptr_eq(&self.extras, &other.extras) {
            return 0;
        }
        let beside = |(within, extra): &(u32, Arc<X>)| match other.extra(*within) {
            Some(other) if Arc::ptr_eq(extra, other) => 0,
            Some(other) => extra.bytes_beside(other),
            None => extra.bytes(),
        };
        self.extras.iter().map(beside).sum()
    }
}

/// A copy with spare capacity, filled with `filler`.
fn longer<T: Copy>(all: &[T], spare: usize, filler: T) -> Arc<[T]> {
    let mut copy = Vec::with_capacity(all.len() + spare);
    copy.extend_from_slice(all);
    copy.resize(all.len() + spare, filler);
    copy.into()
}
