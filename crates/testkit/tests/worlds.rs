//! The tests of each named world in the naive model and the engine. `crates/cli/tests` runs them over gRPC.

use std::collections::BTreeSet;

use capstan_engine::{Attributes, Question, Reason, Snapshot};
use capstan_policy::Expectation;
use capstan_testkit::{Naive, World, worlds};

/// The expected answer of one test, and the answers of the naive model and the engine, as text.
struct Answers {
    expected: String,
    naive: String,
    engine: String,
}

fn answer(world: &World, snapshot: &Snapshot, expectation: &Expectation) -> Answers {
    let naive = Naive::new(&world.catalog, world.model.facts(), Attributes::NONE, world.now);
    match expectation {
        Expectation::Check { identity, capability, resource, allowed, reason } => {
            let question = Question {
                identity: identity.as_path(),
                capability,
                resource: resource.as_path(),
                attributes: Attributes::NONE,
            };
            let engine = snapshot.check(&question, world.now).map(|decision| decision.reason);
            let (identity, resource) = (identity.as_str(), resource.as_str());
            let naive = naive.check(identity, capability, resource);
            // A test without a reason compares only allowed or denied.
            let say = |found: Option<Reason>| match (found, reason) {
                (Some(found), Some(_)) => format!("{} {found:?}", found == Reason::Granted),
                (Some(found), None) => format!("{}", found == Reason::Granted),
                (None, _) => format!("`{capability}` is unknown"),
            };
            let expected = match reason {
                Some(reason) => format!("{allowed} {reason:?}"),
                None => format!("{allowed}"),
            };
            let naive = say(naive.map(|(reason, _)| reason));
            Answers { expected, naive, engine: say(engine.ok()) }
        }
        Expectation::Capabilities { identity, resource, capabilities } => {
            let (id, at) = (identity.as_path(), resource.as_path());
            let listed =
                snapshot.list_capabilities(id, at, Attributes::NONE, world.now).capabilities;
            let names = listed.iter().filter_map(|at| snapshot.catalog().capability_name(at));
            let (identity, resource) = (identity.as_str(), resource.as_str());
            let naive = naive.list_capabilities(identity, resource).0;
            let expected: BTreeSet<_> = capabilities.iter().map(String::as_str).collect();
            Answers { expected: join(expected), naive: naive.join(", "), engine: join(names) }
        }
        Expectation::Identities { capability, resource, identities } => {
            let at = resource.as_path();
            let engine = snapshot.list_identities(capability, at, Attributes::NONE, world.now);
            let naive = naive.list_identities(capability, at.as_str());
            let say = |found: Option<Vec<&str>>| match found {
                Some(found) => join(found),
                None => format!("`{capability}` is unknown"),
            };
            let expected: BTreeSet<_> = identities.iter().map(|id| id.as_str()).collect();
            Answers { expected: join(expected), naive: say(naive), engine: say(engine.ok()) }
        }
    }
}

fn join<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}

#[test]
fn every_test_passes_in_the_naive_model_and_the_engine() {
    let mut wrong = Vec::new();
    for world in worlds() {
        let snapshot = Snapshot::build(&world.model, 1).unwrap();
        for test in &world.tests.tests {
            let Answers { expected, naive, engine } = answer(&world, &snapshot, &test.expectation);
            if naive != expected || engine != expected {
                let place = format!("{}.tests.yaml:{}", world.name, test.line);
                wrong.push(format!("{place}: {expected}; naive: {naive}; engine: {engine}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_world_has_tests_of_every_kind() {
    // Those of others have the tests that are published with them.
    for world in worlds().into_iter().filter(|world| !world.name.starts_with("published-")) {
        let shapes: BTreeSet<_> = world
            .tests
            .tests
            .iter()
            .map(|test| match test.expectation {
                Expectation::Check { allowed: true, .. } => "check, allow",
                Expectation::Check { allowed: false, .. } => "check, deny",
                Expectation::Capabilities { .. } => "capabilities",
                Expectation::Identities { .. } => "identities",
            })
            .collect();
        assert_eq!(shapes.len(), 4, "world `{}` has only {shapes:?}", world.name);
    }
}

#[test]
fn every_reason_appears_in_a_world() {
    let worlds = worlds();
    let tests = worlds.iter().flat_map(|world| &world.tests.tests);
    let said: Vec<_> = tests
        .filter_map(|test| match test.expectation {
            Expectation::Check { reason, .. } => reason,
            _ => None,
        })
        .collect();
    let missing: Vec<_> = Reason::ALL.into_iter().filter(|reason| !said.contains(reason)).collect();
    assert_eq!(missing, []);
}

#[test]
fn every_file_belongs_to_a_world() {
    let mut expected = BTreeSet::new();
    for world in worlds() {
        expected.insert(format!("{}.tests.yaml", world.name));
        expected.insert(world.tests.policy.unwrap());
    }
    let found: BTreeSet<_> = std::fs::read_dir(capstan_testkit::worlds::DIRECTORY)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, expected);
}
