//! The limits of section 7 of the contract. A request at the limit is served. A request over the limit
//! is refused with the contract's error, and the server continues to serve.

mod connections;
mod pages;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use capstan_proto::iam::v1 as iam;
use capstan_proto::v1::decision_service_client::DecisionServiceClient;
use capstan_proto::v1::{self, consistency::Mode};
use capstan_server::feed::source::Source;
use capstan_server::limits::{
    BATCH_CHECKS_MAX, CONNECTION_STREAMS_MAX, HEADER_BYTES_MAX, Limits, MESSAGE_BYTES_MAX,
    PAGE_DEFAULT, PAGE_MAX, RETRY_PUSHBACK, REVISION_WAIT_MAX, SHORT_BATCH_MAX, TIMEOUT_MIN,
};
use prost::Message as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::command_limits::CONNECT_TIMEOUT;
use crate::common::{InProcess, PATIENCE, Serving, capstan, connect, stderr};
use crate::over::{Over, Place, over_both};
use crate::raw::{
    self, Body, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, REFUSED_STREAM, RST_STREAM,
    check, framed, reason,
};
use crate::secrets::Channel;

over_both!(
    messages_over_4_mib_are_refused,
    a_frame_header_over_the_limit_is_refused_before_its_message,
    headers_over_16_kib_are_refused,
    the_257th_stream_of_a_connection_waits,
    streams_beyond_256_are_refused_and_the_others_are_served,
    the_server_deadline_applies_to_long_absent_and_invalid_timeouts,
    calls_beyond_the_global_limit_are_refused_except_health,
    the_limit_of_one_peer_does_not_affect_other_peers,
    cancelled_calls_return_their_permits,
);

const CHECK: &str = "/capstan.v1.DecisionService/Check";
const STREAM_CHECK: &str = "/capstan.v1.DecisionService/StreamCheck";

/// A check that waits 250 ms for a revision that is never published.
fn waiting_check() -> v1::CheckRequest {
    let consistency = Some(v1::Consistency { mode: Some(Mode::AtLeast(2)) });
    v1::CheckRequest { consistency, ..check() }
}

/// A check that a connection does not answer by itself: it is refused if no permit is left.
fn admitted_check() -> v1::CheckRequest {
    let consistency = Some(v1::Consistency { mode: Some(Mode::AtLeast(1)) });
    v1::CheckRequest { consistency, ..check() }
}

async fn assert_serves(channel: &Channel) {
    let answer = DecisionServiceClient::new(channel.clone()).check(check()).await.unwrap();
    assert!(answer.into_inner().allowed);
}

#[test]
fn limits_have_the_values_of_the_contract() {
    assert_eq!(MESSAGE_BYTES_MAX, 4 << 20);
    assert_eq!(BATCH_CHECKS_MAX, 1_000);
    assert_eq!(CONNECTION_STREAMS_MAX, 256);
    assert_eq!(HEADER_BYTES_MAX, 16 << 10);
    assert_eq!((PAGE_DEFAULT, PAGE_MAX), (100, 1_000));
}

// === Messages ===

fn batch() -> v1::BatchCheckRequest {
    let v1::CheckRequest { identity, capability, resource, properties, .. } = check();
    let item = v1::CheckItem { identity, capability, resource, properties };
    v1::BatchCheckRequest { checks: vec![item], consistency: None }
}

/// A batch of this length in bytes, padded with a context property.
fn batch_of(length: usize) -> v1::BatchCheckRequest {
    let padded = |padding: usize| {
        let value = prost_types::value::Kind::StringValue("x".repeat(padding));
        let value = prost_types::Value { kind: Some(value) };
        let context = [("padding".to_owned(), value)].into();
        let mut batch = batch();
        batch.checks[0].properties = Some(v1::Properties { context, ..Default::default() });
        batch
    };
    let around = padded(length).encoded_len() - length;
    let batch = padded(length - around);
    assert_eq!(batch.encoded_len(), length);
    batch
}

