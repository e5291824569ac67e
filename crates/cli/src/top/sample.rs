//! One scrape of a server's metrics: counters since its start, and gauges.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use capstan_engine::{Reason, Timestamp};
use capstan_policy::format_timestamp;
use serde::{Serialize, Serializer};

use super::exposition::{self, Series};

/// One scrape.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    /// Counters: they only grow during the server's life.
    pub(super) counters: BTreeMap<Counter, u64>,
    pub(super) state: State,
}

/// A counter. Names are those that the server sends; a server of another version may have further RPCs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Counter {
    /// Calls that ended with this code.
    Calls { rpc: String, code: String },
    /// Decisions, allowed or not.
    Decisions { rpc: String, allowed: bool },
    /// Decisions for this reason.
    Reasons { rpc: String, reason: ReasonName },
    /// Calls that took at most this long: a bucket of the cumulative histogram.
    Within { rpc: String, nanos: u64 },
    /// Calls or connections that this limit refused.
    Shed { scope: String },
}

/// The name of a reason. Ordered by the engine's precedence; unknown names come last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ReasonName(usize, String);

impl ReasonName {
    pub(super) fn into_name(self) -> String {
        self.1
    }

    fn new(name: &str) -> Self {
        let known = Reason::ALL.into_iter().position(|reason| reason.as_str() == name);
        Self(known.unwrap_or(Reason::ALL.len()), name.into())
    }
}

/// Gauges, and counters that are not shown as rates.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct State {
    pub(super) version: String,
    pub(super) revision: u64,
    pub(super) identities: u64,
    pub(super) role_bindings: u64,
    pub(super) in_flight: u64,
    /// Total since the server's start.
    pub(super) panics: u64,
    pub(super) loads: Loads,
}

/// Loads of the policy since the server's start.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Loads {
    pub(super) applied: u64,
    pub(super) rejected: u64,
    /// Time of the last applied load.
    #[serde(serialize_with = "time")]
    pub(super) last_applied: Option<Timestamp>,
    /// Time of the last rejected load.
    #[serde(serialize_with = "time")]
    pub(super) last_rejected: Option<Timestamp>,
    /// Duration of the last load, applied or rejected.
    pub(super) last_seconds: f64,
}

fn time<S: Serializer>(time: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    time.and_then(format_timestamp).serialize(to)
}

impl Sample {
    /// Parses the text of a server's `/metrics`.
    ///
    /// # Errors
    ///
    /// The text is malformed, or is that of another program.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let all = exposition::parse(text)?;
        let mut sample = Self { counters: BTreeMap::new(), state: State::default() };
        let mut is_capstan = false;
        for series in &all {
            is_capstan |= series.name == "capstan_build_info";
            sample.read(series).with_context(|| format!("`{}`", series.name))?;
        }
        if !is_capstan {
            bail!("these are metrics, but not of a Capstan server");
        }
        Ok(sample)
    }

    fn read(&mut self, series: &Series<'_>) -> anyhow::Result<()> {
        let label = |name: &str| {
            series.label(name).map(str::to_owned).with_context(|| format!("no label `{name}`"))
        };
        let counter = match series.name {
            "capstan_requests_total" => Counter::Calls { rpc: label("rpc")?, code: label("code")? },
            "capstan_decisions_total" => {
                Counter::Decisions { rpc: label("rpc")?, allowed: label("allowed")? == "true" }
            }
            "capstan_decision_reasons_total" => {
                let reason = ReasonName::new(&label("reason")?);
                Counter::Reasons { rpc: label("rpc")?, reason }
            }
            "capstan_request_duration_seconds_bucket" => {
                let seconds: f64 = label("le")?.parse().context("`le` is no number")?;
                Counter::Within { rpc: label("rpc")?, nanos: nanos(seconds) }
            }
            "capstan_shed_total" => Counter::Shed { scope: label("scope")? },
            _ => return self.read_state(series),
        };
        self.counters.insert(counter, count(series.value)?);
        Ok(())
    }

    fn read_state(&mut self, series: &Series<'_>) -> anyhow::Result<()> {
        let State { loads, .. } = &mut self.state;
        let outcome = series.label("outcome");
        let value = count(series.value).unwrap_or_default();
        let time = i64::try_from(value).ok().filter(|seconds| *seconds > 0);
        let time = time.map(|seconds| Timestamp::new(seconds, 0));
        match (series.name, outcome) {
            ("capstan_loads_total", Some("applied")) => loads.applied = value,
            ("capstan_loads_total", Some("rejected")) => loads.rejected = value,
            ("capstan_last_load_timestamp_seconds", Some("applied")) => loads.last_applied = time,
            ("capstan_last_load_timestamp_seconds", Some("rejected")) => loads.last_rejected = time,
            ("capstan_load_duration_seconds", _) => loads.last_seconds = series.value,
            ("capstan_panics_total", _) => self.state.panics = value,
            ("capstan_in_flight", _) => self.state.in_flight = value,
            ("capstan_snapshot_revision", _) => self.state.revision = value,
            ("capstan_snapshot_identities", _) => self.state.identities = value,
            ("capstan_snapshot_role_bindings", _) => self.state.role_bindings = value,
            ("capstan_build_info", _) => {
                self.state.version = series.label("version").unwrap_or_default().into();
            }
            // A series of a later version, or one that is not needed here.
            _ => {}
        }
        Ok(())
    }
}

