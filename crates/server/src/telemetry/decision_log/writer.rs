//! The thread that writes the decision log.
//!
//! **Invariants**: every line in the file is whole. Only the last can be partial, while the disk is
//! full: the writer then continues with the rest of that line. A line that cannot be written is
//! lost at once and counted, so a full disk costs no memory.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use anyhow::Context as _;
use rustix::fs::Access;

use super::{Entry, Queue, Target, line};
use crate::clock::Clock;
use crate::limits::{DECISION_LOG_LOST_PAUSE, DECISION_LOG_TICK, DECISION_LOG_WRITE_BYTES};

pub(super) struct Writer {
    target: Target,
    file: Box<dyn Write + Send>,
    queue: Arc<Queue>,
    entries: mpsc::Receiver<Entry>,
    clock: Clock,
    /// Bytes of lines for the next write, and the number of lines.
    gathered: Vec<u8>,
    gathered_lines: u64,
    /// The rest of a line that was written in part.
    partial_line: Vec<u8>,
    /// Lines that could not be written since the last report.
    lost: u64,
    lost_reported_at: Option<Instant>,
    /// Whether the last write to the file failed; the error is logged once.
    failing: bool,
}

impl Writer {
    pub(super) fn open(
        target: &Target,
        queue: Arc<Queue>,
        entries: mpsc::Receiver<Entry>,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let file = open(target)?;
        Ok(Self::new(target.clone(), Box::new(file), queue, entries, clock))
    }

    fn new(
        target: Target,
        file: Box<dyn Write + Send>,
        queue: Arc<Queue>,
        entries: mpsc::Receiver<Entry>,
        clock: Clock,
    ) -> Self {
        Self {
            target,
            file,
            queue,
            entries,
            clock,
            gathered: Vec::new(),
            gathered_lines: 0,
            partial_line: Vec::new(),
            lost: 0,
            lost_reported_at: None,
            failing: false,
        }
    }

    /// Writes until the log is finished. It polls the queue, because to wake a thread would cost a
    /// check more than everything else that the log does.
    pub(super) fn run(mut self) {
        let _finished = self.queue.finished.clone().drop_guard();
        let mut more = false;
        loop {
            if !more {
                std::thread::park_timeout(DECISION_LOG_TICK);
            }
            let last = self.queue.finish.load(Relaxed);
            if !last && !self.queue.begun.load(Relaxed) {
                continue;
            }
            more = self.write_waiting();
            if self.queue.reopen.swap(false, Relaxed) {
                self.reopen();
            }
            self.report_lost(last);
            if last && !more {
                return;
            }
        }
    }

    /// Writes queued lines, at most as many as the queue holds. Returns whether there may be more.
    fn write_waiting(&mut self) -> bool {
        let mut budget = self.queue.capacity.lines_max;
        while budget > 0 {
            let Ok(entry) = self.entries.try_recv() else { break };
            budget = budget.saturating_sub(entry.lines.len());
            let time = entry.time();
            for line in &entry.lines {
                entry.append(line, time.as_deref(), &mut self.gathered);
                self.gathered_lines += 1;
                if self.gathered.len() >= DECISION_LOG_WRITE_BYTES {
                    self.write_gathered();
                }
            }
            self.queue.capacity.release(entry.lines.len(), entry.bytes());
        }
        self.write_gathered();
        budget == 0
    }

    fn write_gathered(&mut self) {
        let lines = std::mem::take(&mut self.gathered);
        let (written, outcome) = self.write_lines(&lines);
        if let Err(error) = outcome {
            self.on_write_error(&error);
        }
        let lost = self.gathered_lines.saturating_sub(written);
        self.queue.metrics.logged(written, lost);
        self.lost += lost;
        self.gathered_lines = 0;
        self.gathered = lines;
        self.gathered.clear();
    }

