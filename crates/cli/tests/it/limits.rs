//! Each limit of the contract's section 7 by itself: what is just within it is served, what is
//! beyond it is refused in the contract's words, and the server goes on.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use capstan_proto::v1::decision_service_client::DecisionServiceClient;
use capstan_proto::v1::{self, consistency::Mode};
use capstan_server::feed::source::Source;
use capstan_server::limits::{
    BATCH_CHECKS_MAX, CONNECTION_STREAMS_MAX, HEADER_BYTES_MAX, Limits, MESSAGE_BYTES_MAX,
    PAGE_DEFAULT, PAGE_MAX, RETRY_PUSHBACK, REVISION_WAIT_MAX, SHORT_BATCH_MAX, TIMEOUT_MIN,
};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::command_limits::CONNECT_TIMEOUT;
use crate::common::{InProcess, PATIENCE, Serving, capstan, connect, folder, stderr};
use crate::metrics;
use crate::raw::{
    self, Body, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, REFUSED_STREAM, RST_STREAM,
    framed, reason,
};

const CHECK: &str = "/capstan.v1.DecisionService/Check";
const STREAM_CHECK: &str = "/capstan.v1.DecisionService/StreamCheck";

fn check() -> v1::CheckRequest {
    v1::CheckRequest {
        identity: "alice".into(),
        capability: "repo.list".into(),
        resource: "acme".into(),
        ..Default::default()
    }
}

/// A check that waits for a revision that does not come: 250 ms.
fn waiting_check() -> v1::CheckRequest {
    let consistency = Some(v1::Consistency { mode: Some(Mode::AtLeast(2)) });
    v1::CheckRequest { consistency, ..check() }
}

async fn serves(channel: &Channel) {
    let answer = DecisionServiceClient::new(channel.clone()).check(check()).await.unwrap();
    assert!(answer.into_inner().allowed);
}

#[test]
fn the_contracts_figures_are_kept() {
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

/// A batch whose context makes it as long as this.
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

#[tokio::test]
async fn a_message_of_4_mib_comes_in_and_one_byte_more_does_not() {
    let server = InProcess::start(Source::Demo).await;
    let answer = server.decisions().batch_check(batch_of(MESSAGE_BYTES_MAX)).await.unwrap();
    assert!(answer.into_inner().results[0].allowed);
    let beyond = server.decisions().batch_check(batch_of(MESSAGE_BYTES_MAX + 1)).await.unwrap_err();
    too_large(&beyond);

    // In a stream, the batches before it are answered.
    let batches = tokio_stream::iter([batch(), batch_of(MESSAGE_BYTES_MAX + 1)]);
    let mut answers = server.decisions().stream_check(batches).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().unwrap().results[0].allowed);
    too_large(&answers.message().await.unwrap_err());
    serves(&server.channel).await;
}

#[track_caller]
fn too_large(status: &Status) {
    assert_eq!((status.code(), &*reason(status)), (Code::ResourceExhausted, "TOO_LARGE"));
    let pushback = status.metadata().get("grpc-retry-pushback-ms");
    assert_eq!(pushback.unwrap().to_str().unwrap(), "-1", "the same again is too large again");
}

