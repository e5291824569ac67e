//! Coverage of the generator: if it stopped drawing a corner case, the properties would not test this case.

use std::collections::BTreeSet;

use capstan_engine::{
    AttributeCategory, Attributes, CONDITIONS_MAX, Condition, PathBuf, Reason, RoleBinding,
};
use capstan_testkit::generate::{self, Question, World, later};
use capstan_testkit::naive::{Naive, is_at_or_above};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

#[test]
fn the_generator_reaches_every_corner_case() {
    let mut runner = TestRunner::deterministic();
    let drawn = (0..400).map(|_| generate::asked().new_tree(&mut runner).unwrap().current());
    reaches_every_corner(drawn);
}

#[test]
fn random_bytes_reach_every_corner_case() {
    let mut runner = TestRunner::deterministic();
    let bytes = proptest::collection::vec(proptest::prelude::any::<u8>(), 600);
    reaches_every_corner((0..1500).map(|_| {
        let bytes = bytes.new_tree(&mut runner).unwrap().current();
        generate::asked_from(&bytes).unwrap()
    }));
}

fn reaches_every_corner(drawn: impl Iterator<Item = (World, Vec<Question>)>) {
    let mut reasons: Vec<(Reason, usize)> = Reason::ALL.map(|reason| (reason, 0)).to_vec();
    let mut corners = BTreeSet::new();
    for (world, questions) in drawn {
        corners.extend(shapes(&world));
        for question in &questions {
            let (identity, resource) = (question.identity.as_str(), question.resource.as_str());
            let attributes = &question.attributes;
            let naive = Naive::new(&world.catalog, &world.facts, attributes, world.now);
            let Some((reason, valid_until)) = naive.check(identity, &question.capability, resource)
            else {
                corners.insert("an unknown capability");
                continue;
            };
            reasons.iter_mut().filter(|(at, _)| *at == reason).for_each(|(_, count)| *count += 1);
            if reason == Reason::Granted {
                corners.insert(if valid_until.is_some() { "ends" } else { "never ends" });
            }
            let scopes = world.facts.role_bindings.iter().filter(|binding| {
                binding.identity == question.identity
                    && question.resource.as_str().starts_with(binding.scope.as_str())
                    && !is_at_or_above(binding.scope.as_str(), resource)
            });
            corners.extend(scopes.map(|_| "a prefix that is no ancestor"));
            corners.extend(conditions(&world, &naive, question));
        }
    }

    assert!(reasons.iter().all(|(_, count)| *count >= 50), "{reasons:?}");
    let expected = BTreeSet::from([
        "16 segments",
        "16 tests in one binding",
        "a binding that ends now",
        "a binding that ends now + 1 ns",
        "a binding that ends now - 1 ns",
        "a binding that tests is met",
        "a built-in and a custom role bound",
        "a conditional identity",
        "a conditional scope",
        "a conditional scope of a request",
        "a custom role without capabilities bound",
        "a dotted resource inside another's name",
        "a prefix that is no ancestor",
        "a registered property of the identity supplied otherwise",
        "a registered property of the resource supplied otherwise",
        "a role without capabilities bound",
        "a root resource bound",
        "a test that something differs is met",
        "an identity below a group",
        "an identity asked about as the resource",
        "an opaque capability",
        "an unconditional scope below a conditional one",
        "an unknown capability",
        "bindings that only conditions tell apart",
        "bindings whose tests contradict each other",
        "built-in and custom roles explained",
        "ends",
        "more than 128 capabilities",
        "more than 150 bindings of one identity",
        "more than 64 capabilities",
        "never ends",
        "no binding",
    ]);
    assert_eq!(corners, expected);
}

