//! `capstan store`: looks after the file of a store that no server has open, and after backups.

pub(crate) mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use capstan_store::{Checked, OpenError, RedbStore};
use serde_json::{Value, json};

use super::audit::count;
use super::audit_log::chain::hex;
use super::output::{self, Format};
use super::store_error::exit_code;

const EXAMPLES: &str = "\
Examples:
  capstan store verify capstan.backup
  capstan store verify /var/lib/capstan
  capstan store check --data /var/lib/capstan --output json
  capstan store compact --data /var/lib/capstan

They take the lock of a store: no server may have it open.

Exit codes: 0 done, 2 the arguments are wrong, 65 it is damaged or no store, 66 there is none, 74 the disk fails, 75 \
another process has it, 78 the directory cannot be used.";

/// Looks after stores and backups: whether they are whole, and how long the file of a store is
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StoreCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Reads every record, and verifies checksums and digests. The file is not changed
    ///
    /// A server verifies the pages of the file when it starts, and records when it reads them. This reads them all:
    /// records against their checksums, and the kept history against its digests.
    #[command(after_help = EXAMPLES)]
    Check(Data),
    Verify(verify::Verify),
    /// Makes the file as short as its content allows
    ///
    /// The space of what was deleted is used again, but the file does not become shorter by itself. A crash meanwhile
    /// loses nothing.
    #[command(after_help = EXAMPLES)]
    Compact(Data),
}

#[derive(Debug, clap::Args)]
struct Data {
    /// The directory of the store
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    data: PathBuf,
}

impl StoreCommand {
    pub(crate) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let done = match &self.command {
            Command::Verify(verify) => return verify.run(format),
            Command::Check(Data { data }) => {
                RedbStore::check(data).map(|checked| show_checked(data, &checked, format))
            }
            Command::Compact(Data { data }) => {
                RedbStore::compact(data).map(|compacted| show_compacted(data, compacted, format))
            }
        };
        match done {
            Ok(shown) => shown.map(|()| ExitCode::SUCCESS),
            Err(error) => Ok(refused(error, format)),
        }
    }
}

fn refused(error: OpenError, format: Format) -> ExitCode {
    let code = exit_code(&error);
    output::error(format, &error.into());
    code
}

/// What is known of a store, as JSON.
fn described(data: &Path, checked: &Checked) -> Value {
    let head = &checked.head;
    json!({
        "data": data,
        "revision": head.revision(),
        "epoch": head.epoch,
        "transaction": head.seq,
        "digest": hex(&head.digest),
        "records": checked.entries,
        "record_bytes": checked.entry_bytes,
        "history_from": checked.kept_from,
    })
}

fn show_checked(data: &Path, checked: &Checked, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        return output::json(&described(data, checked));
    }
    let (head, word) = (&checked.head, output::verdict(true, "ok"));
    let records = count(usize::try_from(checked.entries)?, "records");
    output::line(format!("{word}: every record of {} is whole", data.display()))?;
    output::line(format!(
        "{records} with {} bytes, revision {} (transaction {} of epoch {}), digest {}",
        checked.entry_bytes,
        head.revision(),
        head.seq,
        head.epoch,
        hex(&head.digest)
    ))
}

fn show_compacted(
    data: &Path,
    compacted: capstan_store::Compacted,
    format: Format,
) -> anyhow::Result<()> {
    let capstan_store::Compacted { before, after } = compacted;
    if format == Format::Json {
        return output::json(
            &json!({ "data": data, "bytes_before": before, "bytes_after": after }),
        );
    }
    let data = data.display();
    output::line(format!("compacted {data}: {before} bytes before, {after} bytes now"))
}
