//! Each answer of the engine is the naive model's.

use std::collections::BTreeSet;

use capstan_testkit::generate::{self, Question, later};
use proptest::prelude::*;

use crate::asking::{Pair, Tally, build};

/// Each question in every shape; and each one's who and what with every other's where, since
/// answers cost less than worlds.
#[test]
#[expect(clippy::print_stdout, reason = "a long run is for the count")]
fn the_engine_answers_as_the_naive_model() {
    let tally = Tally::default();
    proptest!(|((world, questions) in generate::asked())| {
        let (_, snapshot) = build(&world)?;
        prop_assert!(questions.len() >= 8);
        let pair = Pair::new(&world, &snapshot, world.now, &tally);
        for question in &questions {
            pair.agrees(question)?;
            for other in &questions {
                let Question { resource, attributes, .. } = other.clone();
                pair.checks(&Question { resource, attributes, ..question.clone() })?;
            }
        }
    });
    println!("compared {tally}");
}

/// Every instant at which an answer may change, and the nanoseconds around it.
#[test]
#[expect(clippy::print_stdout, reason = "a long run is for the count")]
fn time_runs_out_when_the_naive_model_says() {
    let tally = Tally::default();
    proptest!(|((world, questions) in generate::asked())| {
        let (_, snapshot) = build(&world)?;
        let bindings = world.facts.role_bindings.iter();
        let ends: BTreeSet<_> = bindings.filter_map(|binding| binding.expires_at).collect();
        for end in ends {
            for now in [-1, 0, 1].map(|nanos| later(end, nanos)) {
                let pair = Pair::new(&world, &snapshot, now, &tally);
                for question in &questions {
                    pair.checks(question)?;
                    pair.lists_capabilities(question)?;
                    pair.lists_scopes(question)?;
                }
            }
        }
    });
    println!("compared {tally}, a world counting once for each time");
}
