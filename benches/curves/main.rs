//! Every figure of the engine from one command, in under ten minutes on a machine that does nothing
//! else: `cargo bench -p capstan-benches --bench curves`. With `-- --quick` the same in small and in
//! a minute, to see that it runs.
//!
//! ```text
//! built    a world, indexed by the engine and by the yardstick, and what that took
//! measure  CPU and wall time, what is compared in turn
//! scaling  curves: bindings, depth, bindings of an identity, capabilities, batches
//! goals    publishing, readers beside a writer, loading
//! report   docs/PERFORMANCE.md, docs/figures/*.svg, docs/figures/curves.json
//! ```

mod built;
mod goals;
mod measure;
mod plot;
mod report;
mod scaling;

use std::io::{self, Write as _};
use std::{env, time::Duration};

use anyhow::bail;
use capstan_benches::counting::Counting;
use capstan_benches::worlds::World;

use crate::built::Built;

#[global_allocator]
static COUNTING: Counting = Counting::new();

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Of each point, beside one that is not counted.
    rounds: usize,
    /// In each round, none of them asked before.
    questions: usize,
    /// Of the naive model, which is ten thousand times slower.
    naive_questions: usize,
    /// Most bindings of the first curve.
    bindings_max: u64,
    /// The large world.
    big: World,
    changes: u64,
    /// How long readers read, in each of three rounds.
    reading: Duration,
}

const FULL: Plan = Plan {
    rounds: 9,
    questions: 50_000,
    naive_questions: 20,
    bindings_max: 10_000_000,
    big: World::BIG_W,
    changes: 20_000,
    reading: Duration::from_secs(2),
};

const QUICK: Plan = Plan {
    rounds: 3,
    questions: 2_000,
    naive_questions: 2,
    bindings_max: 100_000,
    big: World::Bindings(100_000),
    changes: 500,
    reading: Duration::from_millis(100),
};

fn main() -> anyhow::Result<()> {
    let mut plan = FULL;
    for argument in env::args().skip(1) {
        match argument.as_str() {
            "--quick" => plan = QUICK,
            // What cargo adds.
            "--bench" => {}
            other => bail!("unknown argument `{other}`: there is only `--quick`"),
        }
    }
    let is_quick = plan.big != World::BIG_W;
    let load_before = report::load_average();
    say("building the large world")?;
    let big = Built::new(plan.big)?;
    let w = Built::new(World::W)?;

    let mut curves = Vec::new();
    say("curve: batches")?;
    let batches = scaling::batches(&plan, &w, &big)?;
    say("publishing, and reading beside a writer")?;
    let mut published = goals::publishing(&plan, &big)?;
    published.extend(goals::reading(&plan, &big)?);
    let [bindings, memory] = scaling::bindings(&plan, &w, &big)?;
    say("curve: depth")?;
    let depth = scaling::depth(&plan, &w)?;
    say("curve: bindings of an identity")?;
    let held = scaling::held(&plan, &w)?;
    say("curve: capabilities")?;
    let capabilities = scaling::capabilities(&plan, &w)?;

    let mut goals = goals::checks(&batches, &depth, &held, &capabilities);
    goals.extend(goals::memory(&w, &big));
    goals.extend(published);
    goals.push(goals::built(&big));
    drop((w, big));
    say("loading through a writer, and from a document")?;
    goals.extend(goals::loading(&plan)?);
    curves.extend([bindings, memory, batches, depth, held, capabilities]);
    let page = report::write(is_quick, &load_before, &goals, &curves)?;
    say(&format!("written: {}", page.display()))
}

/// Says what is being done, since each takes a while.
pub(crate) fn say(what: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stderr(), "{what}")?)
}
