//! What all management services share: who calls, the revision of a read, and the way of a write.
//!
//! ```text
//! read:  caller ─▶ revision ─▶ on a blocking thread: what the caller may see ─▶ response
//! write: caller ─▶ operation ─▶ writer of the store ─▶ response
//! ```
//!
//! **Invariants**: nothing is answered to a caller that is not known, not registered or disabled. If the policy is a file,
//! whoever may ask reads, and writes are refused.

use std::sync::Arc;

use capstan_engine::{PathBuf, Snapshot};
use capstan_iam::{Actor, Operation, Response as Answer};
use capstan_proto::contract::WARNING_KEY;
use capstan_proto::v1::Consistency;
use capstan_store::View;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response};

use super::authenticated::RequestDigest;
use super::fields::{optional_path, request_id};
use super::filter::{Filter, Listed};
use super::list::{Page, Wanted};
use super::page::{self, Position, Tokens};
use super::reading::{Reading, Source, Viewer};
use super::shown::Shown;
use crate::RequestError;
use crate::authn::caller::{Caller, CallerKind};
use crate::callers::Callers;
use crate::clock::Clock;
use crate::feed::management::{Documents, Management, Origin, Write, Written, viewed};
use crate::feed::{Current, Freshness, Published};
use crate::grpc::convert::freshness;
use crate::grpc::decision::not_before;
use crate::grpc::page::PageKey;
use crate::limits::PAGE_REST_BYTES;
use crate::methods::Rpc;
use crate::places::Places;
use crate::webhooks::Webhooks;

/// The management services of one worker.
#[derive(Clone, Debug)]
pub(crate) struct Iam {
    pub(crate) published: Arc<Published>,
    /// The store's; `None` if the policy is a file.
    pub(crate) management: Option<Arc<dyn Management>>,
    /// Finds out who calls.
    pub(crate) callers: Callers,
    /// The same of a store as documents.
    pub(crate) documents: Option<Arc<dyn Documents>>,
    /// Whether whoever is let in may read, as in a policy file.
    pub(crate) open_reads: bool,
    /// Bytes of a document that is imported, at most.
    pub(crate) document_bytes_max: usize,
    pub(crate) clock: Clock,
    pub(crate) page_key: PageKey,
    /// Secrets that were shown, of all workers.
    pub(crate) shown: Arc<Shown>,
    pub(crate) message_bytes_max: usize,
    /// What events are delivered with; `None` if none are.
    pub(crate) webhooks: Option<Webhooks>,
    /// Places for watches, of all workers.
    pub(crate) watches: Places,
    /// Ends watches when the drain begins.
    pub(crate) draining: CancellationToken,
    /// Permits to read. They are not those of decisions: a slow disk must not delay these. With one permit a list delays
    /// other reads for as long as one page takes, which `SCANNED_MAX` and `SCANNED_BYTES_MAX` bound, and no longer than its
    /// caller waits.
    pub(crate) reads: Arc<Semaphore>,
}

/// A list that a caller asks for. All requests for lists have these fields.
#[derive(Debug)]
pub(super) struct ListRequest {
    pub(super) parent: String,
    pub(super) filter: String,
    pub(super) page_size: i32,
    pub(super) page_token: String,
    pub(super) consistency: Option<Consistency>,
}

/// One page of a list.
#[derive(Debug)]
pub(super) struct ListResponse<M> {
    pub(super) entries: Vec<M>,
    pub(super) next_page_token: String,
    pub(super) revision: u64,
    /// The name of the catalog.
    pub(super) catalog: String,
}

/// How one page of a list is made.
type MakePage<M> = fn(&Reading, &Viewer<'_>, &Wanted) -> Result<Page<M>, RequestError>;

/// What a write has beside its operation.
#[derive(Debug)]
pub(super) struct Meta {
    pub(super) request_id: String,
    pub(super) validate_only: bool,
}

/// A write of a caller that is let in.
#[derive(Debug)]
pub(super) struct Writer<'s> {
    management: &'s Arc<dyn Management>,
    actor: Actor,
    /// How the call came.
    pub(super) origin: Origin,
}

/// The caller of a request, which the layer in front of the services has found.
///
/// # Errors
///
/// [`RequestError::AuthnFailed`]: there is no such layer.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Caller, RequestError> {
    request.extensions().get().cloned().ok_or(RequestError::AuthnFailed)
}

