//! Every limit of the client, in one place. [`Options`] holds those that a program can choose.

use std::time::Duration;

/// Most checks in a batch (contract, section 5).
pub const BATCH_CHECKS_MAX: usize = capstan_proto::contract::BATCH_CHECKS_MAX;
/// Bytes from which on a batch takes no further check; a single check may have more, up to
/// [`CHECK_BYTES_MAX`]. A quarter of what a message may have: smaller batches are answered sooner.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of a check as it is sent: messages have at most 4 MiB (contract, section 7), and a
/// little of that is for what stands around the check.
pub const CHECK_BYTES_MAX: usize = 4 * 1024 * 1024 - 64;
/// Most bytes of an answer (contract, section 7).
pub const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most bytes of a path (contract, section 2).
pub const PATH_BYTES_MAX: usize = 1_024;
/// Most bytes of a capability's name (contract, section 4).
pub const CAPABILITY_BYTES_MAX: usize = 128;
/// Bytes of checks that one place of [`Options::pending_max`] stands for.
pub const PLACE_BYTES: usize = 512;
/// Batches in flight on a connection: while one is answered the next is on its way, and what comes
/// meanwhile becomes the one after. More make batches smaller and waits no shorter.
pub const BATCHES_IN_FLIGHT_MAX: usize = 2;
/// Batches that are asked on their own at once; see `alone.rs`.
pub const ALONE_MAX: usize = 16;
/// Longest wait for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Silence on a connection after which the server must show that it is there.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// Longest wait for that.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// First wait before a connection that failed is tried again, give or take a half; it doubles with
/// each failure.
pub const RETRY_WAIT_MIN: Duration = Duration::from_millis(10);
/// Longest such wait: half of the default deadline, so that a call outlives a restart.
pub const RETRY_WAIT_MAX: Duration = Duration::from_millis(500);
/// Longest wait that a server can ask for before it is asked again: a mistake there must not last.
pub const PUSHBACK_MAX: Duration = Duration::from_secs(5);
/// A part of [`Options::connection_age`]: clients that started together do not move together.
pub const CONNECTION_AGE_JITTER_PART: u32 = 5;
/// Longest deadline, and longest of the other times that [`Options`] gives; a longer one is this.
pub const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Shortest of those other times; a shorter one is this.
pub const TIME_MIN: Duration = Duration::from_millis(10);
/// Highest revision that a store can have (contract, section 5).
pub const REVISION_MAX: u64 = (1 << 53) - 1;
/// Buffers kept for the next batches.
pub const SPARE_BUFFERS_MAX: usize = 8;
/// Bytes above which a buffer is not kept.
pub const SPARE_BYTES_MAX: usize = BATCH_BYTES_MAX;

/// How a client behaves; `Options::default()` suits most programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Connections, each with a stream of its own; at least 1, and 1 unless given. A server answers
    /// a stream on one core at a time, so more use more of its cores, in smaller batches.
    pub connections: usize,
    /// Calls that the client holds, waiting and in flight; at least 1, and 16,384 unless given. A
    /// check of more than [`PLACE_BYTES`] counts as several, so this bounds the memory too. Further
    /// calls wait for a place until their deadline.
    pub pending_max: usize,
    /// Most checks in a batch: 1 to [`BATCH_CHECKS_MAX`], which it is unless given.
    pub batch_checks_max: usize,
    /// The deadline of a call that names none, from when it is first polled; 1 s unless given.
    pub timeout: Duration,
    /// Whether no answer may be older than the newest that a call had seen when it began
    /// ([`Client::revision`](crate::Client::revision)); false unless given. It matters where several
    /// servers stand behind one address, and costs waits when one of them is behind.
    pub monotonic: bool,
    /// Age at which a connection is replaced, without a pause and less up to a fifth; 5 min unless
    /// given. A stream would otherwise hold its server for ever: servers ask their clients to leave
    /// after 10 min, so that they spread again after a rollout, and no call of ours is there when
    /// they do.
    pub connection_age: Duration,
    /// A batch that is unanswered for so long means that the server has stalled: the connection is
    /// replaced and the batch sent again; 2 s unless given. Servers wait for 250 ms at most.
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
    /// The nearest that make sense.
    pub(crate) fn held(self) -> Self {
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
    fn options_are_held_between_their_ends() {
        let wild = Options {
            connections: 0,
            pending_max: 0,
            batch_checks_max: usize::MAX,
            connection_age: Duration::MAX,
            stall: Duration::ZERO,
            ..Options::default()
        };
        let held = Options {
            connections: 1,
            pending_max: 1,
            batch_checks_max: BATCH_CHECKS_MAX,
            connection_age: TIME_MAX,
            stall: TIME_MIN,
            ..Options::default()
        };
        assert_eq!(wild.held(), held);
        assert_eq!(Options::default().held(), Options::default());
    }
}
