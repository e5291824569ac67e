//! The engine against the naive model, and against rules that hold whatever the policy says, over
//! generated worlds. `PROPTEST_CASES` sets how many; a failure prints its seed and shrinks.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use capstan_engine::{
    Attributes, Decision, Grant, Model, Path, PathBuf, Question, Reason, RoleBinding, Snapshot,
    Timestamp, UnknownCapability, self_check,
};
use capstan_testkit::generate::{self, World, asked, later, near_path};
use capstan_testkit::naive::{Naive, is_at_or_above, is_path};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

// === asking ===

fn build(world: &World) -> Result<(Model, Snapshot), TestCaseError> {
    let model = world.model().map_err(|violations| {
        let all: Vec<_> = violations.iter().map(ToString::to_string).collect();
        TestCaseError::fail(format!("the generator broke rules: {all:?}"))
    })?;
    let snapshot = Snapshot::build(&model, 1);
    Ok((model, snapshot))
}

fn check(
    snapshot: &Snapshot,
    asked: &generate::Question,
    now: Timestamp,
) -> Result<Decision, UnknownCapability> {
    let (identity, resource) = (asked.identity.as_path(), asked.resource.as_path());
    let (capability, attributes) = (&asked.capability, Attributes::NONE);
    snapshot.check(&Question { identity, capability, resource, attributes }, now)
}

fn allowed(snapshot: &Snapshot, asked: &generate::Question, now: Timestamp) -> bool {
    check(snapshot, asked, now).is_ok_and(Decision::allowed)
}

/// Names in the engine's order, and the grants with their bindings.
fn list<'s>(
    snapshot: &'s Snapshot,
    asked: &generate::Question,
    now: Timestamp,
) -> (Vec<String>, Vec<Grant<'s>>) {
    let (identity, resource) = (asked.identity.as_path(), asked.resource.as_path());
    let listed = snapshot.list_capabilities(identity, resource, Attributes::NONE, now);
    let names = listed.capabilities.iter().filter_map(|at| snapshot.catalog().capability_name(at));
    (names.map(str::to_owned).collect(), listed.grants)
}

fn same_as_naive(
    world: &World,
    snapshot: &Snapshot,
    asked: &generate::Question,
    now: Timestamp,
) -> Result<(), TestCaseError> {
    let naive = Naive::new(&world.catalog, &world.facts);
    let (identity, resource) = (asked.identity.as_str(), asked.resource.as_str());

    let answer = check(snapshot, asked, now).ok().map(|found| (found.reason, found.valid_until));
    let expected = naive.check(identity, &asked.capability, resource, now);
    prop_assert_eq!(answer, expected, "check {:?} at {:?}", asked, now);

    let (names, grants) = list(snapshot, asked, now);
    let (expected_names, mut expected_grants) = naive.list_capabilities(identity, resource, now);
    prop_assert_eq!(names, expected_names, "names for {:?} at {:?}", asked, now);
    let mut grants: Vec<_> =
        grants.iter().map(|g| (g.role.to_owned(), g.scope.to_owned(), g.expires_at)).collect();
    grants.sort();
    expected_grants.sort();
    prop_assert_eq!(grants, expected_grants, "grants for {:?} at {:?}", asked, now);
    Ok(())
}

// === properties ===

