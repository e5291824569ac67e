//! `capstan identities`: the identities of a policy document.

use std::process::ExitCode;

use serde::Serialize;

use super::DocumentArgs;
use crate::output::{self, Format};

const EXAMPLES: &str = "\
Examples:
  capstan identities --policy acme.yaml
  capstan identities --policy acme.yaml --output json";

/// The identities of a policy document
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Identities {
    #[command(flatten)]
    document: DocumentArgs,
}

#[derive(Debug, Serialize)]
struct Listing {
    identities: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    name: String,
    /// The number of its role bindings, expired ones included.
    bindings: usize,
}

impl Identities {
    pub(crate) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let document = self.document.load()?;
        let identities = document.policy.model.facts().identities.iter().map(|identity| Row {
            id: identity.id.to_string(),
            kind: identity.kind.clone(),
            name: identity.name.clone(),
            bindings: document.bindings(identity.id.as_path()).len(),
        });
        let mut identities: Vec<_> = identities.collect();
        identities.sort_by(|a, b| a.id.cmp(&b.id));
        match format {
            Format::Json => output::json(&Listing { identities })?,
            Format::Table if identities.is_empty() => output::line("no identities")?,
            Format::Table => {
                let mut table = output::table(["identity", "type", "name", "role bindings"]);
                for row in identities {
                    table.add_row([row.id, row.kind, row.name, row.bindings.to_string()]);
                }
                output::line(table)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