#[tokio::test]
async fn an_answer_over_the_limit_does_not_go_out() {
    let limits = Limits { message_bytes_max: 1_000, ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    let list = |identity: &str| v1::ListCapabilitiesRequest {
        identity: identity.into(),
        resource: "acme".into(),
        ..Default::default()
    };
    too_large(&server.decisions().list_capabilities(list("alice")).await.unwrap_err());
    server.decisions().list_capabilities(list("zoe")).await.unwrap();
    serves(&server.channel).await;
}

#[tokio::test]
async fn a_length_that_is_only_claimed_is_refused_at_once() {
    let server = InProcess::start(Source::Demo).await;
    let claim = (b"\0\xff\xff\xff\xff".to_vec(), Body::Open);
    let answer = raw::call(server.grpc, CHECK, &[], claim).await.unwrap();
    assert_eq!((answer.code(), &*answer.reason()), (Code::ResourceExhausted, "TOO_LARGE"));
    serves(&server.channel).await;
}

#[tokio::test]
async fn undecodable_bytes_are_the_callers_mistake() {
    let server = InProcess::start(Source::Demo).await;
    let cases = [
        (b"\0\0\0\0\x01\xff".to_vec(), "no protobuf"),
        (b"\0\0\0\0\x04\x0a\x02\xc3\x28".to_vec(), "no UTF-8"),
        (b"\x01\0\0\0\x02ab".to_vec(), "compressed, and nobody said how"),
        (b"\x07\0\0\0\x02ab".to_vec(), "an unknown flag"),
        (b"\0\0\0\0\x09ab".to_vec(), "less than it says"),
        (b"\0\0".to_vec(), "half a head"),
        (b"".to_vec(), "nothing"),
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
    serves(&server.channel).await;
}

// === HTTP/2 ===

#[tokio::test]
async fn headers_of_16_kib_are_enough() {
    let server = InProcess::start(Source::Demo).await;
    let most = usize::try_from(HEADER_BYTES_MAX).unwrap();
    let with = |length: usize| {
        let mut request = Request::new(check());
        request.metadata_mut().insert("x-padding", "x".repeat(length).parse().unwrap());
        request
    };
    assert!(server.decisions().check(with(most - 1_000)).await.is_ok());
    assert!(server.decisions().check(with(most)).await.is_err());
    serves(&server.channel).await;
    let padding = "x".repeat(most);
    let body = (framed(&check()), Body::Whole);
    let refused = raw::call(server.grpc, CHECK, &[("x-padding", &padding)], body).await.unwrap();
    assert_eq!(refused.http_status, 431);
}

/// An open StreamCheck, which ends when dropped.
struct Stream {
    _requests: mpsc::Sender<v1::BatchCheckRequest>,
    _answers: Streaming<v1::BatchCheckResponse>,
}

async fn open(channel: &Channel) -> Result<Stream, Status> {
    let (requests, receive) = mpsc::channel(1);
    requests.send(batch()).await.unwrap();
    let mut decisions = DecisionServiceClient::new(channel.clone());
    let mut answers = decisions.stream_check(ReceiverStream::new(receive)).await?.into_inner();
    // Refusals come before the answer's head or after it.
    answers.message().await?;
    Ok(Stream { _requests: requests, _answers: answers })
}

#[tokio::test]
async fn a_connection_carries_256_streams_and_the_next_waits() {
    let server = InProcess::start(Source::Demo).await;
    let mut streams = Vec::new();
    for _ in 0..CONNECTION_STREAMS_MAX {
        streams.push(open(&server.channel).await.unwrap());
    }
    let next = open(&server.channel);
    tokio::pin!(next);
    let waits = tokio::time::timeout(Duration::from_millis(100), &mut next).await;
    assert!(waits.is_err(), "the 257th must wait");
    // Another connection is not concerned.
    serves(&connect(server.grpc).await).await;
    streams.pop();
    tokio::time::timeout(PATIENCE, next).await.unwrap().unwrap();
}

/// A client that counts wrong, or does not care: what it opened first is answered, what it opened
/// beyond the limit is refused stream by stream, and nobody else is concerned.
#[tokio::test]
async fn streams_beyond_256_are_refused_and_the_others_are_answered() {
    const BEYOND: u32 = 20;
    let limits = Limits { unary_time_max: PATIENCE, ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    let mut peer = Frames::connect(server.grpc).await;
    // Client's streams have odd numbers.
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
    serves(&server.channel).await;

    let within: Vec<_> = streams.filter(|at| within.contains(at)).collect();
    for stream in &within {
        peer.send(DATA, END_STREAM, *stream, &framed(&check())).await;
    }
    let (mut answered, mut ended) = (BTreeSet::new(), BTreeSet::new());
    while ended.len() < within.len() {
        let (kind, flags, stream, _) = peer.next().await;
        assert!(![RST_STREAM, GOAWAY].contains(&kind), "stream {stream}");
        if kind == DATA {
            // An error would have no message.
            answered.insert(stream);
        }
        if flags & END_STREAM != 0 && [DATA, HEADERS].contains(&kind) {
            ended.insert(stream);
        }
    }
    assert!(within.iter().eq(&ended), "{ended:?}");
    assert_eq!(answered, ended);
}

#[tokio::test]
async fn a_peer_that_does_not_answer_pings_is_cut_off() {
    let limits = Limits {
        keepalive_interval: Duration::from_millis(100),
        keepalive_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let server = InProcess::start_within(limits).await;
    let mut dead = TcpStream::connect(server.grpc).await.unwrap();
    dead.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut frames = Vec::new();
    let read = dead.read_to_end(&mut frames);
    // However the connection ends, it does.
    let _ = tokio::time::timeout(PATIENCE, read).await.expect("the connection is kept open");
    let mut rest = &frames[..];
    let mut kinds = Vec::new();
    while let [a, b, c, kind, _, _, _, _, _, after @ ..] = rest {
        kinds.push(*kind);
        rest = &after[u32::from_be_bytes([0, *a, *b, *c]) as usize..];
    }
    assert!(kinds.contains(&6), "a ping is among {kinds:?}");
    // A client that answers them is kept.
    tokio::time::sleep(Duration::from_millis(500)).await;
    serves(&server.channel).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_end_at_their_age_and_no_call_fails() {
    let limits = Limits { connection_age: Duration::from_millis(300), ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    // A connection that nobody uses is told to go, too.
    let tcp = TcpStream::connect(server.grpc).await.unwrap();
    let (_client, idle) = h2::client::handshake(tcp).await.unwrap();

    let end = Instant::now() + Duration::from_secs(2);
    let calls = (0..8).map(|_| async {
        let mut decisions = server.decisions();
        let mut calls = 0;
        while Instant::now() < end {
            match decisions.check(check()).await {
                Ok(_) => calls += 1,
                // tonic's client fails what it has queued for a connection that ends, or sends it
                // too late: an error of its own, with a cause, for a call that no server began.
                // Other clients of gRPC ask again by themselves.
                Err(status) => {
                    assert!(std::error::Error::source(&status).is_some(), "{status:?}");
                }
            }
        }
        calls
    });
    let calls: u32 = futures_util::future::join_all(calls).await.into_iter().sum();
    assert!(calls > 100, "{calls} calls");
    tokio::time::timeout(PATIENCE, idle).await.expect("the connection outlives its age").unwrap();
    // Whatever reached the server was answered.
    assert_eq!(
        metrics::of(&server, "capstan_requests_total{rpc=\"Check\",code=\"OK\"}").await,
        f64::from(calls)
    );
    assert_eq!(metrics::sum(&server, "capstan_requests_total").await, f64::from(calls));
}

#[tokio::test]
async fn a_call_outlives_its_connections_age() {
    let limits = Limits { connection_age: Duration::from_millis(50), ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    let body = (framed(&waiting_check()), Body::Whole);
    let began = Instant::now();
    let answer = raw::call(server.grpc, CHECK, &[], body).await.unwrap();
    assert_eq!(answer.reason(), "REVISION_NOT_AVAILABLE");
    assert!(began.elapsed() > Duration::from_millis(200));
}

// === Deadlines ===

async fn with_timeout(server: &InProcess, timeout: &str, request: &v1::CheckRequest) -> Code {
    let body = (framed(request), Body::Whole);
    let headers = [("grpc-timeout", timeout)];
    raw::call(server.grpc, CHECK, &headers, body).await.unwrap().code()
}

#[tokio::test]
async fn a_call_that_waits_ends_at_its_deadline() {
    let server = InProcess::start(Source::Demo).await;
    for timeout in ["50m", "50000u", "50000000n"] {
        let began = Instant::now();
        let code = with_timeout(&server, timeout, &waiting_check()).await;
        assert_eq!(code, Code::DeadlineExceeded, "{timeout}");
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(45), "{took:?}");
        assert!(took < Duration::from_millis(250), "{took:?}");
    }
    // With time enough, the wait's own end comes first.
    assert_eq!(with_timeout(&server, "5S", &waiting_check()).await, Code::Unavailable);
    assert_eq!(with_timeout(&server, "50m", &check()).await, Code::Ok);
}

#[tokio::test]
async fn what_has_expired_on_arrival_is_not_answered() {
    let server = InProcess::start(Source::Demo).await;
    let nearly = format!("{}n", TIMEOUT_MIN.as_nanos() - 1);
    for timeout in ["0n", "1n", &nearly, "0u", "0S", "0H"] {
        let code = with_timeout(&server, timeout, &check()).await;
        assert_eq!(code, Code::DeadlineExceeded, "{timeout}");
    }
}

#[tokio::test]
async fn the_servers_deadline_holds_when_the_clients_is_long_absent_or_nonsense() {
    let limits = Limits { unary_time_max: Duration::from_millis(50), ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    for timeout in ["99999999H", "1S", "", "m", "50", "50x", "-1m", "1.5S", "123456789n", "+5S"] {
        let code = with_timeout(&server, timeout, &waiting_check()).await;
        assert_eq!(code, Code::DeadlineExceeded, "{timeout:?}");
        assert_eq!(with_timeout(&server, timeout, &check()).await, Code::Ok, "{timeout:?}");
    }
    let status = server.decisions().check(waiting_check()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    // A request that never ends is a call that waits.
    let part = (framed(&check())[..8].to_vec(), Body::Open);
    let answer = raw::call(server.grpc, CHECK, &[], part).await.unwrap();
    assert_eq!(answer.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_revision_is_waited_for_so_long() {
    let server = InProcess::start(Source::Demo).await;
    let began = Instant::now();
    let status = server.decisions().check(waiting_check()).await.unwrap_err();
    assert!(began.elapsed() >= REVISION_WAIT_MAX);
    assert_eq!((status.code(), &*reason(&status)), (Code::Unavailable, "REVISION_NOT_AVAILABLE"));
    let retry = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert_eq!(retry, REVISION_WAIT_MAX);
}

/// A port that takes no connections, because nobody takes those that wait there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_gives_up_connecting() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut waiting = Vec::new();
    // The system takes some more than it was told to.
    while let Ok(tcp) =
        tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        waiting.push(tcp.unwrap());
        assert!(waiting.len() < 100, "the port is never full");
    }
    let began = Instant::now();
    let url = format!("http://{address}");
    let output = capstan(&["check", "alice", "repo.list", "acme", "--addr", &url]);
    assert!(began.elapsed() >= CONNECT_TIMEOUT);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("cannot reach"), "{}", stderr(&output));
}

/// tonic's own timer would answer CANCELLED, if it were ever first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_deadline_ends_as_cancelled() {
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
async fn a_stream_has_the_clients_deadline_and_no_other() {
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

async fn is_healthy(channel: &Channel) {
    let request = HealthCheckRequest { service: "capstan.v1.DecisionService".into() };
    HealthClient::new(channel.clone()).check(request).await.unwrap();
}

#[track_caller]
fn overloaded(status: &Status) {
    assert_eq!((status.code(), &*reason(status)), (Code::ResourceExhausted, "OVERLOADED"));
    let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap();
    let pushback: u64 = pushback.to_str().unwrap().parse().unwrap();
    let about = u64::try_from(RETRY_PUSHBACK.as_millis()).unwrap();
    assert!((about / 2..=about * 3 / 2).contains(&pushback), "{pushback}");
    let retry = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert_eq!(u64::try_from(retry.as_millis()).unwrap(), pushback);
}

/// Places come back when the server has noticed that a stream has ended.
async fn serves_again(channel: &Channel) {
    let began = Instant::now();
    while let Err(status) = DecisionServiceClient::new(channel.clone()).check(check()).await {
        assert_eq!(reason(&status), "OVERLOADED");
        assert!(began.elapsed() < PATIENCE, "the place never comes back");
    }
}

#[tokio::test]
async fn calls_beyond_the_global_cap_are_turned_away_and_health_answers() {
    let limits = Limits { in_flight_max: 2, peer_in_flight_max: 2, ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    let mut streams = vec![open(&server.channel).await.unwrap()];
    serves(&server.channel).await;
    streams.push(open(&server.channel).await.unwrap());

    overloaded(&server.decisions().check(check()).await.unwrap_err());
    overloaded(&open(&server.channel).await.err().unwrap());
    overloaded(&server.roles().list_roles(v1::ListRolesRequest::default()).await.unwrap_err());
    is_healthy(&server.channel).await;
    is_healthy(&connect(server.grpc).await).await;

    streams.pop();
    serves_again(&server.channel).await;
}

#[tokio::test]
async fn calls_beyond_one_peers_cap_leave_room_for_others() {
    let limits = Limits { in_flight_max: 4, peer_in_flight_max: 2, ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        // Of one peer, whatever the connection.
        streams.push(open(&connect(server.grpc).await).await.unwrap());
    }
    overloaded(&server.decisions().check(check()).await.unwrap_err());
    is_healthy(&server.channel).await;

    let other = Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
    let other = other.local_address(Some([127, 0, 0, 2].into())).connect().await.unwrap();
    serves(&other).await;
    streams.push(open(&other).await.unwrap());
    streams.push(open(&other).await.unwrap());
    overloaded(&open(&other).await.err().unwrap());

    streams.remove(0);
    serves_again(&server.channel).await;
    overloaded(&open(&other).await.err().unwrap());
}

/// With no turn to be had, whoever needs one waits, and holds up nobody who needs none.
#[tokio::test]
async fn calls_that_wait_for_a_turn_hold_up_neither_checks_nor_health() {
    let limits = Limits { computing_max: 0, unary_time_max: PATIENCE, ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    tokio::select! {
        codes = calls_that_need_a_turn(&server) => panic!("ended without a turn: {codes:?}"),
        () = async {
            serves(&server.channel).await;
            assert!(server.decisions().batch_check(batch()).await.is_ok());
            is_healthy(&server.channel).await;
        } => {}
    }
}

#[tokio::test]
async fn calls_that_get_no_turn_are_late() {
    let unary_time_max = Duration::from_millis(50);
    let limits = Limits { computing_max: 0, unary_time_max, ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    assert_eq!(calls_that_need_a_turn(&server).await, [Code::DeadlineExceeded; 6]);
    serves(&server.channel).await;
}

/// Every unary call but Check, all at once, with a long batch; none may be answered.
async fn calls_that_need_a_turn(server: &InProcess) -> [Code; 6] {
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
    let roles = v1::ListRolesRequest::default();
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

/// A call that is given up must give its place back.
#[tokio::test]
async fn calls_that_are_given_up_hold_no_place() {
    let limits = Limits { in_flight_max: 1, peer_in_flight_max: 1, ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    for _ in 0..20 {
        let mut decisions = server.decisions();
        let call = decisions.check(waiting_check());
        let _ = tokio::time::timeout(Duration::from_millis(5), call).await;
    }
    serves_again(&server.channel).await;
}

// === Pages ===

#[tokio::test]
async fn a_page_holds_100_entries_unasked_and_1000_at_most() {
    let mut policy = String::from("version: 1\ncatalog: chainguard-2025-08-14\n");
    let (mut identities, mut bindings) = (String::new(), String::new());
    for at in 0..1_100 {
        identities += &format!("- {{id: person-{at}, type: user}}\n");
        bindings += &format!("- {{identity: person-{at}, role: viewer, scope: acme}}\n");
    }
    policy += &format!("groups:\n- {{id: acme}}\nidentities:\n{identities}");
    policy += &format!("role_bindings:\n{bindings}");
    let path = folder("pages").join("policy.yaml");
    std::fs::write(&path, policy).unwrap();
    let server = InProcess::start(Source::File { path, bytes_max: 1 << 20 }).await;
    let list = |page_size| v1::ListIdentitiesRequest {
        capability: "repo.list".into(),
        resource: "acme".into(),
        page_size,
        ..Default::default()
    };
    for (asked, most) in [(0, PAGE_DEFAULT), (1_000, PAGE_MAX), (5_000, PAGE_MAX), (1, 1)] {
        let page = server.decisions().list_identities(list(asked)).await.unwrap().into_inner();
        assert_eq!(page.identities.len(), most, "{asked}");
        assert!(!page.next_page_token.is_empty());
    }
    let status = server.decisions().list_identities(list(-1)).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::InvalidArgument, "INVALID_FIELD"));
}

#[tokio::test]
async fn connections_beyond_the_cap_are_closed_and_counted() {
    let limits = Limits { connections_max: 3, ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    let mut others = vec![connect(server.grpc).await, connect(server.grpc).await];
    for channel in &others {
        serves(channel).await;
    }
    let mut refused = tokio::net::TcpStream::connect(server.grpc).await.unwrap();
    let mut nothing = Vec::new();
    refused.read_to_end(&mut nothing).await.unwrap();
    assert!(nothing.is_empty(), "{nothing:?}");
    serves(&server.channel).await;
    let scraped = metrics::scrape(&server).await;
    assert!(scraped["capstan_shed_total{scope=\"connections\"}"] >= 1.0);

    others.pop();
    let began = Instant::now();
    loop {
        let again = Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
        if DecisionServiceClient::new(again.connect_lazy()).check(check()).await.is_ok() {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "the place never comes back");
    }
}

#[tokio::test]
async fn one_peer_cannot_take_every_connection() {
    let limits = Limits { peer_connections_max: 2, ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    let second = connect(server.grpc).await;
    serves(&second).await;
    let mut refused = tokio::net::TcpStream::connect(server.grpc).await.unwrap();
    let mut nothing = Vec::new();
    refused.read_to_end(&mut nothing).await.unwrap();
    assert!(nothing.is_empty(), "{nothing:?}");
    let scraped = metrics::scrape(&server).await;
    assert!(scraped["capstan_shed_total{scope=\"connections\"}"] >= 1.0);
    // The loopback network has many addresses.
    let other = Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
    let other = other.local_address(Some([127, 0, 0, 2].into())).connect().await.unwrap();
    serves(&other).await;
    serves(&server.channel).await;
}

/// A connection has an age only once its peer has said that it speaks HTTP/2 (`GREETING_MAX`).
#[tokio::test]
async fn connections_that_say_nothing_are_closed() {
    let limits = Limits { greeting_max: Duration::from_millis(300), ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    for said in [&b""[..], b"PRI * HTTP/2.0\r\n"] {
        let mut silent = TcpStream::connect(server.grpc).await.unwrap();
        silent.write_all(said).await.unwrap();
        // What the server says of itself may come first; then the end.
        let ended = tokio::time::timeout(PATIENCE, silent.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "still open after {said:?}");
    }
    // Who has spoken may be silent.
    serves(&server.channel).await;
    tokio::time::sleep(2 * limits.greeting_max).await;
    serves(&server.channel).await;
    let scraped = metrics::scrape(&server).await;
    assert!(scraped.contains_key("capstan_in_flight"), "{scraped:?}");
}

/// `HTTP_IDLE_MAX`, for those that say nothing and those that say it byte by byte; until then no more
/// than `HTTP_CONNECTIONS_MAX` are taken.
#[tokio::test]
async fn http_connections_are_few_and_end_without_an_answer() {
    let http_idle_max = Duration::from_millis(800);
    let limits = Limits { http_idle_max, http_connections_max: 2, ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    let began = Instant::now();
    let mut silent = TcpStream::connect(server.http).await.unwrap();
    let mut slow = TcpStream::connect(server.http).await.unwrap();
    let drip = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if slow.write_all(b"G").await.is_err() {
                return;
            }
        }
    };
    let (mut nothing, mut answer) = (Vec::new(), String::new());
    let third = async {
        let mut third = TcpStream::connect(server.http).await.unwrap();
        third
            .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        third.read_to_string(&mut answer).await.unwrap();
        began.elapsed()
    };
    let all = async { tokio::join!(drip, silent.read_to_end(&mut nothing), third) };
    let ((), _, waited) = tokio::time::timeout(PATIENCE, all).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(waited >= http_idle_max, "there was a place after {waited:?}");
}

/// The soft limit is a shell's habit: the server raises it as far as it may.
#[tokio::test]
async fn file_descriptors_are_asked_for() {
    let capstan = env!("CARGO_BIN_EXE_capstan");
    let serve = "serve --demo --listen 127.0.0.1:0 --http none --workers 1";
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", &format!("ulimit -Sn 40 && exec {capstan} {serve}")]);
    let server = Serving::spawn(&mut limited, 1);
    let address: SocketAddr = server.address("grpc").parse().unwrap();
    let mut many = Vec::new();
    for _ in 0..60 {
        let channel = connect(address).await;
        serves(&channel).await;
        many.push(channel);
    }
    drop(many);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

/// Without a file descriptor left, connections wait in the kernel (`ACCEPT_PAUSE` by `ACCEPT_PAUSE`)
/// and those that are there go on.
#[tokio::test]
async fn a_server_out_of_file_descriptors_goes_on() {
    let capstan = env!("CARGO_BIN_EXE_capstan");
    let serve = "serve --demo --listen 127.0.0.1:0 --http none --workers 1";
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", &format!("ulimit -n 40 && exec {capstan} {serve}")]);
    let mut server = Serving::spawn(&mut limited, 1);
    let address: SocketAddr = server.address("grpc").parse().unwrap();
    let channel = connect(address).await;
    serves(&channel).await;
    let mut many = Vec::new();
    for _ in 0..60 {
        many.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    server.wait_for_log("cannot take a connection");
    serves(&channel).await;
    drop(many);
    serves(&connect(address).await).await;
    server.stop("-TERM");
}
