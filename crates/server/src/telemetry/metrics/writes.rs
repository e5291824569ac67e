//! Metrics of a store: changes that were asked for, and commits.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::{count, nanos, seconds};

/// Upper bounds of the buckets of commits, in nanoseconds. A commit waits for the disk twice.
const COMMIT_NANOS: [u64; 10] = [
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    5_000_000_000,
];

/// What became of a change that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    /// It was made, or everything was as asked already.
    Made,
    /// It was refused: by the rules, by a quota, or because a field is malformed.
    Refused,
    /// The store did not take it, or it is not known whether it did.
    Failed,
}

impl WriteOutcome {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Made, "made"), (Self::Refused, "refused"), (Self::Failed, "failed")];
}

/// The counters of a store.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// One for each of [`WriteOutcome::ALL`].
    outcomes: [AtomicU64; WriteOutcome::ALL.len()],
    /// One for each of [`COMMIT_NANOS`], not cumulative.
    faster: [AtomicU64; COMMIT_NANOS.len()],
    /// Commits above the last bound.
    slower: AtomicU64,
    nanos: AtomicU64,
    failed_commits: AtomicU64,
    audit_records: AtomicU64,
}

impl super::Metrics {
    /// Counts changes that were asked for.
    pub(crate) fn wrote(&self, outcome: WriteOutcome, changes: u64) {
        if let Some(counter) = self.writes.outcomes.get(outcome as usize) {
            counter.fetch_add(changes, Relaxed);
        }
    }

    /// Counts a commit.
    pub(crate) fn committed(&self, took: Duration, made: bool) {
        let (writes, took) = (&self.writes, nanos(took));
        if !made {
            writes.failed_commits.fetch_add(1, Relaxed);
        }
        let faster = COMMIT_NANOS.iter().zip(&writes.faster).find(|(most, _)| took <= **most);
        faster.map_or(&writes.slower, |(_, counter)| counter).fetch_add(1, Relaxed);
        writes.nanos.fetch_add(took, Relaxed);
    }

    /// Sets the number of audit records that are kept.
    pub(crate) fn audited(&self, records: u64) {
        self.writes.audit_records.store(records, Relaxed);
    }
}

impl Writes {
    /// A server with a policy file has none of these, which are all zero there.
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Changes of the policy that were asked for, by what became of them.";
        let mut family = encoder.encode_descriptor("writes", help, None, MetricType::Counter)?;
        for ((_, name), outcome) in WriteOutcome::ALL.into_iter().zip(&self.outcomes) {
            count(&mut family, [("outcome", name)], outcome.load(Relaxed))?;
        }
        let help = "Commits that the store did not make, or of which it is not known.";
        encoder
            .encode_descriptor("failed_commits", help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, u64, f64>(&self.failed_commits.load(Relaxed), None)?;
        let help = "Time of a commit, which many changes may share.";
        let (unit, kind) = (Some(&Unit::Seconds), MetricType::Histogram);
        let mut family = encoder.encode_descriptor("commit_duration", help, unit, kind)?;
        let ends = COMMIT_NANOS.iter().map(|most| seconds(*most)).chain([f64::INFINITY]);
        let counts = self.faster.iter().chain([&self.slower]).map(|counter| counter.load(Relaxed));
        let buckets: Vec<_> = ends.zip(counts).collect();
        let total = buckets.iter().map(|(_, count)| count).sum();
        let sum = seconds(self.nanos.load(Relaxed));
        family.encode_histogram::<NoLabelSet>(sum, total, &buckets, None)?;
        let help = "Audit records that are kept.";
        encoder
            .encode_descriptor("audit_records", help, None, MetricType::Gauge)?
            .encode_gauge(&self.audit_records.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_in_the_order_of_their_numbers() {
        for (at, (outcome, _)) in WriteOutcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, at);
        }
    }
}
