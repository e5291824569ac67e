//! How a connection ends that has broken rules, or has reached its age; and what it may hold until then.

use std::time::Duration;

use capstan_server::limits::{
    ENDED_CALLS_MAX, FAULTS_MAX, LEAVING_MAX, LINGER_BYTES_MAX, LINGER_MAX, Limits, READ_BYTES,
    UNCHARGED_MAX,
};
use tokio::time::{Instant, timeout};

use super::{BATCH, CHECK, STREAM, assert_allowed};
use crate::common::{InProcess, PATIENCE};
use crate::metrics;
use crate::over::{Over, over_both};
use crate::raw::{
    self, ACK, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frames, GOAWAY, HEADERS, PING,
    RST_STREAM, SETTINGS, batch, check, frame, framed,
};

over_both!(
    a_peer_that_breaks_rules_again_and_again_is_disconnected,
    a_frame_that_does_not_end_is_charged,
    a_connection_that_has_left_is_read_until_its_peer_closes,
    a_peer_that_does_not_leave_is_not_served_on,
    a_connection_that_has_left_reads_no_flood,
    all_calls_end_with_their_connection,
);

/// Requests without a path. Each is reset, and one above the limit ends the connection.
async fn a_peer_that_breaks_rules_again_and_again_is_disconnected(over: Over) {
    const PROTOCOL_ERROR: u32 = 1;
    let server = over.start(Limits::default()).await;
    let mut peer = Frames::connect(&server).await;
    let wrong = |at: u32| frame(HEADERS, END_HEADERS | END_STREAM, 2 * at + 1, &[0x83, 0x86]);
    for at in 0..FAULTS_MAX {
        peer.send_bytes(&wrong(at)).await;
        loop {
            let (kind, _, stream, payload) = peer.next().await;
            assert_ne!(kind, GOAWAY, "after {at}");
            if kind == RST_STREAM {
                assert_eq!((stream, payload), (2 * at + 1, PROTOCOL_ERROR.to_be_bytes().to_vec()));
                break;
            }
        }
    }
    peer.send_bytes(&wrong(FAULTS_MAX)).await;
    let (kind, _, _, payload) = peer.next().await;
    assert_eq!((kind, &payload[4..]), (GOAWAY, &ENHANCE_YOUR_CALM.to_be_bytes()[..]));
    assert!(peer.next_or_end().await.is_none());
}

/// The start of a frame is charged to the budget, unless it is short.
async fn a_frame_that_does_not_end_is_charged(over: Over) {
    const { assert!(READ_BYTES > UNCHARGED_MAX + 16_384) };
    let server = over.start(Limits::default()).await;
    let mut peer = Frames::connect(&server).await;
    peer.send(HEADERS, END_HEADERS, 1, &raw::header_block(CHECK)).await;
    let body = frame(DATA, END_STREAM, 1, &[0; 16_384]);
    let held = || metrics::of(&server, "capstan_held_bytes");
    peer.send_bytes(&body[..UNCHARGED_MAX]).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(held().await, 0.0);
    peer.send_bytes(&body[UNCHARGED_MAX..10_000]).await;
    let began = Instant::now();
    while held().await != 10_000.0 {
        assert!(began.elapsed() < PATIENCE, "{} bytes are charged", held().await);
    }
    peer.send_bytes(&body[10_000..]).await;
    assert_eq!(peer.answer(1).await, None, "an error");
    while held().await != 0.0 {
        assert!(began.elapsed() < PATIENCE, "{} bytes stay charged", held().await);
    }
}

/// A connection at its age, and the ping that comes before its end.
async fn old_connection(over: Over) -> (InProcess, Frames, Vec<u8>) {
    let limits = Limits { connection_age: Duration::from_millis(50), ..Limits::default() };
    let server = over.start(limits).await;
    let mut peer = Frames::connect(&server).await;
    loop {
        let (kind, flags, _, payload) = peer.next().await;
        if (kind, flags) == (PING, 0) {
            return (server, peer, payload);
        }
    }
}

/// A peer that sends when a connection has ended is not reset before it has read its answers.
async fn a_connection_that_has_left_is_read_until_its_peer_closes(over: Over) {
    let (_server, mut peer, ping) = old_connection(over).await;
    let head = frame(HEADERS, END_HEADERS, 1, &raw::header_block(CHECK));
    let call = [head, frame(DATA, END_STREAM, 1, &framed(&check()))].concat();
    peer.send_bytes(&[call, frame(PING, ACK, 0, &ping)].concat()).await;
    let began = Instant::now();
    // The server closes its side. What is sent now would reset a socket that is closed.
    for _ in 0..4 {
        tokio::time::sleep(LINGER_MAX / 20).await;
        peer.send(PING, 0, 0, &[0; 8]).await;
    }
    let mut answer = None;
    while let Some((kind, _, _, payload)) = peer.next_or_end().await {
        if kind == DATA {
            answer = Some(payload);
        }
    }
    assert_allowed(answer.as_ref());
    while peer.try_send_bytes(&frame(PING, 0, 0, &[0; 8])).await.is_ok() {
        assert!(began.elapsed() < PATIENCE, "it is read for ever");
        tokio::time::sleep(LINGER_MAX / 10).await;
    }
}

