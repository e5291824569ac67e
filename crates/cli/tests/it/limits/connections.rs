//! Limits of connections: keep-alive, age, number, idle time, and file descriptors.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use capstan_proto::v1::{self, decision_service_client::DecisionServiceClient};
use capstan_server::limits::Limits;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{CHECK, assert_serves, open, waiting_check};
use crate::common::{InProcess, PATIENCE, Serving, connect};
use crate::metrics;
use crate::over::{Over, Place, over_both};
use crate::raw::{
    self, ACK, Body, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, RST_STREAM,
    check, framed,
};

over_both!(
    a_peer_that_does_not_answer_pings_is_disconnected,
    connections_are_closed_at_their_age_without_failed_calls,
    a_call_in_flight_outlives_the_age_of_its_connection,
    connections_beyond_the_limit_are_closed_and_counted,
    an_idle_connection_yields_to_a_new_one,
    connections_of_one_peer_are_limited,
    connections_without_a_preface_are_closed,
);

/// Makes a check on this connection and expects an answer.
async fn assert_served(peer: &mut Frames) {
    peer.send(HEADERS, END_HEADERS, 1, &raw::header_block(CHECK)).await;
    peer.send(DATA, END_STREAM, 1, &framed(&check())).await;
    loop {
        let (kind, flags, _, payload) = peer.next().await;
        assert!(![RST_STREAM, GOAWAY].contains(&kind), "frame {kind}");
        match kind {
            PING if flags == 0 => peer.send(PING, ACK, 0, &payload).await,
            // An error has no DATA frame.
            HEADERS => assert_eq!(flags & END_STREAM, 0, "an error"),
            DATA => {
                assert!(v1::CheckResponse::decode(&payload[5..]).unwrap().allowed);
                return;
            }
            _ => {}
        }
    }
}

