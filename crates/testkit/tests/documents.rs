//! Facts that are written as a document and read again do not change.

use capstan_policy::{Catalogs, Diagnostics, load_policy};
use capstan_testkit::generate;
use capstan_testkit::worlds::worlds;
use capstan_testkit::written::policy_document;
use proptest::prelude::*;

/// The facts of a document and its catalog, as text.
fn read(document: &str) -> Result<(String, String), Diagnostics> {
    let model = load_policy(document.as_bytes(), &Catalogs::default())?.model;
    Ok((format!("{:#?}", model.facts()), format!("{:#?}", model.catalog().facts())))
}

proptest! {
    #[test]
    fn a_generated_world_is_equal_after_writing_and_reading(world in generate::world()) {
        let model = world.model().unwrap();
        let (facts, catalog) = read(&policy_document(&world.catalog, &world.facts)).unwrap();
        prop_assert_eq!(facts, format!("{:#?}", world.facts));
        prop_assert_eq!(catalog, format!("{:#?}", model.catalog().facts()));
    }
}

#[test]
fn a_named_world_is_equal_after_writing_and_reading() {
    for world in worlds() {
        let written = policy_document(&world.catalog, world.model.facts());
        let (facts, catalog) = read(&written).unwrap();
        assert_eq!(facts, format!("{:#?}", world.model.facts()), "{}", world.name);
        assert_eq!(catalog, format!("{:#?}", world.catalog), "{}", world.name);
    }
}
