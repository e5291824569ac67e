//! Helpers of the server tests: a server in this process, and the `capstan` binary as a process.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use capstan_proto::iam::v1::role_service_client::RoleServiceClient;
use capstan_proto::v1::decision_service_client::DecisionServiceClient;
use capstan_server::clock::Clock;
use capstan_server::feed::source::Source;
use capstan_server::limits::Limits;
use capstan_server::server::{Address, Config, Feed, Runtime, Server};
use tokio::sync::oneshot;

pub(crate) use crate::secrets::assert_tells_no_secret;
use crate::secrets::{Capstan, Channel};

use crate::over::{Over, Place};

/// Longer than any test takes on any machine; a test that waits this long fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A server in this process. Dropping it stops the server.
pub(crate) struct InProcess {
    pub(crate) channel: Channel,
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    /// What it speaks at its gRPC address.
    pub(crate) over: Over,
    _stop: oneshot::Sender<()>,
}

/// The default configuration of a server in this process.
pub(crate) fn config(source: Source) -> Config {
    Config {
        http: Some("127.0.0.1:0".parse().unwrap()),
        reflection: true,
        runtime: Runtime::PerCore(2),
        ..Config::new(Feed::Document(source))
    }
}

/// The configuration of a server with the demo's policy and these limits.
pub(crate) fn config_within(limits: Limits) -> Config {
    Config { limits, ..config(Source::Demo) }
}

impl InProcess {
    pub(crate) async fn start(source: Source) -> Self {
        Self::start_with(config(source)).await
    }

    pub(crate) async fn start_at(source: Source, clock: Clock) -> Self {
        Self::start_with(Config { clock, ..config(source) }).await
    }

    /// Starts a server with the demo's policy and these limits.
    pub(crate) async fn start_within(limits: Limits) -> Self {
        Self::start_with(config_within(limits)).await
    }

    /// Over TLS, the configuration is one of [`Over::config`].
    pub(crate) async fn start_with(config: Config) -> Self {
        let over = if config.tls.is_some() { Over::Tls } else { Over::Plain };
        let server = Server::bind(config).await.unwrap();
        let [Address::Tcp(grpc)] = server.grpc_addresses()[..] else { panic!("one address") };
        let http = server.http_address().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = oneshot::channel();
        let stopped = async { drop(stopped.await) };
        let run = server
            .run(stopped, capstan_server::feed::reload::channel(), || ready.send(()).unwrap());
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async { run.await.unwrap() });
        is_ready.await.unwrap();
        let channel = connect(Place { address: grpc, over }).await;
        Self { channel, grpc, http, over, _stop: stop }
    }

    pub(crate) fn decisions(&self) -> DecisionServiceClient<Channel> {
        DecisionServiceClient::new(self.channel.clone())
    }

    pub(crate) fn roles(&self) -> RoleServiceClient<Channel> {
        RoleServiceClient::new(self.channel.clone())
    }
}

pub(crate) async fn connect(server: impl Into<Place>) -> Channel {
    server.into().channel().await
}

/// An empty folder for one test.
pub(crate) fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// Runs the binary with these arguments in the root of the workspace.
pub(crate) fn capstan(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

pub(crate) fn command(arguments: &[&str]) -> Capstan {
    let mut command = Command::new(env!("CARGO_BIN_EXE_capstan"));
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    command.args(arguments).current_dir(workspace);
    // The saved contexts of whoever runs the tests must not say which server is asked.
    command.env_remove("CAPSTAN_ADDR").env_remove("CAPSTAN_CONTEXT");
    command.env("XDG_CONFIG_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-contexts"));
    Capstan(command)
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_tells_no_secret(&text);
    text
}

/// A server process. Dropping it kills the process.
pub(crate) struct Serving {
    child: Child,
    /// The lines that the server printed when it was ready.
    pub(crate) lines: Vec<String>,
    /// The log output of the server.
    log: mpsc::Receiver<String>,
    /// The part of the log that a test has already read.
    seen: String,
    /// The standard output after `lines`.
    pub(crate) rest: BufReader<std::process::ChildStdout>,
}

impl Serving {
    /// Starts a server and waits for this number of lines.
    pub(crate) fn start(arguments: &[&str], lines: usize) -> Self {
        Self::spawn(&mut command(&[&["serve"], arguments].concat()), lines)
    }

    /// Starts a server by this command and waits for this number of lines.
    pub(crate) fn spawn(command: &mut Command, lines: usize) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut rest = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (send, log) = mpsc::channel();
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| send.send(line + "\n"))
        });
        let lines = (0..lines)
            .map(|_| {
                let mut line = String::new();
                rest.read_line(&mut line).unwrap();
                line.trim_end().to_owned()
            })
            .collect();
        Self { child, lines, log, seen: String::new(), rest }
    }

    /// The address in the line that begins with this word.
    pub(crate) fn address(&self, word: &str) -> String {
        let found = self.lines.iter().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {word} in {:?}", self.lines)).to_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the log contains this text.
    pub(crate) fn wait_for_log(&mut self, text: &str) {
        while !self.seen.contains(text) {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) => {
                    assert_tells_no_secret(&line);
                    self.seen.push_str(&line);
                }
                Err(_) => panic!("no {text:?} in {}", self.seen),
            }
        }
    }

    /// The id of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Sends a signal. Returns the exit code and the log.
    pub(crate) fn stop(self, signal: &str) -> (Option<i32>, String) {
        self.signal(signal);
        self.wait()
    }

    /// Sends a signal that ends it. Returns how it ended.
    pub(crate) fn killed_by(mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        self.child.wait().unwrap()
    }

    /// Waits for the exit. Returns the exit code and the log.
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.rest, &mut rest).unwrap();
        let mut log = std::mem::take(&mut self.seen);
        log.extend(self.log.iter());
        assert_tells_no_secret(&log);
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            // The log ends with the process.
            self.log.iter().for_each(|line| assert_tells_no_secret(&line));
        }
    }
}

/// Compares a text with a golden file. `UPDATE_GOLDEN=1` first overwrites the file; review the diff.
pub(crate) fn golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = expected.lines().zip(actual.lines()).position(|(a, b)| a != b);
    assert!(
        expected == actual,
        "{} differs from line {:?} on; UPDATE_GOLDEN=1 cargo test overwrites it",
        path.display(),
        differs.map(|at| at + 1)
    );
}
