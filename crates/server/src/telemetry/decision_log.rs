//! The decision log: one line of JSON for each decision. Off by default.
//!
//! ```text
//! service ──▶ capacity left? ──▶ queue ──▶ writer thread ──▶ FILE or standard output
//!               └─ no: the line is lost, counted, and reported in the log itself
//! ```
//!
//! **Invariants**: no call waits for the log, wakes its writer, or fails because of it. The queue
//! is bounded in lines and in bytes. Every lost line is counted. The `properties` of a request are
//! never logged, because they may be personal data.

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

/// Where the decision log is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Appended to this file. A file that does not exist is created with mode 0600.
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

impl Target {
    /// Looks whether it can be written, and makes no file.
    ///
    /// # Errors
    ///
    /// It is no file, or it or its folder cannot be written.
    pub(crate) fn look(&self) -> anyhow::Result<()> {
        match self {
            Self::File(path) => writer::look(path),
            Self::Stdout => Ok(()),
        }
    }
}

/// A handle of the decision log; clones share one queue.
#[derive(Clone, Debug)]
pub struct DecisionLog(Arc<Queue>);

#[derive(Debug)]
struct Queue {
    /// The channel is unbounded; [`QueueCapacity`] is the bound.
    entries: mpsc::Sender<Entry>,
    capacity: QueueCapacity,
    /// Lines that were lost and are not yet reported in the log.
    lost: AtomicU64,
    metrics: Arc<Metrics>,
    begun: AtomicBool,
    reopen: AtomicBool,
    finish: AtomicBool,
    writer: OnceLock<Thread>,
    finished: CancellationToken,
}

/// The lines of one request.
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

/// The capacity of the queue, and how much of it is used.
#[derive(Debug)]
struct QueueCapacity {
    lines: AtomicUsize,
    lines_max: usize,
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl QueueCapacity {
    /// Reserves capacity; false if there is not enough. Never over-commits. Two callers that race
    /// for the last of it may both fail.
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
    /// Opens the log. Nothing is written before [`DecisionLog::begin`].
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or the writer thread cannot start.
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

    /// Starts to write. Until then lines are queued, so that on standard output the addresses come
    /// first.
    pub(crate) fn begin(&self) {
        self.0.begun.store(true, Relaxed);
    }

    /// Opens the file again by its name, after a log rotation has renamed it.
    pub fn reopen(&self) {
        self.0.reopen.store(true, Relaxed);
        self.0.wake();
    }

    /// Queues the lines of one request, or loses them if the queue is full. Never waits.
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

    /// Writes the queued lines, within [`DECISION_LOG_FLUSH_MAX`]: the reader of a pipe may have
    /// stopped.
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
