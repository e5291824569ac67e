//! Metrics for Prometheus: calls, decisions, latencies, shed calls, loads.
//!
//! **Invariants**: every label set is closed: an RPC of the table or `other`, a gRPC code, a
//! reason, `true` or `false`. No text of a caller becomes a label, so no caller can add a series. A
//! call costs a few relaxed atomic additions; a scrape makes names and text.

mod credentials;
mod events;
mod shed;
mod text;
mod tls;
mod writes;

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use capstan_engine::{Reason, Snapshot, Timestamp};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, MetricEncoder, NoLabelSet, text as open_metrics,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use tonic::Code;

use crate::clock;
use crate::methods::Rpc;

pub(crate) use credentials::AskerRefusal;
use credentials::CredentialCounts;
pub(crate) use events::EventOutcome;
use shed::ShedCounts;
pub use shed::ShedScope;
pub use text::Format;
use tls::TlsCounts;
pub(crate) use writes::WriteOutcome;

/// Upper bounds of the latency buckets, in nanoseconds. A decision takes microseconds, and the
/// deadline of a call that waits is one second.
const LATENCY_NANOS: [u64; 14] = [
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
];

/// Names of the gRPC codes, by number.
pub const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The outcome of a request that Envoy asked about, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthorizationOutcome {
    /// The request may pass.
    Allowed,
    /// The policy denies the request.
    Denied,
    /// No route says what the request requires.
    NoRoute,
    /// No identity is proved.
    Unauthenticated,
    /// The request is malformed: no route and no policy can allow it.
    Malformed,
    /// The request cannot be decided now.
    Unavailable,
}

impl AuthorizationOutcome {
    pub(crate) const ALL: [Self; 6] = [
        Self::Allowed,
        Self::Denied,
        Self::NoRoute,
        Self::Unauthenticated,
        Self::Malformed,
        Self::Unavailable,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::NoRoute => "no_route",
            Self::Unauthenticated => "unauthenticated",
            Self::Malformed => "malformed",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The outcome of a load of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadOutcome {
    /// The new document is served.
    Applied,
    /// The document is rejected; the earlier one, if any, is still served.
    Rejected,
}

/// All metrics of one server.
#[derive(Debug, Default)]
pub struct Metrics {
    /// The counters of each worker.
    workers: Mutex<Vec<Arc<WorkerCounts>>>,
    in_flight: AtomicU64,
    /// Bytes held for peers. The budget of bytes counts here.
    pub(crate) held_bytes: AtomicUsize,
    shed: ShedCounts,
    panics: AtomicU64,
    log_written: AtomicU64,
    log_lost: AtomicU64,
    /// One for each of [`AuthorizationOutcome::ALL`].
    authorized: [AtomicU64; AuthorizationOutcome::ALL.len()],
    loads_applied: AtomicU64,
    loads_rejected: AtomicU64,
    routes_applied: AtomicU64,
    routes_rejected: AtomicU64,
    /// Whether the last load was rejected: of the policy, the routes, the certificates, the callers, the keys of issuers.
    stale: [AtomicBool; 5],
    tls: TlsCounts,
    credentials: CredentialCounts,
    load_nanos: AtomicU64,
    /// Time of the last applied load of the policy, in seconds since 1970; 0 if none.
    applied_at: AtomicU64,
    /// Time of the last rejected load of the policy, in seconds since 1970; 0 if none.
    rejected_at: AtomicU64,
    revision: AtomicU64,
    identities: AtomicU64,
    bindings: AtomicU64,
    writes: writes::Writes,
    events: events::Events,
}

/// The counters of one worker. No other core writes to them; a scrape adds the workers up. The
/// alignment keeps two workers' counters out of cache lines that a processor fetches as a pair.
#[derive(Debug)]
#[repr(align(128))]
struct WorkerCounts([RpcCounts; Rpc::COUNT]);

impl Default for WorkerCounts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| RpcCounts::default()))
    }
}

/// The metrics of one worker, and through `Deref` those of the server.
#[derive(Clone, Debug)]
pub struct WorkerMetrics {
    own: Arc<WorkerCounts>,
    all: Arc<Metrics>,
}

impl Deref for WorkerMetrics {
    type Target = Metrics;

    fn deref(&self) -> &Metrics {
        &self.all
    }
}

/// The counters of one RPC.
#[derive(Debug, Default)]
struct RpcCounts {
    codes: [AtomicU64; CODES.len()],
    /// One for each of [`Reason::ALL`]. `Granted` counts as allowed, every other reason as denied.
    reasons: [AtomicU64; Reason::ALL.len()],
    /// One for each of [`LATENCY_NANOS`], not cumulative.
    faster: [AtomicU64; LATENCY_NANOS.len()],
    /// Calls above the last bound, and the sum of all latencies in nanoseconds.
    slower_and_nanos: [AtomicU64; 2],
}

