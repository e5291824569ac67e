//! Facts that are written as a document and read again do not change.

use std::sync::Arc;

use capstan_engine::{FactSink as _, Facts, LoadError, Loader, Model, Snapshot};
use capstan_policy::{Catalogs, Diagnostics, load_policy, stream_policy};
use capstan_testkit::worlds::worlds;
use capstan_testkit::written::{policy_document, policy_in_json};
use capstan_testkit::{fuzz, generate};
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

/// Compares a document that is read piece by piece with the same that is read whole. One with a warning, which has
/// a position, is not read piece by piece.
fn check_streamed(json: &str) {
    let whole = load_policy(json.as_bytes(), &Catalogs::default());
    assert!(whole.is_ok(), "{whole:?}");
    let Ok(whole) = whole else { return };
    let streamed = stream_policy(json.as_bytes(), &Catalogs::default(), |_| Facts::default());
    assert_eq!(streamed.is_ok(), whole.warnings.is_empty(), "{json}");
    if let Ok(streamed) = streamed {
        assert_eq!(format!("{:#?}", streamed.sink), format!("{:#?}", whole.model.facts()));
    }
    assert!(fuzz::policy(json.as_bytes()));
}

/// Hands facts to a loader, beginning with one of the five lists.
fn loaded(model: &Model, rotated: usize) -> Result<Snapshot, LoadError> {
    let mut loader = Loader::new(Arc::clone(model.catalog()));
    let facts = model.facts().clone();
    let each = (facts.groups, facts.roles, facts.identities, facts.role_bindings, facts.resources);
    let (mut groups, mut roles, mut identities, mut bindings, mut resources) = each;
    for list in 0..5 {
        match (list + rotated) % 5 {
            0 => groups.drain(..).try_for_each(|one| loader.group(one))?,
            1 => roles.drain(..).try_for_each(|one| loader.role(one))?,
            2 => identities.drain(..).try_for_each(|one| loader.identity(one))?,
            3 => bindings.drain(..).try_for_each(|one| loader.role_binding(one))?,
            _ => resources.drain(..).try_for_each(|one| loader.resource(one))?,
        }
    }
    loader.finish(1)
}

proptest! {
    /// In any order, facts that come one by one give the same snapshot as all at once.
    #[test]
    fn a_generated_world_in_json_is_streamed(world in generate::world(), rotated in 0usize..5) {
        let model = world.model().unwrap();
        check_streamed(&policy_in_json(&world.catalog, &world.facts, rotated));
        match loaded(&model, rotated) {
            Ok(loaded) => {
                let built = Snapshot::build(&model, 1).unwrap();
                fuzz::same_snapshots(&loaded, &built, &world.facts);
            }
            // Some worlds have bindings whose ids are numbers of others.
            Err(error) => prop_assert_eq!(error, LoadError::BindingIds),
        }
    }
}

#[test]
fn a_named_world_in_json_is_streamed() {
    for world in worlds() {
        check_streamed(&policy_in_json(&world.catalog, world.model.facts(), 0));
        let built = Snapshot::build(&world.model, 1).unwrap();
        for rotated in 0..5 {
            let loaded = loaded(&world.model, rotated).unwrap();
            fuzz::same_snapshots(&loaded, &built, world.model.facts());
        }
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
