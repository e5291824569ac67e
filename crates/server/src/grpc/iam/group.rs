//! Requests of `GroupService` to operations.

use capstan_iam::{CreateGroup, Delete, Operation, UpdateGroup};
use capstan_proto::iam::v1;

use super::fields::{optional, optional_path, path, required};
use super::mask::{Fields, Mask};
use crate::RequestError;

const FIELDS: Fields = Fields { mutable: &["name", "description"], immutable: &[] };

pub(super) fn create(request: v1::CreateGroupRequest) -> Result<Operation, RequestError> {
    let v1::CreateGroupRequest { parent, group, owner, .. } = request;
    let group = required("group", group)?;
    Ok(Operation::CreateGroup(CreateGroup {
        parent: optional_path("parent", &parent)?,
        id: optional_path("group.id", &group.id)?,
        name: group.name,
        description: group.description,
        owner: optional_path("owner", &owner)?,
    }))
}

pub(super) fn update(request: v1::UpdateGroupRequest) -> Result<Operation, RequestError> {
    let v1::UpdateGroupRequest { group, update_mask, .. } = request;
    let group = required("group", group)?;
    let mask = Mask::parse(update_mask.as_ref(), &FIELDS)?;
    Ok(Operation::UpdateGroup(UpdateGroup {
        id: path("group.id", &group.id)?,
        name: mask.text("name", group.name),
        description: mask.text("description", group.description),
        etag: optional(group.etag),
    }))
}

pub(super) fn delete(request: v1::DeleteGroupRequest) -> Result<Operation, RequestError> {
    let v1::DeleteGroupRequest { id, etag, .. } = request;
    Ok(Operation::DeleteGroup(deleted(&id, etag)?))
}

/// The delete of any kind of object.
pub(super) fn deleted(id: &str, etag: String) -> Result<Delete, RequestError> {
    Ok(Delete { id: path("id", id)?, etag: optional(etag) })
}
