//! `capstan iam`: the management of organizations, roles, identities, role bindings and invites on a server.
//!
//! ```text
//! command ─▶ connection: who calls, request id ─▶ capstan.iam.v1 over gRPC ─┬─▶ show: table, JSON, tree or ids
//!    │          └─ repeats what the server asks to repeat                    └─▶ refusal: what is missing, what to do
//!    └─▶ names: what a text names, by id or display name
//! ```
//!
//! Standard output has results only. What a write did is said on standard error.

mod account_associations;
pub(crate) mod connection;
pub(crate) mod custom_roles;
mod difference;
mod group_invites;
mod group_role_mappings;
mod groups;
mod identities;
mod identity_providers;
pub(crate) mod json;
pub(crate) mod kind;
pub(crate) mod names;
mod organization;
pub(crate) mod prompt;
pub(crate) mod refusal;
mod resources;
mod role_bindings;
pub(crate) mod show;
pub(crate) mod transfer;
mod tree;
pub(crate) mod values;
pub(crate) mod verbs;

use std::process::ExitCode;

use crate::output::Output;
use crate::roles::Roles;

const EXAMPLES: &str = "\
Examples:
  capstan iam organizations create acme --owner alice --addr unix:/var/lib/capstan/operator.sock
  capstan context add acme --addr http://127.0.0.1:4480 --as alice
  capstan context use acme
  capstan iam folders create acme/platform --name Platform
  capstan iam identities create acme/ci --type service --name 'CI bot'
  capstan iam roles create acme/puller --like registry.pull
  capstan iam bindings create --identity acme/ci --role acme/puller --group acme/platform --ttl 90d
  capstan iam group-invites create --group acme/platform --role viewer --email ann@example.com
  capstan iam identity-providers create acme/okta --issuer https://acme.okta.com --client-id capstan
  capstan iam tree acme

Names: where something is changed, given or deleted, a text that could be a path is an id. A display name is a text that \
could not, such as one with a blank, or it follows `name:`. Reads take any display name that is the id of nothing.

Every write takes --validate-only. Exit codes: 0 done; 1 refused: not permitted, not found, already there, not in this \
state, or changed meanwhile (PERMISSION_DENIED, NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION, ABORTED); 2 error.";

/// Organizations, folders, roles, role bindings, identities, resources and invites of a server
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Iam {
    #[command(subcommand)]
    command: Command,
}

// Singular names are hidden, because completion would offer them in place of the plural ones.
#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(aliases = ["organization", "orgs", "org"])]
    Organizations(groups::Organizations),
    #[command(alias = "folder")]
    Folders(groups::Folders),
    #[command(alias = "group")]
    Groups(groups::Groups),
    #[command(alias = "role")]
    Roles(Roles),
    #[command(aliases = ["role-binding", "bindings", "binding"])]
    RoleBindings(role_bindings::RoleBindings),
    #[command(alias = "identity")]
    Identities(identities::Identities),
    #[command(alias = "resource")]
    Resources(resources::Resources),
    #[command(aliases = ["group-invite", "invites", "invite"])]
    GroupInvites(group_invites::GroupInvites),
    #[command(aliases = ["identity-provider", "idps", "idp"])]
    IdentityProviders(identity_providers::IdentityProviders),
    #[command(aliases = ["group-role-mapping", "mappings", "mapping"])]
    GroupRoleMappings(group_role_mappings::GroupRoleMappings),
    #[command(aliases = ["account-association", "associations", "association"])]
    AccountAssociations(account_associations::AccountAssociations),
    Tree(organization::Tree),
    RemoveMember(role_bindings::RemoveMember),
}

impl Iam {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        output.of_management()?;
        match self.command {
            Command::Organizations(organizations) => organizations.run(output).await,
            Command::Folders(folders) => folders.run(output).await,
            Command::Groups(groups) => groups.run(output).await,
            Command::Roles(roles) => roles.run(output).await,
            Command::RoleBindings(bindings) => bindings.run(output).await,
            Command::Identities(identities) => identities.run(output).await,
            Command::Resources(resources) => resources.run(output).await,
            Command::GroupInvites(invites) => invites.run(output).await,
            Command::IdentityProviders(providers) => providers.run(output).await,
            Command::GroupRoleMappings(mappings) => mappings.run(output).await,
            Command::AccountAssociations(associations) => associations.run(output).await,
            Command::Tree(tree) => tree.run(output).await,
            Command::RemoveMember(member) => member.run(output).await,
        }
    }
}
