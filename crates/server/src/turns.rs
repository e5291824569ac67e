//! Turns to compute: as many calls at a time as there are processors for it, in the order in which they came, and none that
//! would wait for too long.
//!
//! ```text
//! call ─▶ how many are before it, and how long a turn took lately ─┬▶ waits for its turn ─▶ computes
//!                                                                  └▶ refused at once: it would wait for too long
//! ```
//!
//! A queue that is longer than what is computed in the time of a call answers nobody: its calls end at their deadlines. One
//! that is refused at once can be asked again elsewhere. How many may wait follows from how long turns take now, so it is right for
//! small policies and for large ones.
//!
//! **Invariants**: whoever finds a processor free is never refused. A call that goes away while it waits is counted no more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::RequestError;
use crate::limits::TURN_WAIT_MAX;
use crate::telemetry::metrics::{Metrics, ShedScope};

/// Turns. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    semaphore: Arc<Semaphore>,
    queue: Arc<Queue>,
    at_once: usize,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Calls that compute or wait.
    calls: AtomicUsize,
    /// How long a turn took lately, in nanoseconds.
    took: AtomicU64,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    began: Instant,
    place: Place,
    _permit: Option<OwnedSemaphorePermit>,
}

/// A call in the queue, until it is dropped.
#[derive(Debug)]
struct Place(Arc<Queue>);

impl Turns {
    /// So many turns at once.
    pub(crate) fn new(at_once: usize, metrics: Arc<Metrics>) -> Self {
        let at_once = at_once.min(Semaphore::MAX_PERMITS);
        let semaphore = Arc::new(Semaphore::new(at_once));
        Self { semaphore, queue: Arc::default(), at_once, metrics }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    ///
    /// [`RequestError::TurnsTaken`]: it would wait for more than [`TURN_WAIT_MAX`].
    pub(crate) async fn take(&self) -> Result<Turn, RequestError> {
        let before = self.queue.calls.fetch_add(1, Relaxed);
        let place = Place(Arc::clone(&self.queue));
        if self.wait(before) > TURN_WAIT_MAX {
            self.metrics.shed(ShedScope::Turns);
            return Err(RequestError::TurnsTaken);
        }
        // The semaphore is never closed.
        let permit = Arc::clone(&self.semaphore).acquire_owned().await.ok();
        Ok(Turn { began: Instant::now(), place, _permit: permit })
    }

    /// How long a call waits that has so many before it.
    fn wait(&self, before: usize) -> Duration {
        let took = Duration::from_nanos(self.queue.took.load(Relaxed));
        let rounds = before.checked_div(self.at_once).unwrap_or_default();
        took.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let took = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let queue = &self.place.0;
        let before = queue.took.load(Relaxed);
        // Two that end at once may lose one of them: it is an estimate.
        queue.took.store(estimate(before, took), Relaxed);
    }
}

/// The last turn is this part of the estimate.
const LAST_PART: u64 = 16;
/// The last turn counts as at most so many times the estimate, or as this many nanoseconds: one turn in which the system ran something else for
/// some milliseconds says nothing about the next ones, and with hundreds of calls in the queue it would have most of them refused.
const LONGEST_TIMES: u64 = 4;
const LONGEST_MIN: u64 = 100_000;

/// How long a turn takes, after one that took so long.
fn estimate(before: u64, took: u64) -> u64 {
    if before == 0 {
        return took.clamp(1, LONGEST_MIN);
    }
    let took = took.min(before.saturating_mul(LONGEST_TIMES).max(LONGEST_MIN));
    before - before / LAST_PART + took / LAST_PART
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn nobody_waits_for_longer_than_a_call_has() {
        let turns = Turns::new(2, Arc::default());
        let took = u64::try_from((TURN_WAIT_MAX / 10).as_nanos()).unwrap();
        turns.queue.took.store(took, Relaxed);
        let (first, second) = (turns.take().await.unwrap(), turns.take().await.unwrap());
        // Twenty wait for ten rounds, and no more.
        let mut waiting: Vec<_> = (0..20).map(|_| Box::pin(turns.take())).collect();
        assert!(waiting.iter_mut().all(|call| call.as_mut().now_or_never().is_none()));
        let refused = turns.take().now_or_never().unwrap().unwrap_err();
        assert_eq!(refused, RequestError::TurnsTaken);
        // One that goes away makes room for another.
        waiting.pop();
        assert!(Box::pin(turns.take()).as_mut().now_or_never().is_none());
        drop(waiting);
        drop((first, second));
        assert_eq!(turns.queue.calls.load(Relaxed), 0);
        assert!(turns.take().now_or_never().unwrap().is_ok());
    }

    #[tokio::test]
    async fn whoever_finds_a_processor_free_is_never_refused() {
        let turns = Turns::new(1, Arc::default());
        turns.queue.took.store(u64::MAX / 2, Relaxed);
        let turn = turns.take().await.unwrap();
        assert!(turns.take().await.is_err());
        drop(turn);
        // Short turns bring the estimate down.
        for _ in 0..1_000 {
            drop(turns.take().await.unwrap());
        }
        let _turn = turns.take().await.unwrap();
        assert!(turns.take().now_or_never().is_none(), "it waits now");
    }

    #[test]
    fn one_long_turn_changes_little_and_many_change_much() {
        let (short, long) = (150_000, 100_000_000);
        let once = estimate(short, long);
        assert!(once > short && once < short + short / 4, "{once}");
        // A busy queue of lists, and the end of a turn in which the system did something else: nobody is refused.
        let turns = Turns::new(1, Arc::default());
        turns.queue.took.store(once, Relaxed);
        assert!(turns.wait(512) < TURN_WAIT_MAX);
        let many = (0..40).fold(short, |estimated, _| estimate(estimated, long));
        assert!(many > long / 2, "{many}");
        // Nor does the first one say much.
        assert_eq!(estimate(0, long), LONGEST_MIN);
        assert!((0..100).fold(1, |estimated, _| estimate(estimated, long)) > long / 2);
        assert!((0..200).fold(long, |estimated, _| estimate(estimated, short)) < 2 * short);
    }

    #[tokio::test]
    async fn without_turns_calls_wait_for_their_deadlines() {
        let turns = Turns::new(0, Arc::default());
        turns.queue.took.store(u64::MAX / 2, Relaxed);
        assert!(turns.take().now_or_never().is_none());
    }
}
