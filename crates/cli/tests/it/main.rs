//! Tests of the server from outside. They are in one binary because linking takes longer than running.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "all of this is test code, not only the test functions"
)]

mod common;

#[expect(dead_code, reason = "tests use only some of the limits")]
#[path = "../../src/limits.rs"]
mod command_limits;

mod askers;
mod authzen;
mod bench;
mod catalogs;
mod cli;
mod completion;
mod config;
mod coverage;
mod decision_log;
mod documents;
mod drain;
mod ext_authz;
mod foreign;
mod golden;
mod gzip;
mod iam;
mod kubernetes;
mod layout;
mod lifecycle;
mod limits;
mod listeners;
mod machine;
mod manage;
mod metrics;
mod node;
mod over;
mod overload;
mod python;
mod raw;
mod registry;
mod reload;
mod requests;
mod routes;
mod rpc;
mod secrets;
mod shapes;
mod store;
mod systemd;
mod tls;
mod tokens;
mod top;
mod traces;
mod transport;
mod worlds;
