//! A client with full control of the wire format. A gRPC library would not send such requests, or would
//! end the call before the server does.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use capstan_proto::v1;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, Request};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::common::PATIENCE;
use crate::over::Place;
use crate::secrets::{assert_metadata_tells_no_secret, assert_tells_no_secret};

/// The response to a call.
pub(crate) struct Answer {
    pub(crate) http_status: u16,
    pub(crate) status: Option<Status>,
    /// Headers and trailers.
    pub(crate) headers: HeaderMap,
    pub(crate) data: Vec<u8>,
}

impl Answer {
    pub(crate) fn code(&self) -> Code {
        self.status.as_ref().expect("a response without a gRPC status").code()
    }

    /// `ErrorInfo.reason`.
    pub(crate) fn reason(&self) -> String {
        reason(self.status.as_ref().unwrap())
    }
}

/// `ErrorInfo.reason`; empty without an `ErrorInfo`.
pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// A message with its gRPC frame header.
pub(crate) fn framed(message: &impl prost::Message) -> Vec<u8> {
    let length = u32::try_from(message.encoded_len()).unwrap();
    [&[0][..], &length.to_be_bytes(), &message.encode_to_vec()].concat()
}

/// The end of a request body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    Whole,
    /// No more data follows, and the stream stays open.
    Open,
}

