//! The time of a request. It is read once for a call and used for all of it.
//!
//! Two clocks together give the time. The boot-time clock counts on while the machine sleeps, and nobody can
//! set it. The wall clock says which time that is; its *offset* is its distance from the boot-time clock.
//!
//! **Invariants**: a wall clock that is set forward is followed at once, and followed back when it
//! returns. The time is never less than what the boot-time clock projects from before that step: a wall
//! clock that is set back further is not followed, or else expired bindings and credentials would count
//! again. A step that has stood for [`CLOCK_STEP_TRUSTED`] is right.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use capstan_engine::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::limits::{CLOCK_LOOK, CLOCK_STEP_MIN, CLOCK_STEP_TRUSTED};

/// 2026-01-01T00:00:00Z. The system clock of a machine that runs this is wrong if it shows less.
const EARLIEST_SECONDS: i64 = 1_767_225_600;
const SECOND: i64 = 1_000_000_000;

/// The clock that counts on while the machine sleeps.
#[cfg(target_os = "linux")]
const BOOT_TIME: ClockId = ClockId::Boottime;
/// Elsewhere this one does.
#[cfg(not(target_os = "linux"))]
const BOOT_TIME: ClockId = ClockId::Monotonic;

/// Reads of both clocks in one look. If the system interrupts all of them, the next look tries again.
const READS_MAX: usize = 4;
/// Longest time between the two reads of the boot-time clock around one of the wall clock.
const READ_NANOS_MAX: i64 = SECOND / 10_000;

/// The time of this process.
static SYSTEM: Kept = Kept::new();

/// The source of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// The clocks of the system.
    #[default]
    System,
    /// A fixed time, for questions about another time than now.
    Fixed(Timestamp),
}

impl Clock {
    /// The current time. With [`Clock::System`] it goes back only when a step forward is undone.
    #[must_use]
    pub fn now(self) -> Timestamp {
        match self {
            Self::System => SYSTEM.now(&System),
            Self::Fixed(time) => time,
        }
    }

    /// Whether the time can be right. A machine without a battery starts in 1970, where nothing has
    /// expired yet.
    #[must_use]
    pub fn is_plausible(self) -> bool {
        match self {
            Self::System => self.now() >= Timestamp::new(EARLIEST_SECONDS, 0),
            Self::Fixed(_) => true,
        }
    }
}

/// What the system clock has done, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Steps {
    /// Seconds that it is ahead of what the boot-time clock projects; negative if it is behind.
    pub(crate) seconds: f64,
    /// Times that it was set forward.
    pub(crate) forward: u64,
    /// Times that it was set back.
    pub(crate) back: u64,
}

/// The steps of the system clock since this process started.
pub(crate) fn steps() -> Steps {
    SYSTEM.look(&System);
    SYSTEM.steps()
}

/// Both clocks, in nanoseconds. Tests simulate them.
trait Clocks {
    fn boot(&self) -> i64;
    fn wall(&self) -> i64;
}

struct System;

impl Clocks for System {
    fn boot(&self) -> i64 {
        let time = clock_gettime(BOOT_TIME);
        time.tv_sec.saturating_mul(SECOND).saturating_add(time.tv_nsec)
    }

    /// A clock before 1970 reads as 1970, one after 2262 as 2262.
    fn wall(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }
}

/// The time as it is kept from both clocks. A call reads the boot-time clock and adds the offset. Every
/// [`CLOCK_LOOK`], one call looks at the wall clock, too.
struct Kept {
    /// What is added to the boot-time clock, in nanoseconds.
    offset: AtomicI64,
    /// When somebody last looked at the wall clock, by the boot-time clock; [`NEVER`] before the first look.
    looked: AtomicI64,
    offsets: Mutex<Offsets>,
}

const NEVER: i64 = i64::MIN;

struct Offsets {
    /// Of the wall clock, when somebody last looked.
    wall: i64,
    /// The least that is added to the boot-time clock.
    floor: i64,
    /// When the wall clock was last set, by the boot-time clock.
    since: i64,
    forward: u64,
    back: u64,
}