/// A peer that never answers the ping of a connection at its age, and goes on to call, is served for `LEAVING_MAX` only.
async fn a_peer_that_does_not_leave_is_not_served_on(over: Over) {
    assert_eq!(LEAVING_MAX, Duration::from_secs(10));
    let limits = Limits {
        connection_age: Duration::from_millis(50),
        leaving_max: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = over.start(limits).await;
    let mut peer = Frames::connect(&server).await;
    let (began, mut stream, mut answered) = (Instant::now(), 1, 0);
    loop {
        let head = frame(HEADERS, END_HEADERS, stream, &raw::header_block(CHECK));
        let call = [head, frame(DATA, END_STREAM, stream, &framed(&check()))].concat();
        if peer.try_send_bytes(&call).await.is_err() {
            break;
        }
        let is_answered = loop {
            match peer.next_or_end().await {
                None => break false,
                Some((_, flags, of, _)) if of == stream && flags & END_STREAM != 0 => break true,
                Some(_) => {}
            }
        };
        if !is_answered {
            break;
        }
        (answered, stream) = (answered + 1, stream + 2);
        assert!(began.elapsed() < PATIENCE, "it is served for ever");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(answered > 0 && began.elapsed() >= limits.leaving_max);
}

/// A peer that does not stop sending is not read for as long as the others.
async fn a_connection_that_has_left_reads_no_flood(over: Over) {
    // More than the buffers of both sockets.
    const FLOOD: usize = 64 << 20;
    let (_server, mut peer, ping) = old_connection(over).await;
    peer.send(PING, ACK, 0, &ping).await;
    while peer.next_or_end().await.is_some() {}
    let junk = vec![0; 1 << 20];
    let mut sent = 0;
    while sent < FLOOD && peer.try_send_bytes(&junk).await.is_ok() {
        sent += junk.len();
    }
    assert!(sent < FLOOD, "{sent} bytes are read");
    const { assert!(LINGER_BYTES_MAX < FLOOD / 16) };
}

/// More calls than are told at once that their connection has ended.
const CALLS: usize = 4 * ENDED_CALLS_MAX + 3;

/// Starts so many calls, waits until this metric shows all of them, and disconnects. The metric must show that they end.
async fn calls_end(
    (server, mut peer): (&InProcess, Frames),
    (path, flags, body): (&str, u8, &[u8]),
    (metric, a_call): (&str, usize),
) {
    for stream in (0..).map(|at| 2 * at + 1).take(CALLS) {
        let head = frame(HEADERS, END_HEADERS, stream, &raw::header_block(path));
        peer.send_bytes(&[head, frame(DATA, flags, stream, body)].concat()).await;
    }
    let became = async |value: usize| {
        while metrics::of(server, metric).await != value as f64 {}
    };
    timeout(PATIENCE, became(CALLS * a_call)).await.expect("not all have started");
    drop(peer);
    timeout(PATIENCE, became(0)).await.expect("calls go on");
}

async fn all_calls_end_with_their_connection(over: Over) {
    let (unary_time_max, stalled_stream_max) = (4 * PATIENCE, 4 * PATIENCE);
    let limits = Limits { unary_time_max, stalled_stream_max, ..Limits::default() };
    let server = over.start(limits).await;
    let body = framed(&batch(1));
    let half = &body[..body.len() / 2];
    // They wait for the rest of a body, and for another message.
    for call in [(BATCH, 0, half), (STREAM, 0, &[])] {
        let peer = Frames::connect(&server).await;
        calls_end((&server, peer), call, ("capstan_in_flight", 1)).await;
    }
    // They wait for a peer that takes no answer.
    let mut peer = Frames::connect(&server).await;
    let head = frame(HEADERS, END_HEADERS, 1, &raw::header_block(BATCH));
    peer.send_bytes(&[head, frame(DATA, END_STREAM, 1, &body)].concat()).await;
    let answer = peer.answer(1).await.expect("an error");
    let mut peer = Frames::connect(&server).await;
    peer.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
    let call = (BATCH, END_STREAM, &body[..]);
    calls_end((&server, peer), call, ("capstan_held_bytes", answer.len())).await;
}
