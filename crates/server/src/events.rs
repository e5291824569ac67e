//! Delivers events to the sinks of subscriptions: the deliverer of the outbox, which is the change log.
//!
//! ```text
//! published revision ─▶ dispatcher: which subscriptions are there ─▶ a task each
//!                         └─▶ recent revisions, decoded once ─▶ wakes those whom they concern
//!                                                                     │
//! recent revisions, or the change log from the position on ─▶ compose ─▶ deliver ─▶ position, saved five times a second
//!                                                                        └─ failed: again later, for three days
//! ```
//!
//! **Invariants**: of one subscription one event is under way, so they arrive in order. The position moves on once an event was
//! delivered, and is saved later: after a crash some are delivered again, none is lost. What the creator of the subscription
//! may list is asked before each delivery. Nothing here makes a decision, a read or a write wait.
//!
//! Read `compose`, `wakes`, `recent`, `delivery`, then `dispatcher`.

mod compose;
mod delivery;
mod dispatcher;
mod recent;
mod wakes;

pub(crate) use dispatcher::Dispatcher;
