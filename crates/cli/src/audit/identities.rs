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
    /// Whether none of its bindings counts.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disabled: bool,
    /// Whether it is only bound: its type and name are not known.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    undeclared: bool,
}

impl Identities {
    pub(crate) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let document = self.document.load()?;
        let model = &document.policy.model;
        let declared = model.facts().identities.iter().map(|identity| Row {
            id: identity.id.to_string(),
            kind: identity.kind.clone(),
            name: identity.name.clone(),
            bindings: document.bindings(identity.id.as_path()).len(),
            disabled: identity.disabled,
            undeclared: false,
        });
        let bound = model.unregistered().iter().map(|id| Row {
            id: id.to_string(),
            kind: String::new(),
            name: String::new(),
            bindings: document.bindings(id.as_path()).len(),
            disabled: false,
            undeclared: true,
        });
        let mut identities: Vec<_> = declared.chain(bound).collect();
        identities.sort_by(|a, b| a.id.cmp(&b.id));
        match format {
            Format::Json => output::json(&Listing { identities })?,
            Format::Table if identities.is_empty() => output::line("no identities")?,
            Format::Table => {
                let mut table = output::table(["identity", "type", "name", "role bindings"]);
                for row in identities {
                    let kind = match (row.disabled, row.undeclared) {
                        (true, _) => format!("{}, disabled", row.kind),
                        (false, true) => "not declared".into(),
                        (false, false) => row.kind,
                    };
                    table.add_row([row.id, kind, row.name, row.bindings.to_string()]);
                }
                output::line(table)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