impl Kept {
    const fn new() -> Self {
        let offsets = Offsets { wall: 0, floor: 0, since: 0, forward: 0, back: 0 };
        Self {
            offset: AtomicI64::new(NEVER),
            looked: AtomicI64::new(NEVER),
            offsets: Mutex::new(offsets),
        }
    }

    fn now(&self, clocks: &impl Clocks) -> Timestamp {
        let boot = clocks.boot();
        let looked = self.looked.load(Relaxed);
        let due = boot.saturating_sub(looked) >= nanos(CLOCK_LOOK)
            && self.looked.compare_exchange(looked, boot, Relaxed, Relaxed).is_ok();
        let mut offset = self.offset.load(Relaxed);
        if due || offset == NEVER {
            offset = self.look(clocks);
        }
        let now = boot.saturating_add(offset).max(0);
        Timestamp::new(now / SECOND, u32::try_from(now % SECOND).unwrap_or_default())
    }

    /// Looks at the wall clock. Returns what is to be added to the boot-time clock.
    #[cold]
    fn look(&self, clocks: &impl Clocks) -> i64 {
        let mut offsets = self.offsets.lock().unwrap_or_else(PoisonError::into_inner);
        let first = self.offset.load(Relaxed) == NEVER;
        let (mut before, mut wall) = (clocks.boot(), clocks.wall());
        let mut after = clocks.boot();
        for _ in 1..READS_MAX {
            if after - before <= READ_NANOS_MAX {
                break;
            }
            (before, wall, after) = (clocks.boot(), clocks.wall(), clocks.boot());
        }
        if first {
            (offsets.wall, offsets.floor, offsets.since) = (wall - after, wall - after, after);
        } else if after - before <= READ_NANOS_MAX {
            offsets.observe(wall - after, after);
        }
        let offset = offsets.wall.max(offsets.floor);
        self.offset.store(offset, Relaxed);
        offset
    }

    #[expect(clippy::cast_precision_loss, reason = "a step needs no 16 digits")]
    fn steps(&self) -> Steps {
        let Offsets { wall, floor, forward, back, .. } =
            *self.offsets.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead = wall.saturating_sub(floor);
        let counts = ahead.saturating_abs() >= nanos(CLOCK_STEP_MIN);
        let seconds = if counts { ahead as f64 / SECOND as f64 } else { 0.0 };
        Steps { seconds, forward, back }
    }
}

impl Offsets {
    /// Takes the offset that the wall clock has now.
    fn observe(&mut self, wall: i64, boot: i64) {
        let step = wall.saturating_sub(self.wall);
        self.wall = wall;
        let ahead = wall.saturating_sub(self.floor);
        if step.saturating_abs() >= nanos(CLOCK_STEP_MIN) {
            self.since = boot;
            if step > 0 {
                self.forward += 1;
            } else {
                self.back += 1;
            }
            log(step, ahead);
        }
        let stood = boot.saturating_sub(self.since) >= nanos(CLOCK_STEP_TRUSTED);
        if ahead > 0 && (ahead < nanos(CLOCK_STEP_MIN) || stood) {
            self.floor = wall;
        }
    }
}

/// Logs a step, once.
#[expect(clippy::cast_precision_loss, reason = "a step needs no 16 digits")]
fn log(step: i64, ahead: i64) {
    let seconds = step as f64 / SECOND as f64;
    if step > 0 {
        tracing::warn!(seconds, "the system clock was set forward, which is followed");
    } else if ahead > -nanos(CLOCK_STEP_MIN) {
        tracing::warn!(seconds, "the system clock was set back to where it was, which is followed");
    } else {
        tracing::warn!(
            seconds,
            "the system clock was set back, which is not followed: expired bindings would count \
             again; if it was wrong before, restart the server"
        );
    }
}

const fn nanos(time: std::time::Duration) -> i64 {
    time.as_secs() as i64 * SECOND + time.subsec_nanos() as i64
}

#[cfg(test)]
mod tests;
