//! `capstan policy`: validates and tests policy documents, and moves them from and to servers.

use std::path::PathBuf;
use std::process::ExitCode;

use capstan_policy::{Catalogs, DOCUMENT_BYTES_MAX, Diagnostics, load_policy};

use super::audit::diff::Diff;
use super::completion;
use super::iam::transfer::{Export, Import};
use super::output::Output;
use super::policy_test::Test;
use super::validation::{self, Valid};
use capstan_server::feed::source::load_catalogs;

const EXAMPLES: &str = "\
Examples:
  capstan policy validate acme.yaml
  capstan policy validate *.yaml --output json
  capstan policy validate acme.yaml --catalog mine.yaml
  generate-policy | capstan policy validate -

Exit codes: 0 if all documents are valid, 2 otherwise.";

/// Policy documents, in files and on servers
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
    Export(Export),
    Import(Import),
    /// Validates policy documents and prints every error and warning with its position
    #[command(after_help = EXAMPLES)]
    Validate {
        /// Policy documents, YAML or JSON; `-` is standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,

        /// Additional catalogs that the documents can name: a built-in catalog's name or a file; repeat for
        /// several
        #[arg(long, value_name = "NAME|FILE", add = completion::catalog())]
        catalog: Vec<String>,

        /// Maximum size of a document, in bytes
        #[arg(long, value_name = "BYTES", default_value_t = DOCUMENT_BYTES_MAX)]
        max_document_bytes: u64,
    },
}

impl Documents {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let (files, catalog, max_document_bytes) = match self.command {
            Command::Test(test) => return test.run(output),
            Command::Diff(diff) => return diff.run(output.format()?),
            Command::Export(export) => {
                output.format()?;
                return export.run().await;
            }
            Command::Import(import) => return import.run(output.format()?).await,
            Command::Validate { files, catalog, max_document_bytes } => {
                (files, catalog, max_document_bytes)
            }
        };
        let catalogs = load_catalogs(&catalog)?;
        validation::run(&files, max_document_bytes, output.format()?, |document| {
            validate(document, &catalogs)
        })
    }
}

fn validate(document: &[u8], catalogs: &Catalogs) -> Result<Valid, Diagnostics> {
    let policy = load_policy(document, catalogs)?;
    let facts = policy.model.facts();
    Ok(Valid {
        warnings: policy.warnings,
        declares: vec![
            ("groups", "groups", facts.groups.len()),
            ("roles", "custom roles", facts.roles.len()),
            ("identities", "identities", facts.identities.len()),
            ("role_bindings", "role bindings", facts.role_bindings.len()),
            ("resources", "resources", facts.resources.len()),
        ],
    })
}
