//! Numbers of a report as text for people.

/// A count as a floating-point number. Counts here are far below 2^53, so it is exact.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
pub const fn as_f64(count: u64) -> f64 {
    count as f64
}

/// A duration given in microseconds, in µs, ms or s: `7.2 µs`, `1.50 ms`, `2.00 s`.
#[must_use]
pub fn duration(micros: f64) -> String {
    match micros {
        ..1e3 => format!("{micros:.1} µs"),
        ..1e6 => format!("{:.2} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

/// The percentile with this number of nines: 0 is `0%`, 1 is `90%`, 2 is `99%`. Empty for a number
/// that is not whole.
pub(crate) fn percentile(nines: f64) -> String {
    if (nines - nines.round()).abs() > 1e-6 {
        return String::new();
    }
    let percent = 100.0 - 10.0_f64.powf(2.0 - nines);
    let text = format!("{percent:.6}");
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_percentiles_few_digits() {
        let labels = [0.0, 1.0, 2.0, 2.5, 3.0, 4.0].map(percentile);
        assert_eq!(labels, ["0%", "90%", "99%", "", "99.9%", "99.99%"]);
        let durations = [7.25, 999.9, 1_500.0, 2_000_000.0].map(duration);
        assert_eq!(durations, ["7.2 µs", "999.9 µs", "1.50 ms", "2.00 s"]);
    }
}
