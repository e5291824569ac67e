//! A file that appears once it is complete: written beside its place under another name, then renamed.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use tempfile::NamedTempFile;

/// Who may read a file, beside what the process's umask takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Its owner only.
    Owner,
    Everybody,
}

/// A file that is being written. It is deleted if it is not put in place.
#[derive(Debug)]
pub(crate) struct NewFile {
    file: NamedTempFile,
    path: PathBuf,
}

impl NewFile {
    /// # Errors
    ///
    /// The folder is not there or cannot be written, or there is something else than a file at the path.
    pub(crate) fn beside(path: &Path, readers: Readers) -> anyhow::Result<Self> {
        let what = || format!("cannot write {}", path.display());
        if let Ok(found) = path.metadata() {
            ensure!(found.is_file(), "cannot write {}: it is there and is no file", path.display());
        }
        let mode = match readers {
            Readers::Owner => 0o600,
            Readers::Everybody => 0o666,
        };
        let file = tempfile::Builder::new()
            .prefix(".capstan-")
            .suffix(".part")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(folder(path))
            .with_context(what)?;
        Ok(Self { file, path: path.to_owned() })
    }

    pub(crate) fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Makes it durable, and replaces what is in its place.
    ///
    /// # Errors
    ///
    /// The disk is full or does not work.
    pub(crate) fn put_in_place(self) -> anyhow::Result<()> {
        let Self { file, path } = self;
        let what = || format!("cannot write {}", path.display());
        file.as_file().sync_all().with_context(what)?;
        file.persist(&path).map_err(|refused| refused.error).with_context(what)?;
        File::open(folder(&path)).and_then(|folder| folder.sync_all()).with_context(what)
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        names.map(|one| one.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_in_its_place_once_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "before").unwrap();
        for (readers, mode) in [(Readers::Owner, 0o600), (Readers::Everybody, 0o644)] {
            let mut dropped = NewFile::beside(&path, readers).unwrap();
            dropped.file().write_all(b"half").unwrap();
            let before = fs::read_to_string(&path).unwrap();
            assert_eq!(names(folder.path()).len(), 2);
            drop(dropped);
            assert_eq!(
                (names(folder.path()), fs::read_to_string(&path).unwrap()),
                (vec!["file".into()], before)
            );

            let mut new = NewFile::beside(&path, readers).unwrap();
            new.file().write_all(format!("{readers:?}").as_bytes()).unwrap();
            new.put_in_place().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{readers:?}"));
            let found = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(found & !mode, 0, "{found:o} of {mode:o}, less what the umask takes away");
            assert_eq!(names(folder.path()), ["file"]);
        }
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path(), Path::new("/dev/null")] {
            let error = NewFile::beside(path, Readers::Owner).unwrap_err().to_string();
            assert!(error.ends_with("it is there and is no file"), "{error}");
        }
        let error = NewFile::beside(&folder.path().join("none/file"), Readers::Owner).unwrap_err();
        assert!(error.to_string().starts_with("cannot write "), "{error}");
    }
}
