//! Faults of the disk below a running server, and stores that do not open: what callers are told, that nothing is half
//! done, and that checks do not notice.
//!
//! Tests that begin with `root_` mount a file system, or let `strace` change what the kernel answers the server.
//! `dev/test` installs strace, and leaves them out where that is not possible, and says so.

#![expect(clippy::print_stdout, reason = "the figures of a run")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use capstan_proto::iam::v1 as iam;
use capstan_server::limits::{MANAGEMENT_MAX, WRITE_GROUP_MAX, WRITE_TIME_MAX, WRITES_QUEUED_MAX};
use capstan_store::limits::FAILURES_MAX;
use tokio::task::{JoinHandle, JoinSet};
use tonic::{Code, Request, Status};

use super::{CATALOG, Caller, Data, SEQUENCE, Served, audit_records, init, reason, serve};
use crate::common::{PATIENCE, Serving};

/// Time in which a server writes again once its disk works (S7, S9).
const HEALED: Duration = Duration::from_secs(5);
/// What each sync of a slow disk takes.
const SYNC_TIME: Duration = Duration::from_secs(3);
/// Maximum time for a check, however the disk is: on a busy machine, and less than a wait for a sync would take.
const CHECK_TIME_MAX: Duration = Duration::from_secs(2);
const _: () = assert!(CHECK_TIME_MAX.as_millis() < SYNC_TIME.as_millis());

/// Asks the same questions again and again, of a connection of its own. Every answer must be right, and come within
/// [`CHECK_TIME_MAX`].
struct Checker {
    ended: Arc<AtomicBool>,
    asked: JoinHandle<(u64, Duration)>,
}