async fn messages_over_4_mib_are_refused(over: Over) {
    let server = over.start(Limits::default()).await;
    // A machine that is busy with other tests may take longer than the server's deadline.
    let until = Instant::now() + PATIENCE;
    let answer = loop {
        match server.decisions().batch_check(batch_of(MESSAGE_BYTES_MAX)).await {
            Err(late) if late.code() == Code::DeadlineExceeded && Instant::now() < until => {}
            answer => break answer.unwrap(),
        }
    };
    assert!(answer.into_inner().results[0].allowed);
    let beyond = server.decisions().batch_check(batch_of(MESSAGE_BYTES_MAX + 1)).await.unwrap_err();
    assert_too_large(&beyond);

    // A stream answers the batches before the too large one.
    let batches = tokio_stream::iter([batch(), batch_of(MESSAGE_BYTES_MAX + 1)]);
    let mut answers = server.decisions().stream_check(batches).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().unwrap().results[0].allowed);
    assert_too_large(&answers.message().await.unwrap_err());
    assert_serves(&server.channel).await;
}

#[track_caller]
fn assert_too_large(status: &Status) {
    assert_eq!((status.code(), &*reason(status)), (Code::ResourceExhausted, "TOO_LARGE"));
    let pushback = status.metadata().get("grpc-retry-pushback-ms");
    assert_eq!(pushback.unwrap().to_str().unwrap(), "-1", "a retry would be too large again");
}