/// Makes one call on a new connection.
pub(crate) async fn call(
    server: impl Into<Place>,
    path: &str,
    headers: &[(&str, &str)],
    (bytes, body): (Vec<u8>, Body),
) -> Result<Answer, h2::Error> {
    let server = server.into();
    let (client, connection) = h2::client::handshake(server.open().await.unwrap()).await?;
    let exchange = async {
        let mut request = Request::post(format!("http://{}{path}", server.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut client = client.ready().await?;
        let (response, mut send) = client.send_request(request.body(()).unwrap(), false)?;
        // Sending fails if the server has already answered.
        let _ = send.send_data(Bytes::from(bytes), body == Body::Whole);
        let (head, mut body) = response.await?.into_parts();
        let mut all = head.headers;
        let mut received = Vec::new();
        while let Some(data) = body.data().await {
            let data = data?;
            received.extend_from_slice(&data);
            body.flow_control().release_capacity(data.len())?;
        }
        let trailers: Option<HeaderMap> = body.trailers().await?;
        all.extend(trailers.unwrap_or_default());
        assert_metadata_tells_no_secret(&all);
        assert_tells_no_secret(&received);
        let (http_status, status) = (head.status.as_u16(), Status::from_header_map(&all));
        Ok(Answer { http_status, status, headers: all, data: received })
    };
    let exchange = async {
        tokio::pin!(exchange);
        tokio::select! {
            biased;
            answer = &mut exchange => return answer,
            _ = connection => {}
        }
        // The response may have arrived just before the end of the connection.
        exchange.await
    };
    tokio::time::timeout(PATIENCE, exchange).await.expect("no answer")
}

// === Frame by frame ===

/// The first bytes of a connection.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const ACK: u8 = 1;

pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// A connection with full control of each HTTP/2 frame. A library would enforce the protocol's rules.
pub(crate) struct Frames(Box<dyn Socket>);

/// A socket of either kind.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

/// Type, flags, stream id, payload.
pub(crate) type Frame = (u8, u8, u32, Vec<u8>);

impl Frames {
    /// Connects and exchanges settings. The client uses the default settings.
    pub(crate) async fn connect(server: impl Into<Place>) -> Self {
        Self::connect_with_settings(server).await.0
    }

    /// Also returns the server's settings by their numbers.
    pub(crate) async fn connect_with_settings(
        server: impl Into<Place>,
    ) -> (Self, BTreeMap<u16, u32>) {
        Self::over(server.into().open().await.unwrap()).await
    }

    /// The same over a unix socket.
    pub(crate) async fn connect_unix(path: &std::path::Path) -> Self {
        Self::over(UnixStream::connect(path).await.unwrap()).await.0
    }

    /// The same over a connection with TLS.
    pub(crate) async fn connect_over(socket: impl Socket + 'static) -> Self {
        Self::over(socket).await.0
    }

    async fn over(socket: impl Socket + 'static) -> (Self, BTreeMap<u16, u32>) {
        let mut frames = Self(Box::new(socket));
        frames.send_bytes(PREFACE).await;
        frames.send(SETTINGS, 0, 0, &[]).await;
        let (kind, _, _, payload) = frames.next().await;
        assert_eq!(kind, SETTINGS, "the server's settings come first");
        frames.send(SETTINGS, ACK, 0, &[]).await;
        let settings = payload.chunks(6).map(|setting| {
            let (name, value) = setting.split_at(2);
            let name = u16::from_be_bytes(name.try_into().unwrap());
            (name, u32::from_be_bytes(value.try_into().unwrap()))
        });
        (frames, settings.collect())
    }

    /// Reads frames until this stream has ended. Returns its DATA; `None` for a response without a
    /// body, which is an error. Panics if the stream is reset or the connection ends.
    pub(crate) async fn answer(&mut self, of: u32) -> Option<Vec<u8>> {
        let mut data = None;
        loop {
            let (kind, flags, stream, payload) = self.next().await;
            assert_ne!(kind, GOAWAY, "the connection ends");
            if stream != of {
                continue;
            }
            assert_ne!(kind, RST_STREAM, "the stream is reset");
            if kind == DATA {
                data.get_or_insert_with(Vec::new).extend(payload);
            }
            if flags & END_STREAM != 0 && [DATA, HEADERS].contains(&kind) {
                return data;
            }
        }
    }

    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.send_bytes(&frame(kind, flags, stream, payload)).await;
    }

    /// Sends several frames in one write, so that they arrive together.
    pub(crate) async fn send_bytes(&mut self, frames: &[u8]) {
        self.try_send_bytes(frames).await.unwrap();
    }

    /// The same on a connection that may have ended.
    pub(crate) async fn try_send_bytes(&mut self, frames: &[u8]) -> std::io::Result<()> {
        self.0.write_all(frames).await?;
        // TLS may hold the end of what was written.
        self.0.flush().await
    }

    /// Reads the next frame. Panics if the connection ends.
    pub(crate) async fn next(&mut self) -> Frame {
        self.next_or_end().await.expect("the connection has ended")
    }

    /// Reads the next frame. `None` at the end of the connection. Panics if it ends within a frame.
    pub(crate) async fn next_or_end(&mut self) -> Option<Frame> {
        let next = async {
            let mut head = [0; 9];
            match self.0.read(&mut head[..1]).await {
                Ok(0) => return None,
                // The same over TLS: the server says no more than GOAWAY.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return None,
                read => read.unwrap(),
            };
            self.0.read_exact(&mut head[1..]).await.unwrap();
            let [a, b, c, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.0.read_exact(&mut payload).await.unwrap();
            Some((kind, flags, u32::from_be_bytes(stream), payload))
        };
        tokio::time::timeout(PATIENCE, next).await.expect("no frame")
    }
}

/// Encodes a frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The header block of a gRPC call. All headers are literals, so no HPACK table is needed.
pub(crate) fn header_block(path: &str) -> Vec<u8> {
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    headers.into_iter().flat_map(|(name, value)| literal(0, name, value)).collect()
}

/// A header as a literal with a new name (RFC 7541, section 6.2). `kind` 0 leaves the table as it is, and
/// [`INDEXED`] adds the header to it.
pub(crate) fn literal(kind: u8, name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![kind];
    for text in [name, value] {
        match text.len().checked_sub(127) {
            None => bytes.push(u8::try_from(text.len()).unwrap()),
            // A length of at least 127 continues in groups of seven bits.
            Some(mut more) => {
                bytes.push(127);
                while more >= 128 {
                    bytes.push(u8::try_from(more % 128).unwrap() | 128);
                    more /= 128;
                }
                bytes.push(u8::try_from(more).unwrap());
            }
        }
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// The kind of a literal that is added to the table.
pub(crate) const INDEXED: u8 = 0x40;

// === Messages ===

/// A check that the demo allows.
pub(crate) fn check() -> v1::CheckRequest {
    v1::CheckRequest {
        identity: "alice".into(),
        capability: "repo.list".into(),
        resource: "acme".into(),
        ..Default::default()
    }
}

/// A batch of this many such checks.
pub(crate) fn batch(checks: usize) -> v1::BatchCheckRequest {
    let v1::CheckRequest { identity, capability, resource, .. } = check();
    let item = v1::CheckItem { identity, capability, resource, properties: None };
    v1::BatchCheckRequest { checks: vec![item; checks], consistency: None }
}
