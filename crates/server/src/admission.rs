//! Admission: what surrounds every call of a limited method. It has the call's deadline, its permit,
//! its measures, and its error if it fails.
//!
//! ```text
//! request ─▶ Admission ─▶ ResponseFuture polls the service ─▶ ResponseBody
//!               └ a call that must wait acquires a permit, or is shed
//! ```
//!
//! **Invariants**:
//!
//! - Health and reflection have permits of their own, so that an overloaded server still answers health
//!   checks. Their calls are not counted as requests. Management calls have permits of their own, so that
//!   writes that wait for a slow disk take none from decisions.
//! - A call that has to wait holds one permit from its first wait until its response ends. A stream
//!   holds one from its start.
//! - A check that the connection's own task answers (`grpc::fast_check`) needs no permit. A client that
//!   holds every permit therefore does not block such checks.
//! - Whoever may not ask, as the head of a call shows, is refused before a permit is taken.
//! - Any other call is shed while no permit is left, even if it would not wait.
//! - Every call is counted exactly once.
//! - A panic ends its own call only.
//!
//! Read this file, then `call` (deadline, permit, end of a call), then `body` (the response).

mod body;
mod call;
mod content_type;
mod encoding;

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use capstan_policy::Asks;
use futures_util::FutureExt as _;
use futures_util::future::CatchUnwind;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{Extensions, HeaderMap, Request, Response};
use tonic::{Code, Status};

use crate::error::CallError;
use crate::interleave;
use crate::limits::Limits;
use crate::methods::Rpc;
use crate::telemetry::metrics::{Metrics, ShedScope, WorkerMetrics};
use crate::telemetry::traces::{Sampled, Traces};
use crate::transport::connection::Remote;
use crate::transport::peers::{Peer, Peers};

use call::Call;
pub(crate) use content_type::is_grpc;
pub(crate) use encoding::{Encoding, takes_gzip};

pub(crate) use body::ResponseBody;

/// Makes a method's own response to an error that ends a call; `None` for a gRPC status.
pub(crate) type ErrorResponder = fn(Rpc, &CallError) -> Option<Response<Body>>;

/// Answers a call of somebody who may not make it, by its head alone, with the code that is counted; `None` for all others, and adds who they
/// are.
pub(crate) type Gate =
    Arc<dyn Fn(Rpc, &mut Request<Body>) -> Option<(Code, Response<Body>)> + Send + Sync>;

/// A service with admission in front of it.
#[derive(Clone, Debug)]
pub(crate) struct Admission<S> {
    inner: S,
    worker: Arc<WorkerState>,
}

/// The state that the calls of one worker share. Its reference count belongs to the worker, so no
/// other core writes to it.
struct WorkerState {
    limits: Limits,
    permits: AllPermits,
    metrics: WorkerMetrics,
    traces: Option<Traces>,
    error_responder: ErrorResponder,
    gate: Gate,
    /// The fields of answers to calls that are shed. They differ in the time after which to try again.
    shed: [HeaderMap; SHED_ANSWERS],
}

/// Answers to calls that are shed, which are made once: one that is made for each call takes several times what is saved by shedding it.
const SHED_ANSWERS: usize = 16;

impl std::fmt::Debug for WorkerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerState").field("permits", &self.permits).finish_non_exhaustive()
    }
}

/// What a call is for. Each class has permits of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Decisions, and paths that are not served.
    Decision,
    /// Management methods.
    Management,
    /// Health and reflection.
    Probe,
}

/// The permits of each class, of all workers together.
#[derive(Clone, Debug)]
pub(crate) struct AllPermits {
    decisions: Arc<Permits>,
    management: Arc<Permits>,
    probes: Arc<Permits>,
}

impl AllPermits {
    pub(crate) fn new(limits: &Limits) -> Self {
        let Limits { in_flight_max, management_max, probes_max, .. } = *limits;
        let of = |class, total, peer_max| Arc::new(Permits::new(class, total, peer_max));
        Self {
            decisions: of(Class::Decision, in_flight_max, limits.peer_in_flight_max),
            management: of(Class::Management, management_max, limits.peer_management_max),
            probes: of(Class::Probe, probes_max, limits.peer_probes_max),
        }
    }

    /// A permit for a decision that comes by another way than gRPC.
    ///
    /// # Errors
    ///
    /// [`CallError::Overloaded`]: none is left, and the shed call is counted.
    pub(crate) fn for_decision(
        &self,
        metrics: &WorkerMetrics,
        peer: Peer,
    ) -> Result<Permit, CallError> {
        Permit::acquire(&self.decisions, metrics, peer)
    }

    fn of(&self, class: Class) -> &Arc<Permits> {
        match class {
            Class::Decision => &self.decisions,
            Class::Management => &self.management,
            Class::Probe => &self.probes,
        }
    }
}

