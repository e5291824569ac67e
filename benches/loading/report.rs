//! What was measured, as a table of Markdown and as JSON.

use std::fmt::Write as _;

use capstan_benches::clock::Spread;
use serde_json::json;

use crate::served::Run;
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

// === The program itself ===

/// The starts of one program, on one world.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) program: String,
    pub(crate) world: &'static str,
    pub(crate) bindings: usize,
    pub(crate) document_bytes: usize,
    /// As many as of the program that it is compared with; those of one place were neighbours in time.
    pub(crate) runs: Vec<Run>,
}

/// A figure of a run: its name in tables, its name in JSON, its unit in tables and their number in the unit of
/// JSON, which is seconds or bytes.
type Figure = (&'static str, &'static str, &'static str, f64, fn(&Run) -> f64);

const FIGURES: [Figure; 6] = [
    ("time to ready", "ready_s", "s", 1.0, |run| run.ready),
    ("CPU to ready", "ready_cpu_s", "s", 1.0, |run| run.ready_cpu),
    ("peak RSS to ready", "ready_peak_bytes", "MB", 1e6, |run| run.ready_peak),
    ("RSS at ready", "ready_rss_bytes", "MB", 1e6, |run| run.ready_memory),
    ("time to first changed answer", "changed_s", "s", 1.0, |run| run.changed),
    ("peak RSS of the change", "changed_peak_bytes", "MB", 1e6, |run| run.changed_peak),
];

/// A row a figure: of each program median, least and most; of two the quartiles of the second over the first, pair
/// by pair.
pub(crate) fn started_table(started: &[Started]) -> String {
    let mut text = String::new();
    for pair in started.chunk_by(|a, b| a.world == b.world) {
        let Some(first) = pair.first() else { continue };
        let megabytes = first.document_bytes as f64 / 1e6;
        let _ = write!(
            text,
            "{}, {} bindings, {megabytes:.0} MB of JSON, {} runs\n\n| |",
            first.world,
            first.bindings,
            first.runs.len(),
        );
        for one in pair {
            let _ = write!(text, " {} |", one.program);
        }
        text.push_str(if pair.len() > 1 { " ratio: quartiles |\n" } else { "\n" });
        let columns = 1 + pair.len() + usize::from(pair.len() > 1);
        let _ = writeln!(text, "|{}", "---|".repeat(columns));
        for figure in FIGURES {
            let (name, _, unit, scale, value) = figure;
            let _ = write!(text, "| {name}, {unit} |");
            for one in pair {
                let spread = Spread::of(one.runs.iter().map(|run| value(run) / scale));
                let Spread { median, low, high } = spread;
                let _ = write!(text, " {median:.2} ({low:.2}–{high:.2}) |");
            }
            if let Some([low, median, high]) = ratios(pair, value) {
                let _ = write!(text, " {low:.3}, {median:.3}, {high:.3} |");
            }
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

/// The quartiles of the second program over the first, pair by pair.
fn ratios(pair: &[Started], value: fn(&Run) -> f64) -> Option<[f64; 3]> {
    let [first, second] = pair else { return None };
    let both = first.runs.iter().zip(&second.runs);
    let mut ratios: Vec<f64> = both.map(|(a, b)| value(b) / value(a)).collect();
    ratios.sort_by(f64::total_cmp);
    // Between two neighbours by their distance.
    let at = |quarters: usize| {
        let (before, part) = ((ratios.len() - 1) * quarters / 4, (ratios.len() - 1) * quarters % 4);
        let lower = *ratios.get(before)?;
        let upper = *ratios.get(before + 1).unwrap_or(&lower);
        Some(lower + (upper - lower) * part as f64 / 4.0)
    };
    Some([at(1)?, at(2)?, at(3)?])
}

/// An object a program and world, with every run.
pub(crate) fn started_json(started: &[Started]) -> anyhow::Result<String> {
    let run = |run: &Run| -> serde_json::Map<String, serde_json::Value> {
        FIGURES
            .iter()
            .map(|(_, name, _, _, value)| ((*name).to_owned(), json!(value(run))))
            .collect()
    };
    let one = |one: &Started| {
        let runs: Vec<_> = one.runs.iter().map(run).collect();
        json!({
            "program": one.program,
            "world": one.world,
            "bindings": one.bindings,
            "document_bytes": one.document_bytes,
            "runs": runs,
        })
    };
    let all: Vec<_> = started.iter().map(one).collect();
    Ok(serde_json::to_string_pretty(&all)? + "\n")
}
