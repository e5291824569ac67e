//! What a store does beside decisions: changes, and whole objects.
//!
//! **Invariant**: a change is durable before it is visible, and visible before it is acknowledged.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use capstan_engine::{PathBuf, Timestamp};
use capstan_iam::audit::{self, AuditRecord};
use capstan_iam::{Actor, Kind, Object, Objects, ObjectsError, Operation, Response};
use capstan_store::View;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::RequestError;
use crate::feed::position::Position;
use crate::feed::{Current, Freshness, Published};

/// The writer of a store, and the objects of its views.
pub trait Management: Send + Sync + Debug {
    /// Judges an operation and makes it durable and visible.
    ///
    /// # Errors
    ///
    /// The operation is refused, the store does not answer, or the queue is full.
    fn write(&self, write: Write) -> BoxFuture<'_, Result<Written, RequestError>>;

    /// Notes that a caller was let in, to the hour. It does not wait.
    fn saw(&self, caller: &PathBuf, now: Timestamp);

    /// Notes an attempt that was refused before it was judged. It does not wait, and of one caller only some are kept.
    fn refused(&self, record: AuditRecord);

    /// Keeps how far the deliveries of subscriptions are. It does not wait.
    fn positions(&self, positions: Vec<(PathBuf, Position)>);

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
    /// Service and method, such as `GroupService/CreateGroup`.
    pub method: &'static str,
    /// How the caller was identified.
    pub authentication: &'static str,
    /// The address that the call came from, or `unix`.
    pub source: String,
    /// SHA-256 of the request; of an import, of its document.
    pub request: audit::Digest,
}

impl Origin {
    /// As audit records have it.
    #[must_use]
    pub fn audited(&self) -> audit::Origin {
        let Self { authentication, source, request, .. } = self;
        let (authentication, source) = ((*authentication).into(), source.clone());
        audit::Origin { authentication, source, request: *request }
    }
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

/// Tries to get a revision together with its objects. Each fails only if a write is published in the same microsecond.
const VIEW_TRIES_MAX: usize = 16;

/// The served revision of a store with its objects. A revision that is replaced lets go of them, so it may take several
/// tries.
///
/// # Errors
///
/// The revision is not here in time, or each of them was replaced at once.
pub(crate) async fn viewed(
    published: &Published,
    freshness: Freshness,
) -> Result<(Arc<Current>, Arc<dyn View>), RequestError> {
    let mut tries = 1..VIEW_TRIES_MAX;
    loop {
        let current = published.read(freshness).await?;
        match (current.view(), tries.next()) {
            (Some(view), _) => return Ok((current, view)),
            (None, Some(_)) => {}
            (None, None) => {
                return Err(RequestError::RevisionGone { revision: current.snapshot.revision() });
            }
        }
    }
}

/// The turn of an import. Its document is held in memory meanwhile.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Turn {
    pub(super) const fn new(permit: OwnedSemaphorePermit) -> Self {
        Self { _permit: permit }
    }
}

/// The policy of a store as documents.
pub trait Documents: Send + Sync + Debug {
    /// The document of one revision, in parts of at most [`EXPORT_CHUNK_BYTES`](crate::limits::EXPORT_CHUNK_BYTES). An
    /// error ends it.
    ///
    /// # Errors
    ///
    /// The store cannot be read, or too many exports run, in all or of this caller.
    fn export(&self, export: Export) -> BoxStream<'static, Result<Bytes, RequestError>>;

    /// Everything that a view has, as a backup, in parts as those of an export. An error ends it. It holds the view, so old
    /// pages of the file, until it ends.
    ///
    /// # Errors
    ///
    /// The store cannot be read, the client is too slow, or too many backups run.
    fn backup(&self, view: Arc<dyn View>) -> BoxStream<'static, Result<Bytes, RequestError>>;

    /// Waits for the turn of an import, before its document is received.
    ///
    /// # Errors
    ///
    /// The server ends.
    fn turn(&self) -> BoxFuture<'_, Result<Turn, RequestError>>;

    /// Changes the policy to what a document says, at once.
    ///
    /// # Errors
    ///
    /// The document does not load, or what it asks for is refused.
    fn import(&self, turn: Turn, import: Import)
    -> BoxFuture<'_, Result<Difference, RequestError>>;

    /// Changes the catalog.
    ///
    /// # Errors
    ///
    /// The catalog does not load or is not known, or lacks what is in use.
    fn set_catalog(&self, change: SetCatalog) -> BoxFuture<'_, Result<Difference, RequestError>>;
}

/// What is to be exported.
pub struct Export {
    /// The revision.
    pub current: Arc<Current>,
    /// Its objects.
    pub objects: Arc<dyn StoredObjects>,
    /// Who reads, and sees everything of the organization but resources of some types.
    pub actor: Actor,
    /// The time of the call.
    pub now: Timestamp,
    /// The organization; `None` for the whole policy.
    pub parent: Option<PathBuf>,
    /// How the document is written.
    pub format: DocumentFormat,
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { parent, format, .. } = self;
        f.debug_struct("Export")
            .field("parent", parent)
            .field("format", format)
            .finish_non_exhaustive()
    }
}

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentFormat {
    /// YAML.
    Yaml,
    /// JSON.
    Json,
}

/// What is to be imported. The caller is the operator.
#[derive(Clone, Debug)]
pub struct Import {
    /// How the call came, for the audit log.
    pub origin: Origin,
    /// The organization that the document is about; `None` for the whole policy.
    pub parent: Option<PathBuf>,
    /// The document.
    pub document: Vec<u8>,
    /// Whether only the difference is wanted.
    pub dry_run: bool,
    /// Whether what the document lacks is deleted, at and below `parent`, which is there.
    pub prune: bool,
}

/// Which catalog is to be used. The caller is the operator.
#[derive(Clone, Debug)]
pub struct SetCatalog {
    /// How the call came, for the audit log.
    pub origin: Origin,
    /// The catalog.
    pub catalog: CatalogSource,
    /// Whether only the difference is wanted.
    pub dry_run: bool,
}

/// Where a catalog comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogSource {
    /// A catalog document.
    Document(Vec<u8>),
    /// The name of a built-in catalog, or of one that the server was started with.
    Name(String),
}

/// What a document or a catalog changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Objects that are created, changed or deleted, by id.
    pub changes: Vec<ChangedObject>,
    /// What identities gain and lose, by identity and scope.
    pub access: Vec<ChangedAccess>,
    /// Whether `access` was cut.
    pub truncated: bool,
    /// The catalog after the change.
    pub catalog: String,
    /// The revision of the change; the served one if nothing changed.
    pub revision: u64,
}

/// An object that is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedObject {
    /// How.
    pub action: Action,
    /// Its kind.
    pub kind: Kind,
    /// Its id.
    pub id: PathBuf,
}

/// What happens to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is new.
    Created,
    /// It is another one.
    Updated,
    /// It is gone.
    Deleted,
}

impl Action {
    /// Its name in messages and in the types of events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
        }
    }
}

/// What an identity gains and loses at a scope, and so below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedAccess {
    /// The identity.
    pub identity: PathBuf,
    /// The group or resource.
    pub scope: PathBuf,
    /// Capabilities, sorted.
    pub gained: Vec<String>,
    /// Capabilities, sorted.
    pub lost: Vec<String>,
}
