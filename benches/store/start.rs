//! The start of a store with many bindings and audit records.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::ops::Bound;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::Context as _;
use capstan_benches::worlds::World;
use capstan_iam::audit::{AuditHead, AuditRecord, HEAD_KEY, Origin};
use capstan_iam::{Meta, ObjectChange};
use capstan_server::clock::Clock;
use capstan_server::feed::journal::{StoredCatalog, first_batch, objects_of};
use capstan_store::{Batch, Head, Journal as _, Limits, Op, RedbStore};

use crate::{Options, say};

/// Starts of the same store.
const ROUNDS: usize = 3;
/// Audit records in a commit.
const COMMIT_RECORDS: u32 = 50_000;

/// The program that serves a store. Dropping it ends it.
pub(crate) struct Server(Child);

impl Server {
    /// Starts it. Returns how many seconds it took until it was ready, too.
    pub(crate) fn start(program: &Path, dir: &Path) -> anyhow::Result<(Self, f64)> {
        let began = Instant::now();
        let child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--http", "none", "--data"])
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .env("CAPSTAN_LOG", "error")
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut server = Self(child);
        let mut line = String::new();
        BufReader::new(server.0.stdout.take().context("no output")?).read_line(&mut line)?;
        anyhow::ensure!(line.starts_with("grpc "), "{} does not serve", program.display());
        Ok((server, began.elapsed().as_secs_f64()))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

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
    let (bindings, records) = (options.bindings, options.audit_records);
    say(&format!("start: making a store of {bindings} bindings and {records} audit records"))?;
    make_with_records(options, &dir)?;
    let bytes = fs::metadata(dir.join("store.redb"))?.len() / 1_000_000;
    for _ in 0..ROUNDS {
        say(&format!("start: file of {bytes} MB; {}", open(&dir)?))?;
    }
    let mut rounds = vec![];
    for _ in 0..ROUNDS {
        let (server, ready) = Server::start(program, &dir)?;
        let pid = server.pid();
        let (peak, stays) = (memory(pid, "VmHWM:")?, memory(pid, "VmRSS:")?);
        rounds.push(format!(
            "{ready:.2} s, peak {peak:.0} MB, stays {stays:.0} MB ({:.2})",
            peak / stays
        ));
    }
    Ok(format!("start: ready after {}", rounds.join("; ")))
}

/// Opens the store, which verifies the file, and reads every record.
fn open(dir: &Path) -> anyhow::Result<String> {
    let began = Instant::now();
    let store = RedbStore::open(dir, Limits::default())?;
    let opened = began.elapsed().as_secs_f64();
    let view = block_on(store.view())??;
    let (began, mut records, mut bytes) = (Instant::now(), 0_u64, 0);
    view.scan((Bound::Unbounded, Bound::Unbounded), &mut |key, value| {
        records += 1;
        bytes += key.len() + value.len();
        true
    })?;
    let read = began.elapsed().as_secs_f64();
    let bytes = bytes / 1_000_000;
    Ok(format!(
        "opened and verified in {opened:.2} s, {records} records of {bytes} MB read in {read:.2} s"
    ))
}

fn block_on<F: Future>(future: F) -> anyhow::Result<F::Output> {
    Ok(tokio::runtime::Builder::new_current_thread().build()?.block_on(future))
}

/// Makes a store of a world, with audit records.
pub(crate) fn make_with_records(options: &Options, dir: &Path) -> anyhow::Result<()> {
    let change = make(options, dir)?;
    add_audit_records(options.audit_records, change, dir)
}

/// Adds audit records, each of a role binding that was created. `change`: one of them.
fn add_audit_records(records: u32, change: ObjectChange, dir: &Path) -> anyhow::Result<()> {
    let store = RedbStore::open(dir, Limits::default())?;
    let (head, view) = (block_on(store.head())??, block_on(store.view())??);
    let audit = view.get(HEAD_KEY)?.and_then(|head| AuditHead::decode(&head));
    let mut audit = audit.context("the store has a head of the audit log")?;
    let origin = Origin { authentication: "mtls".into(), ..Origin::default() };
    let at = (head.revision(), Clock::System.now());
    let record = AuditRecord::of_bootstrap(
        "capstan.iam.v1.RoleBindingService/CreateRoleBinding",
        &origin,
        at,
        &[change],
    );
    let mut left = records;
    while left > 0 {
        let now = left.min(COMMIT_RECORDS);
        let put =
            |(key, value): (Vec<u8>, Vec<u8>)| Op::Put { key: key.into(), value: value.into() };
        let mut side: Vec<Op> = (0..now).map(|_| put(audit.append(&record))).collect();
        side.push(put((HEAD_KEY.to_vec(), audit.encode())));
        block_on(store.append(head, Batch { side, ..Batch::default() }))??;
        left -= now;
    }
    Ok(())
}

/// Makes a store of a world. Returns one of its role bindings, as it is created.
fn make(options: &Options, dir: &Path) -> anyhow::Result<ObjectChange> {
    let world = World::Bindings(options.bindings.into());
    let (empty, now) = (Head::empty(1), Clock::System.now());
    let catalog = world.catalog();
    let catalog =
        StoredCatalog::built_in(catalog.name()).context("the world's catalog is built in")?;
    let objects = objects_of(&world.facts(), Meta::new(empty.revision() + 1, now));
    let binding = objects.last().cloned().context("a world has bindings")?;
    let (kind, id) = (binding.kind(), binding.id().clone());
    let change = ObjectChange { kind, id, before: None, after: Some(binding) };
    let batch = first_batch(&empty, &catalog, objects, ("bench", now));
    RedbStore::init(dir, 1, &batch, &Limits::default())?;
    Ok(change)
}

/// A line of `/proc/PID/status`, which has kibibytes, in megabytes.
pub(crate) fn memory(pid: u32, name: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()).context("no such line")?;
    Ok(kibibytes.parse::<f64>()? * 1024.0 / 1e6)
}
