//! The curves: one size grows, all others are constant.

use std::fs;

use capstan_benches::clock::Spread;
use capstan_benches::worlds::{World, questions};
use capstan_benches::yardstick::Yardstick;
use capstan_engine::{Attributes, Question, Reason};
use capstan_testkit::Naive;

use crate::built::Built;
use crate::measure::{NOW, Subject, in_turn};
use crate::report::{Curve, Point, thousands};
use crate::{Plan, say};

pub(crate) const ENGINE: &str = "engine";
pub(crate) const YARDSTICK: &str = "HashMap";
pub(crate) const W_IN_TURN: &str = "W, in turn";
const NAIVE: &str = "naive model";
/// The highest number of bindings with a measurement of the naive model.
const NAIVE_BINDINGS_MAX: u64 = 100_000;
/// The highest number of bindings that the yardstick reads in a round, in the curve where it reads all
/// bindings of an identity.
const YARDSTICK_BINDINGS: u64 = 5_000_000;
/// A rough upper bound of the bytes per binding while the largest world is built.
const BUILDING_BYTES: u64 = 1_200;

/// Measures the subjects in turn, and adds the results as a point of the curve.
fn measure(
    curve: &mut Curve,
    x: u64,
    rounds: usize,
    subjects: &[Subject<'_>],
) -> anyhow::Result<()> {
    for (subject, (cpu, wall)) in subjects.iter().zip(in_turn(rounds, subjects)?) {
        curve.push(subject.name, Point { x, y: cpu, wall: Some(wall) });
    }
    Ok(())
}

fn yardstick<'s>(
    name: &'s str,
    yardstick: &'s Yardstick,
    questions: &'s [Question<'s>],
) -> Subject<'s> {
    Subject::new(name, questions, |asked| {
        asked.iter().filter(|question| yardstick.allows(question)).count()
    })
}

/// Checks and bytes for 1,000 bindings and more, in half decades.
pub(crate) fn bindings(plan: &Plan, w: &Built, big: &Built) -> anyhow::Result<[Curve; 2]> {
    let mut curve = Curve::new(
        "bindings",
        "A check, by the number of bindings",
        "bindings",
        "CPU nanoseconds a check",
    );
    curve.ratio = Some((ENGINE, YARDSTICK));
    let mut memory = Curve::new(
        "memory",
        "Memory, by the number of bindings",
        "bindings",
        "bytes in use a binding, ids included",
    );
    memory.ratio = Some((ENGINE, YARDSTICK));
    let decades = (3..).map(|power| 10u64.pow(power));
    let sizes = decades.flat_map(|decade| [decade, 3 * decade]);
    for size in sizes.take_while(|size| *size <= plan.bindings_max) {
        if is_too_large(size) {
            say(&format!("{} bindings: left out, too little memory is free", thousands(size)))?;
            continue;
        }
        say(&format!("curve: {} bindings", thousands(size)))?;
        let made;
        let built = match World::Bindings(size) {
            world if world == w.world => w,
            world if world == big.world => big,
            world => {
                made = Built::new(world)?;
                &made
            }
        };
        check_at(plan, size, built, &mut curve)?;
        for (name, bytes) in [(ENGINE, built.bytes), (YARDSTICK, built.yardstick_bytes)] {
            let each = bytes as f64 / built.bindings as f64;
            let y = Spread { median: each, low: each, high: each };
            memory.push(name, Point { x: size, y, wall: None });
        }
    }
    Ok([curve, memory])
}

fn check_at(plan: &Plan, size: u64, built: &Built, curve: &mut Curve) -> anyhow::Result<()> {
    let asked = built.asked(plan);
    let all = questions(&asked);
    let facts = (size <= NAIVE_BINDINGS_MAX).then(|| built.world.facts());
    let catalog = built.snapshot.catalog().facts().clone();
    let mut subjects = vec![Subject::engine(ENGINE, &built.snapshot, &all)];
    subjects.push(Subject::batch("engine, batches of 64", 64, &built.snapshot, &all));
    subjects.extend(built.yardstick.iter().map(|one| yardstick(YARDSTICK, one, &all)));
    if let Some(facts) = &facts {
        let naive = Naive::new(&catalog, facts, Attributes::NONE, NOW);
        let ask = move |asked: &[Question<'_>]| {
            let answers = asked.iter().filter_map(|question| {
                let Question { identity, capability, resource, .. } = question;
                naive.check(identity.as_str(), capability, resource.as_str())
            });
            answers.filter(|(reason, _)| *reason == Reason::Granted).count()
        };
        let subject = Subject::new(NAIVE, &all, ask);
        subjects.push(Subject { most: plan.naive_questions, ..subject });
    }
    measure(curve, size, plan.rounds, &subjects)
}

