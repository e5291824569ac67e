//! Operations on subscriptions.

use capstan_engine::PathBuf;

/// See [`Operation::CreateSubscription`](crate::Operation::CreateSubscription).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSubscription {
    /// The group.
    pub parent: PathBuf,
    /// The path; one is made if there is none.
    pub id: Option<PathBuf>,
    /// Display name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Where events are delivered.
    pub sink: String,
    /// Prefixes of types.
    pub types: Vec<String>,
    /// Whether it begins disabled.
    pub disabled: bool,
}

/// See [`Operation::UpdateSubscription`](crate::Operation::UpdateSubscription).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateSubscription {
    /// The subscription.
    pub id: PathBuf,
    /// Display name.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Where events are delivered.
    pub sink: Option<String>,
    /// Prefixes of types.
    pub types: Option<Vec<String>>,
    /// Whether nothing is delivered.
    pub disabled: Option<bool>,
    /// The etag that the object must have.
    pub etag: Option<String>,
}

/// See [`Operation::SetSubscriptionState`](crate::Operation::SetSubscriptionState).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetSubscriptionState {
    /// The subscription.
    pub id: PathBuf,
    /// The create revision that it must have.
    pub created: u64,
    /// The sink that it must have.
    pub sink: String,
    /// What is known.
    pub state: SubscriptionState,
}

/// What is known of a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriptionState {
    /// It wants events.
    Consented,
    /// Nothing can be delivered, for this reason.
    Disabled(String),
}
