//! Draws a view: on the live screen, or as text.
//!
//! **Invariant**: drawing is a pure function of its input. What does not fit is omitted, the least important
//! first: in height curves, errors and reasons; in width columns of the table.

use capstan_engine::Timestamp;
use capstan_policy::format_timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Clear, Padding, Paragraph, Row, Sparkline, Table, Widget};

use super::history::{Curve, History};
use super::view::{Flow, ReasonCount, View};
use crate::figures;
use crate::limits::TOP_HISTORY;

/// The minimum width at which reasons and errors are side by side.
const WIDTH_OF_TWO: u16 = 72;
/// Columns for the name of a code, its rate and a gap.
const ERRORS_WIDTH: u16 = 29;
/// Maximum rows of a curve, including its title.
const CURVE_ROWS_MAX: u16 = 5;

const HELP: &str = "\
q, Esc, Ctrl-C   leave
p, space         pause: measuring goes on
+ and -          twice or half the interval
?                this help

decided    decisions; each of a batch counts
failed     calls that ended with an error;
           a denial is an answer, not an error
p99        99 % of the calls stayed within it,
           estimated from the server's histogram
all        its times are without StreamCheck's

Any other key closes this.";

/// The input of a drawing.
#[derive(Debug)]
pub(super) struct Picture<'s> {
    pub(super) view: &'s View,
    /// The URL of the metrics.
    pub(super) url: &'s str,
    /// `None` for text.
    pub(super) live: Option<Live<'s>>,
    pub(super) coloured: bool,
}

/// Additional input of the live screen.
#[derive(Debug)]
pub(super) struct Live<'s> {
    pub(super) history: &'s History,
    /// The interval, as text.
    pub(super) every: String,
    pub(super) paused: bool,
    /// The error of the last scrape, if it failed.
    pub(super) away: Option<&'s str>,
    pub(super) help: bool,
}

/// The meaning of a style. Without colours only bold remains.
#[derive(Clone, Copy)]
enum Tone {
    Title,
    Good,
    Bad,
    Quiet,
}

/// The drawing as text of this width, without colours.
pub(super) fn text(view: &View, url: &str, width: u16) -> String {
    let picture = Picture { view, url, live: None, coloured: false };
    let height = 4 + picture.table_rows() + 1 + picture.reason_rows(width);
    let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
    picture.render(buffer.area, &mut buffer);
    let rows = buffer.content().chunks(usize::from(width.max(1)));
    let rows = rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>());
    let rows: Vec<_> = rows.map(|row| row.trim_end().to_owned()).collect();
    rows.join("\n").trim_end().to_owned()
}

impl Widget for &Picture<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let footer = u16::from(self.live.is_some());
        let mut room = area.height.saturating_sub(footer);
        let mut take = |rows: u16| {
            let taken = rows.min(room);
            room -= taken;
            taken
        };
        let head = take(4);
        let table = take(self.table_rows() + 1);
        let reasons = take(self.reason_rows(area.width));
        let curves = if self.live.is_some() { take(CURVE_ROWS_MAX + 1) } else { 0 };
        // A curve needs at least a title, a row and a gap.
        let curves = if curves < 3 { 0 } else { curves };
        let heights = [head, curves, table, reasons].map(Constraint::Length);
        let [head, curves, table, reasons] = Layout::vertical(heights).areas(area);
        self.head(head, buffer);
        self.curves(curves, buffer);
        self.table(table, buffer);
        self.reasons_and_errors(reasons, buffer);
        if let Some(live) = &self.live {
            let last = Rect { y: area.bottom().saturating_sub(1), height: 1, ..area };
            let keys = "q quit   p pause   + - interval   ? help";
            Line::styled(keys, self.style(Tone::Quiet)).render(last.intersection(area), buffer);
            if live.help {
                self.help(area, buffer);
            }
        }
    }
}

