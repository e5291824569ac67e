//! The decision log: what was decided, a line of JSON each, off unless it is asked for.
//!
//! ```text
//! service ──▶ capacity? ──▶ queue ──▶ writer, a thread of its own ──▶ FILE or standard output
//!               └─ no: lost, counted, and told of in the log itself
//! ```
//!
//! **Invariants**: no call ever waits for the log, wakes its writer, or fails because of it. What
//! waits to be written is bounded in lines and in bytes. Every line that is lost is counted. What a
//! request supplies in `properties` never gets here: it may be about people.

mod line;
mod writer;

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::Thread;

use capstan_engine::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::limits::{DECISION_LOG_FLUSH_MAX, Limits};
use crate::methods::Rpc;
use crate::telemetry::metrics::Metrics;

pub(crate) use line::Line;
use writer::Writer;

/// Where the decision log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Appended to this file, which is made for its owner's eyes only if it is not there.
    File(PathBuf),
    /// Standard output, after the lines with the addresses.
    Stdout,
}

impl FromStr for Target {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(if text == "-" { Self::Stdout } else { Self::File(text.into()) })
    }
}

/// What decisions are told to.
#[derive(Clone, Debug)]
pub struct DecisionLog(Arc<Queue>);

#[derive(Debug)]
struct Queue {
    /// Without a bound of its own: [`QueueCapacity`] keeps it.
    entries: mpsc::Sender<Entry>,
    capacity: QueueCapacity,
    /// Lines that the log has not told yet that it lost.
    lost: AtomicU64,
    metrics: Arc<Metrics>,
    begun: AtomicBool,
    reopen: AtomicBool,
    finish: AtomicBool,
    writer: OnceLock<Thread>,
    finished: CancellationToken,
}

/// The decisions of one request.
#[derive(Debug)]
struct Entry {
    rpc: Rpc,
    now: Timestamp,
    revision: u64,
    lines: Vec<Line>,
}

impl Entry {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.lines.iter().map(Line::bytes).sum::<usize>()
    }
}

/// How much waits, and may.
#[derive(Debug)]
struct QueueCapacity {
    lines: AtomicUsize,
    lines_max: usize,
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl QueueCapacity {
    /// Whether there is capacity for so much more, which it then has. Never more than there is is given
    /// out; two that come at once to the last of it may both find none.
    fn try_reserve(&self, lines: usize, bytes: usize) -> bool {
        let lines_before = self.lines.fetch_add(lines, Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Relaxed);
        let fits = lines_before.saturating_add(lines) <= self.lines_max
            && bytes_before.saturating_add(bytes) <= self.bytes_max;
        if !fits {
            self.release(lines, bytes);
        }
        fits
    }

    fn release(&self, lines: usize, bytes: usize) {
        self.lines.fetch_sub(lines, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }
}

impl DecisionLog {
    /// Opens the log; nothing is written before [`DecisionLog::begin`].
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub(crate) fn open(
        target: &Target,
        limits: &Limits,
        clock: Clock,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let (entries, queued) = mpsc::channel();
        let queue = Arc::new(Queue {
            entries,
            capacity: QueueCapacity {
                lines: AtomicUsize::new(0),
                lines_max: limits.decision_log_lines_max,
                bytes: AtomicUsize::new(0),
                bytes_max: limits.decision_log_bytes_max,
            },
            lost: AtomicU64::new(0),
            metrics: Arc::clone(metrics),
            begun: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
            finish: AtomicBool::new(false),
            writer: OnceLock::new(),
            finished: CancellationToken::new(),
        });
        let writer = Writer::open(target, Arc::clone(&queue), queued, clock)?;
        let thread = std::thread::Builder::new().name("decision-log".into());
        let thread = thread.spawn(move || writer.run())?;
        let _ = queue.writer.set(thread.thread().clone());
        Ok(Self(queue))
    }

    /// Begins to write. Until then lines wait, so that the addresses come first on standard output.
    pub(crate) fn begin(&self) {
        self.0.begun.store(true, Relaxed);
    }

    /// Closes the file and opens it anew by its name: whoever rotates logs has renamed it.
    pub fn reopen(&self) {
        self.0.reopen.store(true, Relaxed);
        self.0.wake();
    }

    /// Takes down what was answered, or loses it. Never waits.
    pub(crate) fn write(&self, rpc: Rpc, now: Timestamp, revision: u64, lines: Vec<Line>) {
        if lines.is_empty() {
            return;
        }
        let entry = Entry { rpc, now, revision, lines };
        let (lines, bytes) = (entry.lines.len(), entry.bytes());
        if !self.0.capacity.try_reserve(lines, bytes) || self.0.entries.send(entry).is_err() {
            let lines = lines as u64;
            self.0.lost.fetch_add(lines, Relaxed);
            self.0.metrics.logged(0, lines);
        }
    }

    /// Writes what waits, for a moment at most: whoever reads may have stopped reading.
    pub(crate) async fn finish(&self) {
        self.0.finish.store(true, Relaxed);
        self.0.wake();
        let finished = self.0.finished.cancelled();
        if tokio::time::timeout(DECISION_LOG_FLUSH_MAX, finished).await.is_err() {
            tracing::warn!("the decision log takes no more: its last lines are lost");
        }
    }
}

impl Queue {
    fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }
}
