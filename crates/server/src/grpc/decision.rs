//! The generated decision service. Each call uses one revision and one time.

use std::pin::Pin;
use std::sync::Arc;

use capstan_proto::plain::{BatchRequest, Pieces};
use capstan_proto::v1::consistency::Mode;
use capstan_proto::v1::{self, decision_service_server::DecisionService};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::answer;
use super::batch::Batch;
use super::convert::freshness;
use super::page::PageKey;
use crate::RequestError;
use crate::ask::{Ask, Basis};
use crate::askers::{Asker, Right};
use crate::clock::Clock;
use crate::feed::{Current, Published};
use crate::limits::{SHORT_BATCH_MAX, STREAM_DRAIN_MAX};
use crate::methods::Rpc;
use crate::telemetry::traces::CallSpan;
use crate::turns::{Turn, Turns};

/// The services of one worker.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    pub(crate) published: Arc<Published>,
    pub(crate) ask: Ask,
    /// Whether calls can have spans.
    pub(crate) traced: bool,
    pub(crate) clock: Clock,
    pub(crate) page_key: PageKey,
    /// Ends streams when the drain begins. Otherwise they would delay it for as long as clients
    /// like.
    pub(crate) draining: CancellationToken,
    /// Turns to compute; see [`Services::turn`].
    pub(crate) computing: Turns,
}

impl Services {
    /// Waits for a turn to compute. Lists, explanations and long batches need one: they can take
    /// milliseconds, and hundreds of them at once would delay Check and health for seconds. A call
    /// that waits here counts as in flight and ends at its deadline.
    async fn turn(&self) -> Result<Turn, RequestError> {
        let turn = self.computing.take().await?;
        // The computation itself has no await point. Without this one, each call would end in its
        // first poll. No call would be seen waiting, and the queue would be the runtime's.
        tokio::task::yield_now().await;
        Ok(turn)
    }

    /// The revision for one page of a list: that of the list's first page if it is still kept.
    /// Otherwise the served one, and the check of the page token then fails.
    async fn page_revision(
        &self,
        token: &str,
        consistency: Option<&v1::Consistency>,
    ) -> Result<Arc<Current>, RequestError> {
        let first = answer::page_revision(token).and_then(|at| self.published.kept(at));
        match first {
            Some(current) => Ok(current),
            None => self.published.read(freshness(consistency)).await,
        }
    }

    /// What the asker of a call may do.
    async fn right<T>(rpc: Rpc, request: &Request<T>) -> Result<Right, RequestError> {
        Asker::of_call(request.extensions())?.may(rpc).await
    }

    /// The span of a call, if it has one.
    fn span<T>(&self, request: &Request<T>) -> Option<CallSpan> {
        if self.traced { request.extensions().get().cloned() } else { None }
    }

    /// Decides one batch.
    pub(super) async fn batch(
        &self,
        rpc: Rpc,
        request: BatchRequest,
        asker: &mut Asker,
    ) -> Result<v1::BatchCheckResponse, Status> {
        let right = asker.may(rpc).await?;
        if let BatchRequest::Long(pieces) = request {
            return self.long_batch(rpc, pieces, &right).await;
        }
        let (batch, consistency) = Batch::of(&request)?;
        let current = self.published.read(freshness(consistency)).await?;
        let is_long = batch.len() > SHORT_BATCH_MAX;
        let _turn = if is_long { Some(self.turn().await?) } else { None };
        let basis = self.basis(rpc, &current, &right);
        Ok(batch.answer(&self.ask, basis)?)
    }

    /// Decodes and decides a long batch with properties in its turn, in pieces of about a millisecond.
    async fn long_batch(
        &self,
        rpc: Rpc,
        mut pieces: Pieces,
        right: &Right,
    ) -> Result<v1::BatchCheckResponse, Status> {
        let _turn = self.turn().await?;
        while pieces.decode()? {
            tokio::task::yield_now().await;
        }
        let v1::BatchCheckRequest { checks, consistency } = pieces.finish();
        let current = self.published.read(freshness(consistency.as_ref())).await?;
        let basis = self.basis(rpc, &current, right);
        let mut results = Vec::with_capacity(checks.len());
        for some in checks.chunks(SHORT_BATCH_MAX) {
            tokio::task::yield_now().await;
            results.extend(answer::batch_check(&self.ask, basis, some)?.results);
        }
        Ok(v1::BatchCheckResponse { results, revision: current.snapshot.revision() })
    }

    fn basis<'a>(&self, rpc: Rpc, current: &'a Current, right: &'a Right) -> Basis<'a> {
        let basis = Basis::new(rpc, &current.snapshot, self.clock.now());
        Basis { within: right.within(), ..basis }
    }

    /// One response for each batch, in order. Whether the asker still may ask is looked at for each, and a certificate that counts no more ends the
    /// stream without one. The first error ends it, too. In a drain, the
    /// stream ends when it has no batch ready, and after [`STREAM_DRAIN_MAX`] at the latest.
    pub(super) fn stream(
        self: Arc<Self>,
        requests: impl Stream<Item = Result<BatchRequest, Status>> + Send + Unpin + 'static,
        asker: Asker,
    ) -> ResponseStream {
        let open = Some((self, (requests, asker), None));
        Box::pin(stream::unfold(open, |open| async {
            let (services, (mut requests, mut asker), mut draining) = open?;
            // Nobody who may not ask keeps a stream open.
            if let Err(error) = asker.may(Rpc::STREAM_CHECK).await {
                return Some((Err(error.into()), None));
            }
            if services.draining.is_cancelled() {
                let since = draining.get_or_insert_with(Instant::now);
                if since.elapsed() >= STREAM_DRAIN_MAX {
                    return Some((Err(RequestError::Draining.into()), None));
                }
            }
            let request = tokio::select! {
                // Batches that arrived before the drain are answered first.
                biased;
                request = requests.next() => request?,
                () = services.draining.cancelled() => Err(RequestError::Draining.into()),
                error = asker.refused() => Err(error.into()),
            };
            let answer = match request {
                Ok(batch) => services.batch(Rpc::STREAM_CHECK, batch, &mut asker).await,
                Err(status) => Err(status),
            };
            let open = answer.is_ok().then_some((services, (requests, asker), draining));
            Some((answer, open))
        }))
    }
}

