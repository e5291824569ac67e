//! `capstan policy`: validates and tests policy documents.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use capstan_policy::{DOCUMENT_BYTES_MAX, Diagnostic, load_policy};
use serde::Serialize;

use super::FAILED;
use super::audit::diff::Diff;
use super::audit::{count, file};
use super::output::{self, Format};
use super::policy_test::Test;
use capstan_server::feed::source::{load_catalogs, read};

const EXAMPLES: &str = "\
Examples:
  capstan policy validate acme.yaml
  capstan policy validate *.yaml --output json
  capstan policy validate acme.yaml --catalog mine.yaml
  generate-policy | capstan policy validate -

Exit codes: 0 if all documents are valid, 2 otherwise.";

/// Policy documents
#[derive(Debug, clap::Args)]
pub(crate) struct Documents {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(name = "test")]
    Test(Test),
    Diff(Diff),
    /// Validates policy documents and prints every error and warning with its position
    #[command(after_help = EXAMPLES)]
    Validate {
        /// Policy documents, YAML or JSON; `-` is standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,

        /// Additional catalogs that the documents can name: a built-in catalog's name or a file; repeat for
        /// several
        #[arg(long, value_name = "NAME|FILE")]
        catalog: Vec<String>,

        /// Maximum size of a document, in bytes
        #[arg(long, value_name = "BYTES", default_value_t = DOCUMENT_BYTES_MAX)]
        max_document_bytes: u64,
    },
}

#[derive(Debug, Serialize)]
struct Report {
    files: Vec<FileReport>,
}

#[derive(Debug, Default, Serialize)]
struct FileReport {
    file: String,
    valid: bool,
    errors: Vec<Finding>,
    /// The number of errors. `errors` has the first 100.
    error_count: usize,
    warnings: Vec<Finding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    declares: Option<Declares>,
}

#[derive(Debug, Serialize)]
struct Finding {
    line: usize,
    column: usize,
    field: String,
    found: String,
    expected: String,
}

#[derive(Debug, Serialize)]
struct Declares {
    groups: usize,
    roles: usize,
    identities: usize,
    role_bindings: usize,
    resources: usize,
}

impl Documents {
    pub(crate) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let (files, catalog, max_document_bytes) = match self.command {
            Command::Test(test) => return test.run(format),
            Command::Diff(diff) => return diff.run(format),
            Command::Validate { files, catalog, max_document_bytes } => {
                (files, catalog, max_document_bytes)
            }
        };
        let catalogs = load_catalogs(&catalog)?;
        let mut report = Report { files: Vec::new() };
        for path in &files {
            report.files.push(match read(&file(path), max_document_bytes) {
                Ok(document) => validate(path, &document, &catalogs),
                Err(error) => unreadable(path, &error),
            });
        }
        match format {
            Format::Json => output::json(&report)?,
            Format::Table => report.files.iter().try_for_each(FileReport::print)?,
        }
        let valid = report.files.iter().all(|file| file.valid);
        Ok(if valid { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
    }
}

fn validate(path: &Path, document: &[u8], catalogs: &capstan_policy::Catalogs) -> FileReport {
    let file = path.display().to_string();
    match load_policy(document, catalogs) {
        Ok(policy) => {
            let facts = policy.model.facts();
            FileReport {
                file,
                valid: true,
                warnings: policy.warnings.iter().map(Finding::from).collect(),
                declares: Some(Declares {
                    groups: facts.groups.len(),
                    roles: facts.roles.len(),
                    identities: facts.identities.len(),
                    role_bindings: facts.role_bindings.len(),
                    resources: facts.resources.len(),
                }),
                ..FileReport::default()
            }
        }
        Err(found) => FileReport {
            file,
            errors: found.iter().map(Finding::from).collect(),
            error_count: found.total(),
            ..FileReport::default()
        },
    }
}

fn unreadable(path: &Path, error: &anyhow::Error) -> FileReport {
    let found = format!("{error:#}");
    let finding = Finding {
        line: 1,
        column: 1,
        field: String::new(),
        found,
        expected: "a document that can be read".into(),
    };
    FileReport {
        file: path.display().to_string(),
        errors: vec![finding],
        error_count: 1,
        ..FileReport::default()
    }
}

impl From<&Diagnostic> for Finding {
    fn from(diagnostic: &Diagnostic) -> Self {
        let Diagnostic { line, column, field, found, expected } = diagnostic.clone();
        Self { line, column, field, found, expected }
    }
}

impl FileReport {
    fn print(&self) -> anyhow::Result<()> {
        let file = &self.file;
        for (word, findings) in [("warning", &self.warnings), ("error", &self.errors)] {
            for Finding { line, column, field, found, expected } in findings {
                let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
                let word = output::verdict(false, word);
                output::line(format!(
                    "{file}:{line}:{column}: {word}: {field}found {found}; expected {expected}"
                ))?;
            }
        }
        match &self.declares {
            Some(declares) => {
                let Declares { groups, roles, identities, role_bindings, resources } = declares;
                let word = output::verdict(true, "valid");
                output::line(format!(
                    "{file}: {word}: {}, {}, {}, {}, {}",
                    count(*groups, "groups"),
                    count(*roles, "custom roles"),
                    count(*identities, "identities"),
                    count(*role_bindings, "role bindings"),
                    count(*resources, "resources"),
                ))
            }
            None => {
                let (shown, all) = (self.errors.len(), self.error_count);
                let more =
                    if all > shown { format!(", the first {shown} shown") } else { String::new() };
                let word = output::verdict(false, "not valid");
                output::line(format!("{file}: {word}: {}{more}", count(all, "errors")))
            }
        }
    }
}
