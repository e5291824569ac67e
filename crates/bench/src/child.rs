//! Child processes to measure: servers, most of them started from this program's own executable.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, anyhow};
use capstan_client::ServerAddress;

use crate::load::{Access, MeasuredServer};

/// A server in a child process. Dropping it kills the process.
#[derive(Debug)]
pub struct Server {
    /// Held for its [`Drop`].
    _process: KillOnDrop,
    measured: MeasuredServer,
}

#[derive(Debug)]
struct KillOnDrop(Child);

impl Server {
    /// Starts this program's executable with these arguments, and waits for its first line of output,
    /// `grpc ADDRESS`. Its log level is `error`; its standard error is that of this process.
    ///
    /// # Errors
    ///
    /// The process does not start, or ends or prints something else first.
    pub async fn start(arguments: Vec<String>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        Self::start_by(Command::new(program).args(arguments)).await
    }

    /// The same by another command.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub async fn start_by(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .env("CAPSTAN_LOG", "error")
            .spawn()
            .context("cannot start a server")?;
        let (pid, stdout) = (child.id(), child.stdout.take());
        // From here on every return kills the process.
        let process = KillOnDrop(child);
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout?).read_line(&mut line).ok()?;
            Some(line)
        });
        let line = line.await?.unwrap_or_default();
        let address = line.trim_end().strip_prefix("grpc ");
        let address = address.ok_or_else(|| anyhow!("the server to measure did not start"))?;
        let address = address.parse::<ServerAddress>()?;
        let measured = MeasuredServer { address, access: Access::default(), pid: Some(pid) };
        Ok(Self { _process: process, measured })
    }

    /// The address and process id to measure.
    #[must_use]
    pub const fn measured(&self) -> &MeasuredServer {
        &self.measured
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // A measured server has no state to save. Errors mean that it has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A temporary folder for documents and sockets of the child processes. Dropping it removes it.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Creates `capstan-bench-PID` in the system's folder for temporary files.
    ///
    /// # Errors
    ///
    /// The folder cannot be created.
    pub fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("capstan-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    /// The path of a file in the folder; the file is not created.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
