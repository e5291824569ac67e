//! The first message of a call: read, and put back in front of the rest.

use bytes::{Buf as _, Bytes, BytesMut};
use capstan_proto::frame::{HEADER_BYTES, Header};
use http_body::Frame;
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use tokio_stream::StreamExt as _;
use tonic::Status;
use tonic::body::Body;

/// Reads the first message of a body of at most `bytes_max` bytes. Returns it, and a body with the same bytes.
///
/// # Errors
///
/// The body ends before, is longer, or the message is compressed.
pub(super) async fn first(mut body: Body, bytes_max: usize) -> Result<(Bytes, Body), Status> {
    let mut read = BytesMut::new();
    loop {
        if read.len() >= HEADER_BYTES {
            let malformed = || Status::invalid_argument("the request is no frame of gRPC");
            let (header, rest) = Header::read(&read).ok_or_else(malformed)?;
            if header.compressed {
                let problem = "compressed requests are not read here: send them as they are";
                return Err(Status::unimplemented(problem));
            }
            if header.length > bytes_max {
                return Err(Status::resource_exhausted(format!(
                    "a request of more than {bytes_max} bytes"
                )));
            }
            if rest.len() >= header.length {
                let read = read.freeze();
                let message = read.slice(HEADER_BYTES..HEADER_BYTES + header.length);
                let read = tokio_stream::once(Ok(Frame::data(read)));
                let whole = StreamBody::new(read.chain(BodyStream::new(body)));
                return Ok((message, Body::new(whole)));
            }
        }
        let ended = || Status::invalid_argument("the call ended before its request");
        let frame = body.frame().await.ok_or_else(ended)??;
        let mut data = frame.into_data().map_err(|_| ended())?;
        read.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
}