#[tokio::test]
async fn responses_over_the_message_limit_are_not_sent() {
    let limits = Limits { message_bytes_max: 1_000, ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    let list = |identity: &str| v1::ListCapabilitiesRequest {
        identity: identity.into(),
        resource: "acme".into(),
        ..Default::default()
    };
    assert_too_large(&server.decisions().list_capabilities(list("alice")).await.unwrap_err());
    server.decisions().list_capabilities(list("zoe")).await.unwrap();
    assert_serves(&server.channel).await;
}

async fn a_frame_header_over_the_limit_is_refused_before_its_message(over: Over) {
    let server = over.start(Limits::default()).await;
    let claim = (b"\0\xff\xff\xff\xff".to_vec(), Body::Open);
    let answer = raw::call(&server, CHECK, &[], claim).await.unwrap();
    assert_eq!((answer.code(), &*answer.reason()), (Code::ResourceExhausted, "TOO_LARGE"));
    assert_serves(&server.channel).await;
}

#[tokio::test]
async fn undecodable_messages_are_invalid_arguments() {
    let server = InProcess::start(Source::Demo).await;
    let cases = [
        (b"\0\0\0\0\x01\xff".to_vec(), "invalid protobuf"),
        (b"\0\0\0\0\x04\x0a\x02\xc3\x28".to_vec(), "invalid UTF-8"),
        (b"\x01\0\0\0\x02ab".to_vec(), "compressed without `grpc-encoding`"),
        (b"\x07\0\0\0\x02ab".to_vec(), "an unknown flag"),
        (b"\0\0\0\0\x09ab".to_vec(), "a message shorter than its length"),
        (b"\0\0".to_vec(), "an incomplete frame header"),
        (b"".to_vec(), "an empty body"),
    ];
    for (bytes, what) in cases {
        let answer = raw::call(server.grpc, CHECK, &[], (bytes.clone(), Body::Whole)).await;
        let answer = answer.unwrap();
        let found = (answer.code(), &*answer.reason());
        assert_eq!(found, (Code::InvalidArgument, "INVALID_FIELD"), "{what}");
        if !bytes.is_empty() {
            let stream = raw::call(server.grpc, STREAM_CHECK, &[], (bytes, Body::Whole)).await;
            let stream = stream.unwrap();
            let found = (stream.code(), &*stream.reason());
            assert_eq!(found, (Code::InvalidArgument, "INVALID_FIELD"), "{what}, in a stream");
        }
    }
    assert_serves(&server.channel).await;
}

// === HTTP/2 ===

async fn headers_over_16_kib_are_refused(over: Over) {
    let server = over.start(Limits::default()).await;
    let most = usize::try_from(HEADER_BYTES_MAX).unwrap();
    let with = |length: usize| {
        let mut request = Request::new(check());
        request.metadata_mut().insert("x-padding", "x".repeat(length).parse().unwrap());
        request
    };
    assert!(server.decisions().check(with(most - 1_000)).await.is_ok());
    assert!(server.decisions().check(with(most)).await.is_err());
    assert_serves(&server.channel).await;
    let padding = "x".repeat(most);
    let body = (framed(&check()), Body::Whole);
    let refused = raw::call(&server, CHECK, &[("x-padding", &padding)], body).await.unwrap();
    assert_eq!(refused.http_status, 431);
}

/// An open StreamCheck call. Dropping it ends the call.
struct Stream {
    _requests: mpsc::Sender<v1::BatchCheckRequest>,
    _answers: Streaming<v1::BatchCheckResponse>,
}

async fn open(channel: &Channel) -> Result<Stream, Status> {
    let (requests, receive) = mpsc::channel(1);
    requests.send(batch()).await.unwrap();
    let mut decisions = DecisionServiceClient::new(channel.clone());
    let mut answers = decisions.stream_check(ReceiverStream::new(receive)).await?.into_inner();
    // A refusal can arrive before or after the response headers.
    answers.message().await?;
    Ok(Stream { _requests: requests, _answers: answers })
}

async fn the_257th_stream_of_a_connection_waits(over: Over) {
    let server = over.start(Limits::default()).await;
    let mut streams = Vec::new();
    for _ in 0..CONNECTION_STREAMS_MAX {
        streams.push(open(&server.channel).await.unwrap());
    }
    let next = open(&server.channel);
    tokio::pin!(next);
    let waits = tokio::time::timeout(Duration::from_millis(100), &mut next).await;
    assert!(waits.is_err(), "the 257th stream must wait");
    // Other connections are not affected.
    assert_serves(&connect(&server).await).await;
    streams.pop();
    tokio::time::timeout(PATIENCE, next).await.unwrap().unwrap();
}

/// A client that ignores the limit of streams: each stream over the limit is reset, the first 256 are
/// answered, and other connections are not affected.
async fn streams_beyond_256_are_refused_and_the_others_are_served(over: Over) {
    const BEYOND: u32 = 20;
    let limits = Limits { unary_time_max: PATIENCE, ..Limits::default() };
    let server = over.start(limits).await;
    let mut peer = Frames::connect(&server).await;
    // Streams that a client opens have odd numbers.
    let streams = (0..CONNECTION_STREAMS_MAX + BEYOND).map(|at| 2 * at + 1);
    let (within, beyond) = (0..2 * CONNECTION_STREAMS_MAX, 2 * CONNECTION_STREAMS_MAX..);
    for stream in streams.clone() {
        peer.send(HEADERS, END_HEADERS, stream, &raw::header_block(CHECK)).await;
    }
    let mut refused = Vec::new();
    while refused.len() < BEYOND as usize {
        let (kind, _, stream, payload) = peer.next().await;
        if kind == RST_STREAM {
            assert_eq!(payload, REFUSED_STREAM.to_be_bytes(), "stream {stream}");
            refused.push(stream);
        }
    }
    refused.sort_unstable();
    assert_eq!(refused, streams.clone().filter(|at| beyond.contains(at)).collect::<Vec<_>>());
    assert_serves(&server.channel).await;

    let within: Vec<_> = streams.filter(|at| within.contains(at)).collect();
    for stream in &within {
        peer.send(DATA, END_STREAM, *stream, &framed(&check())).await;
    }
    let (mut answered, mut ended) = (BTreeSet::new(), BTreeSet::new());
    while ended.len() < within.len() {
        let (kind, flags, stream, _) = peer.next().await;
        assert!(![RST_STREAM, GOAWAY].contains(&kind), "stream {stream}");
        if kind == DATA {
            // An error has no DATA frame.
            answered.insert(stream);
        }
        if flags & END_STREAM != 0 && [DATA, HEADERS].contains(&kind) {
            ended.insert(stream);
        }
    }
    assert!(within.iter().eq(&ended), "{ended:?}");
    assert_eq!(answered, ended);
}

// === Deadlines ===

async fn with_timeout(server: &InProcess, timeout: &str, request: &v1::CheckRequest) -> Code {
    let body = (framed(request), Body::Whole);
    let headers = [("grpc-timeout", timeout)];
    raw::call(server, CHECK, &headers, body).await.unwrap().code()
}

#[tokio::test]
async fn a_waiting_call_ends_at_its_deadline() {
    let server = InProcess::start(Source::Demo).await;
    for timeout in ["50m", "50000u", "50000000n"] {
        let began = Instant::now();
        let code = with_timeout(&server, timeout, &waiting_check()).await;
        assert_eq!(code, Code::DeadlineExceeded, "{timeout}");
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(45), "{took:?}");
        assert!(took < Duration::from_millis(250), "{took:?}");
    }
    // With a longer deadline, the limit of the wait comes first.
    assert_eq!(with_timeout(&server, "5S", &waiting_check()).await, Code::Unavailable);
    assert_eq!(with_timeout(&server, "50m", &check()).await, Code::Ok);
}

