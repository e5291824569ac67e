//! Requests of `GroupInviteService` to operations.

use capstan_iam::{
    AcceptGroupInvite, CreateGroupInvite, Operation, Secret, SecretHash, SecretKind,
    UpdateGroupInvite,
};
use capstan_proto::iam::v1;

use super::fields::{optional, optional_duration, optional_path, path, required, role};
use super::group::deleted;
use super::mask::{Fields, Mask};
use crate::RequestError;

const FIELDS: Fields =
    Fields { mutable: &["name", "description"], immutable: &["role", "email", "single_use"] };

pub(super) fn create(
    request: v1::CreateGroupInviteRequest,
    code: SecretHash,
) -> Result<Operation, RequestError> {
    let v1::CreateGroupInviteRequest { parent, group_invite, ttl, .. } = request;
    let invite = required("group_invite", group_invite)?;
    if invite.expires_at.is_some() {
        return Err(RequestError::field("group_invite.expires_at", "output only: set `ttl`"));
    }
    Ok(Operation::CreateGroupInvite(CreateGroupInvite {
        parent: path("parent", &parent)?,
        id: optional_path("group_invite.id", &invite.id)?,
        name: invite.name,
        description: invite.description,
        role: role("group_invite.role", invite.role)?,
        email: optional(invite.email),
        single_use: invite.single_use.unwrap_or(true),
        ttl: optional_duration("ttl", ttl)?,
        code,
    }))
}

pub(super) fn update(request: v1::UpdateGroupInviteRequest) -> Result<Operation, RequestError> {
    let v1::UpdateGroupInviteRequest { group_invite, update_mask, .. } = request;
    let invite = required("group_invite", group_invite)?;
    let mask = Mask::parse(update_mask.as_ref(), &FIELDS)?;
    let is_set = (!invite.role.is_empty(), !invite.email.is_empty());
    let single_use = (invite.single_use.unwrap_or(true), invite.single_use.is_some());
    Ok(Operation::UpdateGroupInvite(UpdateGroupInvite {
        id: path("group_invite.id", &invite.id)?,
        name: mask.text("name", invite.name),
        description: mask.text("description", invite.description),
        role: mask.immutable("role", invite.role, is_set.0),
        email: mask.immutable("email", invite.email, is_set.1),
        single_use: mask.immutable("single_use", single_use.0, single_use.1),
        etag: optional(invite.etag),
    }))
}

pub(super) fn delete(request: v1::DeleteGroupInviteRequest) -> Result<Operation, RequestError> {
    let v1::DeleteGroupInviteRequest { id, etag, .. } = request;
    Ok(Operation::DeleteGroupInvite(deleted(&id, etag)?))
}

/// A text that is no code is refused as one that is unknown.
pub(super) fn accept(code: &str) -> Operation {
    let code = Secret::parse(SecretKind::GroupInvite, code).map(|code| code.hash());
    Operation::AcceptGroupInvite(AcceptGroupInvite { code })
}
