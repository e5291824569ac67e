//! Worlds for benchmarks, a yardstick for comparison, a counting allocator, and a clock.
//!
//! ```text
//! worlds ──▶ facts, questions ─┬─▶ engine     criterion (engine.rs, wire.rs), scaling (curves/),
//!                              └─▶ yardstick  loading (loading/), counted instructions (instructions.rs), tests
//! ```
//!
//! **Invariant**: every world and question is a function of its sizes, so that figures of different days are
//! comparable.

pub mod clock;
pub mod counting;
pub mod worlds;
pub mod yardstick;