impl WorkerMetrics {
    /// Registers one more worker.
    pub fn new(all: &Arc<Metrics>) -> Self {
        let own = Arc::<WorkerCounts>::default();
        all.workers().push(Arc::clone(&own));
        Self { own, all: Arc::clone(all) }
    }

    fn calls(&self, rpc: Rpc) -> Option<&RpcCounts> {
        self.own.0.get(rpc.index())
    }

    /// Counts a call that ended: answered, failed or cancelled.
    pub fn ended(&self, rpc: Rpc, code: Code, took: Duration) {
        let Some(calls) = self.calls(rpc) else { return };
        if let Some(count) = calls.codes.get(code as usize) {
            count.fetch_add(1, Relaxed);
        }
        let nanos = nanos(took);
        let [slower, sum] = &calls.slower_and_nanos;
        let faster = LATENCY_NANOS.iter().zip(&calls.faster).find(|(most, _)| nanos <= **most);
        faster.map_or(slower, |(_, count)| count).fetch_add(1, Relaxed);
        sum.fetch_add(nanos, Relaxed);
    }

    /// Counts decisions of one reason: a single one, or those of a batch that share it.
    pub fn decided(&self, rpc: Rpc, reason: Reason, decisions: u64) {
        let count = self.calls(rpc).and_then(|calls| calls.reasons.get(reason as usize));
        if let Some(count) = count {
            count.fetch_add(decisions, Relaxed);
        }
    }
}

