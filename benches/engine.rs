//! The cost of the engine in process: `cargo bench -p capstan-benches --bench engine`.

#![expect(clippy::expect_used, reason = "a benchmark stops without its world")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use capstan_benches::worlds::{Asked, World, questions, viewers};
use capstan_benches::yardstick::Yardstick;
use capstan_engine::{
    AttributeCategory, Attributes, Change, Condition, Cursor, Facts, Model, Path, Question, Reason,
    RoleBinding, Snapshot, Timestamp, Value, Writer,
};
use capstan_policy::{Catalogs, load_policy};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};

const QUESTIONS: u64 = 20_000;
const NOW: Timestamp = Timestamp::new(1_795_000_000, 0);
/// The interval between two publications of the writer beside the readers.
const CHANGE_EVERY: Duration = Duration::from_millis(1);

fn w() -> (Model, Snapshot, Vec<Asked>) {
    let model = World::W.model();
    let snapshot = Snapshot::build(&model, 1).expect("a world that fits");
    (model, snapshot, World::W.asked(0, QUESTIONS))
}

/// W after a change of every binding.
fn w_with(change: impl Fn(&mut RoleBinding)) -> Snapshot {
    let mut facts: Facts = World::W.facts();
    facts.role_bindings.iter_mut().for_each(change);
    let model = Model::new(World::W.catalog(), facts).expect("a consistent world");
    Snapshot::build(&model, 1).expect("a world that fits")
}

fn each(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    snapshot: &Snapshot,
    questions: &[Question<'_>],
) {
    group.throughput(Throughput::Elements(questions.len() as u64));
    group.bench_function(name, |b| {
        b.iter(|| {
            for question in questions {
                let _ = black_box(snapshot.check(black_box(question), NOW));
            }
        });
    });
}

fn check(c: &mut Criterion) {
    let (model, snapshot, asked) = w();
    let all = questions(&asked);
    let with = |snapshot: &Snapshot, reason: Reason| -> Vec<Question<'_>> {
        let answers = |question: &&Question<'_>| {
            snapshot.check(question, NOW).is_ok_and(|decision| decision.reason == reason)
        };
        all.iter().filter(answers).copied().collect()
    };
    let mut group = c.benchmark_group("check, W");
    each(&mut group, "all", &snapshot, &all);
    each(&mut group, "hit", &snapshot, &with(&snapshot, Reason::Granted));
    each(&mut group, "miss", &snapshot, &with(&snapshot, Reason::CapabilityNotInRole));
    each(&mut group, "elsewhere", &snapshot, &with(&snapshot, Reason::NoBinding));
    each(&mut group, "unknown identity", &snapshot, &with(&snapshot, Reason::UnknownIdentity));

    // The same few questions repeatedly: the cost without cache misses and branch mispredictions.
    for few in [4, 64, 1_024] {
        each(&mut group, &format!("the same {few}"), &snapshot, all.get(..few).unwrap_or_default());
    }

    let is_active = Condition {
        category: AttributeCategory::Context,
        name: "status".into(),
        equals: true,
        value: Value::String("active".into()),
    };
    let conditional = w_with(|binding| binding.when = vec![is_active.clone()]);
    let mut active = Attributes::default();
    active.context.insert("status".into(), Value::String("active".into()));
    let supplied: Vec<Question<'_>> =
        all.iter().map(|question| Question { attributes: &active, ..*question }).collect();
    each(&mut group, "conditional, met", &conditional, &supplied);
    each(&mut group, "conditional, not met", &conditional, &all);
    let expired = w_with(|binding| binding.expires_at = Some(Timestamp::UNIX_EPOCH));
    each(&mut group, "expired", &expired, &with(&expired, Reason::Expired));

    let yardstick = Yardstick::build(&model).expect("few capabilities");
    group.throughput(Throughput::Elements(QUESTIONS));
    group.bench_function("yardstick, all", |b| {
        b.iter(|| all.iter().filter(|question| yardstick.allows(black_box(question))).count());
    });
    group.bench_function("parse and check", |b| {
        b.iter(|| {
            for asked in &asked {
                let _ = black_box(snapshot.check(&black_box(asked).question(), NOW));
            }
        });
    });
    group.bench_function("parse both paths", |b| {
        b.iter(|| {
            for asked in &asked {
                black_box(black_box(asked).question());
            }
        });
    });
}

fn batch(c: &mut Criterion) {
    let (_, snapshot, asked) = w();
    let all = questions(&asked);
    let mut group = c.benchmark_group("check_batch, W");
    for size in [1, 16, 64, 1_000] {
        group.throughput(Throughput::Elements(QUESTIONS));
        group.bench_function(size.to_string(), |b| {
            b.iter(|| {
                for batch in all.chunks(size) {
                    snapshot.check_batch(black_box(batch), NOW, |_, decision| {
                        let _ = black_box(decision);
                    });
                }
            });
        });
    }
}

