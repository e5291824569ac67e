//! The limits of connections to the address for probes.

use std::net::SocketAddr;
use std::time::Duration;

use capstan_server::limits::{
    HEALTH_BYTES_MAX, HTTP_HEAD_MAX, PROBE_CONNECTION_WINDOW, PROBE_HEADER_LIST_MAX,
    PROBE_METRICS_SHARED, PROBE_STREAM_WINDOW, PROBE_STREAMS_MAX,
};
use tokio::time::timeout;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::common::{Serving, connect};
use crate::raw::{
    ACK, END_HEADERS, END_STREAM, Frames, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    header_block, literal,
};
use crate::transport::bounds::resident;

fn start() -> (Serving, SocketAddr) {
    let server = Serving::start(
        &["--demo", "--listen=127.0.0.1:0", "--http=none", "--probes=127.0.0.1:0"],
        18,
    );
    let address = server.address("probes").parse().unwrap();
    (server, address)
}

#[tokio::test]
async fn connections_have_their_limits() {
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    const INITIAL_WINDOW_SIZE: u16 = 4;
    const MAX_HEADER_LIST_SIZE: u16 = 6;
    const FIRST_WINDOW: u32 = 65_535;
    let (_server, address) = start();
    let (mut peer, settings) = Frames::connect_with_settings(address).await;
    assert_eq!(settings.get(&MAX_CONCURRENT_STREAMS), Some(&PROBE_STREAMS_MAX));
    assert_eq!(settings.get(&INITIAL_WINDOW_SIZE), Some(&PROBE_STREAM_WINDOW));
    assert_eq!(settings.get(&MAX_HEADER_LIST_SIZE), Some(&PROBE_HEADER_LIST_MAX));
    // Streams that are never ended hold their places, and no more.
    let block = header_block("/grpc.health.v1.Health/Check");
    for at in 0..=PROBE_STREAMS_MAX {
        peer.send(HEADERS, END_HEADERS, 1 + 2 * at, &block).await;
    }
    loop {
        let (kind, _, stream, _) = peer.next().await;
        // The window of the connection stays the one that it has at first.
        assert_ne!(kind, WINDOW_UPDATE);
        assert_eq!(PROBE_CONNECTION_WINDOW, FIRST_WINDOW);
        if kind == RST_STREAM {
            assert_eq!(stream, 1 + 2 * PROBE_STREAMS_MAX);
            break;
        }
    }
}

#[tokio::test]
async fn long_requests_are_refused() {
    let (_server, address) = start();
    let mut health = HealthClient::new(connect(address).await);
    let long = HealthCheckRequest { service: "x".repeat(HEALTH_BYTES_MAX) };
    assert!(health.check(long).await.unwrap_err().message().contains("too large"));
    health.check(HealthCheckRequest::default()).await.unwrap();
}

/// Peers that ask for the metrics and do not read them hold little: the answer is one for all who ask at a time.
#[tokio::test]
async fn answers_that_are_not_read_take_little() {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    assert!(PROBE_METRICS_SHARED <= Duration::from_millis(100));
    let (server, address) = start();
    // Once, so that what the first answers take for ever is there.
    HealthClient::new(connect(address).await).check(HealthCheckRequest::default()).await.unwrap();
    let before = resident(&server);
    let mut peers = Vec::new();
    let closed = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &[0; 4]].concat();
    let heads =
        [(":method", "GET"), (":scheme", "http"), (":path", "/metrics"), (":authority", "x")];
    let block: Vec<_> =
        heads.into_iter().flat_map(|(name, value)| literal(0, name, value)).collect();
    for _ in 0..60 {
        let mut peer = Frames::connect(address).await;
        peer.send(SETTINGS, 0, 0, &closed).await;
        for at in 0..PROBE_STREAMS_MAX {
            peer.send(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * at, &block).await;
        }
        peers.push(peer);
    }
    for peer in &mut peers {
        // The heads have arrived, so the answers are there.
        while peer.next().await.0 != HEADERS {}
    }
    let each = (resident(&server).saturating_sub(before)) / 60;
    assert!(each < 128 << 10, "{each} bytes for each connection");
}

/// The limits of HTTP connections hold for HTTP/2, too: one that sends part of a frame and nothing more is closed.
#[tokio::test]
async fn slow_connections_are_closed() {
    let (_server, address) = start();
    let mut peer = Frames::connect(address).await;
    // The server has nothing more to say: what it writes would give the next head more time.
    while !matches!(peer.next().await, (SETTINGS, ACK, ..)) {}
    peer.send_bytes(&[0, 0, 9]).await;
    let ended = async { while peer.next_or_end().await.is_some() {} };
    timeout(3 * HTTP_HEAD_MAX, ended).await.expect("the connection stays open");
}
