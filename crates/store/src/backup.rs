//! Backups: the state at one revision as one stream of bytes.
//!
//! ```text
//! view ─▶ write_backup ─▶ chunks ─▶ a file ─▶ BackupReader ─▶ RedbStore::restore
//!
//! start    "capstan-backup\x1A\n": 16 bytes | version: u32 = 1 | record of the head: 87 bytes
//! entry    bytes of the key: u32, at least 1 | key | bytes of the record: u32 | record
//! end      0: u32 | number of entries: u64 | SHA-256 of everything before it: 32 bytes
//! ```
//!
//! Between start and end are all entries of the state, in ascending order of their keys. A record is a value in its envelope,
//! as in the file of a store, so a damaged one is named. The key of the head's record is `head`. Numbers are little-endian.
//! Magic and version stay as they are in every version, so that each program can say which one it found.
//!
//! The digest finds faults, and files that are cut off. It is no signature: who can write the file can compute it.
//!
//! **Invariants**: a length is compared with its limit before memory is taken for it. A reader says that it is at the end
//! only after the digest was found right, and nothing of a backup must be used for good before that.
//!
//! Read `write`, then `read`.

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::io;

use thiserror::Error;

pub use read::{BackupReader, EntryRef};
pub use write::{WriteBackupError, write_backup};

use crate::envelope::ENVELOPE_BYTES;
use crate::{HEAD_BYTES, Head};

/// The first bytes of each backup: text that is no text, so that nobody converts its line ends.
const MAGIC: [u8; 16] = *b"capstan-backup\x1A\n";
/// The version of backups that this program writes, the only one that it reads.
const VERSION: u32 = 1;
/// The key of the head's record.
const HEAD_KEY: &[u8] = b"head";
/// Bytes of the head's record.
const HEAD_RECORD_BYTES: usize = ENVELOPE_BYTES + HEAD_BYTES;

/// What a whole backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The head of the state.
    pub head: Head,
    /// Entries of the state.
    pub entries: u64,
    /// Bytes of the backup.
    pub bytes: u64,
    /// SHA-256 of all but its last 32 bytes, which are this digest.
    pub digest: [u8; 32],
}

/// Why a backup cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BackupError {
    /// It is something else.
    #[error("it is no backup of Capstan: it begins with other bytes")]
    Foreign,
    /// A later version wrote it.
    #[error(
        "it is a backup of version {found}, this program reads version {known}: use a later version"
    )]
    Newer {
        /// The version of the backup.
        found: u32,
        /// The version of this program.
        known: u32,
    },
    /// Its end is missing.
    #[error("the backup is cut off: it ends at byte {0}, before its own end")]
    Truncated(u64),
    /// It is damaged.
    #[error("the backup is corrupt at byte {at}: {reason}")]
    Corrupt {
        /// Where the damaged part begins.
        at: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The system did not read it.
    #[error("the backup cannot be read: {0}")]
    Io(io::Error),
}
