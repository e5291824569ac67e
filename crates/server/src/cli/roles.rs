//! `capstan roles`: which roles there are, and how they differ.

mod compare;
mod diff;
mod near;

use std::process::ExitCode;

use anyhow::anyhow;
use capstan_engine::quote;
use capstan_policy::Catalogs;
use capstan_proto::v1;
use serde::Serialize;

use super::capabilities::by_resource;
use super::output::{self, Format};
use super::target::Target;
use crate::source::load_catalog;

/// The catalog that stands alone, with no server and no file.
const CATALOG: &str = "chainguard-2025-08-14";

const EXAMPLES: &str = "\
Examples:
  capstan roles list                          the built-in roles of chainguard-2025-08-14
  capstan roles list registry.pull            what one of them gives
  capstan roles list --output json
  capstan roles list --catalog mine.yaml      another catalog
  capstan roles list --policy acme.yaml       that document's, custom roles too
  capstan roles compare                       what each role is good for, side by side
  capstan roles diff editor viewer            what one gives and the other does not";

const COMPARE: &str = "\
Examples:
  capstan roles compare                       the built-in roles of chainguard-2025-08-14
  capstan roles compare --output json
  capstan roles compare --catalog chainguard-2025-08-14+errata
  capstan roles compare --policy acme.yaml    custom roles too

A role is marked if it gives:

";

const DIFF: &str = "\
Examples:
  capstan roles diff editor viewer
  capstan roles diff editor viewer --output json
  capstan roles diff owner editor --catalog chainguard-2023-12-07
  capstan roles diff editor acme/release --policy acme.yaml";

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

    /// What each role is good for: pulling images, making pull tokens, and so on
    #[command(after_help = [COMPARE, &compare::rules()].concat())]
    Compare {
        #[command(flatten)]
        target: Target,
    },

    /// What one role gives and the other does not
    #[command(after_help = DIFF)]
    Diff {
        /// A role's name
        #[arg(value_name = "A")]
        a: String,

        /// Another role's name
        #[arg(value_name = "B")]
        b: String,

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
        match self.command {
            Command::List { only, target } => {
                let listing = list(&target).await?.only(&only)?;
                match format {
                    Format::Json => output::json(&listing)?,
                    Format::Table if only.is_empty() => listing.print()?,
                    Format::Table => listing.print_whole()?,
                }
            }
            Command::Compare { target } => compare::show(&list(&target).await?, format)?,
            Command::Diff { a, b, target } => diff::show(&list(&target).await?, &a, &b, format)?,
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
    let mut catalogs = Catalogs::default();
    let mut catalog = load_catalog(&mut catalogs, CATALOG)?;
    for name in named {
        catalog = load_catalog(&mut catalogs, name)?;
    }
    let roles = catalog.roles().iter().map(|role| {
        let set = catalog.capability_set(&role.capabilities);
        crate::convert::role(
            &catalog,
            &capstan_engine::Role {
                id: (*role.name).into(),
                name: "".into(),
                description: (*role.description).into(),
                family: role.family,
                capabilities: set,
            },
        )
    });
    Ok((catalog.name().into(), roles.collect()))
}

impl Listing {
    fn role(&self, name: &str) -> anyhow::Result<&Role> {
        self.roles.iter().find(|role| role.name == name).ok_or_else(|| {
            let known = near::hint(name, self.roles.iter().map(|role| &*role.name));
            anyhow!("there is no role {}; {known}", quote(name))
        })
    }

    /// Only these roles, or all if none are named.
    fn only(mut self, names: &[String]) -> anyhow::Result<Self> {
        for name in names {
            self.role(name)?;
        }
        self.roles.retain(|role| names.is_empty() || names.contains(&role.name));
        Ok(self)
    }

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
