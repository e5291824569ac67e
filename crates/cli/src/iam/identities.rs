//! `capstan iam identities`: people, services and other programs that role bindings name.

mod authentication;

use std::process::ExitCode;

use anyhow::ensure;
use capstan_proto::iam::v1::identity_service_client::IdentityServiceClient;
use capstan_proto::iam::v1::{self as iam, Identity};
use serde_json::json;
use tonic::Request;

use super::connection::{Safety, ServerArgs, WriteArgs};
use super::names::{id_to_write, place_in};
use super::values::{PropertyArgs, properties};
use super::verbs::{
    ChangeArgs, DeleteArgs, ReadArgs, TextArgs, TypedListArgs, create, delete, describe,
    set_properties, update,
};
use crate::completion;
use crate::output::{self, Output};
use authentication::AuthenticationArgs;
pub(super) use authentication::public_keys;

const EXAMPLES: &str = "\
Examples:
  capstan iam identities create acme/ci --type service --name 'CI bot' --property team=platform
  capstan iam identities create acme/deploy --type service \\
      --claim-match issuer=https://token.actions.example.com \\
      --claim-match 'subject-pattern=repo:acme/web:ref:refs/tags/.+'
  capstan iam identities create acme/signer --type service \\
      --static-keys keys.json --issuer signer.acme.example --subject signer --ttl 90d
  capstan iam identities create acme/build --type service --dns-name build.acme.example
  capstan iam identities lookup --issuer https://accounts.example.com --subject 1234
  capstan iam identities list --parent acme --type service
  capstan iam identities disable acme/ci
  capstan iam identities delete acme/ci --yes";

/// Identities: people, services and other programs
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Identities {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The identities that the caller may see
    #[command(alias = "ls")]
    List(TypedListArgs),

    /// One identity
    #[command(alias = "get")]
    Describe {
        /// Its path or name
        #[arg(value_name = "IDENTITY", add = completion::managed::identity())]
        identity: String,

        #[command(flatten)]
        read: ReadArgs,
    },

    /// Creates an identity in a group, or at the root, which only the operator may
    #[command(after_help = EXAMPLES)]
    Create(Box<Create>),

    /// Changes its name, description, properties and authentication
    Update(Box<Update>),

    /// Lets it no longer in; its role bindings stay and do not count
    Disable(SwitchArgs),

    /// Lets it in again
    Enable(SwitchArgs),

    /// Deletes an identity and its role bindings
    #[command(alias = "rm")]
    Delete {
        /// Its path or name
        #[arg(value_name = "IDENTITY", add = completion::managed::identity())]
        identity: String,

        #[command(flatten)]
        delete: DeleteArgs,
    },

    /// The id of a person's identity, before and after the first login
    Lookup {
        /// The `iss` claim of the person's tokens
        #[arg(long, value_name = "ISSUER")]
        issuer: String,

        /// The `sub` claim of the person's tokens
        #[arg(long, value_name = "SUBJECT")]
        subject: String,

        #[command(flatten)]
        server: ServerArgs,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Its path, or its last segment with --parent [default: random hex digits]
    #[arg(value_name = "ID")]
    id: Option<String>,

    /// The group that it is in: a path or a name. Without it and without a slash in ID it is a root identity
    #[arg(long, value_name = "GROUP", add = completion::managed::group())]
    parent: Option<String>,

    /// What it is, such as user or service [default: user]
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,

    /// An attribute that conditions test as subject.NAME: a string, or JSON; repeat for several
    #[arg(long, value_name = "NAME=VALUE")]
    property: Vec<String>,

    #[command(flatten)]
    authentication: AuthenticationArgs,

    /// It is not let in, and its role bindings do not count
    #[arg(long)]
    disabled: bool,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    write: WriteArgs,
}

#[derive(Debug, clap::Args)]
struct Update {
    /// Its path or name
    #[arg(value_name = "IDENTITY", add = completion::managed::identity())]
    identity: String,

    #[command(flatten)]
    properties: PropertyArgs,

    #[command(flatten)]
    authentication: AuthenticationArgs,

    /// It proves in no way who it is
    #[arg(long, conflicts_with = "how")]
    no_authentication: bool,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, clap::Args)]
struct SwitchArgs {
    /// Its path or name
    #[arg(value_name = "IDENTITY", add = completion::managed::identity())]
    identity: String,

    #[command(flatten)]
    change: ChangeArgs,
}

impl Identities {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::List(list) => list.run::<Identity>(output).await,
            Command::Describe { identity, read } => {
                describe::<Identity>(&identity, &read, output).await
            }
            Command::Create(create) => create.run(output).await,
            Command::Update(update) => update.run(output).await,
            Command::Disable(args) => args.run(true, output).await,
            Command::Enable(args) => args.run(false, output).await,
            Command::Delete { identity, delete: args } => {
                delete::<Identity>(&identity, &args, output).await
            }
            Command::Lookup { issuer, subject, server } => {
                lookup(issuer, subject, &server, output).await
            }
        }
    }
}

async fn lookup(
    issuer: String,
    subject: String,
    server: &ServerArgs,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let server = server.connect().await?;
    let request = iam::LookupIdentityRequest { issuer, subject };
    let send = async |request: Request<_>| {
        IdentityServiceClient::new(server.service()).lookup_identity(request).await
    };
    let found = server.call(Safety::Read, request, send).await?;
    match output {
        Output::Json => output::json(&json!({ "id": found.id }))?,
        _ => output::line(found.id)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Create {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let mut write = self.write.write()?;
        let authentication = self.authentication.authentication(&mut write)?;
        let properties = properties(&self.property)?;
        let server = self.write.server.connect().await?;
        let (parent, id) =
            place_in(&server, self.id.as_deref(), self.parent.as_deref(), &mut write).await?;
        let (name, description) = self.text.values();
        let identity = Identity {
            id,
            name,
            description,
            r#type: self.kind.unwrap_or_default(),
            properties,
            disabled: self.disabled,
            authentication,
            ..Identity::default()
        };
        create(&server, parent, identity, &write, output).await
    }
}

impl Update {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let mut write = self.change.write.write()?;
        let authentication = self.authentication.authentication(&mut write)?;
        let change = self.properties.change()?;
        let mut paths = self.text.mask();
        if change.is_some() {
            paths.push("properties".into());
        }
        if authentication.is_some() || self.no_authentication {
            paths.push("authentication".into());
        }
        ensure!(
            !paths.is_empty(),
            "nothing to change: give --property, --remove-property, --claim-match, --static-keys, --spiffe-id, \
             --dns-name, --no-authentication, --name or --description"
        );
        let server = self.change.write.server.connect().await?;
        let id = id_to_write::<Identity>(&server, &self.identity, &mut write).await?;
        let (name, description) = self.text.values();
        let mut identity =
            Identity { id, name, description, authentication, ..Identity::default() };
        set_properties(&server, &mut identity, (change, self.change.etag), &mut write).await?;
        update(&server, (identity, paths), "updated", &write, output).await
    }
}

impl SwitchArgs {
    async fn run(self, disabled: bool, output: Output) -> anyhow::Result<ExitCode> {
        let (mut write, server) = self.change.write.open().await?;
        let id = id_to_write::<Identity>(&server, &self.identity, &mut write).await?;
        let etag = self.change.etag.unwrap_or_default();
        let identity = Identity { id, etag, disabled, ..Identity::default() };
        let verb = if disabled { "disabled" } else { "enabled" };
        update(&server, (identity, vec!["disabled".into()]), verb, &write, output).await
    }
}
