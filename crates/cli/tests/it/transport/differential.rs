//! Plain checks have a fast way beside that of all other calls (`grpc/fast_check.rs` of the server). The same
//! message is sent twice: as a call that may take the fast way, and as one that may not, because of a header without
//! any other effect.
//! Both get the same status, headers, message and trailers. So do streams, whose messages pass by tonic's buffers
//! without the header (`grpc/raw_stream.rs`).
//!
//! A long run. 50,000,000 messages take 20 to 40 minutes on two cores:
//!
//! ```text
//! CAPSTAN_FAST_WAY_MESSAGES=50000000 \
//!     cargo test --release -p capstan --test it transport::differential -- --nocapture
//! ```

mod messages;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use capstan_proto::v1;
use capstan_server::feed::source::Source;
use futures_util::future::join_all;
use h2::client::SendRequest;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, Request, StatusCode};

use super::CHECK;
use crate::common::{InProcess, PATIENCE};
use crate::raw::check;
use crate::raw::framed;
use messages::body;

/// Messages of the short run.
const MESSAGES: u64 = 20_000;
const CONNECTIONS: u64 = 4;
/// Messages in flight on a connection, each with two calls.
const IN_FLIGHT: u64 = 48;

/// All that a call returns.
#[derive(Debug, PartialEq)]
struct Outcome {
    status: StatusCode,
    headers: HeaderMap,
    message: Vec<u8>,
    trailers: Option<HeaderMap>,
}

impl Outcome {
    /// The gRPC status: in the trailers, or in the headers of an answer without a message.
    fn code(&self) -> &str {
        let trailers = self.trailers.as_ref().unwrap_or(&self.headers);
        trailers["grpc-status"].to_str().unwrap()
    }
}

/// How often a status was returned, and how often a check was allowed.
type Counts = BTreeMap<String, u64>;

async fn call(
    client: &mut SendRequest<Bytes>,
    (server, path): (SocketAddr, &str),
    parts: &[Bytes],
    usual: bool,
) -> Result<Outcome, h2::Error> {
    let mut request = Request::post(format!("http://{server}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if usual {
        request = request.header("grpc-encoding", "identity");
    }
    let mut ready = client.clone().ready().await?;
    let (answer, mut send) = ready.send_request(request.body(()).unwrap(), parts.is_empty())?;
    for (at, part) in parts.iter().enumerate() {
        send.send_data(part.clone(), at + 1 == parts.len())?;
        tokio::task::yield_now().await;
    }
    let (head, mut body) = answer.await?.into_parts();
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        message.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?;
    Ok(Outcome { status: head.status, headers: head.headers, message, trailers })
}

/// Sends every [`IN_FLIGHT`]th message from this one on, and compares.
async fn compare(
    mut client: SendRequest<Bytes>,
    server: SocketAddr,
    (first, end, step): (u64, u64, u64),
) -> Counts {
    let mut counts = Counts::new();
    let mut number = first;
    while number < end {
        let body = Bytes::from(body(number));
        let mut other = client.clone();
        let parts = if body.is_empty() { &[][..] } else { std::slice::from_ref(&body) };
        let both = async {
            tokio::join!(
                call(&mut client, (server, CHECK), parts, false),
                call(&mut other, (server, CHECK), parts, true),
            )
        };
        let (fast, usual) = timeout(PATIENCE, both).await.expect("no answer");
        let (fast, usual) = match (fast, usual) {
            (Ok(fast), Ok(usual)) => (fast, usual),
            (fast, usual) => panic!("message {number}, {body:02x?}:\n{fast:?}\n{usual:?}"),
        };
        assert_eq!(fast, usual, "message {number}, {body:02x?}");
        // Field 1 of an answer, behind the frame's header, is `allowed`.
        let is_allowed = fast.message.get(5..7) == Some(&[8, 1]);
        let kind = if is_allowed { "allowed" } else { fast.code() };
        *counts.entry(kind.to_owned()).or_default() += 1;
        number += step;
    }
    counts
}

#[expect(clippy::print_stdout, reason = "a long run prints figures")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fast_way_answers_as_the_usual_way() {
    let messages = std::env::var("CAPSTAN_FAST_WAY_MESSAGES");
    let messages = messages.map_or(MESSAGES, |number| number.parse().expect("a number"));
    let server = InProcess::start(Source::Demo).await;
    let mut workers = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let address = server.grpc;
        workers.spawn(async move {
            // A connection has an age, and too many errors would end it, too.
            let (mut counts, part) = (Counts::new(), MESSAGES / CONNECTIONS);
            let parts = messages.div_ceil(MESSAGES);
            for at in 0..parts {
                let first = at * MESSAGES + connection * part;
                let end = (first + part).min(messages);
                let tcp = TcpStream::connect(address).await.unwrap();
                tcp.set_nodelay(true).unwrap();
                let (client, connected) = h2::client::handshake(tcp).await.unwrap();
                let mut driver = JoinSet::new();
                driver.spawn(connected);
                let callers = (0..IN_FLIGHT)
                    .map(|at| compare(client.clone(), address, (first + at, end, IN_FLIGHT)));
                for (kind, count) in join_all(callers).await.into_iter().flatten() {
                    *counts.entry(kind).or_default() += count;
                }
            }
            counts
        });
    }
    let mut counts = Counts::new();
    for (kind, count) in workers.join_all().await.into_iter().flatten() {
        *counts.entry(kind).or_default() += count;
    }
    println!("{counts:?}");
    assert_eq!(counts.values().sum::<u64>(), messages);
    // Denied, INVALID_ARGUMENT, and RESOURCE_EXHAUSTED by a claimed length.
    for (kind, part) in [("allowed", 20), ("0", 10), ("3", 10), ("8", 1_000)] {
        let count = counts.get(kind).copied().unwrap_or_default();
        assert!(count * part > messages, "{kind}: {counts:?}");
    }
}

