//! When a failed delivery is tried again.
//!
//! ```text
//! closed ─ failed ─▶ open until next_at ─ due: one attempt ─┬─ delivered ─▶ closed
//!                          ▲                                ├─ failed ─▶ open until a later next_at
//!                          └────────────────────────────────┘            └▶ three days after the first failure: give up
//! ```
//!
//! The wait after the n-th failure in a row is random, from nearly nothing to `1 s * 2^(n-1)`, at most to an hour
//! (exponential back-off with full jitter): what failed together does not return together. A `Retry-After` is waited for,
//! up to a day, and the random wait comes on top. The last attempt is made three days after the first failure.
//!
//! **Invariants**: pure; the clock and the random number are arguments. A clock that goes back neither blocks a sink for
//! longer than [`RETRY_AFTER_MAX`] and an hour, nor ends its three days early: they begin again.

use std::time::Duration;

use crate::clock::UnixMillis;
use crate::limits::{
    GIVE_UP_AFTER, RETRY_AFTER_MAX, RETRY_WAIT_FIRST, RETRY_WAIT_MAX, RETRY_WAIT_MIN,
};

/// The failures in a row of a sink. Small enough to be stored with each change; the default is a sink without any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Circuit {
    /// Failures in a row.
    pub attempts: u32,
    /// When the first of them was. Of no meaning while `attempts` is zero.
    pub first_failed_at: UnixMillis,
    /// No attempt before this moment. Of no meaning while `attempts` is zero.
    pub next_at: UnixMillis,
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Try again at [`Circuit::next_at`].
    Retry(Circuit),
    /// Every attempt of three days failed. Disable the subscription.
    GiveUp,
}

