//! The limits of the client. [`Options`] holds those that a program can set.

use std::time::Duration;

/// Maximum number of checks in a batch (contract, section 7).
pub const BATCH_CHECKS_MAX: usize = capstan_proto::contract::BATCH_CHECKS_MAX;
/// Maximum size of a batch of several checks, in bytes; a single check may have up to [`CHECK_BYTES_MAX`]. A
/// quarter of the message limit, because smaller batches are answered sooner.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Maximum size of an encoded check, in bytes: the message limit of 4 MiB (contract, section 7) less the
/// fields around the check.
pub const CHECK_BYTES_MAX: usize = 4 * 1024 * 1024 - 64;
/// Maximum size of a reply, in bytes (contract, section 7).
pub const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Maximum length of a path, in bytes (contract, section 2).
pub const PATH_BYTES_MAX: usize = 1_024;
/// Maximum length of a capability's name, in bytes (contract, section 4).
pub const CAPABILITY_BYTES_MAX: usize = 128;
/// A check of `n` bytes holds `1 + n / PERMIT_BYTES` permits of [`Options::pending_max`].
pub const PERMIT_BYTES: usize = 512;
/// Maximum number of batches in flight on a stream: one is answered while the next is transmitted, and new
/// calls form the one after that. A higher number makes batches smaller, and latencies no lower.
pub const BATCHES_IN_FLIGHT_MAX: usize = 2;
/// Maximum number of unary BatchCheck calls in flight.
pub const UNARY_CALLS_MAX: usize = 16;
/// Maximum time for opening a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time without traffic after which an HTTP/2 PING is sent.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// Maximum time for the answer to a PING.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Back-off after the first failure, with a jitter of ±50 %. It doubles with each further failure.
pub const RETRY_WAIT_MIN: Duration = Duration::from_millis(10);
/// Maximum back-off before jitter: half of the default timeout, so that calls survive a server's restart.
pub const RETRY_WAIT_MAX: Duration = Duration::from_millis(500);
/// Maximum push-back that is honoured: a server's mistake must not stop its clients.
pub const PUSHBACK_MAX: Duration = Duration::from_secs(5);
/// Maximum size of a file with a token, in bytes: twice what a server takes.
pub const TOKEN_FILE_BYTES_MAX: u64 = 16 * 1024;
/// A connection's maximum age is reduced by a random part of up to one in this many, so that clients that
/// started together do not reconnect together.
pub const CONNECTION_AGE_JITTER_PART: u32 = 5;
/// Maximum of timeouts and of the other durations in [`Options`]. Longer ones are reduced to it.
pub const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of the request that the layer of `protect` reads to find the resource.
pub const PROTECTED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Time to read and decide a call whose caller has no deadline, or a later one.
pub const PROTECTED_TIME_MAX: Duration = Duration::from_secs(10);
/// Minimum of the durations in [`Options`] other than timeouts. Shorter ones are raised to it.
pub const TIME_MIN: Duration = Duration::from_millis(10);
/// Highest revision of a store (contract, section 5).
pub const REVISION_MAX: u64 = (1 << 53) - 1;
/// Maximum number of buffers kept for later batches.
pub const SPARE_BUFFERS_MAX: usize = 8;
/// Maximum size of a kept buffer, in bytes.
pub const SPARE_BYTES_MAX: usize = BATCH_BYTES_MAX;

/// The options of a client. The defaults suit most programs. Values out of range are clamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Number of connections, each with one stream; at least 1. Default 1. A server answers a stream on one
    /// core at a time, so more connections use more of its cores, with smaller batches.
    pub connections: usize,
    /// Number of permits for calls that are waiting or in flight; at least 1. Default 16,384. A check holds
    /// one permit, and one more for every [`PERMIT_BYTES`], so this limits memory too. Further calls wait for
    /// permits until their deadline.
    pub pending_max: usize,
    /// Maximum number of checks in a batch, 1 to [`BATCH_CHECKS_MAX`], which is the default.
    pub batch_checks_max: usize,
    /// Timeout of calls without one of their own, from the first poll. Default 1 s.
    pub timeout: Duration,
    /// Whether a call requires at least the revision of
    /// [`Client::revision`](crate::Client::revision) at its start (monotonic reads). Default false. It matters
    /// with several servers behind one address; calls wait when one of them is behind.
    pub monotonic: bool,
    /// Maximum age of a connection, reduced by a jitter of up to 20 %. Default 5 min. The replacement is
    /// connected before the old stream is half-closed. Below the maximum age of servers, 10 min, so that
    /// clients are rebalanced after a rollout before a server closes their connections.
    pub connection_age: Duration,
    /// Maximum time for the answer to a batch. Default 2 s; servers wait for a revision for at most 250 ms.
    /// After it the connection is replaced and the batch is retried.
    pub stall: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections: 1,
            pending_max: 16 * 1024,
            batch_checks_max: BATCH_CHECKS_MAX,
            timeout: Duration::from_secs(1),
            monotonic: false,
            connection_age: Duration::from_secs(5 * 60),
            stall: Duration::from_secs(2),
        }
    }
}

impl Options {
    /// The options with every value in its range.
    pub(crate) fn clamped(self) -> Self {
        Self {
            connections: self.connections.max(1),
            pending_max: self.pending_max.clamp(1, u32::MAX as usize >> 3),
            batch_checks_max: self.batch_checks_max.clamp(1, BATCH_CHECKS_MAX),
            connection_age: self.connection_age.clamp(TIME_MIN, TIME_MAX),
            stall: self.stall.clamp(TIME_MIN, TIME_MAX),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_clamped() {
        let wild = Options {
            connections: 0,
            pending_max: 0,
            batch_checks_max: usize::MAX,
            connection_age: Duration::MAX,
            stall: Duration::ZERO,
            ..Options::default()
        };
        let clamped = Options {
            connections: 1,
            pending_max: 1,
            batch_checks_max: BATCH_CHECKS_MAX,
            connection_age: TIME_MAX,
            stall: TIME_MIN,
            ..Options::default()
        };
        assert_eq!(wild.clamped(), clamped);
        assert_eq!(Options::default().clamped(), Options::default());
    }
}
