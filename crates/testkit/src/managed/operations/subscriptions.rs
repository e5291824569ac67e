//! Subscriptions.

use capstan_iam::{
    CreateSubscription, Operation, SetSubscriptionState, Subscription, SubscriptionState,
    UpdateSubscription,
};

use super::{delete, path};

/// A subscription to all changes of a group.
#[must_use]
pub fn new_subscription(parent: &str, sink: &str) -> CreateSubscription {
    CreateSubscription {
        parent: path(parent),
        id: None,
        name: String::new(),
        description: String::new(),
        sink: sink.into(),
        types: vec![],
        disabled: false,
    }
}

/// Subscribes to all changes of a group.
#[must_use]
pub fn subscribe(parent: &str, sink: &str) -> Operation {
    Operation::CreateSubscription(new_subscription(parent, sink))
}

/// Changes a subscription.
#[must_use]
pub fn resubscribe(id: &str, change: impl FnOnce(&mut UpdateSubscription)) -> Operation {
    let mut update = UpdateSubscription {
        id: path(id),
        name: None,
        description: None,
        sink: None,
        types: None,
        disabled: None,
        etag: None,
    };
    change(&mut update);
    Operation::UpdateSubscription(update)
}

/// Says what was found out about the sink of a subscription.
#[must_use]
pub fn set_subscription(of: &Subscription, state: SubscriptionState) -> Operation {
    let (id, created, sink) = (of.id.clone(), of.meta.created, of.sink.clone());
    Operation::SetSubscriptionState(SetSubscriptionState { id, created, sink, state })
}

/// Deletes a subscription.
#[must_use]
pub fn unsubscribe(id: &str) -> Operation {
    Operation::DeleteSubscription(delete(id))
}
