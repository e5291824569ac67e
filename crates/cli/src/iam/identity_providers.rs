//! `capstan iam identity-providers`: whose tokens an organization believes.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use capstan_iam::ALGORITHM_NAMES;
use capstan_proto::iam::v1::identity_provider::Configuration;
use capstan_proto::iam::v1::{IdentityProvider, Oidc, Role};
use clap::builder::PossibleValuesParser;

use super::connection::WriteArgs;
use super::identities::public_keys;
use super::names::{id_to_write, place_in};
use super::verbs::{
    ChangeArgs, DeleteArgs, ListArgs, ReadArgs, TextArgs, create, delete, describe, update,
};
use crate::completion;
use crate::output::Output;

const EXAMPLES: &str = "\
Examples:
  capstan iam identity-providers create acme/okta --issuer https://acme.okta.com --client-id capstan
  capstan iam identity-providers create acme/ci --issuer https://ci.acme.example --jwks keys.json
  capstan iam identity-providers list --parent acme
  capstan iam identity-providers update acme/okta --groups-claim groups --default-role viewer
  capstan iam identity-providers update acme/okta --algorithm ES256 --algorithm EdDSA
  capstan iam identity-providers delete acme/okta

Whoever decides which tokens are a provider's must hold what they give: the default role, what the provider's mappings give, \
and what the identities of the organization hold that name the issuer (--claim-match of capstan iam identities).";

/// Identity providers: whose tokens an organization believes
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct IdentityProviders {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The providers that the caller may see
    #[command(alias = "ls")]
    List(ListArgs),

    /// One provider
    #[command(alias = "get")]
    Describe {
        /// Its path or name
        #[arg(value_name = "PROVIDER", add = completion::managed::provider())]
        provider: String,

        #[command(flatten)]
        read: ReadArgs,
    },

    /// Creates a provider of an organization
    Create(Box<Create>),

    /// Changes a provider: all but its issuer
    Update(Box<Update>),

    /// Deletes a provider and its group role mappings
    #[command(alias = "rm")]
    Delete {
        /// Its path, or name:NAME
        #[arg(value_name = "PROVIDER", add = completion::managed::provider())]
        provider: String,

        #[command(flatten)]
        delete: DeleteArgs,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Its path, or its last segment with --parent [default: random hex digits]
    #[arg(value_name = "ID")]
    id: Option<String>,

    /// The organization: a path or a name
    #[arg(long, value_name = "ORG", add = completion::managed::group())]
    parent: Option<String>,

    /// The `iss` claim of its tokens: an https URL
    #[arg(long, value_name = "URL")]
    issuer: String,

    /// The client id of Capstan at the provider
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,

    /// A further value of `aud` whose tokens are taken; repeat for several
    #[arg(long, value_name = "AUDIENCE")]
    audience: Vec<String>,

    /// A JSON Web Key Set with its public keys; `-` is standard input [default: the keys of the issuer's discovery document]
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,

    /// The claim that lists groups
    #[arg(long, value_name = "CLAIM")]
    groups_claim: Option<String>,

    /// An algorithm that its tokens may be signed with, such as ES256; repeat for several [default: whatever its keys are for]
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(ALGORITHM_NAMES))]
    algorithm: Vec<String>,

    /// The role that whoever comes with a token has in the organization: a role, or name:NAME
    #[arg(long, value_name = "ROLE", add = completion::managed::role())]
    default_role: Option<String>,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    write: WriteArgs,
}

#[derive(Debug, clap::Args)]
struct Update {
    /// Its path, or name:NAME
    #[arg(value_name = "PROVIDER", add = completion::managed::provider())]
    provider: String,

    /// The client id of Capstan at the provider
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,

    /// A value of `aud` whose tokens are taken, in place of those that were; repeat for several
    #[arg(long, value_name = "AUDIENCE", conflicts_with = "no_audiences")]
    audience: Vec<String>,

    /// No audience but the client id
    #[arg(long)]
    no_audiences: bool,

    /// A JSON Web Key Set with its public keys; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "no_jwks")]
    jwks: Option<PathBuf>,

    /// The keys are those of the issuer's discovery document
    #[arg(long)]
    no_jwks: bool,

    /// The claim that lists groups
    #[arg(long, value_name = "CLAIM", conflicts_with = "no_groups_claim")]
    groups_claim: Option<String>,

