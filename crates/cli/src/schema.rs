//! `capstan schema`: prints the JSON Schema of a kind of document.

use std::process::ExitCode;

use capstan_policy::schema::DOCUMENTS;
use clap::builder::PossibleValuesParser;

use super::output::{self, Format};

const EXAMPLES: &str = "\
Examples:
  capstan schema policy > policy.schema.json
  capstan schema tests --output json

In Visual Studio Code, the YAML extension takes the schema from the first line of a document:
  # yaml-language-server: $schema=policy.schema.json";

/// Prints the JSON Schema of a kind of document, for editors
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Schema {
    /// The kind of document
    #[arg(value_parser = PossibleValuesParser::new(DOCUMENTS.map(|document| document.name)))]
    document: String,
}

impl Schema {
    /// The format chooses between several lines and one.
    pub(crate) fn run(&self, format: Format) -> anyhow::Result<ExitCode> {
        let document = DOCUMENTS.into_iter().find(|document| document.name == self.document);
        let schema = document.map(capstan_policy::schema::Document::json_schema);
        match format {
            Format::Table => output::line(format!("{:#}", schema.unwrap_or_default()))?,
            Format::Json => output::json(&schema)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
