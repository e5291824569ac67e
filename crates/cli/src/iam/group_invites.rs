//! `capstan iam group-invites`: codes that let whoever has them join a group.

use std::process::ExitCode;

use anyhow::ensure;
use capstan_proto::iam::v1::group_invite_service_client::GroupInviteServiceClient;
use capstan_proto::iam::v1::{self as iam, Group, GroupInvite, Role};
use tonic::Request;

use super::connection::{Safety, Write, WriteArgs, present};
use super::json;
use super::kind::{Listed as _, time};
use super::names::{id_to_write, place};
use super::show::{self, Done};
use super::values::{code, ttl};
use super::verbs::{
    ChangeArgs, DeleteArgs, ListArgs, ReadArgs, TextArgs, delete, describe, update,
};
use crate::completion;
use crate::output::{self, Output};

const EXAMPLES: &str = "\
Examples:
  capstan iam group-invites create --group acme/platform --role viewer --email ann@example.com
  capstan iam group-invites create --group acme --role registry.pull --reusable --ttl 1d
  capstan iam group-invites list --parent acme
  capstan iam group-invites accept - --as 0f3c…  < code
  capstan iam group-invites delete acme/0123456789abcdef --yes";

const CREATE: &str = "\
Examples:
  capstan iam group-invites create --group acme/platform --role viewer --email ann@example.com
  capstan iam group-invites create --group acme --role registry.pull --reusable --ttl 1d -o json

The code is shown once, and the server keeps only a hash of it: hand it over to who is invited. It is worth what you hold: \
once you could not give the role any more, nobody joins with it. A role that manages access needs --email.";

const ACCEPT: &str = "\
Examples:
  capstan iam group-invites accept capstan_inv_… --as 0f3c…
  capstan iam group-invites accept - --as 0f3c… --as-email ann@example.com < code

An identity of a person that is not registered yet is registered with it.";

/// Invites: codes that let whoever has them join a group with a role
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GroupInvites {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The invites that the caller may see, without their codes
    #[command(alias = "ls")]
    List(ListArgs),

    /// One invite, without its code
    #[command(alias = "get")]
    Describe {
        /// Its path or name
        #[arg(value_name = "INVITE", add = completion::managed::invite())]
        invite: String,

        #[command(flatten)]
        read: ReadArgs,
    },

    /// Creates an invite, and shows its code this once
    #[command(after_help = CREATE)]
    Create(Box<Create>),

    /// Changes the name and the description of an invite
    Update(Update),

    /// Deletes an invite: nobody joins with its code any more
    #[command(alias = "rm")]
    Delete {
        /// Its path, or name:NAME
        #[arg(value_name = "INVITE", add = completion::managed::invite())]
        invite: String,

        #[command(flatten)]
        delete: DeleteArgs,
    },

    /// Joins the group of an invite, as the caller
    #[command(after_help = ACCEPT)]
    Accept(Accept),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The group that it is to: a path, or name:NAME
    #[arg(long, value_name = "GROUP", add = completion::managed::group())]
    group: String,

    /// The role that it promises: a built-in role, or the path of a custom one, or name:NAME
    #[arg(long, value_name = "ROLE", add = completion::managed::role())]
    role: String,

    /// Only who has this verified e-mail address can accept it
    #[arg(id = "invite_email", long = "email", value_name = "ADDRESS")]
    email: Option<String>,

    /// Anybody who has the code can accept it until it ends, not only the first one
    #[arg(long)]
    reusable: bool,

    /// How long it can be accepted: a number with s, m, h, d or w, at most 30d [default: 7d]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,

    /// Its path, one segment below the group, or that segment. The server chooses one if there is none
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
    #[arg(value_name = "INVITE", add = completion::managed::invite())]
    invite: String,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, clap::Args)]
struct Accept {
    /// The code; `-` reads it from standard input, so that other users of this machine do not see it
    #[arg(value_name = "CODE")]
    code: String,

    #[command(flatten)]
    write: WriteArgs,
}

impl GroupInvites {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::List(list) => {
                let server = list.connect().await?;
                list.list::<GroupInvite>(&server, None, |_| true, output).await
            }
            Command::Describe { invite, read } => {
                describe::<GroupInvite>(&invite, &read, output).await
            }
            Command::Create(create) => create.run(output).await,
            Command::Update(update) => update.run(output).await,
            Command::Delete { invite, delete: args } => {
                delete::<GroupInvite>(&invite, &args, output).await
            }
            Command::Accept(accept) => accept.run(output).await,
        }
    }
}

