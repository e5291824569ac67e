//! The figures of `capstan bench` as tables.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::figures::thousands;
use crate::output;
use capstan_bench::against::Median;
use capstan_bench::figures::{as_f64, duration};
use capstan_bench::load::ErrorName;
use capstan_bench::report::{Comparison, Report};

/// The width of the longest bar, in columns.
const BAR: u64 = 40;

/// One run: a table and a latency histogram.
pub(crate) fn report(report: &Report, nanos: &Histogram<u64>) -> anyhow::Result<()> {
    output::line(heading(report))?;
    let mut table = output::table(["", &report.target]);
    for (name, value) in rows(report) {
        table.add_row([name, value]);
    }
    output::line(table)?;
    output::line(spread(nanos))?;
    output::line(verdict(report))
}

/// The server and the yardstick side by side, and their ratios.
pub(crate) fn comparison(comparison: &Comparison) -> anyhow::Result<()> {
    let Comparison { server, yardstick, pairs, cpu_ratio, rate_ratio } = comparison;
    output::line(heading(server))?;
    let mut table = output::table(["", &server.target, &yardstick.target]);
    for ((name, ours), (_, theirs)) in rows(server).into_iter().zip(rows(yardstick)) {
        table.add_row([name, ours, theirs]);
    }
    output::line(table)?;
    let pairs = pairs.len();
    output::line(ratio("CPU a check", *cpu_ratio, pairs))?;
    output::line(ratio("checks a second", *rate_ratio, pairs))?;
    output::line(verdict(server))
}

fn heading(report: &Report) -> String {
    let Report { mode, connections, in_flight, threads, checks_per_request, .. } = report;
    let loop_kind = report.rate.map_or("closed loop".into(), |rate| {
        format!("open loop at {} requests/s", thousands(as_f64(rate)))
    });
    let mode = format!("{mode:?}").to_lowercase();
    let per =
        if *checks_per_request > 1 { format!(" of {checks_per_request}") } else { String::new() };
    format!(
        "{mode}{per}, {connections} × {in_flight} in flight, {loop_kind}, {:.1} s, generator threads: \
         {threads}",
        report.seconds
    )
}

fn rows(report: &Report) -> Vec<(String, String)> {
    let latency = &report.latency_us;
    let cpu =
        |micros: Option<f64>| micros.map_or("unknown".into(), |micros| format!("{micros:.2} µs"));
    let mut rows = vec![
        ("checks/s", thousands(report.checks_per_second)),
        ("requests/s", thousands(report.requests_per_second)),
        ("allowed", thousands(as_f64(report.allowed))),
        ("denied", thousands(as_f64(report.denied))),
        ("errors", codes(&report.errors)),
    ];
    if !report.check_errors.is_empty() {
        rows.push(("errors in batches", codes(&report.check_errors)));
    }
    if report.unanswered + report.unsent > 0 {
        let text = format!("{} unanswered, {} unsent", report.unanswered, report.unsent);
        rows.push(("too late", text));
    }
    rows.extend([
        ("p50", duration(latency.p50)),
        ("p90", duration(latency.p90)),
        ("p99", duration(latency.p99)),
        ("p99.9", duration(latency.p99_9)),
        ("p99.99", duration(latency.p99_99)),
        ("max", duration(latency.max)),
        ("server CPU a check", cpu(report.server_cpu_us_per_check)),
        ("generator CPU a check", cpu(report.client_cpu_us_per_check)),
    ]);
    rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn codes(codes: &BTreeMap<ErrorName, u64>) -> String {
    if codes.is_empty() {
        return "0".into();
    }
    let all = codes.iter().map(|(code, count)| format!("{count} {code}"));
    all.collect::<Vec<_>>().join(", ")
}

/// A latency histogram with logarithmic buckets, each twice as wide as the one before.
fn spread(nanos: &Histogram<u64>) -> String {
    let first = nanos.value_at_quantile(0.001).next_power_of_two().max(2) / 2;
    let mut rows: Vec<_> = nanos
        .iter_log(first, 2.0)
        .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
        .collect();
    rows.retain(|(_, count)| *count > 0);
    let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(1);
    let row = |(until, count): (u64, u64)| {
        // At least one column, so that single slow requests are visible.
        let length = usize::try_from((count * BAR).div_ceil(most)).unwrap_or_default();
        format!("  up to {:>9}  {:<40}  {count}", duration(as_f64(until) / 1e3), "█".repeat(length))
    };
    rows.into_iter().map(row).collect::<Vec<_>>().join("\n")
}

fn ratio(what: &str, median: Option<Median>, pairs: usize) -> String {
    match median {
        Some(Median { median, low, high, confidence }) => format!(
            "{what}, over the yardstick's: {median:.3} (median of {pairs} pairs; {:.1} % interval \
             {low:.3} to {high:.3})",
            confidence * 100.0
        ),
        None => format!("{what}, over the yardstick's: unknown"),
    }
}

fn verdict(report: &Report) -> String {
    let (sound, malformed) = (report.is_sound(), report.malformed);
    let wrong = match report.wrong {
        Some(wrong) => format!("{wrong} wrong"),
        None => "not compared (--verify does)".into(),
    };
    let what = format!("{} checks answered, {malformed} malformed, {wrong}", report.checks);
    format!("{}  {what}", output::verdict(sound, if sound { "sound" } else { "unsound" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_slow_requests_are_visible_in_the_histogram() {
        let mut nanos = Histogram::new_with_max(10_000_000_000, 3).unwrap();
        nanos.record_n(20_000, 1_000_000).unwrap();
        nanos.record(5_000_000_000).unwrap();
        let spread = spread(&nanos);
        let lines: Vec<_> = spread.lines().collect();
        assert_eq!(lines.len(), 2, "{spread}");
        assert!(lines[0].contains(&"█".repeat(40)) && lines[0].ends_with(" 1000000"), "{spread}");
        assert!(lines[1].contains(" █ ") && lines[1].ends_with(" 1"), "{spread}");
    }
}
