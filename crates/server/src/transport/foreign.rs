//! What clients are told that speak another protocol than gRPC over HTTP/2: gRPC-web or Connect, of browsers, or
//! HTTP/1.1.

use std::sync::LazyLock;

/// What such a client can do.
const ADVICE: &str = "use a gRPC client, such as createGrpcTransport of connect-node, or put a proxy in front that \
    translates, such as Envoy with envoy.filters.http.grpc_web";

/// Of the gRPC port, to a request that is not one of gRPC.
pub(crate) static GRPC_PORT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "this port speaks gRPC over HTTP/2, with the content type application/grpc, and neither gRPC-web nor \
         Connect: {ADVICE}\n"
    )
});

/// Of the gRPC port, to a request in HTTP/1.1.
static GRPC_PORT_HTTP1: LazyLock<String> = LazyLock::new(|| {
    format!(
        "this port speaks gRPC over HTTP/2, and neither HTTP/1.1 nor gRPC-web nor Connect: {ADVICE}. /livez, /readyz \
         and /metrics are at the HTTP port (--http, 127.0.0.1:4481 by default)\n"
    )
});

/// Of the HTTP port, to a request for the gRPC port.
pub(crate) static HTTP_PORT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "this port answers /livez, /readyz and /metrics only. The gRPC port (--listen, 127.0.0.1:4480 by default) \
         speaks gRPC over HTTP/2, and neither gRPC-web nor Connect: {ADVICE}\n"
    )
});

static UNSUPPORTED: LazyLock<String> = LazyLock::new(|| response("415 Unsupported Media Type"));
static NO_SUCH_VERSION: LazyLock<String> =
    LazyLock::new(|| response("505 HTTP Version Not Supported"));

fn response(status: &str) -> String {
    let text = &*GRPC_PORT_HTTP1;
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{text}",
        text.len()
    )
}

/// The answer of the gRPC port to a peer that does not speak HTTP/2, by its first bytes. Empty if they are not
/// HTTP/1.1, either. The rest of the request is not waited for: whatever it is, the answer is the same.
pub(super) fn http1_answer(first: &[u8]) -> &'static [u8] {
    let is_request = first.first().is_some_and(u8::is_ascii_uppercase);
    if !is_request || first.starts_with(b"PRI ") {
        return b"";
    }
    // Of the common methods only POST begins so. gRPC-web and Connect use it.
    let is_post = first.starts_with(b"PO");
    if is_post { UNSUPPORTED.as_bytes() } else { NO_SUCH_VERSION.as_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_depends_on_the_method() {
        let status = |first: &[u8]| {
            let answer = std::str::from_utf8(http1_answer(first)).unwrap();
            let Some((head, text)) = answer.split_once("\r\n\r\n") else { return 0 };
            assert!(head.contains(&format!("content-length: {}\r\n", text.len())));
            answer.split(' ').nth(1).unwrap().parse().unwrap()
        };
        assert_eq!(status(b"POST /capstan.v1.DecisionService/Check HTTP/1.1\r\n"), 415);
        assert_eq!(status(b"PO"), 415);
        for other in [&b"G"[..], b"GET / HTTP/1.1\r\n", b"PUT /", b"PATCH /", b"OPTIONS *"] {
            assert_eq!(status(other), 505, "{other:?}");
        }
        for none in [&b"\x16\x03\x01"[..], b"", b"\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX"] {
            assert_eq!(status(none), 0, "{none:?}");
        }
    }
}
