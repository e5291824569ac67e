//! Calls that have arrived. The task of the connection reads the first bytes of their bodies.

use std::mem;
use std::task::{Context, Poll, Waker};

use h2::RecvStream;
use h2::server::SendResponse;
use tokio::time::Instant;
use tonic::codegen::Bytes;
use tonic::codegen::http::header::CONTENT_TYPE;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue, Response};
use tonic::metadata::GRPC_CONTENT_TYPE;

use super::Intake;
use crate::limits::SHORT_BODY_MAX;

/// A call that has neither started nor ended.
pub(super) struct NewCall {
    pub(super) head: Parts,
    pub(super) body: RecvStream,
    /// `None` once the call is answered, or has left.
    respond: Option<SendResponse<Bytes>>,
    /// The chunks so far. Almost always there is one.
    read: Vec<Bytes>,
    bytes: usize,
    pub(super) intake: Intake,
    pub(super) since: Instant,
}

/// What reading has come to.
pub(super) enum Reading {
    /// More is to come.
    Waits,
    /// The body is complete.
    Whole,
    /// The body is too long to be read before the call starts.
    Long,
    /// The client has reset the stream, or has disconnected.
    Gone,
}

impl NewCall {
    pub(super) const fn new(
        head: Parts,
        body: RecvStream,
        respond: SendResponse<Bytes>,
        intake: Intake,
        since: Instant,
    ) -> Self {
        Self { head, body, respond: Some(respond), read: Vec::new(), bytes: 0, intake, since }
    }

    /// Whether the call is neither answered nor gone.
    pub(super) const fn is_open(&self) -> bool {
        self.respond.is_some()
    }

    /// Reads what has arrived. No waker is needed: a chunk arrives only when the connection is
    /// polled, and after that this is called again.
    pub(super) fn read(&mut self) -> Reading {
        let mut cx = Context::from_waker(Waker::noop());
        while !self.body.is_end_stream() {
            match self.body.poll_data(&mut cx) {
                Poll::Ready(Some(Ok(chunk))) => {
                    self.bytes = self.bytes.saturating_add(chunk.len());
                    self.read.push(chunk);
                    if self.bytes > SHORT_BODY_MAX {
                        return Reading::Long;
                    }
                }
                Poll::Ready(Some(Err(_))) => {
                    self.respond = None;
                    return Reading::Gone;
                }
                // Trailers follow, which no method reads.
                Poll::Ready(None) => break,
                Poll::Pending => return Reading::Waits,
            }
        }
        Reading::Whole
    }

    /// The bytes that were read, in one piece.
    pub(super) fn bytes(&self) -> Bytes {
        match self.read.as_slice() {
            [whole] => whole.clone(),
            chunks => chunks.concat().into(),
        }
    }

    /// Releases the flow control capacity of the chunks so far, and takes them out.
    pub(super) fn take_read(&mut self) -> Vec<Bytes> {
        // An error means that the stream has ended; whoever reads on sees it.
        let _ = self.body.flow_control().release_capacity(mem::take(&mut self.bytes));
        mem::take(&mut self.read)
    }

    pub(super) const fn take_respond(&mut self) -> Option<SendResponse<Bytes>> {
        self.respond.take()
    }

    /// Sends an OK response of one message: HEADERS, DATA and HEADERS, which h2 writes together.
    ///
    /// # Errors
    ///
    /// The client has reset the stream, or has disconnected.
    pub(super) fn send_ok(&mut self, message: Bytes) -> Result<(), h2::Error> {
        let Some(mut respond) = self.respond.take() else { return Ok(()) };
        let mut head = Response::new(());
        head.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
        let mut stream = respond.send_response(head, false)?;
        stream.send_data(message, false)?;
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
        stream.send_trailers(trailers)
    }
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
