//! Stopping under load: what was asked before the signal is answered.
//!
//! `CAPSTAN_KILLS=50 dev/test drain` stops it that often; the default is a short form.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use capstan_proto::v1::{self, decision_service_client::DecisionServiceClient};
use tonic::transport::Channel;

use crate::common::Serving;

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

/// Asks until the server is gone. A call that began before the signal must be answered.
async fn ask(channel: Channel, signalled: Arc<AtomicBool>, answered: Arc<AtomicU64>) {
    let mut decisions = DecisionServiceClient::new(channel);
    let request = v1::CheckRequest {
        identity: "bob".into(),
        capability: "repo.list".into(),
        resource: "acme/platform/images/nginx".into(),
        ..Default::default()
    };
    loop {
        let before = !signalled.load(Ordering::SeqCst);
        match decisions.check(request.clone()).await {
            Ok(answer) => assert!(answer.get_ref().allowed),
            Err(status) => {
                assert!(!before, "a call that began before the signal failed: {status:?}");
                return;
            }
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
}
