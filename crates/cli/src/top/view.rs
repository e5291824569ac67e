//! The figures of an interval: counts, rates, shares and latencies. `--output json` prints this type, so its
//! fields are stable; `capstan top --help` documents them.
//!
//! **Invariant**: all figures are computed from two scrapes and the time between them. A counter that has
//! decreased means that the server has restarted: the interval then counts from zero.

use std::collections::BTreeMap;
use std::time::Duration;

use capstan_engine::Timestamp;
use capstan_policy::format_timestamp;
use serde::{Serialize, Serializer};

use super::sample::{Counter, ReasonName, Sample, State};
use capstan_server::methods::Rpc;

/// The figures of an interval, or since the server's start.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct View {
    /// The end of the interval, by this machine's clock.
    #[serde(serialize_with = "time")]
    pub(super) time: Timestamp,
    /// The length of the interval; absent for totals since the server's start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seconds: Option<f64>,
    /// Whether the server restarted in the interval. What it had counted before is lost.
    pub(super) restarted: bool,
    #[serde(flatten)]
    pub(super) state: State,
    #[serde(flatten)]
    pub(super) all: Flow,
    /// Each RPC, also without calls.
    pub(super) rpcs: Vec<RpcFlow>,
    /// Each reason, in the engine's precedence.
    pub(super) reasons: Vec<ReasonCount>,
    /// Each status code other than OK that occurred, the most frequent first.
    pub(super) errors: Vec<CodeCount>,
    pub(super) shed: Shed,
}

/// Calls with their decisions and latencies.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Flow {
    pub(super) calls: Count,
    /// Calls that ended with a code other than OK.
    pub(super) failed: Count,
    /// Decisions; each of a batch counts.
    pub(super) decisions: Count,
    pub(super) allowed: Count,
    pub(super) denied: Count,
    pub(super) latency_seconds: Latency,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct RpcFlow {
    pub(super) rpc: String,
    /// Whether there was a call since the server's start.
    #[serde(skip)]
    pub(super) known: bool,
    #[serde(flatten)]
    pub(super) flow: Flow,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ReasonCount {
    pub(super) reason: String,
    #[serde(flatten)]
    pub(super) count: Count,
    /// The share of all decisions, from 0 to 1; 0 without decisions.
    pub(super) share: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct CodeCount {
    pub(super) code: String,
    #[serde(flatten)]
    pub(super) count: Count,
}

/// Calls rejected because too many were in flight, by the limit that they exceeded.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Shed {
    pub(super) global: Count,
    pub(super) peer: Count,
}

impl Shed {
    /// By both limits.
    pub(super) fn all(&self) -> Count {
        let per_second = self.global.per_second.zip(self.peer.per_second);
        Count {
            count: self.global.count.saturating_add(self.peer.count),
            per_second: per_second.map(|(global, peer)| global + peer),
        }
    }
}

/// A count, and its rate in an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Count {
    pub(crate) count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) per_second: Option<f64>,
}

/// Quantiles estimated from a histogram, by linear interpolation within a bucket; absent without calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) p50: Option<Quantile>,
    pub(super) p90: Option<Quantile>,
    pub(super) p99: Option<Quantile>,
    pub(super) p99_9: Option<Quantile>,
}

/// A latency quantile.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(into = "f64")]
pub(crate) struct Quantile {
    pub(crate) seconds: f64,
    /// Whether it is beyond the histogram's range; `seconds` is then the end of the range.
    pub(crate) beyond: bool,
}

impl From<Quantile> for f64 {
    fn from(quantile: Quantile) -> Self {
        quantile.seconds
    }
}

fn time<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    let milliseconds = time.nanos() - time.nanos() % 1_000_000;
    format_timestamp(Timestamp::new(time.seconds(), milliseconds)).serialize(to)
}

impl View {
    /// Totals since the server's start.
    pub(super) fn total(sample: &Sample, time: Timestamp) -> Self {
        Self::new(&BTreeMap::new(), sample, None, time)
    }

    /// The figures between two scrapes.
    pub(super) fn between(
        earlier: &Sample,
        later: &Sample,
        took: Duration,
        now: Timestamp,
    ) -> Self {
        Self::new(&earlier.counters, later, Some(took.as_secs_f64()), now)
    }

