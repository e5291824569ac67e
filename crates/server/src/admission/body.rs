//! The body of a response. It owns its call until the response ends.

use std::any::Any;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::header::CONTENT_TYPE;
use tonic::codegen::http::{HeaderValue, Response};
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic::{Code, Status};

use super::call::{Call, ErrorReply, GRPC_STATUS, HeadersOutcome, code};
use crate::error::CallError;

/// The body of a response. It owns its call until the response ends.
pub(crate) struct ResponseBody {
    pub(super) state: BodyState,
    /// `None` for a call that has ended, or that bypasses admission.
    pub(super) call: Option<Call>,
}

/// The part of a response that is still to be sent.
pub(super) enum BodyState {
    /// Everything but the headers, which were sent before the service answered.
    Call(Pin<Box<dyn CallFuture>>),
    /// The body of the service.
    Body(Body),
    /// One complete message. Nothing after it can fail.
    Message(Bytes),
    /// The trailers of an OK response.
    Trailers,
    /// Nothing.
    End,
}

/// A service's future, with its panic caught.
pub(super) trait CallFuture:
    Future<Output = Result<CallResult, Box<dyn Any + Send>>> + Send
{
}
impl<F: Future<Output = Result<CallResult, Box<dyn Any + Send>>> + Send> CallFuture for F {}

type CallResult = Result<Response<Body>, Infallible>;
type PollFrame = Poll<Option<Result<Frame<Bytes>, Status>>>;

impl ResponseBody {
    pub(super) const fn new(body: Body, call: Option<Call>) -> Self {
        Self { state: BodyState::Body(body), call }
    }

    /// A response of one message, whose call has ended.
    pub(super) fn unary_ok(message: Bytes) -> Response<Self> {
        let mut response = Response::new(Self { state: BodyState::Message(message), call: None });
        response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
        response
    }

    /// A response whose headers are sent before the service answers. An error of the service comes
    /// in the trailers.
    pub(super) fn headers_first(inner: Box<dyn CallFuture>, mut call: Call) -> Response<Self> {
        if let Some(deadline) = &mut call.deadline {
            // The timer was for the headers.
            deadline.sleep = None;
        }
        let state = BodyState::Call(Box::into_pin(inner));
        let mut response = Response::new(Self { state, call: Some(call) });
        response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
        response
    }

    /// Ends the call and the body with an error.
    fn end(&mut self, reply: impl FnOnce(Call) -> ErrorReply) -> PollFrame {
        self.state = BodyState::End;
        Poll::Ready(self.call.take().map(|call| Ok(reply(call).into_trailers())))
    }

    fn end_call(&mut self, code: Code) {
        if let Some(mut call) = self.call.take() {
            call.end(code);
        }
    }

    /// The service has answered after the headers were sent. Sends its error in the trailers, or
    /// starts its body.
    fn call_done(&mut self, answer: Response<Body>, cx: &mut Context<'_>) -> PollFrame {
        let (mut parts, body) = answer.into_parts();
        self.state = BodyState::End;
        let Some(call) = self.call.take() else { return Poll::Ready(None) };
        match call.on_headers(&parts.headers) {
            HeadersOutcome::Body(call) => {
                *self = Self::new(body, Some(call));
                self.poll(cx)
            }
            HeadersOutcome::Ended => {
                parts.headers.remove(CONTENT_TYPE);
                Poll::Ready(Some(Ok(Frame::trailers(parts.headers))))
            }
            HeadersOutcome::Replaced(end) => Poll::Ready(Some(Ok(end.into_trailers()))),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> PollFrame {
        let Some(call) = &mut self.call else {
            return match &mut self.state {
                BodyState::Body(body) => Pin::new(body).poll_frame(cx),
                BodyState::Message(message) => {
                    let message = std::mem::take(message);
                    self.state = BodyState::Trailers;
                    Poll::Ready(Some(Ok(Frame::data(message))))
                }
                BodyState::Trailers => {
                    self.state = BodyState::End;
                    let trailers = [(GRPC_STATUS, HeaderValue::from_static("0"))];
                    Poll::Ready(Some(Ok(Frame::trailers(trailers.into_iter().collect()))))
                }
                BodyState::Call(_) | BodyState::End => Poll::Ready(None),
            };
        };
        // A stream whose batches never pause is never `Pending`, and must still end at its
        // deadline.
        if call.deadline.as_ref().is_some_and(|deadline| deadline.at <= Instant::now()) {
            return self.end(|call| call.fail(CallError::DeadlineExceeded));
        }
        let polled = match &mut self.state {
            BodyState::Message(_) | BodyState::Trailers | BodyState::End => {
                return Poll::Ready(None);
            }
            BodyState::Call(answer) => match answer.as_mut().poll(cx) {
                Poll::Ready(Ok(Ok(answer))) => return self.call_done(answer, cx),
                Poll::Ready(Err(panic)) => Err(panic),
                Poll::Pending => Ok(Poll::Pending),
            },
            BodyState::Body(body) => {
                catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(cx)))
            }
        };
        match polled {
            Ok(Poll::Ready(Some(Ok(frame)))) => {
                let Some(trailers) = frame.trailers_ref() else {
                    return Poll::Ready(Some(Ok(frame)));
                };
                let code = code(trailers).unwrap_or(Code::Unknown);
                if let Some(error) = call.replacement(code, trailers) {
                    return self.end(|call| call.fail(error));
                }
                self.end_call(code);
                Poll::Ready(Some(Ok(frame)))
            }
            Ok(Poll::Ready(Some(Err(status)))) => {
                self.end_call(status.code());
                Poll::Ready(Some(Err(status)))
            }
            Ok(Poll::Ready(None)) => {
                self.end_call(Code::Unknown);
                Poll::Ready(None)
            }
            Ok(Poll::Pending) => {
                let error = match call.acquire_permit() {
                    Ok(()) if call.poll_deadline(cx) => CallError::DeadlineExceeded,
                    Ok(()) => return Poll::Pending,
                    Err(error) => error,
                };
                self.end(|call| call.fail(error))
            }
            Err(panic) => self.end(|call| call.panicked(&*panic)),
        }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PollFrame {
        self.poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            BodyState::Call(_) | BodyState::Message(_) | BodyState::Trailers => false,
            BodyState::Body(body) => body.is_end_stream(),
            BodyState::End => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            BodyState::Call(_) => SizeHint::default(),
            BodyState::Message(message) => SizeHint::with_exact(message.len() as u64),
            BodyState::Body(body) => body.size_hint(),
            BodyState::Trailers | BodyState::End => SizeHint::with_exact(0),
        }
    }
}
