//! Rules that hold for every policy. Most tests compare the answers of two variants of one world.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use capstan_engine::{
    Attributes, CONDITIONS_MAX, Decision, Reason, RoleBinding, Snapshot, Timestamp, self_check,
};
use capstan_testkit::generate::{self, Question, World, later};
use proptest::prelude::*;
use proptest::sample::Index;

use capstan_testkit::asking::{allowed, build, check, explain, places, what};

proptest! {
    /// An additional condition on a binding never allows a denied check.
    #[test]
    fn a_condition_never_adds_a_permission(
        (world, questions) in generate::asked(),
        (at, from) in any::<(Index, Index)>(),
    ) {
        let mut stricter = world.clone();
        let bindings = &mut stricter.facts.role_bindings;
        let tests: Vec<_> = bindings.iter().flat_map(|binding| binding.when.clone()).collect();
        if tests.is_empty() {
            return Ok(());
        }
        let at = at.index(bindings.len());
        let (test, when) = (&tests[from.index(tests.len())], &mut bindings[at].when);
        if when.contains(test) || when.len() == CONDITIONS_MAX {
            return Ok(());
        }
        when.push(test.clone());
        let Ok(model) = stricter.model() else {
            return Ok(()); // The changed binding is equal to another one.
        };
        let (strict, (_, loose)) = (Snapshot::build(&model, 1).unwrap(), build(&world)?);
        for question in &questions {
            let less = allowed(&strict, question, world.now);
            prop_assert!(!less || allowed(&loose, question, world.now), "{:?}", question);
            let listed = what(&loose, question, world.now).1.len();
            prop_assert!(what(&strict, question, world.now).1.len() <= listed, "{:?}", question);
        }
    }

    #[test]
    fn a_snapshot_passes_its_self_check((world, _) in generate::asked(), identities in 0usize..=5) {
        let (_, snapshot) = build(&world)?;
        let compared = self_check(&snapshot, identities, world.now);
        prop_assert!(compared.is_ok(), "{:?}", compared);
        prop_assert!(compared.is_ok_and(|questions| questions > 0));
    }

    /// A subset of the bindings against all of them: adding a binding never denies an allowed check.
    #[test]
    fn a_binding_never_removes_a_permission(
        (world, questions) in generate::asked(),
        removed in prop::collection::vec(any::<Index>(), 1..=3),
    ) {
        let mut smaller = world.clone();
        for at in removed {
            let bindings = &mut smaller.facts.role_bindings;
            if !bindings.is_empty() {
                bindings.remove(at.index(bindings.len()));
            }
        }
        let ((_, before), (_, after)) = (build(&smaller)?, build(&world)?);
        for question in &questions {
            let pair = (check(&before, question, world.now), check(&after, question, world.now));
            let (Ok(less), Ok(more)) = pair else {
                prop_assert_eq!(pair.0, pair.1);
                continue;
            };
            prop_assert!(more.allowed() || !less.allowed(), "{:?}", question);
            if let (true, Some(end)) = (less.allowed(), more.valid_until) {
                let held = less.valid_until.is_some_and(|before| before <= end);
                prop_assert!(held, "valid for a shorter time: {:?}", question);
            }
            let (few, many) =
                (what(&before, question, world.now), what(&after, question, world.now));
            let many: BTreeSet<_> = many.0.into_iter().collect();
            prop_assert!(few.0.iter().all(|name| many.contains(name)), "{:?}", question);
        }
    }

    #[test]
    fn permissions_at_a_parent_hold_at_its_children(
        (mut world, questions) in generate::asked(),
        segment in "[a-c.~+-]{0,2}[a-z]",
    ) {
        // Registered properties of only one of the two resources could change a condition.
        world.facts.resources.iter_mut().for_each(|resource| resource.properties.clear());
        let (_, snapshot) = build(&world)?;
        for question in &questions {
            let below = format!("{}/{segment}", question.resource);
            let Ok(resource) = below.parse() else {
                continue; // The parent has the maximum depth or length of a path.
            };
            let child = Question { resource, ..question.clone() };
            if allowed(&snapshot, question, world.now) {
                prop_assert!(allowed(&snapshot, &child, world.now), "{:?}", child);
            }
            let (parent, child) =
                (what(&snapshot, question, world.now), what(&snapshot, &child, world.now));
            let child: BTreeSet<_> = child.0.into_iter().collect();
            prop_assert!(parent.0.iter().all(|name| child.contains(name)), "{:?}", question);
        }
    }

    #[test]
    fn the_order_of_facts_is_irrelevant(
        (world, questions) in generate::asked(),
        seed in any::<u64>(),
    ) {
        let shuffled = shuffled(&world, seed);
        let ((_, declared), (_, shuffled)) = (build(&world)?, build(&shuffled)?);
        for question in &questions {
            let answer = check(&declared, question, world.now);
            prop_assert_eq!(answer, check(&shuffled, question, world.now), "{:?}", question);
            // The order of grants at one scope can change, and the choice of witnesses with equal expiry.
            let pair = [&declared, &shuffled].map(|snapshot| {
                let (names, mut grants) = what(snapshot, question, world.now);
                grants.sort_by(|a, b| a.binding.cmp(&b.binding));
                (names, grants)
            });
            prop_assert_eq!(&pair[0], &pair[1], "{:?}", question);
            let found = places(&declared, question, world.now);
            prop_assert_eq!(found, places(&shuffled, question, world.now), "{:?}", question);
            let pair = [&declared, &shuffled].map(|snapshot| {
                let explained = explain(snapshot, question, world.now);
                explained.map(|found| {
                    let witness = found.witness.map(|grant| (grant.scope, grant.expires_at));
                    (found.decision, witness, found.roles)
                })
            });
            prop_assert_eq!(&pair[0], &pair[1], "{:?}", question);
        }
    }

    #[test]
    fn a_lone_binding_expires_on_the_nanosecond(
        (mut world, _) in generate::asked(),
        end in (-2i64..=2_000_000_000, prop::sample::select(vec![0, 1, 999_999_999])),
    ) {
        let end = Timestamp::new(end.0, end.1);
        let Some((binding, capability)) = lone(&mut world, end) else {
            return Ok(()); // The world has no role with a capability.
        };
        let (_, snapshot) = build(&world)?;
        let (identity, resource) = (binding.identity, binding.scope);
        let attributes = Attributes::default();
        let question = Question { identity, capability, resource, attributes };
        let granted = Decision { reason: Reason::Granted, valid_until: Some(end) };
        let expired = Decision { reason: Reason::Expired, valid_until: None };
        let at = |nanos| check(&snapshot, &question, later(end, nanos));
        prop_assert_eq!((at(-1), at(0), at(1)), (Ok(granted), Ok(expired), Ok(expired)));
        prop_assert_eq!(what(&snapshot, &question, later(end, -1)).1.len(), 1);
        prop_assert_eq!(what(&snapshot, &question, end).1.len(), 0);
    }
}

