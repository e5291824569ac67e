//! Operations in few words, for tests. Paths are texts; one that is no path fails the test.

#![expect(clippy::expect_used, reason = "for tests only")]

mod resolved;
mod subscriptions;

use std::time::Duration;

use capstan_engine::{Condition, PathBuf, Properties, Timestamp, Value, parse_attribute};
use capstan_iam::{
    AcceptGroupInvite, Actor, Authentication, BatchCreateRoleBindings, BatchDeleteRoleBindings,
    CreateGroup, CreateGroupInvite, CreateIdentity, CreatePullToken, CreateResource, CreateRole,
    CreateRoleBinding, Delete, IdentityUpdate, NewRoleBinding, Operation, RemoveMember, SecretHash,
    StaticKeys, UpdateGroup, UpdateIdentity, UpdateResource, UpdateRole, UpdateRoleBinding,
};

pub use resolved::*;
pub use subscriptions::*;

/// A path.
///
/// # Panics
///
/// The text is none.
#[must_use]
pub fn path(text: &str) -> PathBuf {
    text.parse().expect("a path")
}

/// An identity that asks.
#[must_use]
pub fn actor(id: &str) -> Actor {
    Actor::identity(path(id))
}

fn parent(id: &str) -> Option<PathBuf> {
    path(id).as_path().parent().map(PathBuf::from)
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Properties of texts.
#[must_use]
pub fn properties(texts: &[(&str, &str)]) -> Properties {
    texts.iter().map(|(name, value)| ((*name).to_owned(), Value::String((*value).into()))).collect()
}

/// A condition that an attribute equals a text.
///
/// # Panics
///
/// It is no attribute.
#[must_use]
pub fn equals(attribute: &str, value: &str) -> Condition {
    let (category, name) = parse_attribute(attribute).expect("an attribute");
    Condition { category, name: name.into(), equals: true, value: Value::String(value.into()) }
}

/// Makes an organization.
#[must_use]
pub fn organization(id: &str, owner: &str) -> Operation {
    Operation::CreateGroup(CreateGroup {
        parent: None,
        id: Some(path(id)),
        name: String::new(),
        description: String::new(),
        owner: Some(path(owner)),
    })
}

/// Makes a folder.
#[must_use]
pub fn folder(id: &str) -> Operation {
    Operation::CreateGroup(CreateGroup {
        parent: parent(id),
        id: Some(path(id)),
        name: String::new(),
        description: String::new(),
        owner: None,
    })
}

/// Renames a group.
#[must_use]
pub fn rename_group(id: &str, name: &str) -> Operation {
    Operation::UpdateGroup(UpdateGroup {
        id: path(id),
        name: Some(name.into()),
        description: None,
        etag: None,
    })
}

fn delete(id: &str) -> Delete {
    Delete { id: path(id), etag: None }
}

/// Deletes a group.
#[must_use]
pub fn delete_group(id: &str) -> Operation {
    Operation::DeleteGroup(delete(id))
}

/// Makes a custom role.
///
/// # Panics
///
/// It has no parent.
#[must_use]
pub fn role(id: &str, capabilities: &[&str]) -> Operation {
    Operation::CreateRole(CreateRole {
        parent: parent(id).expect("a path below a group"),
        id: Some(path(id)),
        name: String::new(),
        description: String::new(),
        capabilities: strings(capabilities),
    })
}

/// Changes what a role gives.
#[must_use]
pub fn update_role(id: &str, capabilities: &[&str]) -> Operation {
    Operation::UpdateRole(UpdateRole {
        id: path(id),
        name: None,
        description: None,
        capabilities: Some(strings(capabilities)),
        etag: None,
    })
}

/// Deletes a role.
#[must_use]
pub fn delete_role(id: &str) -> Operation {
    Operation::DeleteRole(delete(id))
}

/// A binding without id, expiry and conditions.
#[must_use]
pub fn binding(identity: &str, role: &str, scope: &str) -> NewRoleBinding {
    NewRoleBinding {
        id: None,
        name: String::new(),
        description: String::new(),
        identity: path(identity),
        role: role.into(),
        scope: path(scope),
        expires_at: None,
        when: vec![],
    }
}

/// Makes a binding.
#[must_use]
pub fn create(binding: NewRoleBinding) -> Operation {
    let parent = binding.scope.clone();
    Operation::CreateRoleBinding(CreateRoleBinding { parent, binding })
}

/// Makes a binding without expiry and conditions.
#[must_use]
pub fn bind(identity: &str, role: &str, scope: &str) -> Operation {
    create(binding(identity, role, scope))
}

/// Makes a binding that ends.
#[must_use]
pub fn bind_until(identity: &str, role: &str, scope: &str, end: Timestamp) -> Operation {
    create(NewRoleBinding { expires_at: Some(end), ..binding(identity, role, scope) })
}

/// Makes a binding with a condition.
#[must_use]
pub fn bind_when(identity: &str, role: &str, scope: &str, when: Condition) -> Operation {
    create(NewRoleBinding { when: vec![when], ..binding(identity, role, scope) })
}

/// Makes bindings, all or none.
#[must_use]
pub fn bind_all(parent: &str, bindings: Vec<NewRoleBinding>) -> Operation {
    Operation::BatchCreateRoleBindings(BatchCreateRoleBindings { parent: path(parent), bindings })
}

/// An update of a binding that changes nothing yet.
#[must_use]
pub fn rebinding(id: &str) -> UpdateRoleBinding {
    UpdateRoleBinding {
        id: path(id),
        name: None,
        description: None,
        identity: None,
        role: None,
        scope: None,
        expires_at: None,
        when: None,
        etag: None,
    }
}

/// Gives a binding another role.
#[must_use]
pub fn rebind(id: &str, role: &str) -> Operation {
    Operation::UpdateRoleBinding(UpdateRoleBinding { role: Some(role.into()), ..rebinding(id) })
}

/// Deletes a binding.
#[must_use]
pub fn unbind(id: &str) -> Operation {
    Operation::DeleteRoleBinding(delete(id))
}

/// Deletes bindings, all or none.
#[must_use]
pub fn unbind_all(parent: &str, ids: &[&str]) -> Operation {
    let ids = ids.iter().map(|id| path(id)).collect();
    Operation::BatchDeleteRoleBindings(BatchDeleteRoleBindings { parent: path(parent), ids })
}

/// Deletes all bindings of an identity.
#[must_use]
pub fn remove(identity: &str, organization: &str) -> Operation {
    let (organization, identity) = (path(organization), path(identity));
    Operation::RemoveMember(RemoveMember { organization, identity })
}

/// An identity that is a user, without anything else.
#[must_use]
pub fn new_identity(id: &str) -> CreateIdentity {
    CreateIdentity {
        parent: parent(id),
        id: Some(path(id)),
        name: String::new(),
        description: String::new(),
        kind: String::new(),
        properties: Properties::new(),
        disabled: false,
        authentication: None,
    }
}

/// Makes an identity.
#[must_use]
pub fn identity(id: &str) -> Operation {
    Operation::CreateIdentity(new_identity(id))
}

/// Changes an identity.
#[must_use]
pub fn change(id: &str, update: IdentityUpdate) -> Operation {
    Operation::UpdateIdentity(UpdateIdentity { id: path(id), update, etag: None })
}

/// Gives an identity another way to authenticate.
#[must_use]
pub fn authenticate(id: &str, by: Option<Authentication>) -> Operation {
    change(id, IdentityUpdate { authentication: Some(by), ..IdentityUpdate::default() })
}

/// Gives an identity other properties.
#[must_use]
pub fn describe(id: &str, properties: Properties) -> Operation {
    change(id, IdentityUpdate { properties: Some(properties), ..IdentityUpdate::default() })
}

/// Disables or enables an identity.
#[must_use]
pub fn disable(id: &str, disabled: bool) -> Operation {
    change(id, IdentityUpdate { disabled: Some(disabled), ..IdentityUpdate::default() })
}

/// Deletes an identity.
#[must_use]
pub fn delete_identity(id: &str) -> Operation {
    Operation::DeleteIdentity(delete(id))
}

/// Makes a pull token that lives for so many seconds, or as long as tokens do.
#[must_use]
pub fn pull_token(group: &str, role: &str, seconds: Option<u64>) -> Operation {
    Operation::CreatePullToken(CreatePullToken {
        group: path(group),
        role: role.into(),
        name: String::new(),
        ttl: seconds.map(Duration::from_secs),
        secret: SecretHash::from_bytes([7; 32]),
    })
}

/// Revokes a pull token.
#[must_use]
pub fn revoke(id: &str) -> Operation {
    Operation::RevokePullToken(delete(id))
}

/// Keys of an issuer and a subject, with this key id.
#[must_use]
pub fn keys(
    issuer: &str,
    subject: &str,
    key: &str,
    expires_at: Option<Timestamp>,
) -> Authentication {
    Authentication::StaticKeys(StaticKeys {
        issuer: issuer.into(),
        subject: subject.into(),
        jwks: format!(
            r#"{{"keys": [{{"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "{key}"}}]}}"#
        ),
        expires_at,
        audience: None,
    })
}

/// Registers a resource.
#[must_use]
pub fn resource(id: &str, kind: &str, properties: Properties) -> Operation {
    Operation::CreateResource(CreateResource {
        parent: parent(id),
        id: Some(path(id)),
        name: String::new(),
        description: String::new(),
        kind: kind.into(),
        properties,
    })
}

/// Gives a resource other properties.
#[must_use]
pub fn update_resource(id: &str, properties: Properties) -> Operation {
    Operation::UpdateResource(UpdateResource {
        id: path(id),
        name: None,
        description: None,
        kind: None,
        properties: Some(properties),
        etag: None,
    })
}

/// Deletes a resource.
#[must_use]
pub fn delete_resource(id: &str) -> Operation {
    Operation::DeleteResource(delete(id))
}

/// An invite to a group, with a code of this number.
#[must_use]
pub fn new_invite(group: &str, role: &str, code: u8) -> CreateGroupInvite {
    CreateGroupInvite {
        parent: path(group),
        id: None,
        name: String::new(),
        description: String::new(),
        role: role.into(),
        email: None,
        single_use: true,
        ttl: None,
        code: SecretHash::from_bytes([code; 32]),
    }
}

/// Makes an invite for an address, or for anybody.
#[must_use]
pub fn invite(group: &str, role: &str, email: Option<&str>, code: u8) -> Operation {
    let email = email.map(ToOwned::to_owned);
    Operation::CreateGroupInvite(CreateGroupInvite { email, ..new_invite(group, role, code) })
}

/// Accepts the invite with the code of this number.
#[must_use]
pub const fn accept(code: u8) -> Operation {
    Operation::AcceptGroupInvite(AcceptGroupInvite {
        code: Some(SecretHash::from_bytes([code; 32])),
    })
}

/// Deletes an invite.
#[must_use]
pub fn delete_invite(id: &str) -> Operation {
    Operation::DeleteGroupInvite(delete(id))
}
