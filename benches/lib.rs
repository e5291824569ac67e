//! Worlds to measure on, what answers are held against, and an allocator that counts.
//!
//! ```text
//! worlds ──▶ facts, questions ─┬─▶ engine     criterion (engine.rs, wire.rs), scaling (curves/),
//!                              └─▶ yardstick  counted instructions (instructions.rs), tests
//! ```
//!
//! **Invariant**: every world and question is a function of its sizes, so that figures of different
//! days are of the same thing.

pub mod counting;
pub mod worlds;
pub mod yardstick;
