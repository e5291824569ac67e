//! Files that are looked at until one changes.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use anyhow::bail;

use crate::limits::WATCH_PERIOD;

/// Device, inode, length, and time of the last change of a file, which no program can set back. `None` without a file.
type State = Option<(u64, u64, u64, i64, i64)>;

/// Files, and their states when they were last looked at.
pub(super) struct Files(Vec<(PathBuf, State)>);

impl Files {
    /// # Errors
    ///
    /// A file is standard input, which does not change.
    pub(super) fn new(paths: impl Iterator<Item = PathBuf>) -> anyhow::Result<Self> {
        let files: Vec<_> = paths.map(|path| (path.clone(), state(&path))).collect();
        if files.iter().any(|(path, _)| path.as_os_str() == "-") {
            bail!("--watch takes files, not standard input");
        }
        Ok(Self(files))
    }

    /// Waits until a file changes, and then until none does.
    pub(super) fn wait(&mut self) {
        while !self.has_changed() {
            pause();
        }
        pause();
        while self.has_changed() {
            pause();
        }
    }

    fn has_changed(&mut self) -> bool {
        let mut changed = false;
        for (path, before) in &mut self.0 {
            let now = state(path);
            changed |= std::mem::replace(before, now) != now;
        }
        changed
    }
}

#[expect(clippy::disallowed_methods, reason = "files are looked at again and again")]
fn pause() {
    std::thread::sleep(WATCH_PERIOD);
}

fn state(path: &PathBuf) -> State {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.len(), found.ctime(), found.ctime_nsec()))
}
