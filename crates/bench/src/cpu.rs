//! CPU time of processes on this machine, from `/proc`.

use std::time::Duration;

/// `USER_HZ`: the unit of times in `/proc/PID/stat`. Linux reports 100 ticks a second to user space on
/// every common architecture (proc(5), `sysconf(_SC_CLK_TCK)`).
const TICKS_PER_SECOND: u32 = 100;

/// User and system CPU time of a process since its start, including threads that have ended. `None` if
/// there is no such process, or the system has no `/proc`.
#[must_use]
pub fn used(pid: u32) -> Option<Duration> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// User and system time of a line of `/proc/PID/stat`.
fn parse(stat: &str) -> Option<Duration> {
    // Field 2 is the program's name in parentheses, which may contain spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11);
    let (user, system): (u32, u32) = (times.next()?.parse().ok()?, times.next()?.parse().ok()?);
    Some(Duration::from_secs(1) * (user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_names_do_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 37 0 0 20 0 4 0 99 1 1";
        assert_eq!(parse(stat), Some(Duration::from_millis(2_870)));
        assert_eq!(parse("7 (x) S 1"), None);
        assert_eq!(parse(""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_cpu_time_of_this_process_grows() {
        let before = used(std::process::id()).unwrap();
        // At least one tick, however fast the machine is.
        while used(std::process::id()).unwrap() == before {
            std::hint::black_box((0..1_000_000).sum::<u64>());
        }
        assert_eq!(used(u32::MAX), None);
    }
}
