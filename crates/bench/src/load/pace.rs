//! When each request is sent: when the previous one ends (closed loop), or at its scheduled time (open
//! loop).
//!
//! **Invariant**: in an open loop a request's latency counts from its scheduled time, even if the
//! request is sent later. A server that stalls delays the requests behind it, and their whole delay is
//! measured: there is no coordinated omission.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// The time of a run: warm-up from `start` to `measured`, then the measured window up to `end`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) start: Instant,
    pub(crate) measured: Instant,
    pub(crate) end: Instant,
}

impl Window {
    pub(crate) fn new(start: Instant, warm_up: Duration, duration: Duration) -> Self {
        let measured = start + warm_up;
        Self { start, measured, end: measured + duration }
    }

    /// Whether this time lies in the measured window.
    pub(crate) fn measures(&self, time: Instant) -> bool {
        (self.measured..self.end).contains(&time)
    }
}

/// The schedule of an open loop: evenly spaced times, dealt to the threads round-robin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pub(crate) start: Instant,
    /// Requests per second of all threads together.
    pub(crate) rate: u64,
    /// The number of this thread, from 0.
    pub(crate) thread: u64,
    pub(crate) threads: u64,
}

impl Schedule {
    /// The scheduled time of this thread's request with this number, from 0.
    pub(crate) fn at(&self, number: u64) -> Instant {
        let number = u128::from(number) * u128::from(self.threads) + u128::from(self.thread);
        let nanos = number * 1_000_000_000 / u128::from(self.rate.max(1));
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 4))
    }
}

/// Decides when slots send their next request.
#[derive(Debug)]
pub(crate) enum Pace {
    /// As soon as the slot is free.
    Closed(Window),
    /// At the scheduled time; later if no slot is free then.
    Open(Open),
}

/// An open loop. A slot takes a permit to send a request.
#[derive(Debug)]
pub(crate) struct Open {
    window: Window,
    schedule: Schedule,
    /// A permit for each request that is due and not sent.
    due: Semaphore,
    /// Requests that have fallen due.
    released: Cell<u64>,
    /// Requests that slots have taken.
    taken: Cell<u64>,
}

impl Pace {
    pub(crate) fn new(window: Window, schedule: Option<Schedule>) -> Self {
        let Some(schedule) = schedule else {
            return Self::Closed(window);
        };
        let due = Semaphore::new(0);
        Self::Open(Open { window, schedule, due, released: Cell::new(0), taken: Cell::new(0) })
    }

    /// Waits until the slot may send a request, and returns the request's start time; `None` after the
    /// end of the run. In a closed loop the start time is `ended`, the end of the slot's last request,
    /// if there was one.
    pub(crate) async fn next(&self, ended: Option<Instant>) -> Option<Instant> {
        match self {
            Self::Closed(window) => {
                let now = ended.unwrap_or_else(Instant::now);
                (now < window.end).then_some(now)
            }
            Self::Open(open) => {
                open.due.acquire().await.ok()?.forget();
                Some(open.take())
            }
        }
    }

    /// Releases permits as requests fall due, until the end of the run. Returns at once in a closed loop.
    pub(crate) async fn run(&self) -> io::Result<()> {
        let Self::Open(open) = self else {
            return Ok(());
        };
        let timer = Timer::new()?;
        loop {
            let now = Instant::now();
            open.release(now);
            if now >= open.window.end {
                open.due.close();
                return Ok(());
            }
            let next = open.schedule.at(open.released.get());
            timer.wait_until(next.min(open.window.end)).await?;
        }
    }

    /// The scheduled times of the requests that fell due and were not sent before the end.
    pub(crate) fn unsent(&self) -> Vec<Instant> {
        match self {
            Self::Closed(_) => Vec::new(),
            Self::Open(open) => {
                let left = open.taken.get()..open.released.get();
                left.map(|number| open.schedule.at(number)).collect()
            }
        }
    }
}

impl Open {
    /// Releases a permit for each request that is due at this time.
    fn release(&self, now: Instant) {
        let before = self.released.get();
        let mut released = before;
        while self.schedule.at(released) <= now && self.schedule.at(released) < self.window.end {
            released += 1;
        }
        self.released.set(released);
        self.due.add_permits(usize::try_from(released - before).unwrap_or(usize::MAX >> 4));
    }

