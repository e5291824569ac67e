//! More calls than the server can answer: what it answers is right, the rest is turned away with a
//! time to come back, health answers on, and afterwards all is as before.
//!
//! The default is a short form, which measures nothing. Figures, with the server on one core and
//! the callers on another, at 2 and 10 times what the server answers at most:
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

/// Eight times 256 streams are twice what one peer may have in flight.
const CONNECTIONS: usize = 8;
/// Callers that each ask again as soon as they are answered: enough to keep a core busy, and few
/// enough that none waits for long.
const CALLERS: usize = 8;
/// Calls without an answer after which no more go out.
const UNANSWERED_MAX: usize = 4 * 1_024;
const TICK: Duration = Duration::from_millis(2);

/// What is asked.
#[derive(Clone, Copy, Debug)]
enum Call {
    /// Over in microseconds.
    Check,
    /// Looks at every identity of the policy: milliseconds.
    ListIdentities,
}

/// A policy with so many identities that can all do the same.
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
            let page_size = 1;
            let request =
                v1::ListIdentitiesRequest { capability, resource, page_size, ..Default::default() };
            let answer = decisions.list_identities(request).await?.into_inner();
            assert_eq!(answer.identities, ["person-0"]);
        }
    }
    Ok(())
}

/// What became of calls.
#[derive(Default)]
struct Tally {
    /// How long the answered ones took, from when they were due.
    answered: Vec<Duration>,
    turned_away: usize,
    late: usize,
    not_sent: usize,
    /// From the first call to the last answer.
    whole: Duration,
}

impl Tally {
    fn add(&mut self, ended: Result<(), Status>, took: Duration) {
        match ended {
            Ok(()) => self.answered.push(took),
            Err(status) => match (status.code(), &*reason(&status)) {
                (Code::ResourceExhausted, "OVERLOADED") => {
                    assert!(status.metadata().contains_key("grpc-retry-pushback-ms"));
                    self.turned_away += 1;
                }
                (Code::DeadlineExceeded, _) => self.late += 1,
                _ => panic!("{status:?}"),
            },
        }
    }
}

fn share(sorted: &[Duration], per_mille: usize) -> Duration {
    sorted.get(sorted.len().saturating_sub(1) * per_mille / 1_000).copied().unwrap_or_default()
}

/// Answers a second, when each caller waits for its answer.
async fn peak(channels: &[Channel], call: Call, time: Duration) -> f64 {
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

/// So many calls a second, whether or not they are answered.
async fn offer(channels: &[Channel], call: Call, rate: f64, time: Duration) -> Tally {
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

/// How long health takes to answer, asked again and again on a connection of its own while the
/// other thing goes on.
async fn beside_health<T>(channel: &Channel, other: impl Future<Output = T>) -> (T, Vec<Duration>) {
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
            let answer = tokio::time::timeout(PATIENCE, answer).await.expect("health is silent");
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

#[expect(clippy::print_stdout, reason = "a long run is for the figures")]
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
        let peak_rate = peak(&channels, call, time).await;
        println!("{call:?}: {peak_rate:.0} answers a second from {CALLERS} callers");
        for times in [0.7, 2.0, 10.0] {
            let offered = offer(&channels, call, times * peak_rate, time);
            let (tally, health) = beside_health(&prober, offered).await;
            let Tally { answered, turned_away, late, not_sent, whole } = tally;
            let good = answered.len() as f64 / whole.as_secs_f64();
            println!(
                "{call:?} at {times} times that: {good:.0} answers a second ({:.0} %), p50 {:.1?}, \
                 p99 {:.1?}; {turned_away} turned away, {late} late, {not_sent} not sent; health \
                 p50 {:.1?}, p99 {:.1?}, most {:.1?} of {}",
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
        // All is as before: places have come back.
        let began = Instant::now();
        ask(channels[0].clone(), call).await.unwrap();
        println!("{call:?} afterwards: {:.1?}", began.elapsed());
    });
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn too_many_checks_are_answered_or_turned_away() {
    overload("overload-checks", Call::Check);
}

#[test]
fn too_many_lists_are_answered_or_turned_away() {
    overload("overload-lists", Call::ListIdentities);
}
