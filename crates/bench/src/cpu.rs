//! What CPU a process on this machine has used.

use std::time::Duration;

/// Clock ticks a second: Linux shows the same number to every program, whatever it counts in.
const TICKS_PER_SECOND: u32 = 100;

/// CPU that a process has used since it started, its ended threads included; nothing if there is no
/// such process here, or the system has no `/proc`.
pub fn used(pid: u32) -> Option<Duration> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// User and system time of a `/proc/PID/stat`.
fn parse(stat: &str) -> Option<Duration> {
    // The second field is the program's name in brackets, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11);
    let (user, system): (u32, u32) = (times.next()?.parse().ok()?, times.next()?.parse().ok()?);
    Some(Duration::from_secs(1) * (user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_programs_do_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 37 0 0 20 0 4 0 99 1 1";
        assert_eq!(parse(stat), Some(Duration::from_millis(2_870)));
        assert_eq!(parse("7 (x) S 1"), None);
        assert_eq!(parse(""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_used_some() {
        let before = used(std::process::id()).unwrap();
        // Enough for many ticks, whatever the machine.
        while used(std::process::id()).unwrap() == before {
            std::hint::black_box((0..1_000_000).sum::<u64>());
        }
        assert_eq!(used(u32::MAX), None);
    }
}
