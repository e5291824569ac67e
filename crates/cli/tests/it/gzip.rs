//! Messages that are compressed with gzip: requests of every method within the same limits, and long answers if the
//! client asks.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::time::Instant;

use capstan_proto::iam::v1 as iam;
use capstan_proto::v1;
use capstan_server::feed::source::Source;
use capstan_server::limits::{
    COMPRESSED_ANSWER_MIN, GZIP_INPUT_PIECE, GZIP_OVERHEAD_MAX, GZIP_PIECE, HEALTH_BYTES_MAX,
    Limits, MESSAGE_BYTES_MAX, REQUEST_BYTES_MAX, SHORT_BODY_MAX,
};
use envoy_types::pb::envoy::service::auth::v3::CheckRequest as EnvoyRequest;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use prost::Message;
use tonic::Code;
use tonic::codegen::http::HeaderMap;
use tonic_health::pb::HealthCheckRequest;

use crate::common::{InProcess, PATIENCE};
use crate::metrics::{of, wait_until_nothing_is_held};
use crate::over::{Over, Place, over_both};
use crate::raw::{self, Answer, Body, batch, check, framed};
use crate::transport::bounds::memory;

over_both!(
    the_limits_hold_after_decompression,
    decompressed_bytes_are_charged,
    bombs_take_no_memory,
);

const CHECK: &str = "/capstan.v1.DecisionService/Check";
const BATCH_CHECK: &str = "/capstan.v1.DecisionService/BatchCheck";
const STREAM_CHECK: &str = "/capstan.v1.DecisionService/StreamCheck";
const LIST_CAPABILITIES: &str = "/capstan.v1.DecisionService/ListCapabilities";
const EXT_AUTHZ: &str = "/envoy.service.auth.v3.Authorization/Check";
const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// The header of a request whose messages may be compressed.
pub(crate) const REQUEST: (&str, &str) = ("grpc-encoding", "gzip");
const ANSWER: (&str, &str) = ("grpc-accept-encoding", "identity, deflate, gzip");

#[test]
fn the_limits_of_gzip_have_their_documented_values() {
    assert_eq!((GZIP_OVERHEAD_MAX, COMPRESSED_ANSWER_MIN), (8 << 10, 1 << 10));
    assert_eq!((GZIP_INPUT_PIECE, GZIP_PIECE), (512, SHORT_BODY_MAX));
}

/// One gzip member.
fn member(message: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(message).unwrap();
    encoder.finish().unwrap()
}

/// A compressed message in its frame.
fn frame(member: &[u8]) -> Vec<u8> {
    let length = u32::try_from(member.len()).unwrap().to_be_bytes();
    [&[1][..], &length, member].concat()
}

pub(crate) fn gzipped(message: &impl Message) -> Vec<u8> {
    frame(&member(&message.encode_to_vec(), Compression::default()))
}

pub(crate) async fn call(
    server: impl Into<Place>,
    path: &str,
    headers: &[(&str, &str)],
    bytes: Vec<u8>,
) -> Answer {
    raw::call(server, path, headers, (bytes, Body::Whole)).await.unwrap()
}

/// The answer to a long request. A machine that is busy with other tests may take longer than the server's deadline.
async fn in_time(server: impl Into<Place>, path: &str, bytes: Vec<u8>) -> Answer {
    let (server, until) = (server.into(), Instant::now() + PATIENCE);
    loop {
        let answer = call(server, path, &[REQUEST], bytes.clone()).await;
        if answer.code() != Code::DeadlineExceeded || Instant::now() > until {
            return answer;
        }
    }
}

fn padding(length: usize) -> Option<v1::Properties> {
    let value = prost_types::value::Kind::StringValue("x".repeat(length));
    let value = prost_types::Value { kind: Some(value) };
    Some(v1::Properties { context: [("padding".to_owned(), value)].into(), ..Default::default() })
}

/// The message of exactly this length that `with` makes of a length of padding.
fn of_length<M: Message>(length: usize, with: impl Fn(usize) -> M) -> M {
    let around = with(length).encoded_len() - length;
    let message = with(length - around);
    assert_eq!(message.encoded_len(), length);
    message
}

fn check_of(length: usize) -> v1::CheckRequest {
    of_length(length, |length| v1::CheckRequest { properties: padding(length), ..check() })
}

