//! Counts instructions with callgrind and compares them with `instructions.toml`. The counts do not depend
//! on the load of the machine. `dev/instructions` runs it, `dev/instructions --record` writes the counts, and
//! `dev/instructions --profile` prints the counts of each function.
//!
//! ```text
//! instructions ──valgrind──▶ instructions measured: one call of `measured` for each row
//!      │                                   │ one dump for each call
//!      ◀───────────────────────────────────┘
//! ```

mod profile;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::{env, fs};

use anyhow::{Context as _, bail, ensure};
use capstan_benches::replay::{Calls, Replay};
use capstan_benches::worlds::{Asked, World, questions, viewers};
use capstan_engine::{
    Attributes, Change, Cursor, Model, Path as Resource, Question, Snapshot, Timestamp, Writer,
};

/// Questions of a row. With this number, the hash seed of the process has a negligible effect.
const QUESTIONS: u64 = 10_000;
const BATCH: usize = 64;
/// Calls before the calls of a row.
const WARM_UP: u64 = 1_000;
/// Identities bound at one scope, and the entries of a page of them.
const VIEWERS: u32 = 10_000;
const PAGE: usize = 100;
/// The allowed increase of the count of a question, in percent.
const TOLERANCE: f64 = 5.0;
/// The allowed increase if the baseline is of another compiler, in percent.
const TOLERANCE_OTHER_COMPILER: f64 = 20.0;
/// The rows in the order of measurement, with their numbers of parts. The search among very many bindings of
/// few scopes depends on the hash seed, so its count is the mean of many parts.
const ROWS: [(&str, usize); 10] = [
    ("parse", 1),
    ("check", 1),
    ("check_batch", 1),
    ("check, beside changes", CHANGED_PARTS),
    ("check, 16 deep", 1),
    ("check, 10000 bindings each", SEEDS),
    ("an identity of the first page of 10000", 1),
    ("an identity of the last page of 10000", 1),
    ("a call", 1),
    ("a call, 16 at once", 1),
];
const SEEDS: usize = 10;
/// Parts of the checks beside changes, and the changes before each of them, which each have a revision of their own.
const CHANGED_PARTS: usize = 100;
const CHANGES: usize = 10;

/// Instructions per question of each row.
type Counts = BTreeMap<String, f64>;

fn main() -> anyhow::Result<ExitCode> {
    match env::args().nth(1).as_deref() {
        Some("measured") => {
            measure_all()?;
            Ok(ExitCode::SUCCESS)
        }
        Some("--record") => record(),
        Some("--profile") => profile(),
        None => compare(),
        Some(other) => {
            bail!("unknown argument `{other}`: there are `--record` and `--profile`")
        }
    }
}

// === Measured work ===

