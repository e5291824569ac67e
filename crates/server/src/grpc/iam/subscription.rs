//! Requests of `SubscriptionService` to operations.

use capstan_iam::{CreateSubscription, Operation, UpdateSubscription};
use capstan_proto::iam::v1;

use super::fields::{optional, optional_path, path, required};
use super::group::deleted;
use super::mask::{Fields, Mask};
use crate::RequestError;

const FIELDS: Fields =
    Fields { mutable: &["name", "description", "sink", "types", "disabled"], immutable: &[] };

pub(super) fn create(request: v1::CreateSubscriptionRequest) -> Result<Operation, RequestError> {
    let v1::CreateSubscriptionRequest { parent, subscription, .. } = request;
    let one = required("subscription", subscription)?;
    Ok(Operation::CreateSubscription(CreateSubscription {
        parent: path("parent", &parent)?,
        id: optional_path("subscription.id", &one.id)?,
        name: one.name,
        description: one.description,
        sink: one.sink,
        types: one.types,
        disabled: one.disabled,
    }))
}

pub(super) fn update(request: v1::UpdateSubscriptionRequest) -> Result<Operation, RequestError> {
    let v1::UpdateSubscriptionRequest { subscription, update_mask, .. } = request;
    let one = required("subscription", subscription)?;
    let mask = Mask::parse(update_mask.as_ref(), &FIELDS)?;
    let has_types = !one.types.is_empty();
    Ok(Operation::UpdateSubscription(UpdateSubscription {
        id: path("subscription.id", &one.id)?,
        name: mask.text("name", one.name),
        description: mask.text("description", one.description),
        sink: mask.text("sink", one.sink),
        types: mask.of("types", one.types, has_types),
        disabled: mask.of("disabled", one.disabled, one.disabled),
        etag: optional(one.etag),
    }))
}

pub(super) fn delete(request: v1::DeleteSubscriptionRequest) -> Result<Operation, RequestError> {
    let v1::DeleteSubscriptionRequest { id, etag, .. } = request;
    Ok(Operation::DeleteSubscription(deleted(&id, etag)?))
}
