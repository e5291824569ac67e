//! Output of commands: tables for people, JSON for programs.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::OnceLock;

use anyhow::Context as _;
use clap::builder::PossibleValue;
use comfy_table::{Cell, Color, ColumnConstraint, Table, presets::UTF8_FULL_CONDENSED};
use serde::{Deserialize, Serialize};

use super::iam::refusal::Refusal;

/// The format of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Table,
    Json,
}

/// The argument of `--output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Output {
    Table,
    Json,
    /// A tree by path: `iam`, `events subscriptions` and lists of `auth` alone write it.
    Tree,
    /// One id a line: likewise.
    Id,
    /// JUnit XML, for test reports of CI systems: `policy test` alone writes it.
    Junit,
    /// The configuration of a client: `auth pull-token create` alone writes it.
    #[serde(skip)]
    Client(Client),
}

/// A client that takes a pull token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    Env,
    Docker,
    Pip,
    Npm,
    Maven,
    Apk,
}

impl clap::ValueEnum for Output {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [Output; 11] = [
            Output::Table,
            Output::Json,
            Output::Tree,
            Output::Id,
            Output::Junit,
            Output::Client(Client::Env),
            Output::Client(Client::Docker),
            Output::Client(Client::Pip),
            Output::Client(Client::Npm),
            Output::Client(Client::Maven),
            Output::Client(Client::Apk),
        ];
        &ALL
    }

    /// The clients are offered by the command that writes for them.
    fn to_possible_value(&self) -> Option<PossibleValue> {
        let value = PossibleValue::new(self.word());
        Some(match self {
            Self::Table | Self::Json => value,
            Self::Tree => value.help("A tree by path: `iam`, `auth` and `events` alone write it"),
            Self::Id => value.help("One id a line: `iam`, `auth` and `events` alone write it"),
            Self::Junit => value
                .help("JUnit XML, for test reports of CI systems: `policy test` alone writes it"),
            Self::Client(_) => value.hide(true),
        })
    }
}

impl Output {
    /// # Errors
    ///
    /// A format that few commands write.
    pub(crate) fn format(self) -> anyhow::Result<Format> {
        match self {
            Self::Table => Ok(Format::Table),
            Self::Json => Ok(Format::Json),
            Self::Junit => anyhow::bail!("only `capstan policy test` writes JUnit"),
            Self::Client(_) => anyhow::bail!(
                "only `capstan auth pull-token create` writes the configuration of a client"
            ),
            Self::Tree | Self::Id => {
                anyhow::bail!(
                    "this command writes a table or JSON: --output table or --output json"
                )
            }
        }
    }

    /// # Errors
    ///
    /// A format that no command of the management writes.
    pub(crate) fn of_management(self) -> anyhow::Result<()> {
        match self {
            Self::Table | Self::Json | Self::Tree | Self::Id => Ok(()),
            Self::Junit | Self::Client(_) => self.format().map(drop),
        }
    }

    /// The format of errors.
    pub(crate) const fn of_errors(self) -> Format {
        match self {
            Self::Json => Format::Json,
            Self::Table | Self::Tree | Self::Id | Self::Junit | Self::Client(_) => Format::Table,
        }
    }

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Json => "json",
            Self::Tree => "tree",
            Self::Id => "id",
            Self::Junit => "junit",
            Self::Client(Client::Env) => "env",
            Self::Client(Client::Docker) => "docker",
            Self::Client(Client::Pip) => "pip",
            Self::Client(Client::Npm) => "npm",
            Self::Client(Client::Maven) => "maven",
            Self::Client(Client::Apk) => "apk",
        }
    }
}

/// Whether results are not printed (`--quiet`).
static QUIET: OnceLock<bool> = OnceLock::new();

/// From here on, results are not printed. Errors still are.
pub(crate) fn be_quiet() {
    let _ = QUIET.set(true);
}

pub(crate) fn is_quiet() -> bool {
    QUIET.get().is_some()
}

const NOT_WRITTEN: &str = "cannot write the result to standard output";

/// Prints a value as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    if is_quiet() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    let written = serde_json::to_writer(&mut out, value).map_err(io::Error::from);
    written.and_then(|()| writeln!(out)).context(NOT_WRITTEN)
}

/// Prints one or more lines.
pub(crate) fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    if is_quiet() {
        return Ok(());
    }
    writeln!(io::stdout(), "{text}").context(NOT_WRITTEN)
}

