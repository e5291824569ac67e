//! Reads and verifies a backup.

use std::fmt;
use std::io::{self, BufReader, Read};

use sha2::{Digest as _, Sha256};

use super::{Backup, BackupError, HEAD_KEY, HEAD_RECORD_BYTES, MAGIC, VERSION};
use crate::batch::text_of;
use crate::envelope::{self, ENVELOPE_BYTES};
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::{DIGEST_BYTES, Head};

/// A key and its value, of the entry that was read last.
pub type EntryRef<'r> = (&'r [u8], &'r [u8]);

/// A backup that is read entry by entry: no more than one of them is held in memory. All reads block.
pub struct BackupReader<R> {
    from: Source<R>,
    head: Head,
    /// The last entry.
    key: Vec<u8>,
    record: Vec<u8>,
    entries: u64,
    whole: Option<Backup>,
}

impl<R> fmt::Debug for BackupReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { head, entries, whole, .. } = self;
        f.debug_struct("BackupReader")
            .field("head", head)
            .field("entries", entries)
            .field("whole", whole)
            .finish_non_exhaustive()
    }
}

impl<R: Read> BackupReader<R> {
    /// Reads the start of a backup.
    ///
    /// # Errors
    ///
    /// It is no backup or one of a later version, or its start is damaged.
    pub fn new(from: R) -> Result<Self, BackupError> {
        let mut from = Source { from: BufReader::new(from), hash: Sha256::new(), at: 0 };
        from.magic()?;
        let at = from.at;
        let version = u32::from_le_bytes(from.array()?);
        if version > VERSION {
            return Err(BackupError::Newer { found: version, known: VERSION });
        }
        if version != VERSION {
            return Err(corrupt(at, format!("there is no version {version}")));
        }
        let at = from.at;
        let record: [u8; HEAD_RECORD_BYTES] = from.array()?;
        let head = envelope::open(HEAD_KEY, &record)
            .map_err(|reason| corrupt(at, format!("the record of its head {reason}")))?;
        let head = Head::decode(head)
            .ok_or_else(|| corrupt(at, "its head is one that no store has".to_owned()))?;
        Ok(Self { from, head, key: vec![], record: vec![], entries: 0, whole: None })
    }

    /// The head of the state, which is not proved before the end of the backup is.
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// Entries that were read.
    pub const fn entries(&self) -> u64 {
        self.entries
    }

    /// Bytes that were read.
    pub const fn bytes(&self) -> u64 {
        self.from.at
    }

    /// The next key and value; `None` at the end, which proves all that was read: [`Self::whole`] is there then.
    ///
    /// # Errors
    ///
    /// The backup is damaged or cut off. Nothing of it must be used then.
    #[expect(clippy::should_implement_trait, reason = "an entry is borrowed from the reader")]
    pub fn next(&mut self) -> Result<Option<EntryRef<'_>>, BackupError> {
        if self.whole.is_some() {
            return Ok(None);
        }
        let at = self.from.at;
        let key_bytes = self.from.length()?;
        if key_bytes == 0 {
            self.whole = Some(self.end(at)?);
            return Ok(None);
        }
        if key_bytes > KEY_BYTES_MAX {
            let reason =
                format!("a key of {key_bytes} bytes, at most {KEY_BYTES_MAX} are possible");
            return Err(corrupt(at, reason));
        }
        let mut key = vec![0; key_bytes];
        self.from.fill(&mut key)?;
        if self.entries > 0 && key <= self.key {
            let reason = format!("key `{}` does not come after the one before", text_of(&key));
            return Err(corrupt(at, reason));
        }
        let record_bytes = self.from.length()?;
        if record_bytes > ENVELOPE_BYTES + VALUE_BYTES_MAX {
            let reason = format!(
                "the record of key `{}` has {record_bytes} bytes, at most {} are possible",
                text_of(&key),
                ENVELOPE_BYTES + VALUE_BYTES_MAX
            );
            return Err(corrupt(at, reason));
        }
        self.record.resize(record_bytes, 0);
        self.from.fill(&mut self.record)?;
        let value = envelope::open(&key, &self.record)
            .map_err(|reason| corrupt(at, format!("record `{}` {reason}", text_of(&key))))?;
        self.entries = self.entries.saturating_add(1);
        self.key = key;
        Ok(Some((&self.key, value)))
    }

    /// What the backup holds, once [`Self::next`] has found its end.
    pub const fn whole(&self) -> Option<&Backup> {
        self.whole.as_ref()
    }

    /// Reads all that is left.
    ///
    /// # Errors
    ///
    /// As [`Self::next`].
    pub fn finish(&mut self) -> Result<Backup, BackupError> {
        loop {
            if let Some(whole) = self.whole {
                return Ok(whole);
            }
            self.next()?;
        }
    }

    /// Reads the end behind its zero, which begins at `at`.
    fn end(&mut self, at: u64) -> Result<Backup, BackupError> {
        let entries = u64::from_le_bytes(self.from.array()?);
        if entries != self.entries {
            let reason = format!("{} entries, and {entries} by its end", self.entries);
            return Err(corrupt(at, reason));
        }
        let digest: [u8; DIGEST_BYTES] = self.from.hash.clone().finalize().into();
        let at = self.from.at;
        if self.from.array()? != digest {
            let reason = "the digest is not that of what comes before it".to_owned();
            return Err(corrupt(at, reason));
        }
        let bytes = self.from.at;
        if self.from.some(&mut [0])? > 0 {
            return Err(corrupt(bytes, "it goes on behind its end".to_owned()));
        }
        Ok(Backup { head: self.head, entries, bytes, digest })
    }
}

/// Bytes, their digest, and how many there were.
struct Source<R> {
    from: BufReader<R>,
    hash: Sha256,
    at: u64,
}

impl<R: Read> Source<R> {
    /// Fills a buffer, or the start of it if no more is there. Returns how many bytes that are.
    fn some(&mut self, to: &mut [u8]) -> Result<usize, BackupError> {
        let mut rest = &mut *to;
        while !rest.is_empty() {
            match self.from.read(rest) {
                Ok(0) => break,
                Ok(read) => rest = rest.split_at_mut_checked(read).map_or(&mut [], |it| it.1),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(BackupError::Io(error)),
            }
        }
        let read = {
            let left = rest.len();
            to.len().saturating_sub(left)
        };
        let (filled, _) = to.split_at(read);
        self.hash.update(filled);
        self.at = self.at.saturating_add(read as u64);
        Ok(read)
    }

    fn fill(&mut self, to: &mut [u8]) -> Result<(), BackupError> {
        if self.some(to)? < to.len() { Err(BackupError::Truncated(self.at)) } else { Ok(()) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut array = [0; N];
        self.fill(&mut array)?;
        Ok(array)
    }

    fn length(&mut self) -> Result<usize, BackupError> {
        let length = u32::from_le_bytes(self.array()?);
        // On a machine where it does not fit it is beyond each limit, too.
        Ok(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn magic(&mut self) -> Result<(), BackupError> {
        let mut start = [0; MAGIC.len()];
        let read = self.some(&mut start)?;
        let is_ours = start.iter().zip(MAGIC).take(read).all(|(found, ours)| *found == ours);
        match (is_ours, read == MAGIC.len()) {
            (true, true) => Ok(()),
            (true, false) => Err(BackupError::Truncated(self.at)),
            (false, _) => Err(BackupError::Foreign),
        }
    }
}

const fn corrupt(at: u64, reason: String) -> BackupError {
    BackupError::Corrupt { at, reason }
}
