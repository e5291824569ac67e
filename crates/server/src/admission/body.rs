//! The body of an answer, which carries its call to the end.

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

use super::call::{Began, Call, End, GRPC_STATUS, code};
use crate::error::CallError;

/// The body of an answer, which carries its call to the end.
pub(crate) struct AnswerBody {
    pub(super) rest: Rest,
    /// Nothing for calls that are over or never were counted.
    pub(super) call: Option<Call>,
}

/// What is still to come of an answer.
pub(super) enum Rest {
    /// All of it: only the head was sent.
    All(Pin<Box<dyn Answer>>),
    Body(Body),
    /// A message that is answered with, after which nothing can go wrong.
    Message(Bytes),
    /// That was sent.
    Ok,
    Nothing,
}

/// An answer that is being made, and may panic.
pub(super) trait Answer:
    Future<Output = Result<Answered, Box<dyn Any + Send>>> + Send
{
}
impl<F: Future<Output = Result<Answered, Box<dyn Any + Send>>> + Send> Answer for F {}

type Answered = Result<Response<Body>, Infallible>;
type Framed = Poll<Option<Result<Frame<Bytes>, Status>>>;

impl AnswerBody {
    pub(super) const fn of(body: Body, call: Option<Call>) -> Self {
        Self { rest: Rest::Body(body), call }
    }

    /// An answer of one message, whose call is over.
    pub(super) fn whole(message: Bytes) -> Response<Self> {
        let mut response = Response::new(Self { rest: Rest::Message(message), call: None });
        response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
        response
    }

    /// The head of an answer that is still being made. Whatever comes of it comes after the body.
    pub(super) fn head_first(inner: Box<dyn Answer>, mut call: Call) -> Response<Self> {
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
                Rest::Message(message) => {
                    let message = std::mem::take(message);
                    self.rest = Rest::Ok;
                    Poll::Ready(Some(Ok(Frame::data(message))))
                }
                Rest::Ok => {
                    self.rest = Rest::Nothing;
                    let trailers = [(GRPC_STATUS, HeaderValue::from_static("0"))];
                    Poll::Ready(Some(Ok(Frame::trailers(trailers.into_iter().collect()))))
                }
                Rest::All(_) | Rest::Nothing => Poll::Ready(None),
            };
        };
        // A stream whose batches come without a pause never waits, and must still end.
        if call.deadline.as_ref().is_some_and(|deadline| deadline.at <= Instant::now()) {
            return self.end(|call| call.refuse(CallError::DeadlineExceeded));
        }
        let polled = match &mut self.rest {
            Rest::Message(_) | Rest::Ok | Rest::Nothing => return Poll::Ready(None),
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
            Ok(Poll::Pending) => {
                let refusal = match call.hold() {
                    Ok(()) if call.is_late(cx) => CallError::DeadlineExceeded,
                    Ok(()) => return Poll::Pending,
                    Err(refusal) => refusal,
                };
                self.end(|call| call.refuse(refusal))
            }
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
            Rest::All(_) | Rest::Message(_) | Rest::Ok => false,
            Rest::Body(body) => body.is_end_stream(),
            Rest::Nothing => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            Rest::All(_) => SizeHint::default(),
            Rest::Message(message) => SizeHint::with_exact(message.len() as u64),
            Rest::Body(body) => body.size_hint(),
            Rest::Ok | Rest::Nothing => SizeHint::with_exact(0),
        }
    }
}