fn lists(c: &mut Criterion) {
    let (_, snapshot, asked) = w();
    let all: Vec<Question<'_>> = questions(&asked).into_iter().take(1_000).collect();
    let mut group = c.benchmark_group("lists, W");
    group.throughput(Throughput::Elements(all.len() as u64));
    let mut bench = |name: &str, ask: &dyn Fn(&Question<'_>) -> usize| {
        group.bench_function(name, |b| b.iter(|| all.iter().map(ask).sum::<usize>()));
    };
    bench("capabilities", &|q| {
        snapshot.list_capabilities(q.identity, q.resource, q.attributes, NOW).grants.len()
    });
    bench("identities", &|q| {
        let found = snapshot.list_identities(q.capability, q.resource, q.attributes, NOW);
        found.map_or(0, |found| found.len())
    });
    bench("scopes", &|q| {
        let found = snapshot.list_scopes(q.identity, q.capability, q.attributes, NOW);
        found.map_or(0, |found| found.len())
    });
    bench("explain", &|q| snapshot.explain(q, NOW).map_or(0, |found| found.roles.len()));
}

fn delete_and_create(binding: &RoleBinding) -> [Change; 2] {
    let id = binding.id.clone().expect("every binding has an id");
    [Change::DeleteRoleBinding(id), Change::CreateRoleBinding(binding.clone())]
}

/// 10,000 identities at one scope in pages of 100: every page has the same cost.
fn pages(c: &mut Criterion) {
    let snapshot = Snapshot::build(&viewers(10_000), 1).expect("a world that fits");
    let resource = Path::parse("acme").expect("a path");
    let mut group = c.benchmark_group("pages of 100 of 10,000 identities");
    group.throughput(Throughput::Elements(100));
    for (name, after) in [
        ("first", None),
        ("middle", Some("acme/viewer-04999")),
        ("last", Some("acme/viewer-09899")),
    ] {
        let cursor = Cursor { after, limit: 100 };
        group.bench_function(name, |b| {
            b.iter(|| {
                let none = Attributes::NONE;
                snapshot.list_identities_page("repo.list", resource, none, NOW, black_box(cursor))
            });
        });
    }
}

fn publish(c: &mut Criterion) {
    let model = Model::new(World::W.catalog(), World::W.facts_with_ids());
    let model = model.expect("a consistent world");
    let snapshot = Snapshot::build(&model, 1).expect("a world that fits");
    let asked = World::W.asked(0, QUESTIONS);
    let bindings = &model.facts().role_bindings;
    let mut writer = Writer::new(&snapshot);
    let (mut revision, mut places) = (1, bindings.iter().cycle());
    let mut group = c.benchmark_group("publish, W");
    group.throughput(Throughput::Elements(2));
    group.bench_function("delete, create", |b| {
        b.iter(|| {
            let binding = places.next().expect("a binding");
            for change in delete_and_create(binding) {
                revision += 1;
                writer.apply([change]).expect("the change fits");
                black_box(writer.publish(revision));
            }
        });
    });
    group.finish();

    let published = ArcSwap::new(Arc::new(snapshot));
    let stop = AtomicBool::new(false);
    let mut group = c.benchmark_group("check, W, by a reader");
    let all = questions(&asked);
    group.throughput(Throughput::Elements(QUESTIONS));
    let mut read = |name: &str| {
        group.bench_function(name, |b| {
            b.iter(|| {
                for question in &all {
                    let _ = black_box(published.load().check(black_box(question), NOW));
                }
            });
        });
    };
    read("alone");
    thread::scope(|scope| {
        scope.spawn(|| {
            for binding in bindings.iter().cycle().take_while(|_| !stop.load(Relaxed)) {
                for change in delete_and_create(binding) {
                    revision += 1;
                    writer.apply([change]).expect("the change fits");
                    published.store(writer.publish(revision));
                    thread::park_timeout(CHANGE_EVERY);
                }
            }
        });
        read("beside a writer");
        stop.store(true, Relaxed);
    });
}

fn load(c: &mut Criterion) {
    let (model, ..) = w();
    let text = World::W.document();
    let catalogs = Catalogs::default();
    load_policy(&text, &catalogs).expect("the document loads");
    let mut group = c.benchmark_group("load, W");
    group.sample_size(10);
    group.throughput(Throughput::Elements(model.facts().role_bindings.len() as u64));
    group.bench_function("document", |b| {
        b.iter(|| load_policy(black_box(&text), &catalogs).is_ok());
    });
    group.bench_function("rules", |b| {
        b.iter_batched(
            || model.facts().clone(),
            |facts| Model::new(Arc::clone(model.catalog()), facts).is_ok(),
            criterion::BatchSize::PerIteration,
        );
    });
    group.bench_function("snapshot", |b| b.iter(|| Snapshot::build(black_box(&model), 1)));
}

criterion_group!(benches, check, batch, lists, pages, publish, load);
criterion_main!(benches);
