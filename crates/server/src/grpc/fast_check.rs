//! Plain checks, answered without tonic's machinery: a quarter of a call's time is tonic's and
//! axum's own above HTTP/2 (`docs/PERFORMANCE.md`), and most calls of most clients are these.
//!
//! A check is plain if its message has come whole, uncompressed, in one frame that ends the stream, and says
//! who, what and where and nothing else. Its strings are borrowed from the frame. Every other call,
//! and every one that is answered with an error, goes tonic's way: what was read of it is put back, so
//! that both ways give the same state, limits and errors.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use capstan_engine::Attributes;
use capstan_proto::frame::{Header, framed};
use capstan_proto::plain::names;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::Service;
use tonic::codegen::http::{Method, Request, Response};

use super::convert;
use crate::admission::{InnerService, Started};
use crate::ask::{Ask, Basis};
use crate::clock::Clock;
use crate::feed::Published;
use crate::methods::Rpc;

/// Stands between admission and the services, and state plain checks.
#[derive(Clone, Debug)]
pub(crate) struct FastCheck<S> {
    inner: S,
    /// Behind a reference: the stack of services is cloned for every call.
    state: Arc<FastCheckState>,
}

/// What plain checks are answered from.
#[derive(Debug)]
pub(crate) struct FastCheckState {
    pub(crate) published: Arc<Published>,
    pub(crate) ask: Ask,
    pub(crate) clock: Clock,
    pub(crate) message_bytes_max: usize,
}

/// Puts [`FastCheck`] in front of what serves every call.
#[derive(Clone, Debug)]
pub(crate) struct FastCheckLayer(pub(crate) Arc<FastCheckState>);

impl<S> tower::Layer<S> for FastCheckLayer {
    type Service = FastCheck<S>;

    fn layer(&self, inner: S) -> FastCheck<S> {
        FastCheck { inner, state: Arc::clone(&self.0) }
    }
}

impl<S> InnerService for FastCheck<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn begin(&mut self, rpc: Rpc, mut request: Request<Body>, traced: bool) -> Started<S::Future> {
        // A call with a span is told to the services by its extensions.
        if rpc == Rpc::CHECK
            && !traced
            && let Some(message) = self.state.answer(&mut request)
        {
            return Started::Done(message);
        }
        Started::Pending(self.inner.call(request))
    }
}

impl FastCheckState {
    /// The answer to a call of Check, framed, if it is a plain one and need not wait.
    fn answer(&self, request: &mut Request<Body>) -> Option<Bytes> {
        if request.method() != Method::POST || request.headers().contains_key("grpc-encoding") {
            return None;
        }
        // The next poll of the body registers a waker.
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
            *request.body_mut() = Body::new(ReplayBody { read: Some(read), rest });
        }
        answer
    }

    fn check(&self, frame: &[u8]) -> Option<Bytes> {
        let (header, message) = Header::read(frame)?;
        let whole = Header { compressed: false, length: message.len() };
        if header != whole || message.len() > self.message_bytes_max {
            return None;
        }
        // What is logged takes the usual way: its names are copied in any case.
        if self.ask.logs() {
            return None;
        }
        let current = self.published.load();
        let snapshot = &current.as_deref()?.snapshot;
        let basis = Basis::new(Rpc::CHECK, snapshot, self.clock.now());
        // An error, too, takes the usual way.
        let decision = self.ask.check(basis, names(message)?, Attributes::NONE).ok()?;
        Some(framed(&convert::check_response(decision, snapshot.revision())))
    }
}

type PolledFrame = Option<Result<Frame<Bytes>, Status>>;

/// A body of which a part was read, and is there again.
struct ReplayBody {
    /// Nothing once it was taken again; within, nothing if the body had ended.
    read: Option<PolledFrame>,
    rest: Body,
}

impl HttpBody for ReplayBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<PolledFrame> {
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
