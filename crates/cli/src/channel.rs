//! A connection to a server, and what another protocol at its address is.

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::anyhow;
use capstan_client::ServerAddress;
use capstan_client::limits::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Status;
use tonic::transport::Channel;

use crate::limits::{CONNECT_TIMEOUT, PROBE_TIME_MAX};
use crate::tls::TlsFiles;

/// Connects to a server. Its calls end after a time.
///
/// # Errors
///
/// The server cannot be reached within [`CONNECT_TIMEOUT`].
pub(crate) async fn connect(
    address: &ServerAddress,
    files: &TlsFiles,
    call_timeout: Duration,
) -> anyhow::Result<Channel> {
    let endpoint = address
        .endpoint_with(&files.load()?)?
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(call_timeout);
    // A stream that waits for the next message finds out so that its server is gone.
    let endpoint = endpoint
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    endpoint.tcp_nodelay(true).connect().await.map_err(|error| {
        // The errors above the cause repeat its text.
        let error = anyhow::Error::from(error);
        let cause = error.root_cause();
        let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        anyhow!("cannot reach {address} ({}): {cause}", advice(address, kind))
    })
}

/// What to do about a server that cannot be reached.
fn advice(address: &ServerAddress, kind: Option<ErrorKind>) -> String {
    let Some(path) = address.unix_path() else {
        return match (address.is_tls(), kind) {
            (true, Some(ErrorKind::InvalidData)) => {
                "is the certificate of another authority (--ca) or for another name (--server-name)?".into()
            }
            (true, Some(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)) => {
                "does it speak TLS, and want a client certificate (--cert, --key)?".into()
            }
            _ => "start a server: capstan serve --demo".into(),
        };
    };
    match kind {
        Some(ErrorKind::NotFound) => {
            "no socket is there: a server makes DIR/operator.sock when it starts, `capstan serve --data DIR`, or the one that \
             --management or --listen names"
                .into()
        }
        Some(ErrorKind::ConnectionRefused) => {
            "no server listens there: start it, capstan serve --data DIR".into()
        }
        Some(ErrorKind::PermissionDenied) => {
            "only the user who runs the server may connect: be that user".into()
        }
        Some(ErrorKind::InvalidInput) => {
            let bytes = path.as_os_str().len();
            format!(
                "the system takes no path of {bytes} bytes for a socket: give a shorter one, such as a relative path or one \
                 through a symbolic link"
            )
        }
        _ => "is a server there? start one: capstan serve --data DIR".into(),
    }
}

/// What to do about an address that was asked in another protocol than its own, or a handshake of TLS that failed; `None` if the error is
/// another one.
pub(crate) fn tls_advice(error: &anyhow::Error, is_tls: bool) -> Option<&'static str> {
    let text = format!("{error:#}");
    let says = |part: &&str| text.contains(*part);
    if !is_tls {
        let is_alert = says(&"invalid HTTP version parsed");
        return is_alert.then_some("does it speak TLS? ask https://HOST:PORT");
    }
    if says(&"invalid peer certificate") {
        return Some(
            "is the certificate of another authority (--ca) or for another name (--server-name)?",
        );
    }
    let ends = [
        "received fatal alert",
        "connection closed",
        "reset by peer",
        "broken pipe",
        "handshake eof",
    ];
    if ends.iter().any(says) {
        return Some("does the server want a certificate of the client? give --cert and --key");
    }
    says(&"corrupt message").then_some("does it speak TLS, and is this its port?")
}

/// Whether a status came in an answer of gRPC. One that the client made up, of another protocol's answer or of a lost
/// connection, has no such header.
pub(crate) fn is_grpc(status: &Status) -> bool {
    let content_type = status.metadata().get("content-type");
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// What else the address speaks than it was asked in, as an error; `None` if it is not known. Asked only after an error that no
/// Capstan server sends.
pub(crate) async fn other_protocol(address: &ServerAddress, status: &Status) -> Option<String> {
    if address.is_tls() {
        return wants_certificate(status).then(|| {
            format!(
                "{address} wants a certificate of the client, of an authority that it trusts: give --cert and --key"
            )
        });
    }
    if address.unix_path().is_some() {
        return None;
    }
    match tokio::time::timeout(PROBE_TIME_MAX, first_byte(address.authority())).await {
        Ok(Ok(b'H')) => Some(format!(
            "{address} answers HTTP/1.1 and not gRPC. It may be the HTTP address of a server (health and metrics). --addr \
             takes the gRPC address, which is http://127.0.0.1:4480 by default"
        )),
        Ok(Ok(TLS_ALERT)) => {
            Some(format!("{address} speaks TLS: ask https://{}", address.authority()))
        }
        _ => None,
    }
}

/// The first byte of what TLS answers to plain text (RFC 8446, section 5.1).
const TLS_ALERT: u8 = 21;

/// The first byte of the answer to a request of HTTP/1.1.
async fn first_byte(authority: &str) -> std::io::Result<u8> {
    let mut stream = TcpStream::connect(authority).await?;
    let request = format!("GET /livez HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.read_u8().await
}

/// Whether a call has ended because the client has no certificate that the server takes: TLS 1.3 says so after the handshake.
fn wants_certificate(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let text = error.to_string();
        if ["CertificateRequired", "UnknownCA", "CertificateExpired", "BadCertificate"]
            .iter()
            .any(|alert| text.contains(alert))
        {
            return true;
        }
        cause = error.source();
    }
    false
}