    /// No claim lists groups
    #[arg(long)]
    no_groups_claim: bool,

    /// An algorithm that its tokens may be signed with, in place of those that were; repeat for several
    #[arg(long, value_name = "NAME", conflicts_with = "no_algorithms", value_parser = PossibleValuesParser::new(ALGORITHM_NAMES))]
    algorithm: Vec<String>,

    /// Whatever its keys are for
    #[arg(long)]
    no_algorithms: bool,

    /// The role that whoever comes with a token has in the organization: a role, or name:NAME
    #[arg(long, value_name = "ROLE", conflicts_with = "no_default_role", add = completion::managed::role())]
    default_role: Option<String>,

    /// No default role
    #[arg(long)]
    no_default_role: bool,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    change: ChangeArgs,
}

impl IdentityProviders {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::List(list) => {
                let server = list.connect().await?;
                list.list::<IdentityProvider>(&server, None, |_| true, output).await
            }
            Command::Describe { provider, read } => {
                describe::<IdentityProvider>(&provider, &read, output).await
            }
            Command::Create(create) => create.run(output).await,
            Command::Update(update) => update.run(output).await,
            Command::Delete { provider, delete: args } => {
                delete::<IdentityProvider>(&provider, &args, output).await
            }
        }
    }
}

impl Create {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let jwks = self.jwks.as_deref().map(|path| public_keys("--jwks", path)).transpose()?;
        let (mut write, server) = self.write.open().await?;
        let (parent, id) =
            place_in(&server, self.id.as_deref(), self.parent.as_deref(), &mut write).await?;
        let default_role = match &self.default_role {
            Some(role) => id_to_write::<Role>(&server, role, &mut write).await?,
            None => String::new(),
        };
        let (name, description) = self.text.values();
        let oidc = Oidc {
            issuer: self.issuer,
            client_id: self.client_id.unwrap_or_default(),
            audiences: self.audience,
            jwks: jwks.unwrap_or_default(),
            groups_claim: self.groups_claim.unwrap_or_default(),
            algorithms: self.algorithm,
        };
        let provider = IdentityProvider {
            id,
            name,
            description,
            default_role,
            configuration: Some(Configuration::Oidc(oidc)),
            ..IdentityProvider::default()
        };
        create(&server, parent, provider, &write, output).await
    }
}

impl Update {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let mut paths = self.text.mask();
        for (path, is_given) in [
            ("oidc.client_id", self.client_id.is_some()),
            ("oidc.audiences", !self.audience.is_empty() || self.no_audiences),
            ("oidc.jwks", self.jwks.is_some() || self.no_jwks),
            ("oidc.groups_claim", self.groups_claim.is_some() || self.no_groups_claim),
            ("oidc.algorithms", !self.algorithm.is_empty() || self.no_algorithms),
            ("default_role", self.default_role.is_some() || self.no_default_role),
        ] {
            if is_given {
                paths.push(path.into());
            }
        }
        ensure!(
            !paths.is_empty(),
            "nothing to change: give --client-id, --audience, --jwks, --groups-claim, --algorithm, --default-role, --name, --description, \
             or --no-… of what there shall be none"
        );
        let jwks = self.jwks.as_deref().map(|path| public_keys("--jwks", path)).transpose()?;
        let (mut write, server) = self.change.write.open().await?;
        let id = id_to_write::<IdentityProvider>(&server, &self.provider, &mut write).await?;
        let default_role = match &self.default_role {
            Some(role) => id_to_write::<Role>(&server, role, &mut write).await?,
            None => String::new(),
        };
        let (name, description) = self.text.values();
        let oidc = Oidc {
            issuer: String::new(),
            client_id: self.client_id.unwrap_or_default(),
            audiences: self.audience,
            jwks: jwks.unwrap_or_default(),
            groups_claim: self.groups_claim.unwrap_or_default(),
            algorithms: self.algorithm,
        };
        let provider = IdentityProvider {
            id,
            name,
            description,
            default_role,
            etag: self.change.etag.unwrap_or_default(),
            configuration: Some(Configuration::Oidc(oidc)),
            ..IdentityProvider::default()
        };
        update(&server, (provider, paths), "updated", &write, output).await
    }
}
