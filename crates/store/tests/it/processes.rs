//! Two processes and one directory.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use capstan_store::{AppendError, Batch, Journal as _, Limits, OpenError, RedbStore, StoreError};

use crate::common::{batch, put};

/// Set for the process that this test starts: the directory that it opens.
const DIRECTORY: &str = "CAPSTAN_STORE_TEST_DIRECTORY";

/// Runs in the other process: opens the store, appends until it is killed, and prints each head that it got.
#[test]
fn as_the_other_process() {
    let Some(dir) = env::var_os(DIRECTORY) else { return };
    let store = RedbStore::open(Path::new(&dir), Limits::default()).unwrap();
    let run = tokio::runtime::Builder::new_current_thread().build().unwrap();
    run.block_on(async {
        let mut head = store.head().await.unwrap();
        let mut output = std::io::stdout().lock();
        loop {
            writeln!(output, "head {}", head.seq).unwrap();
            let batch = batch(vec![put(&head.seq.to_string(), vec![1; 5_000])]);
            match store.append(head, batch).await {
                Ok(after) => head = after,
                Err(AppendError::Store(StoreError::OutcomeUnknown(error))) => {
                    writeln!(output, "unknown: {error}").unwrap();
                    head = store.head().await.unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
    });
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// The other process has the store until it is killed in the middle of a commit. Then it is free at once, and holds
/// what was acknowledged.
#[test]
fn a_second_process_is_refused_and_a_killed_one_leaves_no_lock() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    RedbStore::init(&dir, 1, &Batch::default(), &Limits::default()).unwrap();
    for _ in 0..5 {
        let mut other = Command::new(env::current_exe().unwrap());
        other.args(["processes::as_the_other_process", "--exact", "--nocapture"]);
        other.env(DIRECTORY, &dir).stdout(Stdio::piped());
        let mut other = Killed(other.spawn().unwrap());
        let mut lines = BufReader::new(other.0.stdout.take().unwrap()).lines();
        let mut acknowledged = 0;
        for line in lines.by_ref().map(Result::unwrap) {
            let seq = line.split_once("head ").and_then(|(_, seq)| seq.parse().ok());
            acknowledged = seq.unwrap_or(acknowledged);
            if seq.is_some() && acknowledged % 7 == 3 {
                break;
            }
        }
        let refused = RedbStore::open(&dir, Limits::default()).unwrap_err();
        let pid = other.0.id();
        let text = format!("the store in `{}` is already open, by process {pid}", dir.display());
        assert_eq!(refused.to_string(), text);
        let made = RedbStore::init(&dir, 1, &Batch::default(), &Limits::default());
        assert!(
            matches!(made, Err(OpenError::AlreadyOpen { pid: Some(found), .. }) if found == pid)
        );

        other.0.kill().unwrap();
        other.0.wait().unwrap();
        for line in lines.map(Result::unwrap) {
            let seq = line.strip_prefix("head ").and_then(|seq| seq.parse().ok());
            acknowledged = seq.unwrap_or(acknowledged);
        }
        let head = RedbStore::check(&dir).unwrap().head.seq;
        assert!((acknowledged..=acknowledged + 1).contains(&head), "{acknowledged}, but {head}");
    }
}

/// Who has the lock may not have written its process id yet: then the file names a process that has ended.
#[test]
fn a_process_that_has_ended_is_not_said_to_have_the_store() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    RedbStore::init(&dir, 1, &Batch::default(), &Limits::default()).unwrap();
    let mut ended = Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    for text in [ended.id().to_string(), "0".into(), "-1".into(), "4294967295".into(), "no".into()]
    {
        std::fs::write(dir.join("lock"), text).unwrap();
        let held = std::fs::File::open(dir.join("lock")).unwrap();
        held.lock().unwrap();
        let refused = RedbStore::open(&dir, Limits::default()).unwrap_err();
        let text = format!("the store in `{}` is already open", dir.display());
        assert_eq!(refused.to_string(), text);
    }
    RedbStore::open(&dir, Limits::default()).unwrap();
}

/// An fsync of the kernel's that fails once, as on a bad disk: the outcome is unknown, the head tells, and writes go on
/// in the same process.
#[test]
#[ignore = "needs strace"]
fn a_failed_fsync_is_survived() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    RedbStore::init(&dir, 1, &Batch::default(), &Limits::default()).unwrap();
    let (mut unknown, mut last) = (0, 0);
    for number in [20, 21] {
        let mut other = Command::new("strace");
        other.args(["--quiet=all", "-f", "-o", "/dev/null", "-e", "trace=fdatasync", "-e"]);
        other.arg(format!("inject=fdatasync:error=EIO:when={number}"));
        other.arg(env::current_exe().unwrap());
        other.args(["processes::as_the_other_process", "--exact", "--nocapture"]);
        other.env(DIRECTORY, &dir).stdout(Stdio::piped());
        let mut other = Killed(other.spawn().unwrap());
        let lines = BufReader::new(other.0.stdout.take().unwrap()).lines();
        let mut since = None;
        for line in lines.map(Result::unwrap) {
            if line.contains("unknown: Input/output error") {
                (unknown, since) = (unknown + 1, Some(last));
            }
            let seq = line.split_once("head ").and_then(|(_, seq)| seq.parse().ok());
            last = seq.unwrap_or(last);
            if since.is_some_and(|since| last > since + 10) {
                break;
            }
        }
        other.0.kill().unwrap();
        other.0.wait().unwrap();
        // strace passes on no kill, so the process it traced ends with its next line.
        let checked = loop {
            match RedbStore::check(&dir) {
                Err(OpenError::AlreadyOpen { .. }) => {}
                checked => break checked.unwrap(),
            }
        };
        assert!(checked.head.seq >= last, "{last} was acknowledged, {} is there", checked.head.seq);
        last = checked.head.seq;
    }
    assert_eq!(unknown, 2);
}

/// The lock is of this process, too, and of the directory, not of the file: that may be replaced.
#[test]
fn the_same_process_is_refused_until_the_store_is_dropped() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    RedbStore::init(&dir, 1, &Batch::default(), &Limits::default()).unwrap();
    let open = || RedbStore::open(&dir, Limits::default());
    let store = open().unwrap();
    let run = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let view = run.block_on(store.view()).unwrap();
    let refused = || {
        let pid = std::process::id();
        matches!(open(), Err(OpenError::AlreadyOpen { pid: Some(found), .. }) if found == pid)
    };
    assert!(refused());
    std::fs::rename(dir.join("store.redb"), dir.join("moved")).unwrap();
    std::fs::copy(dir.join("moved"), dir.join("store.redb")).unwrap();
    assert!(refused(), "the file was replaced");
    std::fs::rename(dir.join("moved"), dir.join("store.redb")).unwrap();
    drop(store);
    // A forgotten view holds nothing.
    open().unwrap();
    drop(view);
}
