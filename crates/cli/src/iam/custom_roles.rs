//! The part of `capstan roles` that a server answers: custom roles, described, created, updated and deleted.

use std::process::ExitCode;

use anyhow::{bail, ensure};
use capstan_engine::quote;
use capstan_proto::iam::v1::role_service_client::RoleServiceClient;
use capstan_proto::iam::v1::{self as iam, Role};
use tonic::Request;

use super::connection::{Connection, Safety, WriteArgs, next_page};
use super::kind::Kind as _;
use super::names::{group_or_all, id_of, place_in};
use super::verbs::{
    DeleteArgs, ReadArgs, TextArgs, create, delete, describe, read_to_change, update,
};
use crate::answers::{self, RoleList};
use crate::completion;
use crate::decider::Consistency;
use crate::limits::PAGE_OBJECTS;
use crate::output::Output;

const CREATE: &str = "\
Examples:
  capstan iam roles create acme/puller --capability repo.list,manifest.list --capability apk.list
  capstan iam roles create acme/reviewer --like viewer --capability roles.create
  capstan iam roles create puller --parent acme --like registry.pull --description 'pulls images'";

const UPDATE: &str = "\
Examples:
  capstan iam roles update acme/puller --add-capability tag.list
  capstan iam roles update acme/puller --remove-capability apk.list --name Puller
  capstan iam roles update acme/puller --capability repo.list   these and no others";

/// Commands that ask a server. They stand beside `list`, `compare` and `diff`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum CustomRoles {
    /// One role of a server
    #[command(alias = "get")]
    Describe {
        /// A built-in role, or the path or name of a custom one
        #[arg(value_name = "ROLE", add = completion::managed::role())]
        role: String,

        #[command(flatten)]
        read: ReadArgs,
    },

    /// Creates a custom role in a group
    #[command(after_help = CREATE)]
    Create(CreateRole),

    /// Changes the capabilities, name and description of a custom role
    #[command(after_help = UPDATE)]
    Update(UpdateRole),

    /// Deletes a custom role that is bound nowhere
    #[command(alias = "rm")]
    Delete {
        /// Its path or name
        #[arg(value_name = "ROLE", add = completion::managed::role())]
        role: String,

        #[command(flatten)]
        delete: DeleteArgs,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateRole {
    /// Its path, or its last segment with --parent [default: 16 random hex digits below --parent]
    #[arg(value_name = "ID", required_unless_present = "parent")]
    id: Option<String>,

    /// The group that it is in, where and below which it can be bound: a path or a name
    #[arg(long, value_name = "GROUP", add = completion::managed::group())]
    parent: Option<String>,

    /// A capability that it gives; repeat, or join with commas
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',', add = completion::capability())]
    capability: Vec<String>,

    /// Gives what this role gives, and what --capability adds
    #[arg(long, value_name = "ROLE", add = completion::managed::role())]
    like: Option<String>,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    write: WriteArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct UpdateRole {
    /// Its path or name
    #[arg(value_name = "ROLE", add = completion::managed::role())]
    role: String,

    /// A capability that it gives, in place of all that it gives now; repeat, or join with commas
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',', add = completion::capability(),
        conflicts_with_all = ["add_capability", "remove_capability"])]
    capability: Vec<String>,

    /// A capability that it gives from now on; repeat, or join with commas
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',', add = completion::capability())]
    add_capability: Vec<String>,

    /// A capability that it no longer gives; repeat, or join with commas
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',', add = completion::capability())]
    remove_capability: Vec<String>,

    #[command(flatten)]
    text: TextArgs,

    /// Change it only if this is its current etag
    #[arg(long, value_name = "ETAG")]
    etag: Option<String>,

    #[command(flatten)]
    write: WriteArgs,
}

impl CustomRoles {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self {
            Self::Describe { role, read } => describe::<Role>(&role, &read, output).await,
            Self::Create(create) => create.run(output).await,
            Self::Update(update) => update.run(output).await,
            Self::Delete { role, delete: args } => delete::<Role>(&role, &args, output).await,
        }
    }
}

