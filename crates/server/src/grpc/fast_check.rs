//! Plain checks, answered without tonic's machinery: a quarter of a call's time is tonic's and
//! axum's own above HTTP/2 (`docs/PERFORMANCE.md`), and most calls of most clients are these.
//!
//! A check is plain if its message has come whole, uncompressed, in one frame that ends the stream, and says
//! who, what and where and nothing else. Its strings are borrowed from the frame. Every other call,
//! and every one that is answered with an error, goes tonic's way: what was read of it is put back, so
//! that both ways give the same answers, limits and errors.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use capstan_proto::frame::{Header, framed};
use capstan_proto::plain::names;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::{Method, Request};

use crate::grpc::decision::Services;

/// Answers plain checks.
#[derive(Debug)]
pub(crate) struct Direct {
    services: Services,
    message_bytes_max: usize,
}

impl Direct {
    pub(crate) const fn new(services: Services, message_bytes_max: usize) -> Self {
        Self { services, message_bytes_max }
    }

    /// The answer to a call of Check, framed, if it is a plain one and need not wait.
    pub(crate) fn answer(&self, request: &mut Request<Body>) -> Option<Bytes> {
        if request.method() != Method::POST || request.headers().contains_key("grpc-encoding") {
            return None;
        }
        // Whoever polls the body next says whom to wake.
        let mut cx = Context::from_waker(Waker::noop());
        let read = match Pin::new(request.body_mut()).poll_frame(&mut cx) {
            Poll::Ready(read) => read,
            Poll::Pending => return None,
        };
        let ends = request.body().is_end_stream();
        let data = read.as_ref().and_then(|read| read.as_ref().ok()?.data_ref());
        let answer = data.filter(|_| ends).and_then(|frame| self.check(frame));
        if answer.is_none() {
            let rest = std::mem::take(request.body_mut());
            *request.body_mut() = Body::new(PutBack { read: Some(read), rest });
        }
        answer
    }

    fn check(&self, frame: &[u8]) -> Option<Bytes> {
        let (header, message) = Header::read(frame)?;
        let whole = Header { compressed: false, length: message.len() };
        if header != whole || message.len() > self.message_bytes_max {
            return None;
        }
        let answer = self.services.check_at_once(names(message)?)?;
        Some(framed(&answer))
    }
}

type Read = Option<Result<Frame<Bytes>, Status>>;

/// A body of which a part was read, and is there again.
struct PutBack {
    /// Nothing once it was taken again; within, nothing if the body had ended.
    read: Option<Read>,
    rest: Body,
}

impl HttpBody for PutBack {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Read> {
        match self.read.take() {
            Some(Some(read)) => Poll::Ready(Some(read)),
            Some(None) => {
                self.rest = Body::empty();
                Poll::Ready(None)
            }
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
