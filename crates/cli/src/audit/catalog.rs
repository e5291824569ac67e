//! `capstan catalog`: the capabilities of a catalog, and the catalog of a server.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use capstan_engine::{Catalog, CatalogResource};
use capstan_policy::{Catalogs, DOCUMENT_BYTES_MAX};
use capstan_server::feed::source::load_catalog;
use serde::Serialize;

use super::Document;
use crate::answers::RoleList;
use crate::capabilities::by_resource;
use crate::completion;
use crate::context;
use crate::decider::{Consistency, Decider};
use crate::iam::connection::ServerArgs;
use crate::iam::transfer::SetCatalog;
use crate::output::{self, Format};

const EXAMPLES: &str = "\
Examples:
  capstan catalog capabilities                        of chainguard-2025-08-14
  capstan catalog capabilities --catalog mine.yaml
  capstan catalog capabilities --policy acme.yaml --output json
  capstan catalog capabilities --addr http://127.0.0.1:4480
                                                      those that the roles of a server give";

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

        /// The catalog of the server at this address, as far as its roles give it: http://HOST:PORT, https://HOST:PORT or unix:PATH
        #[arg(long, value_name = "URL", conflicts_with = "policy")]
        addr: Option<String>,

        /// A built-in catalog's name or a file; with --policy an additional catalog that the document can name
        #[arg(long, value_name = "NAME|FILE", conflicts_with = "addr", add = completion::catalog())]
        catalog: Vec<String>,
    },

    Set(SetCatalog),
}

#[derive(Debug, Serialize)]
struct Listing {
    catalog: String,
    capabilities: BTreeSet<String>,
    /// Of resources. A server does not say them.
    #[serde(skip)]
    purposes: BTreeMap<String, String>,
}

impl CatalogCommand {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let (policy, addr, catalog) = match self.command {
            Command::Capabilities { policy, addr, catalog } => (policy, addr, catalog),
            Command::Set(set) => return set.run(format).await,
        };
        let listing = match (policy, addr) {
            (Some(policy), _) => {
                let document = Document::load(&policy, &catalog, DOCUMENT_BYTES_MAX)?;
                Listing::of(document.policy.model.catalog())
            }
            (None, addr) if addr.is_some() || context::is_chosen() => {
                let server = ServerArgs { addr, ..ServerArgs::default() };
                let server = Decider::connect(server, Consistency::Any).await?;
                Listing::of_roles(server.list_roles().await?)
            }
            (None, _) => {
                let mut catalogs = Catalogs::default();
                let mut chosen = load_catalog(&mut catalogs, crate::roles::CATALOG)?;
                for name in &catalog {
                    chosen = load_catalog(&mut catalogs, name)?;
                }
                Listing::of(&chosen)
            }
        };
        match format {
            Format::Json => output::json(&listing)?,
            Format::Table => listing.print()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Listing {
    fn of(catalog: &Catalog) -> Self {
        let purpose = |one: &CatalogResource| (one.name.clone(), one.purpose.clone());
        Self {
            catalog: catalog.name().into(),
            capabilities: catalog.capabilities().map(Into::into).collect(),
            purposes: catalog.resources().iter().map(purpose).collect(),
        }
    }

    /// A server lists roles only.
    fn of_roles(list: RoleList) -> Self {
        let capabilities = list.roles.into_iter().flat_map(|role| role.capabilities).collect();
        Self { catalog: list.catalog, capabilities, purposes: BTreeMap::new() }
    }

    fn print(self) -> anyhow::Result<()> {
        output::line(format!("catalog {}", self.catalog))?;
        let mut table = output::table(["resource", "actions", "purpose"]);
        let capabilities: Vec<_> = self.capabilities.into_iter().collect();
        for (kind, actions) in by_resource(&capabilities) {
            let purpose = self.purposes.get(kind).map_or("", String::as_str);
            table.add_row([kind, &actions.join(" "), purpose]);
        }
        output::line(table)
    }
}