proptest! {
    #[test]
    fn the_engine_answers_as_the_naive_model((world, questions) in asked()) {
        let (_, snapshot) = build(&world)?;
        prop_assert!(questions.len() >= 8);
        for question in &questions {
            same_as_naive(&world, &snapshot, question, world.now)?;
        }
    }

    #[test]
    fn a_list_is_a_check_of_every_capability((world, questions) in asked()) {
        let (_, snapshot) = build(&world)?;
        for mut question in questions {
            let (names, grants) = list(&snapshot, &question, world.now);
            prop_assert_eq!(names.is_empty(), grants.is_empty());
            let mut filtered = Vec::new();
            for name in snapshot.catalog().capabilities() {
                name.clone_into(&mut question.capability);
                if allowed(&snapshot, &question, world.now) {
                    filtered.push(name.to_owned());
                }
            }
            prop_assert_eq!(names, filtered, "{:?}", question);
        }
    }

    #[test]
    fn a_snapshot_passes_its_own_check((world, _) in asked(), identities in 0usize..=5) {
        let (model, snapshot) = build(&world)?;
        let asked = self_check(&model, &snapshot, identities, world.now);
        prop_assert!(asked.is_ok(), "{:?}", asked);
        prop_assert!(asked.is_ok_and(|questions| questions > 0));
    }

    /// Fewer bindings against more: so adding one never denies, and removing one never allows.
    #[test]
    fn bindings_only_ever_add(
        (world, questions) in asked(),
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
                (list(&before, question, world.now), list(&after, question, world.now));
            let many: BTreeSet<_> = many.0.into_iter().collect();
            prop_assert!(few.0.iter().all(|name| many.contains(name)), "{:?}", question);
        }
    }

    #[test]
    fn a_child_never_has_less_than_its_parent(
        (world, questions) in asked(),
        segment in "[a-c.~+-]{0,2}[a-z]",
    ) {
        let (_, snapshot) = build(&world)?;
        for question in &questions {
            let below = format!("{}/{segment}", question.resource);
            let Ok(resource) = below.parse() else {
                continue; // The parent is as deep or long as paths can be.
            };
            let child = generate::Question { resource, ..question.clone() };
            if allowed(&snapshot, question, world.now) {
                prop_assert!(allowed(&snapshot, &child, world.now), "{:?}", child);
            }
            let (parent, child) =
                (list(&snapshot, question, world.now), list(&snapshot, &child, world.now));
            let child: BTreeSet<_> = child.0.into_iter().collect();
            prop_assert!(parent.0.iter().all(|name| child.contains(name)), "{:?}", question);
        }
    }

    #[test]
    fn the_order_of_facts_is_irrelevant((world, questions) in asked(), seed in any::<u64>()) {
        let shuffled = shuffled(&world, seed);
        let ((_, declared), (_, shuffled)) = (build(&world)?, build(&shuffled)?);
        for question in &questions {
            let answer = check(&declared, question, world.now);
            prop_assert_eq!(answer, check(&shuffled, question, world.now), "{:?}", question);
            let listed = list(&declared, question, world.now);
            prop_assert_eq!(listed, list(&shuffled, question, world.now), "{:?}", question);
        }
    }

    /// Every instant at which an answer may change, and the nanoseconds around it.
    #[test]
    fn time_runs_out_when_the_naive_model_says((world, questions) in asked()) {
        let (_, snapshot) = build(&world)?;
        let ends: BTreeSet<_> =
            world.facts.role_bindings.iter().filter_map(|binding| binding.expires_at).collect();
        for end in ends {
            for now in [-1, 0, 1].map(|nanos| later(end, nanos)) {
                for question in &questions {
                    same_as_naive(&world, &snapshot, question, now)?;
                }
            }
        }
    }

    #[test]
    fn a_lone_binding_expires_on_the_nanosecond(
        (mut world, _) in asked(),
        end in (-2i64..=2_000_000_000, prop::sample::select(vec![0, 1, 999_999_999])),
    ) {
        let end = Timestamp::new(end.0, end.1);
        let Some((binding, capability)) = lone(&mut world, end) else {
            return Ok(()); // No role of this world has a capability.
        };
        let (_, snapshot) = build(&world)?;
        let (identity, resource) = (binding.identity, binding.scope);
        let question = generate::Question { identity, capability, resource };
        let granted = Decision { reason: Reason::Granted, valid_until: Some(end) };
        let expired = Decision { reason: Reason::Expired, valid_until: None };
        let at = |nanos| check(&snapshot, &question, later(end, nanos));
        prop_assert_eq!((at(-1), at(0), at(1)), (Ok(granted), Ok(expired), Ok(expired)));
        prop_assert_eq!(list(&snapshot, &question, later(end, -1)).1.len(), 1);
        prop_assert_eq!(list(&snapshot, &question, end).1.len(), 0);
    }

    #[test]
    fn paths_are_paths_to_both(near in near_path(), arbitrary in any::<String>()) {
        for text in [near, arbitrary] {
            prop_assert_eq!(Path::parse(&text).is_ok(), is_path(&text), "{:?}", text);
            prop_assert_eq!(text.parse::<PathBuf>().is_ok(), is_path(&text), "{:?}", text);
        }
    }

    #[test]
    fn ancestry_is_a_prefix_of_segments(
        paths in prop::collection::vec(near_path(), 2..=4),
        suffix in "(/?[a-c.]){0,3}",
    ) {
        let longer = paths.iter().map(|path| format!("{path}{suffix}"));
        let all = paths.iter().cloned().chain(longer);
        let all: Vec<_> = all.filter(|path| is_path(path)).collect();
        for (above, below) in all.iter().flat_map(|a| all.iter().map(move |b| (a, b))) {
            let (Ok(a), Ok(b)) = (Path::parse(above), Path::parse(below)) else {
                return Err(TestCaseError::fail(format!("{above:?} or {below:?}")));
            };
            prop_assert_eq!(a.contains(b), is_at_or_above(above, below), "{:?} {:?}", a, b);
            let ancestors: Vec<_> = b.ancestors().map(|path| path.as_str()).collect();
            prop_assert_eq!(ancestors.contains(&a.as_str()), a.contains(b), "{:?} {:?}", a, b);
            prop_assert_eq!(ancestors.len(), below.split('/').count());
        }
    }
}

/// The same facts in another order: each list, and the lists within the catalog.
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

