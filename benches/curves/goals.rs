//! The goals that are not points of a curve: memory, publishing, readers beside a writer, loading.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use arc_swap::ArcSwap;
use capstan_benches::clock::{Spread, cost, nanos};
use capstan_benches::worlds::{World, questions, with_id};
use capstan_engine::{Change, Facts, Model, Question, RoleBinding, Snapshot, Writer};
use capstan_policy::{Catalogs, load_policy};

use crate::built::{Built, measured};
use crate::measure::NOW;
use crate::report::{Curve, Goal, number, thousands};
use crate::scaling::{BIG_NAMES, ENGINE, W_IN_TURN, W_NAMES};
use crate::{COUNTING, Plan};

/// The load of a writer beside readers.
const CHANGES_PER_SECOND: u32 = 1_000;
/// Changes in one batch while a store loads, and changes between two publications.
const CHANGES_TOGETHER: usize = 1_000;

fn goal(what: impl Into<String>, wanted: &'static str, measured: String) -> Goal {
    Goal { what: what.into(), wanted, measured }
}

/// The cost of single checks and batches, and the ends of the curves compared with W.
pub(crate) fn checks(
    batches: &Curve,
    depth: &Curve,
    held: &Curve,
    capabilities: &Curve,
) -> Vec<Goal> {
    let at = |name: &str, x: u64| {
        let point = batches.at(name, x).map(|point| (point.y, point.wall.unwrap_or(point.y)));
        point.map_or_else(String::new, |(cpu, wall)| {
            format!("{} ns, wall {} ns", number(cpu.median), number(wall.median))
        })
    };
    let ratio = |curve: &Curve, x: u64| {
        let ratio = curve.ratio_at(ENGINE, W_IN_TURN, x);
        ratio.map_or_else(String::new, |ratio| format!("{ratio:.2} times"))
    };
    let ([w, _, single_w], [big, _, single_big]) = (W_NAMES, BIG_NAMES);
    vec![
        goal("a check of W, alone", "150 ns; stretch 100 ns", at(single_w, 1)),
        goal("a check of big W, alone", "450 ns; stretch 300 ns", at(single_big, 1)),
        goal("a check of W, in a batch of 64", "100 ns", at(w, 64)),
        goal("a check of big W, in a batch of 64", "150 ns", at(big, 64)),
        goal("identities of 10,000 bindings, against W", "3 times", ratio(held, 10_000)),
        goal("resources 16 deep, against W", "3 times", ratio(depth, 16)),
        goal("13,790 capabilities, against W", "3 times", ratio(capabilities, 13_790)),
    ]
}

/// Allocations, and bytes per binding.
pub(crate) fn memory(w: &Built, big: &Built) -> Vec<Goal> {
    let asked = w.world.asked(0, 10_000);
    let all = questions(&asked);
    let before = COUNTING.calls();
    for question in &all {
        let _ = std::hint::black_box(w.snapshot.check(question, NOW));
    }
    let calls = COUNTING.calls() - before;
    let bytes = |built: &Built| {
        let own = built.snapshot.index_bytes() as f64 / built.bindings as f64;
        format!("{:.1}, by its own count {own:.1}", built.bytes_each())
    };
    vec![
        goal("allocations of 10,000 checks", "0", calls.to_string()),
        goal("bytes a binding, W", "-", bytes(w)),
        goal("bytes a binding, big W", "100", bytes(big)),
    ]
}

/// Time and memory from facts to a snapshot.
pub(crate) fn built(name: &str, world: &Built) -> Goal {
    let Built { facts_bytes, rules, build, bytes, .. } = world;
    let peak = facts_bytes + rules.1.max(build.1);
    goal(
        format!("facts of {name} into a snapshot, whole"),
        "5 s, 1.5 times",
        format!(
            "{:.2} s of rules and {:.2} s of indexing; at most {:.1} times what stays, of which \
             {:.1} are the facts",
            rules.0,
            build.0,
            peak as f64 / *bytes as f64,
            *facts_bytes as f64 / *bytes as f64,
        ),
    )
}

// === Publishing ===