enum Row<'q> {
    Parse(&'q [Asked]),
    Check(&'q Snapshot, &'q [Question<'q>]),
    Batch(&'q Snapshot, &'q [Question<'q>]),
    /// Lists the page after this identity, repeatedly, until [`QUESTIONS`] entries are listed.
    Page(&'q Snapshot, Option<&'q str>),
    /// Makes calls on a connection of a server in this thread. The client's few instructions count, too.
    Calls(&'q RefCell<Replay>, &'q Calls),
}

fn measure_all() -> anyhow::Result<()> {
    let asked = World::W.asked(0, QUESTIONS);
    let w = Snapshot::build(&World::W.model(), 1)?;
    let of_w = questions(&asked);
    measured(&Row::Parse(&asked));
    measured(&Row::Check(&w, &of_w));
    measured(&Row::Batch(&w, &of_w));
    measure_beside_changes(&of_w)?;
    for (world, seeds) in [(World::Depth(16), 1), (World::EachIdentity(10_000), SEEDS)] {
        let (model, asked) = (world.model(), world.asked(0, QUESTIONS));
        for part in questions(&asked).chunks(asked.len() / seeds) {
            // Each snapshot has its own seed.
            measured(&Row::Check(&Snapshot::build(&model, 1)?, part));
        }
    }
    let viewers = Snapshot::build(&viewers(VIEWERS), 1)?;
    measured(&Row::Page(&viewers, None));
    let last = format!("acme/viewer-{:05}", VIEWERS as usize - PAGE - 1);
    measured(&Row::Page(&viewers, Some(&last)));
    let mut replay = Replay::start(World::W)?;
    let warm_up = replay.encode(&World::W.asked(QUESTIONS, WARM_UP), BATCH);
    let calls = [1, 16].map(|at_once| replay.encode(&asked, at_once));
    replay.replay(&warm_up)?;
    let replay = RefCell::new(replay);
    calls.iter().for_each(|calls| measured(&Row::Calls(&replay, calls)));
    Ok(())
}

/// Checks while role bindings of W are created, of which the last makes it what it is.
fn measure_beside_changes(of_w: &[Question<'_>]) -> anyhow::Result<()> {
    let mut facts = World::W.facts();
    let every = facts.role_bindings.len() / (CHANGED_PARTS * CHANGES);
    let (mut kept, mut created) = (vec![], vec![]);
    for (at, binding) in facts.role_bindings.drain(..).enumerate() {
        let is_late = at % every == 0 && created.len() < CHANGED_PARTS * CHANGES;
        if is_late { created.push(binding) } else { kept.push(binding) }
    }
    facts.role_bindings = kept;
    let model = Model::new(World::W.catalog(), facts).context("W without some bindings")?;
    let first = Snapshot::build(&model, 1)?;
    drop(model);
    let (mut writer, mut served, mut revision) = (Writer::new(&first), Arc::new(first), 1);
    for (part, created) in of_w.chunks(of_w.len() / CHANGED_PARTS).zip(created.chunks(CHANGES)) {
        for binding in created {
            writer.apply([Change::CreateRoleBinding(binding.clone())])?;
            revision += 1;
            served = writer.publish(revision);
        }
        measured(&Row::Check(&served, part));
    }
    ensure!(served.bindings_len() == World::W.facts().role_bindings.len(), "not all of W");
    Ok(())
}

/// The name of the function in which callgrind counts.
#[inline(never)]
fn measured(row: &Row<'_>) {
    let now = Timestamp::UNIX_EPOCH;
    match row {
        Row::Parse(asked) => {
            for asked in *asked {
                black_box(asked.question());
            }
        }
        Row::Check(snapshot, questions) => {
            for question in *questions {
                let _ = black_box(snapshot.check(black_box(question), now));
            }
        }
        Row::Page(snapshot, after) => {
            let Ok(resource) = Resource::parse("acme") else { return };
            let cursor = Cursor { after: *after, limit: PAGE };
            for _ in 0..QUESTIONS / PAGE as u64 {
                let none = Attributes::NONE;
                let page = snapshot.list_identities_page("repo.list", resource, none, now, cursor);
                let _ = black_box(page);
            }
        }
        Row::Calls(replay, calls) => {
            let answered = replay.borrow_mut().replay(calls);
            // A run without answers must not become a baseline.
            assert!(answered.is_ok_and(|answered| answered.messages as u64 == QUESTIONS));
        }
        Row::Batch(snapshot, questions) => {
            for batch in questions.chunks(BATCH) {
                snapshot.check_batch(black_box(batch), now, |_, decision| {
                    let _ = black_box(decision);
                });
            }
        }
    }
}

// === Counting ===

fn count() -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    for (row, dumps) in dumps()? {
        let mut total = 0.0;
        for dump in dumps {
            let summary = dump.lines().find_map(|line| line.strip_prefix("summary: "));
            total += summary.context("a dump without a summary")?.trim().parse::<f64>()?;
        }
        ensure!(total > 0.0, "nothing was counted for `{row}`");
        counts.insert(row.to_owned(), (total / QUESTIONS as f64 * 10.0).round() / 10.0);
    }
    Ok(counts)
}

/// The counts of callgrind in the order of [`ROWS`].
fn dumps() -> anyhow::Result<Vec<(&'static str, Vec<String>)>> {
    let scratch = env::temp_dir().join(format!("capstan-instructions-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let dumps = dumps_in(&scratch);
    fs::remove_dir_all(&scratch)?;
    dumps
}

fn dumps_in(scratch: &Path) -> anyhow::Result<Vec<(&'static str, Vec<String>)>> {
    let out = scratch.join("callgrind");
    let ran = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*::measured", "--dump-after=*::measured"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env::current_exe()?)
        .arg("measured")
        .stdin(Stdio::null())
        .output()
        .context("valgrind does not start: install it, e.g. apt-get install valgrind")?;
    let said = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "valgrind failed:\n{said}");
    let mut dumps = (1..).map(|at| {
        let dump = out.with_extension(at.to_string());
        fs::read_to_string(&dump).with_context(|| format!("no dump {at}:\n{said}"))
    });
    ROWS.into_iter()
        .map(|(row, parts)| Ok((row, dumps.by_ref().take(parts).collect::<Result<_, _>>()?)))
        .collect()
}

/// Functions with a smaller share of the row, in percent, are not printed.
const SHOWN: f64 = 1.0;

fn profile() -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    for (row, dumps) in dumps()? {
        // One part of a row is enough for a profile.
        let Some(dump) = dumps.first() else { continue };
        let functions = profile::by_function(dump);
        let total = functions.iter().map(|(_, cost)| cost).sum::<u64>() as f64;
        let questions = QUESTIONS as f64 / dumps.len() as f64;
        writeln!(out, "{row}: {:.1} instructions a question", total / questions)?;
        for (function, cost) in functions {
            let (each, percent) = (cost as f64 / questions, cost as f64 / total * 100.0);
            if percent >= SHOWN {
                writeln!(out, "{each:>10.1} {percent:>5.1} %  {function}")?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

// === The baseline ===

fn baseline_path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.toml")
}

/// The inputs of the counts other than the source.
fn compiler() -> anyhow::Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let ran = Command::new(rustc).arg("--version").output().context("rustc does not start")?;
    Ok(format!("{} {}", String::from_utf8(ran.stdout)?.trim(), env::consts::ARCH))
}

fn baselines() -> anyhow::Result<BTreeMap<String, Counts>> {
    match fs::read_to_string(baseline_path()) {
        Ok(text) => Ok(toml::from_str(&text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error.into()),
    }
}

fn record() -> anyhow::Result<ExitCode> {
    let (compiler, counted) = (compiler()?, count()?);
    let mut baselines = baselines()?;
    baselines.insert(compiler, counted);
    let mut text = String::from(
        "# Instructions a question in a release build, by callgrind: `dev/instructions --record`\n\
         # writes this compiler's. The rows are those of `instructions.rs`.\n",
    );
    for (compiler, counts) in &baselines {
        let _ = writeln!(text, "\n[\"{compiler}\"]");
        for (row, count) in counts {
            let _ = writeln!(text, "\"{row}\" = {count:.1}");
        }
    }
    fs::write(baseline_path(), text)?;
    Ok(ExitCode::SUCCESS)
}

fn compare() -> anyhow::Result<ExitCode> {
    let (compiler, baselines, mut out) = (compiler()?, baselines()?, io::stdout().lock());
    let (tolerance, baseline) = match baselines.get(&compiler) {
        Some(own) => (TOLERANCE, Some(own)),
        None => {
            let of_machine = |(name, _): &(&String, _)| name.ends_with(env::consts::ARCH);
            let latest = baselines.iter().rfind(of_machine);
            let stands_in = latest.map(|(name, _)| name.as_str());
            writeln!(
                out,
                "There is no baseline of this compiler:\n  {compiler}\nHeld against, with \
                 {TOLERANCE_OTHER_COMPILER} % of room:\n  {}\nTo record one, run \
                 `dev/instructions --record` on a commit that is known to be good, and\ncommit \
                 benches/instructions.toml.\n",
                stands_in.unwrap_or("nothing, since no other is of this machine's kind")
            )?;
            (TOLERANCE_OTHER_COMPILER, latest.map(|(_, counts)| counts))
        }
    };
    let (mut has_failed, mut is_stale) = (false, false);
    writeln!(out, "{:<28} {:>10} {:>10}", "instructions a question", "now", "baseline")?;
    for (row, now) in count()? {
        let Some(baseline) = baseline else {
            writeln!(out, "{row:<28} {now:>10.1}")?;
            continue;
        };
        let Some(before) = baseline.get(&row) else {
            bail!("the baseline has no `{row}`: run `dev/instructions --record` and commit it");
        };
        let more = (now / before - 1.0) * 100.0;
        let is_too_much = more > tolerance;
        has_failed |= is_too_much;
        is_stale |= more < -tolerance;
        let verdict = if is_too_much { "  too many" } else { "" };
        writeln!(out, "{row:<28} {now:>10.1} {before:>10.1} {more:>+7.1}%{verdict}")?;
    }
    if is_stale {
        writeln!(
            out,
            "\nA row has over {tolerance} % fewer: so that they stay so, run `dev/instructions \
             --record` and commit it."
        )?;
    }
    if has_failed {
        writeln!(
            out,
            "\nA row has over {tolerance} % more instructions than its baseline. If that is worth \
             it, run\n`dev/instructions --record`, and say in the commit why."
        )?;
    }
    Ok(ExitCode::from(u8::from(has_failed)))
}
