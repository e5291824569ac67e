//! The start of a store with many bindings.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::Context as _;
use capstan_benches::worlds::World;
use capstan_iam::Meta;
use capstan_server::clock::Clock;
use capstan_server::feed::journal::{StoredCatalog, first_batch, objects_of};
use capstan_store::{Head, Limits, RedbStore};

use crate::{Options, say};

/// Starts of the same store.
const ROUNDS: usize = 3;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Errors mean that it has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes a store of a world, and starts the program on it.
pub(crate) fn run(options: &Options) -> anyhow::Result<String> {
    let program = options.binary.as_ref().context("--binary names the program to start")?;
    let dir = options.folder.join("start");
    say(&format!("start: making a store of {} bindings", options.bindings))?;
    make(options, &dir)?;
    let mut rounds = vec![];
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--http", "none", "--data"])
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .env("CAPSTAN_LOG", "error")
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut server = Server(child);
        let mut line = String::new();
        BufReader::new(server.0.stdout.take().context("no output")?).read_line(&mut line)?;
        anyhow::ensure!(line.starts_with("grpc "), "{} does not serve", program.display());
        let ready = began.elapsed().as_secs_f64();
        let pid = server.0.id();
        let (peak, stays) = (memory(pid, "VmHWM:")?, memory(pid, "VmRSS:")?);
        rounds.push(format!(
            "{ready:.2} s, peak {peak:.0} MB, stays {stays:.0} MB ({:.2})",
            peak / stays
        ));
    }
    let bytes = fs::metadata(dir.join("store.redb"))?.len() / 1_000_000;
    Ok(format!("start: file of {bytes} MB; ready after {}", rounds.join("; ")))
}

fn make(options: &Options, dir: &std::path::Path) -> anyhow::Result<()> {
    let world = World::Bindings(options.bindings.into());
    let (empty, now) = (Head::empty(1), Clock::System.now());
    let catalog = world.catalog();
    let catalog =
        StoredCatalog::built_in(catalog.name()).context("the world's catalog is built in")?;
    let objects = objects_of(&world.facts(), Meta::new(empty.revision() + 1, now));
    let batch = first_batch(&empty, &catalog, objects, ("bench", now));
    Ok(RedbStore::init(dir, 1, &batch, &Limits::default())?)
}

/// A line of `/proc/PID/status`, which has kibibytes, in megabytes.
fn memory(pid: u32, name: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()).context("no such line")?;
    Ok(kibibytes.parse::<f64>()? * 1024.0 / 1e6)
}
