//! Requests of `PullTokenService` to operations.

use capstan_iam::{CreatePullToken, Delete, Operation, PullToken, SecretHash};
use capstan_proto::iam::v1;

use super::fields::{optional_duration, optional_path, path};
use super::objects;
use crate::RequestError;
use crate::grpc::convert::timestamp;

pub(super) fn create(
    request: &v1::CreatePullTokenRequest,
    secret: SecretHash,
) -> Result<Operation, RequestError> {
    let v1::CreatePullTokenRequest { group, role, name, ttl, .. } = request;
    let role = match optional_path("role", role)? {
        Some(role) => role.as_str().into(),
        None => return Err(RequestError::field("role", "missing")),
    };
    Ok(Operation::CreatePullToken(CreatePullToken {
        group: path("group", group)?,
        role,
        name: name.clone(),
        ttl: optional_duration("ttl", *ttl)?,
        secret,
    }))
}

pub(super) fn revoke(request: v1::RevokePullTokenRequest) -> Result<Operation, RequestError> {
    let v1::RevokePullTokenRequest { id, .. } = request;
    Ok(Operation::RevokePullToken(Delete { id: path("id", &id)?, etag: None }))
}

/// The message of a token that was made.
pub(super) fn made(token: PullToken) -> v1::PullToken {
    let PullToken { identity, binding } = token;
    v1::PullToken {
        role: binding.role.to_string(),
        scope: binding.scope.to_string(),
        expires_at: binding.expires_at.map(timestamp),
        ..objects::pull_token(identity)
    }
}
