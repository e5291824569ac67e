//! The questions, each answered from one snapshot at one time.
//!
//! **Invariant**: every answer here reads; nothing here changes a snapshot.

mod batch;
pub(crate) mod check;
pub(crate) mod list;
pub(crate) mod self_check;
