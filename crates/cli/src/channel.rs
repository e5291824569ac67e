//! A connection to a server, and what another protocol at its address is.

use std::time::Duration;

use anyhow::anyhow;
use capstan_client::ServerAddress;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Status;
use tonic::transport::Channel;

use crate::limits::{CALL_TIMEOUT, CONNECT_TIMEOUT, PROBE_TIME_MAX};

/// Connects to a server. Its calls end after [`CALL_TIMEOUT`].
///
/// # Errors
///
/// The server cannot be reached within [`CONNECT_TIMEOUT`].
pub(crate) async fn connect(address: &ServerAddress) -> anyhow::Result<Channel> {
    connect_for(address, CALL_TIMEOUT).await
}

/// As [`connect`], for calls that end after another time.
///
/// # Errors
///
/// As of [`connect`].
pub(crate) async fn connect_for(
    address: &ServerAddress,
    call_timeout: Duration,
) -> anyhow::Result<Channel> {
    let endpoint = address.endpoint()?.connect_timeout(CONNECT_TIMEOUT).timeout(call_timeout);
    endpoint.tcp_nodelay(true).connect().await.map_err(|error| {
        // The errors above the cause repeat its text.
        let error = anyhow::Error::from(error);
        let cause = error.root_cause();
        anyhow!("cannot reach {address} (start a server: capstan serve --demo): {cause}")
    })
}

/// Whether a status came in an answer of gRPC. One that the client made up, of another protocol's answer or of a lost
/// connection, has no such header.
pub(crate) fn is_grpc(status: &Status) -> bool {
    let content_type = status.metadata().get("content-type");
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Whether the address answers a request of HTTP/1.1 within [`PROBE_TIME_MAX`]. Asked only after an error
/// that no Capstan server sends.
pub(crate) async fn answers_http1(address: &ServerAddress) -> bool {
    if address.unix_path().is_some() {
        return false;
    }
    let authority = address.authority();
    let probe = async {
        let mut stream = TcpStream::connect(authority).await?;
        let request = format!("GET /livez HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut start = [0; 7];
        stream.read_exact(&mut start).await?;
        std::io::Result::Ok(start == *b"HTTP/1.")
    };
    matches!(tokio::time::timeout(PROBE_TIME_MAX, probe).await, Ok(Ok(true)))
}

/// The error for an address that [`answers_http1`].
pub(crate) fn not_grpc(address: &ServerAddress) -> String {
    format!(
        "{address} answers HTTP/1.1 and not gRPC. It may be the HTTP address of a server (health and metrics). --addr \
         takes the gRPC address, which is http://127.0.0.1:4480 by default"
    )
}
