//! Requests of `RoleBindingService` to operations.

use capstan_engine::{PathBuf, Timestamp};
use capstan_iam::{
    BatchCreateRoleBindings, BatchDeleteRoleBindings, CreateRoleBinding, Meta, NewRoleBinding,
    Operation, RemoveMember, UpdateRoleBinding,
};
use capstan_proto::iam::v1;
use prost::Message as _;

use super::fields::{
    SECONDS, conditions, optional, optional_path, optional_timestamp, path, required, role,
};
use super::group::deleted;
use super::list::ENTRY_BYTES;
use super::mask::{Fields, Mask};
use super::objects;
use crate::RequestError;
use crate::limits::PAGE_REST_BYTES;

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

/// The answer has every binding. One that does not fit into a message is refused here: after the commit it would be too late.
pub(super) fn batch_create(
    request: v1::BatchCreateRoleBindingsRequest,
    message_bytes_max: usize,
) -> Result<Operation, RequestError> {
    let v1::BatchCreateRoleBindingsRequest { parent, role_bindings, .. } = request;
    let parent = path("parent", &parent)?;
    let bindings = role_bindings.into_iter().enumerate();
    let bindings =
        bindings.map(|(at, binding)| new(&parent, &format!("role_bindings[{at}]"), binding));
    let bindings = bindings.collect::<Result<Vec<_>, _>>()?;
    let bytes = bindings.iter().map(answered_bytes).sum::<usize>() + PAGE_REST_BYTES;
    if bytes > message_bytes_max {
        let problem = format!(
            "the answer would have up to {bytes} bytes, and a message has at most {message_bytes_max}: create fewer \
             at once"
        );
        return Err(RequestError::field("role_bindings", problem));
    }
    Ok(Operation::BatchCreateRoleBindings(BatchCreateRoleBindings { parent, bindings }))
}

/// Bytes of a binding in an answer, at most: with the longest etag and times, and an id if it has none.
fn answered_bytes(binding: &NewRoleBinding) -> usize {
    let NewRoleBinding { id, name, description, identity, role, scope, expires_at, when } =
        binding.clone();
    let last = Timestamp::new(*SECONDS.end(), 999_999_999);
    let made = capstan_iam::RoleBinding {
        id: scope.clone(),
        name,
        description,
        identity,
        role,
        scope,
        expires_at,
        when,
        meta: Meta::new(u64::MAX, last),
    };
    let mut message = objects::role_binding(made);
    message.id = match id {
        Some(id) => id.to_string(),
        None => format!("{}/{:016x}", message.scope, u64::MAX),
    };
    message.encoded_len() + ENTRY_BYTES
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MESSAGE_BYTES_MAX;

    /// A batch of this many bindings at a group whose path is long.
    fn batch(bindings: usize) -> v1::BatchCreateRoleBindingsRequest {
        let binding = |at: usize| v1::RoleBinding {
            name: "n".repeat(1_024),
            description: "d".repeat(1_024),
            identity: format!("acme/identity-{at:04}"),
            role: "r".repeat(128),
            ..Default::default()
        };
        let role_bindings = (0..bindings).map(binding).collect();
        let parent = vec!["s".repeat(124); 8].join("/");
        v1::BatchCreateRoleBindingsRequest { parent, role_bindings, ..Default::default() }
    }

    #[test]
    fn a_batch_whose_answer_is_too_long_is_refused_before_it_is_made() {
        let request = batch(1_000);
        assert!(request.encoded_len() < MESSAGE_BYTES_MAX, "the request itself is let in");
        let Err(RequestError::Field { field, problem }) = batch_create(request, MESSAGE_BYTES_MAX)
        else {
            panic!("not refused");
        };
        assert_eq!(field, "role_bindings");
        assert!(problem.contains("fewer"), "{problem}");
        assert!(batch_create(batch(900), MESSAGE_BYTES_MAX).is_ok());
    }

    #[test]
    fn the_answer_is_no_longer_than_expected() {
        let request = batch(1);
        let parent = request.parent.parse().unwrap();
        let binding = new(&parent, "", request.role_bindings[0].clone()).unwrap();
        let mut answered = request.role_bindings[0].clone();
        answered.scope = request.parent;
        answered.id = format!("{}/0123456789abcdef", answered.scope);
        answered.etag = Meta::new(u64::MAX, Timestamp::UNIX_EPOCH).etag();
        answered.create_time = Some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 7 });
        answered.update_time = answered.create_time;
        let bytes = answered_bytes(&binding);
        assert!((answered.encoded_len()..=answered.encoded_len() + 32).contains(&bytes));
    }
}
