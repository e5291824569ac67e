//! `capstan catalog`: the capabilities of a catalog.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use capstan_engine::Catalog;
use capstan_policy::{Catalogs, DOCUMENT_BYTES_MAX};
use capstan_server::feed::source::load_catalog;
use serde::Serialize;

use super::Document;
use crate::capabilities::by_resource;
use crate::completion;
use crate::output::{self, Format};

const EXAMPLES: &str = "\
Examples:
  capstan catalog capabilities                        of chainguard-2025-08-14
  capstan catalog capabilities --catalog mine.yaml
  capstan catalog capabilities --policy acme.yaml --output json";

/// Catalogs: which capabilities exist
#[derive(Debug, clap::Args)]
pub(crate) struct CatalogCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The capabilities of a catalog, by resource
    #[command(after_help = EXAMPLES)]
    Capabilities {
        /// The catalog of this policy document
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,

        /// A built-in catalog's name or a file; with --policy an additional catalog that the document can name
        #[arg(long, value_name = "NAME|FILE", add = completion::catalog())]
        catalog: Vec<String>,
    },
}

#[derive(Debug, Serialize)]
struct Listing {
    catalog: String,
    capabilities: Vec<String>,
}

impl CatalogCommand {
    pub(crate) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let Command::Capabilities { policy, catalog } = self.command;
        let catalog: Arc<Catalog> = match policy {
            Some(policy) => {
                let document = Document::load(&policy, &catalog, DOCUMENT_BYTES_MAX)?;
                Arc::clone(document.policy.model.catalog())
            }
            None => {
                let mut catalogs = Catalogs::default();
                let mut chosen = load_catalog(&mut catalogs, crate::roles::CATALOG)?;
                for name in &catalog {
                    chosen = load_catalog(&mut catalogs, name)?;
                }
                chosen
            }
        };
        let mut capabilities: Vec<String> = catalog.capabilities().map(Into::into).collect();
        capabilities.sort_unstable();
        let listing = Listing { catalog: catalog.name().into(), capabilities };
        match format {
            Format::Json => output::json(&listing)?,
            Format::Table => {
                output::line(format!("catalog {}", listing.catalog))?;
                let mut table = output::table(["resource", "actions", "purpose"]);
                for (kind, actions) in by_resource(&listing.capabilities) {
                    let resource = catalog.resources().iter().find(|one| one.name == kind);
                    let purpose = resource.map_or("", |resource| &resource.purpose);
                    table.add_row([kind, &actions.join(" "), purpose]);
                }
                output::line(table)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
