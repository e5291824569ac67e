//! `capstan backup`: all of a server's store, at one revision, as a file.
//!
//! ```text
//! server ─▶ chunks ─┬▶ a new file, or standard output
//!                   └▶ thread: verifies ─▶ the file is put in its place
//! ```
//!
//! **Invariant**: a file appears only after its end was received and found right.

use std::io::{self, IsTerminal as _, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, ensure};
use capstan_proto::iam::v1::policy_service_client::PolicyServiceClient;
use capstan_proto::iam::v1::{BackupRequest, BackupResponse};
use capstan_store::{Backup, BackupError, BackupReader};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::sync::mpsc;
use tonic::{Request, Streaming};

use super::audit::count;
use super::audit_log::chain::hex;
use super::iam::connection::{Connection, Safety, ServerArgs};
use super::limits::{BACKUP_CHUNKS_MAX, TRANSFER_TIMEOUT};
use super::new_file::{NewFile, Readers};
use super::output::{self, Format};

const EXAMPLES: &str = "\
Examples:
  capstan backup capstan.backup --addr unix:/var/lib/capstan/operator.sock
  capstan backup - --addr unix:/var/lib/capstan/operator.sock | gzip > capstan.backup.gz
  capstan backup capstan.backup --addr unix:DIR/operator.sock --output json
  capstan store verify capstan.backup
  capstan restore capstan.backup --data DIR

The server goes on deciding and writing. Only the operator may. The file has mode 0600, because it has hashes of secrets and \
everything about everybody: keep it as the store itself.";

/// Writes all of a server's store, at one revision, to a file
///
/// Everything is in it: objects, hashes of secrets, the audit log, answers for retries. It is verified while it is received, and
/// has its name only once it is complete.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BackupCommand {
    /// The file, which is replaced once the backup is complete; `-` is standard output
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,

    #[command(flatten)]
    server: ServerArgs,
}

impl BackupCommand {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let Self { file, server } = self;
        let is_stdout = file.as_os_str() == "-";
        ensure!(
            !is_stdout || !io::stdout().is_terminal(),
            "a backup is no text for a terminal: name a file, or redirect standard output"
        );
        let server = server.connect_within(TRANSFER_TIMEOUT).await?;
        let send = async |request: Request<_>| {
            PolicyServiceClient::new(server.service()).backup(request).await
        };
        let chunks = server.call(Safety::Read, BackupRequest {}, send).await?;
        if is_stdout {
            let backup = receive(&server, chunks, io::stdout()).await?;
            let (records, revision) = (records(&backup)?, backup.head.revision());
            output::note(format!(
                "wrote {records} of revision {revision}, {} bytes",
                backup.bytes
            ))?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut new = NewFile::beside(&file, Readers::Owner)?;
        let backup = receive(&server, chunks, new.file()).await?;
        new.put_in_place()?;
        show(&file, &backup, format)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes chunks as they come, and verifies them meanwhile.
async fn receive(
    server: &Connection,
    mut chunks: Streaming<BackupResponse>,
    mut to: impl Write,
) -> anyhow::Result<Backup> {
    let (send, received) = mpsc::channel(BACKUP_CHUNKS_MAX);
    let verified = tokio::task::spawn_blocking(move || {
        BackupReader::new(Received { received, chunk: vec![], read: 0 })?.finish()
    });
    let (bar, mut revision) = (progress(), None);
    loop {
        let part = match chunks.message().await {
            Ok(Some(part)) => part,
            Ok(None) => break,
            Err(status) => return Err(server.error(&status, Safety::Read).await),
        };
        let first = *revision.get_or_insert(part.revision);
        ensure!(first == part.revision, "the server's backup is of more than one revision");
        to.write_all(&part.chunk).context("cannot write the backup")?;
        bar.inc(part.chunk.len() as u64);
        // Whoever verifies has found a fault, and says it.
        if send.send(part.chunk).await.is_err() {
            break;
        }
    }
    drop(send);
    to.flush().context("cannot write the backup")?;
    bar.finish_and_clear();
    let backup: Result<Backup, BackupError> = verified.await?;
    let backup = backup.map_err(|error| anyhow!("the server's backup is not whole: {error}"))?;
    let is_named = revision == Some(backup.head.revision());
    ensure!(is_named, "the server's backup is of another revision than the server says");
    Ok(backup)
}

/// Chunks as they are received.
struct Received {
    received: mpsc::Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    read: usize,
}

impl Read for Received {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.read >= self.chunk.len() {
            let Some(chunk) = self.received.blocking_recv() else { return Ok(0) };
            (self.chunk, self.read) = (chunk, 0);
        }
        let mut rest = self.chunk.get(self.read..).unwrap_or_default();
        let read = rest.read(to)?;
        self.read = self.read.saturating_add(read);
        Ok(read)
    }
}

/// How much was received, on standard error; hidden if that is no terminal.
fn progress() -> ProgressBar {
    if output::is_quiet() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::no_length();
    if let Ok(style) =
        ProgressStyle::with_template("{spinner:.cyan} {bytes} in {elapsed}, {bytes_per_sec}")
    {
        bar.set_style(style);
    }
    bar
}

fn records(backup: &Backup) -> anyhow::Result<String> {
    Ok(count(usize::try_from(backup.entries)?, "records"))
}

fn show(file: &Path, backup: &Backup, format: Format) -> anyhow::Result<()> {
    let Backup { head, entries, bytes, digest } = backup;
    if format == Format::Json {
        return output::json(&json!({
            "file": file,
            "revision": head.revision(),
            "epoch": head.epoch,
            "transaction": head.seq,
            "records": entries,
            "bytes": bytes,
            "digest": hex(digest),
        }));
    }
    let (file, records, revision) = (file.display(), records(backup)?, head.revision());
    output::line(format!("wrote {file}: {records} of revision {revision}, {bytes} bytes"))?;
    output::line(format!("restore it with: capstan restore {file} --data DIR"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_read_as_one_stream() {
        let (send, received) = mpsc::channel(BACKUP_CHUNKS_MAX);
        for chunk in [&b"ab"[..], b"", b"cde"] {
            send.try_send(chunk.to_vec()).unwrap();
        }
        drop(send);
        let mut from = Received { received, chunk: vec![], read: 0 };
        let mut few = [0; 1];
        assert_eq!((from.read(&mut few).unwrap(), few), (1, *b"a"));
        let mut rest = String::new();
        from.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "bcde");
    }
}
