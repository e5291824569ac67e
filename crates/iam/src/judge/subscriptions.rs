//! Subscriptions: who is told of changes.
//!
//! **Invariant**: who sets where events go, or which, is the one whose rights they are filtered by. So nobody learns by a
//! subscription what they could not list.

use super::Effects;
use super::fields::{check_etag, check_texts, in_field, new_path};
use crate::limits::{EVENT_TYPES_MAX, SUBSCRIPTIONS_MAX};
use crate::object::{parent_or_self, root_of};
use crate::rules::access::Access;
use crate::{
    Context, CreateSubscription, Delete, JudgeError, Kind, Meta, Object, Outcome, Refusal,
    Response, SetSubscriptionState, Subscription, SubscriptionState, UpdateSubscription,
    check_event_type, check_sink,
};

const FIELD: &str = "subscription";

pub(super) fn create(
    access: &Access<'_>,
    new: &CreateSubscription,
    context: &mut Context<'_>,
) -> Result<Outcome, JudgeError> {
    check_texts(FIELD, Some(&new.name), Some(&new.description))?;
    in_field("subscription.sink", check_sink(&new.sink))?;
    check_types(&new.types)?;
    let group = new.parent.as_path();
    access.require(&["subscriptions.create"], group)?;
    if !access.view.is_group(group) {
        return Err(Refusal::not_found().into());
    }
    let (organization, mut count) = (root_of(group), 0);
    access.view.0.objects.below(Kind::Subscription, Some(organization), &mut |_| {
        count += 1;
        count < SUBSCRIPTIONS_MAX
    })?;
    if count >= SUBSCRIPTIONS_MAX {
        let problem = format!(
            "`{organization}` has {SUBSCRIPTIONS_MAX} subscriptions already, the most it can have"
        );
        return Err(Refusal::invalid("parent", problem).into());
    }
    let subscription = Subscription {
        id: new_path(access, Kind::Subscription, Some(group), new.id.as_ref(), context)?,
        name: new.name.clone(),
        description: new.description.clone(),
        sink: new.sink.clone(),
        types: sorted(&new.types),
        disabled: new.disabled,
        disabled_reason: String::new(),
        consented: false,
        creator: access.incarnation()?,
        meta: Meta::new(context.revision, context.now),
    };
    let mut effects = Effects::default();
    effects.create(Object::Subscription(subscription.clone()));
    Ok(effects.answer(Response::Subscription(subscription)))
}

fn check_types(types: &[String]) -> Result<(), Box<Refusal>> {
    if types.len() > EVENT_TYPES_MAX {
        let problem = format!("at most {EVENT_TYPES_MAX}, not {}", types.len());
        return Err(Refusal::invalid("subscription.types", problem));
    }
    types.iter().enumerate().try_for_each(|(at, one)| {
        in_field(format!("subscription.types[{at}]"), check_event_type(one))
    })
}

fn sorted(types: &[String]) -> Vec<String> {
    let mut types = types.to_vec();
    types.sort_unstable();
    types.dedup();
    types
}

pub(super) fn update(
    access: &Access<'_>,
    update: &UpdateSubscription,
    context: &Context<'_>,
) -> Result<Outcome, JudgeError> {
    check_texts(FIELD, update.name.as_deref(), update.description.as_deref())?;
    if let Some(sink) = &update.sink {
        in_field("subscription.sink", check_sink(sink))?;
    }
    check_types(update.types.as_deref().unwrap_or_default())?;
    access.require(&["subscriptions.update"], parent_or_self(update.id.as_path()))?;
    let before = access.view.subscription(update.id.as_path())?.ok_or_else(Refusal::not_found)?;
    check_etag(update.etag.as_ref(), &before.meta, &before.id)?;
    let mut after = before.clone();
    after.name = update.name.clone().unwrap_or(after.name);
    after.description = update.description.clone().unwrap_or(after.description);
    if let Some(disabled) = update.disabled {
        after.disabled = disabled;
        // What somebody says replaces what the server said.
        if disabled != before.disabled {
            after.disabled_reason = String::new();
        }
    }
    if let Some(sink) = &update.sink {
        after.consented &= *sink == before.sink;
        after.sink.clone_from(sink);
    }
    after.types = update.types.as_ref().map_or(after.types, |types| sorted(types));
    if update.sink.is_some() || update.types.is_some() {
        after.creator = access.incarnation()?;
    }
    changed(before, after, context)
}

fn changed(
    before: Subscription,
    mut after: Subscription,
    context: &Context<'_>,
) -> Result<Outcome, JudgeError> {
    let mut effects = Effects::default();
    if after != before {
        after.meta = before.meta.changed(context.revision, context.now);
        effects.update(Object::Subscription(before), Object::Subscription(after.clone()));
    }
    Ok(effects.answer(Response::Subscription(after)))
}

pub(super) fn delete(access: &Access<'_>, delete: &Delete) -> Result<Outcome, JudgeError> {
    access.require(&["subscriptions.delete"], parent_or_self(delete.id.as_path()))?;
    let found = access.view.subscription(delete.id.as_path())?.ok_or_else(Refusal::not_found)?;
    check_etag(delete.etag.as_ref(), &found.meta, &found.id)?;
    let mut effects = Effects::default();
    effects.delete(Object::Subscription(found));
    Ok(effects.answer(Response::Deleted))
}

/// What the server finds out about a sink: that it consents, or that nothing can be delivered. An owner who returns the
/// challenge says that it consents, and may change the subscription.
pub(super) fn set_state(
    access: &Access<'_>,
    set: &SetSubscriptionState,
    context: &Context<'_>,
) -> Result<Outcome, JudgeError> {
    access.require(&["subscriptions.update"], parent_or_self(set.id.as_path()))?;
    let before = access.view.subscription(set.id.as_path())?.ok_or_else(Refusal::not_found)?;
    let is_the_one = before.meta.created == set.created && before.sink == set.sink;
    if !is_the_one {
        let problem = "it is of another sink, or of another subscription: use the latest challenge";
        return Err(Refusal::invalid("challenge", problem).into());
    }
    let mut after = before.clone();
    match &set.state {
        SubscriptionState::Consented => after.consented = true,
        SubscriptionState::Disabled(reason) => {
            after.disabled = true;
            after.disabled_reason.clone_from(reason);
        }
    }
    changed(before, after, context)
}
