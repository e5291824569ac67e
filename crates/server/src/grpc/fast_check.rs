//! The fast path: answers plain checks without tonic. Above HTTP/2, tonic and axum took 16,500 of the
//! 55,500 instructions of a call (`docs/PERFORMANCE.md`). A call that is traced, and every call of a server
//! with a decision log, takes the usual way.
//!
//! A check is plain here if its message arrives whole and uncompressed, in one frame that ends the
//! stream, and has only identity, capability and resource. The three strings are borrowed from the
//! frame.
//!
//! **Invariant**: any other call, and any call that gets an error, goes to the generated service,
//! with the frame put back into its body. So both paths give the same responses, limits and errors.

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

/// A service between admission and the generated services. It answers plain checks.
#[derive(Clone, Debug)]
pub(crate) struct FastCheck<S> {
    inner: S,
    /// Shared, because the stack of services is cloned for every call.
    state: Arc<FastCheckState>,
}

/// The state that plain checks are answered from.
#[derive(Debug)]
pub(crate) struct FastCheckState {
    pub(crate) published: Arc<Published>,
    pub(crate) ask: Ask,
    pub(crate) clock: Clock,
    pub(crate) message_bytes_max: usize,
}

/// The layer that adds [`FastCheck`].
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
        // A call with a span takes the slow path, where its extensions hold the span.
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
    /// The framed response to a call of Check, if the check is plain and the answer needs no wait.
    fn answer(&self, request: &mut Request<Body>) -> Option<Bytes> {
        if request.method() != Method::POST || request.headers().contains_key("grpc-encoding") {
            return None;
        }
        // No waker is needed: the next poll of the body registers one.
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
        // Logged checks take the slow path, which copies their names anyway.
        if self.ask.logs() {
            return None;
        }
        let current = self.published.load();
        let snapshot = &current.as_deref()?.snapshot;
        let basis = Basis::new(Rpc::CHECK, snapshot, self.clock.now());
        // An error takes the slow path.
        let decision = self.ask.check(basis, names(message)?, Attributes::NONE).ok()?;
        Some(framed(&convert::check_response(decision, snapshot.revision())))
    }
}

type PolledFrame = Option<Result<Frame<Bytes>, Status>>;

/// A body from which one frame was read, with that frame put back.
struct ReplayBody {
    /// The frame, or the end of the body (`Some(None)`); `None` once it has been read again.
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
