//! Writes a view as a backup.

use std::io::{self, Write};
use std::ops::Bound;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{Backup, HEAD_KEY, MAGIC, VERSION};
use crate::{StoreError, View, envelope};

/// Why a backup was not written to its end.
#[derive(Debug, Error)]
pub enum WriteBackupError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody takes it.
    #[error("the backup cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// Writes the state of a view, entry by entry: no more than one of them is held in memory. Writes are as small as entries
/// are. This blocks as long as `to` does.
///
/// # Errors
///
/// The store cannot be read, or `to` written. Then the backup lacks its end, and no [`BackupReader`](super::BackupReader)
/// takes it for a whole one.
pub fn write_backup(view: &dyn View, to: impl Write) -> Result<Backup, WriteBackupError> {
    let head = view.head();
    let mut out = Out { to, hash: Sha256::new(), bytes: 0 };
    let mut record = Vec::new();
    envelope::seal(HEAD_KEY, &head.to_bytes(), &mut record);
    for part in [&MAGIC[..], &VERSION.to_le_bytes(), &record] {
        out.put(part)?;
    }
    let (mut entries, mut failed) = (0_u64, None);
    view.scan((Bound::Unbounded, Bound::Unbounded), &mut |key, value| {
        envelope::seal(key, value, &mut record);
        let written = out.part(key).and_then(|()| out.part(&record));
        entries = entries.saturating_add(1);
        failed = written.err();
        failed.is_none()
    })?;
    failed.map_or(Ok(()), Err)?;
    out.put(&0_u32.to_le_bytes())?;
    out.put(&entries.to_le_bytes())?;
    let digest: [u8; 32] = out.hash.clone().finalize().into();
    out.put(&digest)?;
    out.to.flush()?;
    Ok(Backup { head, entries, bytes: out.bytes, digest })
}

struct Out<W> {
    to: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Out<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        self.to.write_all(bytes)
    }

    /// Bytes behind their length, which limits of the store keep far below 4 GiB.
    fn part(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.put(&length.to_le_bytes())?;
        self.put(bytes)
    }
}
