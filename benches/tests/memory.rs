//! What an index may weigh: bytes in use, counted at the allocator, ids included.

use capstan_benches::counting::Counting;
use capstan_benches::worlds::World;
use capstan_engine::{Model, Snapshot};

#[global_allocator]
static COUNTING: Counting = Counting::new();

/// One test, because bytes are counted for the whole process.
#[test]
fn a_binding_weighs_no_more_than_it_did() {
    // The second has the shape of big W, at a thirtieth of its size; the third is W with an id for every
    // binding, as a store gives it: 8 bytes beside the binding, and 8 at its scope.
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
        assert!(each <= most, "{world:?}: {each:.1} bytes a binding");
        let peak = peak as f64 / bytes as f64;
        assert!(peak <= 3.0, "{world:?}: {peak:.2} times as much while it was built");

        // What it says of itself leaves out little.
        let own = snapshot.index_bytes() as f64 / bytes as f64;
        assert!((0.9..=1.0).contains(&own), "{world:?}: {own:.3}");
        drop(snapshot);
        assert_eq!(COUNTING.in_use(), before, "{world:?}: nothing stays behind");
    }
}
