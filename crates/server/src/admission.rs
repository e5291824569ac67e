//! Admission: the layer around every call of a limited method. It has the call's deadline, its
//! permit, its measures, and its error if it fails.
//!
//! ```text
//! request ─▶ AdmissionService ─▶ InnerService: the fast check, then the services
//!               │ Done: the response is complete              ─▶ ResponseBody
//!               │ Pending: ResponseFuture polls the service   ─▶ ResponseBody
//!               └ a call that must wait acquires a permit, or is shed
//! ```
//!
//! **Invariants**:
//!
//! - Health and reflection bypass this layer, so that an overloaded server still answers health
//!   checks.
//! - A call that has to wait holds one permit from its first wait until its response ends. A stream
//!   holds one from its start.
//! - A check that is answered at once from its frame (`grpc::fast_check`) needs no permit. A client that
//!   holds every permit therefore does not block such checks; it does block those whose stream has not ended
//!   with the frame, which tonic's client ends apart.
//! - Any other call is shed while no permit is left, even if it would not wait.
//! - Every call is counted exactly once.
//! - A panic ends its own call only.
//!
//! Read this file, then `call` (deadline, permit, end of a call), then `body` (the response).

mod body;
mod call;

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::CatchUnwind;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{Bytes, Service};
use tower::Layer;

use crate::error::CallError;
use crate::interleave;
use crate::limits::Limits;
use crate::methods::{Rpc, is_unlimited};
use crate::telemetry::metrics::{Metrics, ShedScope, WorkerMetrics};
use crate::telemetry::traces::Traces;
use crate::transport::peers::{Peer, Peers};

use body::ResponseBody;
use call::{Call, ErrorReply, WaitOutcome};

/// Makes a method's own response to an error that ends a call; `None` for a gRPC status.
pub(crate) type ErrorResponder = fn(Rpc, &CallError) -> Option<Response<Body>>;

/// The service behind admission.
pub(crate) trait InnerService {
    /// The response of a call that was not answered at once.
    type Future: Future<Output = Result<Response<Body>, Infallible>>;

    /// As [`Service::poll_ready`].
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>>;

    /// Starts a call. `traced` says whether the call has a span.
    fn begin(&mut self, rpc: Rpc, request: Request<Body>, traced: bool) -> Started<Self::Future>;
}

/// A call that was started.
pub(crate) enum Started<F> {
    /// It is complete: the framed message of an OK response.
    Done(Bytes),
    /// It must be polled.
    Pending(F),
}

/// The layer that admits calls, or sheds them.
#[derive(Clone, Debug)]
pub(crate) struct Admission(Arc<WorkerState>);

/// The state that the calls of one worker share. Its reference count belongs to the worker, so no
/// other core writes to it.
#[derive(Debug)]
struct WorkerState {
    limits: Limits,
    permits: Arc<Permits>,
    metrics: WorkerMetrics,
    traces: Option<Traces>,
    error_responder: ErrorResponder,
}

/// Permits for calls that wait, of all workers together.
#[derive(Debug)]
pub(crate) struct Permits {
    available: Semaphore,
    /// All permits, taken or not.
    total: usize,
    /// Taken permits by peer.
    peers: Peers,
    peer_max: usize,
}

/// One permit. Dropped, it is released.
#[derive(Debug)]
struct Permit {
    permits: Arc<Permits>,
    metrics: WorkerMetrics,
    peer: Peer,
}

impl Permits {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let total = limits.in_flight_max.min(Semaphore::MAX_PERMITS);
        let (peers, peer_max) = (Peers::default(), limits.peer_in_flight_max);
        Arc::new(Self { available: Semaphore::new(total), total, peers, peer_max })
    }

    /// Whether a call from this peer would get no permit. Counts the shed call if so.
    fn would_shed(&self, peer: Peer, metrics: &Metrics) -> bool {
        let available = self.available.available_permits();
        let scope = if available == 0 {
            ShedScope::Global
        } else if self.total - available >= self.peer_max && self.peers.count(peer) >= self.peer_max
        {
            // Most of the time few permits are taken in total, and the look-up of the peer is
            // skipped.
            ShedScope::Peer
        } else {
            return false;
        };
        metrics.shed(scope);
        true
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
            metrics.shed(ShedScope::Global);
            return Err(CallError::Overloaded);
        };
        interleave::point();
        // After the semaphore, so that the map never has more peers than there are permits.
        if !permits.peers.try_acquire(peer, permits.peer_max) {
            metrics.shed(ShedScope::Peer);
            return Err(CallError::Overloaded);
        }
        // `drop` adds the permit back. An owned semaphore permit would need an `Arc` of the
        // semaphore.
        permit.forget();
        metrics.began();
        Ok(Self { permits: Arc::clone(permits), metrics: metrics.clone(), peer })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.peers.release(self.peer);
        interleave::point();
        self.permits.available.add_permits(1);
        self.metrics.left();
    }
}