pub(crate) fn batch_of(length: usize) -> v1::BatchCheckRequest {
    of_length(length, |length| {
        let mut batch = batch(1);
        batch.checks[0].properties = padding(length);
        batch
    })
}

fn health_of(length: usize) -> Vec<u8> {
    // An unknown field.
    let mut message = vec![0x7a];
    prost::encoding::encode_varint((length - 3) as u64, &mut message);
    message.resize(length, b'x');
    message
}

fn list_capabilities() -> v1::ListCapabilitiesRequest {
    v1::ListCapabilitiesRequest {
        identity: "alice".into(),
        resource: "acme".into(),
        ..Default::default()
    }
}

/// A call of every method of decisions, of a list of the management, and of health and reflection.
fn calls() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let list_identities = v1::ListIdentitiesRequest {
        capability: "repo.list".into(),
        resource: "acme".into(),
        ..Default::default()
    };
    let list_scopes = v1::ListScopesRequest {
        identity: "alice".into(),
        capability: "repo.list".into(),
        ..Default::default()
    };
    let explain = v1::ExplainRequest {
        identity: "alice".into(),
        capability: "repo.list".into(),
        resource: "acme".into(),
        ..Default::default()
    };
    let reflection = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            tonic_reflection::pb::v1::server_reflection_request::MessageRequest::ListServices(
                "".into(),
            ),
        ),
    };
    let batches = [1, 2, 100].map(|checks| batch(checks).encode_to_vec());
    vec![
        (CHECK, vec![check().encode_to_vec()]),
        (BATCH_CHECK, vec![batch(3).encode_to_vec()]),
        (BATCH_CHECK, vec![batch_of(200_000).encode_to_vec()]),
        (STREAM_CHECK, batches.to_vec()),
        (LIST_CAPABILITIES, vec![list_capabilities().encode_to_vec()]),
        ("/capstan.v1.DecisionService/ListIdentities", vec![list_identities.encode_to_vec()]),
        ("/capstan.v1.DecisionService/ListScopes", vec![list_scopes.encode_to_vec()]),
        ("/capstan.v1.DecisionService/Explain", vec![explain.encode_to_vec()]),
        (
            "/capstan.iam.v1.RoleService/ListRoles",
            vec![iam::ListRolesRequest::default().encode_to_vec()],
        ),
        (EXT_AUTHZ, vec![EnvoyRequest::default().encode_to_vec()]),
        (HEALTH, vec![HealthCheckRequest::default().encode_to_vec()]),
        (
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            vec![reflection.encode_to_vec()],
        ),
    ]
}

/// The answer to Envoy has a map, whose order differs.
fn is_same(path: &str, one: &[u8], other: &[u8]) -> bool {
    if path == EXT_AUTHZ { one.len() == other.len() } else { one == other }
}

fn plain(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message].concat()
}

#[tokio::test]
async fn every_method_takes_compressed_messages() {
    let server = InProcess::start(Source::Demo).await;
    let mut paths = HashSet::new();
    for (path, messages) in calls() {
        let framed: Vec<u8> = messages.iter().flat_map(|message| plain(message)).collect();
        let expected = call(server.grpc, path, &[], framed.clone()).await;
        assert_eq!(expected.code(), Code::Ok, "{path}");
        assert!(!expected.data.is_empty());
        // Every other message is plain, which is allowed.
        let mixed = messages.iter().enumerate().flat_map(|(at, message)| {
            let is_plain = at % 2 == 1;
            if is_plain { plain(message) } else { frame(&member(message, Compression::best())) }
        });
        for bytes in [mixed.collect(), framed] {
            let answer = call(server.grpc, path, &[REQUEST], bytes).await;
            assert_eq!(answer.code(), Code::Ok, "{path}: {:?}", answer.status);
            assert!(is_same(path, &answer.data, &expected.data), "{path}");
            assert!(!answer.headers.contains_key("grpc-encoding"), "nobody has asked");
        }
        paths.insert(path);
    }
    // Those of the management are called on a store: store/methods.rs.
    for method in capstan_proto::methods::METHODS {
        let is_elsewhere = method.path.starts_with("/capstan.iam.v1.");
        assert!(is_elsewhere || paths.contains(method.path), "{} is missing", method.path);
    }
}