impl Picture<'_> {
    fn style(&self, tone: Tone) -> Style {
        let (colour, modifier) = match tone {
            Tone::Title => (Color::Cyan, Modifier::BOLD),
            Tone::Good => (Color::Green, Modifier::empty()),
            Tone::Bad => (Color::Red, Modifier::BOLD),
            Tone::Quiet => (Color::DarkGray, Modifier::empty()),
        };
        let style = Style::new().add_modifier(modifier);
        if self.coloured { style.fg(colour) } else { style }
    }

    /// The suffix of rates; totals have none.
    const fn per_second(&self) -> &'static str {
        if self.view.seconds.is_some() { "/s" } else { "" }
    }

    // === Head ===

    fn head(&self, area: Rect, buffer: &mut Buffer) {
        let width = area.width;
        let (bad, quiet) = (self.style(Tone::Bad), self.style(Tone::Quiet));
        let mut title = vec![
            Span::styled("capstan top", self.style(Tone::Title)),
            Span::raw(self.url),
            self.since(),
        ];
        let mut problem = None;
        if let Some(live) = &self.live {
            if live.paused {
                title.push(Span::styled("PAUSED", bad));
            }
            problem = live
                .away
                .map(|why| format!("no metrics, asking again every {}: {why}", live.every));
        }
        if problem.is_none() && self.is_stale() {
            let refused = "RELOAD REFUSED: the old policy is served, and the server's log says why";
            problem = Some(refused.into());
        }
        if problem.is_none() && self.view.restarted {
            problem = Some("the server started anew: counted from zero".into());
        }
        let time = format_timestamp(Timestamp::new(self.view.time.seconds(), 0));
        title.push(Span::styled(time.unwrap_or_default(), quiet));
        let state = &self.view.state;
        let (panics, shed) = (state.panics, self.view.shed.all());
        let state = [
            Span::raw(format!("version {}", state.version)),
            Span::raw(format!("revision {}", state.revision)),
            Span::raw(format!("identities {}", state.identities)),
            Span::raw(format!("bindings {}", state.role_bindings)),
            Span::raw(format!("in flight {}", state.in_flight)),
            Span::raw(format!("shed {}{}", figures::count(shed), self.per_second())),
        ];
        let panics = (panics > 0).then(|| Span::styled(format!("panics {panics}"), bad));
        let state = panics.into_iter().chain(state);
        let problem = problem.map_or_else(Line::default, |text| Line::styled(text, bad));
        let lines = vec![fitting(title, width), fitting(state, width), self.loads(width), problem];
        Paragraph::new(lines).render(area, buffer);
    }

    fn since(&self) -> Span<'_> {
        match (&self.live, self.view.seconds) {
            (Some(live), _) => Span::raw(format!("every {}", live.every)),
            (None, Some(seconds)) => Span::raw(format!("in {}", figures::seconds(seconds))),
            (None, None) => Span::raw("since it started"),
        }
    }

    /// Whether the last load was rejected.
    fn is_stale(&self) -> bool {
        let loads = &self.view.state.loads;
        loads.last_rejected.is_some() && loads.last_rejected >= loads.last_applied
    }

    fn loads(&self, width: u16) -> Line<'static> {
        let loads = &self.view.state.loads;
        let last = |time: Option<Timestamp>| {
            let passed = time.map(|time| self.view.time.seconds() - time.seconds());
            passed.map(|seconds| format!(", {}", figures::ago(seconds))).unwrap_or_default()
        };
        let rejected = format!("rejected {}{}", loads.rejected, last(loads.last_rejected));
        let tone = self.style(if self.is_stale() { Tone::Bad } else { Tone::Quiet });
        let parts = vec![
            Span::raw(format!("loads applied {}{}", loads.applied, last(loads.last_applied))),
            if loads.rejected > 0 { Span::styled(rejected, tone) } else { Span::raw(rejected) },
            Span::raw(format!("the last took {}", figures::seconds(loads.last_seconds))),
        ];
        fitting(parts, width)
    }

    // === Curves ===

    fn curves(&self, area: Rect, buffer: &mut Buffer) {
        let Some(Live { history, .. }) = &self.live else { return };
        let area = Rect { height: area.height.saturating_sub(1), ..area };
        let halves = [Constraint::Fill(1), Constraint::Length(2), Constraint::Fill(1)];
        let [left, _, right] = Layout::horizontal(halves).areas(area);
        for (curve, name, area) in
            [(Curve::CallsPerSecond, "calls/s", left), (Curve::P99, "p99", right)]
        {
            let columns = history.columns(curve, area.width);
            let peak = columns.iter().flatten().copied().max_by(f64::total_cmp);
            let peak = peak.map(|peak| match curve {
                Curve::CallsPerSecond => figures::short(peak),
                Curve::P99 => figures::seconds(peak),
            });
            let peak = peak.map(|peak| format!("peak {peak}")).unwrap_or_default();
            let minutes = format!("{} min", TOP_HISTORY.as_secs() / 60);
            let title = vec![
                Span::styled(name, self.style(Tone::Title)),
                Span::raw(peak),
                Span::styled(minutes, self.style(Tone::Quiet)),
            ];
            let [top, bars] =
                Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
            fitting(title, area.width).render(top, buffer);
            Sparkline::default()
                .data(columns.into_iter().map(bar))
                .absent_value_symbol(" ")
                .style(self.style(Tone::Good))
                .render(bars, buffer);
        }
    }

    // === Calls ===

    /// One row for each RPC with calls since the server's start, the header, and the sum.
    fn table_rows(&self) -> u16 {
        let known = self.view.rpcs.iter().filter(|rpc| rpc.known).count();
        u16::try_from(known).unwrap_or(u16::MAX).saturating_add(2)
    }

    fn table(&self, area: Rect, buffer: &mut Buffer) {
        let columns = columns(area.width);
        let header = columns.iter().map(|column| match column.title {
            "calls" | "decided" | "failed" => {
                Text::from(format!("{}{}", column.title, self.per_second())).right_aligned()
            }
            "" => Text::from("call"),
            title => Text::from(title).right_aligned(),
        });
        let row = |name: &str, flow: &Flow| {
            Row::new(columns.iter().map(|column| match (column.cell)(flow) {
                None => Text::from(name.to_owned()),
                Some(figure) if column.title == "failed" && flow.failed.count > 0 => {
                    Text::styled(figure, self.style(Tone::Bad)).right_aligned()
                }
                Some(figure) => Text::from(figure).right_aligned(),
            }))
        };
        let known = self.view.rpcs.iter().filter(|rpc| rpc.known);
        let mut rows = vec![row("all", &self.view.all).style(Modifier::BOLD)];
        rows.extend(known.map(|rpc| row(&rpc.rpc, &rpc.flow)));
        Table::new(rows, columns.iter().map(|column| Constraint::Length(column.width)))
            .header(Row::new(header).style(self.style(Tone::Title)))
            .render(area, buffer);
    }

    // === Reasons and errors ===

    fn reason_rows(&self, width: u16) -> u16 {
        let (reasons, errors) = (self.view.reasons.len() + 1, self.view.errors.len().max(1) + 1);
        let rows = if width < WIDTH_OF_TWO { reasons + 1 + errors } else { reasons.max(errors) };
        u16::try_from(rows).unwrap_or(u16::MAX)
    }

    fn reasons_and_errors(&self, area: Rect, buffer: &mut Buffer) {
        let (reasons, errors) = if area.width < WIDTH_OF_TWO {
            let reasons = u16::try_from(self.view.reasons.len()).unwrap_or(u16::MAX);
            let heights = [Constraint::Length(reasons.saturating_add(2)), Constraint::Fill(1)];
            let [above, below] = Layout::vertical(heights).areas(area);
            (above, below)
        } else {
            let widths =
                [Constraint::Fill(1), Constraint::Length(2), Constraint::Length(ERRORS_WIDTH)];
            let [left, _, right] = Layout::horizontal(widths).areas(area);
            (left, right)
        };
        let mut lines = vec![Line::styled("reasons", self.style(Tone::Title))];
        lines.extend(self.view.reasons.iter().map(|reason| self.reason(reason, reasons.width)));
        Paragraph::new(lines).render(reasons, buffer);
        let mut lines = vec![Line::styled("errors", self.style(Tone::Title))];
        if self.view.errors.is_empty() {
            lines.push(Line::styled("none", self.style(Tone::Quiet)));
        }
        lines.extend(self.view.errors.iter().map(|error| {
            let figure = format!("{}{}", figures::count(error.count), self.per_second());
            let (code, room) =
                (&error.code, usize::from(ERRORS_WIDTH).saturating_sub(figure.len()));
            Line::from(vec![
                Span::raw(format!("{code:room$}")),
                Span::styled(figure, self.style(Tone::Bad)),
            ])
        }));
        Paragraph::new(lines).render(errors, buffer);
    }

    /// A line with the name, the share as a bar and in percent, and the rate.
    fn reason(&self, reason: &ReasonCount, width: u16) -> Line<'static> {
        const NAME: u16 = 23;
        const FIGURES: u16 = 18;
        let tone = if reason.reason == "GRANTED" { Tone::Good } else { Tone::Title };
        let bar_width = width.saturating_sub(NAME + FIGURES);
        let share = figures::percent(reason.share);
        let count = format!("{}{}", figures::count(reason.count), self.per_second());
        Line::from(vec![
            Span::raw(format!("{:1$}", reason.reason, usize::from(NAME))),
            Span::styled(share_bar(reason.share, bar_width), self.style(tone)),
            Span::raw(format!("{share:>9}{count:>9}")),
        ])
    }

    // === Help ===

    fn help(&self, area: Rect, buffer: &mut Buffer) {
        let height = u16::try_from(HELP.lines().count()).unwrap_or(u16::MAX).saturating_add(2);
        let width = HELP.lines().map(|line| line.chars().count()).max().unwrap_or_default();
        let width = u16::try_from(width).unwrap_or(u16::MAX).saturating_add(4);
        let area = area.centered(Constraint::Max(width), Constraint::Max(height));
        Clear.render(area, buffer);
        let frame = Block::bordered().title(" help ").padding(Padding::horizontal(1));
        let frame = frame.border_style(self.style(Tone::Title));
        Paragraph::new(HELP).block(frame).render(area, buffer);
    }
}

