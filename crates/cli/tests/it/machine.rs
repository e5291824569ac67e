//! A server on a machine that gives it little: threads, stack, address space, processors.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command};
use std::time::Duration;

use capstan_server::limits::{MESSAGE_BYTES_MAX, PEER_HELD_BYTES_MAX};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use crate::command_limits::THREADS_SPARE;
use crate::common::{Serving, stderr};
use crate::raw::{self, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, check, frame, framed};
use crate::transport::bounds::memory;

const SERVE: [&str; 6] = ["serve", "--demo", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
/// Lines that it prints before it is ready, and with the commands to copy.
const LINES: usize = 18;
/// A user without processes: the limit of processes counts those of a user, and root has none.
const NOBODY: &str = "54321";

/// A server that a shell starts after it has done this.
fn after(shell: &str) -> Serving {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{shell}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_capstan")]);
    Serving::spawn(command.args(SERVE), LINES)
}

fn address(server: &Serving) -> SocketAddr {
    server.address("grpc").parse().unwrap()
}

async fn is_answered(server: &Serving) {
    let mut peer = Frames::connect(address(server)).await;
    peer.send(HEADERS, END_HEADERS, 1, &raw::header_block("/capstan.v1.DecisionService/Check"))
        .await;
    peer.send(DATA, END_STREAM, 1, &framed(&check())).await;
    assert!(peer.answer(1).await.is_some());
}

/// P5: it says so, and does not fail when it needs one.
#[test]
fn a_machine_without_threads_is_told() {
    // Anybody may run it there.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("capstan");
    fs::copy(env!("CARGO_BIN_EXE_capstan"), &program).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    let with = |threads: &str| {
        let mut command = Command::new(if is_root { "setpriv" } else { "prlimit" });
        if is_root {
            command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "prlimit"]);
        }
        command.arg(format!("--nproc={threads}")).arg(&program).args(SERVE);
        command
    };
    for threads in ["1", "2", "5", "10"] {
        let output = with(threads).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{threads}: {said}");
        assert!(said.contains("more threads and needs") && said.contains("TasksMax="), "{said}");
        assert!(!said.contains("panicked"), "{threads}: {said}");
    }
    if is_root {
        // Those of the runtime and its workers, the others, and its first one.
        let processors = std::thread::available_parallelism().unwrap().get();
        let enough = 2 * processors + THREADS_SPARE + 1;
        let server = Serving::spawn(&mut with(&enough.to_string()), LINES);
        assert_eq!(server.stop("-TERM").0, Some(0));
    }
}

/// P5: a stack of an eighth of the usual.
#[tokio::test]
async fn a_small_stack_is_enough() {
    let server = after("ulimit -s 1024");
    is_answered(&server).await;
    assert_eq!(server.stop("-TERM").0, Some(0));
}

/// P6: peers that send as much as they may take no more than the limits say, so that a process with little more has enough.
#[tokio::test]
async fn what_peers_send_fits_into_what_the_limits_say() {
    let server = after(":");
    is_answered(&server).await;
    let most = memory(&server, "VmSize:") + 2 * PEER_HELD_BYTES_MAX as u64;
    let pid = server.pid().to_string();
    let limited = Command::new("prlimit").args(["--pid", &pid, &format!("--as={most}")]).status();
    assert!(limited.unwrap().success());
    // 80 MiB, of which half is held.
    let head = frame(
        HEADERS,
        END_HEADERS,
        1,
        &raw::header_block("/capstan.v1.DecisionService/BatchCheck"),
    );
    let announced = [&[0][..], &u32::try_from(MESSAGE_BYTES_MAX).unwrap().to_be_bytes()].concat();
    let part = frame(DATA, 0, 1, &vec![0; 16 << 10]);
    let mut peers = vec![];
    for _ in 0..80 {
        let mut peer = Frames::connect(address(&server)).await;
        peer.send_bytes(&[&head[..], &frame(DATA, 0, 1, &announced), &part.repeat(63)].concat())
            .await;
        peers.push(peer);
    }
    is_answered(&server).await;
    drop(peers);
    is_answered(&server).await;
    assert_eq!(server.stop("-TERM").0, Some(0));
}

/// Processes that keep a processor busy, until this is dropped.
struct Busy(Vec<Child>);

impl Drop for Busy {
    fn drop(&mut self) {
        for work in &mut self.0 {
            let _ = work.kill();
            let _ = work.wait();
        }
    }
}

/// P11: it is never not ready because others work, too.
#[tokio::test]
async fn busy_processors_make_it_no_less_ready() {
    // The first of those that this process may use.
    let allowed = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = allowed.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let first: String = allowed.trim().chars().take_while(char::is_ascii_digit).collect();
    let server = after(&format!("taskset -cp {first} $$ >/dev/null"));
    let work = || {
        let mut work = Command::new("taskset");
        work.args(["-c", &first, "sh", "-c", "while :; do :; done"]).spawn().unwrap()
    };
    let mut busy = Busy((0..8).map(|_| work()).collect());
    let url = format!("http://{}", server.address("grpc"));
    let channel = tonic::transport::Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel);
    for _ in 0..20 {
        let asked = HealthCheckRequest { service: "capstan.v1.DecisionService".into() };
        let answer = health.check(asked).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    is_answered(&server).await;
    assert!(busy.0.iter_mut().all(|work| work.try_wait().unwrap().is_none()), "they were busy");
}
