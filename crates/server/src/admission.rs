//! The one layer around every decision and role call: its deadline, its place among those in
//! flight, its measures, and what becomes of it when something goes wrong.
//!
//! **Invariants**: health and reflection pass by untouched, so that an overloaded server still says
//! that it lives. A call that waits, for a message, a revision or its reader, holds one place until
//! its answer is over. Plain checks, which are answered from their frame, need none: whoever fills all
//! places keeps nobody from a decision. Other calls are turned away while none is left, even those that
//! would not wait. Every call is counted exactly once. A call that panics takes nothing else down.

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

use body::AnswerBody;
use call::{Call, End, Wait};

/// How a method is told of an error that ends a call: with a response of its own, or `None` for a gRPC
/// status.
pub(crate) type RefusalOf = fn(Rpc, &CallError) -> Option<Response<Body>>;

/// What stands behind admission.
pub(crate) trait Inner {
    /// Answers a call that was not answered at once.
    type Future: Future<Output = Result<Response<Body>, Infallible>>;

    /// As [`Service::poll_ready`].
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>>;

    /// Begins a call. `traced` says whether it has a span.
    fn begin(&mut self, rpc: Rpc, request: Request<Body>, traced: bool) -> Begun<Self::Future>;
}

/// A call that has begun.
pub(crate) enum Begun<F> {
    /// It is over: the framed message of an answer that is OK.
    Answered(Bytes),
    /// It goes on.
    Waits(F),
}

/// Lets calls in, or not.
#[derive(Clone, Debug)]
pub(crate) struct Admission(Arc<Gate>);

/// What the calls of one worker share, so that no call touches what another core does.
#[derive(Debug)]
struct Gate {
    limits: Limits,
    places: Arc<Places>,
    metrics: WorkerMetrics,
    traces: Option<Traces>,
    refusal: RefusalOf,
}

/// How many calls may wait at once, in all workers together.
#[derive(Debug)]
pub(crate) struct Places {
    free: Semaphore,
    most: usize,
    peers: Peers,
    peer_max: usize,
}

/// One of them, until it is dropped.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    metrics: WorkerMetrics,
    peer: Peer,
}

impl Places {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let most = limits.in_flight_max.min(Semaphore::MAX_PERMITS);
        let (peers, peer_max) = (Peers::default(), limits.peer_in_flight_max);
        Arc::new(Self { free: Semaphore::new(most), most, peers, peer_max })
    }
}

impl Places {
    /// Whether a call would find no place if it had to wait.
    fn refuses(&self, peer: Peer, metrics: &Metrics) -> bool {
        let free = self.free.available_permits();
        let scope = if free == 0 {
            ShedScope::Global
        } else if self.most - free >= self.peer_max && self.peers.count(peer) >= self.peer_max {
            // Few wait, most of the time: nobody is looked up then.
            ShedScope::Peer
        } else {
            return false;
        };
        metrics.shed(scope);
        true
    }
}

impl Place {
    fn take(places: &Arc<Places>, metrics: &WorkerMetrics, peer: Peer) -> Result<Self, CallError> {
        let Ok(free) = places.free.try_acquire() else {
            metrics.shed(ShedScope::Global);
            return Err(CallError::Overloaded);
        };
        interleave::point();
        // After the place: so there are never more peers than places.
        if !places.peers.enter(peer, places.peer_max) {
            metrics.shed(ShedScope::Peer);
            return Err(CallError::Overloaded);
        }
        // Given back in `drop`; a permit of its own would have to own the semaphore.
        free.forget();
        metrics.began();
        Ok(Self { places: Arc::clone(places), metrics: metrics.clone(), peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.peers.leave(self.peer);
        interleave::point();
        self.places.free.add_permits(1);
        self.metrics.left();
    }
}

impl Admission {
    pub(crate) fn new(
        limits: Limits,
        places: &Arc<Places>,
        metrics: WorkerMetrics,
        traces: Option<Traces>,
        refusal: RefusalOf,
    ) -> Self {
        Self(Arc::new(Gate { limits, places: Arc::clone(places), metrics, traces, refusal }))
    }
}

impl<S> Layer<S> for Admission {
    type Service = Admitted<S>;

    fn layer(&self, inner: S) -> Admitted<S> {
        Admitted { inner, gate: Arc::clone(&self.0) }
    }
}

/// A service behind the gate.
#[derive(Clone, Debug)]
pub(crate) struct Admitted<S> {
    inner: S,
    gate: Arc<Gate>,
}

impl<S> Service<Request<Body>> for Admitted<S>
where
    S: Inner,
    S::Future: Send + Unpin + 'static,
{
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let rpc = Rpc::of(path);
        if rpc == Rpc::OTHER && is_unlimited(path) {
            return match self.inner.begin(rpc, request, false) {
                Begun::Answered(message) => Answering::Told(Some(AnswerBody::whole(message))),
                Begun::Waits(inner) => Answering::Open(inner),
            };
        }
        let started = Instant::now();
        let mut call = match Call::admit(&self.gate, rpc, started, &request) {
            Ok(call) => call,
            Err(refusal) => {
                let end = End::of(&self.gate, refusal, rpc);
                self.gate.metrics.ended(rpc, end.code(), started.elapsed());
                return Answering::Told(Some(end.response()));
            }
        };
        if let Some(trace) = &call.trace {
            // For the service, which knows what is decided.
            request.extensions_mut().insert(trace.clone());
        }
        let traced = call.trace.is_some();
        match catch_unwind(AssertUnwindSafe(|| self.inner.begin(rpc, request, traced))) {
            Ok(Begun::Answered(message)) => {
                call.end(Code::Ok);
                Answering::Told(Some(AnswerBody::whole(message)))
            }
            // Dropped before its first poll, a call has done nothing.
            Ok(Begun::Waits(_)) if call.has_no_place() => {
                Answering::Told(Some(call.refuse(CallError::Overloaded).response()))
            }
            Ok(Begun::Waits(inner)) => {
                Answering::Admitted(AssertUnwindSafe(inner).catch_unwind(), call)
            }
            Err(panic) => Answering::Told(Some(call.panicked(&*panic).response())),
        }
    }
}

type Caught<F> = CatchUnwind<AssertUnwindSafe<F>>;

/// A call on its way to an answer.
pub(crate) enum Answering<F> {
    Open(F),
    Admitted(Caught<F>, Call),
    /// Nothing, once it has been told.
    Told(Option<Response<AnswerBody>>),
}

impl<F> Future for Answering<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + Unpin + 'static,
{
    type Output = Result<Response<AnswerBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // What is left of a call that is answered must not be polled again.
        let answer = match std::mem::replace(&mut *self, Self::Told(None)) {
            Self::Open(mut inner) => match inner.poll_unpin(cx) {
                Poll::Ready(answer) => answer?.map(|body| AnswerBody::of(body, None)),
                Poll::Pending => {
                    *self = Self::Open(inner);
                    return Poll::Pending;
                }
            },
            Self::Told(Some(answer)) => answer,
            Self::Told(None) => return Poll::Pending,
            Self::Admitted(mut inner, mut call) => match inner.poll_unpin(cx) {
                Poll::Ready(Ok(answer)) => call.answer(answer?),
                Poll::Ready(Err(panic)) => call.panicked(&*panic).response(),
                // Only a call that waits pays for a place and a timer.
                Poll::Pending => match call.wait(cx) {
                    Wait::Refused(refusal) => call.refuse(refusal).response(),
                    Wait::Soon => AnswerBody::head_first(Box::new(inner), call),
                    Wait::Still => {
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