/// As many parts as fit, two spaces apart.
fn fitting<'s>(parts: impl IntoIterator<Item = Span<'s>>, width: u16) -> Line<'s> {
    let mut line = Line::default();
    for part in parts {
        let gap = if line.spans.is_empty() { 0 } else { 2 };
        if line.width() + gap + part.width() > usize::from(width) && gap > 0 {
            break;
        }
        line.push_span(Span::raw(" ".repeat(gap)));
        line.push_span(part);
    }
    line
}

/// A bar in eighths of a column, padded to `width`.
fn share_bar(share: f64, width: u16) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    let eighths = (share * f64::from(width) * 8.0).round() as usize;
    let part = EIGHTHS.get(eighths % 8).copied().unwrap_or_default();
    let bar = "█".repeat(eighths / 8) + part;
    format!("{bar:0$}", usize::from(width))
}

/// A value as the sparkline widget takes it: a whole number of millionths.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
fn bar(value: Option<f64>) -> Option<u64> {
    value.map(|value| (value * 1e6) as u64)
}

/// A column of the table of calls.
struct Column {
    title: &'static str,
    width: u16,
    /// The column with the highest priority number is omitted first; 0 is never omitted.
    priority: u8,
    /// `None`: the name of the RPC.
    cell: fn(&Flow) -> Option<String>,
}

