//! Numbers as text for people, mostly two or three digits and a unit.

use std::time::Duration;

use indicatif::HumanFloatCount;

use crate::top::{Count, Quantile};

/// The rate of a count, or its total if there is no rate.
pub(crate) fn count(count: Count) -> String {
    match count.per_second {
        Some(rate) => short(rate),
        #[expect(clippy::cast_precision_loss, reason = "nobody sees 16 digits")]
        None if count.count > 9_999 => short(count.count as f64),
        None => count.count.to_string(),
    }
}

/// A number in at most five characters: `0`, `0.2`, `12`, `1.2k`, `340M`.
pub(crate) fn short(number: f64) -> String {
    let mut scaled = number;
    for unit in ["", "k", "M", "G"] {
        if scaled == 0.0 {
            return "0".into();
        }
        // A number that rounds to 1000 belongs to the next unit.
        if scaled < 9.95 {
            return format!("{scaled:.1}{unit}");
        }
        if scaled < 999.5 {
            return format!("{scaled:.0}{unit}");
        }
        scaled /= 1e3;
    }
    ">999G".into()
}

/// A share from 0 to 1 in percent: `12.5 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A latency quantile: `21 µs`, `>1.0 s` beyond the histogram's range, `-` without calls.
pub(crate) fn quantile(quantile: Option<Quantile>) -> String {
    match quantile {
        Some(Quantile { seconds: time, beyond: false }) => seconds(time),
        Some(Quantile { seconds: time, beyond: true }) => format!(">{}", seconds(time)),
        None => "-".into(),
    }
}

/// A duration in seconds, in µs, ms or s.
pub(crate) fn seconds(seconds: f64) -> String {
    let (scaled, unit) = match seconds {
        // A number that rounds to 1000 belongs to the next unit.
        _ if seconds < 999.5e-6 => (seconds * 1e6, "µs"),
        _ if seconds < 999.5e-3 => (seconds * 1e3, "ms"),
        _ => (seconds, "s"),
    };
    if scaled < 9.95 { format!("{scaled:.1} {unit}") } else { format!("{scaled:.0} {unit}") }
}

/// The time since an event, in its largest unit: `5 min ago`.
pub(crate) fn ago(seconds: i64) -> String {
    // The server's clock may be ahead of this machine's.
    let seconds = seconds.max(0);
    let (count, unit) = match seconds {
        0..60 => (seconds, "s"),
        60..3_600 => (seconds / 60, "min"),
        3_600..172_800 => (seconds / 3_600, "h"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit} ago")
}

/// The interval between two scrapes: `1 s`, `0.25 s`.
pub(crate) fn interval(interval: Duration) -> String {
    format!("{} s", interval.as_secs_f64())
}

/// A number without decimals, in groups of three digits: `1,234,568`.
pub(crate) fn thousands(number: f64) -> String {
    HumanFloatCount(number.round()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        assert_eq!(
            [0.4, 999.0, 1_000.0, 1_234_567.8].map(thousands),
            ["0", "999", "1,000", "1,234,568"]
        );
    }

    #[test]
    fn figures_have_few_digits_and_a_unit() {
        let shorts = [
            (0.0, "0"),
            (0.04, "0.0"),
            (0.25, "0.2"),
            (9.94, "9.9"),
            (9.96, "10"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (12_345.0, "12k"),
            (999_600.0, "1.0M"),
            (5e9, "5.0G"),
            (1e13, ">999G"),
        ];
        for (number, text) in shorts {
            assert_eq!(short(number), text, "{number}");
        }
        let times = [
            (0.0, "0.0 µs"),
            (0.000_021_4, "21 µs"),
            (0.000_999_6, "1.0 ms"),
            (0.012, "12 ms"),
            (0.999_6, "1.0 s"),
            (75.0, "75 s"),
        ];
        for (time, text) in times {
            assert_eq!(seconds(time), text, "{time}");
        }
        let agos = [
            (-5, "0 s ago"),
            (59, "59 s ago"),
            (60, "1 min ago"),
            (7_199, "1 h ago"),
            (172_800, "2 days ago"),
        ];
        for (time, text) in agos {
            assert_eq!(ago(time), text, "{time}");
        }
        assert_eq!(quantile(Some(Quantile { seconds: 1.0, beyond: true })), ">1.0 s");
        assert_eq!(quantile(None), "-");
        assert_eq!(count(Count { count: 1_234, per_second: None }), "1234");
        assert_eq!(count(Count { count: 12_340, per_second: None }), "12k");
        assert_eq!(count(Count { count: 1, per_second: Some(0.5) }), "0.5");
        assert_eq!(percent(1.0), "100.0 %");
        assert_eq!(interval(Duration::from_millis(250)), "0.25 s");
    }
}