/// The same facts with every list in another order, including the lists of the catalog.
fn shuffled(world: &World, seed: u64) -> World {
    fn shuffle<T: std::fmt::Debug>(list: &mut [T], seed: u64) {
        list.sort_by_cached_key(|item| {
            let mut hasher = DefaultHasher::new();
            (seed, format!("{item:?}")).hash(&mut hasher);
            hasher.finish()
        });
    }
    let mut world = world.clone();
    let (facts, catalog) = (&mut world.facts, &mut world.catalog);
    facts.roles.iter_mut().for_each(|role| shuffle(&mut role.capabilities, seed));
    for binding in &mut facts.role_bindings {
        shuffle(&mut binding.when, seed);
    }
    shuffle(&mut facts.groups, seed);
    shuffle(&mut facts.roles, seed);
    shuffle(&mut facts.identities, seed);
    shuffle(&mut facts.role_bindings, seed);
    shuffle(&mut facts.resources, seed);
    catalog.resources.iter_mut().for_each(|resource| shuffle(&mut resource.actions, seed));
    catalog.roles.iter_mut().for_each(|role| shuffle(&mut role.capabilities, seed));
    shuffle(&mut catalog.resources, seed);
    shuffle(&mut catalog.capabilities, seed);
    shuffle(&mut catalog.roles, seed);
    world
}

/// Replaces all bindings by one binding, with this expiry, to a role with a capability.
fn lone(world: &mut World, end: Timestamp) -> Option<(RoleBinding, String)> {
    let role = world.catalog.roles.iter().find(|role| !role.capabilities.is_empty())?;
    let identity = world.facts.identities.first_mut()?;
    identity.disabled = false;
    let binding = RoleBinding {
        id: None,
        identity: identity.id.clone(),
        role: role.name.as_str().into(),
        scope: world.facts.groups.first()?.id.clone(),
        expires_at: Some(end),
        when: vec![],
    };
    world.facts.role_bindings = vec![binding.clone()];
    Some((binding, role.capabilities.first()?.clone()))
}
