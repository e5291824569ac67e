//! Reloads under load: checks are sent at a fixed rate, independent of the answers, while the policy
//! changes repeatedly. Every answer follows the policy of its revision.
//!
//! The default run is short. One minute at 10,000 checks per second:
//!
//! ```text
//! CAPSTAN_RELOAD_SECONDS=60 cargo test --release -p capstan --test it under_load -- --nocapture
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use capstan_proto::v1::{self, decision_service_client::DecisionServiceClient};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::{file, replace};
use crate::common::{PATIENCE, Serving};

const IDENTITIES: usize = 1_000;
const SCOPES: usize = 16;
const CONNECTIONS: usize = 4;
/// Checks at each tick: this number in one batch, and the same number of single checks.
const BATCH: usize = 5;
/// The highest number of calls without an answer. More calls would exceed the server's limit.
const UNANSWERED_MAX: usize = 512;

/// The only scope of an identity in the policy of this revision. Consecutive revisions have different
/// scopes.
fn scope_of(identity: usize, revision: u64) -> usize {
    (identity + usize::from(revision.is_multiple_of(2))) % SCOPES
}

fn policy(revision: u64) -> String {
    let each = |line: &dyn Fn(usize) -> String, count: usize| -> String {
        (0..count).map(|at| line(at) + "\n").collect()
    };
    let bindings = |at| {
        let scope = scope_of(at, revision);
        format!("- {{identity: person-{at}, role: reader, scope: scope-{scope}}}")
    };
    format!(
        "version: 1\ncatalog: {{name: c, resources: [{{name: r, actions: [get]}}], \
         roles: [{{name: reader, capabilities: [r.get]}}]}}\n\
         groups:\n{}identities:\n{}role_bindings:\n{}",
        each(&|at| format!("- {{id: scope-{at}}}"), SCOPES),
        each(&|at| format!("- {{id: person-{at}}}"), IDENTITIES),
        each(&bindings, IDENTITIES),
    )
}

/// A check. Most checks are at a scope that one of the two policies grants.
#[derive(Clone, Copy)]
struct Question {
    identity: usize,
    scope: usize,
}

impl Question {
    fn number(at: usize) -> Self {
        let identity = at * 7 % IDENTITIES;
        Self { identity, scope: (identity + at % 3) % SCOPES }
    }

    fn item(self) -> v1::CheckItem {
        v1::CheckItem {
            identity: format!("person-{}", self.identity),
            capability: "r.get".into(),
            resource: format!("scope-{}/below", self.scope),
            properties: None,
        }
    }

    /// Asserts that an answer follows the policy of its revision.
    fn assert_answer(self, revision: u64, allowed: bool, reason: v1::Reason) {
        let expected = scope_of(self.identity, revision) == self.scope;
        let why = if expected { v1::Reason::Granted } else { v1::Reason::NoBinding };
        assert_eq!((allowed, reason), (expected, why), "revision {revision}");
    }
}

/// A connection, and the highest revision of its answers.
struct Client {
    channel: Channel,
    seen: AtomicU64,
}

/// A call with a correct answer.
struct Answered {
    checks: usize,
    revision: u64,
    took: Duration,
}

impl Client {
    async fn connect(url: &str) -> Arc<Self> {
        let channel = Channel::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
        Arc::new(Self { channel, seen: AtomicU64::new(0) })
    }

    /// Sends one question by Check, several by BatchCheck. The revision of an answer is not lower than the
    /// revision of any answer that arrived before the call.
    async fn ask(
        self: Arc<Self>,
        questions: Vec<Question>,
        due: Instant,
        _place: OwnedSemaphorePermit,
    ) -> Option<Answered> {
        let mut decisions = DecisionServiceClient::new(self.channel.clone());
        let seen = self.seen.load(Ordering::SeqCst);
        let revision = if let [question] = questions[..] {
            let v1::CheckItem { identity, capability, resource, .. } = question.item();
            let (properties, consistency) = Default::default();
            let request =
                v1::CheckRequest { identity, capability, resource, properties, consistency };
            let answer = answer_in_time(decisions.check(request).await)?;
            question.assert_answer(answer.revision, answer.allowed, answer.reason());
            answer.revision
        } else {
            let checks = questions.iter().map(|question| question.item()).collect();
            let request = v1::BatchCheckRequest { checks, consistency: None };
            let answer = answer_in_time(decisions.batch_check(request).await)?;
            assert_eq!(answer.results.len(), questions.len());
            for (question, result) in questions.iter().zip(&answer.results) {
                question.assert_answer(answer.revision, result.allowed, result.reason());
            }
            answer.revision
        };
        assert!(revision >= seen, "revision {revision} after {seen}");
        self.seen.fetch_max(revision, Ordering::SeqCst);
        Some(Answered { checks: questions.len(), revision, took: due.elapsed() })
    }
}

/// On a busy machine, a request can reach the server after its deadline.
fn answer_in_time<T>(answer: Result<Response<T>, Status>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer.into_inner()),
        Err(status) => {
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
            None
        }
    }
}

