//! Requests of `GroupRoleMappingService` to operations.

use capstan_iam::{CreateGroupRoleMapping, Operation, UpdateGroupRoleMapping};
use capstan_proto::iam::v1;

use super::fields::{optional, optional_path, path, required, role};
use super::group::deleted;
use super::mask::{Fields, Mask};
use crate::RequestError;

const FIELDS: Fields = Fields {
    mutable: &["name", "description"],
    immutable: &["identity_provider", "external_group", "role", "scope"],
};

pub(super) fn create(
    request: v1::CreateGroupRoleMappingRequest,
) -> Result<Operation, RequestError> {
    let v1::CreateGroupRoleMappingRequest { parent, group_role_mapping, .. } = request;
    let mapping = required("group_role_mapping", group_role_mapping)?;
    let parent = path("parent", &parent)?;
    let provider = &mapping.identity_provider;
    if !provider.is_empty() && *provider != parent.as_str() {
        let problem = format!("another path than `parent`, which is `{parent}`: leave it out");
        return Err(RequestError::field("group_role_mapping.identity_provider", problem));
    }
    Ok(Operation::CreateGroupRoleMapping(CreateGroupRoleMapping {
        parent,
        id: optional_path("group_role_mapping.id", &mapping.id)?,
        name: mapping.name,
        description: mapping.description,
        external_group: mapping.external_group,
        role: role("group_role_mapping.role", mapping.role)?,
        scope: path("group_role_mapping.scope", &mapping.scope)?,
    }))
}

pub(super) fn update(
    request: v1::UpdateGroupRoleMappingRequest,
) -> Result<Operation, RequestError> {
    let v1::UpdateGroupRoleMappingRequest { group_role_mapping, update_mask, .. } = request;
    let mapping = required("group_role_mapping", group_role_mapping)?;
    let mask = Mask::parse(update_mask.as_ref(), &FIELDS)?;
    let fixed = |field, text: String| {
        let is_set = !text.is_empty();
        mask.immutable(field, text, is_set)
    };
    Ok(Operation::UpdateGroupRoleMapping(UpdateGroupRoleMapping {
        id: path("group_role_mapping.id", &mapping.id)?,
        name: mask.text("name", mapping.name),
        description: mask.text("description", mapping.description),
        identity_provider: fixed("identity_provider", mapping.identity_provider),
        external_group: fixed("external_group", mapping.external_group),
        role: fixed("role", mapping.role),
        scope: fixed("scope", mapping.scope),
        etag: optional(mapping.etag),
    }))
}

pub(super) fn delete(
    request: v1::DeleteGroupRoleMappingRequest,
) -> Result<Operation, RequestError> {
    let v1::DeleteGroupRoleMappingRequest { id, etag, .. } = request;
    Ok(Operation::DeleteGroupRoleMapping(deleted(&id, etag)?))
}
