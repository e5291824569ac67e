//! A call that was let in: its deadline, its permit once it waits, its measures, and how it ends.

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

use super::body::ResponseBody;
use super::{Permit, WorkerState};
use crate::authn::caller::Caller;
use crate::error::CallError;
use crate::limits::{HEAD_EARLY, Limits, TIMEOUT_MIN};
use crate::methods::Rpc;
use crate::telemetry::traces::CallSpan;
use crate::transport::connection::Remote;

/// Where a call's code stands: in the head of an answer without a body, else after the body.
pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// A call that was let in: its permit, its deadline and its measures.
#[derive(Debug)]
pub(crate) struct Call {
    worker: Arc<WorkerState>,
    rpc: Rpc,
    caller: Caller,
    /// Taken when it first waits.
    permit: Option<Permit>,
    started: Instant,
    pub(super) deadline: Option<Deadline>,
    pub(super) span: Option<CallSpan>,
    ended: bool,
}

#[derive(Debug)]
pub(super) struct Deadline {
    pub(super) at: Instant,
    /// Whether the client has said one, so that tonic keeps it too.
    from_client: bool,
    /// Set once the call has to wait.
    pub(super) sleep: Option<Pin<Box<Sleep>>>,
}

/// Whether a call can go on waiting.
pub(super) enum WaitOutcome {
    Wait,
    /// Not much longer.
    SendHeaders,
    Fail(CallError),
}

impl Call {
    pub(super) fn admit(
        worker: &Arc<WorkerState>,
        rpc: Rpc,
        started: Instant,
        request: &Request<Body>,
    ) -> Result<Self, CallError> {
        let deadline = Deadline::of(rpc, started, request.headers(), &worker.limits)?;
        let caller = Caller::of_connection(request.extensions().get::<Remote>());
        let span = match &worker.traces {
            Some(traces) if rpc != Rpc::OTHER => {
                traces.begin(request.uri().path(), request.headers(), fastrand::u64(..))
            }
            _ => None,
        };
        // A stream lives to wait.
        let permit = if rpc.streams() {
            Some(Permit::acquire(&worker.permits, &worker.metrics, caller.peer)?)
        } else {
            None
        };
        let worker = Arc::clone(worker);
        Ok(Self { worker, rpc, caller, permit, started, deadline, span, ended: false })
    }

    /// Whether it would find no permit if it had to wait: then it is turned away at once.
    pub(super) fn would_be_shed(&self) -> bool {
        self.permit.is_none()
            && self.worker.permits.would_shed(self.caller.peer, &self.worker.metrics)
    }

    /// A permit to wait in, if it has none yet.
    pub(super) fn acquire_permit(&mut self) -> Result<(), CallError> {
        if self.permit.is_none() {
            self.permit = Some(Permit::acquire(
                &self.worker.permits,
                &self.worker.metrics,
                self.caller.peer,
            )?);
        }
        Ok(())
    }

    /// Whether the call can go on waiting; if so, the task wakes when it no longer can.
    ///
    /// tonic's own timer for `grpc-timeout` stands around this layer, would answer CANCELLED, and
    /// is from_client right after we say that we wait: on a busy machine it can pass in between. It is
    /// for the head of an answer only, so shortly before the deadline we send the head.
    pub(super) fn poll_wait(&mut self, cx: &mut Context<'_>) -> WaitOutcome {
        if let Err(error) = self.acquire_permit() {
            return WaitOutcome::Fail(error);
        }
        let Some(Deadline { at, from_client, sleep }) = &mut self.deadline else {
            return WaitOutcome::Wait;
        };
        let now = Instant::now();
        if *at <= now {
            return WaitOutcome::Fail(CallError::DeadlineExceeded);
        }
        let until = if *from_client { at.checked_sub(HEAD_EARLY).unwrap_or(now) } else { *at };
        if until > now {
            let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
            if sleep.as_mut().poll(cx).is_pending() {
                return WaitOutcome::Wait;
            }
        }
        if *from_client {
            WaitOutcome::SendHeaders
        } else {
            WaitOutcome::Fail(CallError::DeadlineExceeded)
        }
    }