impl Metrics {
    fn workers(&self) -> MutexGuard<'_, Vec<Arc<WorkerCounts>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call that acquired its permit: it is in flight.
    pub fn began(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// Counts a call that released its permit.
    pub(crate) fn left(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// Counts an answered request of Envoy.
    pub(crate) fn authorized(&self, how: AuthorizationOutcome) {
        if let Some(count) = self.authorized.get(how as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Counts a panic of a call.
    pub fn panicked(&self) {
        self.panics.fetch_add(1, Relaxed);
    }

    /// Counts lines that were written to the decision log, and lines that were lost.
    pub(crate) fn logged(&self, written: u64, lost: u64) {
        self.log_written.fetch_add(written, Relaxed);
        self.log_lost.fetch_add(lost, Relaxed);
    }

    /// Counts a load of the route table.
    pub(crate) fn routes_loaded(&self, outcome: LoadOutcome) {
        let count = match outcome {
            LoadOutcome::Applied => &self.routes_applied,
            LoadOutcome::Rejected => &self.routes_rejected,
        };
        count.fetch_add(1, Relaxed);
        self.stale[1].store(outcome == LoadOutcome::Rejected, Relaxed);
    }

    /// Notes a load of the callers.
    pub(crate) fn callers_loaded(&self, outcome: LoadOutcome) {
        self.stale[3].store(outcome == LoadOutcome::Rejected, Relaxed);
    }

    /// Notes a load of the keys of trusted issuers.
    pub(crate) fn issuers_loaded(&self, outcome: LoadOutcome) {
        self.stale[4].store(outcome == LoadOutcome::Rejected, Relaxed);
    }

    /// Counts a load of the policy. `at` is when it ended and `took` how long it took. `served` is
    /// the new snapshot if the load was applied, else `None`.
    pub fn loaded(
        &self,
        outcome: LoadOutcome,
        at: Timestamp,
        took: Duration,
        served: Option<&Snapshot>,
    ) {
        let (count, last) = match outcome {
            LoadOutcome::Applied => (&self.loads_applied, &self.applied_at),
            LoadOutcome::Rejected => (&self.loads_rejected, &self.rejected_at),
        };
        count.fetch_add(1, Relaxed);
        self.stale[0].store(outcome == LoadOutcome::Rejected, Relaxed);
        last.store(at.seconds().try_into().unwrap_or_default(), Relaxed);
        self.load_nanos.store(nanos(took), Relaxed);
        if let Some(snapshot) = served {
            self.serves(snapshot);
        }
    }

    /// Says which snapshot is served.
    pub(crate) fn serves(&self, snapshot: &Snapshot) {
        self.revision.store(snapshot.revision(), Relaxed);
        self.identities.store(snapshot.identities_len() as u64, Relaxed);
        self.bindings.store(snapshot.bindings_len() as u64, Relaxed);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

// === To Prometheus ===

/// The registry that `/metrics` scrapes.
pub fn registry(metrics: &Arc<Metrics>) -> Registry {
    let mut registry = Registry::with_prefix("capstan");
    registry.register_collector(Box::new(Arc::clone(metrics)));
    registry
}

/// All metrics in this format.
///
/// # Errors
///
/// Writing to the string fails, which does not happen.
pub fn scrape(registry: &Registry, format: Format) -> Result<String, fmt::Error> {
    let mut all = String::new();
    open_metrics::encode(&mut all, registry)?;
    match format {
        Format::Text => text::from_open_metrics(&all),
        Format::OpenMetrics => Ok(all),
    }
}

/// The sums over all workers of one array of counters.
fn sums<const N: usize>(workers: &[&RpcCounts], of: fn(&RpcCounts) -> &[AtomicU64; N]) -> [u64; N] {
    let mut sums = [0; N];
    for counts in workers.iter().map(|calls| of(calls)) {
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count.load(Relaxed);
        }
    }
    sums
}

/// Encodes one counter of a family.
fn count<const N: usize>(
    family: &mut MetricEncoder<'_>,
    labels: [(&str, &str); N],
    count: u64,
) -> fmt::Result {
    let mut encoder = family.encode_family(&labels)?;
    encoder.encode_counter::<NoLabelSet, u64, f64>(&count, None)
}

#[expect(clippy::cast_precision_loss, reason = "a duration needs no 16 digits")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_calls(&mut encoder)?;
        self.encode_server(&mut encoder)
    }
}

impl Metrics {
    fn encode_calls(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let workers = self.workers().clone();
        // The counters of each RPC, one for each worker. There are many management methods, of which a server with a policy
        // file answers few: those are left out that nobody has called.
        let all = || {
            let all = Rpc::all().map(|rpc| {
                let calls = workers.iter().filter_map(|worker| worker.0.get(rpc.index()));
                (rpc, calls.collect::<Vec<_>>())
            });
            all.filter(|(rpc, calls)| {
                !rpc.manages() || sums(calls, |calls| &calls.codes).iter().any(|count| *count > 0)
            })
        };

        let help = "Calls that ended, by how.";
        let mut family = encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
        for (rpc, calls) in all() {
            for (code, ended) in CODES.iter().zip(sums(&calls, |calls| &calls.codes)) {
                count(&mut family, [("rpc", rpc.name()), ("code", code)], ended)?;
            }
        }

        let help = "Decisions, each one of a batch for itself.";
        let mut family = encoder.encode_descriptor("decisions", help, None, MetricType::Counter)?;
        for (rpc, calls) in all().filter(|(rpc, _)| rpc.decides()) {
            let (mut allowed, mut denied) = (0, 0);
            let reasons = sums(&calls, |calls| &calls.reasons);
            for (reason, decisions) in Reason::ALL.into_iter().zip(reasons) {
                let sum = if reason == Reason::Granted { &mut allowed } else { &mut denied };
                *sum += decisions;
            }
            count(&mut family, [("rpc", rpc.name()), ("allowed", "true")], allowed)?;
            count(&mut family, [("rpc", rpc.name()), ("allowed", "false")], denied)?;
        }

        let help = "Decisions by their reason, each one of a batch for itself.";
        let kind = MetricType::Counter;
        let mut family = encoder.encode_descriptor("decision_reasons", help, None, kind)?;
        for (rpc, calls) in all().filter(|(rpc, _)| rpc.decides()) {
            let reasons = sums(&calls, |calls| &calls.reasons);
            for (reason, decisions) in Reason::ALL.into_iter().zip(reasons) {
                let labels = [("rpc", rpc.name()), ("reason", reason.as_str())];
                count(&mut family, labels, decisions)?;
            }
        }

        let help = "Time from the request's head to the end of the answer.";
        let (unit, kind) = (Some(&Unit::Seconds), MetricType::Histogram);
        let mut family = encoder.encode_descriptor("request_duration", help, unit, kind)?;
        for (rpc, calls) in all() {
            let ends = LATENCY_NANOS.iter().map(|most| seconds(*most)).chain([f64::INFINITY]);
            let [slower, nanos] = sums(&calls, |calls| &calls.slower_and_nanos);
            let counts = sums(&calls, |calls| &calls.faster).into_iter().chain([slower]);
            let buckets: Vec<_> = ends.zip(counts).collect();
            let total = buckets.iter().map(|(_, count)| count).sum();
            let sum = seconds(nanos);
            family
                .encode_family(&[("rpc", rpc.name())])?
                .encode_histogram::<NoLabelSet>(sum, total, &buckets, None)?;
        }
        Ok(())
    }

    fn encode_server(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.shed.encode(encoder)?;

        let help = "Calls that panicked: each is a bug, and in the log.";
        encoder
            .encode_descriptor("panics", help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, u64, f64>(&self.panics.load(Relaxed), None)?;

        let help = "Lines of the decision log, if there is one, by what became of them.";
        let mut family =
            encoder.encode_descriptor("decision_log_lines", help, None, MetricType::Counter)?;
        count(&mut family, [("outcome", "written")], self.log_written.load(Relaxed))?;
        count(&mut family, [("outcome", "lost")], self.log_lost.load(Relaxed))?;

        let help = "Requests that Envoy asked about, by how they were answered.";
        let mut family =
            encoder.encode_descriptor("ext_authz_answers", help, None, MetricType::Counter)?;
        for (how, answered) in AuthorizationOutcome::ALL.into_iter().zip(&self.authorized) {
            count(&mut family, [("outcome", how.as_str())], answered.load(Relaxed))?;
        }

        let help = "Loads of the policy, by how they ended.";
        let mut family = encoder.encode_descriptor("loads", help, None, MetricType::Counter)?;
        count(&mut family, [("outcome", "applied")], self.loads_applied.load(Relaxed))?;
        count(&mut family, [("outcome", "rejected")], self.loads_rejected.load(Relaxed))?;

        let help = "Loads of the route table, by how they ended.";
        let mut family =
            encoder.encode_descriptor("route_loads", help, None, MetricType::Counter)?;
        count(&mut family, [("outcome", "applied")], self.routes_applied.load(Relaxed))?;
        count(&mut family, [("outcome", "rejected")], self.routes_rejected.load(Relaxed))?;

        self.tls.encode(encoder)?;
        self.credentials.encode(encoder)?;

        let help = "Whether the newest policy, routes, certificates, callers or keys of issuers are served: 0 if their last load was rejected.";
        let mut family =
            encoder.encode_descriptor("newest_served", help, None, MetricType::Gauge)?;
        let documents = ["policy", "routes", "certificates", "callers", "issuers"];
        for (document, stale) in documents.into_iter().zip(&self.stale) {
            let served = u64::from(!stale.load(Relaxed));
            family.encode_family(&[("document", document)])?.encode_gauge(&served)?;
        }

        let help = "When a load of the policy last ended so, since 1970; 0 if none has.";
        let (unit, kind) = (Some(&Unit::Seconds), MetricType::Gauge);
        let mut family = encoder.encode_descriptor("last_load_timestamp", help, unit, kind)?;
        for (outcome, at) in [("applied", &self.applied_at), ("rejected", &self.rejected_at)] {
            family.encode_family(&[("outcome", outcome)])?.encode_gauge(&at.load(Relaxed))?;
        }

        let help = "Time that the last load of the policy took.";
        encoder
            .encode_descriptor("load_duration", help, Some(&Unit::Seconds), MetricType::Gauge)?
            .encode_gauge(&seconds(self.load_nanos.load(Relaxed)))?;

        let help = "Bytes held for peers: of bodies that are not complete or not decoded, and of answers \
                    that are not read.";
        let held = u64::try_from(self.held_bytes.load(Relaxed)).unwrap_or(u64::MAX);
        encoder
            .encode_descriptor("held_bytes", help, None, MetricType::Gauge)?
            .encode_gauge(&held)?;

        let clock = clock::steps();
        let help = "How far the system clock is ahead of what the boot-time clock projects from before it was \
                    set; negative if it was set back, 0 if they agree.";
        encoder
            .encode_descriptor("clock_step", help, Some(&Unit::Seconds), MetricType::Gauge)?
            .encode_gauge(&clock.seconds)?;
        let help = "Times that the system clock was set, by the direction.";
        let mut family =
            encoder.encode_descriptor("clock_steps", help, None, MetricType::Counter)?;
        count(&mut family, [("direction", "forward")], clock.forward)?;
        count(&mut family, [("direction", "back")], clock.back)?;

        let gauges = [
            ("in_flight", "Calls being answered, open streams among them.", &self.in_flight),
            ("snapshot_revision", "Revision of the policy that is served.", &self.revision),
            ("snapshot_identities", "Identities registered in it.", &self.identities),
            ("snapshot_role_bindings", "Role bindings in it.", &self.bindings),
        ];
        for (name, help, value) in gauges {
            encoder
                .encode_descriptor(name, help, None, MetricType::Gauge)?
                .encode_gauge(&value.load(Relaxed))?;
        }

        self.writes.encode(encoder)?;
        self.events.encode(encoder)?;
        encoder
            .encode_descriptor("build", "What is running.", None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_in_the_order_of_their_numbers() {
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
        for (at, answered) in AuthorizationOutcome::ALL.into_iter().enumerate() {
            assert_eq!(answered as usize, at);
        }
        for (at, name) in CODES.iter().enumerate() {
            let code = Code::from(i32::try_from(at).unwrap());
            assert_eq!(code as usize, at);
            assert_eq!(format!("{code:?}").to_uppercase(), name.replace('_', ""));
        }
    }
}
