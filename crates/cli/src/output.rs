//! Output of commands: tables for people, JSON for programs.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::OnceLock;

use comfy_table::{Cell, Color, Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

/// The format of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Table,
    Json,
}

/// The argument of `--output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
    /// JUnit XML, for test reports of CI systems: `policy test` alone writes it
    Junit,
}

impl Output {
    /// # Errors
    ///
    /// JUnit, which one command alone writes.
    pub(crate) fn format(self) -> anyhow::Result<Format> {
        match self {
            Self::Table => Ok(Format::Table),
            Self::Json => Ok(Format::Json),
            Self::Junit => anyhow::bail!("only `capstan policy test` writes JUnit"),
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

/// Prints a value as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    if is_quiet() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// Prints one or more lines.
pub(crate) fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    if is_quiet() {
        return Ok(());
    }
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

/// Prints the error that ended a command: as JSON to standard output, unless that is quiet; as text to standard error.
pub(crate) fn error(format: Format, error: &anyhow::Error) {
    // If this output is closed too, the exit code is all that remains.
    let _ = match format {
        Format::Json if !is_quiet() => {
            json(&Failure { error: format!("{error:#}") }).map_err(|_| io::ErrorKind::Other.into())
        }
        Format::Json | Format::Table => writeln!(io::stderr(), "error: {error:#}"),
    };
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

/// A table with these columns, coloured if [`coloured`].
pub(crate) fn table<'h>(header: impl IntoIterator<Item = &'h str>) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_header(header.into_iter().map(|name| Cell::new(name).fg(Color::Cyan)));
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    if !coloured() {
        table.force_no_tty();
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
