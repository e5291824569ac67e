//! What a store costs: `cargo bench -p capstan-benches --bench store -- --binary target/release/capstan`.
//!
//! ```text
//! visible   one writer: from a write that is sent to the first answer that follows it
//! writes    1 and 64 writers over gRPC, and then the same operations in the same commits by redb alone
//! start     the start of a store with many bindings: ready, memory
//! ```
//!
//! Options:
//!
//! ```text
//! --binary PATH     the program to start; required for `start`
//! --part PART       visible, writes or start; all without it
//! --bindings N      of the store to start: 3,000,000
//! --seconds N       for each number of writers: 5
//! --folder PATH     for the stores: a folder for temporary files, which must be on the disk that is meant
//! ```
//!
//! The server of the first two parts is in this process, with its clients: what is measured is the server, gRPC and the
//! disk together.

mod raw;
mod start;
mod writes;

use std::env;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// What the command line asks for.
pub(crate) struct Options {
    pub(crate) binary: Option<PathBuf>,
    part: Option<String>,
    pub(crate) bindings: u32,
    pub(crate) time: Duration,
    pub(crate) folder: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let mut options = Options {
        binary: None,
        part: None,
        bindings: 3_000_000,
        time: Duration::from_secs(5),
        folder: env::temp_dir().join(format!("capstan-store-bench-{}", std::process::id())),
    };
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} has no value"));
        match argument.as_str() {
            "--binary" => options.binary = Some(value()?.into()),
            "--part" => options.part = Some(value()?),
            "--bindings" => options.bindings = u32::from_str(&value()?)?,
            "--seconds" => options.time = Duration::from_secs(u64::from_str(&value()?)?),
            "--folder" => options.folder = value()?.into(),
            // What cargo adds.
            "--bench" => {}
            other => bail!("unknown argument `{other}`: benches/store/main.rs lists them"),
        }
    }
    std::fs::create_dir(&options.folder).context("the folder must be a new one")?;
    let measured = run(&options);
    std::fs::remove_dir_all(&options.folder)?;
    measured
}

fn run(options: &Options) -> anyhow::Result<()> {
    let is_wanted = |name: &str| options.part.as_ref().is_none_or(|part| part == name);
    if is_wanted("visible") {
        say(&writes::visible(options)?)?;
    }
    if is_wanted("writes") {
        for writers in [1, 64] {
            say(&writes::rates(options, writers)?)?;
        }
    }
    if is_wanted("start") {
        say(&start::run(options)?)?;
    }
    Ok(())
}

pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{text}")?)
}
