//! Tests of the journals from outside: against a naive model, and of stores in directories.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "all of this is test code, not only the test functions"
)]

mod backup;
mod common;
mod directory;
mod document;
mod full_disk;
mod golden;
mod limits;
mod model;
mod processes;