/// Leaves one binding, to a role that has a capability, that ends at this time.
fn lone(world: &mut World, end: Timestamp) -> Option<(RoleBinding, String)> {
    let role = world.catalog.roles.iter().find(|role| !role.capabilities.is_empty())?;
    let binding = RoleBinding {
        id: None,
        identity: world.facts.identities.first()?.id.clone(),
        role: role.name.as_str().into(),
        scope: world.facts.groups.first()?.id.clone(),
        expires_at: Some(end),
        when: vec![],
    };
    world.facts.role_bindings = vec![binding.clone()];
    Some((binding, role.capabilities.first()?.clone()))
}

// === what the generator reaches ===

/// A generator that stops drawing a corner would let every property above pass for nothing.
#[test]
fn the_generator_reaches_every_corner() {
    let mut runner = TestRunner::deterministic();
    let mut reasons: Vec<(Reason, usize)> = Reason::ALL.map(|reason| (reason, 0)).to_vec();
    let mut corners = BTreeSet::new();
    for _ in 0..400 {
        let (world, questions) = asked().new_tree(&mut runner).unwrap().current();
        let naive = Naive::new(&world.catalog, &world.facts);
        corners.extend(shapes(&world));
        for question in &questions {
            let (identity, resource) = (question.identity.as_str(), question.resource.as_str());
            let Some((reason, valid_until)) =
                naive.check(identity, &question.capability, resource, world.now)
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
        }
    }

    // Conditions are not there yet; when they are, this list must say so.
    let unreached: Vec<_> = reasons.iter().filter(|(_, count)| *count < 50).collect();
    assert_eq!(unreached, [&(Reason::ConditionNotMet, 0)], "{reasons:?}");
    let expected = BTreeSet::from([
        "16 segments",
        "a binding that ends now",
        "a binding that ends now + 1 ns",
        "a binding that ends now - 1 ns",
        "a built-in and a custom role bound",
        "a custom role without capabilities bound",
        "a dotted resource inside another's name",
        "a prefix that is no ancestor",
        "a role without capabilities bound",
        "a root resource bound",
        "an identity below a group",
        "an opaque capability",
        "an unknown capability",
        "ends",
        "more than 128 capabilities",
        "more than 150 bindings of one identity",
        "more than 64 capabilities",
        "never ends",
        "no binding",
    ]);
    assert_eq!(corners, expected);
}

/// Both sides of every limit of section 2.
#[test]
fn the_generator_reaches_every_limit_of_paths() {
    let mut runner = TestRunner::deterministic();
    let mut corners = BTreeSet::new();
    let mut paths = 0;
    for _ in 0..4000 {
        let text = near_path().new_tree(&mut runner).unwrap().current();
        let good = is_path(&text);
        paths += usize::from(good);
        let segments = text.split('/');
        let longest = segments.clone().map(str::len).max();
        for (at_limit, corner) in [
            (segments.clone().count() == 16, "16 segments"),
            (segments.clone().count() == 17, "17 segments"),
            (longest == Some(128), "a segment of 128 bytes"),
            (longest == Some(129), "a segment of 129 bytes"),
            (text.len() == 1024, "1024 bytes"),
            (text.len() == 1025, "1025 bytes"),
            (text.contains("//"), "a double slash"),
            (text.ends_with('/'), "a slash at the end"),
            (text.starts_with('/'), "a slash at the start"),
            (text.split('/').any(|segment| segment == ".."), "a segment `..`"),
            (text.split('/').any(|segment| segment == "..."), "a segment `...`"),
            (!text.is_ascii(), "more than ASCII"),
            (text.is_empty(), "nothing"),
        ] {
            if at_limit {
                corners.insert((corner, good));
            }
        }
    }
    assert!((1500..3500).contains(&paths), "{paths} of 4000 are paths");
    let good = ["16 segments", "a segment of 128 bytes", "1024 bytes", "a segment `...`"];
    let bad = [
        "17 segments",
        "a segment of 129 bytes",
        "1025 bytes",
        "a double slash",
        "a slash at the end",
        "a slash at the start",
        "a segment `..`",
        "more than ASCII",
        "nothing",
    ];
    for (corner, is_good) in good.map(|c| (c, true)).into_iter().chain(bad.map(|c| (c, false))) {
        assert!(corners.contains(&(corner, is_good)), "{corner} as a path: {is_good}");
        assert!(is_good || !corners.contains(&(corner, true)), "{corner} as a path");
    }
}

fn shapes(world: &World) -> Vec<&'static str> {
    let (facts, catalog) = (&world.facts, &world.catalog);
    let width = Naive::new(catalog, facts).capabilities().len();
    let bindings = &facts.role_bindings;
    let ends = |nanos| bindings.iter().any(|b| b.expires_at == Some(later(world.now, nanos)));
    let binds = |role: &str| bindings.iter().any(|binding| &*binding.role == role);
    let inside = |name: &str| catalog.resources.iter().any(|r| r.name.starts_with(name));
    let most = facts
        .identities
        .iter()
        .map(|identity| bindings.iter().filter(|binding| binding.identity == identity.id).count());
    let root = |id: &PathBuf| !id.as_str().contains('/');
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
    ]
    .into_iter()
    .filter_map(|(holds, corner)| holds.then_some(corner))
    .collect()
}