impl CreateRole {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        ensure!(
            self.like.is_some() || !self.capability.is_empty(),
            "a role gives something: --capability or --like"
        );
        let write = self.write.write()?;
        let server = self.write.server.connect().await?;
        let (parent, id) = place_in(&server, self.id.as_deref(), self.parent.as_deref()).await?;
        if parent.is_empty() {
            bail!("a custom role is in a group: give its whole path, or --parent");
        }
        let mut capabilities = match &self.like {
            Some(like) => {
                let like = id_of::<Role>(&server, like).await?;
                Role::get(&server, &like, Consistency::Full.message()).await?.0.capabilities
            }
            None => Vec::new(),
        };
        capabilities.extend(self.capability);
        let (name, description) = self.text.values();
        let role =
            Role { id, name, description, capabilities: sorted(capabilities), ..Role::default() };
        create(&server, parent, role, &write, output).await
    }
}

impl UpdateRole {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let mut paths = self.text.mask();
        let changes = !self.add_capability.is_empty() || !self.remove_capability.is_empty();
        if changes || !self.capability.is_empty() {
            paths.push("capabilities".into());
        }
        ensure!(
            !paths.is_empty(),
            "nothing to change: give --add-capability, --remove-capability, --capability, --name or --description"
        );
        let mut write = self.write.write()?;
        let server = self.write.server.connect().await?;
        let id = id_of::<Role>(&server, &self.role).await?;
        let (etag, capabilities) = if changes {
            let option = "--add-capability and --remove-capability";
            let read = read_to_change(&server, &id, self.etag, option, &mut write).await?;
            let found: Role = read.object;
            let (add, remove) = (self.add_capability, self.remove_capability);
            (read.etag, changed(found.capabilities, add, &remove, read.is_stale)?)
        } else {
            (self.etag.unwrap_or_default(), sorted(self.capability))
        };
        let (name, description) = self.text.values();
        let role = Role { id, name, description, etag, capabilities, ..Role::default() };
        update(&server, (role, paths), "updated", &write, output).await
    }
}

/// The roles of a server: with a group the custom ones in and below it, else the built-in ones, too.
///
/// # Errors
///
/// The server's refusal, or several groups that have the name.
pub(crate) async fn list(
    server: &Connection,
    parent: Option<&str>,
    filter: Option<String>,
) -> anyhow::Result<RoleList> {
    let parent = group_or_all(server, parent).await?;
    let filter = filter.unwrap_or_default();
    let mut request = iam::ListRolesRequest {
        parent,
        filter,
        page_size: PAGE_OBJECTS,
        ..iam::ListRolesRequest::default()
    };
    let mut roles = Vec::new();
    loop {
        let send = async |request: Request<_>| {
            RoleServiceClient::new(server.service()).list_roles(request).await
        };
        let page = server.call(Safety::Read, request.clone(), send).await?;
        roles.extend(page.roles.into_iter().map(answers::Role::from));
        if !next_page(&mut request.page_token, page.next_page_token)? {
            return Ok(RoleList { catalog: page.catalog, roles });
        }
    }
}

/// Sorted, each once.
fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names.dedup();
    names
}

/// With `may_be_done` what is taken away may be gone.
///
/// # Errors
///
/// A capability that is taken away and is not there.
fn changed(
    mut now: Vec<String>,
    add: Vec<String>,
    remove: &[String],
    may_be_done: bool,
) -> anyhow::Result<Vec<String>> {
    if let Some(absent) = remove.iter().find(|name| !now.contains(name))
        && !may_be_done
    {
        bail!("--remove-capability: the role does not give {}", quote(absent));
    }
    if let Some(both) = add.iter().find(|name| remove.contains(name)) {
        bail!("{} is both added and removed", quote(both));
    }
    now.retain(|name| !remove.contains(name));
    now.extend(add);
    Ok(sorted(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_added_and_removed() {
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let of = |add: &[&str], remove: &[&str]| {
            changed(names(&["a.b", "c.d"]), names(add), &names(remove), false)
        };
        let again = changed(names(&["a.b"]), names(&["a.b"]), &names(&["c.d"]), true);
        assert_eq!(again.unwrap(), names(&["a.b"]));
        assert_eq!(of(&["b.c", "a.b"], &["c.d"]).unwrap(), names(&["a.b", "b.c"]));
        assert!(of(&[], &["x.y"]).unwrap_err().to_string().contains("does not give `x.y`"));
        assert!(of(&["a.b"], &["a.b"]).unwrap_err().to_string().contains("both added and removed"));
    }
}
