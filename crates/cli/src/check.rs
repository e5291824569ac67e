//! `capstan check`: one question, or a file of questions.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use capstan_proto::contract::BATCH_CHECKS_MAX;
use indicatif::{ProgressBar, ProgressStyle};

use super::completion;
use super::decider::{Advice, Decider, DeciderArgs};
use super::limits::{LINE_BYTES_MAX, MESSAGE_BYTES};
use super::output::{self, Failure, Format};
use super::properties::PropertyArgs;
use super::queries::Query;
use super::{DENIED, FAILED};

const EXAMPLES: &str = "\
Examples:
  capstan check alice repo.list acme/platform/web
  capstan check alice repo.list acme/platform/web --policy acme.yaml
  capstan check alice repo.list acme/platform/web --addr unix:/run/capstan.sock
  capstan check -q alice repo.list acme/platform/web && echo allowed
  capstan check alice repo.list acme/platform/web --consistency at-least=7
  capstan check --file queries.ndjson > decisions.ndjson

A line of the file:
  {\"identity\": \"alice\", \"capability\": \"repo.list\", \"resource\": \"acme/platform/web\"}

Exit codes: 0 allowed, 1 denied, 2 error; with --file 0 if every line was answered, 2 if any was an \
error.";

/// May this identity do this here?
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Check {
    /// The path of an identity
    #[arg(required_unless_present = "file", add = completion::identity())]
    identity: Option<String>,

    /// A capability, such as repo.list
    #[arg(required_unless_present = "file", add = completion::capability())]
    capability: Option<String>,

    /// The path of a resource or group
    #[arg(required_unless_present = "file", add = completion::scope())]
    resource: Option<String>,

    /// Answer the questions of this file, one JSON object per line; - reads standard input
    #[arg(long, value_name = "QUERIES.ndjson", 
        conflicts_with_all = ["identity", "capability", "resource", "property"])]
    file: Option<PathBuf>,

    #[command(flatten)]
    properties: PropertyArgs,

    #[command(flatten)]
    decider: DeciderArgs,
}

impl Check {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        if let Some(file) = &self.file {
            // If there is no decider, each line is answered with that error.
            let decider = self.decider.decider().await.map_err(|error| format!("{error:#}"));
            return answer_file(&decider, file).await;
        }
        let decider = self.decider.decider().await?;
        let query = Query {
            properties: self.properties.properties()?,
            identity: self.identity.unwrap_or_default(),
            capability: self.capability.unwrap_or_default(),
            resource: self.resource.unwrap_or_default(),
        };
        let question = format!("{} {} at {}", query.identity, query.capability, query.resource);
        let decision = decider.check(query).await?;
        let allowed = decision.allowed;
        match format {
            Format::Json => output::json(&decision)?,
            Format::Table => {
                let word = output::verdict(allowed, if allowed { "allowed" } else { "denied" });
                let until = decision.valid_until.map(|time| format!(", until {time}"));
                let (reason, until) = (decision.reason, until.unwrap_or_default());
                output::line(format!("{word}  {question}  ({reason}{until})"))?;
            }
        }
        Ok(if allowed { ExitCode::SUCCESS } else { ExitCode::from(DENIED) })
    }
}

/// Answers every line, in order, in batches. The exit code is 2 if any answer is an error.
async fn answer_file(
    decider: &Result<Decider, String>,
    file: &PathBuf,
) -> anyhow::Result<ExitCode> {
    let name = file.display();
    let (mut lines, length): (Box<dyn BufRead>, u64) = if file.as_os_str() == "-" {
        (Box::new(io::stdin().lock()), 0)
    } else {
        let file = File::open(file).with_context(|| format!("cannot read {name}"))?;
        let length = file.metadata()?.len();
        (Box::new(BufReader::new(file)), length)
    };
    let progress = progress(length);
    let mut failures = 0u64;
    let (mut batch, mut advice) = (Batch::default(), Advice::default());
    for number in 1.. {
        let line = read_line(&mut lines).with_context(|| format!("cannot read {name}"))?;
        progress.inc(line.as_ref().map_or(0, Vec::len) as u64);
        let is_last = line.is_none();
        if let Some(line) = line {
            batch.push(&line, number);
        }
        if is_last || batch.is_full() {
            failures += batch.answer(decider, &mut advice).await?;
        }
        if is_last {
            break;
        }
    }
    progress.finish_and_clear();
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// The next line; `None` at the end. A line longer than [`LINE_BYTES_MAX`] is truncated to that length.
fn read_line(lines: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    io::Read::take(&mut *lines, LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.len() as u64 == LINE_BYTES_MAX && !line.ends_with(b"\n") {
        lines.skip_until(b'\n')?;
    }
    Ok((!line.is_empty()).then_some(line))
}

/// A progress bar on standard error; hidden without a length, or if that is not a terminal.
fn progress(length: u64) -> ProgressBar {
    if length == 0 {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template(
        "{bar:40.cyan} {percent:>3}%  {bytes} of {total_bytes}, {eta} to go",
    ) {
        bar.set_style(style);
    }
    bar
}

/// Lines that wait for an answer.
#[derive(Default)]
struct Batch {
    queries: Vec<Query>,
    /// For each line in order: it has a query in `queries`, or an error message.
    lines: Vec<Result<(), String>>,
    /// Bytes of the lines.
    bytes: usize,
}

impl Batch {
    /// Parses a line; ignores a blank one.
    fn push(&mut self, line: &[u8], number: u64) {
        let query = match std::str::from_utf8(line) {
            _ if line.len() as u64 == LINE_BYTES_MAX => {
                Err(format!("more than {LINE_BYTES_MAX} bytes"))
            }
            Ok(text) if text.trim().is_empty() => return,
            Ok(text) => Query::parse(text.trim_start_matches('\u{feff}')),
            Err(error) => Err(error.to_string()),
        };
        let query = query.map_err(|error| format!("line {number}: {error}"));
        self.bytes += line.len();
        self.lines.push(query.map(|query| self.queries.push(query)));
    }

    fn is_full(&self) -> bool {
        self.lines.len() >= BATCH_CHECKS_MAX || self.bytes >= MESSAGE_BYTES
    }

    /// Prints an answer for each line, and returns the number of errors.
    async fn answer(
        &mut self,
        decider: &Result<Decider, String>,
        advice: &mut Advice,
    ) -> anyhow::Result<u64> {
        let Self { queries, lines, .. } = std::mem::take(self);
        let answers = match decider {
            Ok(decider) => decider.check_batch(queries, advice).await,
            Err(error) => vec![Err(error.clone()); queries.len()],
        };
        let mut answers = answers.into_iter();
        let mut failures = 0;
        let mut out = io::stdout().lock();
        for line in lines {
            // There is an answer to each query.
            let answer = line.and_then(|()| answers.next().unwrap_or(Err("no answer".into())));
            failures += u64::from(answer.is_err());
            if output::is_quiet() {
                continue;
            }
            match answer {
                Ok(decision) => serde_json::to_writer(&mut out, &decision),
                Err(error) => serde_json::to_writer(&mut out, &Failure { error }),
            }
            .map_err(io::Error::from)?;
            writeln!(out)?;
        }
        Ok(failures)
    }
}
