//! Tests of the worlds of the figures.

use std::collections::BTreeMap;

use capstan_benches::worlds::{World, questions};
use capstan_benches::yardstick::{Interned, Yardstick};
use capstan_engine::{Reason, Snapshot, Timestamp};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;
const QUESTIONS: u64 = 1_500;

/// The ends of the curves; of the first and the third curve only the small end, because a debug build indexes
/// only 30,000 bindings per second.
const WORLDS: [World; 6] = [
    World::Bindings(1_000),
    World::Depth(1),
    World::Depth(16),
    World::EachIdentity(1),
    World::EachIdentity(10_000),
    World::Capabilities(1_000),
];

/// Compared subjects must give the same answers.
#[test]
fn engine_batches_and_yardstick_agree() {
    for world in WORLDS {
        let model = world.model();
        let snapshot = Snapshot::build(&model, 1).unwrap();
        let asked = world.asked(17, QUESTIONS);
        let all = questions(&asked);
        let decisions: Vec<_> =
            all.iter().map(|question| snapshot.check(question, NOW).unwrap()).collect();
        let mut reasons = BTreeMap::<&str, u64>::new();
        for decision in &decisions {
            *reasons.entry(decision.reason.as_str()).or_default() += 1;
        }
        let percent =
            |reason: Reason| reasons.get(reason.as_str()).map_or(0, |n| n * 100 / QUESTIONS);
        // An identity with ten thousand bindings is allowed nearly every check.
        let most = if world == World::EachIdentity(10_000) { 95 } else { 60 };
        assert!((40..most).contains(&percent(Reason::Granted)), "{world:?}: {reasons:?}");
        assert!(percent(Reason::UnknownIdentity) > 5, "{world:?}: {reasons:?}");

        for size in [1, 64, 1_000] {
            let mut answers = Vec::new();
            for batch in all.chunks(size) {
                snapshot.check_batch(batch, NOW, |_, decision| answers.push(decision.unwrap()));
            }
            assert!(answers == decisions, "{world:?} by {size}");
        }
        if let (Some(yardstick), Some(interned)) =
            (Yardstick::build(&model), Interned::build(&model))
        {
            for (question, decision) in all.iter().zip(&decisions) {
                let others = [yardstick.allows(question), interned.allows(question)];
                assert_eq!(others, [decision.allowed(); 2], "{world:?} {question:?}");
            }
        } else {
            assert!(model.catalog().capabilities().len() > 128, "{world:?}");
        }
    }
}

#[test]
fn worlds_have_the_requested_sizes() {
    let sizes = |world: World| {
        let facts = world.facts();
        (facts.identities.len(), facts.role_bindings.len())
    };
    assert_eq!(sizes(World::W), (10_000, 30_000));
    assert_eq!(sizes(World::Bindings(1_000)), (333, 999));
    assert_eq!(sizes(World::EachIdentity(10_000)), (3, 30_000));
    assert_eq!(World::Capabilities(64).catalog().capabilities().len(), 64);
    assert_eq!(World::Capabilities(13_790).catalog().capabilities().len(), 13_790);
    for depth in [1, 2, 16] {
        assert_eq!(sizes(World::Depth(depth)), (10_000, 30_000));
        let asked = World::Depth(depth).asked(0, 100);
        let segments = |path: &str| path.split('/').count() as u64;
        assert!(asked.iter().all(|asked| segments(&asked.resource) == depth));
    }
}

/// A wider catalog changes the questions and no answer.
#[test]
fn answers_do_not_depend_on_the_width_of_the_catalog() {
    let decisions = |world: World| -> Vec<_> {
        let snapshot = Snapshot::build(&world.model(), 1).unwrap();
        let asked = world.asked(0, QUESTIONS);
        asked.iter().map(|asked| snapshot.check(&asked.question(), NOW).unwrap()).collect()
    };
    let names = |world: World| {
        let asked = world.asked(0, QUESTIONS);
        let names: std::collections::BTreeSet<_> =
            asked.into_iter().map(|asked| asked.capability).collect();
        names.len()
    };
    let (w, wide) = (World::W, World::Capabilities(1_000));
    assert_eq!(decisions(w), decisions(wide));
    assert!(names(w) <= 64 && names(wide) > 400, "{} {}", names(w), names(wide));
}
