//! What a run says, for programs and for tables.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::against::{Median, Pair};
use super::load::tally::{Answers, Code, Tally};
use super::load::{Mode, Outcome, Plan, as_f64};

/// One server, one run (or several, added up).
///
/// `requests` are those whose time was in the window, whatever came of them: answered + the sum of
/// `errors` + `unanswered` + `unsent`. `checks` are those of the answered requests: allowed + denied
/// + the sum of `check_errors` + `malformed`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub target: String,
    pub mode: Mode,
    pub connections: usize,
    pub in_flight: usize,
    pub threads: usize,
    pub checks_per_request: usize,
    /// Requests a second that were meant to be sent; null in a closed loop.
    pub rate: Option<u64>,
    pub seconds: f64,
    pub requests: u64,
    pub answered: u64,
    pub errors: BTreeMap<Code, u64>,
    pub unanswered: u64,
    pub unsent: u64,
    pub checks: u64,
    pub allowed: u64,
    pub denied: u64,
    pub check_errors: BTreeMap<Code, u64>,
    pub malformed: u64,
    /// Decisions that this process would not have made; null if they were not compared.
    pub wrong: Option<u64>,
    pub requests_per_second: f64,
    pub checks_per_second: f64,
    pub latency_us: Latency,
    pub server_cpu_us_per_check: Option<f64>,
    pub client_cpu_us_per_check: Option<f64>,
}

/// Microseconds from when a request was meant to be sent until its answer was here.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    #[serde(rename = "p99.9")]
    pub p99_9: f64,
    #[serde(rename = "p99.99")]
    pub p99_99: f64,
    pub max: f64,
}

impl Latency {
    fn of(nanos: &Histogram<u64>) -> Self {
        let at = |quantile| as_f64(nanos.value_at_quantile(quantile)) / 1e3;
        Self {
            mean: nanos.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.999_9),
            max: at(1.0),
        }
    }
}

/// What was asked of the generator, beside the plan.
#[derive(Clone, Debug)]
pub struct Asked {
    pub target: String,
    pub mode: Mode,
    pub checks_per_request: usize,
    pub verified: bool,
}

impl Report {
    pub fn new(asked: &Asked, plan: &Plan, outcome: &Outcome) -> Self {
        let Tally { latency, answered, failed, unanswered, unsent, answers, .. } = &outcome.tally;
        let Answers { allowed, denied, errors, malformed, wrong } = answers;
        let per_request = u32::try_from(asked.checks_per_request).unwrap_or(u32::MAX);
        Self {
            target: asked.target.clone(),
            mode: asked.mode,
            connections: plan.connections,
            in_flight: plan.in_flight,
            threads: plan.threads,
            checks_per_request: asked.checks_per_request,
            rate: plan.rate,
            seconds: outcome.seconds,
            requests: outcome.tally.requests(),
            answered: *answered,
            errors: failed.clone(),
            unanswered: *unanswered,
            unsent: *unsent,
            checks: allowed + denied + malformed + errors.values().sum::<u64>(),
            allowed: *allowed,
            denied: *denied,
            check_errors: errors.clone(),
            malformed: *malformed,
            wrong: asked.verified.then_some(*wrong),
            requests_per_second: outcome.rate() / f64::from(per_request),
            checks_per_second: outcome.rate(),
            latency_us: Latency::of(latency),
            server_cpu_us_per_check: outcome.micros_a_check(outcome.server_cpu),
            client_cpu_us_per_check: outcome.micros_a_check(outcome.client_cpu),
        }
    }

    /// Whether something was answered, and nothing wrongly.
    pub fn is_sound(&self) -> bool {
        self.allowed + self.denied > 0 && self.malformed == 0 && self.wrong.unwrap_or(0) == 0
    }
}

/// A server and the yardstick, run in turn.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    pub server: Report,
    pub yardstick: Report,
    pub pairs: Vec<Ratios>,
    /// Over the yardstick's: 1.06 is six hundredths more.
    pub cpu_ratio: Option<Median>,
    pub rate_ratio: Option<Median>,
}

/// The server's figure over the yardstick's, in one pair of runs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ratios {
    cpu: Option<f64>,
    rate: Option<f64>,
}

/// All runs of one server, added up.
#[derive(Clone, Debug)]
pub struct Both {
    pub server: Outcome,
    pub yardstick: Outcome,
}

impl Both {
    pub fn of(pairs: &[Pair]) -> anyhow::Result<Self> {
        let server = sum(pairs.iter().map(|pair| &pair.server))?;
        Ok(Self { server, yardstick: sum(pairs.iter().map(|pair| &pair.yardstick))? })
    }
}

fn sum<'o>(outcomes: impl Iterator<Item = &'o Outcome>) -> anyhow::Result<Outcome> {
    let zero = Some(Duration::ZERO);
    let tally = Tally::new()?;
    let mut sum = Outcome { tally, seconds: 0.0, server_cpu: zero, client_cpu: zero };
    let both = |one: Option<Duration>, other: Option<Duration>| Some(one? + other?);
    for outcome in outcomes {
        sum.tally.add(&outcome.tally);
        sum.seconds += outcome.seconds;
        sum.server_cpu = both(sum.server_cpu, outcome.server_cpu);
        sum.client_cpu = both(sum.client_cpu, outcome.client_cpu);
    }
    Ok(sum)
}

impl Comparison {
    pub fn new(server: Report, yardstick: Report, pairs: &[Pair]) -> Self {
        let median = |ratio: fn(&Pair) -> Option<f64>| {
            Median::of(pairs.iter().map(ratio).collect::<Option<_>>()?)
        };
        Self {
            server,
            yardstick,
            pairs: pairs
                .iter()
                .map(|pair| Ratios { cpu: pair.cpu_ratio(), rate: pair.rate_ratio() })
                .collect(),
            cpu_ratio: median(Pair::cpu_ratio),
            rate_ratio: median(Pair::rate_ratio),
        }
    }
}
