//! An admitted call: its deadline, its permit if it waits, its measures, and its end.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use capstan_proto::contract::{TIMEOUT_KEY, timeout};
use http_body::Frame;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tonic::{Code, Status};

use super::body::ResponseBody;
use super::{Class, Permit, Permits, WorkerState};
use crate::error::CallError;
use crate::limits::TIMEOUT_MIN;
use crate::methods::{Probe, Rpc};
use crate::telemetry::traces::{CallSpan, Sampled};
use crate::transport::connection::Remote;
use crate::transport::peers::Peer;

/// The gRPC code: in the headers of a response without a body, else in the trailers.
pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// An admitted call. Dropped before its end, it is counted as CANCELLED.
#[derive(Debug)]
pub(crate) struct Call {
    worker: Arc<WorkerState>,
    rpc: Rpc,
    /// Set for health and reflection.
    probe: Option<Probe>,
    peer: Peer,
    /// Acquired when the call first waits; for a stream, when it starts.
    permit: Option<Permit>,
    started: Instant,
    pub(super) deadline: Option<Deadline>,
    pub(super) span: Option<CallSpan>,
    ended: bool,
}

#[derive(Debug)]
pub(super) struct Deadline {
    pub(super) at: Instant,
    /// Set once the call has to wait.
    pub(super) sleep: Option<Pin<Box<Sleep>>>,
}

impl Call {
    /// Admits a call: reads its deadline, starts its span, and acquires the permit of a stream or of a
    /// probe.
    ///
    /// # Errors
    ///
    /// The reply to a call whose deadline has passed, or for which no permit is left. It is counted.
    pub(super) fn admit(
        worker: &Arc<WorkerState>,
        started: Instant,
        request: &mut Request<Body>,
    ) -> Result<Self, Box<ErrorReply>> {
        let path = request.uri().path();
        let rpc = Rpc::from_path(path);
        let probe = if rpc == Rpc::OTHER { Probe::of(path) } else { None };
        let peer = Peer::of(request.extensions().get::<Remote>());
        let mut call = Self {
            worker: Arc::clone(worker),
            rpc,
            probe,
            peer,
            permit: None,
            started,
            deadline: None,
            span: None,
            ended: false,
        };
        let streams = probe.map_or(rpc.streams(), |probe| probe == Probe::Stream);
        let most = match probe {
            Some(_) => (!streams).then_some(worker.limits.unary_time_max),
            None => rpc.time_max(&worker.limits),
        };
        match Deadline::of(most, started, request.headers()) {
            Ok(deadline) => call.deadline = deadline,
            Err(error) => return Err(Box::new(call.fail(error))),
        }
        // A stream always waits for its client. There are few probes, and they are cheap to admit.
        if (streams || probe.is_some())
            && let Err(error) = call.acquire_permit()
        {
            return Err(Box::new(call.fail(error)));
        }
        // After the permit: a span that begins also ends, with the status of its call.
        call.span = match &worker.traces {
            Some(traces) if rpc != Rpc::OTHER => match request.extensions_mut().remove() {
                Some(Sampled(span)) => span,
                None => traces.begin(request.uri().path(), request.headers(), fastrand::u64(..)),
            },
            _ => None,
        };
        Ok(call)
    }

    /// Whether the call would get no permit if it had to wait; it is then shed at once.
    pub(super) fn would_be_shed(&self) -> bool {
        self.permit.is_none() && self.permits().would_shed(self.peer, &self.worker.metrics)
    }

    /// Acquires a permit, if the call has none yet.
    ///
    /// # Errors
    ///
    /// [`CallError::Overloaded`]: no permit is left, in the server or for the peer.
    fn acquire_permit(&mut self) -> Result<(), CallError> {
        if self.permit.is_none() {
            let permit = Permit::acquire(self.permits(), &self.worker.metrics, self.peer)?;
            self.permit = Some(permit);
        }
        Ok(())
    }

    fn permits(&self) -> &Arc<Permits> {
        let class = match self.probe {
            Some(_) => Class::Probe,
            None if self.rpc.manages() => Class::Management,
            None => Class::Decision,
        };
        self.worker.permits.of(class)
    }

    /// The error that ends a call which the service has left pending. If the call waits on, its task
    /// wakes at its deadline.
    pub(super) fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<CallError> {
        match self.acquire_permit() {
            Ok(()) if self.poll_deadline(cx) => Poll::Ready(CallError::DeadlineExceeded),
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(error),
        }
    }

