//! The questions, each answered from one snapshot at one time (section 5 of the contract).
//!
//! **Invariant**: everything here reads; nothing here can change a snapshot, which offers reads only.

pub(crate) mod access;
mod batch;
pub(crate) mod capabilities;
pub(crate) mod check;
pub(crate) mod conditional;
pub(crate) mod explain;
pub(crate) mod held;
pub(crate) mod list;
pub(crate) mod objects;
mod resources;
pub(crate) mod scan;
pub(crate) mod self_check;
