//! Delivers events to the sinks of subscriptions: the deliverer of the outbox, which is the change log.
//!
//! ```text
//! published revision ─▶ dispatcher: which subscriptions are there ─▶ a task each
//!                                                                     │
//! change log, from the position of the subscription on ─▶ compose ─▶ deliver ─▶ position, saved once a second
//!                                                                     └─ failed: again later, for three days
//! ```
//!
//! **Invariants**: of one subscription one event is under way, so they arrive in order. The position moves on once an event was
//! delivered, and is saved later: after a crash some are delivered again, none is lost. What the creator of the subscription
//! may list is asked before each delivery. Nothing here makes a decision, a read or a write wait.
//!
//! Read `compose`, `delivery`, then `dispatcher`.

mod compose;
mod delivery;
mod dispatcher;

pub(crate) use dispatcher::Dispatcher;
