//! How a connection reads calls: in one packet or in many, soon or late, answered before or after.

pub(crate) mod bounds;
mod claims;
mod differential;
mod ends;
mod floods;
mod frames;

use std::collections::BTreeMap;
use std::time::Duration;

use capstan_proto::v1;
use capstan_server::feed::source::Source;
use capstan_server::limits::{
    CONNECTION_WINDOW, Limits, SHORT_BODY_MAX, SHORT_WAIT_MAX, STARTED_CALLS_MAX, STREAM_WINDOW,
};
use prost::Message as _;

use crate::common::{InProcess, PATIENCE};
use crate::metrics;
use crate::over::{Over, over_both};
use crate::raw::{
    self, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, RST_STREAM, WINDOW_UPDATE, batch,
    check, frame, framed,
};

over_both!(
    a_check_is_answered_however_its_bytes_arrive,
    a_check_without_its_body_ends_at_its_deadline,
    bodies_around_the_short_limit_are_answered,
    many_calls_at_once_are_all_answered,
    a_long_body_behind_many_calls_is_read,
    a_response_waits_for_the_body_of_its_request,
    the_windows_have_their_sizes,
);

const CHECK: &str = "/capstan.v1.DecisionService/Check";
const BATCH: &str = "/capstan.v1.DecisionService/BatchCheck";
const STREAM: &str = "/capstan.v1.DecisionService/StreamCheck";

/// Reads frames until this many streams have ended. Returns the first message of each, or `None` for
/// an error. Panics if a stream is reset or the connection ends.
async fn answers(peer: &mut Frames, streams: usize) -> BTreeMap<u32, Option<Vec<u8>>> {
    let (mut messages, mut ended) = (BTreeMap::new(), BTreeMap::new());
    while ended.len() < streams {
        let (kind, flags, stream, payload) = peer.next().await;
        assert!(![RST_STREAM, GOAWAY].contains(&kind), "frame {kind} on stream {stream}");
        if kind == DATA {
            messages.insert(stream, payload);
        }
        if flags & END_STREAM != 0 && [DATA, HEADERS].contains(&kind) {
            ended.insert(stream, messages.remove(&stream));
        }
    }
    ended
}

#[track_caller]
fn assert_allowed(message: Option<&Vec<u8>>) {
    let message = message.expect("an error");
    assert!(v1::CheckResponse::decode(&message[5..]).unwrap().allowed);
}

/// A plain check is answered wherever its bytes are divided, and however long its body takes, within
/// the deadline.
async fn a_check_is_answered_however_its_bytes_arrive(over: Over) {
    let server = over.start(Limits::default()).await;
    let head = frame(HEADERS, END_HEADERS, 1, &raw::header_block(CHECK));
    let body = framed(&check());
    let in_halves = {
        let (first, rest) = body.split_at(body.len() / 2);
        [frame(DATA, 0, 1, first), frame(DATA, END_STREAM, 1, rest)].concat()
    };
    let ends_apart = [frame(DATA, 0, 1, &body), frame(DATA, END_STREAM, 1, &[])].concat();
    let whole = frame(DATA, END_STREAM, 1, &body);
    for frames in [whole, in_halves, ends_apart] {
        let bytes = [head.clone(), frames].concat();
        for at in (1..bytes.len()).step_by(7) {
            let mut peer = Frames::connect(&server).await;
            let (first, rest) = bytes.split_at(at);
            peer.send_bytes(first).await;
            tokio::task::yield_now().await;
            peer.send_bytes(rest).await;
            assert_allowed(answers(&mut peer, 1).await[&1].as_ref());
        }
    }
    let limits = Limits { unary_time_max: PATIENCE, ..Limits::default() };
    let server = over.start(limits).await;
    for wait in [Duration::from_millis(1), 4 * SHORT_WAIT_MAX] {
        let mut peer = Frames::connect(&server).await;
        peer.send_bytes(&head).await;
        tokio::time::sleep(wait).await;
        peer.send(DATA, 0, 1, &body).await;
        tokio::time::sleep(wait).await;
        peer.send(DATA, END_STREAM, 1, &[]).await;
        assert_allowed(answers(&mut peer, 1).await[&1].as_ref());
    }
}