/// Prints what a command did to standard error, because standard output is for results. Not if quiet.
pub(crate) fn note(text: impl std::fmt::Display) -> anyhow::Result<()> {
    if is_quiet() {
        return Ok(());
    }
    writeln!(io::stderr(), "{text}").context("cannot write to standard error")
}

/// Prints what somebody has to do before the command goes on to standard error, also if quiet.
pub(crate) fn instruction(text: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(io::stderr(), "{text}").context("cannot write to standard error")
}

/// Prints the error that ended a command: as JSON to standard output, unless that is quiet or cannot be written; then, and
/// as text, to standard error.
pub(crate) fn error(format: Format, error: &anyhow::Error) {
    let refusal = error.downcast_ref::<Refusal>();
    let as_json = format == Format::Json && !is_quiet();
    let is_printed = as_json
        && match refusal {
            Some(refusal) => json(refusal).is_ok(),
            None => json(&Failure { error: format!("{error:#}") }).is_ok(),
        };
    if !is_printed {
        let word = if refusal.is_some_and(Refusal::is_refused) { "refused" } else { "error" };
        // If this output is closed too, the exit code is all that remains.
        let _ = writeln!(io::stderr(), "{word}: {error:#}");
    }
}

/// An error as JSON: `{"error": "..."}`.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    pub(crate) error: String,
}

/// Characters of a line of the terminal; `None` if standard output is none.
pub(crate) fn width() -> Option<usize> {
    Table::new().width().map(usize::from)
}

/// Columns of times and ids, which are of no use in parts. Others are broken first, on a line of at least
/// [`WHOLE_FROM`] characters.
const WHOLE: [&str; 5] = ["time", "updated", "expires", "last seen", "binding"];
const WHOLE_FROM: usize = 80;

/// A table with these columns, as wide as the terminal at most, and coloured if [`coloured`].
pub(crate) fn table<'h>(header: impl IntoIterator<Item = &'h str>) -> Table {
    table_within(width(), header)
}

fn table_within<'h>(width: Option<usize>, header: impl IntoIterator<Item = &'h str>) -> Table {
    let names: Vec<_> = header.into_iter().collect();
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_header(names.iter().map(|name| Cell::new(name).fg(Color::Cyan)));
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    if let Some(width) = width {
        // Said, because a table without colours does not ask the terminal.
        table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
    }
    if !coloured() {
        table.force_no_tty();
    }
    if width.is_some_and(|width| width >= WHOLE_FROM) {
        for (at, _) in names.iter().enumerate().filter(|(_, name)| WHOLE.contains(name)) {
            if let Some(column) = table.column_mut(at) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
    }
    table
}

/// The text in green (good) or red, if [`coloured`].
pub(crate) fn verdict(good: bool, text: &str) -> String {
    let colour = if good { "\x1b[1;32m" } else { "\x1b[1;31m" };
    if coloured() { format!("{colour}{text}\x1b[0m") } else { text.into() }
}

/// Whether standard output is a terminal and `NO_COLOR` is not set (<https://no-color.org>).
pub(crate) fn coloured() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// How a part of a line stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Bold,
    Dim,
    Cyan,
    Yellow,
    Red,
}

/// The text in a style, if [`coloured`].
pub(crate) fn styled(style: Style, text: &str) -> String {
    let code = match style {
        Style::Bold => "1",
        Style::Dim => "2",
        Style::Cyan => "36",
        Style::Yellow => "33",
        Style::Red => "31",
    };
    if coloured() && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Standard output of tests is no terminal, as with `NO_COLOR` on one.
    #[test]
    fn a_table_without_colours_fits_the_terminal_and_breaks_no_time() {
        let lines = |width| {
            let header = ["time", "revision", "actor", "method", "object", "result"];
            let mut table = table_within(width, header);
            let time = "2026-11-29T12:20:10Z";
            let method = "RoleBindingService/CreateRoleBinding";
            let object = "acme/platform/8b92f04867856709";
            table.add_row([time, "1099511627787", "alice", method, object, "done"]);
            table.to_string().lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let widest = |lines: &[String]| lines.iter().map(|line| line.chars().count()).max();
        assert!(widest(&lines(None)) > Some(120));
        for width in [60, WHOLE_FROM, 100] {
            let lines = lines(Some(width));
            assert!(widest(&lines) <= Some(width), "{width}: {lines:#?}");
            let is_whole = lines.iter().any(|line| line.contains("2026-11-29T12:20:10Z"));
            assert_eq!(is_whole, width >= WHOLE_FROM, "{width}: {lines:#?}");
        }
    }
}
