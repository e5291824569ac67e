//! When each request is sent: when another one ends (closed loop), or at its time (open loop).
//!
//! **Invariant**: in an open loop a request's latency counts from the time that it was meant to be
//! sent at, whether or not it could be. A server that stalls delays the requests behind it too, and
//! all of that is seen: nothing is left out because the generator had to wait as well.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// From when on requests are sent, from when on they count, and when it is over.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub start: Instant,
    pub measured: Instant,
    pub end: Instant,
}

impl Window {
    pub fn new(start: Instant, warm_up: Duration, duration: Duration) -> Self {
        let measured = start + warm_up;
        Self { start, measured, end: measured + duration }
    }

    /// Whether what happens at this time counts.
    pub fn measures(&self, time: Instant) -> bool {
        (self.measured..self.end).contains(&time)
    }
}

/// The times of an open loop: evenly spaced, and dealt out to the threads in turn.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    pub start: Instant,
    /// Requests a second, of all threads.
    pub rate: u64,
    pub thread: u64,
    pub threads: u64,
}

impl Schedule {
    /// When this thread's request of this number, from 0, is meant to be sent.
    pub fn at(&self, number: u64) -> Instant {
        let number = u128::from(number) * u128::from(self.threads) + u128::from(self.thread);
        let nanos = number * 1_000_000_000 / u128::from(self.rate.max(1));
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 4))
    }
}

/// Says when to send.
#[derive(Debug)]
pub enum Pace {
    /// As soon as a place in flight is free.
    Closed(Window),
    /// At its time, or late if no place in flight was free then.
    Open(Open),
}

/// An open loop: a permit for each request that is due and that nobody has taken yet.
#[derive(Debug)]
pub struct Open {
    window: Window,
    schedule: Schedule,
    due: Semaphore,
    released: Cell<u64>,
    taken: Cell<u64>,
}

impl Pace {
    pub fn new(window: Window, schedule: Option<Schedule>) -> Self {
        let Some(schedule) = schedule else {
            return Self::Closed(window);
        };
        let due = Semaphore::new(0);
        Self::Open(Open { window, schedule, due, released: Cell::new(0), taken: Cell::new(0) })
    }

    /// Waits until a request may be sent; answers when it was meant to be, or nothing when it is
    /// over. In a closed loop one that follows another at once begins when that one has ended.
    pub async fn next(&self, ended: Option<Instant>) -> Option<Instant> {
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

    /// Releases requests as they fall due, until the end.
    pub async fn run(&self) -> io::Result<()> {
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

    /// For each request that was due and that nobody could send before the end: when it was due.
    pub fn unsent(&self) -> Vec<Instant> {
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
    /// Makes everything due that is due at this time.
    fn release(&self, now: Instant) {
        let before = self.released.get();
        let mut released = before;
        while self.schedule.at(released) <= now && self.schedule.at(released) < self.window.end {
            released += 1;
        }
        self.released.set(released);
        self.due.add_permits(usize::try_from(released - before).unwrap_or(usize::MAX >> 4));
    }

    fn take(&self) -> Instant {
        let number = self.taken.get();
        self.taken.set(number + 1);
        self.schedule.at(number)
    }
}

/// A timer finer than tokio's, which counts in milliseconds: at 50,000 requests a second fifty are
/// due in one.
///
/// To tokio it is a pipe: a descriptor that becomes readable, without unsafe code here.
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
            // Let those that are due be sent.
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

/// tokio's timer: latencies are up to a millisecond too high at low rates.
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
    fn requests_are_spaced_evenly_and_dealt_out_to_the_threads() {
        let schedules = [0, 1, 2].map(|thread| schedule(3_000, thread, 3));
        let after = |thread: usize, number| {
            (schedules[thread].at(number) - schedules[thread].start).as_nanos()
        };
        assert_eq!([after(0, 0), after(1, 0), after(2, 0)], [0, 333_333, 666_666]);
        assert_eq!([after(0, 1), after(1, 1), after(2, 1)], [1_000_000, 1_333_333, 1_666_666]);
        // No error adds up: after a day the times are still exact.
        assert_eq!(after(0, 86_400_000), 86_400_000_000_000);
    }

    /// A server answers at once, but not at all for 100 ms of the 200 ms: half of the requests wait,
    /// 50 ms on average. A generator that only counted from when it sent would see one slow request.
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
                tally.waited(now - open.take());
            }
        }
        assert_eq!(tally.latency.len(), 200);
        let at = |quantile| tally.latency.value_at_quantile(quantile) / 1_000_000;
        assert_eq!(at(0.25), 0);
        assert!((45..=55).contains(&at(0.75)), "{}", at(0.75));
        assert!((97..=100).contains(&at(0.99)), "{}", at(0.99));
    }

    #[test]
    fn what_could_not_be_sent_is_known() {
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
