//! A client that says on the wire just what a test wants said: ours would not send it, or would
//! answer by itself before the server does.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, Request};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::common::PATIENCE;

/// What came back.
pub(crate) struct Answer {
    pub(crate) http_status: u16,
    pub(crate) status: Option<Status>,
}

impl Answer {
    pub(crate) fn code(&self) -> Code {
        self.status.as_ref().expect("an answer ends with a status").code()
    }

    /// `ErrorInfo.reason`.
    pub(crate) fn reason(&self) -> String {
        reason(self.status.as_ref().unwrap())
    }
}

/// `ErrorInfo.reason`, or nothing.
pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// A message as gRPC frames it.
pub(crate) fn framed(message: &impl prost::Message) -> Vec<u8> {
    let length = u32::try_from(message.encoded_len()).unwrap();
    [&[0][..], &length.to_be_bytes(), &message.encode_to_vec()].concat()
}

/// How a request's body ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    Whole,
    /// Nothing more comes, and the stream stays open.
    Open,
}

/// One call on a connection of its own.
pub(crate) async fn call(
    server: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    (bytes, body): (Vec<u8>, Body),
) -> Result<Answer, h2::Error> {
    let tcp = TcpStream::connect(server).await.unwrap();
    let (client, connection) = h2::client::handshake(tcp).await?;
    let exchange = async {
        let mut request = Request::post(format!("http://{server}{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut client = client.ready().await?;
        let (response, mut send) = client.send_request(request.body(()).unwrap(), false)?;
        // If the server has answered already, there is nobody left to send to.
        let _ = send.send_data(Bytes::from(bytes), body == Body::Whole);
        let (head, mut body) = response.await?.into_parts();
        let mut all = head.headers;
        while let Some(data) = body.data().await {
            let length = data?.len();
            body.flow_control().release_capacity(length)?;
        }
        let trailers: Option<HeaderMap> = body.trailers().await?;
        all.extend(trailers.unwrap_or_default());
        Ok(Answer { http_status: head.status.as_u16(), status: Status::from_header_map(&all) })
    };
    let exchange = async {
        tokio::pin!(exchange);
        tokio::select! {
            biased;
            answer = &mut exchange => return answer,
            _ = connection => {}
        }
        // The answer may have been the last thing that came.
        exchange.await
    };
    tokio::time::timeout(PATIENCE, exchange).await.expect("no answer")
}
