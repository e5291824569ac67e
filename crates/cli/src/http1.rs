//! One request of HTTP/1.1 over a connection of its own.
//!
//! **Invariants**: redirects are not followed, and of a body at most so many bytes are read, whatever the server does.

use anyhow::anyhow;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Sends a request, and reads the whole answer.
///
/// # Errors
///
/// The connection ends before, or the body has more bytes.
pub(crate) async fn send<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    body_bytes_max: usize,
) -> anyhow::Result<Response<Bytes>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async move {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, body_bytes_max).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                anyhow!("the answer is longer than {body_bytes_max} bytes")
            } else {
                anyhow!(error)
            }
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // The end of the connection may come with that of the answer, and its error says more than that of the exchange.
        ended = &mut connection => {
            ended?;
            exchange.await
        }
    }
}
