//! `capstan check`: one question, or a file of them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use capstan_proto::v1;
use indicatif::{ProgressBar, ProgressStyle};
use prost::Message as _;

use super::output::{self, Decision, Failure, Format};
use super::queries::Query;
use super::supplied::Supplied;
use super::target::{Decider, Target};
use super::{DENIED, FAILED};
use capstan_server::limits::BATCH_CHECKS_MAX;

const EXAMPLES: &str = "\
Examples:
  capstan check alice repo.list acme/platform/web
  capstan check alice repo.list acme/platform/web --policy acme.yaml
  capstan check alice repo.list acme/platform/web --addr unix:/run/capstan.sock
  capstan check --file queries.ndjson > decisions.ndjson

A line of the file:
  {\"identity\": \"alice\", \"capability\": \"repo.list\", \"resource\": \"acme/platform/web\"}

Exit codes: 0 allowed, 1 denied, 2 error; with --file 0 if every line was answered, 2 if any was an
error.";

/// Bytes of query lines after which a batch is sent even if it is not full: well below the limit
/// of a message.
const BATCH_BYTES: usize = 1024 * 1024;
/// Longest query line. What is longer fits no message.
const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// May this identity do this here?
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Check {
    /// Who: the path of an identity
    #[arg(required_unless_present = "file")]
    identity: Option<String>,

    /// What: a capability such as repo.list
    #[arg(required_unless_present = "file")]
    capability: Option<String>,

    /// Where: the path of a resource or group
    #[arg(required_unless_present = "file")]
    resource: Option<String>,

    /// Questions, one JSON object a line; - reads standard input
    #[arg(long, value_name = "QUERIES.ndjson", conflicts_with_all = ["identity", "capability", "resource"])]
    file: Option<PathBuf>,

    #[command(flatten)]
    supplied: Supplied,

    #[command(flatten)]
    target: Target,
}

impl Check {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        if let Some(file) = &self.file {
            // A line that cannot be answered is answered with why, whatever the reason.
            let decider = self.target.decider().await.map_err(|error| format!("{error:#}"));
            return answer_file(&decider, file).await;
        }
        let decider = self.target.decider().await?;
        let request = v1::CheckRequest {
            identity: self.identity.unwrap_or_default(),
            capability: self.capability.unwrap_or_default(),
            resource: self.resource.unwrap_or_default(),
            properties: self.supplied.into_proto()?,
            consistency: None,
        };
        let question =
            format!("{} {} at {}", request.identity, request.capability, request.resource);
        let answer = decider.check(request).await?;
        let allowed = answer.allowed;
        let reason = answer.reason();
        let decision = Decision::new(allowed, reason, answer.revision, answer.valid_until);
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

/// Answers every line, in order, in batches.
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
    let mut batch = Batch::default();
    for number in 1.. {
        let line = read_line(&mut lines).with_context(|| format!("cannot read {name}"))?;
        progress.inc(line.as_ref().map_or(0, Vec::len) as u64);
        let is_last = line.is_none();
        if let Some(answer) = line.and_then(|line| Line::read(&line, number)) {
            if !batch.has_room(&answer) {
                failures += batch.answer(decider).await?;
            }
            batch.push(answer);
        }
        if is_last || batch.is_full() {
            failures += batch.answer(decider).await?;
        }
        if is_last {
            break;
        }
    }
    progress.finish_and_clear();
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// The next line, or nothing at the end. A line that fits no message is cut at the limit, and the
/// rest of it is passed over.
fn read_line(lines: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    io::Read::take(&mut *lines, LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.len() as u64 == LINE_BYTES_MAX && !line.ends_with(b"\n") {
        lines.skip_until(b'\n')?;
    }
    Ok((!line.is_empty()).then_some(line))
}

/// A bar on a terminal, nothing elsewhere.
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

/// Questions that wait for an answer, and where each stands among lines that are none.
#[derive(Default)]
struct Batch {
    checks: Vec<v1::CheckItem>,
    /// For each line in order: a question, or why it is none.
    lines: Vec<Result<(), String>>,
    bytes: usize,
}

/// A question, or why the line is none.
struct Line(Result<v1::CheckItem, String>);

impl Line {
    /// Nothing of a blank line.
    fn read(line: &[u8], number: u64) -> Option<Self> {
        let query = match std::str::from_utf8(line) {
            _ if line.len() as u64 == LINE_BYTES_MAX => {
                Err(format!("more than {LINE_BYTES_MAX} bytes"))
            }
            Ok(text) if text.trim().is_empty() => return None,
            Ok(text) => Query::parse(text.trim_start_matches('\u{feff}')),
            Err(error) => Err(error.to_string()),
        };
        let query = query.map(Query::into_item);
        Some(Self(query.map_err(|error| format!("line {number}: {error}"))))
    }

    /// As it is sent.
    fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |check| check.encoded_len())
    }
}

impl Batch {
    /// A long one is sent alone: if that is too long for a message, it is not the others' error.
    fn has_room(&self, line: &Line) -> bool {
        self.lines.is_empty() || self.bytes + line.bytes() < BATCH_BYTES
    }

    fn push(&mut self, line: Line) {
        self.bytes += line.bytes();
        self.lines.push(line.0.map(|check| self.checks.push(check)));
    }

    fn is_full(&self) -> bool {
        self.lines.len() >= BATCH_CHECKS_MAX || self.bytes >= BATCH_BYTES
    }

    /// Prints one line for each; answers how many were errors.
    async fn answer(&mut self, decider: &Result<Decider, String>) -> anyhow::Result<u64> {
        let Self { checks, lines, .. } = std::mem::take(self);
        if lines.is_empty() {
            return Ok(0);
        }
        let request = v1::BatchCheckRequest { checks, consistency: None };
        let response = match decider {
            _ if request.checks.is_empty() => Ok(v1::BatchCheckResponse::default()),
            Ok(decider) => decider.batch_check(request).await.map_err(|error| format!("{error:#}")),
            Err(error) => Err(error.clone()),
        };
        let revision = response.as_ref().map_or(0, |response| response.revision);
        let mut results = response.map(|response| response.results.into_iter());
        let mut failures = 0;
        let mut out = io::stdout().lock();
        for line in lines {
            let answer = line.and_then(|()| {
                let results = results.as_mut().map_err(|error| error.clone())?;
                let result = results.next().ok_or("the server sent no answer")?;
                let reason = result.reason();
                match result.error {
                    Some(error) => Err(error.message),
                    None => Ok(Decision::new(result.allowed, reason, revision, result.valid_until)),
                }
            });
            match answer {
                Ok(decision) => serde_json::to_writer(&mut out, &decision),
                Err(error) => {
                    failures += 1;
                    serde_json::to_writer(&mut out, &Failure { error })
                }
            }
            .map_err(io::Error::from)?;
            writeln!(out)?;
        }
        Ok(failures)
    }
}
