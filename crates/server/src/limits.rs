//! Every limit of the server, in one place. Those of documents and paths are constants of the
//! crates that keep them. Each has a test of its own.

use std::time::Duration;

/// Most bytes of a decision message, in and out (contract, section 7).
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most checks in a batch (contract, section 5).
pub const BATCH_CHECKS_MAX: usize = 1_000;
/// Most streams at once on one connection (contract, section 7). tonic's default is no limit.
pub const CONNECTION_STREAMS_MAX: u32 = 256;
/// Most bytes of a request's headers (contract, section 7).
pub const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// Entries in a page if the request does not say (contract, section 7).
pub const PAGE_DEFAULT: usize = 100;
/// Most entries in a page; a larger wish is served as this (contract, section 7).
pub const PAGE_MAX: usize = 1_000;
/// Longest wait for a revision that is not held yet.
pub const REVISION_WAIT_MAX: Duration = Duration::from_millis(250);
/// Snapshots that are kept for lists to go on with, the current one among them. Each is as large as
/// the policy.
pub const SNAPSHOTS_KEPT: usize = 3;
/// Silence on a connection after which the peer must show that it is there: vanished peers would
/// hold streams, tasks and the drain.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// Longest wait for that.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// From the signal to the exit, at most; peers that are not done by then are cut off.
pub const DRAIN_MAX: Duration = Duration::from_secs(9);
/// Identities whose answers are compared with the rules before a snapshot may serve.
pub const SELF_CHECK_IDENTITIES: usize = 256;
/// Longest wait of the command line for a connection to a server.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait of the command line for an answer.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
