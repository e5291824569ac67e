//! `capstan roles`: the roles of a policy or catalog, and the differences between them; custom roles of a server.

mod compare;
mod diff;
mod suggest;

use std::process::ExitCode;

use anyhow::anyhow;
use capstan_engine::quote;
use capstan_policy::Catalogs;

use super::answers::{Role, RoleList};
use super::capabilities::by_resource;
use super::completion;
use super::context;
use super::decider::{Consistency, DeciderArgs};
use super::iam::connection::ServerArgs;
use super::iam::custom_roles::{self, CustomRoles, RoleQuery};
use super::output::{self, Output};
use capstan_server::feed::source::load_catalog;

/// The catalog of a new store, and of lists of roles, unless another one is named (contract, section 8).
pub(crate) const CATALOG: &str = "chainguard-2025-08-14";

const EXAMPLES: &str = "\
Examples:
  capstan roles list                          the built-in roles of chainguard-2025-08-14
  capstan roles list registry.pull            what one of them gives
  capstan roles list --output json
  capstan roles list --catalog mine.yaml      another catalog
  capstan roles list --policy acme.yaml       the roles of that document, custom roles included
  capstan roles compare                       what each role allows, side by side
  capstan roles compare --catalog mine.yaml   the same for another catalog, by capabilities
  capstan roles diff editor viewer            what one gives and the other does not
  capstan roles create acme/puller --like registry.pull --as alice
                                              a custom role, on a server";

const COMPARE: &str = "\
Examples:
  capstan roles compare                       the built-in roles of chainguard-2025-08-14
  capstan roles compare editor viewer --by capabilities
  capstan roles compare --output json
  capstan roles compare --catalog mine.yaml   the roles of another catalog
  capstan roles compare --policy acme.yaml    custom roles too

By capabilities there is a row for actions that the same roles give. By tasks a role is marked if \
it gives:

";

const DIFF: &str = "\
Examples:
  capstan roles diff editor viewer
  capstan roles diff editor viewer --output json
  capstan roles diff owner editor --catalog chainguard-2023-12-07
  capstan roles diff editor acme/release --policy acme.yaml";

// The alias is hidden, because completion would offer it in place of the name.
/// Roles and their capabilities; `role` is the same command
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Roles {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The built-in roles of a catalog; with --policy or --addr custom roles too
    #[command(alias = "ls", after_help = EXAMPLES)]
    List {
        /// Only these roles, with their capabilities
        #[arg(value_name = "ROLE", add = completion::role())]
        only: Vec<String>,

        /// Only custom roles in and below this group of a server: a path or a name
        #[arg(long, value_name = "GROUP", conflicts_with = "policy", add = completion::managed::group())]
        parent: Option<String>,

        /// Only roles of a server with these values: field = "value" terms, joined by AND
        #[arg(long, value_name = "FILTER", conflicts_with = "policy")]
        filter: Option<String>,

        #[command(flatten)]
        source: SourceArgs,
    },

    /// What each role allows, side by side: by the tasks of the reference, or by capabilities
    #[command(after_help = [COMPARE, &compare::rules()].concat())]
    Compare {
        /// Only these roles
        #[arg(value_name = "ROLE", add = completion::role())]
        only: Vec<String>,

        /// What to compare by [default: tasks for a built-in catalog, capabilities for any other]
        #[arg(long, value_enum)]
        by: Option<compare::By>,

        #[command(flatten)]
        source: SourceArgs,
    },

    /// The capabilities that only one of two roles has
    #[command(after_help = DIFF)]
    Diff {
        /// A role's name
        #[arg(value_name = "A", add = completion::role())]
        a: String,

        /// Another role's name
        #[arg(value_name = "B", add = completion::role())]
        b: String,

        #[command(flatten)]
        source: SourceArgs,
    },

    #[command(flatten)]
    Custom(CustomRoles),
}

