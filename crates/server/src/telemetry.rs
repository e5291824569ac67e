//! What the server tells about its work: metrics, traces, the decision log.
//!
//! **Invariant**: no call waits for telemetry, and none fails because of it.

pub mod decision_log;
pub mod metrics;
pub mod traces;
