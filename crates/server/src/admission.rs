//! The one layer around every decision and role call: its deadline, its place among those in
//! flight, its measures, and what becomes of it when something goes wrong.
//!
//! **Invariants**: health and reflection pass by untouched, so that an overloaded server still says
//! that it lives. A call that is let in holds one place until its answer is over, and is counted
//! exactly once. A call that panics takes nothing else down.

use std::any::Any;
use std::convert::Infallible;
use std::hash::BuildHasher as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::CatchUnwind;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::body::Body;
use tonic::codegen::http::header::CONTENT_TYPE;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
use tonic::codegen::{Bytes, Service};
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tower::Layer;

use crate::error::Refusal;
use crate::limits::{HEAD_EARLY, Limits, TIMEOUT_MIN};
use crate::metrics::{Metrics, Rpc, ShedScope};
use crate::peers::{Peer, Peers};
use crate::traces::{Trace, Traces};

/// Services that are not counted, limited or cut off.
const OPEN: [&str; 3] = [
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
];

/// Where a call's code stands: in the head of an answer without a body, else after the body.
const GRPC_STATUS: &str = "grpc-status";

/// Lets calls in, or not.
#[derive(Clone, Debug)]
pub(crate) struct Admission(Arc<Gate>);

#[derive(Debug)]
struct Gate {
    limits: Limits,
    places: Semaphore,
    peers: Peers,
    metrics: Arc<Metrics>,
    traces: Option<Traces>,
}

