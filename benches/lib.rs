//! Worlds for benchmarks, a yardstick for comparison, a counting allocator, a clock, and replayed calls.
//!
//! ```text
//! worlds ──▶ facts, questions ─┬─▶ engine     criterion (engine.rs, wire.rs), scaling (curves/),
//!                              ├─▶ yardstick  loading (loading/), counted instructions (instructions.rs), tests
//!                              └─▶ replay     a server in this thread: instructions and allocations of a call
//! ```
//!
//! **Invariant**: every world and question is a function of its sizes, so that figures of different days are
//! comparable.

pub mod clock;
pub mod counting;
pub mod replay;
pub mod started;
pub mod worlds;
pub mod yardstick;
