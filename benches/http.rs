//! What an evaluation of AuthZEN costs beside `/livez` on the same address: `cargo bench -p capstan-benches --bench http`.
//!
//! ```text
//! started program ◀─ connections that are kept, each asking again and again ─▶ CPU of the program a request, in turns
//! ```
//!
//! Options: `--binary PATH` (the program to start; without it that of the release build), `--connections N` (16), `--seconds
//! N` of each turn (1), `--turns N` (10), `--quick` (one short turn, to see that the command works).

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use std::{env, fs, thread};

use anyhow::{Context as _, bail, ensure};

const LIVEZ: &str = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
const QUESTION: &str = r#"{"subject": {"type": "user", "id": "alice"}, "action": {"name": "list"}, "resource": {"type": "repo", "id": "acme/platform/nginx"}}"#;

struct Options {
    binary: PathBuf,
    connections: usize,
    time: Duration,
    turns: usize,
}

impl Options {
    fn parse() -> anyhow::Result<Self> {
        let binary =
            PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/capstan"));
        let mut options = Self { binary, connections: 16, time: Duration::from_secs(1), turns: 10 };
        let mut arguments = env::args().skip(1);
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{name} needs a value"));
            match &*name {
                "--binary" => options.binary = value()?.into(),
                "--connections" => options.connections = value()?.parse()?,
                "--seconds" => options.time = Duration::from_secs(value()?.parse()?),
                "--turns" => options.turns = value()?.parse()?,
                "--quick" => (options.time, options.turns) = (Duration::from_millis(100), 1),
                "--bench" => {}
                other => bail!("unknown option {other}"),
            }
        }
        Ok(options)
    }
}

/// A started program, which ends with this.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Server {
    /// Serves the demo. Returns the HTTP address.
    fn start(binary: &Path) -> anyhow::Result<(Self, String)> {
        let child = Command::new(binary)
            .args(["serve", "--demo", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .env("CAPSTAN_LOG", "error")
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let mut server = Self(child);
        let output = BufReader::new(server.0.stdout.take().context("no output")?);
        for line in output.lines() {
            if let Some(address) = line?.strip_prefix("http ") {
                return Ok((server, address.to_owned()));
            }
        }
        bail!("{} does not serve HTTP", binary.display())
    }

    /// CPU seconds of the process: fields 14 and 15 of `/proc/PID/stat`, in hundredths.
    fn cpu(&self) -> anyhow::Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let (_, fields) = stat.rsplit_once(')').context("no name")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
        Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
    }
}

/// Asks over one connection until the end. Returns how often.
fn ask(address: &str, request: &str, expected: &str, end: &AtomicBool) -> anyhow::Result<usize> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let (mut asked, mut answer) = (0, vec![0; 4_096]);
    while !end.load(Relaxed) {
        stream.write_all(request.as_bytes())?;
        // The responses are short: each comes at once.
        let read = stream.read(&mut answer)?;
        let text = String::from_utf8_lossy(answer.get(..read).unwrap_or_default());
        ensure!(text.starts_with("HTTP/1.1 200") && text.ends_with(expected), "{text}");
        asked += 1;
    }
    Ok(asked)
}

/// Microseconds of the server's CPU a request.
#[expect(clippy::disallowed_methods, reason = "a turn has a length")]
fn turn(
    (server, address): &(Server, String),
    (request, expected): (&str, &str),
    options: &Options,
) -> anyhow::Result<f64> {
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking: Vec<_> = (0..options.connections)
            .map(|_| scope.spawn(|| ask(address, request, expected, &end)))
            .collect();
        let before = server.cpu()?;
        thread::sleep(options.time);
        end.store(true, Relaxed);
        let asked = asking.into_iter().map(|one| match one.join() {
            Ok(asked) => asked,
            Err(_) => bail!("a connection panicked"),
        });
        let asked: usize = asked.sum::<anyhow::Result<_>>()?;
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no 16 digits")]
        Ok((server.cpu()? - before) * 1e6 / asked as f64)
    })
}

fn median(all: &mut [f64]) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse()?;
    let server = Server::start(&options.binary)?;
    let post = format!(
        "POST /access/v1/evaluation HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{QUESTION}",
        QUESTION.len()
    );
    let evaluation = (&*post, r#"{"decision":true,"context":{"reason":"GRANTED"}}"#);
    let (mut probes, mut evaluations, mut ratios) = (vec![], vec![], vec![]);
    for _ in 0..options.turns {
        let probe = turn(&server, (LIVEZ, "ok\n"), &options)?;
        let evaluated = turn(&server, evaluation, &options)?;
        probes.push(probe);
        evaluations.push(evaluated);
        ratios.push(evaluated / probe);
    }
    let ratio = median(&mut ratios);
    let quarter = |at: usize| ratios.get(ratios.len() * at / 4).copied().unwrap_or_default();
    writeln!(
        io::stdout(),
        "evaluation over /livez, CPU of the server a request: {ratio:.2} (quartiles {:.2}, {:.2}); {:.1} and {:.1} us, {} turns of {:?}, \
         {} connections",
        quarter(1),
        quarter(3),
        median(&mut evaluations),
        median(&mut probes),
        options.turns,
        options.time,
        options.connections,
    )?;
    Ok(())
}