    /// Whether the deadline has passed. If not, the task wakes when it does.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(Deadline { at, sleep }) = &mut self.deadline else { return false };
        let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(*at)));
        sleep.as_mut().poll(cx).is_ready()
    }

    /// Counts the call and ends its span.
    pub(super) fn end(&mut self, code: Code) {
        self.ended = true;
        if self.probe.is_none() {
            self.worker.metrics.ended(self.rpc, code, self.started.elapsed());
        }
        if let Some(span) = self.span.take() {
            span.ended(code);
        }
    }

    /// Ends the call with an error.
    pub(super) fn fail(mut self, error: CallError) -> ErrorReply {
        let end = ErrorReply::new(&self.worker, error, self.rpc);
        self.end(end.code());
        end
    }

    /// Ends the call after a panic of its service.
    pub(super) fn panicked(self, panic: &(dyn Any + Send)) -> ErrorReply {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(|text| &**text));
        self.worker.metrics.panicked();
        let bug = self.bug(text.unwrap_or("a panic without words"));
        self.fail(bug)
    }

    /// The error of a bug. Its text goes to the log; the caller gets the id of the log line.
    fn bug(&self, text: &str) -> CallError {
        let correlation = format!("{:016x}", fastrand::u64(..));
        tracing::error!(correlation, rpc = self.rpc.name(), "internal error: {text}");
        CallError::Bug { correlation }
    }

    /// The error that replaces a status of tonic, or `None` to keep the status.
    pub(super) fn replacement(&self, code: Code, status: &HeaderMap) -> Option<CallError> {
        match code {
            // No service returns OUT_OF_RANGE; the transport does for a request above its limit, and
            // tonic for a response.
            Code::OutOfRange => {
                let limits = &self.worker.limits;
                let text = Status::from_header_map(status);
                let is_response =
                    text.is_some_and(|status| status.message().starts_with(RESPONSE_TOO_LARGE));
                let bytes_max = match self.probe {
                    _ if is_response => limits.message_bytes_max,
                    Some(probe) => probe.request_bytes_max(),
                    None => self.rpc.request_bytes_max(limits),
                };
                Some(CallError::TooLarge { bytes_max })
            }
            // No service returns INTERNAL either, except for bugs.
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

    /// The service has sent its response headers.
    pub(super) fn on_headers(mut self, head: &HeaderMap) -> HeadersOutcome {
        // A response without a body has its code in the headers.
        let Some(code) = code(head) else {
            // The service has answered in time. Only a stream still decides, and keeps its
            // deadline.
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

/// What the response headers of the service mean.
pub(super) enum HeadersOutcome {
    /// A body follows.
    Body(Call),
    /// The call has ended: the headers have its code.
    Ended,
    /// Another error replaces the response.
    Replaced(ErrorReply),
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            // The client has disconnected, or has reset the stream.
            self.end(Code::Cancelled);
        }
    }
}

/// The prefix of tonic's message about a response above the limit.
const RESPONSE_TOO_LARGE: &str = "Error, encoded";

/// Prefixes of tonic's messages about malformed framing. tonic uses INTERNAL for them, but they are
/// errors of the client.
const FRAMING_ERRORS: [&str; 3] =
    ["protocol error: received message with", "Unexpected EOF decoding", "Missing request message"];

pub(super) fn code(headers: &HeaderMap) -> Option<Code> {
    headers.get(GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}

/// The response to a call that ended with an error.
pub(super) struct ErrorReply {
    status: Status,
    /// The method's own response; `None` for a gRPC status.
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
            // Our messages and metadata are valid in headers. Should one not be, the trailers must
            // not mean OK.
            trailers.insert(GRPC_STATUS, HeaderValue::from_static("13"));
        }
        Frame::trailers(trailers)
    }
}

// === Deadlines ===

impl Deadline {
    /// The deadline of a call: the client's, but no later than the server's own, `most` from its start.
    ///
    /// # Errors
    ///
    /// [`CallError::DeadlineExceeded`]: the client's timeout is below [`TIMEOUT_MIN`].
    fn of(
        most: Option<Duration>,
        started: Instant,
        headers: &HeaderMap,
    ) -> Result<Option<Self>, CallError> {
        if has_expired(headers) {
            return Err(CallError::DeadlineExceeded);
        }
        let time = client_timeout(headers).into_iter().chain(most).min();
        // A time beyond the range of [`Instant`] is no deadline.
        let at = time.and_then(|time| started.checked_add(time));
        Ok(at.map(|at| Self { at, sleep: None }))
    }
}

/// Whether the client's timeout is over when its call arrives.
pub(super) fn has_expired(headers: &HeaderMap) -> bool {
    client_timeout(headers).is_some_and(|timeout| timeout < TIMEOUT_MIN)
}

fn client_timeout(headers: &HeaderMap) -> Option<Duration> {
    // Requests have few headers: comparing their names is faster than hashing one.
    let (_, text) = headers.iter().find(|(name, _)| *name == TIMEOUT_KEY)?;
    // Any other value is ignored, as tonic does.
    timeout(text.as_bytes())
}
