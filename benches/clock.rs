//! The cost of a piece of work: CPU time of the thread, wall time, and the spread of several runs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// CPU time of the thread.
    pub cpu: f64,
    /// Wall time.
    pub wall: f64,
}

/// Median, minimum and maximum of some values; NaN if there are none.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The middle value; of an even number of values the upper one of two.
    pub median: f64,
    /// The minimum.
    pub low: f64,
    /// The maximum.
    pub high: f64,
}

impl Spread {
    /// Of these values, in any order.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        Self { median: at(values.len() / 2), low: at(0), high: at(values.len().wrapping_sub(1)) }
    }
}

/// The CPU time of this thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or_default());
    seconds + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or_default())
}

/// The duration in nanoseconds.
#[must_use]
pub const fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

/// The cost of the work on this thread, and its result.
pub fn cost<T>(work: impl FnOnce() -> T) -> (Cost, T) {
    let (wall, cpu) = (Instant::now(), thread_cpu());
    let done = black_box(work());
    let cost = Cost { cpu: nanos(thread_cpu() - cpu), wall: nanos(wall.elapsed()) };
    (cost, done)
}