    /// Whether the deadline has passed; if not, the task wakes when it does.
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(Deadline { at, sleep, .. }) = &mut self.deadline else { return false };
        let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(*at)));
        sleep.as_mut().poll(cx).is_ready()
    }

    pub(super) fn end(&mut self, code: Code) {
        self.ended = true;
        self.worker.metrics.ended(self.rpc, code, self.started.elapsed());
        if let Some(span) = self.span.take() {
            span.ended(code);
        }
    }

    /// Ends the call with an error of ours.
    pub(super) fn fail(mut self, error: CallError) -> ErrorReply {
        let end = ErrorReply::new(&self.worker, error, self.rpc);
        self.end(end.code());
        end
    }

    pub(super) fn panicked(self, panic: &(dyn Any + Send)) -> ErrorReply {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(|text| &**text));
        self.worker.metrics.panicked();
        let bug = self.bug(text.unwrap_or("a panic without words"));
        self.fail(bug)
    }

    /// A bug's text is for the log: a caller gets a number to quote.
    fn bug(&self, text: &str) -> CallError {
        let correlation = format!("{:016x}", fastrand::u64(..));
        tracing::error!(correlation, rpc = self.rpc.name(), "internal error: {text}");
        CallError::Bug { correlation }
    }

    /// What must be said instead of what tonic says, if anything must.
    pub(super) fn replacement(&self, code: Code, status: &HeaderMap) -> Option<CallError> {
        match code {
            // Nothing of ours says so; tonic does of messages over the limit, in or out.
            Code::OutOfRange => {
                Some(CallError::TooLarge { bytes_max: self.worker.limits.message_bytes_max })
            }
            // Nothing of ours says that either, except for bugs.
            Code::Internal => {
                let status = Status::from_header_map(status);
                let text = status.as_ref().map_or("", Status::message);
                if FRAMING_ERRORS.iter().any(|known| text.starts_with(known)) {
                    Some(CallError::InvalidFraming)
                } else {
                    Some(self.bug(text))
                }
            }
            _ => None,
        }
    }

    pub(super) fn respond(self, answer: Response<Body>) -> Response<ResponseBody> {
        let (parts, body) = answer.into_parts();
        match self.on_headers(&parts.headers) {
            HeadersOutcome::Body(call) => {
                Response::from_parts(parts, ResponseBody::new(body, Some(call)))
            }
            HeadersOutcome::Ended => Response::from_parts(parts, ResponseBody::new(body, None)),
            HeadersOutcome::Replaced(end) => end.into_response(),
        }
    }

    /// The head of an answer is there.
    pub(super) fn on_headers(mut self, head: &HeaderMap) -> HeadersOutcome {
        // An error without an answer comes in the head.
        let Some(code) = code(head) else {
            // The time to answer has been kept; only a stream goes on deciding.
            if !self.rpc.streams() {
                self.deadline = None;
            }
            return HeadersOutcome::Body(self);
        };
        if let Some(error) = self.replacement(code, head) {
            return HeadersOutcome::Replaced(self.fail(error));
        }
        self.end(code);
        HeadersOutcome::Ended
    }
}

/// What the head of an answer says.
pub(super) enum HeadersOutcome {
    Body(Call),
    Ended,
    /// Something else must be said.
    Replaced(ErrorReply),
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            // Whoever from_client has gone, or has reset the stream.
            self.end(Code::Cancelled);
        }
    }
}

/// How tonic's complaints about the bytes around a message begin. It calls them INTERNAL, but they
/// are the caller's mistake.
const FRAMING_ERRORS: [&str; 3] =
    ["protocol error: received message with", "Unexpected EOF decoding", "Missing request message"];

pub(super) fn code(headers: &HeaderMap) -> Option<Code> {
    headers.get(GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}

/// An error of ours, which ends a call.
pub(super) struct ErrorReply {
    status: Status,
    /// The method's own response, if it has one.
    response: Option<Response<Body>>,
}

impl ErrorReply {
    pub(super) fn code(&self) -> Code {
        self.status.code()
    }

    pub(super) fn new(worker: &WorkerState, error: CallError, rpc: Rpc) -> Self {
        let response = (worker.error_responder)(rpc, &error);
        Self { status: error.into(), response }
    }

    pub(super) fn into_response(self) -> Response<ResponseBody> {
        let response = self.response.unwrap_or_else(|| self.status.into_http());
        response.map(|body| ResponseBody::new(body, None))
    }

    pub(super) fn into_trailers(self) -> Frame<Bytes> {
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
        let from_client = headers.get("grpc-timeout").and_then(|text| timeout(text.as_bytes()));
        if from_client.is_some_and(|from_client| from_client < TIMEOUT_MIN) {
            return Err(CallError::DeadlineExceeded);
        }
        let time = from_client.into_iter().chain(rpc.time_max(limits)).min();
        // A time that no clock can show is no deadline.
        let at = time.and_then(|time| started.checked_add(time));
        Ok(at.map(|at| Self { at, from_client: from_client.is_some(), sleep: None }))
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
