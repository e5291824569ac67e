//! Every limit of the server, in one place. Those of documents and paths are constants of the
//! crates that keep them. Each has a test of its own, or a reason in `tests/it/coverage.rs` why not.

use std::num::NonZero;
use std::time::Duration;

/// Most bytes of a decision message, in and out (contract, section 7).
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most checks in a batch (contract, section 5).
pub const BATCH_CHECKS_MAX: usize = capstan_proto::contract::BATCH_CHECKS_MAX;
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
/// How long a revision is kept after it was replaced, for lists that began with it.
pub const KEPT_TIME: Duration = Duration::from_secs(60);
/// Most bytes of the index that all kept revisions hold together, beside the one that is served. The
/// oldest is freed first.
pub const KEPT_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// How long a policy file must not change before it is loaded again: whoever writes it may not be
/// done.
pub const SETTLE: Duration = Duration::from_millis(50);
/// The same for a file that is written in place, whose first half can be a policy, too.
pub const SETTLE_IN_PLACE: Duration = Duration::from_millis(250);
/// How long to wait for that at most. A file that is then still being written in place is left
/// alone, and looked at again.
pub const SETTLE_MAX: Duration = Duration::from_secs(1);
/// How often files are looked at though nothing was heard of them: what a symbolic link leads to
/// changes without a word, and a file that could not be read may be readable by now.
pub const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Longest time for a call that is not a stream. Nothing waits longer than [`REVISION_WAIT_MAX`] in
/// it: the rest is for a slow request.
pub const UNARY_TIME_MAX: Duration = Duration::from_secs(1);
/// A shorter `grpc-timeout` has passed when it arrives.
pub const TIMEOUT_MIN: Duration = Duration::from_micros(1);
/// Most checks of a batch that is answered without waiting for its turn: some 20 µs.
pub const SHORT_BATCH_MAX: usize = 64;
/// How long before its deadline a call that still waits is sent the head of its answer, after which
/// tonic's own timer no longer cuts it off with CANCELLED: longer than a thread is set aside on a
/// busy machine.
pub const HEAD_EARLY: Duration = Duration::from_millis(20);
/// Most calls in flight. A call that waits for nothing is over in microseconds, so these are slow
/// requests, waits for a revision and open streams; eight connections full of them.
pub const IN_FLIGHT_MAX: usize = 2_048;
/// Most calls in flight from one peer: half of all, so that nobody can take every place.
pub const PEER_IN_FLIGHT_MAX: usize = IN_FLIGHT_MAX / 2;
/// When to ask again after being turned away, give or take a half.
pub const RETRY_PUSHBACK: Duration = Duration::from_millis(100);
/// Age at which a connection is closed once its calls are over: clients of a balancer then find the
/// servers that came later.
pub const CONNECTION_AGE: Duration = Duration::from_secs(10 * 60);
/// A server draws its connections' age from this part below to this part above
/// [`CONNECTION_AGE`]: replicas that started together do not lose their clients together. One draw a
/// server, since tonic takes one age for all connections that it accepts: clients that came together
/// go together. That costs each one handshake, and what has reached the server is answered first.
pub const CONNECTION_AGE_JITTER_PART: u32 = 10;
/// Silence on a connection after which the peer must show that it is there: vanished peers would
/// hold streams, tasks and the drain.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// Longest wait for that.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a connection's first bytes: age and silence count only from then on.
pub const GREETING_MAX: Duration = Duration::from_secs(5);
/// Most open connections; one more is closed as soon as it is there. Each takes a file descriptor
/// and some 30 KiB.
pub const CONNECTIONS_MAX: usize = 8_192;
/// Most of them from one peer: half of all, so that nobody can take every place.
pub const PEER_CONNECTIONS_MAX: usize = CONNECTIONS_MAX / 2;
/// File descriptors to ask for where the operator sets no end: twice what connections take.
pub const FILES_WANTED: u64 = 2 * CONNECTIONS_MAX as u64;
/// Connections that wait for a worker to take them, which takes microseconds.
pub const ACCEPTED_MAX: usize = 256;
/// How long to wait when no connection can be taken, for want of file descriptors most likely.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// From the signal to the exit, at most; peers that are not done by then are cut off.
pub const DRAIN_MAX: Duration = Duration::from_secs(9);
/// How long a stream whose batches never pause is answered in a drain.
pub const STREAM_DRAIN_MAX: Duration = Duration::from_secs(3);
/// Most HTTP connections; further ones wait to be taken.
pub const HTTP_CONNECTIONS_MAX: usize = 256;
/// Longest time from an HTTP connection, or the end of an answer there, to the end of the next answer.
pub const HTTP_IDLE_MAX: Duration = Duration::from_secs(30);
/// How long HTTP connections may take to close in a drain: nothing there takes long.
pub const HTTP_DRAIN_MAX: Duration = Duration::from_millis(500);
/// Most lines that wait to be written to the decision log: far more than are decided between two
/// looks of the writer. Beyond it lines are lost, and counted.
pub const DECISION_LOG_LINES_MAX: usize = 65_536;
/// Most bytes of memory that those lines may take.
pub const DECISION_LOG_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most bytes of one field of a line: what is longer is malformed, and is cut.
pub const DECISION_LOG_FIELD_BYTES_MAX: usize = 1_024;
/// How often the writer of the decision log looks for lines: a check never has to wake it.
pub const DECISION_LOG_TICK: Duration = Duration::from_millis(50);
/// Bytes that are gathered for one write to the decision log.
pub const DECISION_LOG_WRITE_BYTES: usize = 64 * 1024;
/// How often the decision log tells at most how many lines it lost.
pub const DECISION_LOG_LOST_PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for the decision log in a drain: its reader may have stopped reading.
pub const DECISION_LOG_FLUSH_MAX: Duration = Duration::from_millis(500);
/// Most spans that wait to be exported; beyond it they are lost.
pub const SPANS_MAX: usize = 2_048;
/// Longest wait for a connection to the collector of traces.
pub const EXPORT_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest time for exporting a batch of spans.
pub const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the last spans in a drain: the collector may be gone.
pub const SPANS_FLUSH_MAX: Duration = Duration::from_millis(500);
/// Most bytes of a header that says which trace a call belongs to; a longer one is not there.
pub const TRACE_HEADER_BYTES_MAX: usize = 1_024;
/// Most bytes of the path and query of a request that Envoy asks about: what common servers take.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Most segments of its path.
pub const TARGET_SEGMENTS_MAX: usize = 64;
/// Most parameters of its query.
pub const QUERY_PARAMETERS_MAX: usize = 64;
/// Most headers of it; Envoy takes 100 unless it is told otherwise.
pub const HTTP_HEADERS_MAX: usize = 256;
/// Most bytes of an `Authorization` header that is looked at.
pub const AUTHORIZATION_BYTES_MAX: usize = 4 * 1024;
/// Identities whose answers are compared with the rules before a snapshot may serve.
pub const SELF_CHECK_IDENTITIES: usize = 256;

