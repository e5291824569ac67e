//! Worlds: for any policy and question, the engine answers as the naive model.

use std::collections::BTreeSet;

use capstan_engine::self_check;
use proptest::test_runner::TestCaseError;

use crate::asking::{Pair, Tally, build};
use crate::generate::{Question, World, asked_from, later};

/// The highest number of expiries with checks around them.
const ENDS_ASKED: usize = 2;

/// Generates a world and questions from the bytes. Every answer of the engine is equal to the answer of the
/// naive model, at the world's time and around the expiries of bindings.
///
/// # Panics
///
/// If an answer differs.
pub fn world(bytes: &[u8]) {
    let asked = asked_from(bytes);
    assert!(asked.is_some(), "bytes without a world");
    if let Some((world, questions)) = asked {
        let agrees = agrees(&world, &questions);
        assert!(agrees.is_ok(), "{agrees:?}\n{questions:#?}\n{world:#?}");
    }
}

fn agrees(world: &World, questions: &[Question]) -> Result<(), TestCaseError> {
    let (_, snapshot) = build(world)?;
    let tally = Tally::default();
    Pair::new(world, &snapshot, world.now, &tally).agrees_on(questions)?;
    let ends = world.facts.role_bindings.iter().filter_map(|binding| binding.expires_at);
    let ends: BTreeSet<_> = ends.collect();
    for end in ends.into_iter().take(ENDS_ASKED) {
        for nanos in [-1, 0, 1] {
            let pair = Pair::new(world, &snapshot, later(end, nanos), &tally);
            questions.iter().try_for_each(|question| pair.checks(question))?;
        }
    }
    let checked = self_check(&snapshot, 4, world.now);
    checked.map(|_| ()).map_err(|mismatch| TestCaseError::fail(mismatch.to_string()))
}
