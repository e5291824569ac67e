//! A watched file. File events come from its folder, because most programs replace a file instead
//! of writing it in place. A tick checks the file too, because the target of a symbolic link
//! changes without an event.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use super::reload::{Reload, Wake};
use crate::limits::{READ_AGAIN, SETTLE, SETTLE_IN_PLACE, SETTLE_MAX};

/// A file, if the document has one, and its state when it was last read.
#[derive(Debug, Default)]
pub(crate) struct WatchedFile {
    path: Option<PathBuf>,
    read: Option<State>,
    /// When it could not be read.
    failed: Option<Instant>,
}

/// The state of a regular file: two states differ if the file has changed. A program can set the time of
/// modification back, but not that of the last change, which the system keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    device_and_inode: (u64, u64),
    length: u64,
    modified: Option<std::time::SystemTime>,
    /// Seconds and nanoseconds.
    changed: (i64, i64),
}

/// Whether a document of these files should be loaded. What has changed must settle first.
pub(super) async fn is_due(files: &[WatchedFile], wake: Wake) -> bool {
    if wake == Wake::Asked {
        return true;
    }
    let changed: Vec<_> = files.iter().filter(|file| file.has_changed()).collect();
    for file in &changed {
        if !file.settles().await {
            return false;
        }
    }
    !changed.is_empty()
}

impl WatchedFile {
    pub(crate) const fn new(path: Option<PathBuf>) -> Self {
        Self { path, read: None, failed: None }
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Records the state of the file. Call it before reading, so that no later change is missed.
    pub(crate) fn record_state(&mut self) {
        self.read = self.state();
        self.failed = None;
    }

    /// Notes that a load has failed. An unreadable file is due again at the next tick. An invalid
    /// document is due again when the file changes.
    pub(crate) fn failed(&mut self, error: &anyhow::Error) {
        if error.chain().any(|cause| cause.is::<io::Error>()) {
            self.failed = Some(Instant::now());
        }
    }

    /// Whether it is to be read: it has changed, or it could not be read and the next tick has come. An event of the
    /// folder is not enough for that: the server's own log may be in this folder, and each failure is logged.
    fn has_changed(&self) -> bool {
        let state = self.state();
        let is_due_again = |at: Instant| state.is_some() && at.elapsed() >= READ_AGAIN;
        state != self.read || self.failed.is_some_and(is_due_again)
    }

    /// The state of a regular file. A pipe or a device has none: what is read from it is gone.
    fn state(&self) -> Option<State> {
        use std::os::unix::fs::MetadataExt as _;
        let found =
            std::fs::metadata(self.path.as_ref()?).ok().filter(std::fs::Metadata::is_file)?;
        Some(State {
            device_and_inode: (found.dev(), found.ino()),
            length: found.len(),
            modified: found.modified().ok(),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }

    /// Waits until the file settles, because its writer may not be done. The rest of a file that was replaced
    /// begins when it was written, which may be before it was renamed into place. After [`SETTLE_MAX`], a
    /// file that is replaced repeatedly counts as settled, since each replacement is whole; a file
    /// that is still written in place does not.
    async fn settles(&self) -> bool {
        let inode = |state: Option<State>| state.map(|state| state.device_and_inode);
        let started = Instant::now();
        let mut before = self.state();
        let mut replaced = inode(before) != inode(self.read);
        loop {
            let rest = if replaced { SETTLE.saturating_sub(age(before)) } else { SETTLE_IN_PLACE };
            tokio::time::sleep(rest).await;
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

/// The time since a file was written; zero if that is not known, or in the future.
fn age(state: Option<State>) -> Duration {
    let written = state.and_then(|state| state.modified);
    written.and_then(|written| written.elapsed().ok()).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::SystemTime;

    use super::*;

    /// How long a file rests after this change, by the time of the runtime, which is paused.
    async fn rested(name: &str, change: impl FnOnce(&Path)) -> Duration {
        let folder = std::env::temp_dir().join(format!("capstan-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("policy.json");
        fs::write(&path, "first").unwrap();
        let mut file = WatchedFile::new(Some(path.clone()));
        file.record_state();
        let file = [file];
        assert!(!is_due(&file, Wake::Changed).await);
        change(&path);
        let started = tokio::time::Instant::now();
        assert!(is_due(&file, Wake::Changed).await);
        fs::remove_dir_all(&folder).unwrap();
        started.elapsed()
    }

    /// Writes the file, as of this time.
    fn write(path: &Path, written: SystemTime) {
        fs::write(path, "second").unwrap();
        File::options().write(true).open(path).unwrap().set_modified(written).unwrap();
    }

    fn replace(path: &Path, written: SystemTime) {
        let next = path.with_extension("next");
        write(&next, written);
        fs::rename(&next, path).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_replaced_file_rests_since_it_was_written() {
        let (hour, now) = (Duration::from_secs(3_600), SystemTime::now);
        // A timer of the runtime has a resolution of one millisecond.
        let old = rested("settle-old", |path| replace(path, now() - hour)).await;
        assert!(old <= Duration::from_millis(2), "{old:?}");
        let later = rested("settle-later", |path| replace(path, now() + hour)).await;
        assert!(later >= SETTLE, "{later:?}");
        let new = rested("settle-new", |path| replace(path, now())).await;
        assert!((SETTLE / 2..=SETTLE * 2).contains(&new), "{new:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_written_in_place_always_rests() {
        let written = SystemTime::now() - Duration::from_secs(3_600);
        let rested = rested("settle-in-place", |path| write(path, written)).await;
        assert!(rested >= SETTLE_IN_PLACE, "{rested:?}");
    }
}