    fn new(
        earlier: &BTreeMap<Counter, u64>,
        later: &Sample,
        seconds: Option<f64>,
        time: Timestamp,
    ) -> Self {
        let fewer =
            |(counter, before): (&Counter, &u64)| later.counters.get(counter) < Some(before);
        let restarted = earlier.iter().any(fewer);
        let mut tally = Tally::default();
        for (counter, now) in &later.counters {
            let before = earlier.get(counter).filter(|_| !restarted).copied().unwrap_or_default();
            tally.add(counter, now - before, *now);
        }
        let count =
            |count| Count { count, per_second: seconds.map(|seconds| rate(count, seconds)) };
        let mut errors: Vec<_> = tally.errors.into_iter().filter(|(_, calls)| *calls > 0).collect();
        errors.sort_by_key(|(_, calls)| std::cmp::Reverse(*calls));
        let decisions = tally.all.allowed.saturating_add(tally.all.denied);
        let share = |part| if decisions == 0 { 0.0 } else { rate(part, real(decisions)) };
        let shed = |scope| count(tally.shed.get(scope).copied().unwrap_or_default());
        Self {
            time,
            seconds,
            restarted,
            state: later.state.clone(),
            all: tally.all.flow(count),
            rpcs: (tally.rpcs.iter())
                .map(|(rpc, flow)| RpcFlow {
                    rpc: rpc.clone(),
                    known: flow.known,
                    flow: flow.flow(count),
                })
                .collect(),
            reasons: (tally.reasons.into_iter())
                .map(|(reason, part)| ReasonCount {
                    reason: reason.into_name(),
                    count: count(part),
                    share: share(part),
                })
                .collect(),
            errors: (errors.into_iter())
                .map(|(code, calls)| CodeCount { code, count: count(calls) })
                .collect(),
            shed: Shed { global: shed("global"), peer: shed("peer") },
        }
    }
}

/// Accumulates the counts of an interval.
#[derive(Default)]
struct Tally {
    all: FlowTally,
    rpcs: BTreeMap<String, FlowTally>,
    reasons: BTreeMap<ReasonName, u64>,
    errors: BTreeMap<String, u64>,
    shed: BTreeMap<String, u64>,
}

#[derive(Default)]
struct FlowTally {
    known: bool,
    calls: u64,
    failed: u64,
    allowed: u64,
    denied: u64,
    /// The cumulative histogram: calls by the upper bound of their bucket, in nanoseconds.
    within: BTreeMap<u64, u64>,
}

impl Tally {
    /// Adds `more` to a counter whose total since the server's start is `total`.
    fn add(&mut self, counter: &Counter, more: u64, total: u64) {
        match counter {
            Counter::Calls { rpc, code } => {
                let failed = if code == "OK" { 0 } else { more };
                let flow = self.rpcs.entry(rpc.clone()).or_default();
                flow.known |= total > 0;
                for flow in [flow, &mut self.all] {
                    add(&mut flow.calls, more);
                    add(&mut flow.failed, failed);
                }
                add(self.errors.entry(code.clone()).or_default(), failed);
            }
            Counter::Decisions { rpc, allowed } => {
                for flow in [self.rpcs.entry(rpc.clone()).or_default(), &mut self.all] {
                    add(if *allowed { &mut flow.allowed } else { &mut flow.denied }, more);
                }
            }
            Counter::Reasons { reason, .. } => {
                add(self.reasons.entry(reason.clone()).or_default(), more);
            }
            Counter::Within { rpc, nanos } => {
                let flow = self.rpcs.entry(rpc.clone()).or_default();
                add(flow.within.entry(*nanos).or_default(), more);
                // A stream's duration depends on its client, so it is not a latency of the server.
                if rpc != Rpc::STREAM_CHECK.name() {
                    add(self.all.within.entry(*nanos).or_default(), more);
                }
            }
            Counter::Shed { scope } => add(self.shed.entry(scope.clone()).or_default(), more),
        }
    }
}

/// Saturates: the numbers come from another process.
fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

impl FlowTally {
    fn flow(&self, count: impl Fn(u64) -> Count) -> Flow {
        let quantile = |part| quantile(&self.within, part);
        Flow {
            calls: count(self.calls),
            failed: count(self.failed),
            decisions: count(self.allowed.saturating_add(self.denied)),
            allowed: count(self.allowed),
            denied: count(self.denied),
            latency_seconds: Latency {
                p50: quantile(0.5),
                p90: quantile(0.9),
                p99: quantile(0.99),
                p99_9: quantile(0.999),
            },
        }
    }
}

/// A quantile of a cumulative histogram whose last bucket is unbounded, by linear interpolation within the
/// bucket. `None` without calls.
fn quantile(within: &BTreeMap<u64, u64>, part: f64) -> Option<Quantile> {
    let (_, calls) = within.last_key_value().filter(|(_, calls)| **calls > 0)?;
    let rank = part * real(*calls);
    let (mut bound_below, mut calls_below) = (0, 0);
    for (bound, calls) in within {
        // The first bucket with calls that reaches the rank.
        if real(*calls) >= rank && *calls > calls_below {
            let floor = real(bound_below) / 1e9;
            if *bound == u64::MAX {
                return Some(Quantile { seconds: floor, beyond: true });
            }
            let share = (rank - real(calls_below)) / real(calls - calls_below);
            let seconds = floor + real(bound - bound_below) / 1e9 * share;
            return Some(Quantile { seconds, beyond: false });
        }
        // A cumulative count does not decrease; if one does, its bucket counts as empty.
        (bound_below, calls_below) = (*bound, calls_below.max(*calls));
    }
    None
}

fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { real(count) / seconds } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "nobody reads 16 digits of a rate")]
fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