/// Replaces the policy each time the previous one is served, until `stop`. Returns the last revision.
async fn reload(
    path: std::path::PathBuf,
    mut decisions: DecisionServiceClient<Channel>,
    stop: Arc<AtomicBool>,
) -> u64 {
    let mut revision = 1;
    while !stop.load(Ordering::SeqCst) {
        revision += 1;
        replace(&path, &policy(revision));
        let began = Instant::now();
        let served = loop {
            match decisions.check(super::request("scope-0", revision)).await {
                Ok(answer) => break answer.into_inner().revision,
                Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
            }
            assert!(began.elapsed() < PATIENCE, "revision {revision} never came");
        };
        assert_eq!(served, revision, "a change gives not exactly one revision");
    }
    revision
}

/// Counts of calls sent and answers received.
#[derive(Default)]
struct Tally {
    calls: usize,
    checks: usize,
    /// Ticks without calls because of `UNANSWERED_MAX`.
    held_back: usize,
    late: usize,
    /// Answers of even revisions, and of odd ones.
    answers: [usize; 2],
    took: Vec<Duration>,
}

impl Tally {
    fn add(&mut self, answered: Option<Answered>) {
        self.calls += 1;
        let Some(answered) = answered else {
            self.late += 1;
            return;
        };
        self.checks += answered.checks;
        self.answers[usize::from(answered.revision % 2 == 1)] += answered.checks;
        self.took.push(answered.took);
    }
}

/// Sends calls at every tick until the time is over and both policies have answered. Then waits for the
/// remaining answers.
async fn drive(clients: &[Arc<Client>], tick: Duration, time: Duration) -> (Tally, Duration) {
    let places = Arc::new(Semaphore::new(UNANSWERED_MAX));
    let (mut tally, mut calls) = (Tally::default(), JoinSet::new());
    let mut ticks = tokio::time::interval(tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut asked = 0;
    let began = Instant::now();
    while began.elapsed() < time || tally.answers.contains(&0) {
        assert!(began.elapsed() < time + PATIENCE, "all answers are of one policy");
        let due = ticks.tick().await.into_std();
        let mut questions = (asked..).map(Question::number);
        let singles = (0..BATCH).map(|_| questions.by_ref().take(1).collect());
        let mut all: Vec<Vec<Question>> = singles.collect();
        all.push(questions.take(BATCH).collect());
        asked += 2 * BATCH;
        let wanted = u32::try_from(all.len()).unwrap();
        if let Ok(mut free) = Arc::clone(&places).try_acquire_many_owned(wanted) {
            for (at, questions) in all.into_iter().enumerate() {
                let place = free.split(1).unwrap();
                let client = &clients[(asked / 2 / BATCH + at) % clients.len()];
                calls.spawn(Arc::clone(client).ask(questions, due, place));
            }
        } else {
            tally.held_back += 1;
        }
        while let Some(answered) = calls.try_join_next() {
            tally.add(answered.unwrap());
        }
    }
    while let Some(answered) = calls.join_next().await {
        tally.add(answered.unwrap());
    }
    (tally, began.elapsed())
}

#[test]
#[expect(clippy::print_stdout, reason = "a long run prints figures")]
fn every_answer_follows_the_policy_of_its_revision() {
    let long = std::env::var("CAPSTAN_RELOAD_SECONDS").ok();
    let seconds = long.as_ref().map(|seconds| seconds.parse().expect("a number"));
    // 10,000 checks per second, or fewer for a build without optimization.
    let tick = Duration::from_millis(if long.is_some() { 1 } else { 20 });
    let time = Duration::from_secs(seconds.unwrap_or(2));

    let path = file("reload-under-load", &policy(1));
    let arguments =
        ["--policy", path.to_str().unwrap(), "--listen", "127.0.0.1:0", "--http", "none"];
    let server = Serving::start(&arguments, 1);
    let url = format!("http://{}", server.address("grpc"));
    let threads = tokio::runtime::Runtime::new().unwrap();
    let (tally, took, reloads) = threads.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(Client::connect(&url).await);
        }
        let watcher = DecisionServiceClient::new(Client::connect(&url).await.channel.clone());
        let (mut reloads, stop) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
        reloads.spawn(reload(path.clone(), watcher, Arc::clone(&stop)));
        let (tally, took) = drive(&clients, tick, time).await;
        stop.store(true, Ordering::SeqCst);
        (tally, took, reloads.join_next().await.unwrap().unwrap() - 1)
    });
    let Tally { calls, checks, held_back, late, answers: [even, odd], took: mut latencies } = tally;
    latencies.sort_unstable();
    let [median, p99, longest] =
        [500, 990, 1_000].map(|share| latencies[(latencies.len() - 1) * share / 1_000]);
    println!(
        "{checks} checks in {calls} calls over {took:.1?}, {:.0} per second ({held_back} ticks skipped, \
        {late} calls late), {reloads} reloads: {even} answers of one policy, {odd} of the other; \
        latency from the scheduled time {median:.1?} (median), {p99:.1?} (p99), {longest:.1?} (max)",
        checks as f64 / took.as_secs_f64(),
    );
    assert!(reloads > 0 && even > 0 && odd > 0 && checks == even + odd);
    assert_eq!(server.stop("-TERM").0, Some(0));
}
