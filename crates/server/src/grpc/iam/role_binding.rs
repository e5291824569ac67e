//! Requests of `RoleBindingService` to operations.

use capstan_engine::PathBuf;
use capstan_iam::{
    BatchCreateRoleBindings, BatchDeleteRoleBindings, CreateRoleBinding, NewRoleBinding, Operation,
    RemoveMember, UpdateRoleBinding,
};
use capstan_proto::iam::v1;

use super::fields::{conditions, optional, optional_path, optional_timestamp, path, required};
use super::group::deleted;
use super::mask::{Fields, Mask};
use crate::RequestError;

const FIELDS: Fields = Fields {
    mutable: &["name", "description", "identity", "role", "expires_at", "when"],
    immutable: &["scope"],
};

pub(super) fn create(request: v1::CreateRoleBindingRequest) -> Result<Operation, RequestError> {
    let v1::CreateRoleBindingRequest { parent, role_binding, .. } = request;
    let binding = required("role_binding", role_binding)?;
    let parent = path("parent", &parent)?;
    let binding = new(&parent, "role_binding", binding)?;
    if binding.scope != parent {
        let problem = format!("another path than `parent`, which is `{parent}`: leave it out");
        return Err(RequestError::field("role_binding.scope", problem));
    }
    Ok(Operation::CreateRoleBinding(CreateRoleBinding { parent, binding }))
}

pub(super) fn batch_create(
    request: v1::BatchCreateRoleBindingsRequest,
) -> Result<Operation, RequestError> {
    let v1::BatchCreateRoleBindingsRequest { parent, role_bindings, .. } = request;
    let parent = path("parent", &parent)?;
    let bindings = role_bindings.into_iter().enumerate();
    let bindings =
        bindings.map(|(at, binding)| new(&parent, &format!("role_bindings[{at}]"), binding));
    let bindings = bindings.collect::<Result<_, _>>()?;
    Ok(Operation::BatchCreateRoleBindings(BatchCreateRoleBindings { parent, bindings }))
}

/// A binding to be made. Without a scope it is at the parent.
fn new(
    parent: &PathBuf,
    at: &str,
    binding: v1::RoleBinding,
) -> Result<NewRoleBinding, RequestError> {
    let field = |name: &str| format!("{at}.{name}");
    let scope = optional_path(&field("scope"), &binding.scope)?;
    Ok(NewRoleBinding {
        id: optional_path(&field("id"), &binding.id)?,
        name: binding.name,
        description: binding.description,
        identity: path(&field("identity"), &binding.identity)?,
        role: role(&field("role"), binding.role)?,
        scope: scope.unwrap_or_else(|| parent.clone()),
        expires_at: optional_timestamp(&field("expires_at"), binding.expires_at)?,
        when: conditions(&field("when"), binding.when)?,
    })
}

/// The id of a role, built in or custom.
fn role(field: &str, id: String) -> Result<Box<str>, RequestError> {
    if id.is_empty() { Err(RequestError::field(field, "missing")) } else { Ok(id.into()) }
}

pub(super) fn update(request: v1::UpdateRoleBindingRequest) -> Result<Operation, RequestError> {
    let v1::UpdateRoleBindingRequest { role_binding, update_mask, .. } = request;
    let binding = required("role_binding", role_binding)?;
    let mask = Mask::parse(update_mask.as_ref(), &FIELDS)?;
    let identity = mask.text("identity", binding.identity);
    let role_id = mask.text("role", binding.role);
    let has_scope = !binding.scope.is_empty();
    let scope = mask.immutable("scope", binding.scope, has_scope);
    let has_end = binding.expires_at.is_some();
    let expires_at = mask.of("expires_at", binding.expires_at, has_end);
    let has_conditions = !binding.when.is_empty();
    let when = mask.of("when", binding.when, has_conditions);
    Ok(Operation::UpdateRoleBinding(UpdateRoleBinding {
        id: path("role_binding.id", &binding.id)?,
        name: mask.text("name", binding.name),
        description: mask.text("description", binding.description),
        identity: identity.map(|it| path("role_binding.identity", &it)).transpose()?,
        role: role_id.map(|id| role("role_binding.role", id)).transpose()?,
        scope: scope.map(|it| path("role_binding.scope", &it)).transpose()?,
        expires_at: expires_at
            .map(|it| optional_timestamp("role_binding.expires_at", it))
            .transpose()?,
        when: when.map(|it| conditions("role_binding.when", it)).transpose()?,
        etag: optional(binding.etag),
    }))
}

pub(super) fn delete(request: v1::DeleteRoleBindingRequest) -> Result<Operation, RequestError> {
    let v1::DeleteRoleBindingRequest { id, etag, .. } = request;
    Ok(Operation::DeleteRoleBinding(deleted(&id, etag)?))
}

pub(super) fn batch_delete(
    request: v1::BatchDeleteRoleBindingsRequest,
) -> Result<Operation, RequestError> {
    let v1::BatchDeleteRoleBindingsRequest { parent, ids, .. } = request;
    let parent = path("parent", &parent)?;
    let ids = ids.iter().enumerate().map(|(at, id)| path(&format!("ids[{at}]"), id));
    let ids = ids.collect::<Result<_, _>>()?;
    Ok(Operation::BatchDeleteRoleBindings(BatchDeleteRoleBindings { parent, ids }))
}

pub(super) fn remove_member(request: v1::RemoveMemberRequest) -> Result<Operation, RequestError> {
    let v1::RemoveMemberRequest { organization, identity, .. } = request;
    Ok(Operation::RemoveMember(RemoveMember {
        organization: path("organization", &organization)?,
        identity: path("identity", &identity)?,
    }))
}