/// New bindings that are valid in the world.
fn new_bindings(world: World, snapshot: &Snapshot, count: u64) -> Vec<RoleBinding> {
    let mut writer = Writer::new(snapshot);
    let roles = snapshot.roles().iter().cycle();
    // Some drawn bindings already exist, and some drawn identities do not.
    let asked = world.asked(0, count * 2);
    let drawn = asked.iter().zip(roles).map(|(asked, role)| {
        let Question { identity, resource, .. } = asked.question();
        RoleBinding {
            id: None,
            identity: identity.into(),
            role: role.id.as_ref().into(),
            scope: resource.parent().unwrap_or(resource).into(),
            expires_at: None,
            when: Vec::new(),
        }
    });
    // Ids that do not exist in the world.
    let drawn = (1 << 40..).zip(drawn).map(|(at, one)| with_id(one, at));
    let new = drawn.filter(|one| writer.apply([Change::CreateRoleBinding(one.clone())]).is_ok());
    new.take(usize::try_from(count).unwrap_or(usize::MAX)).collect()
}

/// Creates and deletes every binding, one change at a time.
fn changes(bindings: &[RoleBinding]) -> impl Iterator<Item = Change> {
    // Each deletion is some time after the creation, so that its memory is no longer in the cache.
    bindings.chunks(100).flat_map(|some| {
        let created = some.iter().cloned().map(Change::CreateRoleBinding);
        let ids = some.iter().filter_map(|binding| binding.id.clone());
        created.chain(ids.map(Change::DeleteRoleBinding))
    })
}

/// The microseconds of each change with its publication and the release of the previous snapshot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publishing {
    pub(crate) mean: f64,
    pub(crate) p99: f64,
    pub(crate) most: f64,
    pub(crate) cpu: f64,
}

pub(crate) fn publish(
    plan: &Plan,
    world: World,
    snapshot: &Snapshot,
) -> anyhow::Result<Publishing> {
    let bindings = new_bindings(world, snapshot, plan.changes / 2);
    let mut writer = Writer::new(snapshot);
    let published = ArcSwap::new(writer.publish(1));
    let (mut walls, mut cpu) = (Vec::new(), 0.0);
    let all: Vec<Change> = changes(&bindings).collect();
    for (revision, change) in (2..).zip(&all) {
        let (cost, applied) = cost(|| {
            let applied = writer.apply([change]);
            published.store(writer.publish(revision));
            applied
        });
        applied.ok().context("a change that fitted does not")?;
        walls.push(cost.wall / 1e3);
        cpu += cost.cpu / 1e3;
    }
    let changes = walls.len() as f64;
    let mean = walls.iter().sum::<f64>() / changes;
    let [p99, most] = quantiles(&mut walls, [0.99, 1.0]);
    Ok(Publishing { mean, p99, most, cpu: cpu / changes })
}

pub(crate) fn publishing(plan: &Plan, name: &str, built: &Built) -> anyhow::Result<Goal> {
    let Publishing { mean, p99, most, cpu } = publish(plan, built.world, &built.snapshot)?;
    let [mean, p99, most, cpu] = [mean, p99, most, cpu].map(number);
    Ok(goal(
        format!("publishing one change of {name}"),
        "100 µs",
        format!("mean {mean} µs, p99 {p99} µs, most {most} µs; CPU {cpu} µs"),
    ))
}

fn quantiles<const N: usize>(values: &mut [f64], wanted: [f64; N]) -> [f64; N] {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1) as f64;
    #[expect(clippy::cast_possible_truncation, reason = "an index into the list")]
    #[expect(clippy::cast_sign_loss, reason = "an index into the list")]
    wanted.map(|part| values.get((last * part).round() as usize).copied().unwrap_or(f64::NAN))
}

/// The latency of one reader, alone and beside a writer.
pub(crate) fn reading(plan: &Plan, big: &Built) -> anyhow::Result<Vec<Goal>> {
    let asked = big.asked(plan);
    let all = questions(&asked);
    let count = u64::from(CHANGES_PER_SECOND) * 10;
    let bindings = new_bindings(big.world, &big.snapshot, count);
    let mut writer = Writer::new(&big.snapshot);
    let published = ArcSwap::new(writer.publish(1));
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut places = all.iter().cycle();
    let mut revision = 1;
    // Three rounds use at most all changes.
    let mut to_make = changes(&bindings);
    let mut writing = Duration::ZERO;
    for _ in 0..3 {
        alone.push(read(&published, &mut places, plan.reading));
        stop.store(false, Relaxed);
        let waits = thread::scope(|scope| {
            scope.spawn(|| {
                let mut next = Instant::now();
                for change in to_make.by_ref().take_while(|_| !stop.load(Relaxed)) {
                    revision += 1;
                    if writer.apply([change]).is_ok() {
                        published.store(writer.publish(revision));
                        made.fetch_add(1, Relaxed);
                    }
                    next += Duration::from_secs(1) / CHANGES_PER_SECOND;
                    thread::park_timeout(next.saturating_duration_since(Instant::now()));
                }
            });
            let begun = Instant::now();
            let waits = read(&published, &mut places, plan.reading);
            writing += begun.elapsed();
            stop.store(true, Relaxed);
            waits
        });
        beside.push(waits);
    }
    let rate = made.load(Relaxed) as f64 / writing.as_secs_f64();
    let median = |rounds: &[[f64; 3]], at: usize| {
        number(Spread::of(rounds.iter().filter_map(|round| round.get(at).copied())).median)
    };
    let row = |rounds: &[[f64; 3]]| {
        let [p50, p99, p999] = [0, 1, 2].map(|at| median(rounds, at));
        format!("p50 {p50} ns, p99 {p99} ns, p99.9 {p999} ns")
    };
    Ok(vec![
        goal("a reader of big W, alone", "-", row(&alone)),
        goal(
            format!("the same beside a writer of {} changes a second", number(rate)),
            "p99 unmoved",
            row(&beside),
        ),
    ])
}