impl Admission {
    pub(crate) fn new(limits: Limits, metrics: Arc<Metrics>, traces: Option<Traces>) -> Self {
        let places = Semaphore::new(limits.in_flight_max.min(Semaphore::MAX_PERMITS));
        Self(Arc::new(Gate { limits, places, peers: Peers::default(), metrics, traces }))
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
            Ok(call) => {
                if let Some(trace) = &call.trace {
                    // For the service, which knows what is decided.
                    request.extensions_mut().insert(trace.clone());
                }
                let inner = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
                Answering::Admitted(inner, call)
            }
            Err(refusal) => {
                let end = End::of(refusal);
                self.gate.metrics.ended(rpc, end.0.code(), started.elapsed());
                Answering::Refused(Some(end.response()))
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
    Refused(Option<Response<AnswerBody>>),
}

impl<F> Future for Answering<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + Unpin + 'static,
{
    type Output = Result<Response<AnswerBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // What is left of a call that is answered must not be polled again.
        let answer = match std::mem::replace(&mut *self, Self::Refused(None)) {
            Self::Open(mut inner) => match inner.poll_unpin(cx) {
                Poll::Ready(answer) => answer?.map(|body| AnswerBody::of(body, None)),
                Poll::Pending => {
                    *self = Self::Open(inner);
                    return Poll::Pending;
                }
            },
            Self::Refused(Some(answer)) => answer,
            Self::Refused(None) => return Poll::Pending,
            Self::Admitted(mut inner, mut call) => match inner.poll_unpin(cx) {
                Poll::Ready(Ok(answer)) => call.answer(answer?),
                Poll::Ready(Err(panic)) => call.panicked(&*panic).response(),
                // Only a call that waits pays for a timer.
                Poll::Pending => match call.wait(cx) {
                    Wait::Late => call.refuse(Refusal::DeadlineExceeded).response(),
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

// === impl Call ===

/// A call that was let in: its place, its deadline and its measures.
#[derive(Debug)]
pub(crate) struct Call {
    gate: Arc<Gate>,
    rpc: Rpc,
    peer: Peer,
    started: Instant,
    deadline: Option<Deadline>,
    trace: Option<Trace>,
    ended: bool,
}

#[derive(Debug)]
struct Deadline {
    at: Instant,
    /// Whether the client has said one, so that tonic keeps it too.
    asked: bool,
    /// Set once the call has to wait.
    sleep: Option<Pin<Box<Sleep>>>,
}

/// Whether a call can go on waiting.
enum Wait {
    Still,
    /// Not much longer.
    Soon,
    Late,
}

impl Call {
    fn admit(
        gate: &Arc<Gate>,
        rpc: Rpc,
        started: Instant,
        request: &Request<Body>,
    ) -> Result<Self, Refusal> {
        let deadline = Deadline::of(rpc, started, request.headers(), &gate.limits)?;
        let Ok(place) = gate.places.try_acquire() else {
            gate.metrics.shed(ShedScope::Global);
            return Err(Refusal::Overloaded);
        };
        // After the place: so there are never more peers than places.
        let peer = Peer::of(request.extensions().get::<TcpConnectInfo>());
        if !gate.peers.enter(peer, gate.limits.peer_in_flight_max) {
            gate.metrics.shed(ShedScope::Peer);
            return Err(Refusal::Overloaded);
        }
        // Given back in `drop`; a permit of its own would have to own the semaphore.
        place.forget();
        gate.metrics.began();
        let trace = match &gate.traces {
            Some(traces) if rpc != Rpc::Other => {
                traces.begin(request.uri().path(), request.headers(), random())
            }
            _ => None,
        };
        Ok(Self { gate: Arc::clone(gate), rpc, peer, started, deadline, trace, ended: false })
    }

    /// Whether the call can go on waiting; if so, the task wakes when it no longer can.
    ///
    /// tonic's own timer for `grpc-timeout` stands around this layer, would answer CANCELLED, and
    /// is asked right after we say that we wait: on a busy machine it can pass in between. It is
    /// for the head of an answer only, so shortly before the deadline we send the head.
    fn wait(&mut self, cx: &mut Context<'_>) -> Wait {
        let Some(Deadline { at, asked, sleep }) = &mut self.deadline else { return Wait::Still };
        let now = Instant::now();
        if *at <= now {
            return Wait::Late;
        }
        let until = if *asked { at.checked_sub(HEAD_EARLY).unwrap_or(now) } else { *at };
        if until > now {
            let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
            if sleep.as_mut().poll(cx).is_pending() {
                return Wait::Still;
            }
        }
        if *asked { Wait::Soon } else { Wait::Late }
    }

    /// Whether the deadline has passed; if not, the task wakes when it does.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(Deadline { at, sleep, .. }) = &mut self.deadline else { return false };
        let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(*at)));
        sleep.as_mut().poll(cx).is_ready()
    }

    fn end(&mut self, code: Code) {
        self.ended = true;
        self.gate.metrics.ended(self.rpc, code, self.started.elapsed());
        if let Some(trace) = self.trace.take() {
            trace.ended(code);
        }
    }

    /// Ends the call with an error of ours.
    fn refuse(mut self, refusal: Refusal) -> End {
        let end = End::of(refusal);
        self.end(end.0.code());
        end
    }

    fn panicked(self, panic: &(dyn Any + Send)) -> End {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(|text| &**text));
        self.gate.metrics.panicked();
        let bug = self.bug(text.unwrap_or("a panic without words"));
        self.refuse(bug)
    }

    /// A bug's text is for the log: a caller gets a number to quote.
    fn bug(&self, text: &str) -> Refusal {
        let correlation = format!("{:016x}", random());
        tracing::error!(correlation, rpc = ?self.rpc, "internal error: {text}");
        Refusal::Bug { correlation }
    }

    /// What must be said instead of what tonic says, if anything must.
    fn instead(&self, code: Code, status: &HeaderMap) -> Option<Refusal> {
        match code {
            // Nothing of ours says so; tonic does of messages over the limit, in or out.
            Code::OutOfRange => {
                Some(Refusal::TooLarge { bytes_max: self.gate.limits.message_bytes_max })
            }
            // Nothing of ours says that either, except for bugs.
            Code::Internal => {
                let status = Status::from_header_map(status);
                let text = status.as_ref().map_or("", Status::message);
                if MISFRAMED.iter().any(|known| text.starts_with(known)) {
                    Some(Refusal::Misframed)
                } else {
                    Some(self.bug(text))
                }
            }
            _ => None,
        }
    }

    fn answer(self, answer: Response<Body>) -> Response<AnswerBody> {
        let (parts, body) = answer.into_parts();
        match self.began(&parts.headers) {
            Began::Body(call) => Response::from_parts(parts, AnswerBody::of(body, Some(call))),
            Began::Over => Response::from_parts(parts, AnswerBody::of(body, None)),
            Began::Instead(end) => end.response(),
        }
    }

    /// The head of an answer is there.
    fn began(mut self, head: &HeaderMap) -> Began {
        // An error without an answer comes in the head.
        let Some(code) = code(head) else {
            // The time to answer has been kept; only a stream goes on deciding.
            if self.rpc != Rpc::StreamCheck {
                self.deadline = None;
            }
            return Began::Body(self);
        };
        if let Some(refusal) = self.instead(code, head) {
            return Began::Instead(self.refuse(refusal));
        }
        self.end(code);
        Began::Over
    }
}

/// What the head of an answer says.
enum Began {
    Body(Call),
    Over,
    /// Something else must be said.
    Instead(End),
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            // Whoever asked has gone, or has reset the stream.
            self.end(Code::Cancelled);
        }
        self.gate.peers.leave(self.peer);
        self.gate.places.add_permits(1);
        self.gate.metrics.left();
    }
}

