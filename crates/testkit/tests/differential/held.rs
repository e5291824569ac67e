//! What the privilege rules ask, against the naive model, and what is there by id, against the facts.

#![expect(clippy::unwrap_used, reason = "paths of the test itself")]
#![expect(clippy::indexing_slicing, reason = "positions are taken modulo the length")]

use std::collections::{BTreeMap, BTreeSet};

use capstan_engine::{
    AttributeCategory, Attributes, CapabilitySet, PathBuf, RoleBinding, Snapshot, Timestamp, Writer,
};
use capstan_testkit::Naive;
use capstan_testkit::asking::build;
use capstan_testkit::generate::{self, World};
use proptest::prelude::*;
use proptest::sample::Index;

/// Scopes, what lies below them, and paths that name nothing.
fn places(world: &World) -> BTreeSet<PathBuf> {
    let groups = world.facts.groups.iter().map(|one| &one.id);
    let scopes = groups.chain(world.facts.resources.iter().map(|one| &one.id));
    let below = scopes.flat_map(|one| [one.to_string(), format!("{one}/x"), format!("{one}x")]);
    below.filter_map(|path| path.parse().ok()).chain(["nowhere".parse().unwrap()]).collect()
}

/// Every identity, and one that there is not.
fn identities(world: &World) -> BTreeSet<PathBuf> {
    let nobody: PathBuf = "nobody/at-all".parse().unwrap();
    world.identities().into_iter().cloned().chain([nobody]).collect()
}

fn names<'s>(snapshot: &'s Snapshot, set: &CapabilitySet) -> Vec<&'s str> {
    set.iter().filter_map(|at| snapshot.catalog().capability_name(at)).collect()
}

/// The capabilities of some roles of a snapshot.
fn wanted(snapshot: &Snapshot, roles: &[Index]) -> CapabilitySet {
    let mut wanted = snapshot.catalog().capability_set(&[]);
    let all = snapshot.roles();
    roles.iter().filter(|_| !all.is_empty()).for_each(|at| {
        wanted.add(&all[at.index(all.len())].capabilities);
    });
    wanted
}