/// A body that does not arrive has the deadline of the call, although no permit was taken at first.
async fn a_check_without_its_body_ends_at_its_deadline(over: Over) {
    let limits = Limits { unary_time_max: Duration::from_millis(100), ..Limits::default() };
    let server = over.start(limits).await;
    let mut peer = Frames::connect(&server).await;
    peer.send(HEADERS, END_HEADERS, 1, &raw::header_block(CHECK)).await;
    assert_eq!(peer.answer(1).await, None, "an error");
    let late = "capstan_requests_total{rpc=\"Check\",code=\"DEADLINE_EXCEEDED\"}";
    assert_eq!(metrics::of(&server, late).await, 1.0);
    assert_eq!(metrics::of(&server, "capstan_in_flight").await, 0.0);
}

/// Bodies around `SHORT_BODY_MAX`, in frames of at most 16 KiB.
async fn bodies_around_the_short_limit_are_answered(over: Over) {
    let server = over.start(Limits::default()).await;
    let mut peer = Frames::connect(&server).await;
    let batch = |length: usize| {
        let v1::CheckRequest { identity, capability, resource, .. } = check();
        let item = v1::CheckItem { identity, capability, resource, properties: None };
        let bytes = item.encoded_len() + 2;
        v1::BatchCheckRequest { checks: vec![item; length / bytes], consistency: None }
    };
    let mut stream = 1;
    for length in [SHORT_BODY_MAX - 64, SHORT_BODY_MAX, SHORT_BODY_MAX + 64, SHORT_BODY_MAX + 6_000]
    {
        let batch = batch(length);
        peer.send(HEADERS, END_HEADERS, stream, &raw::header_block(BATCH)).await;
        for part in framed(&batch).chunks(10_000) {
            peer.send(DATA, 0, stream, part).await;
        }
        peer.send(DATA, END_STREAM, stream, &[]).await;
        let message = peer.answer(stream).await.expect("an error");
        let answer = v1::BatchCheckResponse::decode(&message[5..]).unwrap();
        assert_eq!(answer.results.len(), batch.checks.len());
        stream += 2;
    }
}

/// More calls than one wake of a connection reads or starts, of every kind, all at once.
async fn many_calls_at_once_are_all_answered(over: Over) {
    let server = over.start(Limits::default()).await;
    for (path, body, at_once) in [
        (CHECK, framed(&check()), 128),
        (BATCH, framed(&batch(0)), 128),
        (BATCH, framed(&batch(0)), 3 * STARTED_CALLS_MAX),
        // Calls wait for their turn while there is more to read.
        (BATCH, framed(&batch(100)), 5 * STARTED_CALLS_MAX),
    ] {
        // Heads and bodies in turn, and then all heads before all bodies.
        for apart in [false, true] {
            let mut peer = Frames::connect(&server).await;
            let streams: Vec<u32> = (0..).map(|at| 2 * at + 1).take(at_once).collect();
            let head = |stream| frame(HEADERS, END_HEADERS, stream, &raw::header_block(path));
            let data = |stream| frame(DATA, END_STREAM, stream, &body);
            let bytes: Vec<u8> = if apart {
                let heads = streams.iter().flat_map(|stream| head(*stream));
                heads.chain(streams.iter().flat_map(|stream| data(*stream))).collect()
            } else {
                streams.iter().flat_map(|stream| [head(*stream), data(*stream)].concat()).collect()
            };
            peer.send_bytes(&bytes).await;
            let answers = answers(&mut peer, at_once).await;
            assert!(answers.keys().eq(&streams), "{answers:?}");
            assert!(answers.values().all(Option::is_some), "{answers:?}");
        }
    }
}

