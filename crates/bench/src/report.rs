//! The figures of a run, as `capstan bench --output json` prints them and its tables show them.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::against::{Median, Pair};
use crate::figures::as_f64;
use crate::load::tally::{AnswerCounts, Tally};
use crate::load::{ErrorName, Measurement, Mode, Plan};

/// The figures of one server, from one run or several added up.
///
/// Two sums hold: `requests` = `answered` + the sum of `errors` + `unanswered` + `unsent`, and `checks` =
/// `allowed` + `denied` + the sum of `check_errors` + `malformed`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The server's address, or the yardstick's name.
    pub target: String,
    /// How checks are sent.
    pub mode: Mode,
    /// Connections.
    pub connections: usize,
    /// Requests in flight per connection.
    pub in_flight: usize,
    /// Generator threads.
    pub threads: usize,
    /// Checks in each request.
    pub checks_per_request: usize,
    /// Scheduled requests per second; null in a closed loop.
    pub rate: Option<u64>,
    /// Length of the measured window.
    pub seconds: f64,
    /// Requests whose start time lies in the window.
    pub requests: u64,
    /// Requests with an answer.
    pub answered: u64,
    /// Requests that ended with an error, by its name.
    pub errors: BTreeMap<ErrorName, u64>,
    /// Requests that were sent and got neither answer nor error before the end.
    pub unanswered: u64,
    /// Requests that fell due in an open loop and were not sent before the end.
    pub unsent: u64,
    /// Checks of the answered requests.
    pub checks: u64,
    /// Checks that were allowed.
    pub allowed: u64,
    /// Checks that were denied.
    pub denied: u64,
    /// Checks of a batch whose result is an error, by its name.
    pub check_errors: BTreeMap<ErrorName, u64>,
    /// Checks whose answer is not a decision.
    pub malformed: u64,
    /// Decisions that differ from the engine's in this process; null without verification.
    pub wrong: Option<u64>,
    /// Requests answered per second.
    pub requests_per_second: f64,
    /// Checks answered per second.
    pub checks_per_second: f64,
    /// Latencies in microseconds.
    pub latency_us: Latency,
    /// CPU time of the server per check, in microseconds; null if unknown.
    pub server_cpu_us_per_check: Option<f64>,
    /// CPU time of the generator per check, in microseconds; null if unknown.
    pub client_cpu_us_per_check: Option<f64>,
}

/// Latencies in microseconds, from a request's start time (in an open loop the scheduled one) to the end
/// of its answer.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Arithmetic mean.
    pub mean: f64,
    /// 50th percentile.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    #[serde(rename = "p99.9")]
    pub p99_9: f64,
    /// 99.99th percentile.
    #[serde(rename = "p99.99")]
    pub p99_99: f64,
    /// Maximum.
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

/// The parameters of a run that a [`Plan`] does not hold.
#[derive(Clone, Debug)]
pub struct RunInfo {
    /// The server's address, or the yardstick's name.
    pub target: String,
    /// How checks are sent.
    pub mode: Mode,
    /// Checks in each request.
    pub checks_per_request: usize,
    /// Whether decisions are compared with the engine's.
    pub verified: bool,
}

impl Report {
    /// The report of a measurement.
    #[must_use]
    pub fn new(info: &RunInfo, plan: &Plan, measurement: &Measurement) -> Self {
        let Tally { latency, answered, failed, unanswered, unsent, answers, .. } =
            &measurement.tally;
        let AnswerCounts { allowed, denied, errors, malformed, wrong } = answers;
        let per_request = u32::try_from(info.checks_per_request).unwrap_or(u32::MAX);
        Self {
            target: info.target.clone(),
            mode: info.mode,
            connections: plan.connections,
            in_flight: plan.in_flight,
            threads: plan.threads,
            checks_per_request: info.checks_per_request,
            rate: plan.rate,
            seconds: measurement.seconds,
            requests: measurement.tally.requests(),
            answered: *answered,
            errors: failed.clone(),
            unanswered: *unanswered,
            unsent: *unsent,
            checks: allowed + denied + malformed + errors.values().sum::<u64>(),
            allowed: *allowed,
            denied: *denied,
            check_errors: errors.clone(),
            malformed: *malformed,
            wrong: info.verified.then_some(*wrong),
            requests_per_second: measurement.rate() / f64::from(per_request),
            checks_per_second: measurement.rate(),
            latency_us: Latency::of(latency),
            server_cpu_us_per_check: measurement.micros_a_check(measurement.server_cpu),
            client_cpu_us_per_check: measurement.micros_a_check(measurement.client_cpu),
        }
    }

    /// Whether there is at least one decision, and none is malformed or wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.allowed + self.denied > 0 && self.malformed == 0 && self.wrong.unwrap_or(0) == 0
    }
}

/// A server compared with the yardstick.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// All runs of the server, added up.
    pub server: Report,
    /// All runs of the yardstick, added up.
    pub yardstick: Report,
    /// The ratios of each pair of runs.
    pub pairs: Vec<Ratios>,
    /// The server's CPU time per check divided by the yardstick's: 1.06 is 6 % more. Null if unknown.
    pub cpu_ratio: Option<Median>,
    /// The server's checks per second divided by the yardstick's. Null if unknown.
    pub rate_ratio: Option<Median>,
}

/// The server's figures divided by the yardstick's, in one pair of runs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ratios {
    cpu: Option<f64>,
    rate: Option<f64>,
}

/// All pairs added up.
#[derive(Clone, Debug)]
pub struct Totals {
    /// The runs of the server.
    pub server: Measurement,
    /// The runs of the yardstick.
    pub yardstick: Measurement,
}

impl Totals {
    /// # Errors
    ///
    /// The parameters of the histogram are invalid.
    pub fn of(pairs: &[Pair]) -> anyhow::Result<Self> {
        let server = sum(pairs.iter().map(|pair| &pair.server))?;
        Ok(Self { server, yardstick: sum(pairs.iter().map(|pair| &pair.yardstick))? })
    }
}

fn sum<'m>(all: impl Iterator<Item = &'m Measurement>) -> anyhow::Result<Measurement> {
    let zero = Some(Duration::ZERO);
    let tally = Tally::new()?;
    let mut sum = Measurement { tally, seconds: 0.0, server_cpu: zero, client_cpu: zero };
    let both = |one: Option<Duration>, other: Option<Duration>| Some(one? + other?);
    for one in all {
        sum.tally.add(&one.tally);
        sum.seconds += one.seconds;
        sum.server_cpu = both(sum.server_cpu, one.server_cpu);
        sum.client_cpu = both(sum.client_cpu, one.client_cpu);
    }
    Ok(sum)
}

impl Comparison {
    /// The comparison of these reports, with the ratios of their pairs.
    #[must_use]
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
