//! Requests of `RoleService` to operations.

use capstan_iam::{CreateRole, Operation, UpdateRole};
use capstan_proto::iam::v1;

use super::fields::{optional, optional_path, path, required};
use super::group::deleted;
use super::mask::{Fields, Mask};
use crate::RequestError;

const FIELDS: Fields = Fields { mutable: &["name", "description", "capabilities"], immutable: &[] };

pub(super) fn create(request: v1::CreateRoleRequest) -> Result<Operation, RequestError> {
    let v1::CreateRoleRequest { parent, role, .. } = request;
    let role = required("role", role)?;
    Ok(Operation::CreateRole(CreateRole {
        parent: path("parent", &parent)?,
        id: optional_path("role.id", &role.id)?,
        name: role.name,
        description: role.description,
        capabilities: role.capabilities,
    }))
}

pub(super) fn update(request: v1::UpdateRoleRequest) -> Result<Operation, RequestError> {
    let v1::UpdateRoleRequest { role, update_mask, .. } = request;
    let role = required("role", role)?;
    let mask = Mask::parse(update_mask.as_ref(), &FIELDS)?;
    let has_capabilities = !role.capabilities.is_empty();
    Ok(Operation::UpdateRole(UpdateRole {
        id: path("role.id", &role.id)?,
        name: mask.text("name", role.name),
        description: mask.text("description", role.description),
        capabilities: mask.of("capabilities", role.capabilities, has_capabilities),
        etag: optional(role.etag),
    }))
}

pub(super) fn delete(request: v1::DeleteRoleRequest) -> Result<Operation, RequestError> {
    let v1::DeleteRoleRequest { id, etag, .. } = request;
    Ok(Operation::DeleteRole(deleted(&id, etag)?))
}
