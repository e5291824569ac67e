//! Load: worlds to measure on, what measures, and what it is measured against.
//!
//! ```text
//! workload, policy or file ──▶ questions ──▶ load ──▶ report, plot
//!                (encoded once)   h2 frames, client │     ▲
//!                                                   ▼     │ CPU of /proc
//!                                   a server, or the one started for it; the yardstick beside it
//! ```
//!
//! **Invariant**: what measures costs little and says how much: frames are encoded before the clock
//! starts, and the generator's own CPU stands in every report.

pub mod against;
pub mod child;
pub mod cpu;
pub mod do_nothing;
pub mod load;
pub mod plot;
pub mod questions;
pub mod report;
pub mod workload;