    /// The scheduled time of the next request.
    fn take(&self) -> Instant {
        let number = self.taken.get();
        self.taken.set(number + 1);
        self.schedule.at(number)
    }
}

/// A `timerfd`: tokio's own timer has a resolution of 1 ms, in which 50 requests fall due at 50,000
/// requests per second.
///
/// It is registered with tokio as a pipe, because both are file descriptors that become readable; this
/// needs no unsafe code.
#[cfg(target_os = "linux")]
struct Timer(tokio::net::unix::pipe::Receiver);

#[cfg(target_os = "linux")]
impl Timer {
    fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self(tokio::net::unix::pipe::Receiver::from_owned_fd_unchecked(timer)?))
    }

    async fn wait_until(&self, time: Instant) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        let rest = time.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            // The slots of this thread must run to send the requests that are due.
            tokio::task::yield_now().await;
            return Ok(());
        }
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: i64::try_from(rest.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: rest.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        loop {
            self.0.readable().await?;
            match self.0.try_read(&mut [0; size_of::<u64>()]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.map(drop),
            }
        }
    }
}

/// tokio's timer: measured latencies are up to 1 ms too high at low rates.
#[cfg(not(target_os = "linux"))]
struct Timer;

#[cfg(not(target_os = "linux"))]
impl Timer {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn wait_until(&self, time: Instant) -> io::Result<()> {
        tokio::time::sleep_until(time.into()).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::tally::Tally;

    fn schedule(rate: u64, thread: u64, threads: u64) -> Schedule {
        Schedule { start: Instant::now(), rate, thread, threads }
    }

    #[test]
    fn requests_are_spaced_evenly_and_dealt_to_the_threads() {
        let schedules = [0, 1, 2].map(|thread| schedule(3_000, thread, 3));
        let after = |thread: usize, number| {
            (schedules[thread].at(number) - schedules[thread].start).as_nanos()
        };
        assert_eq!([after(0, 0), after(1, 0), after(2, 0)], [0, 333_333, 666_666]);
        assert_eq!([after(0, 1), after(1, 1), after(2, 1)], [1_000_000, 1_333_333, 1_666_666]);
        // Rounding errors do not accumulate: times are exact after a day.
        assert_eq!(after(0, 86_400_000), 86_400_000_000_000);
    }

    /// A server that stalls for 100 ms of 200 ms and otherwise answers at once: half of the requests
    /// wait, 50 ms on average. A generator with coordinated omission would see one slow request.
    #[test]
    fn a_stalled_server_shows_in_the_percentiles() {
        let schedule = schedule(1_000, 0, 1);
        let window = Window::new(schedule.start, Duration::ZERO, Duration::from_millis(200));
        let Pace::Open(open) = Pace::new(window, Some(schedule)) else { panic!("an open loop") };
        let mut tally = Tally::new().unwrap();
        for millis in 0..200 {
            let now = schedule.start + Duration::from_millis(millis);
            open.release(now);
            let stalls = (50..150).contains(&millis);
            while !stalls && open.taken.get() < open.released.get() {
                tally.record(now - open.take());
            }
        }
        assert_eq!(tally.latency.len(), 200);
        let at = |quantile| tally.latency.value_at_quantile(quantile) / 1_000_000;
        assert_eq!(at(0.25), 0);
        assert!((45..=55).contains(&at(0.75)), "{}", at(0.75));
        assert!((97..=100).contains(&at(0.99)), "{}", at(0.99));
    }

    #[test]
    fn requests_that_were_not_sent_are_counted() {
        let schedule = schedule(100, 0, 1);
        let window = Window::new(schedule.start, Duration::ZERO, Duration::from_millis(50));
        let pace = Pace::new(window, Some(schedule));
        let Pace::Open(open) = &pace else { panic!("an open loop") };
        open.release(schedule.start + Duration::from_secs(1));
        assert_eq!(open.take(), schedule.start);
        assert_eq!(open.take(), schedule.start + Duration::from_millis(10));
        let unsent: Vec<_> =
            pace.unsent().into_iter().map(|time| (time - schedule.start).as_millis()).collect();
        assert_eq!(unsent, [20, 30, 40]);
    }
}
