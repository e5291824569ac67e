//! Limits of the memory of an index, counted at the allocator, with the ids of bindings.

use capstan_benches::counting::Counting;
use capstan_benches::worlds::World;
use capstan_engine::{Model, Snapshot};

#[global_allocator]
static COUNTING: Counting = Counting::new();

/// Only one test, because the allocator counts the bytes of the whole process.
#[test]
fn the_memory_of_a_binding_is_limited() {
    // The second world is big W at a thirtieth of its size. The third world is W with an id for every
    // binding, as in a store: 8 bytes at the binding, and 8 at its scope.
    let with_ids = Model::new(World::W.catalog(), World::W.facts_with_ids()).unwrap();
    for (world, model, most) in [
        (World::W, World::W.model(), 94.0),
        (World::Bindings(100_000), World::Bindings(100_000).model(), 94.0),
        (World::W, with_ids, 110.0),
    ] {
        let before = COUNTING.in_use();
        let (snapshot, peak) = COUNTING.peak_of(|| Snapshot::build(&model, 1).unwrap());
        let bytes = COUNTING.in_use() - before;
        let each = bytes as f64 / snapshot.bindings_len() as f64;
        assert!(each <= most, "{world:?}: {each:.1} bytes per binding");
        let peak = peak as f64 / bytes as f64;
        assert!(peak <= 3.0, "{world:?}: the peak while building is {peak:.2} times the index");

        // The index reports nearly all of its bytes.
        let own = snapshot.index_bytes() as f64 / bytes as f64;
        assert!((0.9..=1.0).contains(&own), "{world:?}: {own:.3}");
        drop(snapshot);
        assert_eq!(COUNTING.in_use(), before, "{world:?}: memory leaks");
    }
}
