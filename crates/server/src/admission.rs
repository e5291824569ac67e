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
use std::hash::BuildHasher as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::CatchUnwind;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tower::Layer;

use crate::error::Refusal;
use crate::grpc::fast_check::Direct;
use crate::limits::Limits;
use crate::telemetry::metrics::{Metrics, Rpc, ShedScope, WorkerMetrics};
use crate::telemetry::traces::Traces;
use crate::transport::peers::{Peer, Peers};

use body::AnswerBody;
use call::{Call, End, Wait};

/// Services that are not counted, limited or cut off.
const OPEN: [&str; 3] = [
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
];

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
    /// Answers plain checks, if calls reach the decision service at all.
    direct: Option<Direct>,
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
    fn take(gate: &Gate, peer: Peer) -> Result<Self, Refusal> {
        let Gate { places, metrics, .. } = gate;
        let Ok(free) = places.free.try_acquire() else {
            metrics.shed(ShedScope::Global);
            return Err(Refusal::Overloaded);
        };
        // After the place: so there are never more peers than places.
        if !places.peers.enter(peer, places.peer_max) {
            metrics.shed(ShedScope::Peer);
            return Err(Refusal::Overloaded);
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
        direct: Option<Direct>,
    ) -> Self {
        Self(Arc::new(Gate { limits, places: Arc::clone(places), metrics, traces, direct }))
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
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
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
        if rpc == Rpc::Other && OPEN.iter().any(|service| path.starts_with(service)) {
            return Answering::Open(self.inner.call(request));
        }
        let started = Instant::now();
        match Call::admit(&self.gate, rpc, started, &request) {
            Ok(mut call) => {
                if let Some(trace) = &call.trace {
                    // For the service, which knows what is decided.
                    request.extensions_mut().insert(trace.clone());
                } else if rpc == Rpc::Check
                    && let Some(direct) = &self.gate.direct
                {
                    match catch_unwind(AssertUnwindSafe(|| direct.answer(&mut request))) {
                        Ok(None) => {}
                        Ok(Some(message)) => {
                            call.end(Code::Ok);
                            return Answering::Told(Some(AnswerBody::whole(message)));
                        }
                        Err(panic) => {
                            return Answering::Told(Some(call.panicked(&*panic).response()));
                        }
                    }
                }
                if call.has_no_place() {
                    return Answering::Told(Some(call.refuse(Refusal::Overloaded).response()));
                }
                let inner = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
                Answering::Admitted(inner, call)
            }
            Err(refusal) => {
                let end = End::of(refusal, rpc);
                self.gate.metrics.ended(rpc, end.code(), started.elapsed());
                Answering::Told(Some(end.response()))
            }
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

/// A number that differs from call to call; nothing secret depends on it.
fn random() -> u64 {
    std::hash::RandomState::new().hash_one(0)
}

/// A time between 1/`part` less and 1/`part` more than this one, so that what began together does
/// not come back together.
pub(crate) fn jittered(time: Duration, part: u32) -> Duration {
    let most = u32::try_from(random() >> 32).unwrap_or_default();
    let share = f64::from(most) / f64::from(u32::MAX);
    let spread = time / part.max(1);
    time.saturating_sub(spread) + (spread * 2).mul_f64(share)
}

#[cfg(test)]
mod tests;