/// How tonic's complaints about the bytes around a message begin. It calls them INTERNAL, but they
/// are the caller's mistake.
const MISFRAMED: [&str; 3] =
    ["protocol error: received message with", "Unexpected EOF decoding", "Missing request message"];

fn code(headers: &HeaderMap) -> Option<Code> {
    headers.get(GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}

/// An error of ours, which ends a call.
struct End(Status);

impl End {
    fn of(refusal: Refusal) -> Self {
        Self(refusal.into())
    }

    fn response(self) -> Response<AnswerBody> {
        self.0.into_http::<Body>().map(|body| AnswerBody::of(body, None))
    }

    fn trailers(self) -> Frame<Bytes> {
        let mut trailers = HeaderMap::new();
        if self.0.add_header(&mut trailers).is_err() {
            // Our texts and metadata fit into headers. If one did not, this must not look like OK.
            trailers.insert(GRPC_STATUS, HeaderValue::from_static("13"));
        }
        Frame::trailers(trailers)
    }
}

// === impl AnswerBody ===

/// The body of an answer, which carries its call to the end.
pub(crate) struct AnswerBody {
    rest: Rest,
    /// Nothing for calls that are over or never were counted.
    call: Option<Call>,
}

/// What is still to come of an answer.
enum Rest {
    /// All of it: only the head was sent.
    All(Pin<Box<dyn Answer>>),
    Body(Body),
    Nothing,
}

/// An answer that is being made, and may panic.
trait Answer: Future<Output = Result<Answered, Box<dyn Any + Send>>> + Send {}
impl<F: Future<Output = Result<Answered, Box<dyn Any + Send>>> + Send> Answer for F {}

type Answered = Result<Response<Body>, Infallible>;
type Framed = Poll<Option<Result<Frame<Bytes>, Status>>>;

impl AnswerBody {
    const fn of(body: Body, call: Option<Call>) -> Self {
        Self { rest: Rest::Body(body), call }
    }

    /// The head of an answer that is still being made. Whatever comes of it comes after the body.
    fn head_first(inner: Box<dyn Answer>, mut call: Call) -> Response<Self> {
        if let Some(deadline) = &mut call.deadline {
            // It was for the head.
            deadline.sleep = None;
        }
        let rest = Rest::All(Box::into_pin(inner));
        let mut response = Response::new(Self { rest, call: Some(call) });
        response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
        response
    }

    /// Ends the call and the body; nothing more comes.
    fn end(&mut self, how: impl FnOnce(Call) -> End) -> Framed {
        self.rest = Rest::Nothing;
        Poll::Ready(self.call.take().map(|call| Ok(how(call).trailers())))
    }

    fn end_with(&mut self, code: Code) {
        if let Some(mut call) = self.call.take() {
            call.end(code);
        }
    }

    /// The answer whose head was sent before is made: its error is told now, or its body begins.
    fn made(&mut self, answer: Response<Body>, cx: &mut Context<'_>) -> Framed {
        let (mut parts, body) = answer.into_parts();
        self.rest = Rest::Nothing;
        let Some(call) = self.call.take() else { return Poll::Ready(None) };
        match call.began(&parts.headers) {
            Began::Body(call) => {
                *self = Self::of(body, Some(call));
                self.poll(cx)
            }
            Began::Over => {
                parts.headers.remove(CONTENT_TYPE);
                Poll::Ready(Some(Ok(Frame::trailers(parts.headers))))
            }
            Began::Instead(end) => Poll::Ready(Some(Ok(end.trailers()))),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Framed {
        let Some(call) = &mut self.call else {
            return match &mut self.rest {
                Rest::Body(body) => Pin::new(body).poll_frame(cx),
                Rest::All(_) | Rest::Nothing => Poll::Ready(None),
            };
        };
        // A stream whose batches come without a pause never waits, and must still end.
        if call.deadline.as_ref().is_some_and(|deadline| deadline.at <= Instant::now()) {
            return self.end(|call| call.refuse(Refusal::DeadlineExceeded));
        }
        let polled = match &mut self.rest {
            Rest::Nothing => return Poll::Ready(None),
            Rest::All(answer) => match answer.as_mut().poll(cx) {
                Poll::Ready(Ok(Ok(answer))) => return self.made(answer, cx),
                Poll::Ready(Err(panic)) => Err(panic),
                Poll::Pending => Ok(Poll::Pending),
            },
            Rest::Body(body) => catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(cx))),
        };
        match polled {
            Ok(Poll::Ready(Some(Ok(frame)))) => {
                let Some(trailers) = frame.trailers_ref() else {
                    return Poll::Ready(Some(Ok(frame)));
                };
                let code = code(trailers).unwrap_or(Code::Unknown);
                if let Some(refusal) = call.instead(code, trailers) {
                    return self.end(|call| call.refuse(refusal));
                }
                self.end_with(code);
                Poll::Ready(Some(Ok(frame)))
            }
            Ok(Poll::Ready(Some(Err(status)))) => {
                self.end_with(status.code());
                Poll::Ready(Some(Err(status)))
            }
            Ok(Poll::Ready(None)) => {
                self.end_with(Code::Unknown);
                Poll::Ready(None)
            }
            Ok(Poll::Pending) if call.is_late(cx) => {
                self.end(|call| call.refuse(Refusal::DeadlineExceeded))
            }
            Ok(Poll::Pending) => Poll::Pending,
            Err(panic) => self.end(|call| call.panicked(&*panic)),
        }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Framed {
        self.poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        match &self.rest {
            Rest::All(_) => false,
            Rest::Body(body) => body.is_end_stream(),
            Rest::Nothing => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            Rest::All(_) => SizeHint::default(),
            Rest::Body(body) => body.size_hint(),
            Rest::Nothing => SizeHint::with_exact(0),
        }
    }
}

// === Deadlines ===

impl Deadline {
    /// When the call must be over: when the client says, and no later than the server's cap.
    fn of(
        rpc: Rpc,
        started: Instant,
        headers: &HeaderMap,
        limits: &Limits,
    ) -> Result<Option<Self>, Refusal> {
        let asked = headers.get("grpc-timeout").and_then(|text| timeout(text.as_bytes()));
        if asked.is_some_and(|asked| asked < TIMEOUT_MIN) {
            return Err(Refusal::DeadlineExceeded);
        }
        let cap = if rpc == Rpc::StreamCheck { None } else { Some(limits.unary_time_max) };
        let time = asked.into_iter().chain(cap).min();
        // A time that no clock can show is no deadline.
        let at = time.and_then(|time| started.checked_add(time));
        Ok(at.map(|at| Self { at, asked: asked.is_some(), sleep: None }))
    }
}

/// The value of `grpc-timeout`, read as tonic reads it: what one of the two took for a time and the
/// other did not would end as CANCELLED.
fn timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.len() > 8 {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
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
