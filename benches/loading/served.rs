//! Loading by the program itself: `capstan serve --policy`, in a process of its own.
//!
//! ```text
//! start ─▶ line `grpc ADDRESS`: ready ─▶ another document renamed over the file ─▶ the answer changes
//! ```
//!
//! A question is asked every few milliseconds after the change. The peak of memory is set back at the change, so
//! that each of the two loads has a peak of its own.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use capstan_client::{Check, Client};

use crate::documents::{Documents, Question};

/// Between two questions after the change.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// How long an answer may take to change.
const CHANGED_WITHIN: Duration = Duration::from_secs(600);

/// One start of the program. Memory is resident memory (RSS), in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Seconds from the start to the line that says that it serves.
    pub(crate) ready: f64,
    /// CPU seconds of the process until then.
    pub(crate) ready_cpu: f64,
    pub(crate) ready_peak: f64,
    pub(crate) ready_memory: f64,
    /// Seconds from the change of the file to the first answer that follows it.
    pub(crate) changed: f64,
    /// The most from the change of the file to that answer.
    pub(crate) changed_peak: f64,
}

/// The process, killed when it is dropped: it has no state to save.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Errors mean that it has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the program, and changes its file once.
pub(crate) fn run(program: &Path, documents: &Documents) -> anyhow::Result<Run> {
    let policy = documents.served()?;
    let most = (documents.bytes * 2).to_string();
    let started = Instant::now();
    let child = Command::new(program)
        .args(["serve", "--listen", "127.0.0.1:0", "--http", "none", "--max-document-bytes"])
        .arg(most)
        .arg("--policy")
        .arg(policy)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .env("CAPSTAN_LOG", "error")
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let mut server = Server(child);
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().context("no output")?).read_line(&mut line)?;
    let ready = started.elapsed().as_secs_f64();
    let address = line.trim_end().strip_prefix("grpc ");
    let address = address.with_context(|| format!("{} does not serve", program.display()))?;
    let pid = server.0.id();
    let (ready_cpu, ready_peak, ready_memory) =
        (cpu(pid)?, memory(pid, "VmHWM:")?, memory(pid, "VmRSS:")?);
    // Sets the peak back to what is resident now, see proc(5).
    fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let changed = runtime.block_on(changed(address, documents))?;
    let changed_peak = memory(pid, "VmHWM:")?;
    Ok(Run { ready, ready_cpu, ready_peak, ready_memory, changed, changed_peak })
}

/// Seconds from the change of the file to the first other answer.
async fn changed(address: &str, documents: &Documents) -> anyhow::Result<f64> {
    let client = Client::connect(address)?;
    let Question { identity, capability, resource } = &documents.question;
    let check = Check::new(identity, capability, resource);
    ensure!(client.check(check).await?.allowed, "the first document does not allow what it should");
    documents.change()?;
    let begun = Instant::now();
    while client.check(check).await?.allowed {
        ensure!(begun.elapsed() < CHANGED_WITHIN, "the answer does not change");
        tokio::time::sleep(ASK_EVERY).await;
    }
    let changed = begun.elapsed().as_secs_f64();
    client.shutdown().await;
    Ok(changed)
}

/// A line of `/proc/PID/status`, which has kibibytes, in bytes.
fn memory(pid: u32, name: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()).context("no such line")?;
    Ok(kibibytes.parse::<f64>()? * 1024.0)
}

/// CPU seconds of the process: fields 14 and 15 of `/proc/PID/stat`, in hundredths.
fn cpu(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name in parentheses, which may hold spaces.
    let (_, fields) = stat.rsplit_once(')').context("no name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
}
