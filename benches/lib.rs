//! Worlds for benchmarks, a yardstick for comparison, and a counting allocator.
//!
//! ```text
//! worlds ──▶ facts, questions ─┬─▶ engine     criterion (engine.rs, wire.rs), scaling (curves/),
//!                              └─▶ yardstick  counted instructions (instructions.rs), tests
//! ```
//!
//! **Invariant**: every world and question is a function of its sizes, so that figures of different days are
//! comparable.

pub mod counting;
pub mod worlds;
pub mod yardstick;
