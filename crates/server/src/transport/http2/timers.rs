//! The times of one connection, on one timer: keepalive, age, and waiting short calls.
//!
//! The timer is set again only when it fires or when something is due earlier, so a call that is
//! answered at once sets no timer.

use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::jitter::jittered;
use crate::limits::{CONNECTION_AGE_JITTER_PART, Limits, SHORT_WAIT_MAX};

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// The connection has reached its age: no more calls are to be taken.
    Age,
    /// The peer has not answered a ping: the connection is dead.
    Dead,
}

pub(super) struct Timers {
    interval: Duration,
    timeout: Duration,
    ping: Option<PingPong>,
    /// When the last byte arrived.
    heard: Instant,
    /// Bytes that had arrived then.
    bytes: u64,
    /// When the ping was sent that has no answer yet.
    pinged: Option<Instant>,
    /// `None` once it is reached.
    age: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Timers {
    pub(super) fn new(limits: &Limits, ping: Option<PingPong>, now: Instant) -> Self {
        let age = jittered(limits.connection_age, CONNECTION_AGE_JITTER_PART);
        let (interval, timeout) = (limits.keepalive_interval, limits.keepalive_timeout);
        let age = now.checked_add(age);
        let timer = Box::pin(sleep_until(now));
        Self { interval, timeout, ping, heard: now, bytes: 0, pinged: None, age, timer }
    }

    /// Takes note of what has arrived, and says what is due at `now`. `received` counts all bytes of
    /// the connection; `waiting` is since when the oldest short call waits for its body.
    pub(super) fn poll(
        &mut self,
        now: Instant,
        received: u64,
        waiting: Option<Instant>,
        waker: &Waker,
    ) -> Due {
        if received != self.bytes {
            (self.bytes, self.heard, self.pinged) = (received, now, None);
        }
        if self.pinged.is_some_and(|pinged| now >= pinged + self.timeout) {
            return Due::Dead;
        }
        let due = if self.age.is_some_and(|age| now >= age) { Due::Age } else { Due::Nothing };
        if due == Due::Age {
            self.age = None;
        }
        if self.pinged.is_none() && now >= self.heard + self.interval {
            self.send_ping();
            self.pinged = Some(now);
        }
        self.set(now, waiting, waker);
        due
    }

    fn send_ping(&mut self) {
        let Some(ping) = &mut self.ping else { return };
        // The answer to the last ping is taken, or the next one could not be sent.
        let _ = ping.poll_pong(&mut Context::from_waker(Waker::noop()));
        // An error means that the connection has ended, or that the last ping has no answer yet.
        let _ = ping.send_ping(Ping::opaque());
    }

    /// Sets the timer if it has fired, or if something is due earlier.
    fn set(&mut self, now: Instant, waiting: Option<Instant>, waker: &Waker) {
        let alive = match self.pinged {
            Some(pinged) => pinged + self.timeout,
            None => self.heard + self.interval,
        };
        let waiting = waiting.map(|since| since + SHORT_WAIT_MAX);
        let next = self.age.into_iter().chain(waiting).fold(alive, Instant::min);
        let at = self.timer.deadline();
        if at <= now || next < at {
            self.timer.as_mut().reset(next.max(now + SHORTEST));
            // Registers the waker. A timer that fires right now wakes the task at once.
            if self.timer.as_mut().poll(&mut Context::from_waker(waker)).is_ready() {
                waker.wake_by_ref();
            }
        }
    }
}

/// A timer that fires again and again without an end would keep the task busy.
const SHORTEST: Duration = Duration::from_millis(1);
