//! Overload: more calls than the server can answer. Every answer is correct, all other calls are refused
//! with a retry push-back, and health checks are answered. After the overload, calls are answered again.
//!
//! The default run is short and measures nothing. The following command measures the server on one core,
//! with the callers on another core, at 2 and 10 times the highest rate of the server:
//!
//! ```text
//! CAPSTAN_OVERLOAD_SECONDS=30 taskset -c 1 \
//!     cargo test --release -p capstan --test it overload -- --nocapture --test-threads 1
//! ```

use std::process::Command;
use std::time::{Duration, Instant};

use capstan_proto::v1::{self, decision_service_client::DecisionServiceClient};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::common::{PATIENCE, Serving, folder};
use crate::raw::reason;

/// Eight connections of 256 streams: twice the limit of calls in flight of one peer.
const CONNECTIONS: usize = 8;
/// Concurrent callers. Each sends its next call after the answer to the previous one. They keep one core
/// busy, and no call waits for long.
const CALLERS: usize = 8;
/// The highest number of calls without an answer. Further calls are not sent.
const UNANSWERED_MAX: usize = 4 * 1_024;
/// Identities of a page.
const PAGE: i32 = 1_000;
const TICK: Duration = Duration::from_millis(2);

/// The kind of call.
#[derive(Clone, Copy, Debug)]
enum Call {
    /// Takes microseconds.
    Check,
    /// A page of a thousand, which takes a part of a millisecond and its turn.
    ListIdentities,
}

/// A policy with this number of identities. All have the same permissions.
fn policy(identities: usize) -> String {
    let each = |line: &dyn Fn(usize) -> String| -> String {
        (0..identities).map(|at| line(at) + "\n").collect()
    };
    let declared = each(&|at| format!("- {{id: person-{at}}}"));
    let bindings = each(&|at| format!("- {{identity: person-{at}, role: viewer, scope: acme}}"));
    format!(
        "version: 1\ncatalog: chainguard-2025-08-14\ngroups: [{{id: acme}}]\n\
         identities:\n{declared}role_bindings:\n{bindings}"
    )
}

async fn ask(channel: Channel, call: Call) -> Result<(), Status> {
    let mut decisions = DecisionServiceClient::new(channel);
    let (capability, resource) = ("repo.list".to_owned(), "acme/nginx".to_owned());
    match call {
        Call::Check => {
            let identity = "person-7".into();
            let request = v1::CheckRequest { identity, capability, resource, ..Default::default() };
            assert!(decisions.check(request).await?.into_inner().allowed);
        }
        Call::ListIdentities => {
            let page_size = PAGE;
            let request =
                v1::ListIdentitiesRequest { capability, resource, page_size, ..Default::default() };
            let answer = decisions.list_identities(request).await?.into_inner();
            assert_eq!(answer.identities.len(), usize::try_from(PAGE).unwrap());
        }
    }
    Ok(())
}

/// The outcomes of calls.
#[derive(Default)]
struct Tally {
    /// The latencies of the answered calls, from their scheduled time.
    answered: Vec<Duration>,
    refused: usize,
    late: usize,
    not_sent: usize,
    /// The time from the first call to the last answer.
    whole: Duration,
}

impl Tally {
    fn add(&mut self, ended: Result<(), Status>, took: Duration) {
        match ended {
            Ok(()) => self.answered.push(took),
            Err(status) => match (status.code(), &*reason(&status)) {
                (Code::ResourceExhausted, "OVERLOADED") => {
                    assert!(status.metadata().contains_key("grpc-retry-pushback-ms"));
                    self.refused += 1;
                }
                (Code::DeadlineExceeded, _) => self.late += 1,
                _ => panic!("{status:?}"),
            },
        }
    }
}

/// A quantile of sorted latencies.
pub(crate) fn share(sorted: &[Duration], per_mille: usize) -> Duration {
    sorted.get(sorted.len().saturating_sub(1) * per_mille / 1_000).copied().unwrap_or_default()
}

/// Measures the answers per second of callers that wait for each answer.
async fn measure_peak(channels: &[Channel], call: Call, time: Duration) -> f64 {
    let mut callers = JoinSet::new();
    let began = Instant::now();
    for at in 0..CALLERS {
        let channel = channels[at % channels.len()].clone();
        callers.spawn(async move {
            let mut answered = 0u32;
            while began.elapsed() < time {
                ask(channel.clone(), call).await.unwrap();
                answered += 1;
            }
            answered
        });
    }
    let answered: u32 = callers.join_all().await.into_iter().sum();
    f64::from(answered) / began.elapsed().as_secs_f64()
}

