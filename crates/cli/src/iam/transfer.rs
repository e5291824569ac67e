//! `capstan policy export | import` and `capstan catalog set`: the policy of a server as a whole.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use capstan_policy::{Catalogs, DOCUMENT_BYTES_MAX};
use capstan_proto::iam::v1::policy_service_client::PolicyServiceClient;
use capstan_proto::iam::v1::{self as iam, Group, set_catalog_request::Catalog};
use futures_util::stream;
use tonic::Request;

use super::connection::{Connection, Safety, ServerArgs};
use super::difference::{print_access, print_changes};
use super::json;
use super::names::{group_or_all, id_of};
use super::refusal::Refusal;
use crate::audit::file;
use crate::completion;
use crate::decider::Consistency;
use crate::limits::{CHUNK_BYTES, TRANSFER_TIMEOUT};
use crate::new_file::{NewFile, Readers};
use crate::output::{self, Format};

const EXPORT: &str = "\
Examples:
  capstan policy export --parent acme > acme.yaml
  capstan policy export --parent acme --format json --output-file acme.json
  capstan policy export --addr unix:/var/lib/capstan/operator.sock
                                     the whole policy, for the operator";

const IMPORT: &str = "\
Examples:
  capstan policy import acme.yaml --dry-run       what would change, and for whom
  capstan policy import acme.yaml --addr unix:/var/lib/capstan/operator.sock
  capstan policy import acme.yaml --parent acme --prune subtree
                                                  what the document lacks is deleted

Only the operator may import. It is one change: all of the document or nothing.";

/// How to find out whether an import was made whose end is unknown.
const IMPORT_ENDED: &str = "`capstan policy import` with the same options and --dry-run shows no change if it was, and \
    `capstan audit list --method capstan.iam.v1.PolicyService/Import` has a record of it; to import it again does no harm";

/// The same of a change of the catalog.
const SET_ENDED: &str = "`capstan audit list --method capstan.iam.v1.PolicyService/SetCatalog` has a record of it if it was; \
    to set it again does no harm";

/// The policy of a server as a document
#[derive(Debug, clap::Args)]
#[command(after_help = EXPORT)]
pub(crate) struct Export {
    /// Only this organization: a path or a name [default: the whole policy, for the operator]
    #[arg(long, value_name = "ORG", add = completion::managed::group())]
    parent: Option<String>,

    /// The format of the document
    #[arg(long, value_enum, default_value_t = DocumentFormat::Yaml)]
    format: DocumentFormat,

    /// Write the document to this file, which is replaced once it is complete [default: standard output]
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,

    /// How new the server's data must be: any; at-least=REVISION; or full
    #[arg(long, value_name = "MODE", default_value = "any")]
    consistency: Consistency,

    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DocumentFormat {
    Yaml,
    Json,
}

/// Changes the policy of a server to what a document says
#[derive(Debug, clap::Args)]
#[command(after_help = IMPORT)]
pub(crate) struct Import {
    /// A policy document, YAML or JSON; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The organization that the document is about: a path or a name [default: the whole policy]
    #[arg(long, value_name = "ORG", add = completion::managed::group())]
    parent: Option<String>,

    /// What of the server the document lacks: none leaves it; subtree deletes it at and below --parent
    #[arg(long, value_enum, default_value_t = Prune::None)]
    prune: Prune,

    /// Only say what would change, and who would gain or lose what
    #[arg(long)]
    dry_run: bool,

