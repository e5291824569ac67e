//! The program in a process of its own, whose CPU is measured from outside.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context as _, bail};

/// How a bench runs.
#[derive(Debug)]
pub struct Options {
    /// `--binary PATH`: the program to start. Without it that of the release build.
    pub binary: PathBuf,
    /// `--in-flight N`: connections, or calls on one (16).
    pub in_flight: usize,
    /// `--seconds N`: length of each turn (1).
    pub time: Duration,
    /// `--turns N` (10).
    pub turns: usize,
}

impl Options {
    /// Reads the arguments of the process. `--quick` is one short turn, to see that the command works.
    ///
    /// # Errors
    ///
    /// An option that is not known, or whose value is missing or no number.
    pub fn parse() -> anyhow::Result<Self> {
        let binary = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/capstan").into();
        let mut options = Self { binary, in_flight: 16, time: Duration::from_secs(1), turns: 10 };
        let mut arguments = env::args().skip(1);
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{name} needs a value"));
            match &*name {
                "--binary" => options.binary = value()?.into(),
                "--in-flight" => options.in_flight = value()?.parse()?,
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

/// A started program that serves the demo. It ends with this.
#[derive(Debug)]
pub struct Started {
    child: Child,
    /// Its gRPC address.
    pub grpc: String,
    /// Its HTTP address.
    pub http: String,
    /// Its address for probes, if it has one.
    pub probes: String,
}

impl Drop for Started {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Started {
    /// Starts a program, and waits until it serves.
    ///
    /// # Errors
    ///
    /// It does not start, or says no address.
    pub fn demo(binary: &Path) -> anyhow::Result<Self> {
        Self::demo_with(binary, &[])
    }

    /// As [`Self::demo`], with more options.
    ///
    /// # Errors
    ///
    /// As of [`Self::demo`].
    pub fn demo_with(binary: &Path, options: &[String]) -> anyhow::Result<Self> {
        Self::serve(binary, &[&["--demo".to_owned()], options].concat())
    }

    /// Starts a program that serves by these options, on free ports of loopback.
    ///
    /// # Errors
    ///
    /// As of [`Self::demo`].
    pub fn serve(binary: &Path, options: &[String]) -> anyhow::Result<Self> {
        let child = Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .env("CAPSTAN_LOG", "error")
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let (grpc, http, probes) = Default::default();
        let mut started = Self { child, grpc, http, probes };
        let has_probes = options.iter().any(|option| option == "--probes");
        let output = BufReader::new(started.child.stdout.take().context("no output")?);
        for line in output.lines() {
            let line = line?;
            match line.split_once(' ') {
                Some(("grpc", address)) => address.clone_into(&mut started.grpc),
                Some(("http", address)) => address.clone_into(&mut started.http),
                Some(("probes", address)) => address.clone_into(&mut started.probes),
                _ => {}
            }
            let has_all = !started.http.is_empty() && has_probes != started.probes.is_empty();
            if !started.grpc.is_empty() && has_all {
                return Ok(started);
            }
        }
        bail!("{} does not serve", binary.display())
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its CPU seconds so far.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        cpu(&self.child.id().to_string())
    }
}

/// CPU seconds of a process, or of this one (`self`): fields 14 and 15 of `/proc/PID/stat`, in hundredths.
///
/// # Errors
///
/// There is no such process.
pub fn cpu(pid: &str) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name in parentheses, which may hold spaces.
    let (_, fields) = stat.rsplit_once(')').context("no name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
}

/// The middle of some figures, and the quartiles. Sorts them.
#[must_use]
pub fn quartiles(all: &mut [f64]) -> [f64; 3] {
    all.sort_by(f64::total_cmp);
    [1, 2, 3].map(|at| all.get(all.len() * at / 4).copied().unwrap_or_default())
}
