//! Answers as Envoy's messages.
//!
//! **Invariants**: only [`allowed`] makes an OK answer. A header that is set holds a path or a
//! number or visible ASCII, so no text of a client can add a header line.

use capstan_proto::frame;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{
    CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use envoy_types::pb::google::rpc;
use http_body_util::{BodyExt as _, Full};
use serde::Serialize;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::http::header::CONTENT_TYPE;
use tonic::codegen::http::{HeaderMap, HeaderValue as HttpHeaderValue, Response};
use tonic::metadata::GRPC_CONTENT_TYPE;

use crate::RequestError;
use crate::envoy::routes::MalformedRequestError;
use crate::error::CallError;
use crate::limits::REASON_HEADER_BYTES_MAX;

/// The header with the identity, for the upstream service.
pub(super) const IDENTITY: &str = "x-capstan-identity";
/// The header with the revision that decided, for the upstream service.
pub(super) const REVISION: &str = "x-capstan-revision";
/// The header with the sentence of a refusal, because a response to HEAD has no body.
const REASON: &str = "x-capstan-reason";

/// The facts of an allowed request.
#[derive(Debug)]
pub(super) struct Allowed<'a> {
    pub(super) identity: &'a str,
    pub(super) revision: u64,
    pub(super) route: Option<&'a str>,
    /// Whether the `Authorization` header holds a secret of Capstan, which must not reach the
    /// upstream service.
    pub(super) by_credential: bool,
    /// Query parameters that must not reach the upstream service.
    pub(super) query_parameters_to_remove: &'a [Box<str>],
}

/// The facts of a refused request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Denial<'a> {
    pub(super) identity: Option<&'a str>,
    pub(super) revision: u64,
    pub(super) route: Option<&'a str>,
    pub(super) reason: &'static str,
    pub(super) capability: Option<&'a str>,
    pub(super) resource: Option<&'a str>,
}

/// The reason of a denial by what a token is held to.
pub(super) const NARROWED: &str = "NARROWED";
/// The reason of a denial to a proxy that may not ask.
pub(super) const NOT_A_CALLER: &str = "CALLER_NOT_ALLOWED";

/// The JSON body that the client gets. npm prints `error`, and OCI clients print `errors`.
#[derive(Serialize)]
struct DenialBody<'a> {
    error: &'a str,
    reason: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    capability: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a str>,
    errors: [OciError<'a>; 1],
}

#[derive(Serialize)]
struct OciError<'a> {
    code: &'static str,
    message: &'a str,
}

/// The codes and names of one kind of error.
#[derive(Clone, Copy)]
struct RejectionCodes {
    http: i32,
    grpc: Code,
    /// The code of the OCI distribution specification, where it has one.
    oci: &'static str,
}

const BAD_REQUEST: RejectionCodes =
    RejectionCodes { http: 400, grpc: Code::InvalidArgument, oci: "UNSUPPORTED" };
const UNAUTHENTICATED: RejectionCodes =
    RejectionCodes { http: 401, grpc: Code::Unauthenticated, oci: "UNAUTHORIZED" };
const DENIED: RejectionCodes =
    RejectionCodes { http: 403, grpc: Code::PermissionDenied, oci: "DENIED" };
const MANY_GUESSES: RejectionCodes =
    RejectionCodes { http: 429, grpc: Code::ResourceExhausted, oci: "TOOMANYREQUESTS" };
const UNAVAILABLE: RejectionCodes =
    RejectionCodes { http: 503, grpc: Code::Unavailable, oci: "UNAVAILABLE" };

/// The request may pass. `spoofed_headers` are removed from it.
pub(super) fn allowed(known: &Allowed<'_>, spoofed_headers: &[String]) -> CheckResponse {
    let mut headers_to_remove = spoofed_headers.to_vec();
    if known.by_credential {
        headers_to_remove.push("authorization".into());
    }
    let ok = OkHttpResponse {
        headers: vec![
            header(IDENTITY, known.identity),
            header(REVISION, &known.revision.to_string()),
        ],
        headers_to_remove,
        query_parameters_to_remove: known
            .query_parameters_to_remove
            .iter()
            .map(|name| name.to_string())
            .collect(),
        ..OkHttpResponse::default()
    };
    let Allowed { identity, revision, route, .. } = *known;
    let metadata = metadata(true, Some(identity), revision, route, None);
    response(Code::Ok, HttpResponse::OkResponse(ok), metadata)
}

