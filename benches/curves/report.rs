//! Curves and goals as JSON and as Markdown tables, and their files.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs};

use anyhow::{Context as _, ensure};
use capstan_benches::clock::Spread;
use serde_json::{Value as Json, json};

use crate::choices::Choice;
use crate::plot;

/// A curve: a quantity as a function of a size.
#[derive(Debug)]
pub(crate) struct Curve {
    /// The name of its files.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) series: Vec<Series>,
    /// The names of two series. The table shows their ratio.
    pub(crate) ratio: Option<(&'static str, &'static str)>,
}

/// One line of a curve.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<Point>,
}

/// Times with a spread, or exact bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) x: u64,
    /// CPU nanoseconds, or bytes.
    pub(crate) y: Spread,
    /// Wall nanoseconds.
    pub(crate) wall: Option<Spread>,
}

/// A goal and its measurement.
#[derive(Debug)]
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) wanted: &'static str,
    pub(crate) measured: String,
}

impl Curve {
    pub(crate) fn new(
        id: &'static str,
        title: &'static str,
        x: &'static str,
        y: &'static str,
    ) -> Self {
        Self { id, title, x, y, series: Vec::new(), ratio: None }
    }

    pub(crate) fn push(&mut self, name: &str, point: Point) {
        match self.series.iter_mut().find(|series| series.name == name) {
            Some(series) => series.points.push(point),
            None => self.series.push(Series { name: name.to_owned(), points: vec![point] }),
        }
    }

    pub(crate) fn at(&self, name: &str, x: u64) -> Option<Point> {
        let series = self.series.iter().find(|series| series.name == name)?;
        series.points.iter().find(|point| point.x == x).copied()
    }

    /// The ratio of two series.
    pub(crate) fn ratio_at(&self, of: &str, to: &str, x: u64) -> Option<f64> {
        Some(self.at(of, x)?.y.median / self.at(to, x)?.y.median)
    }

    fn json(&self) -> Json {
        let spread = |Spread { median, low, high }: Spread| json!([median, low, high].map(rounded));
        let points = |series: &Series| -> Json {
            let point = |point: &Point| json!({"x": point.x, "y": spread(point.y), "wall": point.wall.map(spread)});
            series.points.iter().map(point).collect()
        };
        let series: Json = self
            .series
            .iter()
            .map(|series| json!({"name": series.name, "points": points(series)}))
            .collect();
        json!({"id": self.id, "x": self.x, "y": self.y, "series": series})
    }

    fn table(&self) -> String {
        let mut text = format!("| {} |", self.x);
        for series in &self.series {
            let _ = write!(text, " {} |", series.name);
        }
        if let Some((of, to)) = self.ratio {
            let _ = write!(text, " {of} / {to} |");
        }
        let columns = 1 + self.series.len() + usize::from(self.ratio.is_some());
        let _ = write!(text, "\n|{}\n", "---:|".repeat(columns));
        let mut xs: Vec<u64> =
            self.series.iter().flat_map(|series| &series.points).map(|point| point.x).collect();
        xs.sort_unstable();
        xs.dedup();
        for x in xs {
            let _ = write!(text, "| {} |", thousands(x));
            for series in &self.series {
                let _ = match self.at(&series.name, x) {
                    Some(point) => write!(text, " {} |", cell(point)),
                    None => write!(text, " |"),
                };
            }
            if let Some((of, to)) = self.ratio {
                let ratio = self.ratio_at(of, to, x).map(|ratio| format!("{ratio:.2}"));
                let _ = write!(text, " {} |", ratio.unwrap_or_default());
            }
            text.push('\n');
        }
        text
    }
}

/// The median with its spread, or an exact value.
fn cell(point: Point) -> String {
    let Spread { median, low, high } = point.y;
    match point.wall {
        Some(_) => format!("{} ({}–{})", number(median), number(low), number(high)),
        None => number(median),
    }
}

pub(crate) fn number(value: f64) -> String {
    match value {
        1_000.0.. => {
            #[expect(clippy::cast_possible_truncation, reason = "a rounded figure")]
            #[expect(clippy::cast_sign_loss, reason = "the value is positive")]
            let whole = value.round() as u64;
            thousands(whole)
        }
        100.0.. => format!("{value:.0}"),
        _ => format!("{value:.1}"),
    }
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The commit of the figures, as it was at the first call: what is written later changes the tree.
fn commit() -> &'static str {
    static COMMIT: OnceLock<String> = OnceLock::new();
    COMMIT.get_or_init(|| said("git", &["describe", "--always", "--dirty", "--exclude", "*"]))
}

/// The machine and the commit of the figures.
fn machine() -> Json {
    let first_line = |text: String, prefix: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(prefix).map(str::to_owned));
        line.unwrap_or_default().trim_matches([' ', '\t', ':']).to_owned()
    };
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    json!({
        "processor": first_line(read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": first_line(read("/proc/meminfo"), "MemTotal:"),
        "compiler": said("rustc", &["--version"]),
        "commit": commit(),
        "load_average": load_average(),
    })
}

/// The load average of the last minute.
/// The output of a program; empty if it cannot be run.
fn said(program: &str, arguments: &[&str]) -> String {
    let ran = Command::new(program).args(arguments).output().ok();
    ran.and_then(|ran| String::from_utf8(ran.stdout).ok()).unwrap_or_default().trim().to_owned()
}

