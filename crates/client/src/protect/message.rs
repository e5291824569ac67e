//! The first message of a call: read, and put back in front of the rest.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::Frame;
use http_body_util::BodyExt as _;
use tonic::Status;
use tonic::body::Body;

/// Bytes before a message: whether it is compressed, and its length (gRPC over HTTP/2).
const PREFIX: usize = 5;

/// Reads the first message of a body of at most `bytes_max` bytes. Returns it, and a body with the same bytes.
///
/// # Errors
///
/// The body ends before, is longer, or the message is compressed.
pub(super) async fn first(mut body: Body, bytes_max: usize) -> Result<(Bytes, Body), Status> {
    let mut read = BytesMut::new();
    loop {
        if let Some((prefix, rest)) = read.split_first_chunk::<PREFIX>() {
            let [compressed, length @ ..] = *prefix;
            if compressed != 0 {
                let problem = "compressed requests are not read here: send them as they are";
                return Err(Status::unimplemented(problem));
            }
            let length = u32::from_be_bytes(length) as usize;
            if length > bytes_max {
                return Err(Status::resource_exhausted(format!(
                    "a request of more than {bytes_max} bytes"
                )));
            }
            if rest.len() >= length {
                let read = read.freeze();
                let message = read.slice(PREFIX..PREFIX + length);
                return Ok((message, Body::new(Again { read: Some(read), rest: body })));
            }
        }
        match body.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(mut data) => read.extend_from_slice(&data.copy_to_bytes(data.remaining())),
                Err(_) => {
                    return Err(Status::invalid_argument("the call ended before its request"));
                }
            },
            Some(Err(error)) => return Err(error),
            None => return Err(Status::invalid_argument("the call ended before its request")),
        }
    }
}

/// What was read of a body, and its rest.
struct Again {
    read: Option<Bytes>,
    rest: Body,
}

impl http_body::Body for Again {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.read.take() {
            Some(read) => Poll::Ready(Some(Ok(Frame::data(read)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_none() && self.rest.is_end_stream()
    }
}
