//! The figures of two servers as a table.

use std::fmt::Write as _;

use crate::load::Figures;

/// One load, and the figures of both servers in the order of the pairs.
pub(crate) struct Row {
    load: String,
    names: [String; 2],
    figures: [Vec<Figures>; 2],
}

impl Row {
    pub(crate) fn new(load: String, names: [String; 2]) -> Self {
        Self { load, names, figures: [Vec::new(), Vec::new()] }
    }

    pub(crate) fn add(&mut self, at: usize, figures: Figures) {
        if let Some(all) = self.figures.get_mut(at) {
            all.push(figures);
        }
    }

    /// One line of the table: a figure of both servers, and the ratio of the second to the first.
    fn line(&self, what: &str, figure: impl Fn(&Figures) -> Option<f64>) -> Option<String> {
        let all = self.figures.each_ref().map(|all| all.iter().filter_map(&figure).collect());
        let [first, second]: [Vec<f64>; 2] = all;
        let ratios: Vec<f64> = first.iter().zip(&second).map(|(a, b)| b / a).collect();
        let ratio = [2, 1, 3].map(|number| quartile(&ratios, number));
        let ([first, second], [ratio, low, high]) =
            ([&first, &second].map(|all| quartile(all, 2)), ratio);
        let ((first, second), (low, high)) = ((first?, second?), (low?, high?));
        let (load, ratio, pairs) = (&self.load, ratio?, ratios.len());
        Some(format!(
            "| {load} | {what} | {first:.2} | {second:.2} | {ratio:.3} [{low:.3}, {high:.3}] | {pairs} |\n"
        ))
    }
}

/// The table, with medians, and of the ratios in brackets the quartiles.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    if let Some(Row { names: [first, second], .. }) = rows.first() {
        let _ = writeln!(text, "| load | µs | {first} | {second} | ratio | pairs |");
        text.push_str("|---|---|---:|---:|---:|---:|\n");
    }
    for row in rows {
        text.extend(row.line("CPU a call", |figures| match figures {
            Figures::Cpu(cpu) => Some(*cpu),
            Figures::Latency { .. } => None,
        }));
        text.extend(row.line("p50", |figures| match figures {
            Figures::Latency { p50, .. } => Some(*p50),
            Figures::Cpu(_) => None,
        }));
        text.extend(row.line("p99", |figures| match figures {
            Figures::Latency { p99, .. } => Some(*p99),
            Figures::Cpu(_) => None,
        }));
    }
    text
}

/// The quartile with this number, from 0 to 4, by linear interpolation; `None` without values.
fn quartile(values: &[f64], number: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let quarters = sorted.len().checked_sub(1)? * number;
    let below = sorted.get(quarters / 4)?;
    let above = sorted.get(quarters.div_ceil(4))?;
    Some(below + (above - below) * (quarters % 4) as f64 / 4.0)
}