/// A count: a whole number that is not negative.
fn count(value: f64) -> anyhow::Result<u64> {
    // The fraction of an infinity or NaN is NaN, which differs from 0.
    if value < 0.0 || value.fract() != 0.0 {
        bail!("{value} is no count");
    }
    Ok(saturated(value))
}

/// Seconds in nanoseconds; infinity becomes `u64::MAX`.
fn nanos(seconds: f64) -> u64 {
    saturated((seconds * 1e9).round())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
const fn saturated(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Sample {
        /// The sample of these lines, from a Capstan server.
        pub(in crate::top) fn of(lines: &str) -> Self {
            let end = if lines.is_empty() || lines.ends_with('\n') { "" } else { "\n" };
            let build = "capstan_build_info{version=\"0.1.0\"} 1";
            Self::parse(&format!("{build}\n{lines}{end}# EOF\n")).unwrap()
        }
    }

    /// Every series of our own server is parsed, each once.
    #[test]
    fn the_servers_own_text_is_understood() {
        use capstan_server::methods::Rpc;
        use capstan_server::telemetry::metrics::{Format, registry, scrape};
        use capstan_server::telemetry::metrics::{LoadOutcome, Metrics, ShedScope, WorkerMetrics};
        use std::time::Duration;

        let metrics = std::sync::Arc::new(Metrics::default());
        metrics.began();
        let [one, other] = [(); 2].map(|()| WorkerMetrics::new(&metrics));
        one.ended(Rpc::CHECK, tonic::Code::Ok, Duration::from_micros(60));
        other.ended(Rpc::CHECK, tonic::Code::NotFound, Duration::from_secs(2));
        one.decided(Rpc::CHECK, Reason::Granted, 1);
        other.decided(Rpc::CHECK, Reason::Granted, 2);
        one.decided(Rpc::EXPLAIN, Reason::Expired, 2);
        metrics.shed(ShedScope::Peer);
        metrics.panicked();
        let time = |seconds| Timestamp::new(seconds, 0);
        metrics.loaded(LoadOutcome::Applied, time(100), Duration::from_millis(3), None);
        metrics.loaded(LoadOutcome::Rejected, time(200), Duration::from_millis(5), None);
        let sample =
            Sample::parse(&scrape(&registry(&metrics), Format::OpenMetrics).unwrap()).unwrap();

        let nonzero = sample.counters.into_iter().filter(|(_, count)| *count > 0);
        let nonzero: Vec<_> = nonzero.collect();
        let (check, explain) = (|| "Check".to_owned(), || "Explain".to_owned());
        let calls = |code: &str| Counter::Calls { rpc: check(), code: code.into() };
        let mut expected = vec![
            (calls("NOT_FOUND"), 1),
            (calls("OK"), 1),
            (Counter::Decisions { rpc: check(), allowed: true }, 3),
            (Counter::Decisions { rpc: explain(), allowed: false }, 2),
            (Counter::Reasons { rpc: check(), reason: ReasonName::new("GRANTED") }, 3),
            (Counter::Reasons { rpc: explain(), reason: ReasonName::new("EXPIRED") }, 2),
        ];
        let bounds = [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000];
        let bounds = bounds.into_iter().chain([250_000, 1_000_000]).map(|micros| micros * 1_000);
        let within = |nanos| Counter::Within { rpc: check(), nanos };
        expected.extend(bounds.map(|nanos| (within(nanos), 1)));
        expected.push((within(u64::MAX), 2));
        expected.push((Counter::Shed { scope: "peer".into() }, 1));
        assert_eq!(nonzero, expected);
        let loads = Loads {
            applied: 1,
            rejected: 1,
            last_applied: Some(time(100)),
            last_rejected: Some(time(200)),
            last_seconds: 0.005,
        };
        let version = env!("CARGO_PKG_VERSION").into();
        let state = State { version, in_flight: 1, panics: 1, loads, ..State::default() };
        assert_eq!(sample.state, state);
    }

    #[test]
    fn invalid_counts_and_other_programs_are_errors() {
        for (line, problem) in [
            ("capstan_shed_total{scope=\"peer\"} -1", "`capstan_shed_total`: -1 is no count"),
            ("capstan_shed_total{scope=\"peer\"} 0.5", "`capstan_shed_total`: 0.5 is no count"),
            ("capstan_shed_total{scope=\"peer\"} NaN", "`capstan_shed_total`: NaN is no count"),
            ("capstan_shed_total 1", "`capstan_shed_total`: no label `scope`"),
            ("up 1", "these are metrics, but not of a Capstan server"),
            ("<html>", "line 1: no name"),
        ] {
            let error = Sample::parse(&format!("{line}\n# EOF\n")).unwrap_err();
            assert_eq!(format!("{error:#}"), problem);
        }
        assert!(Sample::of("later_metric{of=\"another version\"} 1").counters.is_empty());
    }
}