impl Column {
    const fn new(
        title: &'static str,
        width: u16,
        priority: u8,
        cell: fn(&Flow) -> Option<String>,
    ) -> Self {
        Self { title, width, priority, cell }
    }
}

/// The columns that fit.
fn columns(width: u16) -> Vec<Column> {
    let mut columns = vec![
        Column::new("", 16, 0, |_| None),
        Column::new("calls", 7, 0, |flow| Some(figures::count(flow.calls))),
        Column::new("decided", 9, 4, |flow| Some(figures::count(flow.decisions))),
        Column::new("allowed", 7, 3, |flow| Some(allowed(flow))),
        Column::new("failed", 8, 2, |flow| Some(figures::count(flow.failed))),
        Column::new("p50", 6, 5, |flow| Some(figures::quantile(flow.latency_seconds.p50))),
        Column::new("p90", 6, 7, |flow| Some(figures::quantile(flow.latency_seconds.p90))),
        Column::new("p99", 6, 1, |flow| Some(figures::quantile(flow.latency_seconds.p99))),
        Column::new("p99.9", 6, 6, |flow| Some(figures::quantile(flow.latency_seconds.p99_9))),
    ];
    let needed = |columns: &[Column]| columns.iter().map(|column| column.width + 1).sum::<u16>();
    while needed(&columns) > width.saturating_add(1) {
        let last = columns.iter().map(|column| column.priority).max();
        let Some(last) = last.filter(|priority| *priority > 0) else { break };
        columns.retain(|column| column.priority < last);
    }
    columns
}

fn allowed(flow: &Flow) -> String {
    #[expect(clippy::cast_precision_loss, reason = "nobody sees 16 digits")]
    let share = flow.allowed.count as f64 / flow.decisions.count as f64;
    if flow.decisions.count == 0 { "-".into() } else { figures::percent(share) }
}

#[cfg(test)]
mod tests;
