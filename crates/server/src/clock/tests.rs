//! The time by two simulated clocks.

use std::cell::Cell;

use super::*;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
/// 2026-11-28T00:00:00Z, 2030-01-01T00:00:00Z and 2036-01-01T00:00:00Z.
const STARTED: i64 = 1_795_824_000;
const IN_2030: i64 = 1_893_456_000;
const IN_2036: i64 = 2_082_758_400;

/// A machine that was started at [`STARTED`], with the time of a process on it.
struct Machine {
    boot: Cell<i64>,
    wall: Cell<i64>,
    /// What each read of the boot-time clock takes.
    read_takes: Cell<i64>,
    kept: Kept,
}

impl Clocks for Machine {
    fn boot(&self) -> i64 {
        self.pass_nanos(self.read_takes.get());
        self.boot.get()
    }

    fn wall(&self) -> i64 {
        self.wall.get()
    }
}

impl Machine {
    fn new() -> Self {
        let (boot, wall, read_takes) = Default::default();
        let machine = Self { boot, wall, read_takes, kept: Kept::new() };
        machine.boot.set(7 * SECOND);
        machine.set(STARTED);
        assert_eq!(machine.seconds(), STARTED);
        machine
    }

    /// Sets the wall clock. The next look at it is due.
    fn set(&self, seconds: i64) {
        self.set_nanos(seconds * SECOND);
    }

    fn set_nanos(&self, nanos: i64) {
        self.wall.set(nanos);
        self.kept.looked.store(NEVER, Relaxed);
    }

    fn pass_nanos(&self, nanos: i64) {
        self.boot.set(self.boot.get() + nanos);
        self.wall.set(self.wall.get() + nanos);
    }

    fn pass(&self, seconds: i64) {
        self.pass_nanos(seconds * SECOND);
    }

    fn now(&self) -> Timestamp {
        self.kept.now(self)
    }

    fn seconds(&self) -> i64 {
        self.now().seconds()
    }

    /// Ahead by so many seconds, set forward and set back so many times.
    fn steps(&self) -> (f64, u64, u64) {
        let Steps { seconds, forward, back } = self.kept.steps();
        (seconds.round(), forward, back)
    }
}

#[test]
fn the_clocks_of_the_system_are_plausible() {
    assert!(Clock::System.is_plausible());
    assert!(Clock::System.now() <= Clock::System.now());
    assert!(Clock::Fixed(Timestamp::UNIX_EPOCH).is_plausible());
    let wall = Timestamp::new(System.wall() / SECOND, 0);
    assert!((wall.seconds() - Clock::System.now().seconds()).abs() <= 1);
}

#[test]
fn a_glitch_forward_acts_at_once_and_heals() {
    let machine = Machine::new();
    let expires = Timestamp::new(IN_2030, 0);
    assert!(machine.now() < expires);
    machine.pass(60);
    machine.set(IN_2036);
    assert!(machine.now() >= expires);
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    let ahead = (IN_2036 - STARTED - 60) as f64;
    assert_eq!(machine.steps(), (ahead, 1, 0));
    // Five seconds later it is set right.
    machine.pass(5);
    assert_eq!(machine.seconds(), IN_2036 + 5);
    machine.set(STARTED + 65);
    assert!(machine.now() < expires);
    assert_eq!((machine.seconds(), machine.steps()), (STARTED + 65, (0.0, 1, 1)));
    // Then the time passes as if nothing had been.
    machine.pass(IN_2030 - STARTED - 65);
    assert_eq!(machine.now(), expires);
}

#[test]
fn an_expired_binding_does_not_come_back() {
    let machine = Machine::new();
    let expires = Timestamp::new(STARTED + 10, 0);
    machine.pass(11);
    assert!(machine.now() >= expires);
    machine.set(STARTED + 11 - HOUR);
    for later in 0..10 {
        assert_eq!(machine.seconds(), STARTED + 11 + later);
        machine.pass(1);
    }
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    let behind = -HOUR as f64;
    assert_eq!(machine.steps(), (behind, 0, 1));
    // The time does not stand still either: what ends meanwhile ends in time.
    machine.pass(2 * HOUR);
    assert_eq!(machine.seconds(), STARTED + 21 + 2 * HOUR);
    machine.set(STARTED + 21 + 2 * HOUR);
    assert_eq!((machine.seconds(), machine.steps()), (STARTED + 21 + 2 * HOUR, (0.0, 1, 1)));
}