/// Who acts.
///
/// # Errors
///
/// [`RequestError::AuthnFailed`]: nobody that the server knows, or an identity that is not registered or disabled.
fn actor(caller: CallerKind, snapshot: &Snapshot) -> Result<Actor, RequestError> {
    let actor = caller.actor().filter(|actor| {
        actor.id().is_none_or(|id| {
            let state = snapshot.identity_state(id.as_path());
            state.is_some_and(|state| state.registered && !state.disabled)
        })
    });
    actor.ok_or(RequestError::AuthnFailed)
}

impl Iam {
    /// Begins a write.
    ///
    /// # Errors
    ///
    /// The policy is a file, or the caller is not known, not registered or disabled.
    pub(super) async fn writer<T>(
        &self,
        rpc: Rpc,
        request: &Request<T>,
    ) -> Result<Writer<'_>, RequestError> {
        let (management, kind, origin) = self.begin(rpc, request).await?;
        // The writer judges this again. Here it keeps strangers from learning which fields are malformed.
        let current = self.published.read(Freshness::Any).await?;
        let actor = actor(kind, &current.snapshot)?;
        Ok(Writer { management, actor, origin })
    }

    /// Begins a write of a caller that need not be registered: the writer judges who it is.
    ///
    /// # Errors
    ///
    /// The policy is a file, or the caller is not known.
    pub(super) async fn joiner<T>(
        &self,
        rpc: Rpc,
        request: &Request<T>,
    ) -> Result<Writer<'_>, RequestError> {
        let (management, kind, origin) = self.begin(rpc, request).await?;
        let actor = kind.actor().ok_or(RequestError::AuthnFailed)?;
        Ok(Writer { management, actor, origin })
    }

    /// Who writes, and how the call came. The body may have come long after the head.
    async fn begin<T>(
        &self,
        rpc: Rpc,
        request: &Request<T>,
    ) -> Result<(&Arc<dyn Management>, CallerKind, Origin), RequestError> {
        let management = self.management.as_ref().ok_or(RequestError::ReadOnly)?;
        let Caller { kind, source } = caller(request)?;
        let (method, authentication) = (rpc.audited_name(), kind.authentication());
        let kind = self.callers.prove_again(kind).await?;
        let digest = request.extensions().get().map(RequestDigest::get);
        let origin = Origin { method, authentication, source, request: digest.unwrap_or_default() };
        Ok((management, kind, origin))
    }

    /// The revision and the objects of a read.
    ///
    /// # Errors
    ///
    /// The revision is not here in time, or the caller is not known, not registered or disabled.
    pub(super) async fn reading<T>(
        &self,
        request: &Request<T>,
        consistency: Option<&Consistency>,
    ) -> Result<Reading, RequestError> {
        self.reading_as(caller(request)?.kind, freshness(consistency)).await
    }

    /// The same for a caller that is known already.
    ///
    /// # Errors
    ///
    /// As [`Self::reading`].
    pub(super) async fn reading_as(
        &self,
        caller: CallerKind,
        freshness: Freshness,
    ) -> Result<Reading, RequestError> {
        if self.management.is_none() {
            let current = self.published.read(freshness).await?;
            return self.reading_of(caller, current, None);
        }
        let (current, view) = viewed(&self.published, freshness).await?;
        // Behind the wait for the revision.
        let caller = self.callers.prove_again(caller).await?;
        self.reading_of(caller, current, Some(view))
    }

    /// A revision, with its objects if it is a store's.
    fn reading_of(
        &self,
        caller: CallerKind,
        current: Arc<Current>,
        view: Option<Arc<dyn View>>,
    ) -> Result<Reading, RequestError> {
        let now = self.clock.now();
        let source = match &self.management {
            None => Source::File,
            Some(management) => {
                let actor = match caller {
                    // Everything of it is seen.
                    CallerKind::Nobody if self.open_reads => Actor::Operator,
                    caller => actor(caller, &current.snapshot)?,
                };
                if let Some(id) = actor.id() {
                    management.saw(id, now);
                }
                let revision = current.snapshot.revision();
                let view = view.ok_or(RequestError::RevisionGone { revision })?;
                Source::Store { objects: management.objects(Arc::clone(&view)), view, actor }
            }
        };
        Ok(Reading { current, source, now })
    }

    /// Answers a read on a thread that may block: a store reads files.
    ///
    /// # Errors
    ///
    /// As `answer`.
    pub(super) async fn blocking<A: Send + 'static>(
        &self,
        reading: Reading,
        answer: impl FnOnce(&Reading, &Viewer<'_>) -> Result<A, RequestError> + Send + 'static,
    ) -> Result<A, RequestError> {
        self.on_a_thread(move || answer(&reading, &reading.viewer()?)).await
    }

    async fn on_a_thread<A: Send + 'static>(
        &self,
        answer: impl FnOnce() -> Result<A, RequestError> + Send + 'static,
    ) -> Result<A, RequestError> {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.reads).acquire_owned().await.ok();
        let answered = tokio::task::spawn_blocking(move || {
            // Held until the end, also if nobody waits for the answer any more.
            let _permit = permit;
            answer()
        });
        let answered = answered.await;
        match answered {
            Ok(answer) => answer,
            Err(error) => match error.try_into_panic() {
                // Admission counts and logs it as any other panic of a call.
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => Err(RequestError::Draining),
            },
        }
    }

    /// One page of a list.
    ///
    /// # Errors
    ///
    /// A malformed field, a token of another list, or a revision that is not here or no longer kept.
    pub(super) async fn list<T, M: Listed + Send + 'static>(
        &self,
        rpc: Rpc,
        request: &Request<T>,
        list: ListRequest,
        make: MakePage<M>,
    ) -> Result<ListResponse<M>, RequestError> {
        let ListRequest { parent, filter, page_size, page_token, consistency } = list;
        // Who calls is judged on the latest revision, whichever the list is of.
        let mut reading = self.reading(request, consistency.as_ref()).await?;
        let (size, wanted) = (page::size(page_size)?, Filter::parse::<M>(&filter)?);
        let parts = [reading.caller_name(), rpc.name(), &parent, &filter];
        let tokens = Tokens::new(&self.page_key, &parts);
        let position = tokens.open(&page_token)?;
        if let Some(Position { revision, .. }) = position {
            not_before(consistency.as_ref(), revision)?;
            if revision != reading.revision() {
                let kept = self.published.kept(revision);
                let kept = kept.ok_or(RequestError::RevisionGone { revision })?;
                let view = kept.view();
                let caller = self.callers.prove_again(caller(request)?.kind).await?;
                reading = self.reading_of(caller, kept, view)?;
            }
        }
        // Whatever ends this call ends the page, which holds a permit.
        let gone = CancellationToken::new();
        let _gone = gone.clone().drop_guard();
        let wanted = Wanted {
            gone,
            parent: optional_path("parent", &parent)?,
            filter: wanted,
            size,
            bytes_max: self.message_bytes_max.saturating_sub(PAGE_REST_BYTES),
            after: position.map(|position| position.after),
        };
        let (current, view) = (Arc::clone(&reading.current), reading.view().cloned());
        let page = self.blocking(reading, move |reading, viewer| make(reading, viewer, &wanted));
        let Page { entries, ended_at, .. } = page.await?;
        let revision = current.snapshot.revision();
        let next_page_token = match ended_at {
            None => String::new(),
            Some(after) => {
                self.published.keep(&current);
                if let Some(view) = view {
                    self.published.pin(&current, view);
                }
                tokens.seal(&Position { revision, after })?
            }
        };
        let catalog = current.snapshot.catalog().name().to_owned();
        Ok(ListResponse { entries, next_page_token, revision, catalog })
    }
}

/// A response with a warning.
pub(super) fn warned<T>(message: T, warning: Option<&str>) -> Response<T> {
    let mut response = Response::new(message);
    if let Some(value) = warning.and_then(|text| text.parse().ok()) {
        response.metadata_mut().insert(WARNING_KEY, value);
    }
    response
}

impl Writer<'_> {
    /// The path of who calls; empty for the operator.
    pub(super) fn caller(&self) -> &str {
        self.actor.id().map_or("", PathBuf::as_str)
    }

    /// Makes a change.
    ///
    /// # Errors
    ///
    /// The change is refused or not made.
    pub(super) async fn write(
        self,
        operation: Operation,
        meta: Meta,
    ) -> Result<(Answer, u64), RequestError> {
        let Self { management, actor, origin } = self;
        let Meta { validate_only, .. } = meta;
        let request_id = request_id(meta.request_id)?;
        let write = Write { actor, operation, origin, request_id, validate_only };
        let Written { response, revision } = management.write(write).await?;
        Ok((response, revision))
    }
}
