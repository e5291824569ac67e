//! Each answer of the engine is the naive model's.

use std::collections::BTreeSet;

use capstan_testkit::generate::{self, later};
use proptest::prelude::*;

use capstan_policy::{Catalogs, load_policy};
use capstan_testkit::asking::{Pair, Tally, build};
use capstan_testkit::fuzz;
use capstan_testkit::written;

#[test]
#[expect(clippy::print_stdout, reason = "a long run is for the count")]
fn the_engine_answers_as_the_naive_model() {
    let tally = Tally::default();
    proptest!(|((world, questions) in generate::asked())| {
        let (_, snapshot) = build(&world)?;
        prop_assert!(questions.len() >= 8);
        Pair::new(&world, &snapshot, world.now, &tally).agrees_on(&questions)?;
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

proptest! {
    #[test]
    fn any_bytes_choose_a_world_that_both_answer(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        fuzz::world(&bytes);
    }
}

proptest! {
    // Reading is slow beside answering.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.div_ceil(4)))]

    /// Written as documents, worlds are loaded as they were: nothing is lost on either way.
    #[test]
    fn worlds_are_policies(world in generate::world()) {
        let catalog = written::catalog(&world.catalog);
        let policy = written::policy(&catalog, &world.facts);
        prop_assert!(fuzz::catalog(catalog.as_bytes()), "{}", catalog);
        prop_assert!(fuzz::policy(policy.as_bytes()), "{}", policy);
        let loaded = load_policy(policy.as_bytes(), &Catalogs::default());
        let facts = loaded.map(|loaded| format!("{:?}", loaded.model.facts()));
        prop_assert_eq!(facts, Ok(format!("{:?}", world.facts)), "{}", policy);
    }
}