/// The limits that a server can be given others of; the rest are constants.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// See [`MESSAGE_BYTES_MAX`].
    pub message_bytes_max: usize,
    /// See [`IN_FLIGHT_MAX`].
    pub in_flight_max: usize,
    /// See [`PEER_IN_FLIGHT_MAX`].
    pub peer_in_flight_max: usize,
    /// Most calls that compute at once, Check and short batches left out, which take microseconds:
    /// as many as there are processors, so that the others wait where they are counted. A worker
    /// with a runtime of its own has one at a time, if any.
    pub computing_max: usize,
    /// See [`UNARY_TIME_MAX`].
    pub unary_time_max: Duration,
    /// See [`CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// See [`PEER_CONNECTIONS_MAX`].
    pub peer_connections_max: usize,
    /// See [`GREETING_MAX`].
    pub greeting_max: Duration,
    /// See [`HTTP_CONNECTIONS_MAX`].
    pub http_connections_max: usize,
    /// See [`HTTP_IDLE_MAX`].
    pub http_idle_max: Duration,
    /// See [`KEPT_TIME`].
    pub kept_time: Duration,
    /// See [`KEPT_BYTES_MAX`].
    pub kept_bytes_max: usize,
    /// See [`CONNECTION_AGE`].
    pub connection_age: Duration,
    /// See [`KEEPALIVE_INTERVAL`].
    pub keepalive_interval: Duration,
    /// See [`KEEPALIVE_TIMEOUT`].
    pub keepalive_timeout: Duration,
    /// See [`DECISION_LOG_LINES_MAX`].
    pub decision_log_lines_max: usize,
    /// See [`DECISION_LOG_BYTES_MAX`].
    pub decision_log_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: MESSAGE_BYTES_MAX,
            in_flight_max: IN_FLIGHT_MAX,
            peer_in_flight_max: PEER_IN_FLIGHT_MAX,
            computing_max: std::thread::available_parallelism().map_or(1, NonZero::get),
            unary_time_max: UNARY_TIME_MAX,
            connections_max: CONNECTIONS_MAX,
            peer_connections_max: PEER_CONNECTIONS_MAX,
            greeting_max: GREETING_MAX,
            http_connections_max: HTTP_CONNECTIONS_MAX,
            http_idle_max: HTTP_IDLE_MAX,
            kept_time: KEPT_TIME,
            kept_bytes_max: KEPT_BYTES_MAX,
            connection_age: CONNECTION_AGE,
            keepalive_interval: KEEPALIVE_INTERVAL,
            keepalive_timeout: KEEPALIVE_TIMEOUT,
            decision_log_lines_max: DECISION_LOG_LINES_MAX,
            decision_log_bytes_max: DECISION_LOG_BYTES_MAX,
        }
    }
}