    /// Writes lines. Returns how many were started; the last of them may still be partial.
    fn write_lines(&mut self, lines: &[u8]) -> (u64, io::Result<()>) {
        let partial_line = std::mem::take(&mut self.partial_line);
        if let (rest, Err(error)) = write(&mut self.file, &partial_line) {
            self.partial_line = rest.to_vec();
            return (0, Err(error));
        }
        let (rest, outcome) = write(&mut self.file, lines);
        let written = lines.strip_suffix(rest).unwrap_or_default();
        let begun = written.split_inclusive(|byte| *byte == b'\n').count() as u64;
        if !written.is_empty() && !written.ends_with(b"\n") {
            let partial_line = rest.split_inclusive(|byte| *byte == b'\n').next();
            self.partial_line = partial_line.unwrap_or_default().to_vec();
        }
        (begun, outcome)
    }

    fn on_write_error(&mut self, error: &io::Error) {
        if !self.failing {
            self.failing = true;
            tracing::error!("the decision log cannot be written, lines are lost: {error}");
        }
    }

    /// Reports the number of lost lines in the log, at most once in [`DECISION_LOG_LOST_PAUSE`].
    fn report_lost(&mut self, last: bool) {
        self.lost += self.queue.lost.swap(0, Relaxed);
        let early = self
            .lost_reported_at
            .is_some_and(|lost_reported_at| lost_reported_at.elapsed() < DECISION_LOG_LOST_PAUSE);
        if (self.lost == 0 && !self.failing) || (early && !last) {
            return;
        }
        self.lost_reported_at = Some(Instant::now());
        let line = if self.lost > 0 { line::lost(self.clock.now(), self.lost) } else { vec![] };
        let (begun, outcome) = self.write_lines(&line);
        if begun > 0 {
            self.lost = 0;
        }
        match outcome {
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!("the decision log is written again");
            }
            Ok(()) => {}
            Err(error) => self.on_write_error(&error),
        }
    }

    fn reopen(&mut self) {
        if self.target == Target::Stdout {
            return;
        }
        match open(&self.target) {
            Ok(file) => {
                self.file = Box::new(file);
                // The first part of this line is in the old file.
                self.partial_line.clear();
                tracing::info!("the decision log is opened anew");
            }
            Err(error) => {
                tracing::error!("{error:#}: the decision log goes on in the old file");
            }
        }
    }
}

/// Writes as much as possible. Returns the unwritten rest, and the error that stopped it.
fn write<'b>(file: &mut impl Write, bytes: &'b [u8]) -> (&'b [u8], io::Result<()>) {
    let mut rest = bytes;
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(0) => return (rest, Err(io::ErrorKind::WriteZero.into())),
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (rest, Err(error)),
        }
    }
    (rest, Ok(()))
}

/// Looks whether [`open`] could open a file. A file is not made, and a pipe not opened: its reader would see it close.
pub(super) fn look(path: &Path) -> anyhow::Result<()> {
    let writable = |path: &Path, needed| Ok(rustix::fs::access(path, needed)?);
    let found: io::Result<()> = match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => writable(path, Access::WRITE_OK),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let needed = Access::WRITE_OK | Access::EXEC_OK;
            writable(folder.unwrap_or_else(|| Path::new(".")), needed)
        }
        Err(error) => Err(error),
    };
    found.with_context(|| format!("cannot open the decision log {}", path.display()))
}

fn open(target: &Target) -> anyhow::Result<File> {
    match target {
        // A duplicate handle: other output to standard output must not wait for the log's reader.
        Target::Stdout => {
            let output = io::stdout().as_fd().try_clone_to_owned();
            Ok(output.context("cannot write the decision log to standard output")?.into())
        }
        Target::File(path) => {
            // To open a pipe for writing only would block until a reader opens it.
            let is_pipe = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
            let mut options = OpenOptions::new();
            options.append(true).create(true).mode(0o600).read(is_pipe);
            let name = path.display();
            options.open(path).with_context(|| format!("cannot open the decision log {name}"))
        }
    }
}

#[cfg(test)]
mod tests;