fn is_too_large(bindings: u64) -> bool {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = free.and_then(|free| free.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.is_some_and(|free| free * 1024 < bindings * BUILDING_BYTES)
}

/// Batches of 1 to 1,000 checks in W and in the large world.
pub(crate) fn batches(plan: &Plan, w: &Built, big: &Built) -> anyhow::Result<Curve> {
    let mut curve = Curve::new(
        "batches",
        "A check in a batch, by the batch's size",
        "checks a batch",
        "CPU nanoseconds a check; HashMap is asked one by one",
    );
    let asked = [w, big].map(|built| built.asked(plan));
    let all = asked.each_ref().map(|asked| questions(asked));
    for size in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_000] {
        let mut subjects = Vec::new();
        for ((built, all), [name, plain, single]) in
            [w, big].into_iter().zip(&all).zip([W_NAMES, BIG_NAMES])
        {
            subjects.push(Subject::batch(name, size, &built.snapshot, all));
            subjects.extend(built.yardstick.iter().map(|one| yardstick(plain, one, all)));
            if size == 1 {
                subjects.push(Subject::engine(single, &built.snapshot, all));
            }
        }
        measure(&mut curve, size as u64, plan.rounds, &subjects)?;
    }
    Ok(curve)
}

/// Batches, the yardstick, and single checks.
pub(crate) const W_NAMES: [&str; 3] = ["W", "HashMap, W", "no batch, W"];
pub(crate) const BIG_NAMES: [&str; 3] = ["big W", "HashMap, big W", "no batch, big W"];

/// Paths with 1 to 16 segments.
pub(crate) fn depth(plan: &Plan, w: &Built) -> anyhow::Result<Curve> {
    let mut curve = Curve::new(
        "depth",
        "A check, by the resource's depth",
        "segments of the resource's path",
        "CPU nanoseconds a check",
    );
    along(plan, w, &mut curve, (1..=16).map(|depth| (depth, World::Depth(depth))))?;
    Ok(curve)
}

/// Identities with 1 to 10,000 bindings.
pub(crate) fn held(plan: &Plan, w: &Built) -> anyhow::Result<Curve> {
    let mut curve = Curve::new(
        "held",
        "A check, by the bindings of each identity",
        "bindings of each identity, 30,000 in all",
        "CPU nanoseconds a check",
    );
    let sizes = [1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000];
    along(plan, w, &mut curve, sizes.map(|size| (size, World::EachIdentity(size))))?;
    Ok(curve)
}

/// Catalogs with 64 to 13,790 capabilities. The latter is the size of the largest public catalog.
pub(crate) fn capabilities(plan: &Plan, w: &Built) -> anyhow::Result<Curve> {
    let mut curve = Curve::new(
        "capabilities",
        "A check, by the catalog's capabilities",
        "capabilities of the catalog",
        "CPU nanoseconds a check",
    );
    let sizes = [64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 13_790];
    along(plan, w, &mut curve, sizes.map(|size| (size as u64, World::Capabilities(size))))?;
    Ok(curve)
}

/// A world for each point, measured in turn with W.
fn along(
    plan: &Plan,
    w: &Built,
    curve: &mut Curve,
    worlds: impl IntoIterator<Item = (u64, World)>,
) -> anyhow::Result<()> {
    curve.ratio = Some((ENGINE, W_IN_TURN));
    let of_w = w.asked(plan);
    let of_w = questions(&of_w);
    for (x, world) in worlds {
        let built = Built::new(world)?;
        let asked = built.asked(plan);
        let all = questions(&asked);
        let mut subjects = vec![Subject::engine(ENGINE, &built.snapshot, &all)];
        subjects.push(Subject::engine(W_IN_TURN, &w.snapshot, &of_w));
        let most = match world {
            World::EachIdentity(each) => usize::try_from(YARDSTICK_BINDINGS / each)?,
            _ => usize::MAX,
        };
        let yardstick = |one| Subject { most, ..yardstick(YARDSTICK, one, &all) };
        subjects.extend(built.yardstick.iter().map(yardstick));
        measure(curve, x, plan.rounds, &subjects)?;
    }
    Ok(())
}
