//! The gRPC services: each call takes a snapshot and answers from it.

use std::pin::Pin;
use std::sync::Arc;

use capstan_engine::{Attributes, Reason, Snapshot};
use capstan_proto::plain::BatchRequest;
use capstan_proto::v1::{
    self, decision_service_server::DecisionService, role_service_server::RoleService,
};
use futures_util::{Stream, stream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::RequestError;
use crate::clock::Clock;
use crate::feed::published::Published;
use crate::grpc::batch::Batch;
use crate::grpc::{answer, convert};
use crate::limits::{SHORT_BATCH_MAX, STREAM_DRAIN_MAX};
use crate::telemetry::decision_log::{DecisionLog, Line};
use crate::telemetry::metrics::{Rpc, WorkerMetrics};
use crate::telemetry::traces::Trace;

/// Answers from what is published.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    published: Arc<Published>,
    metrics: WorkerMetrics,
    /// Nothing unless it was asked for.
    log: Option<DecisionLog>,
    /// Whether a call may have a span.
    traced: bool,
    clock: Clock,
    /// Ends streams: they would hold the drain for as long as their clients please.
    draining: CancellationToken,
    /// See [`Services::turn`].
    turns: Arc<Semaphore>,
}

impl Services {
    pub(crate) fn new(
        published: Arc<Published>,
        metrics: WorkerMetrics,
        log: Option<DecisionLog>,
        traced: bool,
        clock: Clock,
        computing_max: usize,
        draining: CancellationToken,
    ) -> Self {
        let turns = Arc::new(Semaphore::new(computing_max.min(Semaphore::MAX_PERMITS)));
        Self { published, metrics, log, traced, clock, draining, turns }
    }