impl Roles {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::List { only, parent, filter, source } => {
                let (parent, filter) = (parent.as_deref(), filter.unwrap_or_default());
                let query = RoleQuery { parent, filter, ..RoleQuery::default() };
                let listing = source.list(query).await?.only(&only)?;
                match output {
                    Output::Json => output::json(&listing)?,
                    Output::Id => {
                        listing.roles.iter().try_for_each(|role| output::line(&role.name))?;
                    }
                    Output::Table if only.is_empty() => listing.print()?,
                    Output::Table => listing.print_whole()?,
                    Output::Tree | Output::Junit | Output::Client(_) => {
                        output.format().map(drop)?;
                    }
                }
            }
            Command::Compare { only, by, source } => {
                compare::show(
                    &source.list(RoleQuery::default()).await?.only(&only)?,
                    by,
                    output.format()?,
                )?;
            }
            Command::Diff { a, b, source } => {
                diff::show(&source.list(RoleQuery::default()).await?, &a, &b, output.format()?)?;
            }
            Command::Custom(custom) => {
                output.of_management()?;
                return custom.run(output).await;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Where roles come from.
#[derive(Debug, clap::Args)]
struct SourceArgs {
    #[command(flatten)]
    decider: DeciderArgs,
}

impl SourceArgs {
    /// The roles of the chosen policy, server or catalog. A server is asked if one is named, or by an option that only a
    /// server has an answer to.
    async fn list(&self, query: RoleQuery<'_>) -> anyhow::Result<RoleList> {
        let DeciderArgs { policy, addr, consistency, catalog, .. } = &self.decider;
        if policy.is_some() {
            return self.decider.decider().await?.list_roles().await;
        }
        let is_of_server = addr.is_some()
            || self.decider.caller.is_some()
            || self.decider.token_file.is_some()
            || *consistency != Consistency::Any
            || query.parent.is_some()
            || !query.filter.is_empty()
            || context::is_chosen();
        if !is_of_server {
            return of_catalog(catalog);
        }
        let (caller, token_file) = (self.decider.caller.clone(), self.decider.token_file.clone());
        let server = ServerArgs { addr: addr.clone(), caller, token_file, ..ServerArgs::default() };
        let query = RoleQuery { consistency: consistency.message(), ..query };
        custom_roles::list(&server.connect().await?, query).await
    }
}

/// The built-in roles of the last `--catalog`, or of [`CATALOG`] without one.
pub(crate) fn of_catalog(names: &[String]) -> anyhow::Result<RoleList> {
    let mut catalogs = Catalogs::default();
    let mut catalog = load_catalog(&mut catalogs, CATALOG)?;
    for name in names {
        catalog = load_catalog(&mut catalogs, name)?;
    }
    let roles = catalog.roles().iter().map(|role| {
        let set = catalog.capability_set(&role.capabilities);
        let names = set.iter().filter_map(|at| catalog.capability_name(at));
        Role {
            name: role.name.clone(),
            description: role.description.clone(),
            family: role.family.as_str().into(),
            capabilities: names.map(Into::into).collect(),
        }
    });
    Ok(RoleList { catalog: catalog.name().into(), roles: roles.collect() })
}

impl RoleList {
    fn role(&self, name: &str) -> anyhow::Result<&Role> {
        self.roles.iter().find(|role| role.name == name).ok_or_else(|| {
            let known = suggest::hint(name, self.roles.iter().map(|role| &*role.name));
            anyhow!("there is no role {}; {known}", quote(name))
        })
    }

    /// Only these roles; all if `names` is empty.
    ///
    /// # Errors
    ///
    /// There is no role of a name.
    fn only(mut self, names: &[String]) -> anyhow::Result<Self> {
        for name in names {
            self.role(name)?;
        }
        self.roles.retain(|role| names.is_empty() || names.contains(&role.name));
        Ok(self)
    }

    fn print(self) -> anyhow::Result<()> {
        output::line(format!("catalog {}", self.catalog))?;
        if self.roles.is_empty() {
            return output::line("no roles");
        }
        let mut table = output::table(["role", "family", "gives", "description"]);
        for role in self.roles {
            let gives = role.capabilities.len().to_string();
            table.add_row([role.name, role.family, gives, role.description]);
        }
        output::line(table)
    }

    /// Each role with all its capabilities.
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