/// Permits for calls of one class that wait, of all workers together.
#[derive(Debug)]
struct Permits {
    class: Class,
    available: Semaphore,
    /// All permits, taken or not.
    total: usize,
    /// Taken permits by peer.
    peers: Peers,
    peer_max: usize,
}

/// One permit. Dropped, it is released.
#[derive(Debug)]
pub(crate) struct Permit {
    permits: Arc<Permits>,
    metrics: WorkerMetrics,
    peer: Peer,
}

impl Permits {
    fn new(class: Class, total: usize, peer_max: usize) -> Self {
        let total = total.min(Semaphore::MAX_PERMITS);
        let (available, peers) = (Semaphore::new(total), Peers::default());
        Self { class, available, total, peers, peer_max }
    }

    fn shed(&self, metrics: &Metrics, scope: ShedScope) {
        metrics.shed(match self.class {
            Class::Decision => scope,
            Class::Management => ShedScope::Management,
            Class::Probe => ShedScope::Probes,
        });
    }

    /// Whether its calls are counted as in flight.
    fn is_counted(&self) -> bool {
        self.class != Class::Probe
    }

    /// Whose permits are all taken, so that a call from this peer would get none; `None` if it would get one.
    fn exhausted(&self, peer: Peer) -> Option<ShedScope> {
        let available = self.available.available_permits();
        if available == 0 {
            return Some(ShedScope::Global);
        }
        // Most of the time few permits are taken in total, and the look-up of the peer is skipped.
        let is_peers = self.total - available >= self.peer_max;
        (is_peers && self.peers.count(peer) >= self.peer_max).then_some(ShedScope::Peer)
    }

    /// Whether a call from this peer would get no permit. Counts the shed call if so.
    fn would_shed(&self, peer: Peer, metrics: &Metrics) -> bool {
        let scope = self.exhausted(peer);
        scope.into_iter().for_each(|scope| self.shed(metrics, scope));
        scope.is_some()
    }
}

impl Permit {
    /// Acquires a permit of the server and one of the peer.
    ///
    /// # Errors
    ///
    /// [`CallError::Overloaded`]: none is left, and the shed call is counted.
    fn acquire(
        permits: &Arc<Permits>,
        metrics: &WorkerMetrics,
        peer: Peer,
    ) -> Result<Self, CallError> {
        let Ok(permit) = permits.available.try_acquire() else {
            permits.shed(metrics, ShedScope::Global);
            return Err(CallError::Overloaded);
        };
        interleave::point();
        // After the semaphore, so that the map never has more peers than there are permits.
        if !permits.peers.try_acquire(peer, permits.peer_max) {
            permits.shed(metrics, ShedScope::Peer);
            return Err(CallError::Overloaded);
        }
        // `drop` adds the permit back. An owned semaphore permit would need an `Arc` of the
        // semaphore.
        permit.forget();
        if permits.is_counted() {
            metrics.began();
        }
        Ok(Self { permits: Arc::clone(permits), metrics: metrics.clone(), peer })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.peers.release(self.peer);
        interleave::point();
        self.permits.available.add_permits(1);
        if self.permits.is_counted() {
            self.metrics.left();
        }
    }
}

impl<S> Admission<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + Unpin + 'static,
{
    /// `inner` must always be ready, as tonic's routes are.
    pub(crate) fn new(
        inner: S,
        limits: Limits,
        permits: &AllPermits,
        (metrics, traces): (WorkerMetrics, Option<Traces>),
        (error_responder, gate): (ErrorResponder, Gate),
    ) -> Self {
        let permits = permits.clone();
        let shed = [(); SHED_ANSWERS].map(|()| {
            let answer: Response<Body> = Status::from(CallError::Overloaded).into_http();
            answer.into_parts().0.headers
        });
        let worker = WorkerState { limits, permits, metrics, traces, error_responder, gate, shed };
        Self { inner, worker: Arc::new(worker) }
    }

    /// Whether a call may be answered without a permit and a deadline, by its head.
    pub(crate) fn may_be_plain(head: &Parts) -> bool {
        !call::has_expired(&head.headers)
    }

    /// Draws whether a call is sampled, and so needs a span. [`Admission::call`] keeps to what was drawn.
    pub(crate) fn is_sampled(&self, head: &Parts, extensions: &mut Extensions) -> bool {
        let Some(traces) = &self.worker.traces else { return false };
        let span = traces.begin(head.uri.path(), &head.headers, fastrand::u64(..));
        let is_sampled = span.is_some();
        extensions.insert(Sampled(span));
        is_sampled
    }

    /// Counts calls that were answered without admission, with OK and in this time each.
    pub(crate) fn answered(&self, rpc: Rpc, calls: u64, took: Duration) {
        for _ in 0..calls {
            self.worker.metrics.ended(rpc, Code::Ok, took);
        }
    }

