//! `capstan iam role-bindings`: who has which role where.

mod batch;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{bail, ensure};
use capstan_proto::iam::v1::role_binding_service_client::RoleBindingServiceClient;
use capstan_proto::iam::v1::{self as iam, Group, Identity, Role, RoleBinding};
use tonic::Request;

use super::connection::{Safety, WriteArgs};
use super::names::{id_of, id_of_scope, place, resolve, resolve_scope, term};
use super::show::{self, Done};
use super::values::{EndArgs, condition};
use super::verbs::{DeleteArgs, ListArgs, ReadArgs, TextArgs, create, delete, describe, update};
use crate::completion;
use crate::output::Output;

const EXAMPLES: &str = "\
Examples:
  capstan iam role-bindings create --identity alice --role editor --group acme/platform
  capstan iam role-bindings create --identity acme/ci --role acme/puller --scope acme/platform/nginx --ttl 30d
  capstan iam role-bindings create --identity bob --role viewer --group acme --when 'resource.status!=archived'
  capstan iam role-bindings create --file bindings.ndjson
  capstan iam role-bindings list --identity alice
  capstan iam role-bindings delete acme/platform/0123456789abcdef --yes

A line of the file is a role binding with the names of the API:
  {\"identity\": \"alice\", \"role\": \"viewer\", \"scope\": \"acme\", \"expires_at\": \"2027-01-01T00:00:00Z\"}";

/// Role bindings: who has which role where
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RoleBindings {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The role bindings that the caller may see
    #[command(alias = "ls")]
    List {
        /// Only those of this identity: an id or a name
        #[arg(long, value_name = "IDENTITY", add = completion::managed::identity())]
        identity: Option<String>,

        /// Only those of this role: an id or a name
        #[arg(long, value_name = "ROLE", add = completion::managed::role())]
        role: Option<String>,

        /// Only those attached to this group or resource; --parent lists those below it, too
        #[arg(long, visible_alias = "group", value_name = "SCOPE", add = completion::managed::scope())]
        scope: Option<String>,

        #[command(flatten)]
        list: ListArgs,
    },

    /// One role binding
    #[command(alias = "get")]
    Describe {
        /// Its path or name
        #[arg(value_name = "BINDING", add = completion::managed::binding())]
        binding: String,

        #[command(flatten)]
        read: ReadArgs,
    },

    /// Binds an identity to a role, or many at once with --file
    #[command(after_help = EXAMPLES)]
    Create(Box<Create>),

    /// Changes a role binding, all but its scope
    Update(Box<Update>),

    /// Deletes role bindings, all or none
    #[command(alias = "rm")]
    Delete {
        /// Their paths, or the name of one
        #[arg(value_name = "BINDING", required = true, add = completion::managed::binding())]
        binding: Vec<String>,

        #[command(flatten)]
        delete: DeleteArgs,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Its path below the scope, or the last segment of it [default: generated]
    #[arg(long, value_name = "ID", conflicts_with = "file")]
    id: Option<String>,

    /// Who: an id, or name:NAME. An id that `capstan iam identities lookup` answers may be bound before it is registered
    #[arg(long, value_name = "IDENTITY", required_unless_present = "file",
        add = completion::managed::identity())]
    identity: Option<String>,

    /// Which role: a built-in role, or the path of a custom one, or name:NAME
    #[arg(long, value_name = "ROLE", required_unless_present = "file", add = completion::managed::role())]
    role: Option<String>,

    /// Where: the path of a group or registered resource, or name:NAME. With --file: of lines that have no scope
    #[arg(long, visible_alias = "group", value_name = "SCOPE", required_unless_present = "file",
        add = completion::managed::scope())]
    scope: Option<String>,

    #[command(flatten)]
    end: EndArgs,

    /// It counts only if this holds: ATTRIBUTE=VALUE or ATTRIBUTE!=VALUE; repeat for several, which all must hold
    #[arg(long, value_name = "TEST")]
    when: Vec<String>,

    /// A role binding as JSON a line, with the names of the API; `-` is standard input. All or none are created
    #[arg(long, value_name = "FILE",
        conflicts_with_all = ["identity", "role", "expires_at", "ttl", "when", "name", "description"])]
    file: Option<PathBuf>,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    write: WriteArgs,
}

#[derive(Debug, clap::Args)]
struct Update {
    /// Its path or name
    #[arg(value_name = "BINDING", add = completion::managed::binding())]
    binding: String,

    /// Another identity: an id, or name:NAME
    #[arg(long, value_name = "IDENTITY", add = completion::managed::identity())]
    identity: Option<String>,

    /// Another role: a built-in role, or the path of a custom one, or name:NAME
    #[arg(long, value_name = "ROLE", add = completion::managed::role())]
    role: Option<String>,

    #[command(flatten)]
    end: EndArgs,

    /// It does not expire
    #[arg(long, conflicts_with = "end")]
    no_expiry: bool,

    /// It counts only if this holds, in place of all conditions that it has: ATTRIBUTE=VALUE or ATTRIBUTE!=VALUE
    #[arg(long, value_name = "TEST")]
    when: Vec<String>,

    /// It counts without conditions
    #[arg(long, conflicts_with = "when")]
    no_conditions: bool,

    #[command(flatten)]
    text: TextArgs,

    /// Change it only if this is its current etag
    #[arg(long, value_name = "ETAG")]
    etag: Option<String>,

    #[command(flatten)]
    write: WriteArgs,
}

