//! Tests of the server from outside, in one binary: linking is slower than running them.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "all of this is test code, not only what stands in test functions"
)]

mod common;

mod cli;
mod golden;
mod layout;
mod lifecycle;
mod python;
mod rpc;
mod worlds;