/// A call that waits for its turn, while its body is not complete and the socket has more of it.
async fn a_long_body_behind_many_calls_is_read(over: Over) {
    let server = over.start(Limits::default()).await;
    let mut peer = Frames::connect(&server).await;
    let head = |stream| frame(HEADERS, END_HEADERS, stream, &raw::header_block(BATCH));
    let (short, long) = (framed(&batch(0)), framed(&batch(1_000)));
    let mut bytes = Vec::new();
    let mut streams = (0..).map(|at| 2 * at + 1);
    for stream in streams.by_ref().take(STARTED_CALLS_MAX) {
        bytes.extend([head(stream), frame(DATA, END_STREAM, stream, &short)].concat());
    }
    let stream = streams.next().unwrap();
    bytes.extend(head(stream));
    for part in long.chunks(10_000) {
        bytes.extend(frame(DATA, 0, stream, part));
    }
    bytes.extend(frame(DATA, END_STREAM, stream, &[]));
    peer.send_bytes(&bytes).await;
    let answers = answers(&mut peer, STARTED_CALLS_MAX + 1).await;
    assert!(answers.values().all(Option::is_some), "{answers:?}");
}

/// The response to an unknown method could be sent before the body arrives, and the stream would be
/// reset. HTTP/2 libraries close a connection with many resets.
async fn a_response_waits_for_the_body_of_its_request(over: Over) {
    let server = over.start(Limits::default()).await;
    let mut peer = Frames::connect(&server).await;
    for stream in (0..3_000).map(|at| 2 * at + 1) {
        let block = raw::header_block("/capstan.v1.DecisionService/Nothing");
        peer.send(HEADERS, END_HEADERS, stream, &block).await;
        tokio::task::yield_now().await;
        peer.send(DATA, END_STREAM, stream, &framed(&check())).await;
        assert_eq!(peer.answer(stream).await, None);
    }
}

/// A path is a method's or none: nothing of it is made better first, so that what judges a path and what serves it never differ.
#[tokio::test]
async fn a_path_is_taken_as_it_is() {
    let server = InProcess::start(Source::Demo).await;
    let mut peer = Frames::connect(server.grpc).await;
    let mut stream = 1;
    for (service, method) in
        [("capstan.v1.DecisionService", "Check"), ("capstan.iam.v1.GroupService", "ListGroups")]
    {
        let (low, high) = (method.to_lowercase(), service.to_uppercase());
        for path in [
            format!("{service}/{method}"),
            format!("//{service}/{method}"),
            format!("/{service}//{method}"),
            format!("/{service}/{method}/"),
            format!("/{service}/./{method}"),
            format!("/x/../{service}/{method}"),
            format!("/{service}%2F{method}"),
            format!("/{service}/%{:X}{}", method.as_bytes()[0], &method[1..]),
            format!("/{service}/{low}"),
            format!("/{high}/{method}"),
            format!("/{service}/{method}x"),
            format!("/{service}/{method};x"),
            format!("/{service}"),
        ] {
            peer.send(HEADERS, END_HEADERS, stream, &raw::header_block(&path)).await;
            peer.send(DATA, END_STREAM, stream, &framed(&check())).await;
            loop {
                let (kind, flags, of, fields) = peer.next().await;
                if of != stream {
                    continue;
                }
                if kind == RST_STREAM {
                    break;
                }
                if kind == HEADERS {
                    let has = |text: &[u8]| fields.windows(text.len()).any(|some| some == text);
                    assert!(flags & END_STREAM != 0 && has(b"grpc-status\x0212"), "{path}");
                    break;
                }
            }
            stream += 2;
        }
    }
}

/// The windows that the server announces bound what it holds of bodies that nobody reads.
async fn the_windows_have_their_sizes(over: Over) {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    const FIRST_WINDOW: u32 = 65_535;
    let server = over.start(Limits::default()).await;
    let (mut peer, settings) = Frames::connect_with_settings(&server).await;
    assert_eq!(settings.get(&INITIAL_WINDOW_SIZE), Some(&STREAM_WINDOW));
    let (kind, _, stream, payload) = loop {
        let next = peer.next().await;
        if next.0 == WINDOW_UPDATE {
            break next;
        }
    };
    assert_eq!((kind, stream), (WINDOW_UPDATE, 0));
    let more = u32::from_be_bytes(payload.try_into().unwrap());
    assert_eq!(FIRST_WINDOW + more, CONNECTION_WINDOW);
}