#[tokio::test]
async fn calls_expired_on_arrival_are_not_answered() {
    let server = InProcess::start(Source::Demo).await;
    let nearly = format!("{}n", TIMEOUT_MIN.as_nanos() - 1);
    for timeout in ["0n", "1n", &nearly, "0u", "0S", "0H"] {
        let code = with_timeout(&server, timeout, &check()).await;
        assert_eq!(code, Code::DeadlineExceeded, "{timeout}");
    }
}

async fn the_server_deadline_applies_to_long_absent_and_invalid_timeouts(over: Over) {
    let limits = Limits { unary_time_max: Duration::from_millis(50), ..Limits::default() };
    let server = over.start(limits).await;
    for timeout in ["99999999H", "1S", "", "m", "50", "50x", "-1m", "1.5S", "123456789n", "+5S"] {
        let code = with_timeout(&server, timeout, &waiting_check()).await;
        assert_eq!(code, Code::DeadlineExceeded, "{timeout:?}");
        assert_eq!(with_timeout(&server, timeout, &check()).await, Code::Ok, "{timeout:?}");
    }
    let status = server.decisions().check(waiting_check()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    // A call with an incomplete request waits as well.
    let part = (framed(&check())[..8].to_vec(), Body::Open);
    let answer = raw::call(&server, CHECK, &[], part).await.unwrap();
    assert_eq!(answer.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn the_wait_for_a_revision_is_limited() {
    let server = InProcess::start(Source::Demo).await;
    let began = Instant::now();
    let status = server.decisions().check(waiting_check()).await.unwrap_err();
    assert!(began.elapsed() >= REVISION_WAIT_MAX);
    assert_eq!((status.code(), &*reason(&status)), (Code::Unavailable, "REVISION_NOT_AVAILABLE"));
    let retry = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert_eq!(retry, REVISION_WAIT_MAX);
}

/// A port with a full backlog: it accepts no connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_has_a_connect_timeout() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut waiting = Vec::new();
    // The kernel accepts slightly more connections than the given backlog.
    while let Ok(tcp) =
        tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        waiting.push(tcp.unwrap());
        assert!(waiting.len() < 100, "the backlog never becomes full");
    }
    let began = Instant::now();
    let url = format!("http://{address}");
    let output = capstan(&["check", "alice", "repo.list", "acme", "--addr", &url]);
    assert!(began.elapsed() >= CONNECT_TIMEOUT);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("cannot reach"), "{}", stderr(&output));
}

