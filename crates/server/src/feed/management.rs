//! What a store does beside decisions: changes, and whole objects.
//!
//! **Invariant**: a change is durable before it is visible, and visible before it is acknowledged.

use std::fmt::Debug;
use std::sync::Arc;

use capstan_engine::Timestamp;
use capstan_iam::{Actor, Kind, Object, Objects, ObjectsError, Operation, Response};
use capstan_store::View;
use futures_util::future::BoxFuture;

use crate::RequestError;

/// The writer of a store, and the objects of its views.
pub trait Management: Send + Sync + Debug {
    /// Judges an operation and makes it durable and visible.
    ///
    /// # Errors
    ///
    /// The operation is refused, the store does not answer, or the queue is full.
    fn write(&self, write: Write) -> BoxFuture<'_, Result<Written, RequestError>>;

    /// The objects of a view.
    fn objects(&self, view: Arc<dyn View>) -> Arc<dyn StoredObjects>;
}

/// A change that a caller asks for.
#[derive(Clone, Debug)]
pub struct Write {
    /// Who asks.
    pub actor: Actor,
    /// What is to be changed.
    pub operation: Operation,
    /// How the call came, for the audit log.
    pub origin: Origin,
    /// Makes a retry safe: the same request of the same caller within 10 minutes has the same response.
    pub request_id: Option<String>,
    /// Whether everything is checked and nothing is changed or remembered.
    pub validate_only: bool,
}

/// How a call came, for the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The full name of the method, such as `capstan.iam.v1.GroupService/CreateGroup`.
    pub method: &'static str,
    /// How the caller was identified.
    pub authentication: &'static str,
    /// The address that the call came from, or `unix`.
    pub source: String,
}

/// A change that was made, or with `validate_only` would be.
#[derive(Clone, Debug)]
pub struct Written {
    /// What the caller is answered.
    pub response: Response,
    /// The revision of the change; the served one if nothing changed.
    pub revision: u64,
}

/// Whole objects of one revision, in the order of their ids. Reads block the thread.
pub trait StoredObjects: Objects + Send + Sync {
    /// Calls `each` with the objects of this kind whose ids begin with `prefix` and come after `after`, sorted by the
    /// bytes of their ids, until it returns false.
    ///
    /// # Errors
    ///
    /// The store cannot be read, or holds what is no object. `each` may have seen objects before it.
    fn scan(
        &self,
        kind: Kind,
        prefix: &str,
        after: Option<&str>,
        each: &mut dyn FnMut(Object) -> bool,
    ) -> Result<(), ObjectsError>;

    /// When an identity was last seen, to the hour.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    fn last_seen(&self, identity: &str) -> Result<Option<Timestamp>, ObjectsError>;
}
