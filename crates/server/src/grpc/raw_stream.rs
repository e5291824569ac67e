//! The messages of StreamCheck without tonic's buffers, which would copy every batch and every response.
//!
//! **Invariant**: whatever is not a whole message without compression goes to tonic's decoder, with all bytes
//! before it. So malformed streams get tonic's errors.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use capstan_proto::codec::{Codec, MessageDecoder};
use capstan_proto::frame::{HEADER_BYTES, Header, framed};
use capstan_proto::plain::BatchRequest;
use capstan_proto::v1::BatchCheckResponse;
use futures_util::Stream;
use http_body::{Body as HttpBody, Frame};
use tonic::body::Body;
use tonic::codec::Codec as _;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic::{Code, Status, Streaming};

use super::decision::ResponseStream;

/// The batches of a body.
pub(super) struct Batches {
    source: Source,
    /// The start of a message.
    part: Vec<u8>,
    message_bytes_max: usize,
}

enum Source {
    Raw(Body),
    Tonic(Box<Streaming<BatchRequest>>),
}

/// What the bytes so far are.
enum Message {
    Whole,
    Incomplete,
    /// For tonic.
    Other,
}

impl Batches {
    pub(super) const fn new(body: Body, message_bytes_max: usize) -> Self {
        Self { source: Source::Raw(body), part: Vec::new(), message_bytes_max }
    }

    fn what(&self, bytes: &[u8]) -> Message {
        match Header::read(bytes) {
            Some((Header { compressed: false, length }, rest))
                if length <= self.message_bytes_max && rest.len() <= length =>
            {
                if rest.len() == length { Message::Whole } else { Message::Incomplete }
            }
            _ => Message::Other,
        }
    }

    /// Leaves the rest to tonic.
    fn hand_over(&mut self, first: Bytes) {
        if let Source::Raw(body) = &mut self.source {
            let rest = std::mem::take(body);
            let body = Rejoined { first: Some(first).filter(|first| !first.is_empty()), rest };
            let decoder: MessageDecoder<BatchRequest> =
                Codec::<BatchCheckResponse, BatchRequest>::default().decoder();
            let most = Some(self.message_bytes_max);
            let stream = Streaming::new_request(decoder, body, None, most);
            self.source = Source::Tonic(Box::new(stream));
        }
    }
}

impl Stream for Batches {
    type Item = Result<BatchRequest, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let body = match &mut this.source {
                Source::Raw(body) => body,
                Source::Tonic(stream) => return Pin::new(&mut **stream).poll_next(cx),
            };
            let data = match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                // The client has left, which ends its stream, as in tonic.
                Some(Err(status)) if status.code() == Code::Cancelled => return Poll::Ready(None),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None if this.part.is_empty() => return Poll::Ready(None),
                None => {
                    let part = std::mem::take(&mut this.part);
                    this.hand_over(part.into());
                    continue;
                }
            };
            let bytes = if this.part.is_empty() {
                data
            } else {
                this.part.extend_from_slice(&data);
                std::mem::take(&mut this.part).into()
            };
            match this.what(&bytes) {
                Message::Whole => {
                    return Poll::Ready(Some(BatchRequest::read(bytes.slice(HEADER_BYTES..))));
                }
                Message::Incomplete => this.part = bytes.into(),
                Message::Other => this.hand_over(bytes),
            }
        }
    }
}

/// A body, with bytes that were taken from it.
struct Rejoined {
    first: Option<Bytes>,
    rest: Body,
}

impl HttpBody for Rejoined {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }
}

/// The response of these answers.
pub(super) fn response(answers: ResponseStream) -> Response<Body> {
    let mut response = Response::new(Body::new(Answers(Some(answers))));
    response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    response
}

/// The body of a response; `None` once it has its trailers.
struct Answers(Option<ResponseStream>);

impl HttpBody for Answers {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(answers) = &mut self.0 else { return Poll::Ready(None) };
        let status = match ready!(answers.as_mut().poll_next(cx)) {
            Some(Ok(answer)) => return Poll::Ready(Some(Ok(Frame::data(framed(&answer))))),
            Some(Err(status)) => Err(status),
            None => Ok(()),
        };
        self.0 = None;
        let mut trailers = HeaderMap::new();
        match status {
            Ok(()) => {
                trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
            }
            Err(status) => status.add_header(&mut trailers)?,
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}
