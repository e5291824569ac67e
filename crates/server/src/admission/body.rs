//! The body of a response. It owns its call until the response ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::{Code, Status};

use super::call::{Call, ErrorReply, code};
use crate::error::CallError;

/// The body of a response. It owns its call until the response ends.
pub(crate) struct ResponseBody {
    /// `None` once nothing is left to send.
    body: Option<Body>,
    /// `None` for a call that has ended, or that bypasses admission.
    pub(super) call: Option<Call>,
}

type PollFrame = Poll<Option<Result<Frame<Bytes>, Status>>>;

impl ResponseBody {
    pub(super) const fn new(body: Body, call: Option<Call>) -> Self {
        Self { body: Some(body), call }
    }

    /// Ends the call and the body with an error.
    fn end(&mut self, reply: impl FnOnce(Call) -> ErrorReply) -> PollFrame {
        self.body = None;
        Poll::Ready(self.call.take().map(|call| Ok(reply(call).into_trailers())))
    }

    fn end_call(&mut self, code: Code) {
        if let Some(mut call) = self.call.take() {
            call.end(code);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> PollFrame {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let Some(call) = &mut self.call else { return Pin::new(body).poll_frame(cx) };
        // A stream whose batches never pause is never `Pending`, and must still end at its
        // deadline.
        if call.deadline.as_ref().is_some_and(|deadline| deadline.at <= Instant::now()) {
            return self.end(|call| call.fail(CallError::DeadlineExceeded));
        }
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(cx)));
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
            Ok(Poll::Pending) => match call.poll_wait(cx) {
                Poll::Ready(error) => self.end(|call| call.fail(error)),
                Poll::Pending => Poll::Pending,
            },
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
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}
