//! Why a store in a directory does not open.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::dir::Dir;
use super::schema::TableError;
use crate::StoreError;

/// Why a store in a directory cannot be made or opened. Nothing that was there is changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no store.
    #[error("there is no store in `{}`: make one with `capstan init`", .0.display())]
    Missing(PathBuf),
    /// A store is to be made where one is.
    #[error("there is a store already: `{}`", .0.display())]
    Exists(PathBuf),
    /// The path is a symbolic link, or neither a file nor a directory where one is needed.
    #[error("`{}` is {found}, not {wanted}", .path.display())]
    WrongType {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
        /// What is needed.
        wanted: &'static str,
    },
    /// Other users may change the directory.
    #[error("`{}` may be changed by other users ({detail}): {remedy}", .path.display())]
    OpenToOthers {
        /// The directory.
        path: PathBuf,
        /// The owner or the mode.
        detail: String,
        /// What to do.
        remedy: String,
    },
    /// Another process has the store open, or this one has it open twice.
    #[error("the store in `{}` is already open{}", .path.display(), holder(*.pid))]
    AlreadyOpen {
        /// The directory.
        path: PathBuf,
        /// The process that has it open, if the lock file names one that runs.
        pid: Option<u32>,
    },
    /// The file has no bytes.
    #[error("the store `{}` is empty: restore it from a backup", .0.display())]
    Empty(PathBuf),
    /// The file is no store, but something else.
    #[error("`{}` is not a store of Capstan: {reason}", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The end of the file is missing.
    #[error("the store `{}` is cut off: restore it from a backup", .0.display())]
    Truncated(PathBuf),
    /// The file is damaged.
    #[error("the store `{}` is corrupt: {reason}; restore it from a backup", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The store was written by a later version.
    #[error("the store `{}` has format {found}, this program reads format {known}: use a later version", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format of the store.
        found: u32,
        /// The format of this program.
        known: u32,
    },
    /// The file or its directory cannot be written: a read-only file system, or missing permissions.
    #[error("`{}` cannot be written: {source}", .path.display())]
    ReadOnly {
        /// The path.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The first batch breaks a limit.
    #[error("{0}")]
    Invalid(String),
    /// The system refused something else.
    #[error("`{}` cannot be opened: {source}", .path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(", by process {pid}"))
}

impl OpenError {
    /// A fault of the file in a directory.
    pub(super) fn of_file(dir: &Dir, error: TableError) -> Self {
        match error {
            TableError::Failed(error) => Self::io(dir.file(), error),
            TableError::Corrupt(reason) => Self::Corrupt { path: dir.file(), reason },
        }
    }

    /// An error of the system at a path.
    pub(super) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                Self::ReadOnly { path, source }
            }
            _ => Self::Io { path, source },
        }
    }
}

impl From<OpenError> for StoreError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::ReadOnly { .. } => Self::ReadOnly(error.to_string()),
            OpenError::Io { source, .. } => Self::Unreachable(source),
            OpenError::Missing(_) => Self::Unreachable(io::Error::other(error)),
            _ => Self::Corrupt(error.to_string()),
        }
    }
}
