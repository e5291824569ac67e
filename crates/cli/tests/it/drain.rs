//! Shutdown under load: the server answers every call sent before the signal.
//!
//! `CAPSTAN_KILLS=50 dev/test drain` stops 50 servers; the default is a short run.

use std::collections::{BTreeMap, BTreeSet};

use capstan_proto::v1;
use prost::Message as _;
use tokio::sync::watch;

use crate::common::PATIENCE;
use crate::over::{Over, Place, over_both};
use crate::raw::{
    ACK, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, RST_STREAM, WINDOW_UPDATE,
    frame, framed, header_block,
};

over_both!(a_call_sent_before_the_client_reads_the_goaway_is_answered);

/// The number of connections, and of concurrent calls on each.
const CONNECTIONS: usize = 4;
const CALLS: usize = 8;
/// The number of answers on each connection before the signal.
const ENOUGH: u64 = 300;
/// Checks in a batch: more than `SHORT_BATCH_MAX`, so the batch needs a compute permit.
const BATCH: usize = 100;
const NO_ERROR: [u8; 4] = [0; 4];
const CHECK: &str = "/capstan.v1.DecisionService/Check";

/// These clients know which calls they have sent. A gRPC library does not distinguish a call that it did
/// not send from a call that the server dropped.
#[expect(clippy::print_stdout, reason = "a long run prints a count")]
fn calls_sent_before_the_signal_are_answered(over: Over) {
    let kills: usize =
        std::env::var("CAPSTAN_KILLS").map_or(3, |kills| kills.parse().expect("a number"));
    let threads = tokio::runtime::Runtime::new().unwrap();
    let mut total = 0;
    for kill in 0..kills {
        let server = over.serve(&[]);
        let place = over.of(&server);
        let (answered, mut counts) = watch::channel([0; CONNECTIONS]);
        threads.block_on(async {
            let mut load = tokio::task::JoinSet::new();
            for connection in 0..CONNECTIONS {
                let answered = answered.clone();
                load.spawn(ask(place, move || {
                    answered.send_modify(|counts| counts[connection] += 1);
                }));
            }
            let enough = counts.wait_for(|counts| counts.iter().all(|count| *count >= ENOUGH));
            tokio::select! {
                enough = tokio::time::timeout(PATIENCE, enough) => drop(enough.unwrap().unwrap()),
                ended = load.join_next() => panic!("ended before the signal: {ended:?}"),
            }
            server.signal("-TERM");
            let ended = tokio::time::timeout(PATIENCE, load.join_all()).await;
            assert!(ended.is_ok(), "the server still serves long after the signal");
        });
        let (code, log) = server.wait();
        assert_eq!(code, Some(0), "kill {kill}: {log}");
        assert!(!log.contains("cutting off"), "kill {kill}: {log}");
        total += counts.borrow().iter().sum::<u64>();
    }
    println!("{kills} signals under load: {total} calls answered, no call before a signal failed");
}

#[test]
fn calls_sent_before_the_signal_are_answered_under_load() {
    calls_sent_before_the_signal_are_answered(Over::Plain);
}

#[test]
fn calls_sent_before_the_signal_are_answered_under_load_over_tls() {
    calls_sent_before_the_signal_are_answered(Over::Tls);
}

/// Makes calls until the server sends GOAWAY, and reports each answer. Every call sent before the answer
/// to the server's PING must be answered.
async fn ask(server: Place, answered: impl Fn()) {
    let mut peer = Frames::connect(server).await;
    // A window for all answers.
    peer.send(WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes()).await;
    let kinds = kinds();
    let kind_of = |stream: u32| &kinds[stream as usize / 2 % kinds.len()];
    let (mut waiting, mut answers) = (BTreeSet::new(), BTreeMap::<u32, Vec<u8>>::new());
    let (mut next, mut leaving) = (1, false);
    loop {
        while waiting.len() < CALLS && !leaving {
            let Kind { head, body, .. } = kind_of(next);
            let call =
                [frame(HEADERS, END_HEADERS, next, head), frame(DATA, END_STREAM, next, body)];
            peer.send_bytes(&call.concat()).await;
            waiting.insert(next);
            next += 2;
        }
        let Some((kind, flags, stream, payload)) = peer.next_or_end().await else { break };
        match kind {
            PING if flags == 0 => peer.send(PING, ACK, 0, &payload).await,
            GOAWAY => {
                assert_eq!(payload[4..8], NO_ERROR);
                leaving = true;
            }
            DATA => answers.entry(stream).or_default().extend(payload),
            HEADERS if flags & END_STREAM != 0 => {
                assert!(waiting.remove(&stream), "stream {stream}");
                let answer = answers.remove(&stream);
                // An error has no DATA frame.
                let answer = answer.unwrap_or_else(|| panic!("an error on stream {stream}"));
                assert!((kind_of(stream).is_right)(&answer[5..]), "stream {stream}: {answer:?}");
                answered();
            }
            RST_STREAM => panic!("stream {stream} was reset"),
            _ => {}
        }
    }
    assert!(leaving, "the connection ended without GOAWAY");
    assert_eq!(waiting, BTreeSet::new(), "calls before the last GOAWAY were not answered");
}

