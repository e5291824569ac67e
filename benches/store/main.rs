//! What a store costs:
//!
//! ```sh
//! cargo bench -p capstan-benches --bench store -- --folder /var/tmp/bench --binary "$PWD/target/release/capstan"
//! ```
//!
//! ```text
//! visible   one writer: from a write that is sent to the first answer that follows it
//! journal   1 and 64 writers to a store without a server, and to redb alone, in turns
//! writes    1 and 64 writers over gRPC, and then the same commits by a store without a server and by redb alone
//! events    1 and 100 subscriptions: events delivered a second, and the same bytes posted by a bare client; and writes
//!           beside sinks that hang
//! start     a store with many bindings and audit records: to verify its file, to read its records, to start the program
//!           on it, and the memory of that
//! backup    of such a store while it is served, verified, and restored: time and memory
//! ```
//!
//! Options:
//!
//! ```text
//! --folder PATH       for the stores: a new folder, on the disk that is meant; it is removed at the end
//! --binary PATH       the program to start; required for `start` and `backup`
//! --part PART         visible, journal, writes, events, start or backup; all without it
//! --bindings N        of the store to start: 3,000,000
//! --audit-records N   of the store to start: 0
//! --seconds N         for each number of writers: 5
//! ```
//!
//! The server of `visible` and `writes` is in this process, with its clients: what is measured is the server, gRPC and the
//! disk together.

mod backup;
mod events;
mod journal;
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
    part: Option<Part>,
    pub(crate) bindings: u32,
    pub(crate) audit_records: u32,
    pub(crate) time: Duration,
    pub(crate) folder: PathBuf,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Visible,
    Journal,
    Writes,
    Events,
    Start,
    Backup,
}

impl FromStr for Part {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        Ok(match name {
            "visible" => Self::Visible,
            "journal" => Self::Journal,
            "writes" => Self::Writes,
            "events" => Self::Events,
            "start" => Self::Start,
            "backup" => Self::Backup,
            other => {
                bail!(
                    "there is no part `{other}`: visible, journal, writes, events, start or backup"
                )
            }
        })
    }
}

fn main() -> anyhow::Result<()> {
    let (mut binary, mut part, mut folder) = (None, None, None);
    let (mut bindings, mut audit_records, mut seconds) = (3_000_000, 0, 5);
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} has no value"));
        match argument.as_str() {
            "--binary" => binary = Some(value()?.into()),
            "--part" => part = Some(Part::from_str(&value()?)?),
            "--bindings" => bindings = u32::from_str(&value()?)?,
            "--audit-records" => audit_records = u32::from_str(&value()?)?,
            "--seconds" => seconds = u64::from_str(&value()?)?,
            "--folder" => folder = Some(value()?.into()),
            // What cargo adds.
            "--bench" => {}
            other => bail!("unknown argument `{other}`: benches/store/main.rs lists them"),
        }
    }
    let folder: PathBuf =
        folder.context("--folder names a new folder on the disk that is meant")?;
    if matches!(part, None | Some(Part::Start | Part::Backup)) && binary.is_none() {
        bail!("--binary names the program to start; the other parts need none");
    }
    let time = Duration::from_secs(seconds);
    let options = Options { binary, part, bindings, audit_records, time, folder };
    std::fs::create_dir(&options.folder).context("--folder must be a new one")?;
    let measured = run(&options);
    std::fs::remove_dir_all(&options.folder)?;
    measured
}

fn run(options: &Options) -> anyhow::Result<()> {
    let is_wanted = |part| options.part.is_none_or(|wanted| wanted == part);
    if is_wanted(Part::Visible) {
        say(&writes::visible(options)?)?;
    }
    if is_wanted(Part::Journal) {
        for writers in [1, 64] {
            say(&journal::rates(options, writers)?)?;
        }
    }
    if is_wanted(Part::Writes) {
        for writers in [1, 64] {
            say(&writes::rates(options, writers)?)?;
        }
    }
    if is_wanted(Part::Events) {
        say(&events::delivered(options)?)?;
        say(&events::beside_slow_sinks(options)?)?;
    }
    if is_wanted(Part::Start) {
        say(&start::run(options)?)?;
    }
    if is_wanted(Part::Backup) {
        say(&backup::run(options)?)?;
    }
    Ok(())
}

pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{text}")?)
}
