//! `capstan iam group-role-mappings`: roles that groups of an identity provider have.

use std::process::ExitCode;

use anyhow::ensure;
use capstan_proto::iam::v1::{Group, GroupRoleMapping, IdentityProvider, Role};

use super::connection::WriteArgs;
use super::names::{id_to_write, place, resolve, term};
use super::verbs::{
    ChangeArgs, DeleteArgs, ListArgs, ReadArgs, TextArgs, create, delete, describe, update,
};
use crate::completion;
use crate::output::Output;

const EXAMPLES: &str = "\
Examples:
  capstan iam group-role-mappings create --provider acme/okta --external-group admins \\
      --role owner --scope acme
  capstan iam group-role-mappings list --provider acme/okta
  capstan iam group-role-mappings delete acme/okta/0123456789abcdef

A mapping is judged as a role binding of everybody in the group. What it gives to whom does not change: create another one \
and delete this one.";

/// Roles that groups of an identity provider have
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GroupRoleMappings {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The mappings that the caller may see
    #[command(alias = "ls")]
    List(List),

    /// One mapping
    #[command(alias = "get")]
    Describe {
        /// Its path or name
        #[arg(value_name = "MAPPING", add = completion::managed::mapping())]
        mapping: String,

        #[command(flatten)]
        read: ReadArgs,
    },

    /// Gives a group of a provider a role
    Create(Box<Create>),

    /// Changes the name and the description of a mapping
    Update(Update),

    /// Deletes a mapping
    #[command(alias = "rm")]
    Delete {
        /// Its path, or name:NAME
        #[arg(value_name = "MAPPING", add = completion::managed::mapping())]
        mapping: String,

        #[command(flatten)]
        delete: DeleteArgs,
    },
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only those of this identity provider: a path or a name
    #[arg(long, value_name = "PROVIDER", add = completion::managed::provider())]
    provider: Option<String>,

    /// Only those of this role
    #[arg(long, value_name = "ROLE", add = completion::managed::role())]
    role: Option<String>,

    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The identity provider: a path, or name:NAME
    #[arg(long, value_name = "PROVIDER", add = completion::managed::provider())]
    provider: String,

    /// The group, as the tokens of the provider name it
    #[arg(long, value_name = "GROUP")]
    external_group: String,

    /// The role: a built-in role, or the path of a custom one, or name:NAME
    #[arg(long, value_name = "ROLE", add = completion::managed::role())]
    role: String,

    /// The organization, or a folder of it: a path, or name:NAME
    #[arg(long, value_name = "GROUP", add = completion::managed::group())]
    scope: String,

    /// Its path, one segment below the provider, or that segment. The server chooses one if there is none
    #[arg(long, value_name = "ID")]
    id: Option<String>,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    write: WriteArgs,
}

#[derive(Debug, clap::Args)]
struct Update {
    /// Its path, or name:NAME
    #[arg(value_name = "MAPPING", add = completion::managed::mapping())]
    mapping: String,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    change: ChangeArgs,
}

impl GroupRoleMappings {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::List(list) => list.run(output).await,
            Command::Describe { mapping, read } => {
                describe::<GroupRoleMapping>(&mapping, &read, output).await
            }
            Command::Create(create) => create.run(output).await,
            Command::Update(update) => update.run(output).await,
            Command::Delete { mapping, delete: args } => {
                delete::<GroupRoleMapping>(&mapping, &args, output).await
            }
        }
    }
}

impl List {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let server = self.list.connect().await?;
        let mut terms = vec![];
        if let Some(provider) = &self.provider {
            let id = resolve::<IdentityProvider>(&server, provider).await?;
            terms.push(term("identity_provider", &id));
        }
        if let Some(role) = &self.role {
            terms.push(term("role", &resolve::<Role>(&server, role).await?));
        }
        self.list.list::<GroupRoleMapping>(&server, terms, |_| true, output).await
    }
}

impl Create {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let (mut write, server) = self.write.open().await?;
        let parent = id_to_write::<IdentityProvider>(&server, &self.provider, &mut write).await?;
        let id = match &self.id {
            Some(id) => place(Some(id), Some(&parent))?.1,
            None => String::new(),
        };
        let (name, description) = self.text.values();
        let mapping = GroupRoleMapping {
            id,
            name,
            description,
            external_group: self.external_group,
            role: id_to_write::<Role>(&server, &self.role, &mut write).await?,
            scope: id_to_write::<Group>(&server, &self.scope, &mut write).await?,
            ..GroupRoleMapping::default()
        };
        create(&server, parent, mapping, &write, output).await
    }
}

impl Update {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let paths = self.text.mask();
        ensure!(!paths.is_empty(), "nothing to change: give --name or --description");
        let (mut write, server) = self.change.write.open().await?;
        let id = id_to_write::<GroupRoleMapping>(&server, &self.mapping, &mut write).await?;
        let (name, description) = self.text.values();
        let etag = self.change.etag.unwrap_or_default();
        let mapping =
            GroupRoleMapping { id, name, description, etag, ..GroupRoleMapping::default() };
        update(&server, (mapping, paths), "updated", &write, output).await
    }
}