/// A call whose deadline passes has one code, however busy the server is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_calls_never_end_as_cancelled() {
    let server = InProcess::start(Source::Demo).await;
    let mut ends = Vec::new();
    for round in 0..40 {
        let calls = (0..10).map(|call| {
            let timeout = format!("{}u", 1 + (round * 10 + call) * 37 % 4_000);
            let server = &server;
            async move { with_timeout(server, &timeout, &waiting_check()).await }
        });
        ends.extend(futures_util::future::join_all(calls).await);
    }
    ends.retain(|end| *end != Code::DeadlineExceeded);
    assert_eq!(ends, []);
}

#[tokio::test]
async fn a_stream_has_only_the_client_deadline() {
    let limits = Limits { unary_time_max: Duration::from_millis(50), ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    let batch = framed(&batch());
    let headers = [("grpc-timeout", "200m")];
    let began = Instant::now();
    let stream = raw::call(server.grpc, STREAM_CHECK, &headers, (batch, Body::Open)).await;
    assert_eq!(stream.unwrap().code(), Code::DeadlineExceeded);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(190), "{took:?}");
}

// === Calls in flight ===

async fn assert_healthy(channel: &Channel) {
    let request = HealthCheckRequest { service: "capstan.v1.DecisionService".into() };
    HealthClient::new(channel.clone()).check(request).await.unwrap();
}

#[track_caller]
fn assert_overloaded(status: &Status) {
    assert_eq!((status.code(), &*reason(status)), (Code::ResourceExhausted, "OVERLOADED"));
    let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap();
    let pushback: u64 = pushback.to_str().unwrap().parse().unwrap();
    let about = u64::try_from(RETRY_PUSHBACK.as_millis()).unwrap();
    assert!((about / 2..=about * 3 / 2).contains(&pushback), "{pushback}");
    let retry = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert_eq!(u64::try_from(retry.as_millis()).unwrap(), pushback);
}

/// Waits until a check is answered: the server releases a permit once it notices the end of a stream.
async fn wait_until_served(channel: &Channel) {
    let began = Instant::now();
    let mut decisions = DecisionServiceClient::new(channel.clone());
    while let Err(status) = decisions.check(admitted_check()).await {
        assert_eq!(reason(&status), "OVERLOADED");
        assert!(began.elapsed() < PATIENCE, "the permit is never released");
    }
}

async fn calls_beyond_the_global_limit_are_refused_except_health(over: Over) {
    let limits = Limits { in_flight_max: 2, peer_in_flight_max: 2, ..Limits::default() };
    let server = over.start(limits).await;
    let mut streams = vec![open(&server.channel).await.unwrap()];
    assert_serves(&server.channel).await;
    streams.push(open(&server.channel).await.unwrap());

    assert_overloaded(&server.decisions().check(admitted_check()).await.unwrap_err());
    // A plain check needs no permit.
    assert_serves(&server.channel).await;
    assert_overloaded(&open(&server.channel).await.err().unwrap());
    // Management has permits of its own.
    server.roles().list_roles(iam::ListRolesRequest::default()).await.unwrap();
    assert_healthy(&server.channel).await;
    assert_healthy(&connect(&server).await).await;

    streams.pop();
    wait_until_served(&server.channel).await;
}

/// `serve --max-in-flight`: half of them are of one peer.
#[tokio::test]
async fn the_operator_sets_how_many_calls_are_in_flight() {
    let demo = ["--demo", "--listen", "127.0.0.1:0", "--http", "none", "--max-in-flight"];
    for wrong in ["1", "2049", "none"] {
        let refused = capstan(&[&["serve"], &demo[..], &[wrong]].concat());
        assert_eq!(refused.status.code(), Some(2));
        assert!(stderr(&refused).contains("a number from 2 to 2048"), "{}", stderr(&refused));
    }
    let server = Serving::start(&[&demo[..], &["4"]].concat(), 1);
    let address: SocketAddr = server.address("grpc").parse().unwrap();
    let channel = connect(address).await;
    let mut streams = vec![open(&channel).await.unwrap()];
    streams.push(open(&channel).await.unwrap());
    assert_overloaded(&open(&channel).await.err().unwrap());
    let other = Place::from(address).channel_of_another_peer().await;
    streams.push(open(&other).await.unwrap());
    streams.push(open(&other).await.unwrap());
    assert_serves(&channel).await;
}

