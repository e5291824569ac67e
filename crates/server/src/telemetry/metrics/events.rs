//! Metrics of events that are delivered to sinks.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::count;

/// What became of one attempt to deliver an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventOutcome {
    /// The sink took it.
    Delivered,
    /// It is tried again later.
    Failed,
    /// The sink may not be connected to. It is tried again later.
    Refused,
    /// The sink wants nothing any more.
    Gone,
    /// It could not be made, and is lost.
    Dropped,
}

impl EventOutcome {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Delivered, "delivered"),
        (Self::Failed, "failed"),
        (Self::Refused, "refused"),
        (Self::Gone, "gone"),
        (Self::Dropped, "dropped"),
    ];
}

/// The counters of events.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// One for each of [`EventOutcome::ALL`].
    outcomes: [AtomicU64; EventOutcome::ALL.len()],
    subscriptions: AtomicU64,
}

impl super::Metrics {
    /// Counts an attempt to deliver an event.
    pub(crate) fn event(&self, outcome: EventOutcome) {
        if let Some(counter) = self.events.outcomes.get(outcome as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Sets the number of subscriptions that are enabled.
    pub(crate) fn subscriptions(&self, enabled: usize) {
        self.events.subscriptions.store(enabled as u64, Relaxed);
    }
}

impl Events {
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Attempts to deliver an event to a sink, by what became of them.";
        let mut family = encoder.encode_descriptor("events", help, None, MetricType::Counter)?;
        for ((_, name), outcome) in EventOutcome::ALL.into_iter().zip(&self.outcomes) {
            count(&mut family, [("outcome", name)], outcome.load(Relaxed))?;
        }
        let help = "Subscriptions that are enabled.";
        encoder
            .encode_descriptor("subscriptions", help, None, MetricType::Gauge)?
            .encode_gauge(&self.subscriptions.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_in_the_order_of_their_numbers() {
        for (at, (outcome, _)) in EventOutcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, at);
        }
    }
}