impl Checker {
    async fn start(server: &Served) -> Self {
        let caller = server.caller("").await;
        let ended = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&ended);
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        let asked = tokio::spawn(async move {
            let (mut count, mut slowest) = (0, Duration::ZERO);
            while !is_over.load(Ordering::Relaxed) {
                for (identity, is_allowed) in [("alice", true), ("bob", false)] {
                    let asked = Instant::now();
                    let answer = caller.check(identity, "repo.delete", "acme/images/nginx").await;
                    slowest = slowest.max(asked.elapsed());
                    assert_eq!(answer.allowed, is_allowed, "{identity}");
                    count += 1;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            (count, slowest)
        });
        Self { ended, asked }
    }

    async fn end(self, during: &str) {
        self.ended.store(true, Ordering::Relaxed);
        let (count, slowest) = self.asked.await.unwrap();
        println!("{count} checks during {during}, the slowest took {slowest:?}");
        assert!(count > 10, "{count} checks during {during}");
        assert!(slowest < CHECK_TIME_MAX, "{slowest:?} for a check during {during}");
    }
}

/// A write that creates a group.
async fn create(caller: &Caller, name: &str, timeout: Duration) -> Result<u64, Status> {
    let mut request = Request::new(iam::CreateGroupRequest {
        parent: "acme".into(),
        group: Some(iam::Group { id: format!("acme/{name}"), ..Default::default() }),
        request_id: name.into(),
        ..Default::default()
    });
    request.set_timeout(timeout);
    let path = "/capstan.iam.v1.GroupService/CreateGroup";
    let made = caller.send::<_, iam::CreateGroupResponse>(path, request).await?;
    Ok(made.into_inner().revision)
}

fn told(status: &Status) -> (Code, String) {
    (status.code(), reason(status))
}

/// The groups below `acme`, and the number of the last transaction. Reads fail while the store is opened again.
async fn groups(caller: &Caller) -> (BTreeSet<String>, u64) {
    let since = Instant::now();
    let (all, revision) = loop {
        match caller.try_groups("acme").await {
            Ok(found) => break found,
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
        }
        assert!(since.elapsed() < HEALED, "the store is still not read");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let names =
        all.into_iter().filter_map(|group| Some(group.id.strip_prefix("acme/")?.to_owned()));
    (names.collect(), revision & SEQUENCE)
}

/// A strace that is attached to a process. Dropping it lets the process go on undisturbed.
struct Injected(Child);

impl Injected {
    fn into(server: &Served, inject: &str) -> Self {
        let calls = "trace=fdatasync,fsync,pwrite64";
        let pid = server.process.pid().to_string();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-p", &pid, "-o", "/dev/null", "-e", calls, "-e", inject]);
        let strace = strace.stderr(Stdio::piped()).spawn();
        let mut strace = strace.expect("strace is missing: dev/install strace");
        let mut lines = BufReader::new(strace.stderr.take().unwrap()).lines();
        let attached = lines.next().map(Result::unwrap).unwrap_or_default();
        assert!(attached.contains("attached"), "strace {inject}: {attached}");
        std::thread::spawn(move || lines.for_each(drop));
        Self(strace)
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        let pid = self.0.id().to_string();
        // It detaches; a kill would leave threads stopped.
        let _ended = Command::new("kill").args(["-TERM", &pid]).status();
        let _ended = self.0.wait();
    }
}

/// Writes until one is refused. Returns its name, and what is told.
async fn until_refused(
    caller: &Caller,
    round: &str,
    acknowledged: &mut BTreeSet<String>,
) -> (String, (Code, String)) {
    for number in 0..100 {
        let name = format!("{round}-{number}");
        match create(caller, &name, PATIENCE).await {
            Ok(_) => drop(acknowledged.insert(name)),
            Err(status) => return (name, told(&status)),
        }
    }
    panic!("no write failed");
}

/// Sends a write again until it is answered.
async fn settle(caller: &Caller, name: &str) -> u64 {
    let since = Instant::now();
    loop {
        match create(caller, name, PATIENCE).await {
            Ok(revision) => break revision & SEQUENCE,
            Err(status) => {
                assert_eq!(told(&status), (Code::Unavailable, "STORE_UNREACHABLE".into()));
            }
        }
        assert!(since.elapsed() < HEALED, "it does not write again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An fsync fails (S7): whoever waits does not know the outcome, and learns it by the same request id from the server
/// that goes on. A disk that fails again and again makes it read-only until it is restarted.
#[tokio::test(flavor = "multi_thread")]
async fn root_a_failed_fsync_is_told_and_survived() {
    const ONE: &str = "inject=fdatasync:error=EIO:when=4";
    const EACH: &str = "inject=fdatasync,fsync:error=EIO";
    let unknown = (Code::Unavailable, "COMMIT_OUTCOME_UNKNOWN".to_owned());
    let read_only = (Code::Unavailable, "STORE_READ_ONLY".to_owned());
    let data = Data::init(CATALOG);
    let server = data.start();
    let caller = server.caller("alice").await;
    let checker = Checker::start(&server).await;
    let mut acknowledged = BTreeSet::new();
    for (round, inject) in [("first", ONE), ("second", EACH)] {
        let injected = Injected::into(&server, inject);
        let (failed, told_first) = until_refused(&caller, round, &mut acknowledged).await;
        assert_eq!(told_first, unknown);
        if inject == EACH {
            // It cannot be opened again.
            let unreachable = (Code::Unavailable, "STORE_UNREACHABLE".to_owned());
            for _ in 0..3 {
                let then = create(&caller, &failed, PATIENCE).await.unwrap_err();
                assert_eq!(told(&then), unreachable);
                tokio::time::sleep(Duration::from_millis(400)).await;
            }
        }
        drop(injected);
        let since = Instant::now();
        // Without a write.
        let (found, before) = groups(&caller).await;
        let is_made = found.contains(&failed);
        println!("{round}: reads again after {:?}, made: {is_made}", since.elapsed());
        assert_eq!(settle(&caller, &failed).await, before + u64::from(!is_made));
        acknowledged.insert(failed);
        assert_eq!(groups(&caller).await.0, acknowledged);
    }

    // Another failure of the same minute is one too many.
    const { assert!(FAILURES_MAX == 3) };
    let injected = Injected::into(&server, ONE);
    let (failed, told_first) = until_refused(&caller, "third", &mut acknowledged).await;
    assert_eq!(told_first, unknown);
    drop(injected);
    for _ in 0..3 {
        let then = create(&caller, "another", PATIENCE).await.unwrap_err();
        assert_eq!(told(&then), read_only);
    }
    let (found, revision) = groups(&caller).await;
    let is_made = found.contains(&failed);
    let mut expected = acknowledged.clone();
    expected.extend(is_made.then(|| failed.clone()));
    assert_eq!(found, expected);
    checker.end("failing fsyncs").await;

    let (code, log) = server.process.stop("-TERM");
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(audit_records(&data.dir), revision);
    let server = data.start();
    let caller = server.caller("alice").await;
    assert_eq!(groups(&caller).await, (found, revision));
    assert_eq!(settle(&caller, &failed).await, revision + u64::from(!is_made));
}

/// A file system in memory, until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(path: PathBuf, size: &str) -> Self {
        std::fs::create_dir(&path).unwrap();
        let mounted = Self(path);
        mounted.mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        mounted
    }

    fn mount(&self, arguments: &[&str]) {
        let status = Command::new("mount").args(arguments).arg(&self.0).status().unwrap();
        assert!(status.success(), "mount {arguments:?}: needs root");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _left_behind = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// The disk is full (S9), by others and by the server itself: writes are refused, nothing is half done, and once there is
/// room the same server writes again.
#[tokio::test(flavor = "multi_thread")]
async fn root_a_full_disk_refuses_writes_and_heals() {
    let parent = tempfile::tempdir().unwrap();
    let mounted = Mounted::new(parent.path().join("mounted"), "12m");
    let dir = mounted.0.join("data");
    init(&dir, CATALOG);
    let server = Served::start(serve(&dir));
    let caller = server.caller("alice").await;
    let checker = Checker::start(&server).await;
    create(&caller, "before", PATIENCE).await.unwrap();
    let is_full = |answer: Result<u64, Status>| {
        assert_eq!(told(&answer.unwrap_err()), (Code::Unavailable, "DISK_FULL".into()));
    };

    let filler = File::create(mounted.0.join("filler")).unwrap();
    let stat = rustix::fs::fstatvfs(&filler).unwrap();
    let rest = stat.f_bavail * stat.f_frsize;
    rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), 0, rest).unwrap();
    let state = groups(&caller).await;
    for number in 0..20 {
        is_full(create(&caller, &format!("full-{number}"), PATIENCE).await);
        assert_eq!(groups(&caller).await, state);
    }
    filler.set_len(0).unwrap();
    let freed = Instant::now();
    create(&caller, "full-0", PATIENCE).await.unwrap();
    println!("writes again {:?} after there was room", freed.elapsed());
    assert!(freed.elapsed() < HEALED);

    // The server fills it.
    let operator = server.operator().await;
    let batch = async |number: usize| {
        let one = |at| super::binding("acme/before", "", &super::person(number * 1_000 + at));
        let request = iam::BatchCreateRoleBindingsRequest {
            parent: "acme/before".into(),
            role_bindings: (0..1_000).map(one).collect(),
            ..Default::default()
        };
        let method = "RoleBindingService/BatchCreateRoleBindings";
        let made: Result<iam::BatchCreateRoleBindingsResponse, _> =
            operator.ask(method, request).await;
        made.map(|made| made.revision)
    };
    let mut batches = 0;
    loop {
        match batch(batches).await {
            Ok(_) => batches += 1,
            full => break is_full(full),
        }
    }
    let (bindings, revision) = caller.bindings("acme/before").await;
    assert_eq!(bindings.len(), batches * 1_000, "a batch is whole or not at all");
    assert!(batches > 0, "no batch fits");
    mounted.mount(&["-o", "remount,size=64m"]);
    batch(batches).await.unwrap();
    let (bindings, after) = caller.bindings("acme/before").await;
    assert_eq!((bindings.len(), after), ((batches + 1) * 1_000, revision + 1));
    checker.end("a full disk").await;
    drop(filler);
    let (code, log) = server.process.stop("-TERM");
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(audit_records(&dir), after & SEQUENCE);
}

/// What is written is refused as on a read-only file system (S10). A server does not start on one.
#[tokio::test(flavor = "multi_thread")]
async fn root_a_read_only_disk_is_told() {
    let parent = tempfile::tempdir().unwrap();
    let mounted = Mounted::new(parent.path().join("mounted"), "16m");
    let dir = mounted.0.join("data");
    init(&dir, CATALOG);
    let server = Served::start(serve(&dir));
    let caller = server.caller("alice").await;
    let checker = Checker::start(&server).await;
    create(&caller, "before", PATIENCE).await.unwrap();
    let state = groups(&caller).await;
    let injected = Injected::into(&server, "inject=pwrite64:error=EROFS");
    // The first to meet it may be in the middle of a commit.
    let (code, first) = told(&create(&caller, "during", PATIENCE).await.unwrap_err());
    assert_eq!(code, Code::Unavailable, "{first}");
    assert!(["STORE_READ_ONLY", "COMMIT_OUTCOME_UNKNOWN"].contains(&&*first), "{first}");
    for _ in 0..3 {
        let then = told(&create(&caller, "during", PATIENCE).await.unwrap_err());
        let expected = ["STORE_READ_ONLY", "STORE_UNREACHABLE"];
        assert!(then.0 == Code::Unavailable && expected.contains(&&*then.1), "{then:?}");
        println!("read-only: {}", then.1);
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    drop(injected);
    let since = Instant::now();
    while let Err(status) = create(&caller, "during", PATIENCE).await {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(since.elapsed() < HEALED, "{status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("writes again after {:?}", since.elapsed());
    let made = BTreeSet::from(["before".to_owned(), "during".to_owned()]);
    assert_eq!(groups(&caller).await, (made, state.1 + 1));
    checker.end("a read-only disk").await;
    let (code, log) = server.process.stop("-TERM");
    assert_eq!(code, Some(0), "{log}");

    mounted.mount(&["-o", "remount,ro"]);
    let (code, text) = refused(&dir);
    assert_eq!(code, 78, "{text}");
    assert!(text.contains("cannot be written: Read-only file system"), "{text}");
}

/// Whether a thread of the process is in an fdatasync.
fn is_syncing(pid: u32) -> bool {
    const FDATASYNC: &str = if cfg!(target_arch = "aarch64") { "83" } else { "75" };
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // A thread may end meanwhile.
    let calls =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("syscall")).ok());
    calls.into_iter().any(|call| call.split(' ').next() == Some(FDATASYNC))
}

/// Each fdatasync takes 3 s (S15): the queue fills and refuses, whoever waits does so until the deadline, and checks go on.
#[tokio::test(flavor = "multi_thread")]
async fn root_a_slow_disk_fills_the_queue_and_no_check_waits() {
    const WRITES: usize = 1_600;
    // Of one connection, fewer than its streams.
    const SHARE: usize = 200;
    let data = Data::init(CATALOG);
    let server = data.start();
    let operator = server.operator().await;
    let checker = Checker::start(&server).await;
    create(&operator, "before", PATIENCE).await.unwrap();

    let injected =
        Injected::into(&server, &format!("inject=fdatasync:delay_enter={}", SYNC_TIME.as_micros()));
    let begun = Instant::now();
    let first = async {
        create(&operator, "first", PATIENCE).await.unwrap();
        println!("a write took {:?}", begun.elapsed());
        assert!(begun.elapsed() > SYNC_TIME);
    };
    let second = async {
        // Behind the first, and in no commit with it.
        while !is_syncing(server.process.pid()) {
            assert!(begun.elapsed() < SYNC_TIME, "the first write is not being committed");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Its own deadline is shorter than the disk needs.
        let (sent, short) = (Instant::now(), Duration::from_secs(1));
        let status = create(&operator, "short", short).await.unwrap_err();
        // The client's own timer, or the server's.
        let is_late = matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled);
        assert!(is_late, "{status:?}");
        assert!(sent.elapsed() < short * 2, "{:?}", sent.elapsed());
    };
    tokio::join!(first, second);

    let mut writes = JoinSet::new();
    for connection in 0..WRITES / SHARE {
        // Callers of one address share their permits, and the operator has others.
        let caller = if connection % 2 == 0 {
            server.caller("alice").await
        } else {
            server.operator().await
        };
        for write in 0..SHARE {
            let caller = caller.clone();
            writes.spawn(async move {
                let name = format!("slow-{connection}-{write}");
                let sent = Instant::now();
                (create(&caller, &name, PATIENCE).await, name, sent.elapsed())
            });
        }
    }
    let (mut acknowledged, mut refused, mut late) =
        (BTreeSet::from(["before", "first"].map(String::from)), BTreeSet::new(), 0);
    while let Some(written) = writes.join_next().await {
        let (answer, name, took) = written.unwrap();
        assert!(took < WRITE_TIME_MAX + Duration::from_secs(2), "{took:?}");
        match answer.map_err(|status| told(&status)) {
            Ok(_) => drop(acknowledged.insert(name)),
            Err((Code::ResourceExhausted, reason)) if reason == "OVERLOADED" => {
                assert!(took < Duration::from_secs(5), "{took:?}");
                refused.insert(name);
            }
            Err((Code::DeadlineExceeded, _)) => late += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    println!("{} acknowledged, {} refused, {late} late", acknowledged.len(), refused.len());
    // The queue refuses before all permits are taken, so that some are left for reads.
    const { assert!(WRITES_QUEUED_MAX + WRITE_GROUP_MAX < MANAGEMENT_MAX && MANAGEMENT_MAX < WRITES) };
    // A commit that ends while writes still arrive makes room for some.
    let most = WRITES - WRITES_QUEUED_MAX;
    assert!((most / 2..=most).contains(&refused.len()), "{} refused", refused.len());
    assert!(late > 0);
    checker.end("a slow disk").await;
    drop(injected);
    let since = Instant::now();
    while create(&operator, "after", PATIENCE).await.is_err() {
        assert!(since.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    acknowledged.insert("after".into());
    let (found, _) = groups(&operator).await;
    assert!(found.is_superset(&acknowledged));
    assert!(found.is_disjoint(&refused));
    assert!(!found.contains("short"), "nobody waited for it when it could be begun");
}

/// Starts a server that does not start. Returns its exit code and what it says.
fn refused(dir: &Path) -> (i32, String) {
    let (code, log) = Serving::spawn(&mut serve(dir), 1).wait();
    (code.expect("an exit code"), log)
}

#[test]
fn a_second_process_is_told_who_has_the_store() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let (code, text) = refused(&data.dir);
    assert_eq!(code, 75, "{text}");
    let pid = server.process.pid();
    assert!(text.contains(&format!("is already open, by process {pid}")), "{text}");
    server.kill();
    // A process that was killed has nothing.
    data.start();
}

/// What is no store, or not whole, is refused and not touched.
#[test]
fn a_store_that_is_not_one_is_refused_and_not_touched() {
    let data = Data::init(CATALOG);
    let file = data.dir.join("store.redb");
    let whole = std::fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    // Every page, so that whichever are in use are hit.
    damaged.iter_mut().skip(4_096 + 1_000).step_by(4_096).for_each(|byte| *byte ^= 0x10);
    let random: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(whole.len()).collect();
    for (what, bytes, text) in [
        ("empty", vec![], "is empty: restore it from a backup"),
        ("random", random, "is not a store of Capstan"),
        ("text", b"version: 1\n".repeat(10_000), "is not a store of Capstan"),
        ("cut off", whole[..whole.len() / 2].to_vec(), "is cut off: restore it from a backup"),
        ("damaged", damaged, "is corrupt"),
    ] {
        std::fs::write(&file, &bytes).unwrap();
        let (code, said) = refused(&data.dir);
        assert_eq!(code, 65, "{what}: {said}");
        assert!(said.contains(text), "{what}: {said}");
        assert!(std::fs::read(&file).unwrap() == bytes, "{what}: the file was changed");
    }
    std::fs::remove_file(&file).unwrap();
    let (code, said) = refused(&data.dir);
    assert_eq!(code, 66, "{said}");
    assert!(said.contains("make one with `capstan init`"), "{said}");
    assert!(!file.exists());

    std::fs::write(&file, &whole).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::set_permissions(&data.dir, std::fs::Permissions::from_mode(0o777)).unwrap();
    let (code, said) = refused(&data.dir);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("may be changed by other users"), "{said}");
    std::fs::set_permissions(&data.dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    drop(data.start());
}