    /// Maximum size of the document, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = DOCUMENT_BYTES_MAX, hide = true)]
    max_document_bytes: u64,

    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Prune {
    None,
    Subtree,
}

impl Export {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let server = self.server.connect_within(TRANSFER_TIMEOUT).await?;
        let parent = group_or_all(&server, self.parent.as_deref()).await?;
        let format = match self.format {
            DocumentFormat::Yaml => "yaml",
            DocumentFormat::Json => "json",
        };
        let request = iam::ExportRequest {
            parent,
            format: format.into(),
            consistency: self.consistency.message(),
        };
        match &self.output_file {
            None if output::is_quiet() => {
                receive(&server, request, io::sink()).await?;
            }
            None => {
                receive(&server, request, io::stdout()).await?;
            }
            Some(path) => {
                let mut new = NewFile::beside(path, Readers::Everybody)?;
                let revision = receive(&server, request, new.file()).await?;
                new.put_in_place()?;
                output::note(format!("exported revision {revision} to {}", path.display()))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes the parts of a document as they come. Returns its revision.
async fn receive(
    server: &Connection,
    request: iam::ExportRequest,
    mut into: impl io::Write,
) -> anyhow::Result<u64> {
    let parent = request.parent.clone();
    let send = async |request: Request<_>| {
        PolicyServiceClient::new(server.service()).export(request).await
    };
    let parts = server.call(Safety::Read, request, send).await;
    let mut parts = parts.map_err(|error| Refusal::or_of_one(error, &parent))?;
    let mut revision = 0;
    loop {
        let part = match parts.message().await {
            Ok(Some(part)) => part,
            Ok(None) => break,
            Err(status) => return Err(server.error(&status, Safety::Read).await),
        };
        into.write_all(&part.chunk).context("cannot write the document")?;
        revision = part.revision;
    }
    into.flush().context("cannot write the document")?;
    Ok(revision)
}

impl Import {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        ensure!(
            self.prune == Prune::None || self.parent.is_some(),
            "--prune subtree deletes at and below --parent: give it"
        );
        // Read whole before anything is sent: a document that is cut short must not prune.
        let document = read(&self.file, self.max_document_bytes)?;
        let server = self.server.connect_within(TRANSFER_TIMEOUT).await?;
        let parent = match &self.parent {
            Some(parent) => id_of::<Group>(&server, parent).await?,
            None => String::new(),
        };
        let prune = match self.prune {
            Prune::None => "none",
            Prune::Subtree => "subtree",
        };
        let parts = parts(&document, parent, self.dry_run, prune);
        // It has no request id, so it is sent once. A rehearsal changes nothing.
        let safety = match self.dry_run {
            true => Safety::Read,
            false => Safety::Once { find_out: IMPORT_ENDED },
        };
        let mut service = PolicyServiceClient::new(server.service());
        let made = match service.import(stream::iter(parts)).await {
            Ok(made) => made.into_inner(),
            Err(status) => return Err(server.error(&status, safety).await),
        };
        let counts = made.counts.unwrap_or_default();
        match format {
            Format::Json => output::json(&json::of(&made, "ImportResponse")?)?,
            Format::Table => {
                print_changes(&made.changes, counts)?;
                print_access(&made.access_changes, made.truncated)?;
            }
        }
        if self.dry_run {
            output::note("this is what would change; nothing was changed")?;
        } else {
            let from = self.file.display();
            output::note(format!("imported {from} at revision {}", made.revision))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// # Errors
///
/// The file cannot be read, or is longer than that.
fn read(path: &Path, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let what = || format!("cannot read {}", path.display());
    let mut document = Vec::new();
    let opened = File::open(file(path)).with_context(what)?;
    opened.take(bytes_max.saturating_add(1)).read_to_end(&mut document).with_context(what)?;
    ensure!(
        document.len() as u64 <= bytes_max,
        "{}: longer than {bytes_max} bytes; --max-document-bytes allows more",
        path.display()
    );
    Ok(document)
}

/// The messages of an import: the first says what to do.
fn parts(document: &[u8], parent: String, dry_run: bool, prune: &str) -> Vec<iam::ImportRequest> {
    let mut chunks = document.chunks(CHUNK_BYTES);
    let first = iam::ImportRequest {
        parent,
        chunk: chunks.next().unwrap_or_default().to_vec(),
        dry_run,
        prune: prune.to_owned(),
    };
    let more = chunks
        .map(|chunk| iam::ImportRequest { chunk: chunk.to_vec(), ..iam::ImportRequest::default() });
    std::iter::once(first).chain(more).collect()
}

const SET: &str = "\
Examples:
  capstan catalog set chainguard-2025-08-14 --dry-run      who would gain or lose what
  capstan catalog set mine.yaml --addr unix:/var/lib/capstan/operator.sock

Only the operator may. A capability or role that is in use and that the new catalog lacks is an error.";

/// Changes the catalog of a server, such as to its next version
#[derive(Debug, clap::Args)]
#[command(after_help = SET)]
pub(crate) struct SetCatalog {
    /// The name of a built-in catalog or of one that the server was started with, or a file
    #[arg(value_name = "NAME|FILE", add = completion::catalog())]
    catalog: String,

    /// Only say who would gain or lose what
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    server: ServerArgs,
}

impl SetCatalog {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let is_name = Catalogs::default().get(&self.catalog).is_some();
        let path = Path::new(&self.catalog);
        let catalog = if !is_name && path.is_file() {
            Catalog::Document(read(path, DOCUMENT_BYTES_MAX)?)
        } else {
            Catalog::Name(self.catalog.clone())
        };
        let server = self.server.connect_within(TRANSFER_TIMEOUT).await?;
        let request = iam::SetCatalogRequest { catalog: Some(catalog), dry_run: self.dry_run };
        let send = async |request: Request<_>| {
            PolicyServiceClient::new(server.service()).set_catalog(request).await
        };
        let safety = match self.dry_run {
            true => Safety::Read,
            false => Safety::Once { find_out: SET_ENDED },
        };
        let made = server.call(safety, request, send).await?;
        match format {
            Format::Json => output::json(&json::of(&made, "SetCatalogResponse")?)?,
            Format::Table => print_access(&made.access_changes, made.truncated)?,
        }
        let name = &made.catalog;
        if self.dry_run {
            output::note(format!("this is what catalog {name} would change; nothing was changed"))?;
        } else {
            output::note(format!("the catalog is {name} at revision {}", made.revision))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_part_says_what_to_do_and_no_part_is_too_long() {
        let document = vec![b'x'; CHUNK_BYTES * 2 + 1];
        let sent = parts(&document, "acme".into(), true, "subtree");
        let lengths: Vec<_> = sent.iter().map(|part| part.chunk.len()).collect();
        assert_eq!(lengths, [CHUNK_BYTES, CHUNK_BYTES, 1]);
        assert_eq!((&*sent[0].parent, sent[0].dry_run, &*sent[0].prune), ("acme", true, "subtree"));
        assert_eq!((&*sent[1].parent, sent[1].dry_run, &*sent[1].prune), ("", false, ""));
        assert_eq!(parts(&[], String::new(), false, "none").len(), 1);
    }
}