#[test]
fn a_glitch_back_neither_revives_nor_buries() {
    let machine = Machine::new();
    machine.set(0);
    machine.pass(100);
    assert_eq!(machine.seconds(), STARTED + 100);
    // After a glitch forward it is set back too far.
    machine.set(IN_2036);
    assert_eq!(machine.seconds(), IN_2036);
    machine.set(STARTED - HOUR);
    assert_eq!(machine.seconds(), STARTED + 100);
    machine.set(STARTED + 100);
    assert_eq!(machine.seconds(), STARTED + 100);
}

#[test]
fn a_step_forward_is_undone_in_part_too() {
    let machine = Machine::new();
    machine.set(IN_2036);
    assert_eq!(machine.seconds(), IN_2036);
    machine.set(STARTED + 40);
    assert_eq!(machine.seconds(), STARTED + 40);
    machine.set(STARTED - 40);
    assert_eq!(machine.seconds(), STARTED);
}

#[test]
fn a_step_forward_is_right_after_a_day() {
    for (stood, revived) in [(DAY - 1, true), (DAY, false)] {
        let machine = Machine::new();
        machine.set(STARTED + HOUR);
        assert_eq!(machine.seconds(), STARTED + HOUR);
        machine.pass(stood);
        assert_eq!(machine.seconds(), STARTED + HOUR + stood);
        machine.set(STARTED + stood);
        let undone = STARTED + stood;
        assert_eq!(machine.seconds(), if revived { undone } else { undone + HOUR });
    }
    assert_eq!(CLOCK_STEP_TRUSTED.as_secs(), u64::try_from(DAY).unwrap());
}

#[test]
fn small_changes_are_no_steps() {
    let machine = Machine::new();
    let most = nanos(CLOCK_STEP_MIN) - 1;
    for change in [most, -most, most / 2, -most / 2] {
        machine.pass(1);
        machine.set_nanos(machine.wall.get() + change);
        let _ = machine.now();
        assert_eq!(machine.steps(), (0.0, 0, 0));
    }
    // The time has not gone back with it.
    assert_eq!(machine.now(), Timestamp::new(STARTED + 4, u32::try_from(most).unwrap()));
    machine.pass(1);
    machine.set_nanos(machine.wall.get() + nanos(CLOCK_STEP_MIN));
    let _ = machine.now();
    assert_eq!(machine.steps().1, 1);
}

#[test]
fn a_suspended_machine_sees_no_step() {
    let machine = Machine::new();
    machine.pass(7 * DAY);
    assert_eq!((machine.seconds(), machine.steps()), (STARTED + 7 * DAY, (0.0, 0, 0)));
}

#[test]
fn the_wall_clock_is_looked_at_every_millisecond() {
    let machine = Machine::new();
    machine.wall.set(IN_2036 * SECOND);
    machine.boot.set(machine.boot.get() + nanos(CLOCK_LOOK) - 1);
    assert_eq!(machine.seconds(), STARTED);
    machine.boot.set(machine.boot.get() + 1);
    assert_eq!(machine.seconds(), IN_2036);
}

/// A thread that sleeps between two reads would see a step that was none.
#[test]
fn an_interrupted_look_sees_no_step() {
    let machine = Machine::new();
    machine.read_takes.set(SECOND);
    for _ in 0..3 {
        let _ = machine.now();
    }
    assert_eq!(machine.steps(), (0.0, 0, 0));
    machine.read_takes.set(0);
    machine.pass(1);
    let _ = machine.now();
    assert_eq!(machine.steps(), (0.0, 0, 0));
}
