//! Load tests of a Capstan server: workloads, the load generator, and the yardstick that a server is
//! compared with.
//!
//! ```text
//! workload, policy or file ──▶ questions ──▶ load ──▶ report, plot
//!                (encoded once)   h2 frames, client │     ▲
//!                                                   ▼     │ CPU from /proc
//!                                   a server, given or started as a child; in turn the yardstick
//! ```
//!
//! Without the feature `load` only [`workload`] is here, which needs neither tonic nor tokio.
//!
//! **Invariant**: the generator costs little CPU and reports how much: requests are encoded before the
//! measurement starts, and every report holds the generator's own CPU.

#[cfg(feature = "load")]
pub mod against;
#[cfg(feature = "load")]
pub mod child;
#[cfg(feature = "load")]
pub mod cpu;
#[cfg(feature = "load")]
pub mod do_nothing;
#[cfg(feature = "load")]
pub mod figures;
#[cfg(feature = "load")]
pub mod load;
#[cfg(feature = "load")]
pub mod plot;
#[cfg(feature = "load")]
pub mod questions;
#[cfg(feature = "load")]
pub mod report;
pub mod workload;
