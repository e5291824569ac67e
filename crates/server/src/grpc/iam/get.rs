//! One object by its id.

use capstan_engine::PathBuf;
use capstan_proto::iam::v1;

use super::fields::path;
use super::kinds::{
    self, AccountAssociations, Described, GroupInvites, GroupRoleMappings, Groups, Identities,
    IdentityProviders, Resources, RoleBindings, Roles, Subscriptions,
};
use super::list::message;
use super::objects;
use super::reading::{Reading, Viewer};
use crate::RequestError;

pub(super) fn group(
    reading: &Reading,
    viewer: &Viewer<'_>,
    id: &str,
) -> Result<v1::Group, RequestError> {
    get::<Groups>(viewer, id, |id| {
        let group = v1::Group { id: id.to_string(), ..Default::default() };
        reading.snapshot().is_group(id.as_path()).then_some(group)
    })
}

pub(super) fn role(
    reading: &Reading,
    viewer: &Viewer<'_>,
    id: &str,
) -> Result<v1::Role, RequestError> {
    let declared = |id: &PathBuf| {
        let role = reading.snapshot().role(id.as_str());
        role.map(|role| objects::declared_role(reading.snapshot(), role))
    };
    // The id of a custom role is a path below a group. Everybody sees the built-in ones.
    let built_in = path("id", id)?;
    if built_in.as_path().parent().is_none() {
        return declared(&built_in).ok_or(RequestError::NotFound);
    }
    get::<Roles>(viewer, id, declared)
}

pub(super) fn role_binding(
    reading: &Reading,
    viewer: &Viewer<'_>,
    id: &str,
) -> Result<v1::RoleBinding, RequestError> {
    get::<RoleBindings>(viewer, id, |id| {
        reading.snapshot().role_binding(id.as_path()).map(kinds::declared_binding)
    })
}

pub(super) fn identity(
    reading: &Reading,
    viewer: &Viewer<'_>,
    id: &str,
) -> Result<v1::Identity, RequestError> {
    let mut identity = get::<Identities>(viewer, id, |id| {
        let found = reading.snapshot().is_registered(id.as_path());
        found.then(|| kinds::declared_identity(reading.snapshot(), id.as_path()))
    })?;
    Identities::complete(reading, &mut identity)?;
    Ok(identity)
}

/// A policy file declares none.
pub(super) fn group_invite(
    _: &Reading,
    viewer: &Viewer<'_>,
    id: &str,
) -> Result<v1::GroupInvite, RequestError> {
    get::<GroupInvites>(viewer, id, |_| None)
}

/// A policy file declares none.
pub(super) fn subscription(
    _: &Reading,
    viewer: &Viewer<'_>,
    id: &str,
) -> Result<v1::Subscription, RequestError> {
    get::<Subscriptions>(viewer, id, |_| None)
}

/// A policy file declares none.
pub(super) fn identity_provider(
    _: &Reading,
    viewer: &Viewer<'_>,
    id: &str,
) -> Result<v1::IdentityProvider, RequestError> {
    get::<IdentityProviders>(viewer, id, |_| None)
}

/// A policy file declares none.
pub(super) fn group_role_mapping(
    _: &Reading,
    viewer: &Viewer<'_>,
    id: &str,
) -> Result<v1::GroupRoleMapping, RequestError> {
    get::<GroupRoleMappings>(viewer, id, |_| None)
}

/// A policy file declares none.
pub(super) fn account_association(
    _: &Reading,
    viewer: &Viewer<'_>,
    id: &str,
) -> Result<v1::AccountAssociation, RequestError> {
    get::<AccountAssociations>(viewer, id, |_| None)
}

pub(super) fn resource(
    reading: &Reading,
    viewer: &Viewer<'_>,
    id: &str,
) -> Result<v1::Resource, RequestError> {
    get::<Resources>(viewer, id, |id| {
        let found = reading.snapshot().is_resource(id.as_path());
        found.then(|| kinds::declared_resource(reading.snapshot(), id.as_path()))
    })
}

/// An object that the reader may see, of a store, or as a policy file declares it.
fn get<K: Described>(
    viewer: &Viewer<'_>,
    id: &str,
    declared: impl FnOnce(&PathBuf) -> Option<K::Message>,
) -> Result<K::Message, RequestError> {
    let id = path("id", id)?;
    let found = match viewer {
        Viewer::Everybody => declared(&id),
        Viewer::Actor(reader) => message::<K>(reader.get(K::KIND, id.as_path())?),
    };
    found.ok_or(RequestError::NotFound)
}
