//! What a check costs in process: `cargo bench -p capstan-benches`.

#![expect(clippy::expect_used, reason = "without its world there is nothing to measure")]

use std::hint::black_box;

use capstan_benches::document;
use capstan_engine::{Attributes, Path, Question, Snapshot, Timestamp};
use capstan_policy::{Catalogs, load_policy};
use criterion::{Criterion, criterion_group, criterion_main};

fn check(c: &mut Criterion) {
    let text = document(1_000);
    let policy = load_policy(text.as_bytes(), &Catalogs::default()).expect("the world loads");
    let snapshot = Snapshot::build(&policy.model, 1);
    let now = Timestamp::UNIX_EPOCH;

    let facts = policy.model.facts();
    let bindings = facts.role_bindings.iter().step_by(97);
    let questions: Vec<(String, String)> = bindings
        .map(|binding| (binding.identity.to_string(), format!("{}/image", binding.scope)))
        .collect();
    let run = |capability: &str, nobody: &str| {
        for (identity, resource) in &questions {
            let identity = if nobody.is_empty() { identity } else { nobody };
            let identity = Path::parse(identity).expect("a path");
            let resource = Path::parse(resource).expect("a path");
            let question =
                Question { identity, capability, resource, attributes: Attributes::NONE };
            let _ = black_box(snapshot.check(black_box(&question), now));
        }
    };
    let mut group = c.benchmark_group("check, workload W");
    group.throughput(criterion::Throughput::Elements(questions.len() as u64));
    group.bench_function("hit", |b| b.iter(|| run("groups.list", "")));
    group.bench_function("miss", |b| b.iter(|| run("groups.delete", "")));
    group.bench_function("unknown identity", |b| b.iter(|| run("groups.list", "nobody")));
    group.finish();

    let mut group = c.benchmark_group("load, workload W");
    group.sample_size(10);
    group.bench_function("document", |b| {
        b.iter(|| load_policy(black_box(text.as_bytes()), &Catalogs::default()).is_ok());
    });
    group.bench_function("snapshot", |b| b.iter(|| Snapshot::build(black_box(&policy.model), 1)));
    group.finish();
}

criterion_group!(benches, check);
criterion_main!(benches);
