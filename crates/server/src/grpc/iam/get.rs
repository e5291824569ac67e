//! One object by its id.
//!
//! **Invariant**: the capability is judged on the id before the existence of the object is; hidden and absent are one error.
//! Only a resource is looked at first, because its type names the capability.

use capstan_engine::{Path, PathBuf};
use capstan_proto::iam::v1;

use super::fields::path;
use super::kinds::{self, Described, Groups, Identities, Resources, RoleBindings, Roles};
use super::list::restricted;
use super::objects;
use super::reading::Reading;
use super::visible::{GROUPS_LIST, Viewer, list_of_type};
use crate::RequestError;

pub(super) fn group(
    reading: &Reading,
    viewer: &Viewer<'_>,
    id: &str,
) -> Result<v1::Group, RequestError> {
    let id = path("id", id)?;
    viewer.require(Groups::CAPABILITY, Some(id.as_path()))?;
    if reading.objects.is_none() {
        let found = reading.snapshot().is_group(id.as_path());
        let group = v1::Group { id: id.to_string(), ..Default::default() };
        return found.then_some(group).ok_or(RequestError::NotFound);
    }
    stored::<Groups>(reading, &id)
}

pub(super) fn role(
    reading: &Reading,
    viewer: &Viewer<'_>,
    id: &str,
) -> Result<v1::Role, RequestError> {
    let id = path("id", id)?;
    let declared = || {
        let role = reading.snapshot().role(id.as_str());
        let role = role.map(|role| objects::declared_role(reading.snapshot(), role));
        role.ok_or(RequestError::NotFound)
    };
    // The id of a custom role is a path below a group. The built-in ones are everybody's.
    let Some(home) = id.as_path().parent() else { return declared() };
    viewer.require(Roles::CAPABILITY, Some(home))?;
    if reading.objects.is_none() { declared() } else { stored::<Roles>(reading, &id) }
}

pub(super) fn role_binding(
    reading: &Reading,
    viewer: &Viewer<'_>,
    id: &str,
) -> Result<v1::RoleBinding, RequestError> {
    let id = path("id", id)?;
    let binding = reading.snapshot().role_binding(id.as_path());
    let is_own = |viewer: Path<'_>| {
        binding.as_ref().is_some_and(|binding| binding.identity.as_path() == viewer)
    };
    if !viewer.identity().is_some_and(is_own) {
        viewer.require(RoleBindings::CAPABILITY, id.as_path().parent())?;
    }
    if reading.objects.is_none() {
        return binding.map(kinds::declared_binding).ok_or(RequestError::NotFound);
    }
    stored::<RoleBindings>(reading, &id)
}

pub(super) fn identity(
    reading: &Reading,
    viewer: &Viewer<'_>,
    id: &str,
) -> Result<v1::Identity, RequestError> {
    let id = path("id", id)?;
    let snapshot = reading.snapshot();
    if reading.objects.is_none() {
        let found = snapshot.is_registered(id.as_path());
        let identity = kinds::declared_identity(snapshot, id.as_path());
        return found.then_some(identity).ok_or(RequestError::NotFound);
    }
    let is_itself = viewer.identity() == Some(id.as_path());
    match (viewer, id.as_path().parent()) {
        (Viewer::Identity(rights), None) if !is_itself => {
            let bindings = snapshot.role_bindings(id.as_path());
            let mut scopes = bindings.iter().map(|binding| binding.scope.as_path());
            if !scopes.any(|scope| rights.holds(RoleBindings::CAPABILITY, scope)) {
                return Err(RequestError::NotFound);
            }
            Ok(restricted(stored::<Identities>(reading, &id)?))
        }
        (_, parent) => {
            if !is_itself {
                viewer.require(Identities::CAPABILITY, parent)?;
            }
            let mut identity = stored::<Identities>(reading, &id)?;
            identity.last_seen = last_seen(reading, &id)?;
            Ok(identity)
        }
    }
}

fn last_seen(
    reading: &Reading,
    id: &PathBuf,
) -> Result<Option<prost_types::Timestamp>, RequestError> {
    let Some(objects) = &reading.objects else { return Ok(None) };
    Ok(objects.last_seen(id.as_str())?.map(crate::grpc::convert::timestamp))
}

pub(super) fn resource(
    reading: &Reading,
    viewer: &Viewer<'_>,
    id: &str,
) -> Result<v1::Resource, RequestError> {
    let id = path("id", id)?;
    let snapshot = reading.snapshot();
    if reading.objects.is_none() {
        let found = snapshot.is_resource(id.as_path());
        let resource = kinds::declared_resource(snapshot, id.as_path());
        return found.then_some(resource).ok_or(RequestError::NotFound);
    }
    let found = stored::<Resources>(reading, &id);
    let capability = match &found {
        Ok(resource) => list_of_type(snapshot, &resource.r#type),
        Err(RequestError::NotFound) => GROUPS_LIST.into(),
        Err(_) => return found,
    };
    viewer.require(&capability, id.as_path().parent())?;
    found
}

/// The object of a store.
fn stored<K: Described>(reading: &Reading, id: &PathBuf) -> Result<K::Message, RequestError> {
    let found = reading.get(K::KIND, id.as_path())?;
    found.and_then(K::message).ok_or(RequestError::NotFound)
}
