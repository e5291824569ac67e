//! A call that was let in: its deadline, its place once it waits, its measures, and how it ends.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use http_body::Frame;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tonic::{Code, Status};

use super::body::AnswerBody;
use super::{Gate, Place};
use crate::authn::caller::Caller;
use crate::error::CallError;
use crate::limits::{HEAD_EARLY, Limits, TIMEOUT_MIN};
use crate::methods::Rpc;
use crate::telemetry::traces::Trace;
use crate::transport::connection::Remote;

/// Where a call's code stands: in the head of an answer without a body, else after the body.
pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// A call that was let in: its place, its deadline and its measures.
#[derive(Debug)]
pub(crate) struct Call {
    gate: Arc<Gate>,
    rpc: Rpc,
    caller: Caller,
    /// Taken when it first waits.
    place: Option<Place>,
    started: Instant,
    pub(super) deadline: Option<Deadline>,
    pub(super) trace: Option<Trace>,
    ended: bool,
}

#[derive(Debug)]
pub(super) struct Deadline {
    pub(super) at: Instant,
    /// Whether the client has said one, so that tonic keeps it too.
    asked: bool,
    /// Set once the call has to wait.
    pub(super) sleep: Option<Pin<Box<Sleep>>>,
}

/// Whether a call can go on waiting.
pub(super) enum Wait {
    Still,
    /// Not much longer.
    Soon,
    Refused(CallError),
}

impl Call {
    pub(super) fn admit(
        gate: &Arc<Gate>,
        rpc: Rpc,
        started: Instant,
        request: &Request<Body>,
    ) -> Result<Self, CallError> {
        let deadline = Deadline::of(rpc, started, request.headers(), &gate.limits)?;
        let caller = Caller::of_connection(request.extensions().get::<Remote>());
        let trace = match &gate.traces {
            Some(traces) if rpc != Rpc::OTHER => {
                traces.begin(request.uri().path(), request.headers(), fastrand::u64(..))
            }
            _ => None,
        };
        // A stream lives to wait.
        let place = if rpc.streams() {
            Some(Place::take(&gate.places, &gate.metrics, caller.peer)?)
        } else {
            None
        };
        let gate = Arc::clone(gate);
        Ok(Self { gate, rpc, caller, place, started, deadline, trace, ended: false })
    }

    /// Whether it would find no place if it had to wait: then it is turned away at once.
    pub(super) fn has_no_place(&self) -> bool {
        self.place.is_none() && self.gate.places.refuses(self.caller.peer, &self.gate.metrics)
    }

    /// A place to wait in, if it has none yet.
    pub(super) fn hold(&mut self) -> Result<(), CallError> {
        if self.place.is_none() {
            self.place =
                Some(Place::take(&self.gate.places, &self.gate.metrics, self.caller.peer)?);
        }
        Ok(())
    }

    /// Whether the call can go on waiting; if so, the task wakes when it no longer can.
    ///
    /// tonic's own timer for `grpc-timeout` stands around this layer, would answer CANCELLED, and
    /// is asked right after we say that we wait: on a busy machine it can pass in between. It is
    /// for the head of an answer only, so shortly before the deadline we send the head.
    pub(super) fn wait(&mut self, cx: &mut Context<'_>) -> Wait {
        if let Err(refusal) = self.hold() {
            return Wait::Refused(refusal);
        }
        let Some(Deadline { at, asked, sleep }) = &mut self.deadline else { return Wait::Still };
        let now = Instant::now();
        if *at <= now {
            return Wait::Refused(CallError::DeadlineExceeded);
        }
        let until = if *asked { at.checked_sub(HEAD_EARLY).unwrap_or(now) } else { *at };
        if until > now {
            let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
            if sleep.as_mut().poll(cx).is_pending() {
                return Wait::Still;
            }
        }
        if *asked { Wait::Soon } else { Wait::Refused(CallError::DeadlineExceeded) }
    }

