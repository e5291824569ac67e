//! `capstan iam organizations`, `folders` and `groups`: the nodes of the tree.

use std::process::ExitCode;

use anyhow::{bail, ensure};
use capstan_proto::iam::v1::group_service_client::GroupServiceClient;
use capstan_proto::iam::v1::{self as iam, Group, Identity};
use prost_types::FieldMask;
use tonic::Request;

use super::connection::{Connection, Safety, Write, WriteArgs, present};
use super::names::{place_in, resolve};
use super::show::{self, Done};
use super::verbs::{DeleteArgs, FilterArgs, ListArgs, ReadArgs, delete, describe, find};
use crate::completion;
use crate::decider::Consistency;
use crate::output::Output;

const ORGANIZATIONS: &str = "\
Examples:
  capstan iam organizations create acme --owner alice --addr unix:/var/lib/capstan/operator.sock
  capstan iam organizations list
  capstan iam organizations describe acme --output json
  capstan iam organizations update acme --name 'Acme Corp'
  capstan iam organizations delete acme --yes";

const FOLDERS: &str = "\
Examples:
  capstan iam folders create acme/platform --name Platform
  capstan iam folders create platform --parent acme
  capstan iam folders list --parent acme --output tree
  capstan iam folders update acme/platform --description 'what others build on'
  capstan iam folders delete acme/platform";

const GROUPS: &str = "\
Examples:
  capstan iam groups list --output tree
  capstan iam groups describe acme/platform
  capstan iam groups delete acme/platform --validate-only";

/// Organizations: the groups at the root
#[derive(Debug, clap::Args)]
#[command(after_help = ORGANIZATIONS)]
pub(crate) struct Organizations {
    #[command(subcommand)]
    command: OrganizationCommand,
}

#[derive(Debug, clap::Subcommand)]
enum OrganizationCommand {
    /// The organizations that the caller may see
    #[command(alias = "ls")]
    List(FilterArgs),

    /// One organization
    #[command(alias = "get")]
    Describe(GroupArgs),

    /// Creates an organization with its first owner, which only the operator may
    Create {
        /// Its path, one segment [default: 40 random hex digits]
        #[arg(value_name = "ID")]
        id: Option<String>,

        /// The identity that owns it: an id or a name
        #[arg(long, id = "owner_identity", value_name = "IDENTITY",
            add = completion::managed::identity())]
        owner: String,

        #[command(flatten)]
        text: TextArgs,

        #[command(flatten)]
        write: WriteArgs,
    },

    /// Changes its name and description
    Update(UpdateArgs),

    /// Deletes an empty organization
    #[command(alias = "rm")]
    Delete(DeleteGroup),
}

/// Folders: the groups in groups
#[derive(Debug, clap::Args)]
#[command(after_help = FOLDERS)]
pub(crate) struct Folders {
    #[command(subcommand)]
    command: FolderCommand,
}

#[derive(Debug, clap::Subcommand)]
enum FolderCommand {
    /// The folders that the caller may see
    #[command(alias = "ls")]
    List(ListArgs),

    /// One folder
    #[command(alias = "get")]
    Describe(GroupArgs),

    /// Creates a folder in a group
    Create(CreateFolder),

    /// Changes its name and description
    Update(UpdateArgs),

    /// Deletes an empty folder
    #[command(alias = "rm")]
    Delete(DeleteGroup),
}

/// Groups: organizations and folders
#[derive(Debug, clap::Args)]
#[command(after_help = GROUPS)]
pub(crate) struct Groups {
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Debug, clap::Subcommand)]
enum GroupCommand {
    /// The groups that the caller may see
    #[command(alias = "ls")]
    List(ListArgs),

    /// One group
    #[command(alias = "get")]
    Describe(GroupArgs),

    /// Creates a folder in a group; `capstan iam organizations create` makes an organization
    Create(CreateFolder),

    /// Changes its name and description
    Update(UpdateArgs),

    /// Deletes an empty group
    #[command(alias = "rm")]
    Delete(DeleteGroup),
}

#[derive(Debug, clap::Args)]
struct GroupArgs {
    /// Its path or name
    #[arg(value_name = "GROUP", add = completion::managed::group())]
    group: String,

    #[command(flatten)]
    read: ReadArgs,
}

/// What people read of an object.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TextArgs {
    /// Display name
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<String>,

    /// Description
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
}

impl TextArgs {
    /// The fields of an update that are given.
    pub(crate) fn mask(&self) -> Vec<String> {
        let fields = [("name", &self.name), ("description", &self.description)];
        fields
            .into_iter()
            .filter(|(_, value)| value.is_some())
            .map(|(name, _)| name.into())
            .collect()
    }

    pub(crate) fn values(self) -> (String, String) {
        (self.name.unwrap_or_default(), self.description.unwrap_or_default())
    }
}

#[derive(Debug, clap::Args)]
struct CreateFolder {
    /// Its path, or its last segment with --parent [default: 16 random hex digits below --parent]
    #[arg(value_name = "ID", required_unless_present = "parent")]
    id: Option<String>,

    /// The group that it is in: a path or a name
    #[arg(long, value_name = "GROUP", add = completion::managed::group())]
    parent: Option<String>,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    write: WriteArgs,
}

