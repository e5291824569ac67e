//! The engine against the naive model, against its own answers to other questions, and against rules that
//! hold for every policy.
//!
//! `PROPTEST_CASES` sets the number of worlds of each property. A failure prints its seed and shrinks the
//! world. Comparisons with the naive model print their counts with `--nocapture`.

mod answers;
mod changes;
mod difference;
mod exhaustive;
mod held;
mod pages;
mod paths;
mod reach;
mod rules;
mod shapes;
