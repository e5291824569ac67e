//! What loading costs: `cargo bench -p capstan-benches --bench loading`.
//!
//! ```text
//! steps      in this process: facts ─▶ rules ─▶ index, a document, changes ─▶ writer
//! documents  a world, and the same world with one changed binding
//! served     `capstan serve --policy` in a process of its own: ready, memory, the first changed answer
//! report     a table for people, or JSON
//! ```
//!
//! Options:
//!
//! ```text
//! --world W|big-W   one world; both without it
//! --rounds N        how often everything is measured: 5
//! --json            data instead of a table
//! --way WAY         in this process: facts, document, changes, changes-with-ids or differences; all without it
//! --binary PATH     start this program instead; given twice, the two are started in turn and compared
//! --quick           a small world once, to see that the command works
//! ```
//!
//! Documents are in the folder for temporary files while they are served. Nothing else is written to a file.

mod documents;
mod report;
mod served;
mod steps;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::{env, str::FromStr};

use anyhow::{Context as _, bail, ensure};
use capstan_benches::counting::Counting;
use capstan_benches::worlds::World;

use crate::documents::Documents;
use crate::report::Started;

#[global_allocator]
static COUNTING: Counting = Counting::new();

/// A world to load, with its name in tables and options.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    pub(crate) name: &'static str,
    pub(crate) world: World,
}

const W: Named = Named { name: "W", world: World::W };
const BIG_W: Named = Named { name: "big-W", world: World::BIG_W };
const SMALL: Named = Named { name: "small", world: World::Bindings(3_000) };

/// What the command line asks for.
struct Options {
    worlds: Vec<Named>,
    /// The only way of loading, or all.
    way: Option<String>,
    /// None, one or two programs to start.
    binaries: Vec<PathBuf>,
    rounds: usize,
    json: bool,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut options =
            Self { worlds: vec![W, BIG_W], way: None, binaries: vec![], rounds: 5, json: false };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} has no value"));
            match argument.as_str() {
                "--world" => options.worlds = vec![named(&value()?)?],
                "--way" => options.way = Some(value()?),
                "--binary" => options.binaries.push(value()?.into()),
                "--rounds" => options.rounds = usize::from_str(&value()?)?.max(1),
                "--json" => options.json = true,
                "--quick" => (options.worlds, options.rounds) = (vec![SMALL], 1),
                // What cargo adds.
                "--bench" => {}
                other => bail!("unknown argument `{other}`: benches/loading/main.rs lists them"),
            }
        }
        ensure!(options.binaries.len() <= 2, "there are more than two programs to compare");
        Ok(options)
    }
}

fn named(name: &str) -> anyhow::Result<Named> {
    let found = [W, BIG_W].into_iter().find(|one| one.name == name);
    found.with_context(|| format!("no world `{name}`: there are W and big-W"))
}

fn main() -> anyhow::Result<()> {
    let options = Options::read(env::args().skip(1))?;
    let text = if options.binaries.is_empty() { in_process(&options) } else { started(&options) };
    Ok(write!(io::stdout(), "{}", text?)?)
}

fn in_process(options: &Options) -> anyhow::Result<String> {
    let is_wanted = |name: &str| options.way.as_ref().is_none_or(|way| way == name);
    let ways: Vec<_> = steps::WAYS.into_iter().filter(|(name, _)| is_wanted(name)).collect();
    ensure!(!ways.is_empty(), "no such way of loading: benches/loading/main.rs lists them");
    let mut measured = Vec::new();
    for named in &options.worlds {
        let mut rounds = Vec::new();
        for round in 1..=options.rounds {
            say(&format!("{}: round {round} of {}", named.name, options.rounds))?;
            let mut steps = Vec::new();
            for (_, load) in &ways {
                steps.extend(load(named.world)?);
            }
            rounds.push(steps);
        }
        measured.extend(report::rows(named.name, &rounds));
    }
    if options.json { report::json(&measured) } else { Ok(report::table(&measured)) }
}

fn started(options: &Options) -> anyhow::Result<String> {
    let mut all = Vec::new();
    for named in &options.worlds {
        say(&format!("{}: writing its documents", named.name))?;
        let documents = Documents::write(named.world)?;
        let mut programs: Vec<_> = options
            .binaries
            .iter()
            .map(|binary| Started {
                program: binary.display().to_string(),
                world: named.name,
                bindings: documents.bindings,
                document_bytes: documents.bytes,
                runs: Vec::new(),
            })
            .collect();
        for round in 1..=options.rounds {
            say(&format!("{}: round {round} of {}", named.name, options.rounds))?;
            let mut turns: Vec<_> = options.binaries.iter().zip(&mut programs).collect();
            // Who begins changes, too.
            turns.rotate_left(round % options.binaries.len());
            for (binary, started) in turns {
                started.runs.push(served::run(binary, &documents)?);
            }
        }
        all.extend(programs);
    }
    if options.json { report::started_json(&all) } else { Ok(report::started_table(&all)) }
}

/// Says what is being done, since each takes a while.
fn say(what: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stderr(), "{what}")?)
}
