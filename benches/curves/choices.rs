//! Design choices of the index and their alternatives: the hash, the layout, the width of shards, the size of
//! memory pages. The variants are measured in turn.

use std::collections::hash_map::RandomState;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::hash::BuildHasher;
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use capstan_benches::clock::Spread;
use capstan_benches::worlds::{Asked, World, questions};
use capstan_benches::yardstick::Interned;
use capstan_engine::measure::Seed;
use capstan_engine::{Change, Facts, Model, Question, Snapshot, Writer};
use serde_json::{Value as Json, json};

use crate::built::Built;
use crate::goals::{Publishing, publish};
use crate::measure::{Subject, in_turn};
use crate::report::number;
use crate::{COUNTING, Plan, say};

/// The argument of a process that measures one page size.
pub(crate) const PAGES_ARGUMENT: &str = "--of-this-process";
/// The number of processes for each page size.
const PROCESSES: usize = 3;
/// The number of attempts to get huge pages.
const ATTEMPTS: usize = 20;
/// The growth factors of a table since its creation, in the rows about the width of shards.
const GROWN: [usize; 4] = [1, 2, 4, 8];

/// A choice: its title and its table.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) title: &'static str,
    pub(crate) table: String,
}

pub(crate) fn all(plan: &Plan, w: &Built, big: &Built) -> anyhow::Result<Vec<Choice>> {
    say("choice: hash")?;
    let hash = hashes(plan, w)?;
    say("choice: layout")?;
    let layout = layouts(plan, w, big)?;
    say("choice: width of shards")?;
    let widths = widths(plan)?;
    say("choice: size of pages")?;
    Ok(vec![hash, layout, widths, pages(plan)?])
}

fn cell(spread: Spread) -> String {
    let Spread { median, low, high } = spread;
    format!("{} ({}–{})", number(median), number(low), number(high))
}

// === Hash ===

fn hashing<'s>(
    name: &'s str,
    questions: &'s [Question<'s>],
    hash: impl Fn(&Question<'_>) + 's,
) -> Subject<'s> {
    Subject::new(name, questions, move |asked| {
        asked.iter().for_each(&hash);
        0 // The hash of a text is not a decision: the count of allowed questions is 0 for every hash.
    })
}

fn hashes(plan: &Plan, w: &Built) -> anyhow::Result<Choice> {
    let asked = w.asked(plan);
    let all = questions(&asked);
    let seed = Seed::random();
    let (fold, sip) = (hashbrown::DefaultHashBuilder::default(), RandomState::new());
    let hashers = [
        ("the engine's, 128 bits", Hasher::Own(&seed)),
        ("foldhash, 64 bits", Hasher::Fold(&fold)),
        ("SipHash 1-3, 64 bits", Hasher::Sip(&sip)),
    ];
    let ids = hashers.map(|(name, hasher)| {
        hashing(name, &all, move |question| hasher.hash(question.identity.as_str()))
    });
    let resources = hashers.map(|(name, hasher)| {
        hashing(name, &all, move |question| hasher.hash_all(question.resource.as_str()))
    });
    let (ids, resources) = (in_turn(plan.rounds, &ids)?, in_turn(plan.rounds, &resources)?);
    let mut table = String::from(
        "| hash | an identity's id, ns | a resource and all above it, ns |\n|---|---:|---:|\n",
    );
    for (((name, _), (id, _)), (resource, _)) in hashers.iter().zip(ids).zip(resources) {
        let _ = writeln!(table, "| {name} | {} | {} |", cell(id), cell(resource));
    }
    Ok(Choice { title: "Hash", table })
}

