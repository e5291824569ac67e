//! `capstan roles`: which roles there are.

use std::process::ExitCode;

use capstan_proto::v1;
use serde::Serialize;

use super::capabilities::by_resource;
use super::output::{self, Format};
use super::target::Target;
use crate::source::{load_catalog, load_catalogs};

/// The catalog that stands alone, with no server and no file.
const CATALOG: &str = "chainguard-2025-08-14";

const EXAMPLES: &str = "\
Examples:
  capstan roles list                          the built-in roles of chainguard-2025-08-14
  capstan roles list registry.pull            what one of them gives
  capstan roles list --output json
  capstan roles list --catalog mine.yaml      another catalog
  capstan roles list --policy acme.yaml       that document's, custom roles too";

/// Roles, and what they give
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Roles {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The built-in roles of a catalog; with --policy or --addr custom roles too
    #[command(after_help = EXAMPLES)]
    List {
        /// Only these roles, with everything that they give
        #[arg(value_name = "ROLE")]
        only: Vec<String>,

        #[command(flatten)]
        target: Target,
    },
}

#[derive(Debug, Serialize)]
struct Listing {
    catalog: String,
    roles: Vec<Role>,
}

#[derive(Debug, Serialize)]
struct Role {
    name: String,
    description: String,
    family: String,
    capabilities: Vec<String>,
}

impl Roles {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let Command::List { only, target } = self.command;
        let mut listing = list(&target).await?;
        for name in &only {
            if !listing.roles.iter().any(|role| role.name == *name) {
                let known: Vec<_> = listing.roles.iter().map(|role| &*role.name).collect();
                anyhow::bail!("there is no role `{name}`; there are {}", known.join(", "));
            }
        }
        if !only.is_empty() {
            listing.roles.retain(|role| only.contains(&role.name));
        }
        match format {
            Format::Json => output::json(&listing)?,
            Format::Table if only.is_empty() => listing.print()?,
            Format::Table => listing.print_whole()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn list(target: &Target) -> anyhow::Result<Listing> {
    let (catalog, roles) = match (&target.policy, &target.addr) {
        (None, None) => alone(&target.catalog)?,
        _ => target.decider().await?.list_roles().await?,
    };
    let roles = roles.into_iter().map(|role| Role {
        name: role.id,
        description: role.description,
        family: role.family,
        capabilities: role.capabilities,
    });
    Ok(Listing { catalog, roles: roles.collect() })
}

/// The roles of the last `--catalog`, or of the one that stands alone.
fn alone(named: &[String]) -> anyhow::Result<(String, Vec<v1::Role>)> {
    let mut catalogs = load_catalogs(named)?;
    let catalog = load_catalog(&mut catalogs, named.last().map_or(CATALOG, |name| name))?;
    let roles = catalog.roles().iter().map(|role| {
        let set = catalog.capability_set(&role.capabilities);
        crate::convert::role(
            &catalog,
            &capstan_engine::Role {
                id: (*role.name).into(),
                description: (*role.description).into(),
                family: role.family,
                capabilities: set,
            },
        )
    });
    Ok((catalog.name().into(), roles.collect()))
}

impl Listing {
    fn print(self) -> anyhow::Result<()> {
        output::line(format!("catalog {}", self.catalog))?;
        let mut table = output::table(["role", "family", "gives", "description"]);
        for role in self.roles {
            let gives = role.capabilities.len().to_string();
            table.add_row([role.name, role.family, gives, role.description]);
        }
        output::line(table)
    }

    fn print_whole(self) -> anyhow::Result<()> {
        for role in self.roles {
            output::line(format!("{}: {}", role.name, role.description))?;
            let mut table = output::table(["resource", "actions"]);
            for (kind, actions) in by_resource(&role.capabilities) {
                table.add_row([kind, &actions.join(" ")]);
            }
            output::line(table)?;
        }
        Ok(())
    }
}
