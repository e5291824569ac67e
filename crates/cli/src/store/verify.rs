//! `capstan store verify`: whether a store or a backup is whole, audit log included.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use capstan_store::{Backup, BackupError, BackupReader, Head, RedbStore};
use serde_json::{Value, json};

use super::{described, refused};
use crate::audit::{count, file};
use crate::audit_log::chain::{Chain, Verified, hex};
use crate::output::{self, Format};
use crate::store_error::{DATA, exit_code_of_backup};

/// Whether a backup, or a store that no server has open, is whole, audit log included
///
/// Of a backup, all of it is read and compared with its digest; of a store, what `capstan store check` reads. Of both also
/// the chain of the audit log, as `capstan audit verify` does. Nothing is changed.
#[derive(Debug, clap::Args)]
#[command(after_help = super::EXAMPLES)]
pub(crate) struct Verify {
    /// A backup, or the directory of a store
    #[arg(value_name = "PATH", value_hint = clap::ValueHint::AnyPath)]
    path: PathBuf,
}

impl Verify {
    pub(super) fn run(&self, format: Format) -> anyhow::Result<ExitCode> {
        if fs::metadata(&self.path).is_ok_and(|found| found.is_dir()) {
            store(&self.path, format)
        } else {
            backup(&self.path, format)
        }
    }
}

fn store(dir: &Path, format: Format) -> anyhow::Result<ExitCode> {
    let mut chain = Chain::new();
    let checked = RedbStore::check_each(dir, &mut |key, value| {
        chain.entry(key, value);
    });
    match checked {
        Ok(checked) => {
            let found = described(dir, &checked);
            show("store", dir, (checked.head, checked.entries), found, &chain.finish(), format)
        }
        Err(error) => Ok(refused(error, format)),
    }
}

/// Verifies a backup, and says what it has.
pub(crate) fn backup(path: &Path, format: Format) -> anyhow::Result<ExitCode> {
    let mut chain = Chain::new();
    match read(path, &mut chain) {
        Ok(backup) => {
            let Backup { head, entries, bytes, digest } = backup;
            let found = json!({
                "file": path,
                "revision": head.revision(),
                "epoch": head.epoch,
                "transaction": head.seq,
                "records": entries,
                "bytes": bytes,
                "digest": hex(&digest),
            });
            show("backup", path, (head, entries), found, &chain.finish(), format)
        }
        Err(error) => {
            let code = exit_code_of_backup(&error);
            let error = anyhow::Error::from(error).context(path.display().to_string());
            output::error(format, &error);
            Ok(code)
        }
    }
}

fn read(path: &Path, chain: &mut Chain) -> Result<Backup, BackupError> {
    let mut backup = BackupReader::new(File::open(file(path)).map_err(BackupError::Io)?)?;
    while let Some((key, value)) = backup.next()? {
        chain.entry(key, value);
    }
    backup.finish()
}

/// `found`: as JSON, to which the verdict is added.
fn show(
    kind: &str,
    path: &Path,
    (head, entries): (Head, u64),
    mut found: Value,
    audit: &Verified,
    format: Format,
) -> anyhow::Result<ExitCode> {
    if format == Format::Json {
        if let Some(found) = found.as_object_mut() {
            found.insert("kind".into(), kind.into());
            found.insert("valid".into(), audit.valid.into());
            found.insert("audit".into(), serde_json::to_value(audit)?);
        }
        output::json(&found)?;
    } else {
        let word = output::verdict(audit.valid, if audit.valid { "ok" } else { "broken" });
        let path = path.display();
        match &audit.problem {
            None => output::line(format!("{word}: every record of the {kind} {path} is whole"))?,
            Some(problem) => output::line(format!("{word}: the {kind} {path}: {problem}"))?,
        }
        output::line(format!(
            "{}, revision {} (transaction {} of epoch {})",
            count(usize::try_from(entries)?, "records"),
            head.revision(),
            head.seq,
            head.epoch
        ))?;
        let records = count(usize::try_from(audit.records)?, "audit records");
        output::line(format!(
            "{records} from number {} on, last digest {}",
            audit.first, audit.digest
        ))?;
    }
    Ok(if audit.valid { ExitCode::SUCCESS } else { ExitCode::from(DATA) })
}