impl Create {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        // Before anything is sent: an invite whose code nobody sees is of no use.
        ensure!(
            matches!(output, Output::Table | Output::Json),
            "--output {}: it does not show the code, which is shown only here; choose table or json",
            output.word()
        );
        let mut write = self.write.write()?;
        ensure!(
            !output::is_quiet() || write.validate_only,
            "--quiet: the code is shown only here, and would be lost"
        );
        let ttl = self.ttl.as_deref().map(ttl).transpose()?;
        let server = self.write.server.connect().await?;
        let parent = id_to_write::<Group>(&server, &self.group, &mut write).await?;
        let id = match &self.id {
            Some(id) => place(Some(id), Some(&parent))?.1,
            None => String::new(),
        };
        let (name, description) = self.text.values();
        let invite = GroupInvite {
            id,
            name,
            description,
            role: id_to_write::<Role>(&server, &self.role, &mut write).await?,
            email: self.email.unwrap_or_default(),
            single_use: self.reusable.then_some(false),
            ..GroupInvite::default()
        };
        let request = iam::CreateGroupInviteRequest {
            parent,
            group_invite: Some(invite),
            ttl,
            request_id: write.request_id.clone(),
            validate_only: write.validate_only,
        };
        let send = async |request: Request<_>| {
            GroupInviteServiceClient::new(server.service()).create_group_invite(request).await
        };
        let made = server.call(Safety::Write(&write), request, send).await?;
        let invite = present(made.group_invite.as_ref(), "group_invite")?;
        let printed = print(&made, invite, output, &write);
        if printed.is_err() && !write.validate_only {
            output::note(format!(
                "the invite was created and its code is lost: delete it with `capstan iam group-invites delete {}`",
                invite.id
            ))?;
        }
        printed.map(|()| ExitCode::SUCCESS)
    }
}

/// Prints an invite that was made, or what would be made, to standard output, and what was done to standard error.
///
/// # Errors
///
/// The output cannot be written, or the server's answer has no code.
fn print(
    made: &iam::CreateGroupInviteResponse,
    invite: &GroupInvite,
    output: Output,
    write: &Write,
) -> anyhow::Result<()> {
    if output == Output::Json {
        output::json(&json::of(made, "CreateGroupInviteResponse")?)?;
    } else if !write.validate_only {
        output::line(for_people(made, invite))?;
    }
    ensure!(
        write.validate_only || !made.code.is_empty(),
        "the answer of the server has no code: is it a server of Capstan?"
    );
    let what = format!("invite to {} with {}:", group_of(invite), invite.role);
    let id = if write.validate_only { "one" } else { &*invite.id };
    Done { verb: "created", what: &what, id, revision: made.revision }.note(write)
}

fn group_of(invite: &GroupInvite) -> &str {
    invite.id.rsplit_once('/').map_or("", |(group, _)| group)
}

/// Lines, and no table: a table breaks a code that is longer than the terminal is wide.
fn for_people(made: &iam::CreateGroupInviteResponse, invite: &GroupInvite) -> String {
    let GroupInvite { id, name, role, .. } = invite;
    let name = if name.is_empty() { String::new() } else { format!("  {name}") };
    let group = group_of(invite);
    let whom = invite.row().into_iter().nth(3).unwrap_or_default();
    let until = time(invite.expires_at);
    let code = &made.code;
    format!(
        "invite       {id}{name}\n\
         to           {group}, with {role}: capstan iam roles describe {role}\n\
         for          {whom}\n\
         valid until  {until}\n\
         code         {code}\n\
         \n\
         The code is shown only here: hand it over to who is invited, who joins with\n\
         capstan iam group-invites accept -\n\
         If somebody else has seen it: capstan iam group-invites delete {id}"
    )
}

impl Update {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let paths = self.text.mask();
        ensure!(!paths.is_empty(), "nothing to change: give --name or --description");
        let (mut write, server) = self.change.write.open().await?;
        let id = id_to_write::<GroupInvite>(&server, &self.invite, &mut write).await?;
        let (name, description) = self.text.values();
        let etag = self.change.etag.unwrap_or_default();
        let invite = GroupInvite { id, name, description, etag, ..GroupInvite::default() };
        update(&server, (invite, paths), "updated", &write, output).await
    }
}

impl Accept {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let (write, server) = self.write.open().await?;
        let request = iam::AcceptGroupInviteRequest {
            code: code(self.code)?,
            request_id: write.request_id.clone(),
            validate_only: write.validate_only,
        };
        let send = async |request: Request<_>| {
            GroupInviteServiceClient::new(server.service()).accept_group_invite(request).await
        };
        let made = server.call(Safety::Write(&write), request, send).await?;
        let binding = present(made.role_binding, "role_binding")?;
        show::written("created", (&binding, made.revision), &write, output)
    }
}