impl Admission {
    pub(crate) fn new(
        limits: Limits,
        permits: &Arc<Permits>,
        metrics: WorkerMetrics,
        traces: Option<Traces>,
        error_responder: ErrorResponder,
    ) -> Self {
        Self(Arc::new(WorkerState {
            limits,
            permits: Arc::clone(permits),
            metrics,
            traces,
            error_responder,
        }))
    }
}

impl<S> Layer<S> for Admission {
    type Service = AdmissionService<S>;

    fn layer(&self, inner: S) -> AdmissionService<S> {
        AdmissionService { inner, worker: Arc::clone(&self.0) }
    }
}

/// A service with admission in front of it.
#[derive(Clone, Debug)]
pub(crate) struct AdmissionService<S> {
    inner: S,
    worker: Arc<WorkerState>,
}

impl<S> Service<Request<Body>> for AdmissionService<S>
where
    S: InnerService,
    S::Future: Send + Unpin + 'static,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let rpc = Rpc::from_path(path);
        if rpc == Rpc::OTHER && is_unlimited(path) {
            return match self.inner.begin(rpc, request, false) {
                Started::Done(message) => {
                    ResponseFuture::Ready(Some(ResponseBody::unary_ok(message)))
                }
                Started::Pending(inner) => ResponseFuture::Unlimited(inner),
            };
        }
        let started = Instant::now();
        let mut call = match Call::admit(&self.worker, rpc, started, &request) {
            Ok(call) => call,
            Err(error) => {
                let end = ErrorReply::new(&self.worker, error, rpc);
                self.worker.metrics.ended(rpc, end.code(), started.elapsed());
                return ResponseFuture::Ready(Some(end.into_response()));
            }
        };
        if let Some(span) = &call.span {
            // The service adds the decision to the span.
            request.extensions_mut().insert(span.clone());
        }
        let traced = call.span.is_some();
        match catch_unwind(AssertUnwindSafe(|| self.inner.begin(rpc, request, traced))) {
            Ok(Started::Done(message)) => {
                call.end(Code::Ok);
                ResponseFuture::Ready(Some(ResponseBody::unary_ok(message)))
            }
            // The future was not polled yet, so nothing has been done for this call.
            Ok(Started::Pending(_)) if call.would_be_shed() => {
                ResponseFuture::Ready(Some(call.fail(CallError::Overloaded).into_response()))
            }
            Ok(Started::Pending(inner)) => {
                ResponseFuture::Admitted(AssertUnwindSafe(inner).catch_unwind(), call)
            }
            Err(panic) => ResponseFuture::Ready(Some(call.panicked(&*panic).into_response())),
        }
    }
}

type CatchPanic<F> = CatchUnwind<AssertUnwindSafe<F>>;

/// A call until its response headers.
pub(crate) enum ResponseFuture<F> {
    /// A call that bypasses admission.
    Unlimited(F),
    /// A call that the service has left pending.
    Admitted(CatchPanic<F>, Call),
    /// `None` once the response has been returned.
    Ready(Option<Response<ResponseBody>>),
}

impl<F> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + Unpin + 'static,
{
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A future that has returned its response must not be polled again.
        let answer = match std::mem::replace(&mut *self, Self::Ready(None)) {
            Self::Unlimited(mut inner) => match inner.poll_unpin(cx) {
                Poll::Ready(answer) => answer?.map(|body| ResponseBody::new(body, None)),
                Poll::Pending => {
                    *self = Self::Unlimited(inner);
                    return Poll::Pending;
                }
            },
            Self::Ready(Some(answer)) => answer,
            Self::Ready(None) => return Poll::Pending,
            Self::Admitted(mut inner, mut call) => match inner.poll_unpin(cx) {
                Poll::Ready(Ok(answer)) => call.respond(answer?),
                Poll::Ready(Err(panic)) => call.panicked(&*panic).into_response(),
                // Only a call that waits pays for a permit and a timer.
                Poll::Pending => match call.poll_wait(cx) {
                    WaitOutcome::Fail(error) => call.fail(error).into_response(),
                    WaitOutcome::SendHeaders => ResponseBody::headers_first(Box::new(inner), call),
                    WaitOutcome::Wait => {
                        *self = Self::Admitted(inner, call);
                        return Poll::Pending;
                    }
                },
            },
        };
        Poll::Ready(Ok(answer))
    }
}

#[cfg(test)]
mod tests;