#[derive(Debug, clap::Args)]
struct UpdateArgs {
    /// Its path or name
    #[arg(value_name = "GROUP", add = completion::managed::group())]
    group: String,

    #[command(flatten)]
    text: TextArgs,

    /// Change it only if this is its current etag
    #[arg(long, value_name = "ETAG")]
    etag: Option<String>,

    #[command(flatten)]
    write: WriteArgs,
}

#[derive(Debug, clap::Args)]
struct DeleteGroup {
    /// Its path or name
    #[arg(value_name = "GROUP", add = completion::managed::group())]
    group: String,

    #[command(flatten)]
    delete: DeleteArgs,
}

impl Organizations {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self.command {
            OrganizationCommand::List(filter) => {
                let list = ListArgs { parent: None, filter };
                list_groups(&list, |group| !group.id.contains('/'), output).await
            }
            OrganizationCommand::Describe(args) => {
                describe::<Group>(&args.group, &args.read, output).await
            }
            OrganizationCommand::Create { id, owner, text, write: args } => {
                ensure!(
                    id.as_ref().is_none_or(|id| !id.contains('/')),
                    "an organization has a path of one segment; `capstan iam folders create` makes a folder"
                );
                let write = args.write()?;
                let server = args.server.connect().await?;
                let owner = resolve::<Identity>(&server, &owner).await?;
                let (name, description) = text.values();
                let group =
                    Group { id: id.unwrap_or_default(), name, description, ..Group::default() };
                create(&server, String::new(), group, owner, &write, output).await
            }
            OrganizationCommand::Update(args) => args.run(output).await,
            OrganizationCommand::Delete(args) => args.run(output).await,
        }
    }
}

impl Folders {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self.command {
            FolderCommand::List(list) => {
                list_groups(&list, |group| group.id.contains('/'), output).await
            }
            FolderCommand::Describe(args) => {
                describe::<Group>(&args.group, &args.read, output).await
            }
            FolderCommand::Create(args) => args.run(output).await,
            FolderCommand::Update(args) => args.run(output).await,
            FolderCommand::Delete(args) => args.run(output).await,
        }
    }
}

impl Groups {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self.command {
            GroupCommand::List(list) => list_groups(&list, |_| true, output).await,
            GroupCommand::Describe(args) => {
                describe::<Group>(&args.group, &args.read, output).await
            }
            GroupCommand::Create(args) => args.run(output).await,
            GroupCommand::Update(args) => args.run(output).await,
            GroupCommand::Delete(args) => args.run(output).await,
        }
    }
}

async fn list_groups(
    list: &ListArgs,
    keep: impl Fn(&Group) -> bool,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let server = list.connect().await?;
    list.list(&server, [], keep, output).await
}

/// The word for a group with this path.
fn word(id: &str) -> &'static str {
    if id.contains('/') { "folder" } else { "organization" }
}

impl CreateFolder {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let write = self.write.write()?;
        let server = self.write.server.connect().await?;
        let (parent, id) = place_in(&server, self.id.as_deref(), self.parent.as_deref()).await?;
        if parent.is_empty() {
            bail!(
                "a folder is in a group: give its whole path, or --parent; `capstan iam organizations create` makes an \
                 organization"
            );
        }
        let (name, description) = self.text.values();
        let group = Group { id, name, description, ..Group::default() };
        create(&server, parent, group, String::new(), &write, output).await
    }
}

async fn create(
    server: &Connection,
    parent: String,
    group: Group,
    owner: String,
    write: &Write,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let request = iam::CreateGroupRequest {
        parent,
        group: Some(group),
        request_id: write.request_id.clone(),
        owner,
        validate_only: write.validate_only,
    };
    let send = async |request: Request<_>| {
        GroupServiceClient::new(server.service()).create_group(request).await
    };
    let made = server.call(Safety::Write(write), request, send).await?;
    let group = present(made.group, "group")?;
    let (what, revision) = (word(&group.id), made.revision);
    let done = Done { verb: "created", what, id: &group.id, revision };
    show::written(&group, done, write, output)
}

impl UpdateArgs {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let paths = self.text.mask();
        ensure!(!paths.is_empty(), "nothing to change: give --name or --description");
        let write = self.write.write()?;
        let server = self.write.server.connect().await?;
        let (found, _) = find::<Group>(&server, &self.group, Consistency::Full).await?;
        let (name, description) = self.text.values();
        let etag = self.etag.unwrap_or_default();
        let group = Group { id: found.id, name, description, etag, ..Group::default() };
        let request = iam::UpdateGroupRequest {
            group: Some(group),
            update_mask: Some(FieldMask { paths }),
            request_id: write.request_id.clone(),
            validate_only: write.validate_only,
        };
        let send = async |request: Request<_>| {
            GroupServiceClient::new(server.service()).update_group(request).await
        };
        let made = server.call(Safety::Write(&write), request, send).await?;
        let group = present(made.group, "group")?;
        let (what, revision) = (word(&group.id), made.revision);
        let done = Done { verb: "updated", what, id: &group.id, revision };
        show::written(&group, done, &write, output)
    }
}

impl DeleteGroup {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        delete::<Group>(&self.group, |group| word(&group.id), &self.delete, output).await
    }
}