/// Sends calls at this rate per second, independent of the answers.
async fn send_at_rate(channels: &[Channel], call: Call, rate: f64, time: Duration) -> Tally {
    let (mut tally, mut calls) = (Tally::default(), JoinSet::new());
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (began, mut due, mut sent) = (Instant::now(), 0.0, 0usize);
    while began.elapsed() < time {
        let now = ticks.tick().await.into_std();
        due += rate * TICK.as_secs_f64();
        while due >= 1.0 {
            due -= 1.0;
            if calls.len() >= UNANSWERED_MAX {
                tally.not_sent += 1;
                continue;
            }
            sent += 1;
            let channel = channels[sent % channels.len()].clone();
            calls.spawn(async move { (ask(channel, call).await, now.elapsed()) });
        }
        while let Some(ended) = calls.try_join_next() {
            let (ended, took) = ended.unwrap();
            tally.add(ended, took);
        }
    }
    while let Some(ended) = calls.join_next().await {
        let (ended, took) = ended.unwrap();
        tally.add(ended, took);
    }
    tally.whole = began.elapsed();
    tally.answered.sort_unstable();
    tally
}

/// Runs `other`, and meanwhile makes health checks on a separate connection. Returns their latencies.
async fn with_health_checks<T>(
    channel: &Channel,
    other: impl Future<Output = T>,
) -> (T, Vec<Duration>) {
    let mut took = Vec::new();
    let probes = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let began = Instant::now();
            let request = HealthCheckRequest { service: "capstan.v1.DecisionService".into() };
            let mut client = HealthClient::new(channel.clone());
            let answer = client.check(request);
            let answer =
                tokio::time::timeout(PATIENCE, answer).await.expect("no answer to a health check");
            assert_eq!(answer.unwrap().into_inner().status, 1, "serving");
            took.push(began.elapsed());
        }
    };
    let ended = tokio::select! {
        ended = other => ended,
        () = probes => unreachable!(),
    };
    took.sort_unstable();
    (ended, took)
}

#[expect(clippy::print_stdout, reason = "a long run prints figures")]
fn overload(name: &str, call: Call) {
    let long = std::env::var("CAPSTAN_OVERLOAD_SECONDS").ok();
    let seconds = long.as_ref().map(|seconds| seconds.parse().expect("a number"));
    let time = seconds.map_or(Duration::from_millis(500), Duration::from_secs);
    let file = folder(name).join("policy.yaml");
    std::fs::write(&file, policy(if long.is_some() { 20_000 } else { 2_000 })).unwrap();
    let arguments =
        ["--policy", file.to_str().unwrap(), "--listen", "127.0.0.1:0", "--http", "none"];
    let server = Serving::start(&arguments, 1);
    if long.is_some() {
        let id = server.id().to_string();
        let pinned = Command::new("taskset").args(["-a", "-c", "-p", "0", &id]).output().unwrap();
        assert!(pinned.status.success(), "{pinned:?}");
    }
    let url = format!("http://{}", server.address("grpc"));
    let threads = tokio::runtime::Runtime::new().unwrap();
    threads.block_on(async {
        let connect =
            || async { Channel::from_shared(url.clone()).unwrap().connect().await.unwrap() };
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            channels.push(connect().await);
        }
        let prober = connect().await;
        let peak_rate = measure_peak(&channels, call, time).await;
        println!("{call:?}: {peak_rate:.0} answers per second from {CALLERS} callers");
        for times in [0.7, 2.0, 10.0] {
            let offered = send_at_rate(&channels, call, times * peak_rate, time);
            let (tally, health) = with_health_checks(&prober, offered).await;
            let Tally { answered, refused, late, not_sent, whole } = tally;
            let good = answered.len() as f64 / whole.as_secs_f64();
            println!(
                "{call:?} at {times} times this rate: {good:.0} answers per second ({:.0} %), p50 {:.1?}, \
                p99 {:.1?}; {refused} refused, {late} late, {not_sent} not sent; health \
                p50 {:.1?}, p99 {:.1?}, max {:.1?} of {}",
                100.0 * good / peak_rate,
                share(&answered, 500),
                share(&answered, 990),
                share(&health, 500),
                share(&health, 990),
                share(&health, 1_000),
                health.len(),
            );
            assert!(!answered.is_empty() && !health.is_empty());
        }
        // After the overload, all permits are free again.
        let began = Instant::now();
        ask(channels[0].clone(), call).await.unwrap();
        println!("{call:?} afterwards: {:.1?}", began.elapsed());
    });
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn excess_checks_are_answered_or_refused() {
    overload("overload-checks", Call::Check);
}

#[test]
fn excess_lists_are_answered_or_refused() {
    overload("overload-lists", Call::ListIdentities);
}
