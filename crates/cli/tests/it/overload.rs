//! Overload: more calls than the server can answer. Every answer is correct, all other calls are refused
//! with a retry push-back, and health checks are answered. After the overload, calls are answered again.
//!
//! It is short and measures nothing: `benches/overload` does.

use std::time::{Duration, Instant};

use capstan_proto::v1::{self, decision_service_client::DecisionServiceClient};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::common::{PATIENCE, Serving, folder};
use crate::over::Over;
use crate::raw::reason;
use crate::secrets::Channel;

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

/// Whether a call was answered. One that was not is refused with a push-back, or late.
fn is_answered(ended: Result<(), Status>) -> bool {
    let Err(status) = ended else { return true };
    match (status.code(), &*reason(&status)) {
        (Code::ResourceExhausted, "OVERLOADED") => {
            assert!(status.metadata().contains_key("grpc-retry-pushback-ms"));
        }
        (Code::DeadlineExceeded, _) => {}
        _ => panic!("{status:?}"),
    }
    false
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

/// Sends calls at this rate per second, independent of the answers. Returns how many are answered.
async fn send_at_rate(channels: &[Channel], call: Call, rate: f64, time: Duration) -> usize {
    let (mut answered, mut calls) = (0, JoinSet::new());
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (began, mut due, mut sent) = (Instant::now(), 0.0, 0usize);
    while began.elapsed() < time {
        ticks.tick().await;
        due += rate * TICK.as_secs_f64();
        while due >= 1.0 {
            due -= 1.0;
            if calls.len() >= UNANSWERED_MAX {
                continue;
            }
            sent += 1;
            let channel = channels[sent % channels.len()].clone();
            calls.spawn(ask(channel, call));
        }
        while let Some(ended) = calls.try_join_next() {
            answered += usize::from(is_answered(ended.unwrap()));
        }
    }
    while let Some(ended) = calls.join_next().await {
        answered += usize::from(is_answered(ended.unwrap()));
    }
    answered
}

/// Runs `other`, and meanwhile makes health checks on a separate connection. Returns how many are answered.
async fn with_health_checks<T>(channel: &Channel, other: impl Future<Output = T>) -> (T, usize) {
    let mut healthy = 0;
    let probes = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let request = HealthCheckRequest { service: "capstan.v1.DecisionService".into() };
            let mut client = HealthClient::new(channel.clone());
            let answer = client.check(request);
            let answer =
                tokio::time::timeout(PATIENCE, answer).await.expect("no answer to a health check");
            assert_eq!(answer.unwrap().into_inner().status, 1, "serving");
            healthy += 1;
        }
    };
    let ended = tokio::select! {
        ended = other => ended,
        () = probes => unreachable!(),
    };
    (ended, healthy)
}

fn overload(name: &str, call: Call, over: Over) {
    let time = Duration::from_millis(500);
    let file = folder(name).join("policy.yaml");
    std::fs::write(&file, policy(2_000)).unwrap();
    let arguments =
        ["--policy", file.to_str().unwrap(), "--listen", "127.0.0.1:0", "--http", "none"];
    let server = Serving::start(&[&arguments[..], &over.arguments()].concat(), 1);
    let place = over.of(&server);
    let threads = tokio::runtime::Runtime::new().unwrap();
    threads.block_on(async {
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            channels.push(place.channel().await);
        }
        let prober = place.channel().await;
        let peak_rate = measure_peak(&channels, call, time).await;
        for times in [0.7, 2.0, 10.0] {
            let offered = send_at_rate(&channels, call, times * peak_rate, time);
            let (answered, healthy) = with_health_checks(&prober, offered).await;
            assert!(answered > 0 && healthy > 0);
        }
        // After the overload, all permits are free again.
        ask(channels[0].clone(), call).await.unwrap();
    });
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn excess_checks_are_answered_or_refused() {
    overload("overload-checks", Call::Check, Over::Plain);
}

#[test]
fn excess_checks_are_answered_or_refused_over_tls() {
    overload("overload-checks-tls", Call::Check, Over::Tls);
}

#[test]
fn excess_lists_are_answered_or_refused() {
    overload("overload-lists", Call::ListIdentities, Over::Plain);
}

#[test]
fn excess_lists_are_answered_or_refused_over_tls() {
    overload("overload-lists-tls", Call::ListIdentities, Over::Tls);
}
