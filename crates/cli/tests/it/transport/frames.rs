//! Sequences of frames of any kind, valid or not: whatever a connection sends, the server serves others, and
//! keeps nothing of the connection once it has ended.

use std::time::{Duration, Instant};

use capstan_server::limits::Limits;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{BATCH, CHECK};
use crate::common::{InProcess, PATIENCE};
use crate::metrics::scrape;
use crate::raw::{self, END_HEADERS, END_STREAM, Frames, check, frame, framed};

/// One frame, or bytes that are none.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let stream = prop_oneof![8 => (0..6_u32).prop_map(|at| 2 * at + 1), 1 => 0..9_u32];
    let flags = prop_oneof![2 => Just(0_u8), 3 => Just(END_STREAM), 3 => Just(END_HEADERS),
        3 => Just(END_STREAM | END_HEADERS), 1 => any::<u8>()];
    let payload = prop_oneof![
        3 => Just(framed(&check())),
        1 => Just(framed(&check())[..9].to_vec()),
        2 => Just(Vec::new()),
        1 => Just(b"\0\0\x40\0\0".to_vec()), // announces 4 MiB
        1 => Just(4_u32.to_be_bytes().to_vec()),
        1 => Just([&[0, 4][..], &0_u32.to_be_bytes()].concat()),
        1 => Just([&[0, 4][..], &0x7fff_ffff_u32.to_be_bytes()].concat()),
        1 => Just(vec![0; 8]),
        2 => prop::collection::vec(any::<u8>(), 0..40),
    ];
    let head = prop_oneof![
        4 => Just(CHECK), 2 => Just(BATCH), 2 => Just("/capstan.v1.DecisionService/StreamCheck"),
        1 => Just("/grpc.health.v1.Health/Watch"), 1 => Just("/nothing"),
    ];
    let any_frame = (0..11_u8, flags.clone(), stream.clone(), payload)
        .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload));
    let headers = (head, flags, stream)
        .prop_map(|(path, flags, stream)| frame(1, flags, stream, &raw::header_block(path)));
    let bytes = prop::collection::vec(any::<u8>(), 1..20);
    prop_oneof![6 => headers, 8 => any_frame, 1 => bytes]
}

/// A long run: `PROPTEST_CASES=100000 cargo test -p capstan --test it -- transport::frames`.
#[test]
fn whatever_a_connection_sends_others_are_served() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let limits = Limits {
        unary_time_max: Duration::from_millis(200),
        stalled_stream_max: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = runtime.block_on(InProcess::start_within(limits));
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let sequences = prop::collection::vec((piece(), any::<bool>()), 1..30);
    runner
        .run(&sequences, |pieces| {
            runtime.block_on(async {
                let mut peer = Frames::connect(server.grpc).await;
                for (bytes, pause) in pieces {
                    if peer.try_send_bytes(&bytes).await.is_err() {
                        break;
                    }
                    if pause {
                        tokio::task::yield_now().await;
                    }
                }
                let answer = server.decisions().check(check()).await.unwrap();
                assert!(answer.into_inner().allowed);
            });
            Ok(())
        })
        .unwrap();
    runtime.block_on(async {
        let began = Instant::now();
        loop {
            let scraped = scrape(&server).await;
            assert_eq!(scraped["capstan_panics_total"], 0.0);
            if scraped["capstan_held_bytes"] == 0.0 && scraped["capstan_in_flight"] == 0.0 {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "something is kept: {scraped:?}");
        }
    });
}