proptest! {
    #[test]
    fn what_is_held_is_that_of_the_naive_model((world, questions) in generate::asked()) {
        let (_, snapshot) = build(&world)?;
        let naive = Naive::new(&world.catalog, &world.facts, Attributes::NONE, world.now);
        let asked: BTreeSet<_> = questions.into_iter().map(|question| question.resource).collect();
        for scope in places(&world).into_iter().chain(asked) {
            for identity in identities(&world) {
                let (id, at) = (identity.as_path(), scope.as_path());
                let held = snapshot.held(id, at, world.now);
                let expected = naive.held(id.as_str(), at.as_str());
                let ends: BTreeMap<_, _> = held.ends.iter().copied().collect();
                prop_assert_eq!(ends.len(), held.ends.len());
                let all: BTreeMap<&str, Option<Timestamp>> = held
                    .capabilities
                    .iter()
                    .filter_map(|one| Some((snapshot.catalog().capability_name(one)?, ends.get(&one).copied())))
                    .collect();
                prop_assert_eq!(&all, &expected, "{} at {}", id, at);
                let first = held.first_end(&held.capabilities);
                prop_assert_eq!(first, expected.values().copied().flatten().min());
                let mut given = snapshot.catalog().capability_set(&[]);
                let above = snapshot.given(id, world.now).filter(|(scope, _)| scope.contains(at));
                above.for_each(|(_, role)| given.add(&role.capabilities));
                prop_assert_eq!(given, held.capabilities, "{} at {}", id, at);
            }
        }
    }

    #[test]
    fn who_holds_is_that_of_the_naive_model(
        (world, _) in generate::asked(),
        roles in prop::collection::vec(any::<Index>(), 0..=2),
    ) {
        let (_, snapshot) = build(&world)?;
        let naive = Naive::new(&world.catalog, &world.facts, Attributes::NONE, world.now);
        let wanted = wanted(&snapshot, &roles);
        let some = names(&snapshot, &wanted);
        for scope in places(&world) {
            let at = scope.as_path();
            let found: Vec<&str> = snapshot.holders(at, &wanted).collect();
            let mut expected = naive.holders(at.as_str(), &some);
            if some.is_empty() {
                // Everybody holds nothing; those who are not bound there are not listed.
                let bindings = &world.facts.role_bindings;
                let is_above = |one: &&RoleBinding| one.scope.as_path().contains(at);
                let bound: BTreeSet<&str> =
                    bindings.iter().filter(is_above).map(|one| one.identity.as_str()).collect();
                expected.retain(|id| bound.contains(id));
            }
            prop_assert_eq!(&found, &expected, "{:?} at {}", some, at);
        }
    }

    #[test]
    fn what_is_there_is_what_was_declared((world, _) in generate::asked()) {
        let (model, snapshot) = build(&world)?;
        let facts = &world.facts;
        let places = places(&world);
        let others = facts.identities.iter().map(|one| &one.id).chain(facts.roles.iter().map(|one| &one.id));
        let others: Vec<_> = others.cloned().collect();
        for path in places.iter().chain(&others) {
            let at = path.as_path();
            let (group, resource) = (
                facts.groups.iter().any(|one| one.id == *path),
                facts.resources.iter().find(|one| one.id == *path),
            );
            prop_assert_eq!(snapshot.is_group(at), group);
            prop_assert_eq!(snapshot.is_resource(at), resource.is_some());
            let properties = resource.map(|one| &one.properties).filter(|all| !all.is_empty());
            prop_assert_eq!(snapshot.resource_properties(at), properties);
            prop_assert_eq!(snapshot.resource_kind(at), resource.map(|one| &*one.kind));
            let is_child = |id: &&PathBuf| id.as_path().parent() == Some(at);
            let groups = facts.groups.iter().map(|one| &one.id);
            let resources = facts.resources.iter().map(|one| &one.id);
            let children = groups.chain(resources).chain(&others).filter(is_child).count();
            let here = facts.role_bindings.iter().filter(|one| one.scope == *path);
            let bound: Vec<&RoleBinding> = here.collect();
            match snapshot.scope_state(at) {
                Some(state) => {
                    prop_assert!(group || resource.is_some());
                    prop_assert_eq!((state.group, state.children), (group, children));
                }
                None => prop_assert!(!group && resource.is_none()),
            }
            let listed: Vec<RoleBinding> = snapshot.bindings_at(at).collect();
            prop_assert!(listed.is_sorted_by_key(|one| one.identity.clone()));
            let key = |one: &RoleBinding| (one.identity.clone(), one.role.clone(), one.when.clone(), one.expires_at);
            let mut found: Vec<_> = listed.iter().map(key).collect();
            let mut expected: Vec<_> = bound.iter().map(|one| key(one)).collect();
            found.sort();
            expected.sort();
            prop_assert_eq!(found, expected);
            for category in [AttributeCategory::Subject, AttributeCategory::Resource] {
                let tests = |one: &&RoleBinding| one.when.iter().any(|test| test.category == category);
                let mut tested: Vec<_> = listed.iter().filter(tests).map(key).collect();
                let found = snapshot.conditional_bindings_at(at, category);
                let mut found: Vec<_> = found.map(|one| key(&one)).collect();
                found.sort();
                tested.sort();
                prop_assert_eq!(found, tested);
            }
            for binding in &listed {
                let same = snapshot.same_binding(&RoleBinding { id: None, expires_at: None, ..binding.clone() });
                prop_assert_eq!(same.and_then(|same| same.id), binding.id.clone());
                let other = RoleBinding { role: "no-such-role".into(), ..binding.clone() };
                prop_assert!(snapshot.same_binding(&other).is_none());
            }
            for binding in listed {
                let whole = snapshot.role_bindings(binding.identity.as_path());
                let binding = format!("{binding:?}");
                let is_there = whole.iter().any(|one| format!("{one:?}") == binding);
                prop_assert!(is_there, "{}", binding);
            }
        }
        for identity in &facts.identities {
            let properties = Some(&identity.properties).filter(|all| !all.is_empty());
            prop_assert_eq!(snapshot.identity_properties(identity.id.as_path()), properties);
            prop_assert_eq!(snapshot.identity_kind(identity.id.as_path()), Some(&*identity.kind));
            prop_assert!(snapshot.is_registered(identity.id.as_path()));
            prop_assert_eq!(snapshot.is_disabled(identity.id.as_path()), identity.disabled);
        }
        for identity in identities(&world) {
            let theirs = facts.role_bindings.iter().filter(|one| one.identity == identity);
            let mut expected: Vec<_> = theirs.map(|one| one.scope.as_path()).collect();
            let mut found: Vec<_> = snapshot.bound_scopes(identity.as_path()).collect();
            expected.sort();
            found.sort();
            prop_assert_eq!(found, expected);
            for scope in &places {
                let whole = snapshot.role_bindings(identity.as_path()).into_iter();
                let here = whole.filter(|one| one.scope == *scope);
                let found = snapshot.role_bindings_at(identity.as_path(), scope.as_path());
                let mut expected: Vec<_> = here.map(|one| format!("{one:?}")).collect();
                let mut found: Vec<_> = found.map(|one| format!("{one:?}")).collect();
                expected.sort();
                found.sort();
                prop_assert_eq!(found, expected);
            }
        }
        for id in model.unregistered() {
            prop_assert!(!snapshot.is_registered(id.as_path()));
            prop_assert!(snapshot.identity_state(id.as_path()).is_some());
        }
        for role in snapshot.roles() {
            let bound = facts.role_bindings.iter().filter(|one| *one.role == *role.id).count();
            prop_assert_eq!(snapshot.role_bindings_len(&role.id), Some(bound));
            prop_assert_eq!(&snapshot.role(&role.id).unwrap().id, &role.id);
        }
        prop_assert_eq!(snapshot.role_bindings_len("no/such"), None);
        prop_assert!(snapshot.role("no/such").is_none());
        let owner = world.catalog.roles.iter().find(|role| role.owner).map(|role| &role.name);
        prop_assert_eq!(snapshot.catalog().owner_role().map(|role| &role.name), owner);
    }

    /// A store gives each binding the id that it gets, and hands it over with the id. Nothing else is different.
    #[test]
    fn a_binding_gets_the_id_that_is_said_to_be_free((world, _) in generate::asked()) {
        let bare = World {
            facts: capstan_engine::Facts { role_bindings: vec![], ..world.facts.clone() },
            ..world.clone()
        };
        let (_, empty) = build(&bare)?;
        let [mut unnamed, mut named] = [(), ()].map(|()| Writer::new(&empty));
        for binding in &world.facts.role_bindings {
            let free = unnamed.publish(1).free_binding_id(binding);
            let create = |binding: &RoleBinding| capstan_engine::Change::CreateRoleBinding(binding.clone());
            prop_assert_eq!(unnamed.apply([create(binding)]), Ok(()));
            let with_id = RoleBinding { id: free.clone(), ..binding.clone() };
            prop_assert_eq!(with_id.has_derived_id(), free.is_some() && with_id.id == with_id.derived_id());
            prop_assert!(binding.id.is_some() || !binding.has_derived_id());
            prop_assert_eq!(named.apply([create(&with_id)]), Ok(()));
            if let Some(id) = &free {
                let found = unnamed.publish(1).role_binding(id.as_path());
                prop_assert_eq!(found.map(|one| (one.identity, one.role)), Some((binding.identity.clone(), binding.role.clone())));
                if binding.id.is_none() {
                    // No path of a world has the form of a derived id.
                    prop_assert_eq!(binding.derived_id(), free.clone());
                }
                let again = RoleBinding { id: free.clone(), role: "other".into(), ..binding.clone() };
                prop_assert_eq!(unnamed.publish(1).free_binding_id(&again), None, "it is taken");
            } else {
                prop_assert_eq!(binding.derived_id(), None);
            }
        }
        let (unnamed, named) = (unnamed.publish(2), named.publish(2));
        for identity in world.identities() {
            // Those at the deepest scopes have no id, and therefore no order.
            let of = |snapshot: &Snapshot| {
                let all = snapshot.role_bindings(identity.as_path());
                let mut all: Vec<_> = all.iter().map(|one| format!("{one:?}")).collect();
                all.sort();
                all
            };
            prop_assert_eq!(of(&unnamed), of(&named));
        }
        prop_assert_eq!(unnamed.index_bytes(), named.index_bytes(), "a derived id takes no memory");
        let derived = |one: &RoleBinding| RoleBinding { id: one.id.clone().or_else(|| one.derived_id()), ..one.clone() };
        let mut document = world.clone();
        document.facts.role_bindings = world.facts.role_bindings.iter().map(derived).collect();
        let (declared, bare) = (build(&document)?.1, build(&world)?.1);
        prop_assert_eq!(declared.index_bytes(), bare.index_bytes(), "nor in a document");
    }
}