    /// Whether the deadline has passed; if not, the task wakes when it does.
    pub(super) fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(Deadline { at, sleep, .. }) = &mut self.deadline else { return false };
        let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(*at)));
        sleep.as_mut().poll(cx).is_ready()
    }

    pub(super) fn end(&mut self, code: Code) {
        self.ended = true;
        self.gate.metrics.ended(self.rpc, code, self.started.elapsed());
        if let Some(trace) = self.trace.take() {
            trace.ended(code);
        }
    }

    /// Ends the call with an error of ours.
    pub(super) fn refuse(mut self, refusal: CallError) -> End {
        let end = End::of(&self.gate, refusal, self.rpc);
        self.end(end.code());
        end
    }

    pub(super) fn panicked(self, panic: &(dyn Any + Send)) -> End {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(|text| &**text));
        self.gate.metrics.panicked();
        let bug = self.bug(text.unwrap_or("a panic without words"));
        self.refuse(bug)
    }

    /// A bug's text is for the log: a caller gets a number to quote.
    fn bug(&self, text: &str) -> CallError {
        let correlation = format!("{:016x}", fastrand::u64(..));
        tracing::error!(correlation, rpc = self.rpc.name(), "internal error: {text}");
        CallError::Bug { correlation }
    }

    /// What must be said instead of what tonic says, if anything must.
    pub(super) fn instead(&self, code: Code, status: &HeaderMap) -> Option<CallError> {
        match code {
            // Nothing of ours says so; tonic does of messages over the limit, in or out.
            Code::OutOfRange => {
                Some(CallError::TooLarge { bytes_max: self.gate.limits.message_bytes_max })
            }
            // Nothing of ours says that either, except for bugs.
            Code::Internal => {
                let status = Status::from_header_map(status);
                let text = status.as_ref().map_or("", Status::message);
                if MISFRAMED.iter().any(|known| text.starts_with(known)) {
                    Some(CallError::Misframed)
                } else {
                    Some(self.bug(text))
                }
            }
            _ => None,
        }
    }

    pub(super) fn answer(self, answer: Response<Body>) -> Response<AnswerBody> {
        let (parts, body) = answer.into_parts();
        match self.began(&parts.headers) {
            Began::Body(call) => Response::from_parts(parts, AnswerBody::of(body, Some(call))),
            Began::Over => Response::from_parts(parts, AnswerBody::of(body, None)),
            Began::Instead(end) => end.response(),
        }
    }

    /// The head of an answer is there.
    pub(super) fn began(mut self, head: &HeaderMap) -> Began {
        // An error without an answer comes in the head.
        let Some(code) = code(head) else {
            // The time to answer has been kept; only a stream goes on deciding.
            if !self.rpc.streams() {
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
pub(super) enum Began {
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
    }
}

/// How tonic's complaints about the bytes around a message begin. It calls them INTERNAL, but they
/// are the caller's mistake.
const MISFRAMED: [&str; 3] =
    ["protocol error: received message with", "Unexpected EOF decoding", "Missing request message"];

pub(super) fn code(headers: &HeaderMap) -> Option<Code> {
    headers.get(GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}

/// An error of ours, which ends a call.
pub(super) struct End {
    status: Status,
    /// The method's own response, if it has one.
    instead: Option<Response<Body>>,
}

impl End {
    pub(super) fn code(&self) -> Code {
        self.status.code()
    }

    pub(super) fn of(gate: &Gate, refusal: CallError, rpc: Rpc) -> Self {
        let instead = (gate.refusal)(rpc, &refusal);
        Self { status: refusal.into(), instead }
    }

    pub(super) fn response(self) -> Response<AnswerBody> {
        let response = self.instead.unwrap_or_else(|| self.status.into_http());
        response.map(|body| AnswerBody::of(body, None))
    }

    pub(super) fn trailers(self) -> Frame<Bytes> {
        let mut trailers = HeaderMap::new();
        if self.status.add_header(&mut trailers).is_err() {
            // Our texts and metadata fit into headers. If one did not, this must not look like OK.
            trailers.insert(GRPC_STATUS, HeaderValue::from_static("13"));
        }
        Frame::trailers(trailers)
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
    ) -> Result<Option<Self>, CallError> {
        let asked = headers.get("grpc-timeout").and_then(|text| timeout(text.as_bytes()));
        if asked.is_some_and(|asked| asked < TIMEOUT_MIN) {
            return Err(CallError::DeadlineExceeded);
        }
        let time = asked.into_iter().chain(rpc.time_max(limits)).min();
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