    /// Waits for a turn to compute, which lists, explanations and long batches take: they can last milliseconds,
    /// and hundreds of them ready at once would keep Check and health waiting for seconds. Who
    /// waits here is counted among the calls in flight, and ends at its deadline.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes it.
        let turn = self.turns.acquire().await.ok();
        // Computing does not wait, so without this each call would have its turn as soon as it is
        // looked at, and nobody would ever be seen waiting: the queue would be the runtime's.
        tokio::task::yield_now().await;
        turn
    }

    /// The snapshot for one page of a list: the one that the list began with, if it goes on.
    async fn page(
        &self,
        token: &str,
        consistency: Option<&v1::Consistency>,
    ) -> Result<Arc<Snapshot>, RequestError> {
        let began = answer::page_revision(token).and_then(|at| self.published.kept(at));
        match began {
            Some(snapshot) => Ok(snapshot),
            None => self.published.read(consistency).await,
        }
    }

    /// The span of a call, if it has one.
    fn trace<T>(&self, request: &Request<T>) -> Option<Trace> {
        if self.traced { request.extensions().get().cloned() } else { None }
    }

    fn decided(&self, rpc: Rpc, reason: i32) {
        if let Some(reason) = convert::reason_of(reason) {
            self.metrics.decided(rpc, reason, 1);
        }
    }

    /// The answer to a check that names three things and nothing else, if there is one and nothing
    /// needs to be waited for or logged.
    pub(crate) fn check_at_once(&self, names: [&str; 3]) -> Option<v1::CheckResponse> {
        if self.log.is_some() {
            return None;
        }
        let snapshot = self.published.load();
        let now = self.clock.now();
        let answer = answer::check_names(snapshot.as_deref()?, names, Attributes::NONE, now);
        let answer = answer.ok()?;
        self.decided(Rpc::Check, answer.reason);
        Some(answer)
    }

    async fn batch(
        &self,
        rpc: Rpc,
        request: BatchRequest,
    ) -> Result<v1::BatchCheckResponse, Status> {
        let (batch, consistency) = match &request {
            BatchRequest::Plain(plain) => (Batch::Plain(plain.checks()?), plain.consistency()),
            BatchRequest::Decoded(request) => {
                (Batch::Decoded(request), request.consistency.as_ref())
            }
            BatchRequest::TooMany(checks) => return Err(answer::too_many(*checks).into()),
        };
        let snapshot = self.published.read(consistency).await?;
        let is_long = batch.len() > SHORT_BATCH_MAX;
        let _turn = if is_long { self.turn().await } else { None };
        let now = self.clock.now();
        let answer = batch.answer(&snapshot, now)?;
        if let Some(log) = &self.log {
            let lines = answer.results.iter().enumerate().map(|(at, result)| {
                let told = match &result.error {
                    None => Ok((result.allowed, result.reason())),
                    Some(error) => Err(&error.message),
                };
                Line::new(batch.names(at).map(Into::into), told)
            });
            log.write(rpc, now, answer.revision, lines.collect());
        }
        // Counted here first: atomics are shared with the other cores.
        let mut decisions = [0; Reason::ALL.len()];
        for result in &answer.results {
            let reason = convert::reason_of(result.reason);
            if let Some(count) = reason.and_then(|reason| decisions.get_mut(reason as usize)) {
                *count += 1;
            }
        }
        for (reason, count) in Reason::ALL.into_iter().zip(decisions) {
            if count > 0 {
                self.metrics.decided(rpc, reason, count);
            }
        }
        Ok(answer)
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl DecisionService for Services {
    async fn check(&self, request: Request<v1::CheckRequest>) -> Answer<v1::CheckResponse> {
        let trace = self.trace(&request);
        let request = request.into_inner();
        let snapshot = self.published.read(request.consistency.as_ref()).await?;
        let now = self.clock.now();
        let answer = answer::check(&snapshot, &request, now);
        if let Some(log) = &self.log {
            let told = answer.as_ref().map(|answer| (answer.allowed, answer.reason()));
            let line = Line::new([request.identity, request.capability, request.resource], told);
            log.write(Rpc::Check, now, snapshot.revision(), vec![line]);
        }
        let answer = answer?;
        if let Some(trace) = trace {
            trace.decided(answer.allowed, answer.reason(), answer.revision);
        }
        self.decided(Rpc::Check, answer.reason);
        Ok(Response::new(answer))
    }

    async fn batch_check(&self, request: Request<BatchRequest>) -> Answer<v1::BatchCheckResponse> {
        Ok(Response::new(self.batch(Rpc::BatchCheck, request.into_inner()).await?))
    }

    type StreamCheckStream =
        Pin<Box<dyn Stream<Item = Result<v1::BatchCheckResponse, Status>> + Send>>;

    /// One answer for each batch, in order; the first error ends the stream.
    async fn stream_check(
        &self,
        request: Request<Streaming<BatchRequest>>,
    ) -> Answer<Self::StreamCheckStream> {
        let open = Some((self.clone(), request.into_inner(), None));
        let answers = stream::unfold(open, |open| async {
            let (services, mut requests, mut draining) = open?;
            if services.draining.is_cancelled() {
                let since = draining.get_or_insert_with(Instant::now);
                if since.elapsed() >= STREAM_DRAIN_MAX {
                    return Some((Err(RequestError::Draining.into()), None));
                }
            }
            let request = tokio::select! {
                // What was sent before is answered first.
                biased;
                request = requests.message() => request,
                () = services.draining.cancelled() => Err(RequestError::Draining.into()),
            };
            let answer = match request {
                Ok(Some(batch)) => services.batch(Rpc::StreamCheck, batch).await,
                Ok(None) => return None,
                Err(status) => Err(status),
            };
            let open = answer.is_ok().then_some((services, requests, draining));
            Some((answer, open))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn list_capabilities(
        &self,
        request: Request<v1::ListCapabilitiesRequest>,
    ) -> Answer<v1::ListCapabilitiesResponse> {
        let request = request.get_ref();
        let snapshot = self.published.read(request.consistency.as_ref()).await?;
        let _turn = self.turn().await;
        Ok(Response::new(answer::list_capabilities(&snapshot, request, self.clock.now())?))
    }

    async fn list_identities(
        &self,
        request: Request<v1::ListIdentitiesRequest>,
    ) -> Answer<v1::ListIdentitiesResponse> {
        let request = request.get_ref();
        let snapshot = self.page(&request.page_token, request.consistency.as_ref()).await?;
        let _turn = self.turn().await;
        Ok(Response::new(answer::list_identities(&snapshot, request, self.clock.now())?))
    }

    async fn list_scopes(
        &self,
        request: Request<v1::ListScopesRequest>,
    ) -> Answer<v1::ListScopesResponse> {
        let request = request.get_ref();
        let snapshot = self.page(&request.page_token, request.consistency.as_ref()).await?;
        let _turn = self.turn().await;
        Ok(Response::new(answer::list_scopes(&snapshot, request, self.clock.now())?))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Answer<v1::ExplainResponse> {
        let trace = self.trace(&request);
        let request = request.into_inner();
        let snapshot = self.published.read(request.consistency.as_ref()).await?;
        let _turn = self.turn().await;
        let now = self.clock.now();
        let answer = answer::explain(&snapshot, &request, now);
        if let Some(log) = &self.log {
            let told = answer.as_ref().map(|answer| (answer.allowed, answer.reason()));
            let line = Line::new([request.identity, request.capability, request.resource], told);
            log.write(Rpc::Explain, now, snapshot.revision(), vec![line]);
        }
        let answer = answer?;
        if let Some(trace) = trace {
            trace.decided(answer.allowed, answer.reason(), answer.revision);
        }
        self.decided(Rpc::Explain, answer.reason);
        Ok(Response::new(answer))
    }
}

#[tonic::async_trait]
impl RoleService for Services {
    async fn list_roles(
        &self,
        request: Request<v1::ListRolesRequest>,
    ) -> Answer<v1::ListRolesResponse> {
        let request = request.get_ref();
        let snapshot = self.page(&request.page_token, None).await?;
        let _turn = self.turn().await;
        Ok(Response::new(answer::list_roles(&snapshot, request, self.clock.now())?))
    }
}