async fn a_peer_that_does_not_answer_pings_is_disconnected(over: Over) {
    let limits = Limits {
        keepalive_interval: Duration::from_millis(100),
        keepalive_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let server = over.start(limits).await;
    let mut dead = Place::from(&server).open().await.unwrap();
    dead.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut frames = Vec::new();
    let read = dead.read_to_end(&mut frames);
    // The connection may end with or without an error.
    let _ = tokio::time::timeout(PATIENCE, read).await.expect("the connection stays open");
    let mut rest = &frames[..];
    let mut kinds = Vec::new();
    while let [a, b, c, kind, _, _, _, _, _, after @ ..] = rest {
        kinds.push(*kind);
        rest = &after[u32::from_be_bytes([0, *a, *b, *c]) as usize..];
    }
    assert!(kinds.contains(&PING), "no ping among {kinds:?}");

    // A peer that answers pings keeps its connection.
    let mut alive = Frames::connect(&server).await;
    let mut pings = 0;
    while pings < 5 {
        let (kind, flags, _, payload) = alive.next().await;
        if kind == PING && flags == 0 {
            alive.send(PING, ACK, 0, &payload).await;
            pings += 1;
        }
    }
    assert_served(&mut alive).await;
}

async fn connections_are_closed_at_their_age_without_failed_calls(over: Over) {
    let limits = Limits { connection_age: Duration::from_millis(300), ..Limits::default() };
    let server = over.start(limits).await;
    // An idle connection is closed as well.
    let tcp = Place::from(&server).open().await.unwrap();
    let (_client, idle) = h2::client::handshake(tcp).await.unwrap();

    let end = Instant::now() + Duration::from_secs(2);
    let calls = (0..8).map(|_| async {
        let mut decisions = server.decisions();
        let mut calls = 0;
        while Instant::now() < end {
            match decisions.check(check()).await {
                Ok(_) => calls += 1,
                // tonic's client fails calls that it has queued for a closed connection. Such an
                // error has a source, and the call never reached the server. Other gRPC clients
                // retry such calls.
                Err(status) => {
                    assert!(std::error::Error::source(&status).is_some(), "{status:?}");
                }
            }
        }
        calls
    });
    let calls: u32 = futures_util::future::join_all(calls).await.into_iter().sum();
    assert!(calls > 100, "{calls} calls");
    tokio::time::timeout(PATIENCE, idle).await.expect("the connection stays open").unwrap();
    // The server answered every call that it received.
    assert_eq!(
        metrics::of(&server, "capstan_requests_total{rpc=\"Check\",code=\"OK\"}").await,
        f64::from(calls)
    );
    assert_eq!(metrics::sum(&server, "capstan_requests_total").await, f64::from(calls));
}

async fn a_call_in_flight_outlives_the_age_of_its_connection(over: Over) {
    let limits = Limits { connection_age: Duration::from_millis(50), ..Limits::default() };
    let server = over.start(limits).await;
    let body = (framed(&waiting_check()), Body::Whole);
    let began = Instant::now();
    let answer = raw::call(&server, CHECK, &[], body).await.unwrap();
    assert_eq!(answer.reason(), "REVISION_NOT_AVAILABLE");
    assert!(began.elapsed() > Duration::from_millis(200));
}

async fn connections_beyond_the_limit_are_closed_and_counted(over: Over) {
    let limits = Limits { connections_max: 3, ..Limits::default() };
    let server = over.start(limits).await;
    let mut others = Vec::new();
    for _ in 0..2 {
        let channel = connect(&server).await;
        others.push((open(&channel).await.unwrap(), channel));
    }
    let _busy = open(&server.channel).await.unwrap();
    // Before the handshake of TLS.
    let mut refused = TcpStream::connect(server.grpc).await.unwrap();
    let mut nothing = Vec::new();
    refused.read_to_end(&mut nothing).await.unwrap();
    assert!(nothing.is_empty(), "{nothing:?}");
    assert_serves(&server.channel).await;
    let scraped = metrics::scrape(&server).await;
    assert!(scraped["capstan_shed_total{scope=\"connections\"}"] >= 1.0);

    others.pop();
    let began = Instant::now();
    loop {
        let again = Place::from(&server).endpoint().connect_lazy();
        if DecisionServiceClient::new(again).check(check()).await.is_ok() {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "the permit is never released");
    }
}

/// At a limit, the connection that has been idle longest yields to a new one, with a GOAWAY.
async fn an_idle_connection_yields_to_a_new_one(over: Over) {
    for (connections_max, peer_connections_max) in [(3, 10), (10, 3)] {
        let limits = Limits {
            connections_max,
            peer_connections_max,
            yield_idle_min: Duration::from_millis(50),
            ..Limits::default()
        };
        let server = over.start(limits).await;
        let _busy = open(&server.channel).await.unwrap();
        let mut idle = Frames::connect(&server).await;
        let mut other = Frames::connect(&server).await;
        tokio::time::sleep(2 * limits.yield_idle_min).await;
        // A call makes the first one the last to yield.
        assert_served(&mut idle).await;
        let new = connect(&server).await;
        assert_serves(&new).await;
        let mut kinds = Vec::new();
        while let Some((kind, ..)) = other.next_or_end().await {
            kinds.push(kind);
        }
        assert_eq!(kinds.last(), Some(&GOAWAY), "{kinds:?}");
        assert_serves(&new).await;
        assert_serves(&server.channel).await;
    }
}

async fn connections_of_one_peer_are_limited(over: Over) {
    let limits = Limits { peer_connections_max: 2, ..Limits::default() };
    let server = over.start(limits).await;
    let second = connect(&server).await;
    let _busy = (open(&second).await.unwrap(), open(&server.channel).await.unwrap());
    // Before the handshake of TLS.
    let mut refused = TcpStream::connect(server.grpc).await.unwrap();
    let mut nothing = Vec::new();
    refused.read_to_end(&mut nothing).await.unwrap();
    assert!(nothing.is_empty(), "{nothing:?}");
    let scraped = metrics::scrape(&server).await;
    assert!(scraped["capstan_shed_total{scope=\"connections\"}"] >= 1.0);
    // Another loopback address is another peer.
    let other = Place::from(&server).channel_of_another_peer().await;
    assert_serves(&other).await;
    assert_serves(&server.channel).await;
}

/// The age of a connection starts after its HTTP/2 preface. `GREETING_MAX` limits the time before.
async fn connections_without_a_preface_are_closed(over: Over) {
    let limits = Limits { greeting_max: Duration::from_secs(1), ..Limits::default() };
    let server = over.start(limits).await;
    for said in [&b""[..], b"PRI * HTTP/2.0\r\n"] {
        let mut silent = Place::from(&server).open().await.unwrap();
        silent.write_all(said).await.unwrap();
        // The server may send its own settings before it closes the connection.
        let ended = tokio::time::timeout(PATIENCE, silent.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "still open after {said:?}");
    }
    // After the preface, a connection may be idle for longer. `next` fails if the connection ends.
    let mut idle = Frames::connect(&server).await;
    let until = tokio::time::Instant::now() + 2 * limits.greeting_max;
    while tokio::time::timeout_at(until, idle.next()).await.is_ok() {}
    assert_served(&mut idle).await;
    assert_serves(&server.channel).await;
    let scraped = metrics::scrape(&server).await;
    assert!(scraped.contains_key("capstan_in_flight"), "{scraped:?}");
}

/// Asks for `/livez` on a new connection. Returns the answer; empty if the connection is closed.
async fn livez(server: &InProcess) -> String {
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    let mut answer = String::new();
    let request = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    // A closed connection fails one or the other.
    let _ = stream.write_all(request).await;
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

/// `HTTP_IDLE_MAX` limits silent connections, and `HTTP_HEAD_MAX` those that send single bytes.
#[tokio::test]
async fn slow_http_connections_are_closed() {
    let limits = Limits {
        http_idle_max: Duration::from_millis(900),
        http_head_max: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = InProcess::start_within(limits).await;
    let began = Instant::now();
    let mut silent = TcpStream::connect(server.http).await.unwrap();
    let mut slow = TcpStream::connect(server.http).await.unwrap();
    let drip = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if slow.write_all(b"G").await.is_err() {
                return began.elapsed();
            }
        }
    };
    let silence = async {
        let _ = silent.read_to_end(&mut Vec::new()).await;
        began.elapsed()
    };
    let both = async { tokio::join!(drip, silence) };
    let (dripped, silent) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    assert!(dripped >= limits.http_head_max && dripped < silent, "{dripped:?} {silent:?}");
    assert!(silent >= limits.http_idle_max, "{silent:?}");
}

/// A connection of HTTP that is used again and again ends at its age, behind a whole answer.
#[tokio::test]
async fn http_connections_end_at_their_age() {
    let limits = Limits { connection_age: Duration::from_millis(100), ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    let ask = async {
        let mut answers = 0;
        loop {
            let sent = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
            let mut answer = vec![0; 1_024];
            let read = stream.read(&mut answer).await.unwrap_or_default();
            if sent.is_err() || read == 0 {
                return answers;
            }
            let answer = String::from_utf8_lossy(&answer[..read]).to_lowercase();
            assert!(answer.starts_with("http/1.1 200") && answer.ends_with("ok\n"), "{answer}");
            answers += 1;
        }
    };
    let began = Instant::now();
    let answers: u32 = tokio::time::timeout(PATIENCE, ask).await.expect("it never ends");
    assert!(answers > 0 && began.elapsed() >= Duration::from_millis(80), "{answers}");
}

/// A client that asks and does not read its answers: their deadline is absolute, too.
#[tokio::test]
async fn http_answers_that_are_not_read_end_their_connection() {
    let limits = Limits { http_idle_max: Duration::from_millis(500), ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    let mut deaf = TcpStream::connect(server.http).await.unwrap();
    let ask = async {
        while deaf.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.is_ok() {}
    };
    tokio::time::timeout(PATIENCE, ask).await.expect("the connection stays open");
    assert!(livez(&server).await.starts_with("HTTP/1.1 200"));
}

/// `HTTP_CONNECTIONS_MAX` slow connections do not keep out a probe, and one peer has a share of
/// `HTTP_PEER_CONNECTIONS_MAX`.
#[tokio::test]
async fn slow_http_connections_do_not_keep_out_probes() {
    let limits = Limits { http_connections_max: 3, ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(server.http).await.unwrap();
        stream.write_all(b"GET /liv").await.unwrap();
        slow.push(stream);
    }
    for _ in 0..3 {
        assert!(livez(&server).await.starts_with("HTTP/1.1 200"));
    }
    let mut rest = Vec::new();
    let ended = slow[0].read_to_end(&mut rest);
    // With or without an error.
    let _ = tokio::time::timeout(PATIENCE, ended).await.expect("the oldest stays open");

    let limits = Limits { http_peer_connections_max: 2, ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.http).await.unwrap();
        stream.write_all(b"GET /liv").await.unwrap();
        slow.push(stream);
    }
    assert_eq!(livez(&server).await, "", "the peer has its share");
    slow.pop();
    let began = Instant::now();
    while livez(&server).await.is_empty() {
        assert!(began.elapsed() < PATIENCE, "the place is never free");
    }
}

/// The server raises the soft limit of file descriptors that it gets from the shell.
#[tokio::test]
async fn the_limit_of_file_descriptors_is_raised() {
    let capstan = env!("CARGO_BIN_EXE_capstan");
    let serve = "serve --demo --listen 127.0.0.1:0 --http none --workers 1";
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", &format!("ulimit -Sn 40 && exec {capstan} {serve}")]);
    let server = Serving::spawn(&mut limited, 1);
    let address: SocketAddr = server.address("grpc").parse().unwrap();
    let mut many = Vec::new();
    for _ in 0..60 {
        let channel = connect(address).await;
        assert_serves(&channel).await;
        many.push(channel);
    }
    drop(many);
    assert_eq!(server.stop("-TERM").0, Some(0));
}

/// Without a free file descriptor, new connections wait in the backlog. The server retries every
/// `ACCEPT_PAUSE`, and open connections are served.
#[tokio::test]
async fn a_server_without_free_file_descriptors_continues() {
    let capstan = env!("CARGO_BIN_EXE_capstan");
    let serve = "serve --demo --listen 127.0.0.1:0 --http none --workers 1";
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", &format!("ulimit -n 40 && exec {capstan} {serve}")]);
    let mut server = Serving::spawn(&mut limited, 1);
    let address: SocketAddr = server.address("grpc").parse().unwrap();
    let channel = connect(address).await;
    assert_serves(&channel).await;
    let mut many = Vec::new();
    for _ in 0..60 {
        many.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    server.wait_for_log("cannot take a connection");
    assert_serves(&channel).await;
    drop(many);
    assert_serves(&connect(address).await).await;
    server.stop("-TERM");
}
