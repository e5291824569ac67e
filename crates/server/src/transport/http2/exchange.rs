//! One call between its HTTP/2 stream and its service: the request's body, and the response.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::codegen::Bytes;
use tonic::codegen::http::Response;

/// The body of a request: chunks that were read already, then the rest of the stream.
pub(super) struct RequestBody {
    /// Chunks whose flow control capacity was released already, the next one last.
    read: Vec<Bytes>,
    /// `None` if everything was read.
    stream: Option<RecvStream>,
    data_ended: bool,
}

impl RequestBody {
    /// `read`: the chunks so far, in their order.
    pub(super) fn new(mut read: Vec<Bytes>, stream: Option<RecvStream>) -> Self {
        read.reverse();
        Self { read, stream, data_ended: false }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Some(chunk) = this.read.pop() {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        let Some(stream) = &mut this.stream else { return Poll::Ready(None) };
        if !this.data_ended {
            match ready!(stream.poll_data(cx)) {
                Some(Ok(chunk)) => {
                    // An error means that the stream has ended; the next poll reports it.
                    let _ = stream.flow_control().release_capacity(chunk.len());
                    return Poll::Ready(Some(Ok(Frame::data(chunk))));
                }
                Some(Err(error)) => return Poll::Ready(ended_by(error).map(Err)),
                None => this.data_ended = true,
            }
        }
        match ready!(stream.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(ended_by(error).map(Err)),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.stream.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// The error of a body whose stream has failed; `None` after RST_STREAM with NO_ERROR, by which a
/// peer ends its stream without a fault (RFC 9113, section 8.1).
fn ended_by(error: h2::Error) -> Option<Status> {
    match error.reason() {
        Some(Reason::NO_ERROR) => None,
        _ => Some(Status::from_error(error.into())),
    }
}

/// Waits for the response of a call and sends it. Returns early if the client resets the stream or
/// disconnects; dropping `call` then cancels it.
pub(super) async fn exchange<B>(
    call: impl Future<Output = Response<B>>,
    mut respond: SendResponse<Bytes>,
) where
    B: HttpBody<Data = Bytes, Error = Status>,
{
    let mut call = pin!(call);
    let response = poll_fn(|cx| match call.as_mut().poll(cx) {
        Poll::Ready(response) => Poll::Ready(Some(response)),
        Poll::Pending => respond.poll_reset(cx).map(|_| None),
    });
    let Some(response) = response.await else { return };
    let (head, body) = response.into_parts();
    let ends = body.is_end_stream();
    // An error here and below means that the stream or the connection is gone.
    let Ok(stream) = respond.send_response(Response::from_parts(head, ()), ends) else { return };
    if !ends {
        let _ = send(pin!(body), stream).await;
    }
}

/// Sends a body as far as the peer's flow control allows.
async fn send<B>(mut body: Pin<&mut B>, mut stream: SendStream<Bytes>) -> Result<(), h2::Error>
where
    B: HttpBody<Data = Bytes, Error = Status>,
{
    loop {
        let frame = poll_fn(|cx| match body.as_mut().poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Ok(frame)),
            Poll::Pending => match stream.poll_reset(cx) {
                Poll::Ready(reset) => Poll::Ready(Err(reset_error(reset))),
                Poll::Pending => Poll::Pending,
            },
        });
        let Some(frame) = frame.await? else { return stream.send_data(Bytes::new(), true) };
        let Ok(frame) = frame else {
            stream.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        };
        match frame.into_data() {
            Ok(data) => send_data(data, &mut stream).await?,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return stream.send_trailers(trailers);
                }
            }
        }
    }
}

/// Sends one chunk in pieces, each as large as the peer's window allows.
async fn send_data(mut data: Bytes, stream: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let capacity = poll_fn(|cx| match stream.capacity() {
            0 => match stream.poll_capacity(cx) {
                Poll::Ready(Some(capacity)) => Poll::Ready(capacity),
                Poll::Ready(None) => Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
                Poll::Pending => match stream.poll_reset(cx) {
                    Poll::Ready(reset) => Poll::Ready(Err(reset_error(reset))),
                    Poll::Pending => Poll::Pending,
                },
            },
            capacity => Poll::Ready(Ok(capacity)),
        });
        let piece = data.split_to(capacity.await?.min(data.len()));
        stream.send_data(piece, false)?;
    }
    Ok(())
}

fn reset_error(reset: Result<Reason, h2::Error>) -> h2::Error {
    reset.map_or_else(|error| error, Into::into)
}
