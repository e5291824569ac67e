//! Exit codes for a store that cannot be opened and a backup that cannot be read, as `sysexits.h` numbers them, so that a supervisor can tell a store
//! that needs a person from one that is only busy.

use std::io::ErrorKind;
use std::process::ExitCode;

use capstan_store::{BackupError, OpenError, RestoreError};

/// EX_DATAERR: the file is not one that this program can read.
pub(crate) const DATA: u8 = 65;
/// EX_NOINPUT: there is no store.
const NO_INPUT: u8 = 66;
/// EX_IOERR: the disk does not work.
const IO: u8 = 74;
/// EX_TEMPFAIL: another process has it.
const TEMPORARY: u8 = 75;
/// EX_CONFIG: the directory cannot be used as it is.
const CONFIG: u8 = 78;

/// The exit code for a store that cannot be made or opened.
pub(crate) fn exit_code(error: &OpenError) -> ExitCode {
    ExitCode::from(match error {
        OpenError::Missing(_) => NO_INPUT,
        OpenError::AlreadyOpen { .. } => TEMPORARY,
        OpenError::Empty(_)
        | OpenError::Foreign { .. }
        | OpenError::Truncated(_)
        | OpenError::Corrupt { .. }
        | OpenError::Newer { .. } => DATA,
        OpenError::Io { .. } => IO,
        // Also whatever else a later version of the store may refuse.
        _ => CONFIG,
    })
}

/// The exit code for a backup that cannot be read.
pub(crate) fn exit_code_of_backup(error: &BackupError) -> ExitCode {
    ExitCode::from(match error {
        BackupError::Io(error) if error.kind() == ErrorKind::NotFound => NO_INPUT,
        BackupError::Io(_) => IO,
        // Damaged, cut off, foreign or later.
        _ => DATA,
    })
}

/// The exit code for a backup that is not restored.
pub(crate) fn exit_code_of_restore(error: &RestoreError) -> ExitCode {
    match error {
        RestoreError::Backup(error) => exit_code_of_backup(error),
        RestoreError::Store(error) => exit_code(error),
        RestoreError::Content(_) => ExitCode::from(DATA),
        _ => ExitCode::from(CONFIG),
    }
}
