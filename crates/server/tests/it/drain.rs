//! Stopping under load: what was asked before the signal is answered.
//!
//! `CAPSTAN_KILLS=50 dev/test drain` stops it that often; the default is a short form.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use capstan_proto::v1::{self, decision_service_client::DecisionServiceClient};
use prost::Message as _;
use tonic::transport::Channel;

use crate::common::Serving;
use crate::raw::{
    ACK, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, framed, header_block,
};

/// Connections, and calls at once on each.
const CONNECTIONS: usize = 4;
const STREAMS: usize = 8;

#[test]
#[expect(clippy::print_stdout, reason = "a long run is for the count")]
fn a_signal_at_full_load_fails_no_call_that_came_before_it() {
    let kills: usize =
        std::env::var("CAPSTAN_KILLS").map_or(3, |kills| kills.parse().expect("a number"));
    let threads = tokio::runtime::Runtime::new().unwrap();
    let mut total = 0;
    for kill in 0..kills {
        let server = Serving::start(&["--demo", "--listen", "127.0.0.1:0", "--http", "none"], 1);
        let url = format!("http://{}", server.address("grpc"));
        let signalled = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        threads.block_on(async {
            let mut load = tokio::task::JoinSet::new();
            for _ in 0..CONNECTIONS {
                let channel = Channel::from_shared(url.clone()).unwrap().connect().await.unwrap();
                for _ in 0..STREAMS {
                    let (signalled, answered) = (Arc::clone(&signalled), Arc::clone(&answered));
                    load.spawn(ask(channel.clone(), signalled, answered));
                }
            }
            while answered.load(Ordering::Relaxed) < 2_000 {
                tokio::task::yield_now().await;
            }
            signalled.store(true, Ordering::SeqCst);
            server.signal("-TERM");
            let ended = tokio::time::timeout(Duration::from_secs(10), load.join_all()).await;
            assert!(ended.is_ok(), "still serving 10 s after the signal");
        });
        let (code, log) = server.wait();
        assert_eq!(code, Some(0), "kill {kill}: {log}");
        assert!(!log.contains("cutting off"), "kill {kill}: {log}");
        total += answered.load(Ordering::Relaxed);
    }
    println!("{kills} signals under load: {total} calls answered, none failed that came before");
}

/// Asks until the server is gone. A call that began before the signal must be answered, unless it
/// was still in the client when the server had said good-bye.
async fn ask(channel: Channel, signalled: Arc<AtomicBool>, answered: Arc<AtomicU64>) {
    let mut decisions = DecisionServiceClient::new(channel);
    let request = question();
    loop {
        let before = !signalled.load(Ordering::SeqCst);
        match decisions.check(request.clone()).await {
            Ok(answer) => assert!(answer.get_ref().allowed),
            Err(status) => {
                let failed = before && !was_turned_away(&status);
                assert!(!failed, "a call that began before the signal failed: {status:?}");
                return;
            }
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

fn question() -> v1::CheckRequest {
    v1::CheckRequest {
        identity: "bob".into(),
        capability: "repo.list".into(),
        resource: "acme/platform/images/nginx".into(),
        ..Default::default()
    }
}

/// Whether a call never left: a client that has been told GOAWAY with `NO_ERROR` ends only the
/// calls that the server has not taken (RFC 9113, section 6.8).
fn was_turned_away(status: &tonic::Status) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(status);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_go_away()
                && error.is_remote()
                && error.reason() == Some(h2::Reason::NO_ERROR);
        }
        cause = error.source();
    }
    false
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

    let path = "/capstan.v1.DecisionService/Check";
    peer.send(HEADERS, END_HEADERS, 1, &header_block(path)).await;
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
