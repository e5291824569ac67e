//! Which files are read again: those that have changed in any way, catalogs among them, and regular ones only.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use capstan_proto::v1;
use capstan_server::feed::source::Source;
use capstan_server::limits::{LOOK_AGAIN, READ_AGAIN};
use capstan_server::server::Config;

use super::{check_at, file, policy, replace};
use crate::common::{InProcess, PATIENCE, Serving, capstan, command, config, folder};

const FREE: [&str; 4] = ["--listen", "127.0.0.1:0", "--http", "none"];

/// A catalog whose reader has these capabilities.
fn catalog(capabilities: &str) -> String {
    format!(
        "name: mine\nresources: [{{name: r, actions: [get, list]}}]\n\
         roles: [{{name: reader, capabilities: [{capabilities}]}}]\n"
    )
}

const OF_MINE: &str = "version: 1\ncatalog: mine\ngroups: [{id: first}]\nidentities: [{id: alice}]\n\
                       role_bindings: [{identity: alice, role: reader, scope: first}]\n";

#[tokio::test]
async fn a_changed_catalog_is_read_again() {
    let path = file("reload-catalog", OF_MINE);
    let mine = path.with_file_name("mine.yaml");
    std::fs::write(&mine, catalog("r.get, r.list")).unwrap();
    let catalogs = vec!["chainguard-2023-12-07".into(), mine.to_str().unwrap().into()];
    let server = InProcess::start_with(Config { catalogs, ..config(Source::file(&path)) }).await;
    assert!(check_at(&server, "first", 1).await.allowed);
    replace(&mine, &catalog("r.list"));
    let answer = check_at(&server, "first", 2).await;
    assert_eq!(v1::Reason::CapabilityNotInRole, answer.reason());
    // A broken one changes nothing, and the policy is not read by the catalog from before.
    replace(&mine, "name: mine\nresources: nonsense\n");
    replace(&path, &OF_MINE.replace("first", "second"));
    tokio::time::sleep(LOOK_AGAIN * 2).await;
    assert_eq!(check_at(&server, "first", 1).await.revision, 2);
    replace(&mine, &catalog("r.get"));
    assert!(check_at(&server, "second", 3).await.allowed);
    assert!(!check_at(&server, "first", 3).await.allowed);
}

/// A server, its policy, and the file of its catalog.
fn serving_mine(folder: &str) -> (Serving, PathBuf, PathBuf) {
    let path = file(folder, OF_MINE);
    let mine = path.with_file_name("mine.yaml");
    std::fs::write(&mine, catalog("r.get")).unwrap();
    let [text, mine_text] = [&path, &mine].map(|path| path.to_str().unwrap());
    let arguments = [&["--policy", text, "--catalog", mine_text], &FREE[..]].concat();
    (Serving::start(&arguments, 1), path, mine)
}

/// The exit code of a check of what the policy and the catalog allow at first.
fn ask_first(server: &Serving) -> Option<i32> {
    let address = format!("http://{}", server.address("grpc"));
    capstan(&["check", "alice", "r.get", "first", "--addr", &address]).status.code()
}

#[test]
fn sighup_reads_a_changed_catalog() {
    let (mut server, _, mine) = serving_mine("reload-catalog-sighup");
    assert_eq!(ask_first(&server), Some(0));
    replace(&mine, &catalog("r.list"));
    server.signal("-HUP");
    server.wait_for_log("\"revision\":2");
    assert_eq!(ask_first(&server), Some(1));
}

/// A file whose inode, length and time of modification are as before is another one all the same.
#[tokio::test]
async fn a_file_with_its_old_time_is_read_again() {
    let path = file("reload-ctime", &policy("first "));
    let before = std::fs::metadata(&path).unwrap();
    let server = InProcess::start(Source::file(&path)).await;
    assert!(check_at(&server, "first", 1).await.allowed);
    std::fs::write(&path, policy("second")).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(before.modified().unwrap())
        .unwrap();
    let after = std::fs::metadata(&path).unwrap();
    assert_eq!(
        (before.len(), before.modified().unwrap()),
        (after.len(), after.modified().unwrap())
    );
    assert!(check_at(&server, "second", 2).await.allowed);
}