/// Refuses to publish figures of a changed working tree or a busy machine.
///
/// # Errors
///
/// If the tree has changes, or the load average of the last minute is above 0.5.
pub(crate) fn may_be_published(load_average: &str) -> anyhow::Result<()> {
    let changes = said("git", &["status", "--porcelain"]);
    commit();
    ensure!(changes.is_empty(), "the tree has changes, so the figures have no commit: commit them");
    let load: f64 =
        load_average.split_whitespace().next().unwrap_or_default().parse().unwrap_or(0.0);
    ensure!(
        load <= LOAD_AVERAGE_MAX,
        "the load average is {load}: wait until nothing else runs (at most {LOAD_AVERAGE_MAX}), or give \
         --quick"
    );
    Ok(())
}

/// The highest load average of the last minute for published figures.
const LOAD_AVERAGE_MAX: f64 = 0.5;

pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// A generated part of the page: its name and its text.
#[derive(Debug)]
pub(crate) struct Part {
    name: &'static str,
    text: String,
}

/// The folders of the figures: the documentation for a full run, `target` for a quick one.
fn folder(is_quick: bool) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if is_quick {
        let target = env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
        target.join("curves")
    } else {
        root.join("docs/figures")
    }
}

/// Draws the curves and writes the JSON. Returns the text of the page.
pub(crate) fn figures(
    is_quick: bool,
    load_before: &str,
    goals: &[Goal],
    curves: &[Curve],
) -> anyhow::Result<Part> {
    let folder = folder(is_quick);
    fs::create_dir_all(&folder)?;
    for curve in curves {
        fs::write(folder.join(format!("{}.svg", curve.id)), plot::svg(curve)?)?;
    }
    let machine = machine();
    let rows: Json = goals
        .iter()
        .map(|goal| json!({"what": goal.what, "wanted": goal.wanted, "measured": goal.measured}))
        .collect();
    let curves_json: Json = curves.iter().map(Curve::json).collect();
    let all = json!({"machine": machine, "load_average_before": load_before, "goals": rows, "curves": curves_json});
    fs::write(folder.join("curves.json"), format!("{all:#}\n"))?;
    let link = if is_quick { "" } else { "figures/" };
    Ok(Part { name: "figures", text: markdown(link, &machine, load_before, goals, curves) })
}

/// The design choices and their alternatives.
pub(crate) fn choices(load_before: &str, choices: &[Choice]) -> Part {
    let mut text = measured_on(&machine(), load_before);
    for Choice { title, table } in choices {
        let _ = write!(text, "\n### {title}\n\n{table}");
    }
    Part { name: "choices", text }
}

/// The goals of several runs.
pub(crate) fn runs(load_before: &str, runs: &[Vec<Goal>]) -> Part {
    let mut text = measured_on(&machine(), load_before);
    let heads: String = (1..=runs.len()).map(|run| format!(" run {run} |")).collect();
    let _ = write!(text, "\n| goal | at most |{heads}\n|---|---|{}\n", "---|".repeat(runs.len()));
    for (at, Goal { what, wanted, .. }) in runs.first().into_iter().flatten().enumerate() {
        let measured = runs.iter().filter_map(|run| run.get(at));
        let cells: String = measured.map(|goal| format!(" {} |", goal.measured)).collect();
        let _ = writeln!(text, "| {what} | {wanted} |{cells}");
    }
    Part { name: "goals", text }
}

/// Writes the parts into the page. A quick run has its own page.
pub(crate) fn write(is_quick: bool, parts: &[Part]) -> anyhow::Result<PathBuf> {
    if is_quick {
        let page = folder(is_quick).join("curves.md");
        fs::create_dir_all(folder(is_quick))?;
        let texts: Vec<&str> = parts.iter().map(|part| part.text.as_str()).collect();
        fs::write(&page, texts.join("\n"))?;
        return Ok(page);
    }
    let page = folder(is_quick).join("../PERFORMANCE.md");
    let mut text = fs::read_to_string(&page).context("docs/PERFORMANCE.md")?;
    for Part { name, text: part } in parts {
        let [begin, end] = ["begin", "end"].map(|edge| format!("<!-- {name}: {edge} -->"));
        let (head, rest) = text.split_once(&begin).context("the page has no place for this")?;
        let (_, tail) = rest.split_once(&end).context("the place for this does not end")?;
        text = format!("{head}{begin}\n{part}\n{end}{tail}");
    }
    fs::write(&page, text)?;
    Ok(page)
}

/// The machine, the compiler and the commit in one line.
fn measured_on(machine: &Json, load_before: &str) -> String {
    let of = |key: &str| match machine.get(key) {
        Some(Json::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    format!(
        "\nMeasured on {} × {}, {} of memory, with {}, at commit {}; load average {} before, {} \
         after.\n",
        of("cores"),
        of("processor"),
        of("memory"),
        of("compiler"),
        of("commit"),
        load_before,
        of("load_average"),
    )
}

fn markdown(
    link: &str,
    machine: &Json,
    load_before: &str,
    goals: &[Goal],
    curves: &[Curve],
) -> String {
    let mut text = measured_on(machine, load_before);
    text.push_str("\n| goal | at most | measured |\n|---|---|---|\n");
    for Goal { what, wanted, measured } in goals {
        let _ = writeln!(text, "| {what} | {wanted} | {measured} |");
    }
    for curve in curves {
        let Curve { id, title, y, .. } = curve;
        let _ = write!(text, "\n### {title}\n\n{y}.\n\n{}", curve.table());
        let _ = write!(text, "\n![{title}]({link}{id}.svg)\n");
    }
    text
}