impl Circuit {
    /// Whether no attempt has failed since the last that did not.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.attempts == 0
    }

    /// Whether an attempt may be made now.
    #[must_use]
    pub fn is_due(&self, now: UnixMillis) -> bool {
        // A later moment than any that is given out: the clock went back.
        let latest = now.after(RETRY_AFTER_MAX).after(RETRY_WAIT_MAX);
        self.is_closed() || self.next_at <= now || self.next_at > latest
    }

    /// What follows from one more failure.
    ///
    /// `retry_after` is what the sink asked for. `random` is from 0 to 1, such as `fastrand::f64()`; anything else counts as
    /// the nearer of the two, and what is not a number as 1.
    #[must_use]
    pub fn failed(self, now: UnixMillis, retry_after: Option<Duration>, random: f64) -> Verdict {
        let first_failed_at = if self.is_closed() { now } else { self.first_failed_at.min(now) };
        let end = first_failed_at.after(GIVE_UP_AFTER);
        if now >= end {
            return Verdict::GiveUp;
        }
        let doublings = 1_u32.checked_shl(self.attempts).unwrap_or(u32::MAX);
        let ceiling = RETRY_WAIT_FIRST.saturating_mul(doublings).min(RETRY_WAIT_MAX);
        let random = if random.is_nan() { 1.0 } else { random.clamp(0.0, 1.0) };
        let jittered = ceiling.mul_f64(random).max(RETRY_WAIT_MIN);
        let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        let next_at = now.after(asked.saturating_add(jittered)).min(end);
        let attempts = self.attempts.saturating_add(1);
        Verdict::Retry(Self { attempts, first_failed_at, next_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: UnixMillis = UnixMillis(1_800_000_000_000);

    fn retry(verdict: Verdict) -> Circuit {
        match verdict {
            Verdict::Retry(circuit) => circuit,
            Verdict::GiveUp => panic!("gave up"),
        }
    }

    #[test]
    fn the_longest_waits_double_up_to_an_hour() {
        let mut circuit = Circuit::default();
        let mut now = START;
        let mut waits = Vec::new();
        for _ in 0..14 {
            circuit = retry(circuit.failed(now, None, 1.0));
            waits.push(circuit.next_at.since(now).as_secs());
            now = circuit.next_at;
        }
        assert_eq!(RETRY_WAIT_FIRST.as_secs(), 1);
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600]);
    }

    #[test]
    fn the_last_attempt_is_three_days_after_the_first_failure() {
        let mut circuit = retry(Circuit::default().failed(START, None, 1.0));
        let mut now = circuit.next_at;
        while let Verdict::Retry(next) = circuit.failed(now, None, 1.0) {
            assert!(next.next_at > now);
            (circuit, now) = (next, next.next_at);
        }
        assert_eq!(now, START.after(GIVE_UP_AFTER));
        assert_eq!(circuit.attempts, 83, "12 waits that double, then 71 of an hour");
    }

    #[test]
    fn what_the_sink_asks_for_is_waited_for_up_to_a_day() {
        let wait =
            |asked| retry(Circuit::default().failed(START, Some(asked), 0.0)).next_at.since(START);
        assert_eq!(wait(Duration::from_secs(120)), Duration::from_secs(120) + RETRY_WAIT_MIN);
        assert_eq!(wait(Duration::MAX), RETRY_AFTER_MAX + RETRY_WAIT_MIN);
        assert_eq!(wait(Duration::ZERO), RETRY_WAIT_MIN);
    }

    #[test]
    fn a_clock_that_goes_back_does_not_block_a_sink() {
        let circuit = retry(Circuit::default().failed(START, None, 1.0));
        assert!(!circuit.is_due(START) && circuit.is_due(circuit.next_at));
        assert!(circuit.is_due(UnixMillis(START.0 - 7 * 24 * 3_600_000)));
        let earlier = UnixMillis(START.0 - 1_000);
        assert_eq!(retry(circuit.failed(earlier, None, 1.0)).first_failed_at, earlier);
    }

    proptest! {
        #[test]
        fn every_wait_is_within_its_bounds(
            attempts in 0..=u32::MAX,
            first in 0..=4_000_000_000_000_u64,
            elapsed in 0..300_000_000_u64,
            asked in proptest::option::of(0..=u64::MAX),
            random in proptest::num::f64::ANY,
        ) {
            let first_failed_at = UnixMillis(first);
            let now = UnixMillis(first.saturating_add(elapsed));
            let circuit = Circuit { attempts, first_failed_at, next_at: now };
            let asked = asked.map(Duration::from_secs);
            match circuit.failed(now, asked, random) {
                Verdict::GiveUp => {
                    prop_assert!(attempts > 0 && now.since(first_failed_at) >= GIVE_UP_AFTER);
                }
                Verdict::Retry(next) => {
                    let start = if attempts == 0 { now } else { first_failed_at };
                    let end = start.after(GIVE_UP_AFTER);
                    let wait = next.next_at.since(now);
                    let asked = asked.unwrap_or_default().min(RETRY_AFTER_MAX);
                    prop_assert!(next.next_at > now && next.next_at <= end);
                    prop_assert!(wait >= asked + RETRY_WAIT_MIN || next.next_at == end);
                    prop_assert!(wait <= asked + RETRY_WAIT_MAX);
                    prop_assert_eq!(next.attempts, attempts.saturating_add(1));
                    prop_assert_eq!(next.first_failed_at, start);
                    prop_assert!(next.is_due(next.next_at) && !next.is_due(now));
                }
            }
        }

        /// However the random numbers fall, a sink that always fails is given up after three days and not before.
        #[test]
        fn giving_up_takes_three_days(seed in 0..=u64::MAX) {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut circuit, mut now) = (Circuit::default(), START);
            let mut attempts = 0;
            while let Verdict::Retry(next) = circuit.failed(now, None, random.f64()) {
                (circuit, now) = (next, next.next_at);
                attempts += 1;
                prop_assert!(attempts < 2_000);
            }
            prop_assert_eq!(now, START.after(GIVE_UP_AFTER));
            prop_assert!(attempts > 80);
        }
    }
}
