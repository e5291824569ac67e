//! What the server holds for a peer is bounded: bodies that do not end, answers that are not read,
//! lengths that are only announced, and health checks.

use std::path::Path;
use std::time::{Duration, Instant};

use capstan_proto::v1;
use capstan_server::feed::source::Source;
use capstan_server::limits::{
    CONNECTION_HELD_BYTES_MAX, FRAMES_MAX, HEALTH_BYTES_MAX, HELD_BYTES_MAX, Limits,
    MESSAGE_BYTES_MAX, PEER_HELD_BYTES_MAX, PEER_PROBES_MAX, POLLS_MAX, PROBES_MAX, PROPERTIES_MAX,
    REQUEST_BYTES_MAX, ROUNDS_MAX, SHED_REST, STALLED_CONNECTION_MAX, STALLED_STREAM_MAX,
    UNSENT_MAX,
};
use capstan_server::server::{Config, Runtime};
use prost::Message as _;
use tonic::Code;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::{BATCH, CHECK, STREAM};
use crate::common::{InProcess, PATIENCE, Serving, config_within, connect, folder};
use crate::metrics::{of, scrape, wait_until_nothing_is_held};
use crate::over::{Over, Place, over_both};
use crate::raw::{
    self, Body, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frames, GOAWAY, HEADERS,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, batch, call, check, frame, framed, reason,
};

over_both!(
    bodies_that_do_not_end_have_a_budget,
    a_peer_holds_at_most_its_share,
    a_peer_without_room_for_a_frame_is_told,
    requests_have_the_size_of_their_method,
    long_batches_leave_room_for_short_calls,
    a_connection_whose_calls_are_shed_rests,
    frames_beyond_a_turn_are_taken_in_the_next_one,
    health_has_its_own_permits_and_deadline,
    an_answer_without_a_window_is_reset,
    a_peer_that_reads_nothing_is_disconnected,
    announced_lengths_take_no_memory,
);

const HEALTH: &str = "/grpc.health.v1.Health/Check";

#[test]
fn the_bounds_have_their_documented_values() {
    assert_eq!((REQUEST_BYTES_MAX, HEALTH_BYTES_MAX), (256 << 10, 4 << 10));
    assert_eq!(HELD_BYTES_MAX, 64 << 20);
    assert_eq!((PEER_HELD_BYTES_MAX, CONNECTION_HELD_BYTES_MAX), (32 << 20, 16 << 20));
    assert_eq!(STALLED_STREAM_MAX, Duration::from_secs(30));
    assert_eq!(STALLED_CONNECTION_MAX, Duration::from_secs(60));
    assert_eq!(PROBES_MAX, 2 * PEER_PROBES_MAX);
    assert_eq!((UNSENT_MAX, ROUNDS_MAX, POLLS_MAX), (256 << 10, 2, 16));
    assert_eq!(FRAMES_MAX, 1_024);
    assert_eq!(SHED_REST, Duration::from_millis(5));
}

/// Resident memory of the server, in bytes.
pub(crate) fn resident(server: &Serving) -> u64 {
    memory(server, "VmRSS:")
}

