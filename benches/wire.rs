//! The cost of encoding and decoding the messages of a check: `cargo bench -p capstan-benches --bench
//! wire`.

#![expect(clippy::expect_used, reason = "a benchmark stops without its messages")]

use std::hint::black_box;

use capstan_benches::worlds::{Asked, World};
use capstan_proto::v1::{
    BatchCheckRequest, BatchCheckResponse, CheckItem, CheckRequest, CheckResponse, CheckResult,
    Reason,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;

const BATCH: u64 = 64;

fn request(asked: &Asked) -> CheckRequest {
    let Asked { identity, capability, resource } = asked.clone();
    CheckRequest { identity, capability, resource, ..CheckRequest::default() }
}

fn item(asked: &Asked) -> CheckItem {
    let Asked { identity, capability, resource } = asked.clone();
    CheckItem { identity, capability, resource, ..CheckItem::default() }
}

/// Encodes into and decodes from one buffer.
fn both_ways<M: Message + Default>(c: &mut Criterion, name: &str, checks: u64, message: &M) {
    let bytes = message.encode_to_vec();
    let mut group = c.benchmark_group(format!("codec, {name}, {} bytes", bytes.len()));
    group.throughput(Throughput::Elements(checks));
    let mut buffer = Vec::with_capacity(bytes.len());
    group.bench_function("encode", |b| {
        b.iter(|| {
            buffer.clear();
            black_box(message).encode(&mut buffer).expect("a vector grows");
            black_box(&buffer);
        });
    });
    group.bench_function("decode", |b| {
        b.iter(|| M::decode(black_box(&*bytes)).expect("an encoded message decodes"));
    });
}

fn codec(c: &mut Criterion) {
    let asked = World::W.asked(0, BATCH);
    let one = asked.first().expect("a question");
    both_ways(c, "CheckRequest", 1, &request(one));
    let revision = 1_795_000_000;
    let granted = CheckResponse {
        allowed: true,
        reason: Reason::Granted.into(),
        revision,
        ..CheckResponse::default()
    };
    both_ways(c, "CheckResponse", 1, &granted);
    let checks = asked.iter().map(item).collect();
    let batch = BatchCheckRequest { checks, ..BatchCheckRequest::default() };
    both_ways(c, "BatchCheckRequest", BATCH, &batch);
    let result =
        CheckResult { allowed: true, reason: Reason::Granted.into(), ..CheckResult::default() };
    let results = asked.iter().map(|_| result.clone()).collect();
    both_ways(c, "BatchCheckResponse", BATCH, &BatchCheckResponse { results, revision });
}

criterion_group!(benches, codec);
criterion_main!(benches);
