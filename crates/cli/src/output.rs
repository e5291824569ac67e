//! Tables for people and JSON for programs, in the field names of the API's messages.

use std::io::{self, IsTerminal as _, Write as _};

use capstan_engine::Timestamp;
use capstan_policy::format_timestamp;
use capstan_proto::v1;
use comfy_table::{Cell, Color, Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

/// One line of JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// A line, or several.
pub(crate) fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

/// What stopped a command: to stdout for programs, to stderr for people.
pub(crate) fn error(format: Format, error: &anyhow::Error) {
    // If nobody reads this either, the exit code still tells.
    let _ = match format {
        Format::Json => {
            json(&Failure { error: format!("{error:#}") }).map_err(|_| io::ErrorKind::Other.into())
        }
        Format::Table => writeln!(io::stderr(), "error: {error:#}"),
    };
}

/// `{"error": "..."}`.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    pub(crate) error: String,
}

/// A decision as the contract's decision line.
#[derive(Debug, Serialize)]
pub(crate) struct Decision {
    pub(crate) allowed: bool,
    pub(crate) reason: &'static str,
    pub(crate) revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) valid_until: Option<String>,
}

impl Decision {
    pub(crate) fn new(
        allowed: bool,
        reason: v1::Reason,
        revision: u64,
        valid_until: Option<prost_types::Timestamp>,
    ) -> Self {
        let reason = reason.word();
        Self { allowed, reason, revision, valid_until: valid_until.and_then(time) }
    }
}

/// A time in RFC 3339.
pub(crate) fn time(time: prost_types::Timestamp) -> Option<String> {
    format_timestamp(Timestamp::new(time.seconds, u32::try_from(time.nanos).ok()?))
}

/// A table with these columns, coloured if the output is a terminal that wants colours.
pub(crate) fn table<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_header(header.map(|name| Cell::new(name).fg(Color::Cyan)));
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    if !coloured() {
        table.force_no_tty();
    }
    table
}

/// Text in green or red, if the output is a terminal that wants colours.
pub(crate) fn verdict(good: bool, text: &str) -> String {
    let colour = if good { "\x1b[1;32m" } else { "\x1b[1;31m" };
    if coloured() { format!("{colour}{text}\x1b[0m") } else { text.into() }
}

/// See <https://no-color.org>.
pub(crate) fn coloured() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