    /// The fields of the whole answer to a call, if it is of a unary method that decides and its peer has no permit left. It is counted then.
    /// `None` for all others: [`Admission::call`] sheds them, too, but makes an answer for each. Whether the call is sampled is drawn, as by
    /// [`Admission::is_sampled`], if it matters.
    pub(crate) fn shed(
        &self,
        head: &Parts,
        (remote, is_let_in): (Option<&Remote>, impl FnOnce() -> bool),
        extensions: &mut Extensions,
    ) -> Option<&HeaderMap> {
        let WorkerState { permits, metrics, shed, .. } = &*self.worker;
        let (permits, peer) = (permits.of(Class::Decision), Peer::of(remote));
        let scope = permits.exhausted(peer)?;
        let rpc = Rpc::from_path(head.uri.path());
        // Envoy has answers of its own.
        let decides = !rpc.manages() && rpc.asks().is_some_and(|asks| asks != Asks::Authorize);
        let is_good = is_grpc(&head.headers) && Self::may_be_plain(head);
        if !decides
            || rpc.streams()
            || !is_good
            || Encoding::of(&head.headers) == Encoding::Unknown
            || !is_let_in()
        {
            return None;
        }
        // A call that waits for its turn comes again, and its span was drawn then.
        let is_sampled = match extensions.get() {
            Some(Sampled(span)) => span.is_some(),
            None => self.is_sampled(head, extensions),
        };
        if is_sampled {
            return None;
        }
        permits.shed(metrics, scope);
        metrics.ended(rpc, Code::ResourceExhausted, Duration::ZERO);
        shed.get(fastrand::usize(..SHED_ANSWERS))
    }

    /// Starts a call.
    pub(crate) fn call(&mut self, mut request: Request<Body>) -> ResponseFuture<S::Future> {
        let started = Instant::now();
        if !is_grpc(request.headers()) {
            let rpc = Rpc::from_path(request.uri().path());
            self.worker.metrics.ended(rpc, Code::Unknown, started.elapsed());
            return ResponseFuture::Ready(Some(content_type::unsupported()));
        }
        // Strangers take no permit, and nothing of their bodies is decoded.
        let rpc = Rpc::from_path(request.uri().path());
        if let Some((code, refused)) = (self.worker.gate)(rpc, &mut request) {
            self.worker.metrics.ended(rpc, code, started.elapsed());
            return ResponseFuture::Ready(Some(refused.map(|body| ResponseBody::new(body, None))));
        }
        let call = match Call::admit(&self.worker, started, &mut request) {
            Ok(call) => call,
            Err(reply) => return ResponseFuture::Ready(Some(reply.into_response())),
        };
        // The transport has decompressed what is gzip.
        if Encoding::of(request.headers()) == Encoding::Unknown {
            let reply = call.fail(CallError::UnknownEncoding);
            return ResponseFuture::Ready(Some(reply.into_response()));
        }
        if call.would_be_shed() {
            return ResponseFuture::Ready(Some(call.fail(CallError::Overloaded).into_response()));
        }
        if let Some(span) = &call.span {
            // The service adds the decision to the span.
            request.extensions_mut().insert(span.clone());
        }
        match catch_unwind(AssertUnwindSafe(|| self.inner.call(request))) {
            Ok(inner) => ResponseFuture::Admitted(AssertUnwindSafe(inner).catch_unwind(), call),
            Err(panic) => ResponseFuture::Ready(Some(call.panicked(&*panic).into_response())),
        }
    }
}

type CatchPanic<F> = CatchUnwind<AssertUnwindSafe<F>>;

/// A call until its response headers.
pub(crate) enum ResponseFuture<F> {
    /// A call that the service has left pending.
    Admitted(CatchPanic<F>, Call),
    /// `None` once the response has been returned.
    Ready(Option<Response<ResponseBody>>),
}

impl<F> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + Unpin + 'static,
{
    type Output = Response<ResponseBody>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A future that has returned its response must not be polled again.
        Poll::Ready(match std::mem::replace(&mut *self, Self::Ready(None)) {
            Self::Ready(Some(answer)) => answer,
            Self::Ready(None) => return Poll::Pending,
            Self::Admitted(mut inner, mut call) => match inner.poll_unpin(cx) {
                Poll::Ready(Ok(Ok(answer))) => call.respond(answer),
                Poll::Ready(Err(panic)) => call.panicked(&*panic).into_response(),
                // Only a call that waits pays for a permit and a timer.
                Poll::Pending => match call.poll_wait(cx) {
                    Poll::Ready(error) => call.fail(error).into_response(),
                    Poll::Pending => {
                        *self = Self::Admitted(inner, call);
                        return Poll::Pending;
                    }
                },
            },
        })
    }
}

#[cfg(test)]
mod tests;