#[derive(Clone, Copy)]
enum Hasher<'h> {
    /// Extends the hash of an ancestor by the rest of the path.
    Own(&'h Seed),
    Fold(&'h hashbrown::DefaultHashBuilder),
    Sip(&'h RandomState),
}

impl Hasher<'_> {
    fn hash(self, text: &str) {
        match self {
            Self::Own(seed) => seed.fingerprint(text),
            Self::Fold(fold) => keep(fold.hash_one(text)),
            Self::Sip(sip) => keep(sip.hash_one(text)),
        }
    }

    /// The hashes of a path and of all its ancestors.
    fn hash_all(self, path: &str) {
        if let Self::Own(seed) = self {
            return seed.prefixes(path);
        }
        let above = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
        above.chain(std::iter::once(path)).for_each(|path| self.hash(path));
    }
}

/// Prevents the compiler from removing the work.
fn keep<T>(made: T) {
    black_box(made);
}

// === Layout ===

fn layouts(plan: &Plan, w: &Built, big: &Built) -> anyhow::Result<Choice> {
    let mut table = String::from(
        "| layout | W, ns | bytes a binding | big W, ns | bytes a binding |\n\
         |---|---:|---:|---:|---:|\n",
    );
    let mut rows = [
        "the engine's: records and shards",
        "HashMap of texts to texts and bits",
        "HashMap of texts to numbers, scopes compared as texts",
    ]
    .map(|name| format!("| {name} |"));
    for built in [w, big] {
        let asked = built.asked(plan);
        let all = questions(&asked);
        let model = built.world.model();
        let before = COUNTING.in_use();
        let interned = Interned::build(&model).context("the catalog is too wide")?;
        let bytes = COUNTING.in_use() - before;
        drop(model);
        let plain = built.yardstick.as_ref().context("the catalog is too wide")?;
        let subjects = [
            Subject::engine("engine", &built.snapshot, &all),
            Subject::new("plain", &all, |asked| {
                asked.iter().filter(|question| plain.allows(question)).count()
            }),
            Subject::new("interned", &all, |asked| {
                asked.iter().filter(|question| interned.allows(question)).count()
            }),
        ];
        let costs = in_turn(plan.rounds, &subjects)?;
        let bytes = [built.bytes, built.yardstick_bytes, bytes];
        for ((row, (cpu, _)), bytes) in rows.iter_mut().zip(costs).zip(bytes) {
            let _ = write!(row, " {} | {:.1} |", cell(cpu), bytes as f64 / built.bindings as f64);
        }
    }
    for row in rows {
        let _ = writeln!(table, "{row}");
    }
    Ok(Choice { title: "Layout", table })
}

// === Shards ===

/// A table keeps its number of shards while it grows by a factor of up to eight. So the same world can be in
/// shards of different widths.
fn grown(world: World, facts: &Facts, times: usize) -> anyhow::Result<Arc<Snapshot>> {
    let few = facts.identities.len() / times;
    let each = facts.role_bindings.len() / facts.identities.len().max(1);
    let (identities, rest) = facts.identities.split_at(few);
    let (bindings, rest_bound) = facts.role_bindings.split_at(few * each);
    let first = Facts {
        groups: facts.groups.clone(),
        identities: identities.to_vec(),
        role_bindings: bindings.to_vec(),
        ..Facts::default()
    };
    let model = Model::new(world.catalog(), first).ok().context("the world breaks a rule")?;
    let mut writer = Writer::new(&Snapshot::build(&model, 1)?);
    let identities = rest.iter().cloned().map(Change::CreateIdentity);
    let changes = identities.chain(rest_bound.iter().cloned().map(Change::CreateRoleBinding));
    writer.apply(changes)?;
    Ok(writer.publish(2))
}

fn widths(plan: &Plan) -> anyhow::Result<Choice> {
    let world = plan.sharded;
    let facts = world.facts();
    let snapshots: Vec<Arc<Snapshot>> =
        GROWN.iter().map(|times| grown(world, &facts, *times)).collect::<Result<_, _>>()?;
    let bindings = facts.role_bindings.len();
    ensure!(snapshots.iter().all(|snapshot| snapshot.bindings_len() == bindings), "bindings lack");
    drop(facts);
    let asked: Vec<Asked> = world.asked(0, ((plan.rounds + 1) * plan.questions) as u64);
    let all = questions(&asked);
    let names = GROWN.map(|times| match times {
        1 => "as made: 96 to 192 identities each".to_owned(),
        _ => format!("{times} times as many identities each"),
    });
    let subjects: Vec<Subject<'_>> = names
        .iter()
        .zip(&snapshots)
        .map(|(name, snapshot)| Subject::engine(name, snapshot, &all))
        .collect();
    let checks = in_turn(plan.rounds, &subjects)?;
    let mut table = String::from(
        "| shards | publishing one change, CPU µs | wall: mean, p99, most | a check, ns | bytes a \
         binding |\n|---|---:|---:|---:|---:|\n",
    );
    for ((name, snapshot), (check, _)) in names.iter().zip(&snapshots).zip(checks) {
        let Publishing { mean, p99, most, cpu } = publish(plan, world, snapshot)?;
        let [mean, p99, most, cpu] = [mean, p99, most, cpu].map(number);
        let bytes = snapshot.index_bytes() as f64 / bindings as f64;
        let _ = writeln!(
            table,
            "| {name} | {cpu} | {mean}, {p99}, {most} | {} | {bytes:.1} |",
            cell(check)
        );
    }
    Ok(Choice { title: "Width of shards", table })
}

// === Pages ===

/// The environment variable that makes glibc request huge pages, or not.
const HUGE: &str = "glibc.malloc.hugetlb=1";
const SMALL: &str = "glibc.malloc.hugetlb=0";

/// The result of a process: figures of the large world, and the page size.
#[derive(Clone, Copy, Debug)]
struct Told {
    alone: f64,
    batch: f64,
    huge_megabytes: f64,
}

/// Measures the large world in this process. Prints JSON; null if the process did not get huge pages.
pub(crate) fn of_this_process(plan: &Plan) -> anyhow::Result<String> {
    if env::var("GLIBC_TUNABLES").as_deref() == Ok(HUGE) {
        // Some versions of glibc request them in one process and not in another.
        let probe = black_box(vec![1u8; 64 << 20]);
        if huge_megabytes() == 0.0 {
            return Ok(Json::Null.to_string());
        }
        drop(probe);
    }
    let big = Built::new(plan.big)?;
    let asked = big.asked(plan);
    let all = questions(&asked);
    let subjects = [
        Subject::engine("alone", &big.snapshot, &all),
        Subject::batch("batch", 64, &big.snapshot, &all),
    ];
    let costs = in_turn(plan.rounds, &subjects)?;
    let costs: Vec<f64> = costs.iter().map(|(cpu, _)| cpu.median).collect();
    Ok(json!([costs, huge_megabytes()]).to_string())
}

fn huge_megabytes() -> f64 {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let huge = rollup.lines().find_map(|line| line.strip_prefix("AnonHugePages:"));
    let kilobytes = huge.and_then(|huge| huge.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kilobytes.unwrap_or_default() / 1e3
}

/// Runs a process with this page size. `None` if it got another page size.
fn process(plan: &Plan, tunable: &str) -> anyhow::Result<Option<Told>> {
    let mut child = Command::new(env::current_exe()?);
    child.arg(PAGES_ARGUMENT).env("GLIBC_TUNABLES", tunable);
    if plan.is_quick {
        child.arg("--quick");
    }
    let ran = child.output().context("cannot start this program again")?;
    ensure!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let told: Option<([f64; 2], f64)> = serde_json::from_slice(&ran.stdout)?;
    Ok(told.map(|([alone, batch], huge_megabytes)| Told { alone, batch, huge_megabytes }))
}

fn pages(plan: &Plan) -> anyhow::Result<Choice> {
    let sizes = [("4 KiB", SMALL), ("2 MiB", HUGE)];
    let mut told: [Vec<Told>; 2] = Default::default();
    for _ in 0..PROCESSES {
        for ((_, tunable), told) in sizes.iter().zip(&mut told) {
            for _ in 0..ATTEMPTS {
                if let Some(one) = process(plan, tunable)? {
                    told.push(one);
                    break;
                }
            }
        }
    }
    let mut table = String::from(
        "| pages | big W, alone, ns | in a batch of 64, ns | MB in huge pages |\n\
         |---|---:|---:|---:|\n",
    );
    for ((name, tunable), told) in sizes.iter().zip(&told) {
        let spread = |value: fn(&Told) -> f64| Spread::of(told.iter().map(value));
        let (alone, batch) = (spread(|told| told.alone), spread(|told| told.batch));
        let _ = match told.is_empty() {
            true => writeln!(table, "| {name} | not to be had here | | |"),
            false => writeln!(
                table,
                "| {name} (`{tunable}`) | {} | {} | {} |",
                cell(alone),
                cell(batch),
                number(spread(|told| told.huge_megabytes).median)
            ),
        };
    }
    Ok(Choice { title: "Size of pages", table })
}
