//! A watched file. File events come from its folder, because most programs replace a file instead
//! of writing it in place. A tick checks the file too, because the target of a symbolic link
//! changes without an event.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use super::reload::{Reload, Wake};
use crate::limits::{SETTLE, SETTLE_IN_PLACE, SETTLE_MAX};

/// A file, if the document has one, and its state when it was last read.
#[derive(Debug, Default)]
pub(crate) struct WatchedFile {
    path: Option<PathBuf>,
    read: Option<State>,
}

/// Inode, length and modification time: two states differ if the file has changed.
type State = (u64, u64, Option<std::time::SystemTime>);

impl WatchedFile {
    pub(crate) const fn new(path: Option<PathBuf>) -> Self {
        Self { path, read: None }
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Records the state of the file. Call it before reading, so that no later change is missed.
    pub(crate) fn record_state(&mut self) {
        self.read = self.state();
    }

    /// Notes that a load has failed. An unreadable file is due again at the next tick. An invalid
    /// document is due again when the file changes.
    pub(crate) fn failed(&mut self, error: &anyhow::Error) {
        if error.chain().any(|cause| cause.is::<io::Error>()) {
            self.read = None;
        }
    }

    /// Whether the file should be loaded. A changed file must settle first.
    pub(crate) async fn is_due(&self, wake: Wake) -> bool {
        wake == Wake::Asked || (self.state() != self.read && self.settles().await)
    }

    fn state(&self) -> Option<State> {
        use std::os::unix::fs::MetadataExt as _;
        let found = std::fs::metadata(self.path.as_ref()?).ok()?;
        Some((found.ino(), found.len(), found.modified().ok()))
    }

    /// Waits until the file settles, because its writer may not be done. After [`SETTLE_MAX`], a
    /// file that is replaced repeatedly counts as settled, since each replacement is whole; a file
    /// that is still written in place does not.
    async fn settles(&self) -> bool {
        let inode = |state: Option<State>| state.map(|(inode, ..)| inode);
        let started = Instant::now();
        let mut before = self.state();
        let mut replaced = inode(before) != inode(self.read);
        loop {
            tokio::time::sleep(if replaced { SETTLE } else { SETTLE_IN_PLACE }).await;
            let after = self.state();
            if after == before && after.is_some() {
                return true;
            }
            replaced |= inode(after) != inode(before);
            if started.elapsed() >= SETTLE_MAX {
                if !replaced {
                    tracing::warn!(
                        "{} is still being written: rename a new file over it instead",
                        self.path.as_deref().unwrap_or(Path::new("")).display()
                    );
                }
                return replaced;
            }
            before = after;
        }
    }

    /// Wakes `reload` on every event in the file's folder, until the watcher is dropped.
    pub(crate) fn watch(&self, reload: &Reload) -> Option<RecommendedWatcher> {
        let path = self.path.as_deref()?;
        watch(path, reload.clone())
            .inspect_err(|error| {
                tracing::warn!("cannot watch {}: {error}; SIGHUP still works", path.display());
            })
            .ok()
    }
}

fn watch(file: &Path, reload: Reload) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // An event of a read is not a change.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // If the channel is full, it already holds a wake.
            let _ = reload.try_send(Wake::Changed);
        }
    })?;
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