/// The policy denies the request, or no route says what it requires.
pub(super) fn denied(denial: &Denial<'_>) -> CheckResponse {
    let Denial { reason, capability, resource, .. } = *denial;
    let message = match (capability, resource) {
        (Some(capability), Some(resource)) => {
            format!("{capability} is required at {resource}: {reason}")
        }
        (Some(capability), None) => format!("{capability} is required: {reason}"),
        _ if reason == "FORM_BODY" => "this route takes no forms".into(),
        _ if reason == NOT_A_CALLER => "the proxy is no caller that may ask this".into(),
        _ => "no route says what this request requires".into(),
    };
    rejection(DENIED, denial, &message, vec![])
}

/// No identity is proved.
pub(super) fn unauthenticated(challenge: Option<&str>) -> CheckResponse {
    let denial = Denial { reason: "AUTHN_FAILED", ..Denial::default() };
    let challenge = challenge.map(|challenge| header("www-authenticate", challenge));
    let challenge = challenge.into_iter().collect();
    rejection(UNAUTHENTICATED, &denial, "authentication is required", challenge)
}

/// Too many secrets of the client's address have proved nothing.
pub(super) fn many_guesses() -> CheckResponse {
    let denial = Denial { reason: "OVERLOADED", ..Denial::default() };
    let message = RequestError::GuessesWait.to_string();
    rejection(MANY_GUESSES, &denial, &message, vec![header("retry-after", "1")])
}

/// A verified token or certificate names no identity. Another credential would not help.
pub(super) fn not_an_identity() -> CheckResponse {
    let denial = Denial { reason: "MALFORMED_IDENTITY", ..Denial::default() };
    let message = "the verified token or certificate names no identity: its name must be the \
                   prefix of the route table, then a path";
    rejection(DENIED, &denial, message, vec![])
}

/// The request is malformed: no route and no policy can allow it.
pub(super) fn malformed(malformed: MalformedRequestError, denial: &Denial<'_>) -> CheckResponse {
    let denial = Denial { reason: "MALFORMED_REQUEST", ..*denial };
    rejection(BAD_REQUEST, &denial, &malformed.to_string(), vec![])
}

/// The request cannot be decided now.
pub(super) fn unavailable(message: &str) -> CheckResponse {
    let denial = Denial { reason: "UNAVAILABLE", ..Denial::default() };
    let (body, headers) =
        body_and_headers(UNAVAILABLE, &denial, message, vec![header("retry-after", "1")]);
    let status = Some(HttpStatus { code: UNAVAILABLE.http });
    let error = HttpResponse::ErrorResponse(DeniedHttpResponse { status, headers, body });
    response(UNAVAILABLE.grpc, error, metadata(false, None, 0, None, Some(denial.reason)))
}

fn rejection(
    codes: RejectionCodes,
    denial: &Denial<'_>,
    message: &str,
    headers: Vec<HeaderValueOption>,
) -> CheckResponse {
    let (body, headers) = body_and_headers(codes, denial, message, headers);
    let status = Some(HttpStatus { code: codes.http });
    let denied = HttpResponse::DeniedResponse(DeniedHttpResponse { status, headers, body });
    let Denial { identity, revision, route, reason, .. } = *denial;
    response(codes.grpc, denied, metadata(false, identity, revision, route, Some(reason)))
}

fn body_and_headers(
    codes: RejectionCodes,
    denial: &Denial<'_>,
    message: &str,
    mut headers: Vec<HeaderValueOption>,
) -> (String, Vec<HeaderValueOption>) {
    let Denial { reason, capability, resource, .. } = *denial;
    let errors = [OciError { code: codes.oci, message }];
    let body = DenialBody { error: message, reason, message, capability, resource, errors };
    // Serializing strings does not fail. If it did, the status would still be right.
    let body = serde_json::to_string(&body).unwrap_or_default();
    headers.push(header("content-type", "application/json"));
    headers.push(header(REASON, &visible(message)));
    (body, headers)
}

/// A text as the value of a header: one line of ASCII, with `?` for every other character.
fn visible(text: &str) -> String {
    let is_visible = |c: char| c == ' ' || c.is_ascii_graphic();
    let shown = text.chars().map(|c| if is_visible(c) { c } else { '?' });
    shown.take(REASON_HEADER_BYTES_MAX).collect()
}

fn response(code: Code, http: HttpResponse, metadata: Struct) -> CheckResponse {
    let status = rpc::Status { code: code.into(), ..rpc::Status::default() };
    CheckResponse {
        status: Some(status),
        dynamic_metadata: Some(metadata),
        http_response: Some(http),
    }
}

/// A header that replaces any value of the request.
fn header(key: &str, value: &str) -> HeaderValueOption {
    let header = HeaderValue { key: key.into(), value: value.into(), ..HeaderValue::default() };
    HeaderValueOption {
        header: Some(header),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    }
}

