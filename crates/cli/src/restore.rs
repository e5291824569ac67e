//! `capstan restore`: makes a store from a backup.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{bail, ensure};
use capstan_server::clock::Clock;
use capstan_server::feed::journal::restored;
use capstan_store::{BackupError, BackupReader, Limits, RedbStore, RestoreError, Restored};
use serde_json::json;

use super::audit::{count, file};
use super::audit_log::chain::hex;
use super::output::{self, Format};
use super::store::verify;
use super::store_error::exit_code_of_restore;

const EXAMPLES: &str = "\
Examples:
  capstan restore capstan.backup --dry-run            verifies it, and says what it has
  capstan restore capstan.backup --data /var/lib/capstan
  gunzip --stdout capstan.backup.gz | capstan restore - --data /var/lib/capstan

A store that is there is never overwritten: move its directory away first. The new store is in a later epoch: revisions that \
clients have from before are refused with STORE_EPOCH, and they read anew. It has an audit record of the restore.

Exit codes: 0 done, 2 the arguments are wrong, 65 the backup is damaged or none, 66 there is none, 74 the disk fails, 75 \
another process has the directory, 78 there is a store already, or the directory or the epoch cannot be used.";

/// Makes a store from a backup of `capstan backup`
///
/// The store appears only if the whole backup was found right.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Restore {
    /// The backup; `-` is standard input
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,

    /// The directory of the new store; made if it is not there
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath, required_unless_present = "dry_run")]
    data: Option<PathBuf>,

    /// The epoch of the new store, if one of a later epoch than the backup's was in use [default: the one behind the backup's]
    #[arg(long, value_name = "NUMBER")]
    epoch: Option<u16>,

    /// Only verify the backup, and make nothing
    #[arg(long)]
    dry_run: bool,
}

impl Restore {
    pub(crate) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let Self { file: path, data, epoch, dry_run } = self;
        if dry_run {
            return verify::backup(&path, format);
        }
        let Some(data) = data else { bail!("name the directory of the new store: --data DIR") };
        let clock = Clock::System;
        ensure!(
            clock.is_plausible(),
            "the machine's clock says that it is before 2026: set the clock"
        );
        match restore(&path, &data, epoch, clock) {
            Ok(made) => show((&path, &data), &made, format).map(|()| ExitCode::SUCCESS),
            Err(error) => {
                let code = exit_code_of_restore(&error);
                let of_backup = matches!(error, RestoreError::Backup(_) | RestoreError::Content(_));
                let error = anyhow::Error::from(error);
                let error =
                    if of_backup { error.context(path.display().to_string()) } else { error };
                output::error(format, &error);
                Ok(code)
            }
        }
    }
}

fn restore(
    path: &Path,
    data: &Path,
    epoch: Option<u16>,
    clock: Clock,
) -> Result<Restored, RestoreError> {
    let backup = BackupReader::new(File::open(file(path)).map_err(BackupError::Io)?)?;
    RedbStore::restore(data, backup, epoch, &Limits::default(), |view, backup| {
        restored(view, backup, clock.now()).map_err(|error| format!("{error:#}").into())
    })
}

fn show((path, data): (&Path, &Path), made: &Restored, format: Format) -> anyhow::Result<()> {
    let Restored { backup, head } = made;
    if format == Format::Json {
        return output::json(&json!({
            "data": data,
            "revision": head.revision(),
            "epoch": head.epoch,
            "transaction": head.seq,
            "records": backup.entries,
            "backup": {
                "file": path,
                "revision": backup.head.revision(),
                "bytes": backup.bytes,
                "digest": hex(&backup.digest),
            },
        }));
    }
    let (path, data) = (path.display(), data.display());
    let records = count(usize::try_from(backup.entries)?, "records");
    let (from, revision) = (backup.head.revision(), head.revision());
    output::line(format!("restored {path} to {data}: {records} of revision {from}"))?;
    output::line(format!(
        "it goes on at revision {revision}, in epoch {}: earlier revisions are refused (STORE_EPOCH)",
        head.epoch
    ))?;
    output::line(format!("serve it with: capstan serve --data {data}"))
}
