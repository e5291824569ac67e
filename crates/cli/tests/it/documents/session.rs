//! One reader of one document, who types its commands in order: a folder that looks like a clone of the repository, the
//! built binary on the path, and the servers that were started.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Output, Stdio};
use std::time::{Duration, Instant};

use super::blocks::{Command, matches, root};
use crate::common::{PATIENCE, Serving, folder};

/// The default addresses of a server.
const GRPC: &str = "127.0.0.1:4480";
const HTTP: &str = "127.0.0.1:4481";
/// Added to measurements, which would take ten seconds and more, and want a release build for their rate.
const SHORT: &str = "--duration 0.2 --warm-up 0.1 --questions 2000";

pub(super) struct Session {
    folder: PathBuf,
    servers: Vec<Server>,
}

/// A server in a group of processes, which ends with it: a shell may stand between.
struct Server {
    serving: Serving,
    /// The value of `--addr`.
    grpc: String,
    http: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = format!("-{}", self.serving.pid());
        let _ = Process::new("kill").args(["-KILL", "--", &group]).status();
    }
}

/// The command with the binary under its plain name, without the comment at its end.
pub(super) fn plain(text: &str) -> String {
    let text = text.split("  #").next().unwrap().trim();
    let text = text.replace("cargo run --release -- ", "capstan ");
    let mut words: Vec<&str> = text.split(' ').collect();
    for word in &mut words {
        if *word == "target/release/capstan" {
            *word = "capstan";
        }
    }
    words.join(" ")
}

impl Session {
    /// A folder with everything that the repository has, except for what is built.
    pub(super) fn new(document: &str) -> Self {
        let folder = folder(&format!("documents-{}", document.replace('/', "-")));
        for entry in fs::read_dir(root()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != "target" && entry.file_name() != ".git" {
                symlink(fs::canonicalize(entry.path()).unwrap(), folder.join(entry.file_name()))
                    .unwrap();
            }
        }
        for made in ["bin", "run/capstan"] {
            fs::create_dir_all(folder.join(made)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_capstan"), folder.join("bin/capstan")).unwrap();
        Self { folder, servers: Vec::new() }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs a command, and compares its exit code and its output with what the document shows.
    ///
    /// # Errors
    ///
    /// Both, if they differ.
    pub(super) fn run(&mut self, command: &Command) -> Result<(), String> {
        let text = plain(&command.text);
        if text.contains("capstan serve ") {
            return self.serve(&text).map_err(|error| format!("{}\n{error}", command.place()));
        }
        let shown = command.shown.as_deref();
        let wanted = shown.map_or(0, exit_code);
        let start = Instant::now();
        loop {
            let output = self.output(&text);
            let said = said(&output);
            let as_shown = shown.is_none_or(|shown| matches(shown, &said));
            if as_shown && output.status.code() == Some(wanted) {
                return Ok(());
            }
            // What a server writes to a file is there a moment later.
            if !text.starts_with("tail ") || start.elapsed() > PATIENCE {
                let (place, shown) = (command.place(), shown.unwrap_or_default());
                let status = output.status;
                return Err(format!("{place}\nshown:\n{shown}\nfound, with {status}:\n{said}"));
            }
            #[expect(clippy::disallowed_methods, reason = "the look at a file of another process")]
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts a server at free ports, unless the command names a socket.
    ///
    /// # Errors
    ///
    /// The server does not start; with its log.
    pub(super) fn serve(&mut self, text: &str) -> Result<(), String> {
        let text = self.at_free_addresses(text);
        let listen = if text.contains("--listen ") { "" } else { " --listen 127.0.0.1:0" };
        let serve = format!("capstan serve --http 127.0.0.1:0{listen} ");
        let text = text.replace("capstan serve ", &serve);
        let mut process = self.shell(&text);
        process.process_group(0);
        let serving = Serving::spawn(&mut process, 2);
        if !serving.lines.iter().any(|line| line.starts_with("grpc ")) {
            let (code, log) = serving.wait();
            return Err(format!("{text}: {code:?}\n{log}"));
        }
        let grpc = serving.address("grpc");
        let grpc = if grpc.starts_with("unix:") { grpc } else { format!("http://{grpc}") };
        let http = serving.address("http");
        self.servers.push(Server { serving, grpc, http });
        Ok(())
    }

    /// The output of a command.
    pub(super) fn output(&self, text: &str) -> Output {
        let mut text = self.at_free_addresses(text);
        if text.starts_with("capstan bench --") || text == "capstan bench" {
            let pairs = if text.contains("--against") { "--pairs 1 " } else { "" };
            text = text.replacen("capstan bench", &format!("capstan bench {pairs}{SHORT}"), 1);
            text = text.replace("--rate 20000", "--rate 200");
        }
        let process = self.shell(&text).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        process.unwrap().wait_with_output().unwrap()
    }

    /// The documented addresses become those of the server that was started last, and `/run` a folder of the session.
    pub(super) fn at_free_addresses(&self, text: &str) -> String {
        let mut text = text.replace("unix:/run/", "unix:run/");
        if let Some(server) = self.servers.last().filter(|last| last.grpc.starts_with("http:")) {
            let grpc = server.grpc.trim_start_matches("http://");
            text = text.replace(GRPC, grpc).replace(HTTP, &server.http);
        }
        text
    }

    fn shell(&self, text: &str) -> Process {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut process = Process::new("bash");
        process
            .args(["-c", text])
            .current_dir(&self.folder)
            .env("PATH", format!("{}:{path}", self.folder.join("bin").display()))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env_remove("CAPSTAN_LOG")
            .env_remove("CAPSTAN_ADDR")
            .env_remove("CAPSTAN_CONTEXT")
            .env("XDG_CONFIG_HOME", self.folder.join("config"))
            .stdin(Stdio::null());
        // The address in the environment would win over a saved context.
        let has_contexts = self.folder.join("config/capstan/contexts.toml").exists();
        if let Some(server) = self.servers.last().filter(|_| !has_contexts) {
            process.env("CAPSTAN_ADDR", &server.grpc);
        }
        process
    }
}

/// Standard output and standard error, as a terminal shows them.
fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    text(&output.stdout) + &text(&output.stderr)
}

/// The exit code that an output stands for: 2 for an error, 1 for a denial or a refusal.
fn exit_code(shown: &str) -> i32 {
    let begins = |word: &str| shown.lines().any(|line| line.starts_with(word));
    let is_routed = begins("route ") && shown.trim_end().ends_with("\ndenied");
    if begins("error: ") {
        2
    } else if begins("refused: ")
        || (begins("denied  ") && !shown.contains("\nmissing: "))
        || is_routed
    {
        1
    } else {
        0
    }
}
