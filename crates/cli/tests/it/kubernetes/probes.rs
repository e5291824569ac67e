//! The limits of connections to the address for probes.

use std::net::SocketAddr;
use std::time::Duration;

use capstan_server::limits::{
    HEALTH_BYTES_MAX, PROBE_CONNECTION_WINDOW, PROBE_HEADER_LIST_MAX, PROBE_STREAM_WINDOW,
    PROBE_STREAMS_MAX,
};
use tokio::time::timeout;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::common::{PATIENCE, Serving, connect};
use crate::raw::{END_HEADERS, Frames, HEADERS, RST_STREAM, WINDOW_UPDATE, header_block};

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

/// The limits of HTTP connections hold for HTTP/2, too: one that sends part of a frame and nothing more is closed.
#[tokio::test]
async fn slow_connections_are_closed() {
    let (_server, address) = start();
    let mut peer = Frames::connect(address).await;
    peer.send_bytes(&[0, 0, 9]).await;
    let ended = async { while peer.next_or_end().await.is_some() {} };
    timeout(PATIENCE + Duration::from_secs(5), ended).await.expect("the connection stays open");
}
