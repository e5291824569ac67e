//! What was measured, as a table of Markdown and as JSON.

use std::fmt::Write as _;

use capstan_benches::clock::Spread;
use serde_json::json;

use crate::steps::Step;

/// A step of a world, over all rounds.
#[derive(Debug)]
pub(crate) struct Row {
    world: &'static str,
    step: &'static str,
    bindings: usize,
    /// CPU milliseconds.
    cpu: Spread,
    /// Wall milliseconds.
    wall: Spread,
    /// Bytes.
    peak: Spread,
    /// Bytes.
    kept: Spread,
}

/// The steps in their order; each round has the same.
pub(crate) fn rows(world: &'static str, rounds: &[Vec<Step>]) -> Vec<Row> {
    let first = rounds.first().map(Vec::as_slice).unwrap_or_default();
    let of_step = |at: usize, value: fn(&Step) -> f64| {
        Spread::of(rounds.iter().filter_map(|round| round.get(at)).map(value))
    };
    let row = |(at, step): (usize, &Step)| Row {
        world,
        step: step.name,
        bindings: step.bindings,
        cpu: of_step(at, |step| step.cost.cpu / 1e6),
        wall: of_step(at, |step| step.cost.wall / 1e6),
        peak: of_step(at, |step| step.peak as f64),
        kept: of_step(at, |step| step.kept as f64),
    };
    first.iter().enumerate().map(row).collect()
}

/// Medians; of CPU time also the least and the most.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| world | step | CPU ms | ns a binding | peak bytes a binding | bytes a binding that stay |\n\
         |---|---|---:|---:|---:|---:|\n",
    );
    for Row { world, step, bindings, cpu, peak, kept, .. } in rows {
        let each = |value: f64| value / *bindings as f64;
        let _ = writeln!(
            text,
            "| {world} | {step} | {:.1} ({:.1}–{:.1}) | {:.0} | {:.1} | {:.1} |",
            cpu.median,
            cpu.low,
            cpu.high,
            each(cpu.median * 1e6),
            each(peak.median),
            each(kept.median),
        );
    }
    text
}

/// An object a row. Every spread is an array of median, least and most.
pub(crate) fn json(rows: &[Row]) -> anyhow::Result<String> {
    let spread = |Spread { median, low, high }: Spread| json!([median, low, high]);
    let row = |row: &Row| {
        json!({
            "world": row.world,
            "step": row.step,
            "bindings": row.bindings,
            "cpu_ms": spread(row.cpu),
            "wall_ms": spread(row.wall),
            "peak_bytes": spread(row.peak),
            "kept_bytes": spread(row.kept),
        })
    };
    let rows: Vec<_> = rows.iter().map(row).collect();
    Ok(serde_json::to_string_pretty(&rows)? + "\n")
}
