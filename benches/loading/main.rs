//! What loading costs: `cargo bench -p capstan-benches --bench loading`. Every way of loading is timed for W and
//! for big W, step by step in one process. Nothing is written to a file.
//!
//! ```text
//! steps    facts ─▶ rules ─▶ index, a document, changes ─▶ writer
//! report   a table for people, or JSON
//! ```
//!
//! Options: `--world W` or `--world big-W` (both), `--way` with `facts`, `document`, `changes` or
//! `changes-with-ids` (all), `--rounds N` (5), `--json`, and `--quick`, which measures a small world once, to see
//! that the command works.

mod report;
mod steps;

use std::io::{self, Write as _};
use std::{env, str::FromStr};

use anyhow::{Context as _, bail, ensure};
use capstan_benches::counting::Counting;
use capstan_benches::worlds::World;

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
    rounds: usize,
    json: bool,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut options = Self { worlds: vec![W, BIG_W], way: None, rounds: 5, json: false };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} has no value"));
            match argument.as_str() {
                "--world" => options.worlds = vec![named(&value()?)?],
                "--way" => options.way = Some(value()?),
                "--rounds" => options.rounds = usize::from_str(&value()?)?.max(1),
                "--json" => options.json = true,
                "--quick" => (options.worlds, options.rounds) = (vec![SMALL], 1),
                // What cargo adds.
                "--bench" => {}
                other => bail!("unknown argument `{other}`: benches/loading/main.rs lists them"),
            }
        }
        Ok(options)
    }
}

fn named(name: &str) -> anyhow::Result<Named> {
    let found = [W, BIG_W].into_iter().find(|one| one.name == name);
    found.with_context(|| format!("no world `{name}`: there are W and big-W"))
}

fn main() -> anyhow::Result<()> {
    let options = Options::read(env::args().skip(1))?;
    let is_wanted = |name: &str| options.way.as_ref().is_none_or(|way| way == name);
    let ways: Vec<_> = steps::WAYS.into_iter().filter(|(name, _)| is_wanted(name)).collect();
    ensure!(!ways.is_empty(), "no such way of loading: benches/loading/main.rs lists them");
    let mut measured = Vec::new();
    for named in &options.worlds {
        let mut rounds = Vec::new();
        for round in 1..=options.rounds {
            writeln!(io::stderr(), "{}: round {round} of {}", named.name, options.rounds)?;
            let mut steps = Vec::new();
            for (_, load) in &ways {
                steps.extend(load(named.world)?);
            }
            rounds.push(steps);
        }
        measured.extend(report::rows(named.name, &rounds));
    }
    let text = if options.json { report::json(&measured)? } else { report::table(&measured) };
    Ok(write!(io::stdout(), "{text}")?)
}
