//! A file whose changes are noticed: by its folder, since careful programs replace files, and by a look now
//! and then, since what a symbolic link leads to changes without a word.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use super::reload::{Reload, Wake};
use crate::limits::{SETTLE, SETTLE_IN_PLACE, SETTLE_MAX};

/// A file, if there is one, and its state when it was last read.
#[derive(Debug, Default)]
pub(crate) struct WatchedFile {
    path: Option<PathBuf>,
    read: Option<State>,
}

/// Tells one state of a file from another without reading it: inode, length, time of modification.
type State = (u64, u64, Option<std::time::SystemTime>);

impl WatchedFile {
    pub(crate) const fn new(path: Option<PathBuf>) -> Self {
        Self { path, read: None }
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Notes the state of the file. Called before it is read: a change meanwhile must not be missed.
    pub(crate) fn record_state(&mut self) {
        self.read = self.state();
    }

    /// Loading it has failed. A file that could not be read is tried again at the next look; a document
    /// that is wrong stays wrong until the file changes.
    pub(crate) fn failed(&mut self, error: &anyhow::Error) {
        if error.chain().any(|cause| cause.is::<io::Error>()) {
            self.read = None;
        }
    }

    /// Whether it should be read again. A file that has changed must rest first.
    pub(crate) async fn is_due(&self, wake: Wake) -> bool {
        wake == Wake::Asked || (self.state() != self.read && self.settles().await)
    }

    fn state(&self) -> Option<State> {
        use std::os::unix::fs::MetadataExt as _;
        let found = std::fs::metadata(self.path.as_ref()?).ok()?;
        Some((found.ino(), found.len(), found.modified().ok()))
    }

    /// Waits until the file rests: whoever writes it may not be done. A file that is replaced again and
    /// again is whole each time; one that goes on being written in place is not.
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

    /// Wakes `reload` whenever something happens in the file's folder, for as long as the watcher lives.
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
        // Reading a file is an event too.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // A full channel holds a wake already.
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