async fn the_limit_of_one_peer_does_not_affect_other_peers(over: Over) {
    let limits = Limits { in_flight_max: 4, peer_in_flight_max: 2, ..Limits::default() };
    let server = over.start(limits).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        // The limit counts the calls of all connections of a peer.
        streams.push(open(&connect(&server).await).await.unwrap());
    }
    assert_overloaded(&server.decisions().check(admitted_check()).await.unwrap_err());
    // A plain check needs no permit.
    assert_serves(&server.channel).await;
    assert_healthy(&server.channel).await;

    let other = Place::from(&server).channel_of_another_peer().await;
    assert_serves(&other).await;
    streams.push(open(&other).await.unwrap());
    streams.push(open(&other).await.unwrap());
    assert_overloaded(&open(&other).await.err().unwrap());

    streams.remove(0);
    wait_until_served(&server.channel).await;
    assert_overloaded(&open(&other).await.err().unwrap());
}

/// Without any compute permit, calls that need one wait, and do not block calls that need none.
#[tokio::test]
async fn calls_that_wait_for_a_permit_do_not_block_checks_or_health() {
    let limits = Limits { computing_max: 0, unary_time_max: PATIENCE, ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    tokio::select! {
        codes = calls_that_need_a_permit(&server) => panic!("ended without a permit: {codes:?}"),
        () = async {
            assert_serves(&server.channel).await;
            assert!(server.decisions().batch_check(batch()).await.is_ok());
            assert_healthy(&server.channel).await;
        } => {}
    }
}

#[tokio::test]
async fn calls_without_a_permit_end_at_their_deadline() {
    let unary_time_max = Duration::from_millis(50);
    let limits = Limits { computing_max: 0, unary_time_max, ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    assert_eq!(Box::pin(calls_that_need_a_permit(&server)).await, [Code::DeadlineExceeded; 6]);
    assert_serves(&server.channel).await;
}

/// Makes every unary call except Check at the same time, with a long batch. Returns the error codes:
/// none of the calls may be answered.
async fn calls_that_need_a_permit(server: &InProcess) -> [Code; 6] {
    let v1::CheckRequest { identity, capability, resource, .. } = check();
    let what = v1::ListCapabilitiesRequest {
        identity: identity.clone(),
        resource: resource.clone(),
        ..Default::default()
    };
    let who = v1::ListIdentitiesRequest {
        capability: capability.clone(),
        resource: resource.clone(),
        ..Default::default()
    };
    let places = v1::ListScopesRequest {
        identity: identity.clone(),
        capability: capability.clone(),
        ..Default::default()
    };
    let why = v1::ExplainRequest { identity, capability, resource, ..Default::default() };
    let decisions = || server.decisions();
    let item = batch().checks.remove(0);
    let checks = vec![item; SHORT_BATCH_MAX + 1];
    let long = v1::BatchCheckRequest { checks, consistency: None };
    let roles = iam::ListRolesRequest::default();
    tokio::join!(
        async { decisions().batch_check(long).await.unwrap_err().code() },
        async { decisions().list_capabilities(what).await.unwrap_err().code() },
        async { decisions().list_identities(who).await.unwrap_err().code() },
        async { decisions().list_scopes(places).await.unwrap_err().code() },
        async { decisions().explain(why).await.unwrap_err().code() },
        async { server.roles().list_roles(roles).await.unwrap_err().code() },
    )
    .into()
}

async fn cancelled_calls_return_their_permits(over: Over) {
    let limits = Limits { in_flight_max: 1, peer_in_flight_max: 1, ..Limits::default() };
    let server = over.start(limits).await;
    for _ in 0..20 {
        let mut decisions = server.decisions();
        let call = decisions.check(waiting_check());
        let _ = tokio::time::timeout(Duration::from_millis(5), call).await;
    }
    wait_until_served(&server.channel).await;
}
