//! Worlds: whatever the policy and the question, the engine answers as the naive model.

use std::collections::BTreeSet;

use capstan_engine::self_check;
use proptest::test_runner::TestCaseError;

use crate::asking::{Pair, Tally, build};
use crate::generate::{Question, World, asked_from, later};

/// Instants at which an answer may change that are asked about.
const ENDS_ASKED: usize = 2;

/// The world and the questions that these bytes choose: each answer of the engine is the naive
/// model's, in every shape, now and around the times when bindings end.
///
/// # Panics
///
/// A rule is broken.
pub fn world(bytes: &[u8]) {
    let asked = asked_from(bytes);
    assert!(asked.is_some(), "bytes that choose no world");
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
