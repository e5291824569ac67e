//! Tests of the server from outside, in one binary: linking is slower than running them.

mod common;

mod cli;
mod golden;
mod layout;
mod lifecycle;
mod python;
mod rpc;
mod worlds;