/// Messages of a stream: good ones, and one that is not, at most.
fn stream_body() -> impl Strategy<Value = Vec<u8>> {
    let batch = (0..4_usize).prop_map(|checks| {
        let v1::CheckRequest { identity, capability, resource, .. } = check();
        let item = v1::CheckItem { identity, capability, resource, properties: None };
        framed(&v1::BatchCheckRequest { checks: vec![item; checks], consistency: None })
    });
    let last = prop_oneof![
        6 => Just(Vec::new()),
        1 => Just(vec![1, 0, 0, 0, 0]), // compressed, with no compression named
        1 => Just(vec![7, 0, 0, 0, 0, 1]),
        1 => Just(vec![0, 0, 0, 0, 9, 1, 2]),
        1 => Just(vec![0, 0, 0]),
        1 => Just(vec![0, 0x7f, 0, 0, 0, 1]),
        1 => Just(vec![0, 0, 0, 0, 2, 0xff, 0xff]),
        1 => Just(vec![0, 0, 0, 0, 5, 10, 3, 10, 1, 0xff]), // not UTF-8
    ];
    (prop::collection::vec(batch, 0..5), last)
        .prop_map(|(batches, last)| [batches.concat(), last].concat())
}

#[test]
fn streams_are_answered_the_same_with_and_without_the_header() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(InProcess::start(Source::Demo));
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let cases = (stream_body(), 1..300_usize);
    runner
        .run(&cases, |(body, length)| {
            let parts: Vec<_> = body.chunks(length).map(Bytes::copy_from_slice).collect();
            let (raw, usual) = runtime.block_on(async {
                let tcp = TcpStream::connect(server.grpc).await.unwrap();
                let (mut client, connected) = h2::client::handshake(tcp).await.unwrap();
                let mut driver = JoinSet::new();
                driver.spawn(connected);
                let stream = (server.grpc, "/capstan.v1.DecisionService/StreamCheck");
                let raw = call(&mut client, stream, &parts, false).await.unwrap();
                (raw, call(&mut client, stream, &parts, true).await.unwrap())
            });
            prop_assert_eq!(raw, usual);
            Ok(())
        })
        .unwrap();
}
