//! The engine against the naive model, against itself in other shapes, and against rules that hold
//! whatever the policy says.
//!
//! `PROPTEST_CASES` sets how many worlds each property draws; a failure prints its seed and
//! shrinks. What compares with the naive model counts what it compared: see `--nocapture`.

mod answers;
mod changes;
mod exhaustive;
mod pages;
mod paths;
mod reach;
mod rules;
mod shapes;
