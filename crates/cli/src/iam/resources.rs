//! `capstan iam resources`: the leaves of the tree, which belong to other services.

use std::process::ExitCode;

use anyhow::ensure;
use capstan_proto::iam::v1::Resource;

use super::connection::WriteArgs;
use super::names::{id_of, place_in, term};
use super::values::{PropertyArgs, properties};
use super::verbs::{
    DeleteArgs, ListArgs, ReadArgs, TextArgs, create, delete, describe, read_to_change, update,
};
use crate::completion;
use crate::output::Output;

const EXAMPLES: &str = "\
Examples:
  capstan iam resources create acme/platform/nginx --type repo --property visibility=private
  capstan iam resources list --parent acme --type repo
  capstan iam resources update acme/platform/nginx --property status=archived
  capstan iam resources delete acme/platform/nginx

A resource need not be registered to be asked about. A registered one can be the scope of a role binding, has properties,
and is found by search.";

/// Registered resources of other services
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Resources {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The resources that the caller may see
    #[command(alias = "ls")]
    List {
        /// Only those of this type, such as repo
        #[arg(long = "type", value_name = "TYPE")]
        kind: Option<String>,

        #[command(flatten)]
        list: ListArgs,
    },

    /// One resource
    #[command(alias = "get")]
    Describe {
        /// Its path or name
        #[arg(value_name = "RESOURCE", add = completion::managed::resource())]
        resource: String,

        #[command(flatten)]
        read: ReadArgs,
    },

    /// Registers a resource in a group, or at the root, which only the operator may
    Create(Box<Create>),

    /// Changes its name, description and properties
    Update(Box<Update>),

    /// Deletes a resource and the role bindings at it
    #[command(alias = "rm")]
    Delete {
        /// Its path or name
        #[arg(value_name = "RESOURCE", add = completion::managed::resource())]
        resource: String,

        #[command(flatten)]
        delete: DeleteArgs,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Its path, or its last segment with --parent [default: random hex digits]
    #[arg(value_name = "ID")]
    id: Option<String>,

    /// The group that it is in: a path or a name. Without it and without a slash in ID it is at the root
    #[arg(long, value_name = "GROUP", add = completion::managed::group())]
    parent: Option<String>,

    /// What it is, such as repo
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,

    /// An attribute that conditions test as resource.NAME: a string, or JSON; repeat for several
    #[arg(long, value_name = "NAME=VALUE")]
    property: Vec<String>,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    write: WriteArgs,
}

#[derive(Debug, clap::Args)]
struct Update {
    /// Its path or name
    #[arg(value_name = "RESOURCE", add = completion::managed::resource())]
    resource: String,

    #[command(flatten)]
    properties: PropertyArgs,

    #[command(flatten)]
    text: TextArgs,

    /// Change it only if this is its current etag
    #[arg(long, value_name = "ETAG")]
    etag: Option<String>,

    #[command(flatten)]
    write: WriteArgs,
}

impl Resources {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::List { kind, list } => {
                let server = list.connect().await?;
                let terms = kind.map(|kind| term("type", &kind));
                list.list::<Resource>(&server, terms, |_| true, output).await
            }
            Command::Describe { resource, read } => {
                describe::<Resource>(&resource, &read, output).await
            }
            Command::Create(create) => create.run(output).await,
            Command::Update(update) => update.run(output).await,
            Command::Delete { resource, delete: args } => {
                delete::<Resource>(&resource, &args, output).await
            }
        }
    }
}

impl Create {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let properties = properties(&self.property)?;
        let write = self.write.write()?;
        let server = self.write.server.connect().await?;
        let (parent, id) = place_in(&server, self.id.as_deref(), self.parent.as_deref()).await?;
        let (name, description) = self.text.values();
        let r#type = self.kind.unwrap_or_default();
        let resource =
            Resource { id, name, description, r#type, properties, ..Resource::default() };
        create(&server, parent, resource, &write, output).await
    }
}

impl Update {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let change = self.properties.change()?;
        let mut paths = self.text.mask();
        if change.is_some() {
            paths.push("properties".into());
        }
        ensure!(
            !paths.is_empty(),
            "nothing to change: give --property, --remove-property, --name or --description"
        );
        let mut write = self.write.write()?;
        let server = self.write.server.connect().await?;
        let id = id_of::<Resource>(&server, &self.resource).await?;
        let (name, description) = self.text.values();
        let mut resource = Resource { id, name, description, ..Resource::default() };
        resource.etag = match change {
            None => self.etag.unwrap_or_default(),
            Some(change) => {
                let option = PropertyArgs::OPTIONS;
                let read = read_to_change(&server, &resource.id, self.etag, option, &mut write);
                let read = read.await?;
                let found: Resource = read.object;
                resource.properties = change.apply(found.properties, read.is_stale)?;
                read.etag
            }
        };
        update(&server, (resource, paths), "updated", &write, output).await
    }
}