impl RoleBindings {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::List { identity, role, scope, list } => {
                let server = list.connect().await?;
                let mut terms = Vec::new();
                if let Some(identity) = identity {
                    terms.push(term("identity", &resolve::<Identity>(&server, &identity).await?));
                }
                if let Some(role) = role {
                    terms.push(term("role", &resolve::<Role>(&server, &role).await?));
                }
                if let Some(scope) = scope {
                    terms.push(term("scope", &resolve_scope(&server, &scope).await?));
                }
                list.list::<RoleBinding>(&server, terms, |_| true, output).await
            }
            Command::Describe { binding, read } => {
                describe::<RoleBinding>(&binding, &read, output).await
            }
            Command::Create(create) => match &create.file {
                Some(file) => {
                    batch::create(file, create.scope.as_deref(), &create.write, output).await
                }
                None => create.run(output).await,
            },
            Command::Update(update) => update.run(output).await,
            Command::Delete { binding, delete: args } => match binding.as_slice() {
                [one] => delete::<RoleBinding>(one, &args, output).await,
                several => batch::delete(several, &args, output).await,
            },
        }
    }
}

impl Create {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let (Some(identity), Some(role), Some(scope)) = (&self.identity, &self.role, &self.scope)
        else {
            bail!("give --identity, --role and --scope, or --file");
        };
        let expires_at = self.end.end()?;
        let when = self.when.iter().map(|test| condition(test)).collect::<anyhow::Result<_>>()?;
        let mut write = self.write.write()?;
        self.end.ensure_repeatable(expires_at, &mut write)?;
        let server = self.write.server.connect().await?;
        let scope = id_of_scope(&server, scope).await?;
        let id = match &self.id {
            Some(id) => place(Some(id), Some(&scope))?.1,
            None => String::new(),
        };
        let (name, description) = self.text.values();
        let role_binding = RoleBinding {
            id,
            name,
            description,
            identity: id_of::<Identity>(&server, identity).await?,
            role: id_of::<Role>(&server, role).await?,
            scope: scope.clone(),
            expires_at,
            when,
            ..RoleBinding::default()
        };
        create(&server, scope, role_binding, &write, output).await
    }
}

impl Update {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let expires_at = self.end.end()?;
        let when: Vec<_> =
            self.when.iter().map(|test| condition(test)).collect::<anyhow::Result<_>>()?;
        let changes = [
            ("identity", self.identity.is_some()),
            ("role", self.role.is_some()),
            ("expires_at", expires_at.is_some() || self.no_expiry),
            ("when", !when.is_empty() || self.no_conditions),
        ];
        let mut paths = self.text.mask();
        paths.extend(changes.iter().filter(|(_, is)| *is).map(|(name, _)| (*name).to_owned()));
        ensure!(
            !paths.is_empty(),
            "nothing to change: give --identity, --role, --expires-at, --ttl, --no-expiry, --when, --no-conditions, --name \
             or --description"
        );
        let mut write = self.write.write()?;
        self.end.ensure_repeatable(expires_at, &mut write)?;
        let server = self.write.server.connect().await?;
        let id = id_of::<RoleBinding>(&server, &self.binding).await?;
        let mut role_binding = RoleBinding { id, expires_at, when, ..RoleBinding::default() };
        if let Some(identity) = &self.identity {
            role_binding.identity = id_of::<Identity>(&server, identity).await?;
        }
        if let Some(role) = &self.role {
            role_binding.role = id_of::<Role>(&server, role).await?;
        }
        (role_binding.name, role_binding.description) = self.text.values();
        role_binding.etag = self.etag.unwrap_or_default();
        update(&server, (role_binding, paths), "updated", &write, output).await
    }
}

const REMOVE: &str = "\
Examples:
  capstan iam remove-member bob --organization acme
  capstan iam remove-member bob --organization acme --yes --output json";

/// Offboarding: deletes every role binding of an identity in an organization at once
#[derive(Debug, clap::Args)]
#[command(after_help = REMOVE)]
pub(crate) struct RemoveMember {
    /// Its id, or name:NAME
    #[arg(value_name = "IDENTITY", add = completion::managed::identity())]
    identity: String,

    /// The organization: a path or a name
    #[arg(long, value_name = "ORG", add = completion::managed::group())]
    organization: String,

    /// Delete without a question
    #[arg(long, short)]
    yes: bool,

    #[command(flatten)]
    write: WriteArgs,
}

impl RemoveMember {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let write = self.write.write()?;
        let server = self.write.server.connect().await?;
        let organization = id_of::<Group>(&server, &self.organization).await?;
        let identity = id_of::<Identity>(&server, &self.identity).await?;
        batch::confirm_removal(&server, &identity, &organization, self.yes || write.validate_only)
            .await?;
        let request = iam::RemoveMemberRequest {
            organization: organization.clone(),
            identity: identity.clone(),
            request_id: write.request_id.clone(),
            validate_only: write.validate_only,
        };
        let send = async |request: Request<_>| {
            let mut service = RoleBindingServiceClient::new(server.service());
            service.remove_member(request).await
        };
        let made = server.call(Safety::Write(&write), request, send).await?;
        let id = format!("{identity} in {organization}");
        let revision = made.revision;
        let done = Done { verb: "deleted", what: "every role binding of", id: &id, revision };
        let answer = serde_json::json!({ "revision": revision });
        show::removed(done, &identity, &answer, &write, output)
    }
}
