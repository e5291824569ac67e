//! Each answer of the engine is equal to the answer of the naive model.

use std::collections::BTreeSet;

use capstan_testkit::generate::{self, later};
use proptest::prelude::*;

use capstan_policy::{Catalogs, load_policy};
use capstan_testkit::asking::{Pair, Tally, build};
use capstan_testkit::fuzz;
use capstan_testkit::written;

#[test]
#[expect(clippy::print_stdout, reason = "a long run prints counts")]
fn the_engine_answers_as_the_naive_model() {
    let tally = Tally::default();
    proptest!(|((world, questions) in generate::asked())| {
        let (_, snapshot) = build(&world)?;
        prop_assert!(questions.len() >= 8);
        Pair::new(&world, &snapshot, world.now, &tally).agrees_on(&questions)?;
    });
    println!("compared {tally}");
}

/// Every instant at which an answer can change, the nanosecond before, and the nanosecond after.
#[test]
#[expect(clippy::print_stdout, reason = "a long run prints counts")]
fn the_engine_expires_bindings_as_the_naive_model() {
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
    println!("compared {tally}; a world counts once for each time");
}

proptest! {
    #[test]
    fn any_bytes_generate_a_world_with_equal_answers(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        fuzz::world(&bytes);
    }
}

proptest! {
    // Reading a document is slower than the other tests.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.div_ceil(4)))]

    /// A world that is written as a document and loaded has the same facts.
    #[test]
    fn generated_worlds_load_as_policies(world in generate::world()) {
        let catalog = written::catalog(&world.catalog);
        let policy = written::policy(&catalog, &world.facts);
        prop_assert!(fuzz::catalog(catalog.as_bytes()), "{}", catalog);
        prop_assert!(fuzz::policy(policy.as_bytes()), "{}", policy);
        let loaded = load_policy(policy.as_bytes(), &Catalogs::default());
        let facts = loaded.map(|loaded| format!("{:?}", loaded.model.facts()));
        prop_assert_eq!(facts, Ok(format!("{:?}", world.facts)), "{}", policy);
    }
}