#[track_caller]
fn assert_refused(answer: &Answer, code: Code, reason: &str, what: &str) {
    assert_eq!((answer.code(), &*answer.reason()), (code, reason), "{what}: {:?}", answer.status);
}

async fn the_limits_hold_after_decompression(over: Over) {
    let server = over.start(Limits::default()).await;
    type Message = fn(usize) -> Vec<u8>;
    let cases: [(&str, usize, Message); 4] = [
        (CHECK, REQUEST_BYTES_MAX, |length| check_of(length).encode_to_vec()),
        (BATCH_CHECK, MESSAGE_BYTES_MAX, |length| batch_of(length).encode_to_vec()),
        (STREAM_CHECK, MESSAGE_BYTES_MAX, |length| batch_of(length).encode_to_vec()),
        (HEALTH, HEALTH_BYTES_MAX, health_of),
    ];
    for (path, most, message) in cases {
        // Without compression a member is longer than its message.
        for level in [Compression::none(), Compression::default()] {
            let fits = member(&message(most), level);
            let is_longer = fits.len() > most;
            assert_eq!(is_longer, level == Compression::none());
            let answer = in_time(&server, path, frame(&fits)).await;
            assert_eq!(answer.code(), Code::Ok, "{path}: {:?}", answer.status);
            let beyond = frame(&member(&message(most + 1), level));
            let answer = in_time(&server, path, beyond).await;
            assert_refused(&answer, Code::ResourceExhausted, "TOO_LARGE", path);
            let said = answer.status.as_ref().unwrap().message().to_owned();
            assert!(said.contains(&format!("larger than {most} bytes")), "{said}");
        }
        // A plain message of such a call has no more room than others.
        let beyond = in_time(&server, path, plain(&message(most + 1))).await;
        assert_refused(&beyond, Code::ResourceExhausted, "TOO_LARGE", path);
        // Nothing is read of a compressed message that is too long itself.
        let length = u32::try_from(most + GZIP_OVERHEAD_MAX + 1).unwrap().to_be_bytes();
        let claim = ([&[1][..], &length].concat(), Body::Open);
        let beyond = raw::call(&server, path, &[REQUEST], claim).await.unwrap();
        assert_refused(&beyond, Code::ResourceExhausted, "TOO_LARGE", path);
    }
    wait_until_nothing_is_held(&server).await;
}

#[tokio::test]
async fn malformed_members_are_invalid() {
    let server = InProcess::start(Source::Demo).await;
    let good = member(&check().encode_to_vec(), Compression::best());
    let mut other_length = good.clone();
    let at = good.len() - 4;
    other_length[at] ^= 1;
    let mut other_checksum = good.clone();
    other_checksum[at - 1] ^= 1;
    for (bytes, what) in [
        (vec![], "nothing"),
        (b"ab".to_vec(), "two bytes"),
        (check().encode_to_vec(), "no member"),
        (good[..at].to_vec(), "cut off"),
        ([&good[..], &good[..]].concat(), "two members"),
        ([&good[..], b"\0"].concat(), "a byte behind the member"),
        (other_length, "another length"),
        (other_checksum, "another checksum"),
    ] {
        for path in [CHECK, STREAM_CHECK] {
            let answer = call(server.grpc, path, &[REQUEST], frame(&bytes)).await;
            assert_refused(&answer, Code::InvalidArgument, "INVALID_FIELD", what);
        }
    }
    let answer = call(server.grpc, CHECK, &[REQUEST], frame(&good)).await;
    assert_eq!(answer.code(), Code::Ok);
    wait_until_nothing_is_held(&server).await;
}

#[tokio::test]
async fn an_unknown_encoding_is_unimplemented() {
    let server = InProcess::start(Source::Demo).await;
    for path in [CHECK, BATCH_CHECK, STREAM_CHECK, HEALTH, LIST_CAPABILITIES] {
        for encoding in ["deflate", "zstd", "GZIP", "gzip,identity"] {
            let headers = [("grpc-encoding", encoding)];
            let answer = call(server.grpc, path, &headers, gzipped(&check())).await;
            assert_refused(&answer, Code::Unimplemented, "", path);
            assert_eq!(answer.headers["grpc-accept-encoding"], "gzip,identity");
        }
        // Of no encoding: no message may be compressed.
        for headers in [&[][..], &[("grpc-encoding", "identity")]] {
            let answer = call(server.grpc, path, headers, gzipped(&check())).await;
            assert_refused(&answer, Code::InvalidArgument, "INVALID_FIELD", path);
        }
    }
}