/// p50, p99 and p99.9 of the latency in nanoseconds, including two clock readings.
fn read<'q>(
    published: &ArcSwap<Snapshot>,
    questions: &mut impl Iterator<Item = &'q Question<'q>>,
    time: Duration,
) -> [f64; 3] {
    let mut waits = Vec::new();
    let begun = Instant::now();
    for question in questions {
        let before = Instant::now();
        let _ = std::hint::black_box(published.load().check(question, NOW));
        let after = Instant::now();
        waits.push(nanos(after - before));
        if after - begun > time {
            break;
        }
    }
    quantiles(&mut waits, [0.5, 0.99, 0.999])
}

// === Loading ===

/// Loading from changes, as from a store, and from a document.
pub(crate) fn loading(plan: &Plan) -> anyhow::Result<Vec<Goal>> {
    let mut goals = Vec::new();
    for (name, world) in [("W", World::W), ("big W", plan.big)] {
        goals.push(through_a_writer(name, world, usize::MAX)?);
        goals.push(through_a_writer(name, world, CHANGES_TOGETHER)?);
        goals.push(document(name, world)?);
    }
    Ok(goals)
}

/// Loads the facts as single changes with a publication after every few. The time of generating the changes is
/// measured separately and subtracted.
pub(crate) fn through_a_writer(name: &str, world: World, together: usize) -> anyhow::Result<Goal> {
    let nothing = Model::new(world.catalog(), Facts::default());
    let empty = Snapshot::build(&nothing.ok().context("an empty world breaks a rule")?, 1)?;
    let before = COUNTING.in_use();
    let (loaded, (seconds, peak)) = measured(|| {
        let mut writer = Writer::new(&empty);
        let mut last = writer.publish(1);
        let mut all = world.changes().peekable();
        for revision in 2.. {
            if all.peek().is_none() {
                break;
            }
            let applied = writer.apply(all.by_ref().take(together));
            applied?;
            last = writer.publish(revision);
        }
        anyhow::Ok(last)
    });
    let loaded = loaded?;
    let stays = COUNTING.in_use() - before;
    let made_up =
        || world.changes().filter(|change| matches!(change, Change::CreateRoleBinding(_))).count();
    let (wanted, (making_up, _)) = measured(made_up);
    let seconds = seconds - making_up;
    ensure!(loaded.bindings_len() == wanted, "{name}: bindings are missing");
    let bindings = thousands(wanted as u64);
    let published = match together {
        usize::MAX => "published once".to_owned(),
        _ => format!("published after every {}", thousands(together as u64)),
    };
    Ok(goal(
        format!("{bindings} bindings of {name} through a writer, {published}"),
        "5 s, 1.5 times",
        format!("{seconds:.2} s; at most {:.2} times what stays", peak as f64 / stays as f64),
    ))
}

fn document(name: &str, world: World) -> anyhow::Result<Goal> {
    let text = world.document();
    let before = COUNTING.in_use();
    let (snapshot, (seconds, peak)) = measured(|| {
        let policy = load_policy(&text, &Catalogs::default()).ok()?;
        Snapshot::build(&policy.model, 1).ok().map(Arc::new)
    });
    let snapshot = snapshot.context("the document does not load")?;
    let stays = COUNTING.in_use() - before;
    let bindings = thousands(snapshot.bindings_len() as u64);
    let megabytes = text.len() as f64 / 1e6;
    let times = peak as f64 / stays as f64;
    let measured = format!(
        "{seconds:.2} s for {} MB; at most {times:.1} times what stays, beside the text",
        number(megabytes)
    );
    Ok(goal(format!("a document of {bindings} bindings of {name}"), "-", measured))
}
