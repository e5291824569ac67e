//! A server of this very program, started to be measured and stopped afterwards.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, anyhow};

use super::load::Target;
use super::load::connection::Endpoint;

/// A running server; dropping it stops it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    endpoint: Endpoint,
}

impl Server {
    /// Starts this program with these arguments and waits for the address that it prints.
    ///
    /// # Errors
    ///
    /// It does not start; what it says of that has gone to stderr.
    pub async fn start(arguments: Vec<String>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .env("CAPSTAN_LOG", "error")
            .spawn()
            .context("cannot start a server")?;
        let stdout = child.stdout.take();
        // Stopped by this from here on, whatever happens.
        let mut server = Self { child, endpoint: Endpoint::Unix(PathBuf::new()) };
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout?).read_line(&mut line).ok()?;
            Some(line)
        });
        let line = line.await?.unwrap_or_default();
        let address = line.trim_end().strip_prefix("grpc ");
        let address = address.ok_or_else(|| anyhow!("the server to measure did not start"))?;
        server.endpoint = Endpoint::parse(address).map_err(|error| anyhow!(error))?;
        Ok(server)
    }

    pub fn target(&self) -> Target {
        Target { endpoint: self.endpoint.clone(), pid: Some(self.child.id()) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has nothing to finish, and one that has ended already is just as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder for what the servers need, removed when dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// # Errors
    ///
    /// The system's folder for such things cannot be written to.
    pub fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("capstan-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
