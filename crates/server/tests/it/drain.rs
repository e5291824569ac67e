//! Stopping under load: what was asked before the signal is answered.
//!
//! `CAPSTAN_KILLS=50 dev/test drain` stops it that often; the default is a short form.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use capstan_proto::v1;
use prost::Message as _;

use crate::common::{PATIENCE, Serving};
use crate::raw::{
    ACK, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, RST_STREAM, WINDOW_UPDATE,
    framed, header_block,
};

/// Connections, and calls at once on each.
const CONNECTIONS: usize = 4;
const CALLS: usize = 8;
const CHECK: &str = "/capstan.v1.DecisionService/Check";

/// Clients that know what they have sent: a library cannot tell a call that it still held from one that
/// the server dropped.
#[test]
#[expect(clippy::print_stdout, reason = "a long run is for the count")]
fn a_signal_at_full_load_fails_no_call_that_came_before_it() {
    let kills: usize =
        std::env::var("CAPSTAN_KILLS").map_or(3, |kills| kills.parse().expect("a number"));
    let threads = tokio::runtime::Runtime::new().unwrap();
    let mut total = 0;
    for kill in 0..kills {
        let server = Serving::start(&["--demo", "--listen", "127.0.0.1:0", "--http", "none"], 1);
        let address: SocketAddr = server.address("grpc").parse().unwrap();
        let answered = Arc::new(AtomicU64::new(0));
        threads.block_on(async {
            let mut load = tokio::task::JoinSet::new();
            for _ in 0..CONNECTIONS {
                load.spawn(ask(address, Arc::clone(&answered)));
            }
            while answered.load(Ordering::Relaxed) < 2_000 {
                tokio::task::yield_now().await;
            }
            server.signal("-TERM");
            let ended = tokio::time::timeout(PATIENCE, load.join_all()).await;
            assert!(ended.is_ok(), "still serving long after the signal");
        });
        let (code, log) = server.wait();
        assert_eq!(code, Some(0), "kill {kill}: {log}");
        assert!(!log.contains("cutting off"), "kill {kill}: {log}");
        total += answered.load(Ordering::Relaxed);
    }
    println!("{kills} signals under load: {total} calls answered, none failed that came before");
}

/// Asks until the server says good-bye. What was sent before the answer to its ping must be answered.
async fn ask(server: SocketAddr, answered: Arc<AtomicU64>) {
    let mut peer = Frames::connect(server).await;
    // Room for all answers.
    peer.send(WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes()).await;
    let (head, body) = (header_block(CHECK), framed(&question()));
    let mut waiting = BTreeSet::new();
    let (mut next, mut leaving) = (1, false);
    loop {
        while waiting.len() < CALLS && !leaving {
            peer.send(HEADERS, END_HEADERS, next, &head).await;
            peer.send(DATA, END_STREAM, next, &body).await;
            waiting.insert(next);
            next += 2;
        }
        let Some((kind, flags, stream, payload)) = peer.next_or_end().await else { break };
        match kind {
            PING if flags == 0 => {
                peer.send(PING, ACK, 0, &payload).await;
                leaving = true;
            }
            // An error would have no message.
            DATA => assert!(v1::CheckResponse::decode(&payload[5..]).unwrap().allowed),
            HEADERS if flags & END_STREAM != 0 => {
                assert!(waiting.remove(&stream), "stream {stream}");
                answered.fetch_add(1, Ordering::Relaxed);
            }
            RST_STREAM => panic!("stream {stream} was reset"),
            _ => {}
        }
    }
    assert!(leaving, "the connection ended without good-bye");
    assert_eq!(waiting, BTreeSet::new(), "calls that began before the good-bye were not answered");
}

fn question() -> v1::CheckRequest {
    v1::CheckRequest {
        identity: "bob".into(),
        capability: "repo.list".into(),
        resource: "acme/platform/images/nginx".into(),
        ..Default::default()
    }
}

/// What is on its way when the server says good-bye is taken: it says so twice, and the second time,
/// which names the last call, comes only when the client has answered the ping after the first.
#[tokio::test]
async fn a_call_sent_before_its_client_has_heard_is_answered() {
    let server = Serving::start(&["--demo", "--listen", "127.0.0.1:0", "--http", "none"], 1);
    let mut peer = Frames::connect(server.address("grpc").parse().unwrap()).await;
    server.signal("-TERM");
    let (mut all, mut ping) = (None, None);
    while all.is_none() || ping.is_none() {
        let (kind, flags, _, payload) = peer.next().await;
        match kind {
            GOAWAY => all = Some(payload),
            PING if flags == 0 => ping = Some(payload),
            _ => {}
        }
    }
    const ANY: [u8; 4] = [0x7f, 0xff, 0xff, 0xff];
    const NO_ERROR: [u8; 4] = [0; 4];
    assert_eq!(all.unwrap(), [ANY, NO_ERROR].concat(), "no call is turned away yet");

    peer.send(HEADERS, END_HEADERS, 1, &header_block(CHECK)).await;
    peer.send(DATA, END_STREAM, 1, &framed(&question())).await;
    peer.send(PING, ACK, 0, &ping.unwrap()).await;
    let (mut answer, mut last) = (Vec::new(), None);
    while last.is_none() || answer.is_empty() {
        let (kind, _, _, payload) = peer.next().await;
        match kind {
            DATA => answer = payload,
            GOAWAY => last = Some(payload),
            _ => {}
        }
    }
    assert_eq!(last.unwrap(), [[0, 0, 0, 1], NO_ERROR].concat(), "the call was taken");
    let answer = v1::CheckResponse::decode(&answer[5..]).unwrap();
    assert!(answer.allowed);
    assert_eq!(server.wait().0, Some(0));
}