/// What is decompressed is held within the budget of its connection.
async fn decompressed_bytes_are_charged(over: Over) {
    let limits = Limits { connection_held_bytes_max: 150_000, ..Limits::default() };
    let server = over.start(limits).await;
    let fits = call(&server, BATCH_CHECK, &[REQUEST], gzipped(&batch_of(100_000))).await;
    assert_eq!(fits.code(), Code::Ok);
    let beyond = call(&server, BATCH_CHECK, &[REQUEST], gzipped(&batch_of(200_000))).await;
    assert_refused(&beyond, Code::ResourceExhausted, "OVERLOADED", "200,000 bytes");
    // One after the other, in one call.
    let stream: Vec<u8> = (0..5).flat_map(|_| gzipped(&batch_of(100_000))).collect();
    let answer = call(&server, STREAM_CHECK, &[REQUEST], stream).await;
    assert_eq!(answer.code(), Code::Ok);
    wait_until_nothing_is_held(&server).await;
    assert!(of(&server, r#"capstan_shed_total{scope="bytes"}"#).await > 0.0);
}

/// Bombs: 64 MiB in 64 KiB, 64 MiB that pretend to be short, and a thousand batches of 4 MiB at once.
async fn bombs_take_no_memory(over: Over) {
    let server = over.serve(&[]);
    let address = over.of(&server);
    let honest = member(&vec![0; 64 << 20], Compression::best());
    assert!(honest.len() < 100_000, "{}", honest.len());
    let mut lies = honest.clone();
    let at = lies.len() - 4;
    lies[at..].copy_from_slice(&1_000_000_u32.to_le_bytes());
    let before = memory(&server, "VmHWM:");
    for _ in 0..20 {
        let answer = call(address, BATCH_CHECK, &[REQUEST], frame(&honest)).await;
        assert_refused(&answer, Code::ResourceExhausted, "TOO_LARGE", "an honest bomb");
        let answer = call(address, BATCH_CHECK, &[REQUEST], frame(&lies)).await;
        assert_refused(&answer, Code::InvalidArgument, "INVALID_FIELD", "a lying bomb");
    }
    let grown = memory(&server, "VmHWM:") - before;
    assert!(grown < 8 << 20, "{grown} bytes for bombs");

    // Batches of the longest kind, which decompress well: one of a worker is decompressed at a time. A connection whose
    // peer holds its share of memory may be ended, and a client that is late by more than `LINGER_MAX` sees a reset instead
    // of the reason (`transport::bounds` holds the reason). On a busy machine no call ends in time.
    let bytes = gzipped(&batch_of(MESSAGE_BYTES_MAX));
    assert!(bytes.len() < 8_000, "{}", bytes.len());
    until_ok(address, BATCH_CHECK, &bytes).await;
    let call_one = || raw::call(address, BATCH_CHECK, &[REQUEST], (bytes.clone(), Body::Whole));
    let answers = futures_util::future::join_all((0..1_000).map(|_| call_one())).await;
    let codes: Vec<Code> = answers.iter().flatten().map(Answer::code).collect();
    assert!(!codes.is_empty(), "no connection had an answer");
    let known = [Code::Ok, Code::ResourceExhausted, Code::DeadlineExceeded];
    assert!(codes.iter().all(|code| known.contains(code)), "{codes:?}");
    let grown = memory(&server, "VmHWM:") - before;
    assert!(grown < 150 << 20, "{grown} bytes for a thousand batches, of 4,000 MiB");
    // What is left of them may still be decompressed.
    until_ok(address, CHECK, &gzipped(&check())).await;
}

/// Calls until the answer is OK: a machine may be too busy to answer in time.
async fn until_ok(server: Place, path: &str, bytes: &[u8]) {
    let until = Instant::now() + PATIENCE;
    while call(server, path, &[REQUEST], bytes.to_vec()).await.code() != Code::Ok {
        assert!(Instant::now() < until, "{path} is never answered");
    }
}

// === Answers ===

/// The only message of an answer, and whether it was compressed.
fn message(answer: &Answer) -> (Vec<u8>, bool) {
    let (header, rest) = capstan_proto::frame::Header::read(&answer.data).unwrap();
    assert_eq!(header.length, rest.len());
    if !header.compressed {
        return (rest.to_vec(), false);
    }
    let mut message = Vec::new();
    GzDecoder::new(rest).read_to_end(&mut message).unwrap();
    assert!(rest.len() < message.len());
    (message, true)
}

#[tokio::test]
async fn long_answers_are_compressed_if_the_client_asks() {
    let server = InProcess::start(Source::Demo).await;
    let mut seen = HashSet::new();
    for (path, messages) in calls() {
        if path == STREAM_CHECK || path.contains("Reflection") {
            continue; // Several messages.
        }
        let bytes = plain(&messages[0]);
        let expected = call(server.grpc, path, &[], bytes.clone()).await;
        let answer = call(server.grpc, path, &[ANSWER], bytes.clone()).await;
        assert_eq!(answer.code(), Code::Ok);
        let (plain, compressed) = message(&answer);
        assert!(is_same(path, &plain, &message(&expected).0), "{path}");
        assert_eq!(compressed, plain.len() > COMPRESSED_ANSWER_MIN, "{path}: {}", plain.len());
        let says = answer.headers.get("grpc-encoding").is_some_and(|value| value == "gzip");
        let is_never = [CHECK, EXT_AUTHZ, HEALTH].contains(&path);
        assert_eq!(says, !is_never, "{path}: {:?}", answer.headers);
        seen.insert(compressed);
        for other in ["identity", "deflate,x-gzip"] {
            let headers = [("grpc-accept-encoding", other)];
            let answer = call(server.grpc, path, &headers, bytes.clone()).await;
            assert!(is_same(path, &answer.data, &expected.data), "{path}");
            assert!(!has_encoding(&answer.headers), "{path}");
        }
    }
    assert_eq!(seen.len(), 2, "no answer is long, or none is short");
}

fn has_encoding(headers: &HeaderMap) -> bool {
    headers.contains_key("grpc-encoding")
}

#[tokio::test]
async fn each_answer_of_a_stream_is_compressed_if_it_is_long() {
    let server = InProcess::start(Source::Demo).await;
    let batches: Vec<u8> = [1, 1_000, 2].map(|checks| framed(&batch(checks))).concat();
    let answer = call(server.grpc, STREAM_CHECK, &[ANSWER, REQUEST], batches).await;
    assert_eq!((answer.code(), has_encoding(&answer.headers)), (Code::Ok, true));
    let mut rest = &answer.data[..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (header, after) = capstan_proto::frame::Header::read(rest).unwrap();
        let (one, after) = after.split_at(header.length);
        rest = after;
        let mut plain = Vec::new();
        if header.compressed {
            GzDecoder::new(one).read_to_end(&mut plain).unwrap();
        } else {
            plain.extend_from_slice(one);
        }
        let answer = v1::BatchCheckResponse::decode(&plain[..]).unwrap();
        assert!(answer.results.iter().all(|result| result.allowed));
        found.push((answer.results.len(), header.compressed));
    }
    assert_eq!(found, [(1, false), (1_000, true), (2, false)]);
}

/// An error has no body, and names no encoding.
#[tokio::test]
async fn errors_are_not_compressed() {
    let server = InProcess::start(Source::Demo).await;
    let wrong = framed(&v1::ListCapabilitiesRequest::default());
    let answer = call(server.grpc, LIST_CAPABILITIES, &[ANSWER], wrong).await;
    assert_refused(&answer, Code::InvalidArgument, "INVALID_FIELD", "no identity");
    assert!(!has_encoding(&answer.headers) && answer.data.is_empty());
}

/// The Rust client does not ask for compressed answers, and gets none.
#[tokio::test]
async fn the_rust_client_is_unaffected() {
    let server = InProcess::start(Source::Demo).await;
    let client = capstan_client::Client::connect(&server.grpc.to_string()).unwrap();
    let check = || capstan_client::Check::new("alice", "repo.list", "acme");
    assert!(client.check(check()).await.unwrap().allowed);
    // As many as make an answer that would be compressed.
    let many = futures_util::future::join_all((0..1_000).map(|_| client.check(check()))).await;
    assert!(many.into_iter().all(|decision| decision.unwrap().allowed));
    client.shutdown().await;
}
