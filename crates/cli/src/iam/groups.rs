//! `capstan iam organizations`, `folders` and `groups`: the nodes of the tree.

use std::process::ExitCode;

use anyhow::{bail, ensure};
use capstan_engine::quote;
use capstan_proto::iam::v1::group_service_client::GroupServiceClient;
use capstan_proto::iam::v1::{self as iam, Group, Identity};
use tonic::Request;

use super::connection::{Connection, Safety, Write, WriteArgs, present};
use super::kind::Listed as _;
use super::names::{id_to_write, only_name, place_in};
use super::show;
use super::verbs::{
    ChangeArgs, DeleteArgs, FilterArgs, ListArgs, ReadArgs, TextArgs, create, delete_id, describe,
    update,
};
use crate::completion;
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

    /// Creates an organization with its first owner, which only the operator may
    Create {
        /// Its path, one segment [default: 40 random hex digits]
        #[arg(value_name = "ID")]
        id: Option<String>,

        /// The identity that owns it: an id, or name:NAME
        #[arg(long, id = "owner_identity", value_name = "IDENTITY",
            add = completion::managed::identity())]
        owner: String,

        #[command(flatten)]
        text: TextArgs,

        #[command(flatten)]
        write: WriteArgs,
    },

    #[command(flatten)]
    One(OneGroup),
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

    /// Creates a folder in a group
    Create(CreateFolder),

    #[command(flatten)]
    One(OneGroup),
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

    /// Creates a folder in a group; `capstan iam organizations create` makes an organization
    Create(CreateFolder),

    #[command(flatten)]
    One(OneGroup),
}

/// Commands for a group that is there.
#[derive(Debug, clap::Subcommand)]
enum OneGroup {
    /// Shows one
    #[command(alias = "get")]
    Describe(DescribeGroup),

    /// Changes its name and description
    Update(UpdateGroup),

    /// Deletes it, if it is empty
    #[command(alias = "rm")]
    Delete(DeleteGroup),
}

#[derive(Debug, clap::Args)]
struct DescribeGroup {
    /// Its path or name
    #[arg(value_name = "GROUP", add = completion::managed::group())]
    group: String,

    #[command(flatten)]
    read: ReadArgs,
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
struct UpdateGroup {
    /// Its path or name
    #[arg(value_name = "GROUP", add = completion::managed::group())]
    group: String,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    change: ChangeArgs,
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
            OrganizationCommand::Create { id, owner, text, write } => {
                create_organization(id, &owner, text, &write, output).await
            }
            OrganizationCommand::One(one) => one.run(Some("organization"), output).await,
        }
    }
}

impl Folders {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self.command {
            FolderCommand::List(list) => {
                list_groups(&list, |group| group.id.contains('/'), output).await
            }
            FolderCommand::Create(args) => args.run(output).await,
            FolderCommand::One(one) => one.run(Some("folder"), output).await,
        }
    }
}

impl Groups {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self.command {
            GroupCommand::List(list) => list_groups(&list, |_| true, output).await,
            GroupCommand::Create(args) => args.run(output).await,
            GroupCommand::One(one) => one.run(None, output).await,
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

impl OneGroup {
    /// `word` is what the command says that the group is.
    async fn run(self, word: Option<&'static str>, output: Output) -> anyhow::Result<ExitCode> {
        match self {
            Self::Describe(args) => describe::<Group>(&args.group, &args.read, output).await,
            Self::Update(args) => args.run(word, output).await,
            Self::Delete(args) => {
                ensure_is(word, &args.group)?;
                let (mut write, server) = args.delete.write.open().await?;
                let id = id_of_a(word, &server, &args.group, &mut write).await?;
                delete_id::<Group>(&server, id, (&args.delete, &write), output).await
            }
        }
    }
}

/// # Errors
///
/// The path of an organization where a folder is expected, or the other way round. A display name is neither.
fn ensure_is(word: Option<&'static str>, group: &str) -> anyhow::Result<()> {
    let is = Group::word(group);
    let article = if group.contains('/') { "a" } else { "an" };
    let expected = word.unwrap_or(is);
    ensure!(
        expected == is || only_name(group).is_some(),
        "{} is no {expected} but the path of {article} {is}: `capstan iam {is}s` is for it; a display name follows `name:`",
        quote(group)
    );
    Ok(())
}

/// The id of a group that is what the command says.
///
/// # Errors
///
/// As of [`id_to_write`] and [`ensure_is`].
async fn id_of_a(
    word: Option<&'static str>,
    server: &Connection,
    group: &str,
    write: &mut Write,
) -> anyhow::Result<String> {
    let id = id_to_write::<Group>(server, group, write).await?;
    ensure_is(word, &id)?;
    Ok(id)
}

async fn create_organization(
    id: Option<String>,
    owner: &str,
    text: TextArgs,
    args: &WriteArgs,
    output: Output,
) -> anyhow::Result<ExitCode> {
    ensure!(
        id.as_ref().is_none_or(|id| !id.contains('/')),
        "an organization has a path of one segment; `capstan iam folders create` makes a folder"
    );
    let (mut write, server) = args.open().await?;
    let owner = id_to_write::<Identity>(&server, owner, &mut write).await?;
    let (name, description) = text.values();
    let group = Group { id: id.unwrap_or_default(), name, description, ..Group::default() };
    let request = iam::CreateGroupRequest {
        parent: String::new(),
        group: Some(group),
        request_id: write.request_id.clone(),
        owner,
        validate_only: write.validate_only,
    };
    let send = async |request: Request<_>| {
        GroupServiceClient::new(server.service()).create_group(request).await
    };
    let made = server.call(Safety::Write(&write), request, send).await?;
    let group = present(made.group, "group")?;
    show::written("created", (&group, made.revision), &write, output)
}

impl CreateFolder {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let (mut write, server) = self.write.open().await?;
        let (parent, id) =
            place_in(&server, self.id.as_deref(), self.parent.as_deref(), &mut write).await?;
        if parent.is_empty() {
            bail!(
                "a folder is in a group: give its whole path, or --parent; `capstan iam organizations create` makes an \
                 organization"
            );
        }
        let (name, description) = self.text.values();
        let group = Group { id, name, description, ..Group::default() };
        create(&server, parent, group, &write, output).await
    }
}

impl UpdateGroup {
    async fn run(self, word: Option<&'static str>, output: Output) -> anyhow::Result<ExitCode> {
        ensure_is(word, &self.group)?;
        let paths = self.text.mask();
        ensure!(!paths.is_empty(), "nothing to change: give --name or --description");
        let (mut write, server) = self.change.write.open().await?;
        let id = id_of_a(word, &server, &self.group, &mut write).await?;
        let (name, description) = self.text.values();
        let etag = self.change.etag.unwrap_or_default();
        let group = Group { id, name, description, etag, ..Group::default() };
        update(&server, (group, paths), "updated", &write, output).await
    }
}
