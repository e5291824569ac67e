//! The times of one connection, on one timer: keepalive, age, a peer that does not read, new
//! calls that wait for their bodies, and a rest after calls that were shed.
//!
//! The timer is set again only when it fires or when something is due earlier, so a call that is
//! answered at once sets no timer.

use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::jitter::jittered;
use crate::limits::{CONNECTION_AGE_JITTER_PART, Limits, SHORT_WAIT_MAX};
use crate::transport::connection::Traffic;

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// Nothing has arrived for long: a ping is to be sent.
    Ping,
    /// The connection has reached its age: no more calls are to be taken.
    Age,
    /// The peer has not left long after that: it can open no more streams.
    Leave,
    /// The peer has not answered a ping, or has not read for too long: the connection is dead.
    Dead,
}

pub(super) struct Timers {
    interval: Duration,
    timeout: Duration,
    stalled_max: Duration,
    leaving_max: Duration,
    /// When the last byte arrived.
    heard: Instant,
    /// Bytes that had arrived then.
    received: u64,
    /// Since when the peer reads nothing, and the bytes that were sent until then.
    stalled: Option<(Instant, u64)>,
    /// When the ping was sent that has no answer yet.
    pinged: Option<Instant>,
    /// `None` once it is reached.
    age: Option<Instant>,
    /// When a peer that was told to leave must have done it; `None` before, and once it is reached.
    leaves: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Timers {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        let age = jittered(limits.connection_age, CONNECTION_AGE_JITTER_PART);
        let (interval, timeout) = (limits.keepalive_interval, limits.keepalive_timeout);
        Self {
            interval,
            timeout,
            stalled_max: limits.stalled_connection_max,
            leaving_max: limits.leaving_max,
            heard: now,
            received: 0,
            stalled: None,
            pinged: None,
            age: now.checked_add(age),
            leaves: None,
            timer: Box::pin(sleep_until(now)),
        }
    }

    /// The connection has reached its age now, if it has not before.
    pub(super) fn age(&mut self, now: Instant) {
        self.age = self.age.map(|age| age.min(now));
    }

    /// Takes note of what has passed, and says what is due at `now`. `waiting` is since when the oldest
    /// new call waits for its body, and `rests` until when nothing is read.
    pub(super) fn poll(
        &mut self,
        now: Instant,
        traffic: &Traffic,
        (waiting, rests): (Option<Instant>, Option<Instant>),
        waker: &Waker,
    ) -> Due {
        let received = traffic.received();
        if received != self.received {
            (self.received, self.heard, self.pinged) = (received, now, None);
        }
        if !traffic.is_blocked() {
            self.stalled = None;
        } else if self.stalled.is_none_or(|(_, sent)| sent != traffic.sent()) {
            self.stalled = Some((now, traffic.sent()));
        }
        let aged = self.age.is_some_and(|age| now >= age);
        let stalled = self.stalled.map(|(since, _)| since + self.stalled_max);
        if self.pinged.is_some_and(|pinged| now >= pinged + self.timeout)
            || stalled.is_some_and(|end| now >= end)
            // GOAWAY cannot be sent to a peer that does not read.
            || aged && stalled.is_some()
        {
            return Due::Dead;
        }
        if aged {
            self.age = None;
            self.leaves = Some(now + self.leaving_max);
        }
        let must_leave = self.leaves.is_some_and(|end| now >= end);
        if must_leave {
            self.leaves = None;
        }
        // A ping cannot be sent either, and the limit of a stalled peer holds instead.
        let pings = self.pinged.is_none() && stalled.is_none() && now >= self.heard + self.interval;
        if pings {
            self.pinged = Some(now);
        }
        let ends = self.age.into_iter().chain(self.leaves).chain(stalled);
        let waiting = waiting.map(|since| since + SHORT_WAIT_MAX);
        let alive = match self.pinged {
            Some(pinged) => pinged + self.timeout,
            None => self.heard + self.interval,
        };
        self.set(now, ends.chain(waiting).chain(rests).fold(alive.max(now), Instant::min), waker);
        match (aged, must_leave, pings) {
            (true, ..) => Due::Age,
            (_, true, _) => Due::Leave,
            (.., true) => Due::Ping,
            (false, false, false) => Due::Nothing,
        }
    }

    /// Sets the timer if it has fired, or if something is due earlier.
    fn set(&mut self, now: Instant, next: Instant, waker: &Waker) {
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

/// Timers have milliseconds. It also keeps the task from waking without a pause.
const SHORTEST: Duration = Duration::from_millis(1);