/// Corner cases of conditions, and of answers that depend on conditions.
fn conditions(world: &World, naive: &Naive<'_>, question: &Question) -> Vec<&'static str> {
    let (identity, capability) = (question.identity.as_str(), &*question.capability);
    let (resource, supplied) = (question.resource.as_str(), &question.attributes);
    let facts = &world.facts;
    let scopes = naive.list_scopes(identity, capability).unwrap_or_default();
    let below = |(scope, conditional): &(&str, bool)| {
        let over = |(above, _): &(&str, bool)| above != scope && is_at_or_above(above, scope);
        !conditional && scopes.iter().any(over)
    };
    let explained = naive.explain(identity, capability, resource);
    let conditional = naive.conditional(identity, capability, resource).unwrap_or_default();
    let places = naive.conditional_scopes(identity, capability).unwrap_or_default();
    let is_listed = |scope: &str| scopes.iter().any(|(listed, _)| *listed == scope);
    let (_, counting) = naive.list_capabilities(identity, resource);
    let differs = |category: AttributeCategory| {
        let (registered, supplied) = match category {
            AttributeCategory::Subject => {
                let mut found = facts.identities.iter().filter(|i| i.id == question.identity);
                (found.next().map(|found| &found.properties), &supplied.subject)
            }
            _ => {
                let mut found = facts.resources.iter().filter(|r| r.id == question.resource);
                (found.next().map(|found| &found.properties), &supplied.resource)
            }
        };
        let mut both = registered.into_iter().flatten();
        both.any(|(name, value)| supplied.get(name).is_some_and(|other| other != value))
    };
    let mut at_identity = facts.identities.iter().filter(|i| i.id == question.resource);
    [
        (counting.iter().any(|binding| !binding.when.is_empty()), "a binding that tests is met"),
        (
            counting.iter().any(|binding| binding.when.iter().any(|test| !test.equals)),
            "a test that something differs is met",
        ),
        (scopes.iter().any(|(_, conditional)| *conditional), "a conditional scope"),
        (!conditional.is_empty(), "a conditional identity"),
        (places.iter().any(|(scope, _)| !is_listed(scope)), "a conditional scope of a request"),
        (scopes.iter().any(below), "an unconditional scope below a conditional one"),
        (
            differs(AttributeCategory::Subject),
            "a registered property of the identity supplied otherwise",
        ),
        (
            differs(AttributeCategory::Resource),
            "a registered property of the resource supplied otherwise",
        ),
        (at_identity.next().is_some(), "an identity asked about as the resource"),
        (
            explained.is_some_and(|explained| {
                let custom = explained.roles.iter().filter(|role| role.contains('/')).count();
                custom > 0 && custom < explained.roles.len()
            }),
            "built-in and custom roles explained",
        ),
    ]
    .into_iter()
    .filter_map(|(holds, corner)| holds.then_some(corner))
    .collect()
}

fn shapes(world: &World) -> Vec<&'static str> {
    let (facts, catalog) = (&world.facts, &world.catalog);
    let width = Naive::new(catalog, facts, Attributes::NONE, world.now).capabilities().len();
    let bindings = &facts.role_bindings;
    let ends = |nanos| bindings.iter().any(|b| b.expires_at == Some(later(world.now, nanos)));
    let binds = |role: &str| bindings.iter().any(|binding| &*binding.role == role);
    let inside = |name: &str| catalog.resources.iter().any(|r| r.name.starts_with(name));
    let most = facts
        .identities
        .iter()
        .map(|identity| bindings.iter().filter(|binding| binding.identity == identity.id).count());
    let apart: BTreeSet<_> = bindings.iter().map(|b| (&b.identity, &b.role, &b.scope)).collect();
    let root = |id: &PathBuf| !id.as_str().contains('/');
    let contradicts = |binding: &RoleBinding| {
        let wanted = |a: &Condition, b: &Condition| {
            (a.category, &a.name) == (b.category, &b.name) && a.equals && b.equals
        };
        let when = &binding.when;
        when.iter().any(|a| when.iter().any(|b| wanted(a, b) && a.value != b.value))
    };
    [
        (width > 64, "more than 64 capabilities"),
        (width > 128, "more than 128 capabilities"),
        (!catalog.capabilities.is_empty(), "an opaque capability"),
        (
            catalog.resources.iter().any(|resource| inside(&format!("{}.", resource.name))),
            "a dotted resource inside another's name",
        ),
        (bindings.is_empty(), "no binding"),
        (most.max() > Some(150), "more than 150 bindings of one identity"),
        (ends(-1), "a binding that ends now - 1 ns"),
        (ends(0), "a binding that ends now"),
        (ends(1), "a binding that ends now + 1 ns"),
        (
            facts.roles.iter().any(|role| binds(role.id.as_str()))
                && catalog.roles.iter().any(|role| binds(&role.name)),
            "a built-in and a custom role bound",
        ),
        (
            catalog.roles.iter().any(|role| role.capabilities.is_empty() && binds(&role.name)),
            "a role without capabilities bound",
        ),
        (
            facts.roles.iter().any(|r| r.capabilities.is_empty() && binds(r.id.as_str())),
            "a custom role without capabilities bound",
        ),
        (
            facts.groups.iter().any(|group| group.id.as_str().split('/').count() == 16),
            "16 segments",
        ),
        (
            facts.resources.iter().any(|resource| {
                root(&resource.id) && bindings.iter().any(|b| b.scope == resource.id)
            }),
            "a root resource bound",
        ),
        (facts.identities.iter().any(|identity| !root(&identity.id)), "an identity below a group"),
        (bindings.iter().any(|b| b.when.len() == CONDITIONS_MAX), "16 tests in one binding"),
        (apart.len() < bindings.len(), "bindings that only conditions tell apart"),
        (bindings.iter().any(contradicts), "bindings whose tests contradict each other"),
    ]
    .into_iter()
    .filter_map(|(holds, corner)| holds.then_some(corner))
    .collect()
}