/// A page of an earlier revision than `at_least` is not what the caller asks for. Its token has been verified.
///
/// # Errors
///
/// [`RequestError::PageTooOld`]: it is one.
pub(super) fn not_before(
    consistency: Option<&v1::Consistency>,
    revision: u64,
) -> Result<(), RequestError> {
    match consistency.and_then(|consistency| consistency.mode) {
        Some(Mode::AtLeast(wanted)) if revision < wanted => {
            Err(RequestError::PageTooOld { revision, wanted })
        }
        _ => Ok(()),
    }
}

type RpcResult<T> = Result<Response<T>, Status>;

/// The responses of a stream.
pub(super) type ResponseStream =
    Pin<Box<dyn Stream<Item = Result<v1::BatchCheckResponse, Status>> + Send>>;

#[tonic::async_trait]
impl DecisionService for Services {
    async fn check(&self, request: Request<v1::CheckRequest>) -> RpcResult<v1::CheckResponse> {
        let span = self.span(&request);
        let right = Self::right(Rpc::CHECK, &request).await?;
        let request = request.get_ref();
        let current = self.published.read(freshness(request.consistency.as_ref())).await?;
        let basis = Basis { span: span.as_ref(), ..self.basis(Rpc::CHECK, &current, &right) };
        Ok(Response::new(answer::check(&self.ask, basis, request)?))
    }

    /// Not reached: [`RawBatches`](super::raw_batches::RawBatches) handles batches before they are
    /// decoded.
    async fn batch_check(
        &self,
        request: Request<v1::BatchCheckRequest>,
    ) -> RpcResult<v1::BatchCheckResponse> {
        let mut asker = Asker::of_call(request.extensions())?;
        let batch = BatchRequest::Decoded(request.into_inner());
        Ok(Response::new(self.batch(Rpc::BATCH_CHECK, batch, &mut asker).await?))
    }

    type StreamCheckStream = ResponseStream;

    /// As [`DecisionService::batch_check`].
    async fn stream_check(
        &self,
        request: Request<Streaming<v1::BatchCheckRequest>>,
    ) -> RpcResult<Self::StreamCheckStream> {
        let asker = Asker::of_call(request.extensions())?;
        let batches = request.into_inner().map(|batch| batch.map(BatchRequest::Decoded));
        Ok(Response::new(Arc::new(self.clone()).stream(batches, asker)))
    }

    async fn list_capabilities(
        &self,
        request: Request<v1::ListCapabilitiesRequest>,
    ) -> RpcResult<v1::ListCapabilitiesResponse> {
        let right = Self::right(Rpc::LIST_CAPABILITIES, &request).await?;
        let request = request.get_ref();
        right.hold(&request.resource)?;
        let current = self.published.read(freshness(request.consistency.as_ref())).await?;
        let _turn = self.turn().await?;
        let now = self.clock.now();
        let (snapshot, within) = (&current.snapshot, right.within());
        Ok(Response::new(answer::list_capabilities_within(snapshot, request, now, within)?))
    }

    async fn list_identities(
        &self,
        request: Request<v1::ListIdentitiesRequest>,
    ) -> RpcResult<v1::ListIdentitiesResponse> {
        let right = Self::right(Rpc::LIST_IDENTITIES, &request).await?;
        let request = request.get_ref();
        answer::no_conditional(right.within(), request.include_conditional)?;
        right.hold(&request.resource)?;
        let current = self.page_revision(&request.page_token, request.consistency.as_ref()).await?;
        let _turn = self.turn().await?;
        let (key, snapshot, now) = (&self.page_key, &current.snapshot, self.clock.now());
        let page = answer::list_identities(key, snapshot, request, now)?;
        not_before(request.consistency.as_ref(), snapshot.revision())?;
        self.published.keep_for(&current, &page.next_page_token);
        Ok(Response::new(page))
    }

    async fn list_scopes(
        &self,
        request: Request<v1::ListScopesRequest>,
    ) -> RpcResult<v1::ListScopesResponse> {
        let right = Self::right(Rpc::LIST_SCOPES, &request).await?;
        let request = request.get_ref();
        let current = self.page_revision(&request.page_token, request.consistency.as_ref()).await?;
        let _turn = self.turn().await?;
        let (key, snapshot, now) = (&self.page_key, &current.snapshot, self.clock.now());
        let page = match right.within() {
            None => answer::list_scopes(key, snapshot, request, now)?,
            Some(within) => answer::list_scopes_within(key, snapshot, request, now, within)?,
        };
        not_before(request.consistency.as_ref(), snapshot.revision())?;
        self.published.keep_for(&current, &page.next_page_token);
        Ok(Response::new(page))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> RpcResult<v1::ExplainResponse> {
        let span = self.span(&request);
        let right = Self::right(Rpc::EXPLAIN, &request).await?;
        let request = request.get_ref();
        let current = self.published.read(freshness(request.consistency.as_ref())).await?;
        let _turn = self.turn().await?;
        let basis = Basis { span: span.as_ref(), ..self.basis(Rpc::EXPLAIN, &current, &right) };
        Ok(Response::new(answer::explain(&self.ask, basis, request)?))
    }
}