/// Nobody writes to the pipe: a loader that opened it would wait for ever.
#[test]
fn a_pipe_or_device_in_place_of_the_policy_stops_no_reload() {
    let path = file("reload-fifo", &policy("first"));
    let mut server =
        Serving::start(&[&["--policy", path.to_str().unwrap()], &FREE[..]].concat(), 1);
    let address = format!("http://{}", server.address("grpc"));
    let ask = |resource| {
        capstan(&["check", "alice", "r.get", resource, "--addr", &address]).status.code()
    };
    let pipe = path.with_extension("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::fs::rename(&pipe, &path).unwrap();
    server.wait_for_log("policy.yaml is no regular file: a pipe is read once, at the start");
    assert_eq!(ask("first"), Some(0));
    replace(&path, &policy("second"));
    server.wait_for_log("\"revision\":2");
    for (at, target) in [(3, "/dev/zero"), (4, "/")] {
        std::os::unix::fs::symlink(target, path.with_extension("link")).unwrap();
        std::fs::rename(path.with_extension("link"), &path).unwrap();
        server.signal("-HUP");
        server.wait_for_log("policy.yaml is no regular file");
        replace(&path, &policy("second"));
        server.wait_for_log(&format!("\"revision\":{at}"));
    }
    assert_eq!((ask("first"), ask("second")), (Some(1), Some(0)));
}

/// Documents by process substitution serve from the start, and no tick reads them again.
#[tokio::test]
async fn process_substitution_is_read_at_the_start() {
    let folder = folder("reload-substitution");
    let (policy, mine) = (folder.join("policy.yaml"), folder.join("mine.yaml"));
    std::fs::write(&policy, OF_MINE).unwrap();
    std::fs::write(&mine, catalog("r.get")).unwrap();
    let line = "exec \"$0\" serve --policy <(cat \"$1\") --catalog <(cat \"$2\") --listen 127.0.0.1:0 --http none";
    let mut bash = Command::new("bash");
    bash.args(["-c", line]).arg(command(&[]).get_program()).args([&policy, &mine]);
    let mut server = Serving::spawn(&mut bash, 1);
    assert_eq!(ask_first(&server), Some(0));
    let started = Instant::now();
    tokio::time::sleep(LOOK_AGAIN + Duration::from_millis(500)).await;
    server.signal("-HUP");
    server.wait_for_log("is no regular file: a pipe is read once, at the start");
    assert_eq!(ask_first(&server), Some(0));
    let (code, log) = server.stop("-TERM");
    assert_eq!((code, log.matches("the policy is not reloaded").count()), (Some(0), 1), "{log}");
    assert!(started.elapsed() < PATIENCE);
}

/// A policy from a file goes on with a catalog from a pipe.
#[test]
fn a_catalog_from_a_pipe_is_kept() {
    let path = file("reload-catalog-pipe", OF_MINE);
    let mine = path.with_file_name("mine.yaml");
    std::fs::write(&mine, catalog("r.get")).unwrap();
    let line = "exec \"$0\" serve --policy \"$1\" --catalog <(cat \"$2\") --listen 127.0.0.1:0 --http none";
    let mut bash = Command::new("bash");
    bash.args(["-c", line]).arg(command(&[]).get_program()).args([&path, &mine]);
    let mut server = Serving::spawn(&mut bash, 1);
    replace(&path, &OF_MINE.replace("first", "second"));
    server.wait_for_log("\"revision\":2");
    server.signal("-HUP");
    server.wait_for_log("\"revision\":3");
}

/// A file that cannot be read is tried again at the next tick, and not at each event of its folder: the server's own log
/// may be there, and then each failure would be the next event.
#[test]
fn a_folder_that_changes_all_the_time_does_not_repeat_a_failed_reload() {
    let (mut server, path, _) = serving_mine("reload-busy-folder");
    std::fs::remove_file(&path).unwrap();
    let busy = path.with_file_name("server.log");
    let started = Instant::now();
    while started.elapsed() < LOOK_AGAIN * 2 {
        std::fs::write(&busy, "a line\n").unwrap();
    }
    let elapsed = started.elapsed();
    assert_eq!(ask_first(&server), Some(0));
    replace(&path, &OF_MINE.replace("first", "second"));
    server.wait_for_log("\"revision\":2");
    let (code, log) = server.stop("-TERM");
    let failures = log.matches("the policy is not reloaded").count();
    // Twice more, for the first failure and for the time of the last lines.
    let most = elapsed.as_secs() / READ_AGAIN.as_secs() + 2;
    assert!(
        code == Some(0) && (1..=most).contains(&(failures as u64)),
        "{failures} in {elapsed:?}\n{log}"
    );
}
