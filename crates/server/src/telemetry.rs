//! What the server reports about its work: metrics, traces, the decision log.
//!
//! ```text
//!          ┌─▶ metrics: counters of each worker, summed at a scrape ─▶ /metrics
//! a call ──┼─▶ traces: a bounded queue of spans ─▶ OTLP exporter
//!          └─▶ decision log: a bounded queue of lines ─▶ writer thread ─▶ FILE or standard output
//! ```
//!
//! **Invariants**: no call waits for telemetry, and no call fails because of it. Every queue is
//! bounded; beyond the bound spans and lines are lost.
//!
//! Read `metrics` first, then `decision_log` with `line` and `writer`, then `traces`.

pub mod decision_log;
pub mod metrics;
pub mod traces;