/// A line of `/proc/PID/status` that begins with this name, in bytes.
pub(crate) fn memory(server: &Serving, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// 5,120 messages that announce 4 MiB each, and of which nothing but the announcement arrives.
async fn announced_lengths_take_no_memory(over: Over) {
    let server = over.serve(&[]);
    let address = over.of(&server);
    let before = resident(&server);
    let length = u32::try_from(MESSAGE_BYTES_MAX).unwrap().to_be_bytes();
    let claim = [&[0][..], &length].concat();
    let mut peers = Vec::new();
    for _ in 0..20 {
        let mut peer = Frames::connect(address).await;
        for stream in (0..256).map(|at| 2 * at + 1) {
            let head = frame(HEADERS, END_HEADERS, stream, &raw::header_block(STREAM));
            peer.send_bytes(&[head, frame(DATA, 0, stream, &claim)].concat()).await;
        }
        peers.push(peer);
    }
    let during = resident(&server);
    assert!(during < before + (64 << 20), "{before} bytes before, {during} during the claims");
    drop(peers);
    // What stays is the allocator's, and does not grow when the same comes again.
    let began = Instant::now();
    while resident(&server) > before + (48 << 20) {
        assert!(began.elapsed() < Duration::from_secs(30), "{} bytes stay", resident(&server));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Bodies that do not end are held up to the budget of the connection; then the call is refused, and
/// others are served.
async fn bodies_that_do_not_end_have_a_budget(over: Over) {
    let limits =
        Limits { connection_held_bytes_max: 40_000, unary_time_max: PATIENCE, ..Limits::default() };
    let server = over.start(limits).await;
    let mut peer = Frames::connect(&server).await;
    let part = &framed(&batch(1_000))[..15_000];
    for stream in [1, 3, 5] {
        peer.send(HEADERS, END_HEADERS, stream, &raw::header_block(BATCH)).await;
        peer.send(DATA, 0, stream, part).await;
    }
    assert_eq!(peer.answer(5).await, None, "an error");
    let scraped = scrape(&server).await;
    assert_eq!(scraped["capstan_shed_total{scope=\"bytes\"}"], 1.0);
    let exhausted = "capstan_requests_total{rpc=\"BatchCheck\",code=\"RESOURCE_EXHAUSTED\"}";
    assert_eq!(scraped[exhausted], 1.0);
    let held = scraped["capstan_held_bytes"];
    assert!((30_000.0..=40_000.0).contains(&held), "{held} bytes are held");
    server.decisions().check(check()).await.unwrap();
    drop(peer);
    wait_until_nothing_is_held(&server).await;
}

/// The budget of a peer leaves room for others, and the budget of all bounds them together.
async fn a_peer_holds_at_most_its_share(over: Over) {
    let limits = Limits {
        held_bytes_max: 60_000,
        peer_held_bytes_max: 40_000,
        unary_time_max: PATIENCE,
        ..Limits::default()
    };
    let server = over.start(limits).await;
    let part = &framed(&batch(1_000))[..15_000];
    let mut peers = Vec::new();
    for _ in 0..2 {
        let mut peer = Frames::connect(&server).await;
        peer.send(HEADERS, END_HEADERS, 1, &raw::header_block(BATCH)).await;
        peer.send(DATA, 0, 1, part).await;
        peers.push(peer);
    }
    let began = Instant::now();
    while of(&server, "capstan_held_bytes").await < 30_000.0 {
        assert!(began.elapsed() < PATIENCE, "the parts never arrive");
    }
    let mut third = Frames::connect(&server).await;
    third.send(HEADERS, END_HEADERS, 1, &raw::header_block(BATCH)).await;
    third.send(DATA, 0, 1, part).await;
    assert_eq!(third.answer(1).await, None, "the peer has its share");
    // Another loopback address is another peer.
    let other = Place::from(&server).channel_of_another_peer().await;
    let mut other = v1::decision_service_client::DecisionServiceClient::new(other);
    other.batch_check(batch(700)).await.unwrap();
    drop(peers);
    drop(third);
    wait_until_nothing_is_held(&server).await;
}

/// A connection without room for the frame that it has begun is told so before it ends.
async fn a_peer_without_room_for_a_frame_is_told(over: Over) {
    let limits =
        Limits { peer_held_bytes_max: 17_000, unary_time_max: PATIENCE, ..Limits::default() };
    let server = over.start(limits).await;
    let mut holds = Frames::connect(&server).await;
    holds.send(HEADERS, END_HEADERS, 1, &raw::header_block(BATCH)).await;
    holds.send(DATA, 0, 1, &framed(&batch(1_000))[..15_000]).await;
    let began = Instant::now();
    while of(&server, "capstan_held_bytes").await < 15_000.0 {
        assert!(began.elapsed() < PATIENCE, "the body never arrives");
    }
    let mut late = Frames::connect(&server).await;
    late.send(HEADERS, END_HEADERS, 1, &raw::header_block(BATCH)).await;
    late.send_bytes(&frame(DATA, 0, 1, &[0; 10_000])[..9_000]).await;
    let reason = loop {
        let (kind, _, _, payload) = late.next().await;
        if kind == GOAWAY {
            break u32::from_be_bytes(payload[4..8].try_into().unwrap());
        }
    };
    assert_eq!(reason, ENHANCE_YOUR_CALM);
    // The rest of the frame is still taken, so that nothing resets the connection.
    late.send_bytes(&[0; 1_009]).await;
    assert_eq!(late.next_or_end().await, None);
    drop((holds, late));
    wait_until_nothing_is_held(&server).await;
}

/// Only batches and Envoy's requests may be longer than 256 KiB, and health has 4 KiB.
async fn requests_have_the_size_of_their_method(over: Over) {
    let server = over.start(Limits::default()).await;
    let padded = |length: usize| {
        let value = prost_types::value::Kind::StringValue("x".repeat(length));
        let value = prost_types::Value { kind: Some(value) };
        let context = [("padding".to_owned(), value)].into();
        v1::CheckRequest {
            properties: Some(v1::Properties { context, ..Default::default() }),
            ..check()
        }
    };
    let around = padded(REQUEST_BYTES_MAX).encoded_len() - REQUEST_BYTES_MAX;
    let fits = padded(REQUEST_BYTES_MAX - around);
    assert_eq!(fits.encoded_len(), REQUEST_BYTES_MAX);
    server.decisions().check(fits).await.unwrap();
    let beyond = server.decisions().check(padded(REQUEST_BYTES_MAX)).await.unwrap_err();
    assert_eq!((beyond.code(), &*reason(&beyond)), (Code::ResourceExhausted, "TOO_LARGE"));
    assert!(beyond.message().contains("262144"), "{beyond:?}");

    let health = |length: usize| {
        let name = HealthCheckRequest { service: "x".repeat(length) };
        (framed(&name), Body::Whole)
    };
    let fits = call(&server, HEALTH, &[], health(HEALTH_BYTES_MAX - 3)).await.unwrap();
    assert_eq!(fits.code(), Code::NotFound, "no such service");
    let beyond = call(&server, HEALTH, &[], health(HEALTH_BYTES_MAX)).await.unwrap();
    assert_eq!((beyond.code(), &*beyond.reason()), (Code::ResourceExhausted, "TOO_LARGE"));
}

/// A check with this number of properties.
fn supplied(properties: usize) -> v1::CheckItem {
    let value = prost_types::Value { kind: Some(prost_types::value::Kind::BoolValue(true)) };
    let some = |from: usize, to: usize| {
        (from..to).map(|at| (format!("property{at}"), value.clone())).collect()
    };
    let v1::CheckRequest { identity, capability, resource, .. } = check();
    let half = properties / 2;
    let (resource_properties, context) = (some(0, half), some(half, properties));
    let properties =
        v1::Properties { resource: resource_properties, context, ..Default::default() };
    v1::CheckItem { identity, capability, resource, properties: Some(properties) }
}

#[tokio::test]
async fn a_question_has_at_most_256_properties() {
    let server = InProcess::start(Source::Demo).await;
    let mut decisions = server.decisions();
    let one = |properties: usize| {
        let v1::CheckItem { identity, capability, resource, properties } = supplied(properties);
        v1::CheckRequest { identity, capability, resource, properties, ..Default::default() }
    };
    decisions.check(one(PROPERTIES_MAX)).await.unwrap();
    let beyond = decisions.check(one(PROPERTIES_MAX + 1)).await.unwrap_err();
    assert_eq!((beyond.code(), &*reason(&beyond)), (Code::InvalidArgument, "INVALID_FIELD"));
    assert!(beyond.message().starts_with("properties: 257 properties"), "{beyond:?}");
    // In a batch, short or long, only the check itself is refused.
    for checks in [3, 300] {
        let mut checks: Vec<_> = (0..checks).map(|_| supplied(40)).collect();
        checks[1] = supplied(PROPERTIES_MAX + 1);
        let batch = v1::BatchCheckRequest { checks, consistency: None };
        let results = decisions.batch_check(batch).await.unwrap().into_inner().results;
        for (at, result) in results.iter().enumerate() {
            assert_eq!((result.error.is_some(), result.allowed), (at == 1, at != 1), "check {at}");
        }
    }
}

/// Longer than a second of work arrives at once. A plain check that comes later is answered first.
async fn long_batches_leave_room_for_short_calls(over: Over) {
    let limits = Limits { unary_time_max: PATIENCE, ..Limits::default() };
    let config = Config { runtime: Runtime::PerCore(1), ..config_within(limits) };
    let server = InProcess::start_with(over.config(config)).await;
    let checks = (0..700).map(|_| supplied(PROPERTIES_MAX)).collect();
    let batch = v1::BatchCheckRequest { checks, consistency: None };
    assert!(batch.encoded_len() > 3 << 20);
    let long = connect(&server).await;
    let long = (0..2).map(|_| {
        let mut decisions = v1::decision_service_client::DecisionServiceClient::new(long.clone());
        let batch = batch.clone();
        async move { decisions.batch_check(batch).await.unwrap() }
    });
    let long = futures_util::future::join_all(long);
    let mut decisions = server.decisions();
    let mut health = HealthClient::new(server.channel.clone());
    let short = async {
        for _ in 0..20 {
            decisions.check(check()).await.unwrap();
            health.check(HealthCheckRequest::default()).await.unwrap();
        }
    };
    tokio::pin!(long, short);
    tokio::select! {
        biased;
        _ = &mut long => panic!("short calls wait for long ones"),
        () = &mut short => {}
    }
    for answer in long.await {
        let results = answer.into_inner().results;
        assert!(results.len() == 700 && results.iter().all(|result| result.allowed));
    }
}

/// What arrived with the frames of a turn waits for no further bytes, wherever the turn ends.
async fn frames_beyond_a_turn_are_taken_in_the_next_one(over: Over) {
    let server = over.start(Limits::default()).await;
    let mut peer = Frames::connect(&server).await;
    let counts = (FRAMES_MAX - 3..FRAMES_MAX + 3).chain([2 * FRAMES_MAX, 7 * FRAMES_MAX + 100]);
    for (stream, frames) in (1..).step_by(2).zip(counts) {
        let bytes = [
            frame(HEADERS, END_HEADERS, stream, &raw::header_block(CHECK)),
            frame(DATA, 0, stream, &[]).repeat(frames),
            frame(DATA, END_STREAM, stream, &framed(&check())),
        ];
        peer.send_bytes(&bytes.concat()).await;
        assert!(peer.answer(stream).await.is_some(), "{frames} frames");
    }
    wait_until_nothing_is_held(&server).await;
}

/// More calls than there are permits are refused all at once, and the connection reads what comes behind them when it has rested.
async fn a_connection_whose_calls_are_shed_rests(over: Over) {
    const CALLS: u32 = 200;
    let limits = Limits { in_flight_max: 1, peer_in_flight_max: 1, ..Limits::default() };
    let server = over.start(limits).await;
    let mut holder = Frames::connect(&server).await;
    holder.send(HEADERS, END_HEADERS, 1, &raw::header_block(STREAM)).await;
    let began = Instant::now();
    while of(&server, "capstan_in_flight").await < 1.0 {
        assert!(began.elapsed() < PATIENCE, "the stream takes no permit");
    }
    let mut peer = Frames::connect(&server).await;
    let call = |stream: u32, path: &str, message: &[u8]| {
        let head = frame(HEADERS, END_HEADERS, stream, &raw::header_block(path));
        [head, frame(DATA, END_STREAM, stream, message)].concat()
    };
    let streams = (0..CALLS).map(|at| 2 * at + 1);
    let calls: Vec<_> = streams.map(|stream| call(stream, BATCH, &framed(&batch(1)))).collect();
    let began = Instant::now();
    peer.send_bytes(&calls.concat()).await;
    let mut refused = 0;
    while refused < CALLS {
        let (kind, flags, _, fields) = peer.next().await;
        if kind == HEADERS {
            assert_ne!(flags & END_STREAM, 0, "it is answered");
            let has = |text: &[u8]| fields.windows(text.len()).any(|some| some == text);
            assert!(has(b"grpc-retry-pushback-ms") && has(b"grpc-status\x018"));
            refused += 1;
        }
    }
    // A plain check needs no permit.
    peer.send_bytes(&call(2 * CALLS + 1, CHECK, &framed(&check()))).await;
    assert!(peer.answer(2 * CALLS + 1).await.is_some());
    assert!(began.elapsed() >= SHED_REST);
    let scraped = scrape(&server).await;
    assert_eq!(scraped["capstan_shed_total{scope=\"global\"}"], f64::from(CALLS));
    let exhausted = "capstan_requests_total{rpc=\"BatchCheck\",code=\"RESOURCE_EXHAUSTED\"}";
    assert_eq!(scraped[exhausted], f64::from(CALLS));
}

async fn health_has_its_own_permits_and_deadline(over: Over) {
    let limits = Limits {
        probes_max: 2,
        peer_probes_max: 2,
        in_flight_max: 0,
        unary_time_max: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = over.start(limits).await;
    let request = || HealthCheckRequest { service: String::new() };
    let mut health = HealthClient::new(server.channel.clone());
    let mut watches = Vec::new();
    for _ in 0..2 {
        let mut watch = health.watch(request()).await.unwrap().into_inner();
        let HealthCheckResponse { status } = watch.message().await.unwrap().unwrap();
        assert_eq!(status, 1, "serving");
        watches.push(watch);
    }
    let refused = health.watch(request()).await.err().unwrap();
    assert_eq!((refused.code(), &*reason(&refused)), (Code::ResourceExhausted, "OVERLOADED"));
    let refused = health.check(request()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let scraped = scrape(&server).await;
    assert_eq!(scraped["capstan_shed_total{scope=\"probes\"}"], 2.0);
    assert_eq!(scraped["capstan_in_flight"], 0.0, "health is not counted");
    watches.pop();
    let began = Instant::now();
    while health.check(request()).await.is_err() {
        assert!(began.elapsed() < PATIENCE, "the permit is never released");
    }
    // A request that does not arrive.
    let half = (framed(&request())[..3].to_vec(), Body::Open);
    let late = call(&server, HEALTH, &[], half).await.unwrap();
    assert_eq!(late.code(), Code::DeadlineExceeded);
}

/// A client that gives no window for answers: they wait, charged, and are then reset.
async fn an_answer_without_a_window_is_reset(over: Over) {
    const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];
    let limits = Limits { stalled_stream_max: Duration::from_millis(300), ..Limits::default() };
    let server = over.start(limits).await;
    let mut peer = Frames::connect(&server).await;
    peer.send(SETTINGS, 0, 0, &[&INITIAL_WINDOW_SIZE[..], &[0; 4]].concat()).await;
    let began = Instant::now();
    let answered = batch(100);
    for stream in [1, 3, 5] {
        peer.send(HEADERS, END_HEADERS, stream, &raw::header_block(BATCH)).await;
        peer.send(DATA, END_STREAM, stream, &framed(&answered)).await;
    }
    let began_to_wait = Instant::now();
    while of(&server, "capstan_held_bytes").await == 0.0 {
        assert!(began_to_wait.elapsed() < limits.stalled_stream_max, "no byte is charged");
    }
    let mut reset = Vec::new();
    while reset.len() < 3 {
        let (kind, _, stream, payload) = peer.next().await;
        assert_ne!(kind, DATA, "there is no window");
        if kind == RST_STREAM {
            assert_eq!(payload, ENHANCE_YOUR_CALM.to_be_bytes());
            reset.push(stream);
        }
    }
    assert!(began.elapsed() >= limits.stalled_stream_max);
    reset.sort_unstable();
    assert_eq!(reset, [1, 3, 5]);
    wait_until_nothing_is_held(&server).await;
}

/// A client that sends requests and reads nothing from its socket: the server stops to read as well,
/// holds a bounded number of bytes, and closes the connection.
async fn a_peer_that_reads_nothing_is_disconnected(over: Over) {
    let limits = Limits { stalled_connection_max: Duration::from_millis(500), ..Limits::default() };
    let server = over.start(limits).await;
    let other = connect(&server).await;
    let mut peer = Frames::connect(&server).await;
    // Windows that never end.
    peer.send(SETTINGS, 0, 0, &[&[0, 4][..], &0x7fff_ffff_u32.to_be_bytes()].concat()).await;
    peer.send(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes()).await;
    let body = framed(&batch(100));
    let send = async {
        for stream in (0..).map(|at| 2 * at + 1) {
            let head = frame(HEADERS, END_HEADERS, stream, &raw::header_block(BATCH));
            let call = [head, frame(DATA, END_STREAM, stream, &body)].concat();
            if peer.try_send_bytes(&call).await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, send).await.expect("the connection stays open");
    let mut other = v1::decision_service_client::DecisionServiceClient::new(other);
    other.check(check()).await.unwrap();
    wait_until_nothing_is_held(&server).await;
    let began = Instant::now();
    while of(&server, "capstan_in_flight").await > 0.0 {
        assert!(began.elapsed() < PATIENCE, "calls go on without their connection");
    }
}

/// A peer that does not read for a moment goes on where it was.
#[tokio::test]
async fn a_peer_that_reads_late_gets_every_answer() {
    // The buffers of a unix socket are small.
    let path = folder("reads-late").join("capstan");
    let listen = format!("unix:{}", path.display());
    let _server = Serving::start(&["--demo", "--listen", &listen, "--http", "none"], 1);
    let until = Instant::now() + PATIENCE;
    // Lists that would wait long for a processor are refused: on a machine that is busy with other tests, too.
    while !lists_that_are_read_late_are_answered(&path).await {
        assert!(Instant::now() < until, "an error");
    }
}

/// Whether all of them are, and none with an error.
async fn lists_that_are_read_late_are_answered(path: &Path) -> bool {
    const LIST: &str = "/capstan.v1.DecisionService/ListCapabilities";
    let mut peer = Frames::connect_unix(path).await;
    // Windows that never end.
    peer.send(SETTINGS, 0, 0, &[&[0, 4][..], &0x7fff_ffff_u32.to_be_bytes()].concat()).await;
    peer.send(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes()).await;
    let list = v1::ListCapabilitiesRequest {
        identity: "alice".into(),
        resource: "acme".into(),
        ..Default::default()
    };
    let streams: Vec<u32> = (0..250).map(|at| 2 * at + 1).collect();
    for stream in &streams {
        if *stream == 401 {
            // The answers to the first 200 fill the buffers. The server reads on once it can write.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let head = frame(HEADERS, END_HEADERS, *stream, &raw::header_block(LIST));
        peer.send_bytes(&[head, frame(DATA, END_STREAM, *stream, &framed(&list))].concat()).await;
    }
    // A keepalive ping would wake the connection as well, after 30 seconds.
    let answers = super::answers(&mut peer, streams.len());
    let answers = tokio::time::timeout(Duration::from_secs(20), answers).await.expect("no answer");
    assert!(answers.keys().eq(&streams));
    let head = frame(HEADERS, END_HEADERS, 501, &raw::header_block(CHECK));
    peer.send_bytes(&[head, frame(DATA, END_STREAM, 501, &framed(&check()))].concat()).await;
    assert!(peer.answer(501).await.is_some(), "the connection serves on");
    answers.values().all(Option::is_some)
}
