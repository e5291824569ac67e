//! Requests that are not of gRPC: those of gRPC-web and Connect, which browsers send.

use tonic::body::Body;
use tonic::codegen::http::header::CONTENT_TYPE;
use tonic::codegen::http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::body::ResponseBody;
use crate::transport::foreign;

/// Whether a request is one of gRPC, by its content type. A request without one counts as such.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    // Requests have few headers: comparing their names is faster than hashing one.
    headers.iter().find(|(name, _)| *name == CONTENT_TYPE).is_none_or(|(_, found)| {
        let parts = found.as_bytes().split_at_checked(GRPC.len());
        parts.is_some_and(|(kind, rest)| {
            kind.eq_ignore_ascii_case(GRPC)
                && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
        })
    })
}

/// The answer to any other request.
pub(super) fn unsupported() -> Response<ResponseBody> {
    let body = Body::new(http_body_util::Full::from(foreign::GRPC_PORT.as_bytes()));
    let mut response = Response::new(ResponseBody::new(body, None));
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_by_its_content_type() {
        let with = |text: &'static str| {
            let value = HeaderValue::from_static(text);
            is_grpc(&[(CONTENT_TYPE, value)].into_iter().collect())
        };
        assert!(is_grpc(&HeaderMap::new()));
        let good = ["application/grpc", "application/grpc+proto", "Application/gRPC;charset=x"];
        assert!(good.into_iter().all(with));
        for other in [
            "",
            "application/grp",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc-web-text",
            "application/connect+proto",
            "application/proto",
            "application/json",
            "text/plain",
        ] {
            assert!(!with(other), "{other}");
        }
    }
}
