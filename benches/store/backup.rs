//! A backup of a running server with many bindings and audit records, and what is restored from it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::start::{Server, memory};
use crate::{Options, say, start};

/// How often the memory of a command is read.
const PERIOD: Duration = Duration::from_millis(5);

/// Makes a store of a world, serves it, backs it up, verifies and restores that.
pub(crate) fn run(options: &Options) -> anyhow::Result<String> {
    let program = options.binary.as_ref().context("--binary names the program to start")?;
    let dir = options.folder.join("backup");
    let (bindings, records) = (options.bindings, options.audit_records);
    say(&format!("backup: making a store of {bindings} bindings and {records} audit records"))?;
    start::make_with_records(options, &dir)?;
    let file = options.folder.join("capstan.backup");
    let socket = format!("unix:{}", dir.join("operator.sock").display());
    let (server, _) = Server::start(program, &dir)?;
    let before = memory(server.pid(), "VmHWM:")?;
    let back_up =
        measured(Command::new(program).arg("backup").arg(&file).args(["--addr", &socket]))?;
    let after = memory(server.pid(), "VmHWM:")?;
    drop(server);
    let megabytes = |path: &Path| anyhow::Ok(fs::metadata(path)?.len() / 1_000_000);
    let verify = measured(Command::new(program).args(["store", "verify"]).arg(&file))?;
    let restored = options.folder.join("restored");
    let restore =
        measured(Command::new(program).arg("restore").arg(&file).arg("--data").arg(&restored))?;
    let whole = measured(Command::new(program).args(["store", "verify"]).arg(&restored))?;
    Ok(format!(
        "backup: of a file of {} MB one of {} MB, {back_up}, of the server {before:.0} MB before and {after:.0} MB after\n\
         backup: verified in {verify}; restored to a file of {} MB in {restore}, which is verified in {whole}",
        megabytes(&dir.join("store.redb"))?,
        megabytes(&file)?,
        megabytes(&restored.join("store.redb"))?,
    ))
}

/// Runs a command. Returns how long it took, and the most memory that it had.
fn measured(command: &mut Command) -> anyhow::Result<String> {
    let began = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let mut peak = 0.0_f64;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        // A process that has ended meanwhile has no memory.
        peak = peak.max(memory(child.id(), "VmHWM:").unwrap_or(0.0));
        #[expect(
            clippy::disallowed_methods,
            reason = "the memory of another process tells nobody"
        )]
        thread::sleep(PERIOD);
    };
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(format!("{:.2} s, peak {peak:.0} MB", began.elapsed().as_secs_f64()))
}
