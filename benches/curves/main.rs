//! All figures of the engine: `cargo bench -p capstan-benches --bench curves`. `-- choices` measures only the
//! design choices, `-- goals` the goals in three runs, and `-- --quick` everything with small sizes in a minute,
//! as a test of the program.
//!
//! ```text
//! built    a world, indexed by the engine and by the yardstick, with time and memory
//! measure  CPU and wall time of several subjects in turn
//! choices  hash, layout, width of shards, size of pages
//! scaling  curves: bindings, depth, bindings of an identity, capabilities, batches
//! goals    publishing, readers beside a writer, loading
//! report   docs/PERFORMANCE.md, docs/figures/*.svg, docs/figures/curves.json
//! ```

mod built;
mod choices;
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

/// The sizes of the measurements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    is_quick: bool,
    /// Rounds of each point, without the warm-up round.
    rounds: usize,
    /// Questions of each round, each asked for the first time.
    questions: usize,
    /// Questions of the naive model, which is ten thousand times slower.
    naive_questions: usize,
    /// The highest number of bindings in the first curve.
    bindings_max: u64,
    /// The large world.
    big: World,
    /// The world for the comparison of shard widths.
    sharded: World,
    changes: u64,
    /// The duration of each of three rounds of reading.
    reading: Duration,
}

const FULL: Plan = Plan {
    is_quick: false,
    rounds: 9,
    questions: 50_000,
    naive_questions: 20,
    bindings_max: 10_000_000,
    big: World::BIG_W,
    sharded: World::Bindings(300_000),
    changes: 20_000,
    reading: Duration::from_secs(2),
};

const QUICK: Plan = Plan {
    is_quick: true,
    rounds: 3,
    questions: 2_000,
    naive_questions: 2,
    bindings_max: 100_000,
    big: World::Bindings(100_000),
    sharded: World::Bindings(30_000),
    changes: 500,
    reading: Duration::from_millis(100),
};

/// The command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    All,
    /// Only the design choices.
    Choices,
    /// Only the goals, in several runs.
    Goals,
    /// One page size, as a subprocess of the comparison.
    OfThisProcess,
}

fn main() -> anyhow::Result<()> {
    let (mut plan, mut wanted) = (FULL, Wanted::All);
    for argument in env::args().skip(1) {
        match argument.as_str() {
            "--quick" => plan = QUICK,
            "choices" => wanted = Wanted::Choices,
            "goals" => wanted = Wanted::Goals,
            choices::PAGES_ARGUMENT => wanted = Wanted::OfThisProcess,
            // Cargo adds this argument.
            "--bench" => {}
            other => {
                bail!("unknown argument `{other}`: there are `choices`, `goals` and `--quick`")
            }
        }
    }
    if wanted == Wanted::OfThisProcess {
        return Ok(writeln!(io::stdout(), "{}", choices::of_this_process(&plan)?)?);
    }
    let load_before = report::load_average();
    if !plan.is_quick {
        report::may_be_published(&load_before)?;
    }
    if wanted == Wanted::Goals {
        let page = report::write(plan.is_quick, &[runs(&plan, &load_before)?])?;
        return say(&format!("written: {}", page.display()));
    }
    say("building the large world")?;
    let big = Built::new(plan.big)?;
    let w = Built::new(World::W)?;
    let choices = choices::all(&plan, &w, &big)?;
    let mut parts = vec![report::choices(&load_before, &choices)];
    if wanted == Wanted::All {
        parts.push(figures(&plan, &load_before, w, big)?);
    }
    let page = report::write(plan.is_quick, &parts)?;
    say(&format!("written: {}", page.display()))
}

/// Everything except the design choices.
fn figures(plan: &Plan, load_before: &str, w: Built, big: Built) -> anyhow::Result<report::Part> {
    let (mut goals, [batches, depth, held, capabilities]) = of_worlds(plan, &w, &big)?;
    let [bindings, memory] = scaling::bindings(plan, &w, &big)?;
    drop((w, big));
    say("loading through a writer, and from documents")?;
    goals.extend(goals::loading(plan)?);
    let curves = [bindings, memory, batches, depth, held, capabilities];
    report::figures(plan.is_quick, load_before, &goals, &curves)
}

/// The goals of W and of the large world, and the curves for some of them.
fn of_worlds(
    plan: &Plan,
    w: &Built,
    big: &Built,
) -> anyhow::Result<(Vec<report::Goal>, [report::Curve; 4])> {
    say("curve: batches")?;
    let batches = scaling::batches(plan, w, big)?;
    say("publishing, and reading beside a writer")?;
    let mut published = vec![goals::publishing(plan, "W", w)?];
    published.push(goals::publishing(plan, "big W", big)?);
    published.extend(goals::reading(plan, big)?);
    say("curve: depth")?;
    let depth = scaling::depth(plan, w)?;
    say("curve: bindings of an identity")?;
    let held = scaling::held(plan, w)?;
    say("curve: capabilities")?;
    let capabilities = scaling::capabilities(plan, w)?;

    let mut goals = goals::checks(&batches, &depth, &held, &capabilities);
    goals.extend(goals::memory(w, big));
    goals.extend(published);
    goals.extend([goals::built("W", w), goals::built("big W", big)]);
    Ok((goals, [batches, depth, held, capabilities]))
}

/// The number of runs of the goals, each with new worlds.
const RUNS: usize = 3;

fn runs(plan: &Plan, load_before: &str) -> anyhow::Result<report::Part> {
    let mut runs = Vec::new();
    for run in 1..=RUNS {
        say(&format!("run {run} of {RUNS}"))?;
        let (w, big) = (Built::new(World::W)?, Built::new(plan.big)?);
        let (mut goals, _) = of_worlds(plan, &w, &big)?;
        drop((w, big));
        goals.push(goals::through_a_writer("big W", plan.big, usize::MAX)?);
        runs.push(goals);
    }
    Ok(report::runs(load_before, &runs))
}

/// Prints the current step.
pub(crate) fn say(what: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stderr(), "{what}")?)
}
