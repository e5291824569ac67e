//! `capstan top`: rates, latencies and decisions of a running server, from its metrics.
//!
//! ```text
//! scrape ─▶ exposition ─▶ sample ─┐
//!                                 ├─▶ view ─▶ draw ─▶ live, or text
//! scrape ─▶ exposition ─▶ sample ─┘      └──▶ JSON
//! ```
//!
//! `exposition`, `sample`, `view` and `draw` are pure functions.

mod draw;
mod exposition;
mod history;
mod live;
mod sample;
mod scrape;
mod view;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::limits::{TOP_INTERVAL_MAX, TOP_INTERVAL_MIN};
use super::output::{self, Format};
use super::{context, tls};
use capstan_server::clock::Clock;
use live::Board;
use sample::Sample;
use scrape::Metrics;
use view::View;
pub(crate) use view::{Count, Quantile};

/// Width, in columns, of text output that does not go to a terminal.
const TEXT_WIDTH: u16 = 80;

const EXAMPLES: &str = "\
Examples:
  capstan top                                         a live screen; ? shows the keys
  capstan top --metrics http://pdp-1:4481 --interval 5
  capstan top --metrics https://pdp-1:4481 --ca ca.pem
  capstan top --once                                  totals since the server started
  capstan top --output json                           one line of JSON per interval, until stopped
  capstan top --once -o json | jq '.reasons[] | select(.share > 0.1)'

At an https address --ca, --cert, --key and --server-name count, or those of --context. Metrics need no token.

If standard output is not a terminal, one interval is printed as text. The exit code is 2 if the server \
cannot be reached at the start; later, failed scrapes are repeated until the server is back.

JSON fields:
  time             when the interval ended, RFC 3339
  seconds          length of the interval; absent with --once, like every per_second
  restarted        whether the server restarted in the interval; its earlier counts are lost
  version, revision, identities, role_bindings, in_flight
                   gauges at the end of the interval
  panics           since the server started
  loads            loads of the policy since the server started: applied, rejected, last_applied and last_rejected (times, or null),
                   last_seconds (duration of the last load)
  calls, failed, decisions, allowed, denied
                   {count, per_second}; failed: calls that ended with a code other than OK
  latency_seconds  p50, p90, p99, p99_9, estimated from the histogram, null without calls; at the
                   end of its range (1 s) a value means at least that; without StreamCheck
  rpcs             rpc, and the six fields above, for each RPC
  reasons          reason, count, per_second, share (of all decisions, from 0 to 1)
  errors           code, count, per_second: only codes that occurred, the most frequent first
  shed             refused calls and closed connections, by the limit: global, peer, probes, bytes, connections
  error            the only field of its line: the error of a failed scrape";

/// Rates, latencies and reasons of a running server, live
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Top {
    /// The HTTP address of the server, or the URL of its metrics: http://HOST:PORT or https://HOST:PORT
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4481")]
    metrics: String,

    /// Seconds between two scrapes, from 0.1 to 60
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,

    /// Print the totals since the server started, once
    #[arg(long)]
    once: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let seconds = seconds.filter(|time| (TOP_INTERVAL_MIN..=TOP_INTERVAL_MAX).contains(time));
    let (min, max) = (TOP_INTERVAL_MIN.as_secs_f64(), TOP_INTERVAL_MAX.as_secs_f64());
    seconds.ok_or_else(|| format!("expected seconds, from {min} to {max}"))
}

impl Top {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let mut files = tls::chosen();
        if context::is_chosen() {
            files = files.or(context::server(None)?.tls);
        }
        let metrics = Metrics::at(&self.metrics, &files)?;
        // Only the first scrape must succeed.
        let first = metrics.sample().await?;
        let is_terminal = io::stdout().is_terminal();
        if self.once {
            let view = View::total(&first, Clock::System.now());
            print(format, &view, &metrics)?;
        } else if format == Format::Table && is_terminal {
            live::run(&metrics, Board::new(&metrics.url, self.interval, output::coloured(), first))
                .await?;
        } else {
            self.print_intervals(format, &metrics, first).await?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Prints one interval as a table; as JSON, one interval after another until output fails.
    async fn print_intervals(
        &self,
        format: Format,
        metrics: &Metrics,
        first: Sample,
    ) -> anyhow::Result<()> {
        let (mut earlier, mut before) = (first, Instant::now());
        let mut began = before;
        loop {
            tokio::time::sleep_until(began + self.interval).await;
            began = Instant::now();
            match metrics.sample().await {
                Ok(sample) => {
                    let now = Instant::now();
                    let view = View::between(&earlier, &sample, now - before, Clock::System.now());
                    (earlier, before) = (sample, now);
                    print(format, &view, metrics)?;
                }
                Err(error) if format == Format::Json => {
                    output::json(&output::Failure { error: format!("{error:#}") })?;
                }
                Err(error) => return Err(error),
            }
            if format == Format::Table {
                return Ok(());
            }
        }
    }
}

fn print(format: Format, view: &View, metrics: &Metrics) -> anyhow::Result<()> {
    match format {
        Format::Json => output::json(view),
        Format::Table => {
            let terminal = io::stdout().is_terminal().then(crossterm::terminal::size);
            let width = terminal.and_then(Result::ok).map_or(TEXT_WIDTH, |(width, _)| width);
            output::line(draw::text(view, &metrics.url, width))
        }
    }
}
