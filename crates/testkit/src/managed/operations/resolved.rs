//! Identity providers, mappings and account associations.

use std::collections::BTreeMap;

use capstan_engine::PathBuf;
use capstan_iam::{
    AccountAssociationUpdate, Accounts, Authentication, Aws, ClaimMatch, CreateAccountAssociation,
    CreateGroupRoleMapping, CreateIdentityProvider, IdentityProviderUpdate, Match, Oidc, Operation,
    UpdateAccountAssociation, UpdateGroupRoleMapping, UpdateIdentityProvider,
};

use super::{delete, parent, path};

/// A set of one public key with this id.
#[must_use]
pub fn jwks(key: &str) -> String {
    format!(r#"{{"keys": [{{"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "{key}"}}]}}"#)
}

/// A provider of an issuer, without a default role.
///
/// # Panics
///
/// It has no parent.
#[must_use]
#[expect(clippy::expect_used, reason = "for tests only")]
pub fn new_provider(id: &str, issuer: &str) -> CreateIdentityProvider {
    CreateIdentityProvider {
        parent: parent(id).expect("a path below an organization"),
        id: Some(path(id)),
        name: String::new(),
        description: String::new(),
        oidc: Oidc {
            issuer: issuer.into(),
            client_id: "capstan".into(),
            audiences: vec![],
            jwks: Some(jwks("1")),
            groups_claim: Some("groups".into()),
            algorithms: vec![],
        },
        default_role: None,
    }
}

/// Makes a provider.
#[must_use]
pub fn provider(id: &str, issuer: &str, default_role: Option<&str>) -> Operation {
    let default_role = default_role.map(Into::into);
    let new = CreateIdentityProvider { default_role, ..new_provider(id, issuer) };
    Operation::CreateIdentityProvider(new)
}

/// Changes a provider.
#[must_use]
pub fn update_provider(id: &str, update: IdentityProviderUpdate) -> Operation {
    let id = path(id);
    Operation::UpdateIdentityProvider(UpdateIdentityProvider { id, update, etag: None })
}

/// Gives a provider other keys.
#[must_use]
pub fn rekey(id: &str, key: &str) -> Operation {
    let jwks = Some(Some(jwks(key)));
    update_provider(id, IdentityProviderUpdate { jwks, ..IdentityProviderUpdate::default() })
}

/// Gives a provider another default role, or none.
#[must_use]
pub fn default_role(id: &str, role: Option<&str>) -> Operation {
    let default_role = Some(role.map(Into::into));
    update_provider(
        id,
        IdentityProviderUpdate { default_role, ..IdentityProviderUpdate::default() },
    )
}

/// Deletes a provider.
#[must_use]
pub fn delete_provider(id: &str) -> Operation {
    Operation::DeleteIdentityProvider(delete(id))
}

/// Maps a group of a provider to a role.
#[must_use]
pub fn new_mapping(provider: &str, group: &str, role: &str, scope: &str) -> CreateGroupRoleMapping {
    CreateGroupRoleMapping {
        parent: path(provider),
        id: None,
        name: String::new(),
        description: String::new(),
        external_group: group.into(),
        role: role.into(),
        scope: path(scope),
    }
}

/// Maps a group of a provider to a role.
#[must_use]
pub fn map(provider: &str, group: &str, role: &str, scope: &str) -> Operation {
    Operation::CreateGroupRoleMapping(new_mapping(provider, group, role, scope))
}

/// An update of a mapping that changes nothing yet.
#[must_use]
pub fn remapping(id: &str) -> UpdateGroupRoleMapping {
    UpdateGroupRoleMapping {
        id: path(id),
        name: None,
        description: None,
        identity_provider: None,
        external_group: None,
        role: None,
        scope: None,
        etag: None,
    }
}

/// Deletes a mapping.
#[must_use]
pub fn unmap(id: &str) -> Operation {
    Operation::DeleteGroupRoleMapping(delete(id))
}

/// Tokens of an issuer with any subject.
#[must_use]
pub fn claims(issuer: Match) -> Authentication {
    Authentication::ClaimMatch(ClaimMatch {
        issuer,
        subject: Match::Pattern(".*".into()),
        audience: None,
        claims: BTreeMap::default(),
        claim_patterns: BTreeMap::default(),
    })
}

/// Identities by the names of services.
#[must_use]
pub fn services(all: &[(&str, &str)]) -> BTreeMap<String, PathBuf> {
    all.iter().map(|(name, id)| ((*name).to_owned(), path(id))).collect()
}

/// An account of AWS.
#[must_use]
pub fn aws(account: &str) -> Accounts {
    Accounts { aws: Some(Aws { account: account.into() }), ..Accounts::default() }
}

/// Makes the account association of a group, which names identities.
#[must_use]
pub fn associate(group: &str, named: &[(&str, &str)]) -> Operation {
    Operation::CreateAccountAssociation(CreateAccountAssociation {
        parent: path(group),
        name: String::new(),
        description: String::new(),
        accounts: aws("012345678901"),
        services: services(named),
    })
}

/// Changes an account association.
#[must_use]
pub fn update_association(group: &str, update: AccountAssociationUpdate) -> Operation {
    let id = path(group);
    Operation::UpdateAccountAssociation(UpdateAccountAssociation { id, update, etag: None })
}

/// Gives an account association another account.
#[must_use]
pub fn reaccount(group: &str, account: &str) -> Operation {
    let aws = Some(Some(Aws { account: account.into() }));
    update_association(
        group,
        AccountAssociationUpdate { aws, ..AccountAssociationUpdate::default() },
    )
}

/// Makes an account association name other identities.
#[must_use]
pub fn rename_services(group: &str, named: &[(&str, &str)]) -> Operation {
    let services = Some(services(named));
    update_association(
        group,
        AccountAssociationUpdate { services, ..AccountAssociationUpdate::default() },
    )
}

/// Deletes an account association.
#[must_use]
pub fn disassociate(group: &str) -> Operation {
    Operation::DeleteAccountAssociation(delete(group))
}
