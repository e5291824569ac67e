//! Operations on what resolves to identities and roles: identity providers, their mappings, account associations.

use std::collections::BTreeMap;

use capstan_engine::PathBuf;

use crate::object::{Accounts, Aws, Azure, Github, Google, Oidc};

/// See [`Operation::CreateIdentityProvider`](crate::Operation::CreateIdentityProvider).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateIdentityProvider {
    /// The organization.
    pub parent: PathBuf,
    /// The path; one is made if there is none.
    pub id: Option<PathBuf>,
    /// Display name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What makes a token one of this provider.
    pub oidc: Oidc,
    /// A built-in role's name or a custom role's path.
    pub default_role: Option<Box<str>>,
}

/// See [`Operation::UpdateIdentityProvider`](crate::Operation::UpdateIdentityProvider).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateIdentityProvider {
    /// The provider.
    pub id: PathBuf,
    /// What changes.
    pub update: IdentityProviderUpdate,
    /// The etag that the object must have.
    pub etag: Option<String>,
}

/// See [`Operation::UpdateIdentityProvider`](crate::Operation::UpdateIdentityProvider).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityProviderUpdate {
    /// Display name.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// The issuer, which must be what it is.
    pub issuer: Option<String>,
    /// Capstan's client id at the provider.
    pub client_id: Option<String>,
    /// Further audiences.
    pub audiences: Option<Vec<String>>,
    /// Public keys; `Some(None)` for those that the issuer's discovery document names.
    pub jwks: Option<Option<String>>,
    /// The claim that lists groups; `Some(None)` for none.
    pub groups_claim: Option<Option<String>>,
    /// The algorithms that its tokens may be signed with.
    pub algorithms: Option<Vec<String>>,
    /// The default role; `Some(None)` for none.
    pub default_role: Option<Option<Box<str>>>,
}

/// See [`Operation::CreateGroupRoleMapping`](crate::Operation::CreateGroupRoleMapping).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateGroupRoleMapping {
    /// The provider.
    pub parent: PathBuf,
    /// The path; one is made if there is none.
    pub id: Option<PathBuf>,
    /// Display name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The group, as the provider's tokens name it.
    pub external_group: String,
    /// A built-in role's name or a custom role's path.
    pub role: Box<str>,
    /// A group: the organization or below it.
    pub scope: PathBuf,
}

/// See [`Operation::UpdateGroupRoleMapping`](crate::Operation::UpdateGroupRoleMapping).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateGroupRoleMapping {
    /// The mapping.
    pub id: PathBuf,
    /// Display name.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// The provider, which must be what it is.
    pub identity_provider: Option<String>,
    /// The group of the provider, which must be what it is.
    pub external_group: Option<String>,
    /// The role, which must be what it is.
    pub role: Option<String>,
    /// The scope, which must be what it is.
    pub scope: Option<String>,
    /// The etag that the object must have.
    pub etag: Option<String>,
}

/// See [`Operation::CreateAccountAssociation`](crate::Operation::CreateAccountAssociation).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateAccountAssociation {
    /// The group.
    pub parent: PathBuf,
    /// Display name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Accounts at other clouds.
    pub accounts: Accounts,
    /// Identities of the organization, by what each does.
    pub services: BTreeMap<String, PathBuf>,
}

/// See [`Operation::UpdateAccountAssociation`](crate::Operation::UpdateAccountAssociation).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateAccountAssociation {
    /// The group.
    pub id: PathBuf,
    /// What changes.
    pub update: AccountAssociationUpdate,
    /// The etag that the object must have.
    pub etag: Option<String>,
}

/// See [`Operation::UpdateAccountAssociation`](crate::Operation::UpdateAccountAssociation).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountAssociationUpdate {
    /// Display name.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// The account of AWS; `Some(None)` for none.
    pub aws: Option<Option<Aws>>,
    /// The project of Google; `Some(None)` for none.
    pub google: Option<Option<Google>>,
    /// The tenant of Azure; `Some(None)` for none.
    pub azure: Option<Option<Azure>>,
    /// Installations at GitHub; `Some(None)` for none.
    pub github: Option<Option<Github>>,
    /// Identities of the organization, by what each does.
    pub services: Option<BTreeMap<String, PathBuf>>,
}
