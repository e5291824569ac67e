//! Requests of `SubscriptionService` to operations.

use capstan_engine::PathBuf;
use capstan_events::{Policy, Sink, UnixMillis};
use capstan_iam::{
    CreateSubscription, Kind, Object, Operation, SetSubscriptionState, SubscriptionState,
    UpdateSubscription,
};
use capstan_proto::iam::v1;

use super::fields::{optional, optional_path, path, required};
use super::group::deleted;
use super::mask::{Fields, Mask};
use super::reading::{Reading, Source};
use crate::RequestError;
use crate::webhooks::Webhooks;

const FIELDS: Fields =
    Fields { mutable: &["name", "description", "sink", "types", "disabled"], immutable: &[] };

pub(super) fn create(
    request: v1::CreateSubscriptionRequest,
    webhooks: Option<&Webhooks>,
) -> Result<Operation, RequestError> {
    let v1::CreateSubscriptionRequest { parent, subscription, .. } = request;
    let one = required("subscription", subscription)?;
    check_sink(&one.sink, webhooks)?;
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

pub(super) fn update(
    request: v1::UpdateSubscriptionRequest,
    webhooks: Option<&Webhooks>,
) -> Result<Operation, RequestError> {
    let v1::UpdateSubscriptionRequest { subscription, update_mask, .. } = request;
    let one = required("subscription", subscription)?;
    let mask = Mask::parse(update_mask.as_ref(), &FIELDS)?;
    let has_types = !one.types.is_empty();
    let sink = mask.text("sink", one.sink);
    if let Some(sink) = &sink {
        check_sink(sink, webhooks)?;
    }
    Ok(Operation::UpdateSubscription(UpdateSubscription {
        id: path("subscription.id", &one.id)?,
        name: mask.text("name", one.name),
        description: mask.text("description", one.description),
        sink,
        types: mask.of("types", one.types, has_types),
        disabled: mask.of("disabled", one.disabled, one.disabled),
        etag: optional(one.etag),
    }))
}

pub(super) fn delete(request: v1::DeleteSubscriptionRequest) -> Result<Operation, RequestError> {
    let v1::DeleteSubscriptionRequest { id, etag, .. } = request;
    Ok(Operation::DeleteSubscription(deleted(&id, etag)?))
}

/// A sink that may be connected to, as far as its URL says. Its name is looked up when it is connected to.
fn check_sink(sink: &str, webhooks: Option<&Webhooks>) -> Result<(), RequestError> {
    let parsed = match webhooks {
        Some(webhooks) => webhooks.sink(sink),
        None => Sink::parse(sink, &Policy::default()),
    };
    let refused = |error: capstan_events::SinkError| {
        let text = error.to_string();
        RequestError::field("subscription.sink", text.strip_prefix("sink: ").unwrap_or(&text))
    };
    parsed.map(|_| ()).map_err(refused)
}

/// The consent that a challenge gives. Whether the caller may give it, and whether the subscription is there, is judged
/// later: a challenge that is not valid is one of no sink.
pub(super) fn confirm(
    reading: &Reading,
    id: PathBuf,
    challenge: &str,
    webhooks: Option<&Webhooks>,
) -> Result<Operation, RequestError> {
    let Source::Store { objects, .. } = &reading.source else { return Err(RequestError::ReadOnly) };
    let found = match objects.get(Kind::Subscription, id.as_path())? {
        Some(Object::Subscription(found)) => Some(found),
        _ => None,
    };
    let seconds = u64::try_from(reading.now.seconds()).unwrap_or_default();
    let now = UnixMillis(seconds.saturating_mul(1_000));
    let confirmed = found
        .filter(|found| webhooks.is_some_and(|webhooks| webhooks.confirms(found, challenge, now)));
    let (created, sink) = confirmed.map(|one| (one.meta.created, one.sink)).unwrap_or_default();
    let state = SubscriptionState::Consented;
    Ok(Operation::SetSubscriptionState(SetSubscriptionState { id, created, sink, state }))
}