/// A kind of call: its request, and whether a message is the correct response.
struct Kind {
    head: Vec<u8>,
    body: Vec<u8>,
    is_right: fn(&[u8]) -> bool,
}

/// A check on the fast path, a check with a revision requirement, and a batch and a list that need a
/// compute permit.
fn kinds() -> [Kind; 4] {
    let v1::CheckRequest { identity, capability, resource, .. } = question();
    let item = v1::CheckItem {
        identity: identity.clone(),
        capability,
        resource: resource.clone(),
        properties: None,
    };
    let consistency = Some(v1::Consistency { mode: Some(v1::consistency::Mode::AtLeast(1)) });
    let batch = v1::BatchCheckRequest { checks: vec![item; BATCH], consistency };
    let list = v1::ListCapabilitiesRequest { identity, resource, ..Default::default() };
    let path = |call: &str| header_block(&format!("/capstan.v1.DecisionService/{call}"));
    let allowed = |answer: &[u8]| v1::CheckResponse::decode(answer).unwrap().allowed;
    [
        Kind { head: header_block(CHECK), body: framed(&question()), is_right: allowed },
        Kind {
            head: header_block(CHECK),
            body: framed(&v1::CheckRequest { consistency, ..question() }),
            is_right: allowed,
        },
        Kind {
            head: path("BatchCheck"),
            body: framed(&batch),
            is_right: |answer| {
                let results = v1::BatchCheckResponse::decode(answer).unwrap().results;
                results.len() == BATCH && results.iter().all(|result| result.allowed)
            },
        },
        Kind {
            head: path("ListCapabilities"),
            body: framed(&list),
            is_right: |answer| {
                let listed = v1::ListCapabilitiesResponse::decode(answer).unwrap();
                listed.capabilities.iter().any(|name| name == "repo.list")
            },
        },
    ]
}

fn question() -> v1::CheckRequest {
    v1::CheckRequest {
        identity: "bob".into(),
        capability: "repo.list".into(),
        resource: "acme/platform/images/nginx".into(),
        ..Default::default()
    }
}

/// The server accepts calls that are in transit when it sends GOAWAY. It sends GOAWAY twice: the second
/// one has the id of the last accepted stream, and follows the client's answer to a PING.
async fn a_call_sent_before_the_client_reads_the_goaway_is_answered(over: Over) {
    let server = over.serve(&[]);
    let mut peer = Frames::connect(over.of(&server)).await;
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
    assert_eq!(all.unwrap(), [ANY, NO_ERROR].concat(), "no call is refused yet");

    peer.send(HEADERS, END_HEADERS, 1, &header_block(CHECK)).await;
    peer.send(DATA, END_STREAM, 1, &framed(&question())).await;
    peer.send(PING, ACK, 0, &ping.unwrap()).await;
    let (mut answer, mut last, mut ended) = (Vec::new(), None, false);
    while last.is_none() || !ended {
        let (kind, flags, _, payload) = peer.next().await;
        match kind {
            DATA => answer = payload,
            HEADERS => ended = flags & END_STREAM != 0,
            GOAWAY => last = Some(payload),
            _ => {}
        }
    }
    assert_eq!(last.unwrap(), [[0, 0, 0, 1], NO_ERROR].concat(), "the call was accepted");
    let answer = v1::CheckResponse::decode(&answer[5..]).unwrap();
    assert!(answer.allowed);
    assert_eq!(server.wait().0, Some(0));
}
