//! Tables, records about the store, and transactions in the log. docs/STORE.md draws them.

use std::collections::VecDeque;
use std::io;

use ::redb::{ReadableTable, Table, TableDefinition};
use bytes::Bytes;

use crate::batch::{bytes_of, text_of};
use crate::head::HEAD_BYTES;
use crate::limits::{LOG_CHUNK_BYTES, WATCH_QUEUE_TRANSACTIONS};
use crate::{Committed, Head, Op, StoreError, envelope};

/// The format of this program. A store with a higher one is refused.
pub(super) const FORMAT: u32 = 1;

pub(super) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;
/// Key to value.
pub(super) const STATE: Definition = TableDefinition::new("state");
/// Sequence number and number of the chunk, both big-endian, to a chunk of a transaction.
pub(super) const LOG: Definition = TableDefinition::new("log");
/// Records about the store.
pub(super) const META: Definition = TableDefinition::new("meta");

/// The format: u32. This record and its envelope must not change, so that each version can read it.
pub(super) const META_FORMAT: &[u8] = b"format";
/// The head, see [`Head::to_bytes`].
pub(super) const META_HEAD: &[u8] = b"head";
/// See [`Kept::to_bytes`].
pub(super) const META_KEPT: &[u8] = b"kept";
/// 32 random bytes.
pub(super) const META_PAGE_KEY: &[u8] = b"page_key";
/// Seconds since 1970: u64.
pub(super) const META_CREATED: &[u8] = b"created";

/// A call of redb failed, or a record is damaged.
#[derive(Debug)]
pub(super) enum TableError {
    /// A failure of the disk, or of a handle after one.
    Failed(io::Error),
    /// What is wrong.
    Corrupt(String),
}

/// From each error of redb. What redb says of tables that are missing or of other types is damage,
/// too: every store has the same.
impl<E: Into<::redb::Error>> From<E> for TableError {
    fn from(error: E) -> Self {
        match error.into() {
            ::redb::Error::Io(error) => Self::Failed(error),
            error @ (::redb::Error::PreviousIo
            | ::redb::Error::DatabaseClosed
            | ::redb::Error::LockPoisoned(_)
            | ::redb::Error::Backend(_)) => Self::Failed(io::Error::other(error)),
            ::redb::Error::Corrupted(reason) => Self::Corrupt(reason),
            other => Self::Corrupt(other.to_string()),
        }
    }
}

impl From<TableError> for StoreError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Failed(error) => Self::Unreachable(error),
            TableError::Corrupt(reason) => Self::Corrupt(reason),
        }
    }
}

/// The transactions in the log: those from `from` up to the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) from: u64,
    /// Bytes of their keys and values.
    pub(super) bytes: u64,
}

impl Kept {
    /// Sequence number and bytes, little-endian.
    pub(super) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let encoded = self.from.to_le_bytes().into_iter().chain(self.bytes.to_le_bytes());
        bytes.iter_mut().zip(encoded).for_each(|(to, from)| *to = from);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (from, rest) = bytes.split_first_chunk()?;
        let bytes = u64::from_le_bytes(rest.try_into().ok()?);
        Some(Self { from: u64::from_le_bytes(*from), bytes })
    }
}

/// The records about a store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    pub(super) head: Head,
    pub(super) kept: Kept,
    pub(super) page_key: [u8; 32],
    /// Seconds since 1970.
    pub(super) created: u64,
}

fn record(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<Vec<u8>>, TableError> {
    let Some(record) = table.get(key)? else { return Ok(None) };
    let value = open(key, record.value())?;
    Ok(Some(value.to_vec()))
}

/// The value of a record.
pub(super) fn open<'r>(key: &[u8], record: &'r [u8]) -> Result<&'r [u8], TableError> {
    envelope::open(key, record)
        .map_err(|reason| TableError::Corrupt(format!("record `{}` {reason}", text_of(key))))
}

/// Writes a record in its envelope.
pub(super) fn put(
    table: &mut Table<'_, &'static [u8], &'static [u8]>,
    key: &[u8],
    value: &[u8],
    scratch: &mut Vec<u8>,
) -> Result<(), TableError> {
    envelope::seal(key, value, scratch);
    table.insert(key, scratch.as_slice())?;
    Ok(())
}