/// The dynamic metadata for Envoy's access log.
fn metadata(
    allowed: bool,
    identity: Option<&str>,
    revision: u64,
    route: Option<&str>,
    reason: Option<&str>,
) -> Struct {
    let text = |text: &str| Kind::StringValue(text.into());
    #[expect(clippy::cast_precision_loss, reason = "revisions have 53 bits")]
    let number = revision as f64;
    let fields = [
        ("allowed", Some(Kind::BoolValue(allowed))),
        ("identity", identity.map(text)),
        ("revision", (revision > 0).then_some(Kind::NumberValue(number))),
        ("route", route.map(text)),
        ("reason", reason.map(text)),
    ];
    let field =
        |(name, kind): (&str, Option<Kind>)| Some((name.into(), Value { kind: Some(kind?) }));
    Struct { fields: fields.into_iter().filter_map(field).collect() }
}

// === Instead of gRPC errors ===

/// The answer to Envoy instead of a gRPC error. If the server could not decide, it is an error with
/// its own text, and the client knows that it may retry. If the bytes were wrong, it is a denial,
/// so that `failure_mode_allow` does not let the request pass.
pub(crate) fn error_response(error: &CallError) -> Response<Body> {
    let message = error.to_string();
    framed(&match error {
        CallError::DeadlineExceeded
        | CallError::Overloaded
        | CallError::Unimplemented
        | CallError::UnknownEncoding
        | CallError::Bug { .. } => unavailable(&message),
        CallError::TooLarge { .. } | CallError::InvalidFraming | CallError::InvalidGzip => {
            let denial = Denial { reason: "MALFORMED_REQUEST", ..Denial::default() };
            rejection(BAD_REQUEST, &denial, &message, vec![])
        }
    })
}

/// The proxy that asks is not among those that may. An error could let the request pass.
pub(super) fn not_a_caller() -> CheckResponse {
    denied(&Denial { reason: NOT_A_CALLER, ..Denial::default() })
}

/// The same, instead of a gRPC error.
pub(crate) fn not_a_caller_response() -> Response<Body> {
    framed(&not_a_caller())
}

/// An answer as a complete gRPC response.
fn framed(answer: &CheckResponse) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HttpHeaderValue::from_static("0"));
    let body = Full::from(frame::framed(answer)).with_trailers(async { Some(Ok(trailers)) });
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    response
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    /// What Envoy reads: the gRPC code, whether the answer is an error, and the HTTP status of the
    /// client.
    async fn read(error: CallError) -> (i32, bool, i32) {
        let (head, body) = error_response(&error).into_parts();
        assert_eq!(head.headers[CONTENT_TYPE], "application/grpc");
        let body = body.collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        let bytes = body.to_bytes();
        let (header, message) = frame::Header::read(&bytes).unwrap();
        assert_eq!(header, frame::Header { compressed: false, length: message.len() });
        let answer = CheckResponse::decode(message).unwrap();
        let (is_error, denied) = match answer.http_response.unwrap() {
            HttpResponse::ErrorResponse(denied) => (true, denied),
            HttpResponse::DeniedResponse(denied) => (false, denied),
            HttpResponse::OkResponse(ok) => panic!("{ok:?}"),
        };
        (answer.status.unwrap().code, is_error, denied.status.unwrap().code)
    }

    #[tokio::test]
    async fn a_failure_of_the_server_is_an_error_and_malformed_bytes_are_a_denial() {
        let bug = CallError::Bug { correlation: "x".into() };
        for error in [CallError::Overloaded, CallError::DeadlineExceeded, bug] {
            assert_eq!(read(error).await, (14, true, 503));
        }
        for error in [CallError::InvalidFraming, CallError::TooLarge { bytes_max: 1 }] {
            assert_eq!(read(error).await, (3, false, 400));
        }
    }

    /// No header is both set and removed, because Envoy removes headers after it sets them.
    #[test]
    fn no_header_is_both_set_and_removed() {
        let known = Allowed {
            identity: "a",
            revision: 1,
            route: None,
            by_credential: true,
            query_parameters_to_remove: &[],
        };
        let answer = allowed(&known, &["x-capstan-x".into()]);
        let Some(HttpResponse::OkResponse(ok)) = answer.http_response else { panic!() };
        for option in &ok.headers {
            let header = option.header.as_ref().unwrap();
            assert!(!ok.headers_to_remove.contains(&header.key), "{}", header.key);
        }
        assert!(ok.headers_to_remove.contains(&"x-capstan-x".to_owned()));
    }

    #[test]
    fn the_reason_is_one_line_of_ascii_with_a_limit() {
        assert_eq!(visible("a b\r\nX: y\u{e9}\0"), "a b??X: y??");
        let long = "a".repeat(REASON_HEADER_BYTES_MAX);
        assert_eq!(visible(&long), long);
        assert_eq!(visible(&format!("{long}a")), long);
    }
}