/// The format of a store; `None` if it has no such record.
pub(super) fn format_of(
    meta: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<Option<u32>, TableError> {
    let Some(format) = record(meta, META_FORMAT)? else { return Ok(None) };
    let format = <[u8; 4]>::try_from(&*format).map_err(|_| malformed(META_FORMAT))?;
    Ok(Some(u32::from_le_bytes(format)))
}

/// Reads the records about a store of [`FORMAT`].
pub(super) fn read_meta(
    meta: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<Meta, TableError> {
    let read = |key: &[u8]| record(meta, key)?.ok_or_else(|| malformed(key));
    let head = read(META_HEAD)?;
    let kept = read(META_KEPT)?;
    let page_key = read(META_PAGE_KEY)?;
    let created = read(META_CREATED)?;
    let head = Head::from_bytes(&head).ok_or_else(|| malformed(META_HEAD))?;
    let kept = Kept::from_bytes(&kept).ok_or_else(|| malformed(META_KEPT))?;
    if kept.from == 0 || kept.from > head.seq.saturating_add(1) {
        return Err(malformed(META_KEPT));
    }
    Ok(Meta {
        head,
        kept,
        page_key: page_key.try_into().map_err(|_| malformed(META_PAGE_KEY))?,
        created: u64::from_le_bytes(created.try_into().map_err(|_| malformed(META_CREATED))?),
    })
}

fn malformed(key: &[u8]) -> TableError {
    TableError::Corrupt(format!(
        "record `{}` about the store is missing or malformed",
        text_of(key)
    ))
}

// === The log ===

/// The key of a chunk.
pub(super) fn log_key(seq: u64, chunk: u32) -> [u8; 12] {
    let mut key = [0; 12];
    let encoded = seq.to_be_bytes().into_iter().chain(chunk.to_be_bytes());
    key.iter_mut().zip(encoded).for_each(|(to, from)| *to = from);
    key
}

/// Bytes before the operations of a transaction: the number of its chunks, the bytes of its keys and values, its head.
const START_BYTES: usize = 4 + 8 + HEAD_BYTES;

/// Writes a transaction into the log.
pub(super) fn put_transaction(
    log: &mut Table<'_, &'static [u8], &'static [u8]>,
    head: &Head,
    ops: &[Op],
    scratch: &mut Vec<u8>,
) -> Result<(), TableError> {
    let bytes = bytes_of(ops);
    let mut encoded = Vec::with_capacity(START_BYTES);
    encoded.extend([0; 4]);
    encoded.extend(bytes.to_le_bytes());
    encoded.extend(head.to_bytes());
    for op in ops {
        op.encode(&mut |part| encoded.extend_from_slice(part));
    }
    let chunks = u32::try_from(encoded.len().div_ceil(LOG_CHUNK_BYTES)).unwrap_or(u32::MAX);
    encoded.iter_mut().zip(chunks.to_le_bytes()).for_each(|(to, from)| *to = from);
    for (number, chunk) in (0_u32..).zip(encoded.chunks(LOG_CHUNK_BYTES)) {
        put(log, &log_key(head.seq, number), chunk, scratch)?;
    }
    Ok(())
}

/// Removes a transaction from the log. Returns the bytes of its keys and values.
pub(super) fn remove_transaction(
    log: &mut Table<'_, &'static [u8], &'static [u8]>,
    seq: u64,
) -> Result<u64, TableError> {
    let key = log_key(seq, 0);
    let (chunks, bytes) = {
        let Some(first) = log.remove(key.as_slice())? else { return Err(missing(seq, 0)) };
        start_of(open(&key, first.value())?).ok_or_else(|| malformed_transaction(seq))?
    };
    for chunk in 1..chunks {
        log.remove(log_key(seq, chunk).as_slice())?;
    }
    Ok(bytes)
}

fn read_chunk(
    log: &impl ReadableTable<&'static [u8], &'static [u8]>,
    seq: u64,
    chunk: u32,
) -> Result<Vec<u8>, TableError> {
    record(log, &log_key(seq, chunk))?.ok_or_else(|| missing(seq, chunk))
}

fn missing(seq: u64, chunk: u32) -> TableError {
    TableError::Corrupt(format!("chunk {chunk} of transaction {seq} is missing in the log"))
}

/// The number of chunks of a transaction, and the bytes of its keys and values.
fn start_of(first: &[u8]) -> Option<(u32, u64)> {
    let (chunks, rest) = first.split_first_chunk()?;
    let (bytes, _) = rest.split_first_chunk()?;
    Some((u32::from_le_bytes(*chunks), u64::from_le_bytes(*bytes)))
}

fn malformed_transaction(seq: u64) -> TableError {
    TableError::Corrupt(format!("transaction {seq} is malformed in the log"))
}

/// A transaction of the log.
pub(super) struct Logged {
    pub(super) committed: Committed,
    pub(super) chunks: u32,
}

/// Reads a transaction of the log.
pub(super) fn read_transaction(
    log: &impl ReadableTable<&'static [u8], &'static [u8]>,
    seq: u64,
) -> Result<Logged, TableError> {
    let first = read_chunk(log, seq, 0)?;
    let (chunks, _) = start_of(&first).ok_or_else(|| malformed_transaction(seq))?;
    read_rest(log, seq, first, chunks)
}

/// Reads the chunks of a transaction behind the first one.
fn read_rest(
    log: &impl ReadableTable<&'static [u8], &'static [u8]>,
    seq: u64,
    first: Vec<u8>,
    chunks: u32,
) -> Result<Logged, TableError> {
    let mut encoded = first;
    for chunk in 1..chunks {
        encoded.extend(read_chunk(log, seq, chunk)?);
    }
    let decode = |encoded: Vec<u8>| {
        let (start, _) = encoded.split_at_checked(START_BYTES)?;
        let head = Head::from_bytes(start.get(START_BYTES - HEAD_BYTES..)?)?;
        let mut rest = Bytes::from(encoded).split_off(START_BYTES);
        let mut ops = Vec::new();
        while !rest.is_empty() {
            ops.push(Op::decode(&mut rest)?);
        }
        (head.seq == seq && ops.len() as u64 == u64::from(head.n_ops))
            .then_some(Logged { committed: Committed { head, ops }, chunks })
    };
    decode(encoded).ok_or_else(|| malformed_transaction(seq))
}

/// Reads transactions of the log from this sequence number up to `last`: at least one, and no more than
/// [`WATCH_QUEUE_TRANSACTIONS`] and `bytes_max` bytes of keys and values allow.
pub(super) fn read_transactions(
    log: &impl ReadableTable<&'static [u8], &'static [u8]>,
    from: u64,
    last: u64,
    bytes_max: u64,
) -> Result<VecDeque<Committed>, TableError> {
    let mut read = VecDeque::new();
    let mut bytes = 0_u64;
    for seq in (from..=last).take(WATCH_QUEUE_TRANSACTIONS) {
        let first = read_chunk(log, seq, 0)?;
        let (chunks, more) = start_of(&first).ok_or_else(|| malformed_transaction(seq))?;
        bytes = bytes.saturating_add(more);
        if bytes > bytes_max && !read.is_empty() {
            break;
        }
        read.push_back(read_rest(log, seq, first, chunks)?.committed);
    }
    Ok(read)
}
