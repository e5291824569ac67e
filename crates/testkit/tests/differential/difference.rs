//! The difference between two documents, applied to a snapshot of the first, gives a snapshot of the second.

#![expect(clippy::indexing_slicing, reason = "positions are taken modulo the length")]
#![expect(clippy::unwrap_used, reason = "paths of the test itself")]

use std::cell::Cell;
use std::sync::Arc;

use capstan_engine::{
    Attributes, Catalog, Difference, DifferenceError, FactSink as _, Facts, Group, Identity, Model,
    PathBuf, RoleBinding, Snapshot, Timestamp,
};
use capstan_policy::Catalogs;
use capstan_testkit::asking::{Pair, Tally};
use capstan_testkit::fuzz::same_snapshots;
use capstan_testkit::generate::{self, World};
use proptest::prelude::*;
use proptest::sample::Index;

/// Compares all facts, beginning with one of the five lists.
fn difference(
    base: &Snapshot,
    catalog: &Catalog,
    facts: &Facts,
    rotated: usize,
) -> Result<Snapshot, DifferenceError> {
    let mut difference = Difference::new(base, catalog)?;
    let facts = facts.clone();
    let each = (facts.groups, facts.roles, facts.identities, facts.role_bindings, facts.resources);
    let (mut groups, mut roles, mut identities, mut bindings, mut resources) = each;
    for list in 0..5 {
        match (list + rotated) % 5 {
            0 => groups.drain(..).try_for_each(|one| difference.group(one))?,
            1 => roles.drain(..).try_for_each(|one| difference.role(one))?,
            2 => identities.drain(..).try_for_each(|one| difference.identity(one))?,
            3 => bindings.drain(..).try_for_each(|one| difference.role_binding(one))?,
            _ => resources.drain(..).try_for_each(|one| difference.resource(one))?,
        }
    }
    difference.finish(base.revision() + 1)
}

/// A snapshot of all facts at once.
fn whole(catalog: &Arc<Catalog>, facts: &Facts) -> Option<Snapshot> {
    Snapshot::build(&Model::new(Arc::clone(catalog), facts.clone()).ok()?, 1).ok()
}

/// The difference is a snapshot of the second facts, or is refused. Whether it is one.
fn agrees(
    catalog: &Arc<Catalog>,
    first: &Facts,
    second: &Facts,
    rotated: usize,
) -> Option<Snapshot> {
    let base = whole(catalog, first)?;
    let made = difference(&base, catalog, second, rotated).ok()?;
    let built = whole(catalog, second);
    assert!(built.is_some(), "facts that break a rule are accepted: {second:?}");
    same_snapshots(&made, &built?, second);
    assert_eq!(made.revision(), 2);
    Some(made)
}

/// Facts without some of each kind, and with some bindings changed.
fn changed(facts: &Facts, changes: &[(u8, Index)]) -> Facts {
    let mut facts = facts.clone();
    let end = Some(Timestamp::UNIX_EPOCH);
    for (kind, at) in changes {
        let place = |length: usize| (length > 0).then(|| at.index(length));
        match kind % 12 {
            0 => drop(place(facts.role_bindings.len()).map(|at| facts.role_bindings.remove(at))),
            1 => drop(place(facts.identities.len()).map(|at| facts.identities.remove(at))),
            2 => drop(place(facts.groups.len()).map(|at| facts.groups.remove(at))),
            3 => drop(place(facts.resources.len()).map(|at| facts.resources.remove(at))),
            4 => drop(place(facts.roles.len()).map(|at| facts.roles.remove(at))),
            5 => drop(place(facts.roles.len()).map(|at| facts.roles[at].capabilities.pop())),
            6 => drop(place(facts.role_bindings.len()).map(|at| facts.role_bindings[at].id = None)),
            10 => {
                if let Some(at) = place(facts.identities.len()) {
                    facts.identities[at].kind = "robot".into();
                }
            }
            11 => {
                if let Some(at) = place(facts.resources.len()) {
                    facts.resources[at].kind = "chart".into();
                }
            }
            9 => {
                if let Some(at) = place(facts.identities.len()) {
                    facts.identities[at].disabled ^= true;
                }
            }

            7 => drop(
                place(facts.role_bindings.len()).map(|at| facts.role_bindings[at].expires_at = end),
            ),
            _ => drop(
                place(facts.identities.len()).map(|at| facts.identities[at].properties.clear()),
            ),
        }
    }
    facts
}

proptest! {
    /// From any world to any other of the same catalog, and back.
    #[test]
    fn a_difference_of_worlds_is_the_second_world(
        (world, questions) in generate::asked(),
        other in generate::world(),
        rotated in 0usize..5,
    ) {
        let catalog = Arc::new(Catalog::new(world.catalog.clone()).unwrap());
        let tally = Tally::default();
        for (first, second) in [
            (&Facts::default(), &world.facts),
            (&world.facts, &other.facts),
            (&other.facts, &world.facts),
            (&world.facts, &world.facts),
            (&world.facts, &Facts::default()),
        ] {
            let made = agrees(&catalog, first, second, rotated);
            if let Some(made) = made {
                let world = World { facts: second.clone(), ..world.clone() };
                let pair = Pair::new(&world, &made, world.now, &tally);
                questions.iter().try_for_each(|question| pair.agrees(question))?;
            }
        }
    }
}

/// From any world to a similar one, and back. What keeps the rules is refused only for its ids.
#[test]
fn a_difference_of_similar_worlds_is_the_second_world() {
    let (valid, made) = (Cell::new(0), Cell::new(0));
    let changes = prop::collection::vec(any::<(u8, Index)>(), 0..6);
    proptest!(|((world, questions) in generate::asked(), changes in changes, rotated in 0usize..5)| {
        let catalog = Arc::new(Catalog::new(world.catalog.clone()).unwrap());
        let facts = changed(&world.facts, &changes);
        let tally = Tally::default();
        valid.set(valid.get() + usize::from(whole(&catalog, &facts).is_some()));
        if let Some(snapshot) = agrees(&catalog, &world.facts, &facts, rotated) {
            made.set(made.get() + 1);
            let world = World { facts: facts.clone(), ..world.clone() };
            let pair = Pair::new(&world, &snapshot, world.now, &tally);
            questions.iter().try_for_each(|question| pair.agrees(question))?;
        } else if whole(&catalog, &facts).is_some() {
            let base = whole(&catalog, &world.facts).unwrap();
            let refused = difference(&base, &catalog, &facts, rotated).unwrap_err();
            let is_id = matches!(refused, DifferenceError::BindingIds | DifferenceError::Refused(_));
            prop_assert!(is_id, "{refused}");
        }
        agrees(&catalog, &facts, &world.facts, rotated);
    });
    assert!(made.get() * 2 > valid.get(), "{} of {}", made.get(), valid.get());
}

/// Groups, identities and bindings of each of them at one of the groups.
fn facts(identities: usize) -> Facts {
    let id = |text: String| text.parse().unwrap();
    let group = |at: usize| id(format!("acme/team-{}", at % 50));
    let mut facts = Facts::default();
    facts.groups.push(Group { id: id("acme".into()), name: String::new() });
    facts.groups.extend((0..50).map(|at| Group { id: group(at), name: String::new() }));
    for at in 0..identities {
        facts.identities.push(Identity::named(id(format!("acme/user-{at}"))));
        facts.role_bindings.push(RoleBinding {
            id: None,
            identity: id(format!("acme/user-{at}")),
            role: "viewer".into(),
            scope: group(at),
            expires_at: None,
            when: vec![],
        });
    }
    facts
}

/// Somebody who is bound and not declared goes with the last binding, is declared later, and is disabled.
#[test]
fn a_person_is_registered_and_goes() {
    let catalog = Catalogs::default().get("chainguard-2025-08-14").unwrap();
    let person: PathBuf = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
    let nobody = facts(3);
    let mut bound = nobody.clone();
    let first = nobody.role_bindings[0].clone();
    bound.role_bindings.push(RoleBinding { identity: person.clone(), ..first });
    let mut registered = bound.clone();
    registered.identities.push(Identity::named(person.clone()));
    let mut disabled = registered.clone();
    disabled.identities[3].disabled = true;
    for (first, second, state) in [
        (&nobody, &bound, Some((false, false))),
        (&bound, &registered, Some((true, false))),
        (&registered, &disabled, Some((true, true))),
        (&disabled, &registered, Some((true, false))),
        (&registered, &nobody, None),
        (&bound, &nobody, None),
    ] {
        let made = agrees(&catalog, first, second, 0).unwrap();
        let found = made.identity_state(person.as_path());
        assert_eq!(found.map(|it| (it.registered, it.disabled)), state);
    }
    // That it is not declared any more says only an index of all facts.
    assert!(agrees(&catalog, &registered, &bound, 0).is_none());
}

/// Without bindings, a thousand changes are made and not one more.
#[test]
fn a_thousand_changes_are_not_too_much() {
    let catalog = Catalogs::default().get("chainguard-2025-08-14").unwrap();
    let base = whole(&catalog, &facts(0)).unwrap();
    let with = |identities: usize| {
        let mut facts = facts(identities);
        facts.role_bindings.clear();
        difference(&base, &catalog, &facts, 0).map(|made| made.identities_len())
    };
    assert_eq!(with(1_000), Ok(1_000));
    assert_eq!(with(1_001), Err(DifferenceError::TooMuch));
}

/// Of bindings, 20 a scope, one in forty may be new: each has a work of 40, and each of the snapshot allows 2.
#[test]
fn many_changed_bindings_are_too_much() {
    const BINDINGS: usize = 1_000;
    let catalog = Catalogs::default().get("chainguard-2025-08-14").unwrap();
    let base = whole(&catalog, &facts(BINDINGS)).unwrap();
    let with = |more: usize| {
        let mut facts = facts(BINDINGS);
        for at in 0..more {
            let binding = RoleBinding { role: "owner".into(), ..facts.role_bindings[at].clone() };
            facts.role_bindings.push(binding);
        }
        difference(&base, &catalog, &facts, 0).map(|made| made.bindings_len())
    };
    // And a thousand besides.
    let most = (2 * BINDINGS + 1_000) / 40;
    assert_eq!(with(most), Ok(BINDINGS + most));
    assert_eq!(with(most + 1), Err(DifferenceError::TooMuch));
}

/// One changed binding copies a part of the index. If too much is different, it is built anew.
#[test]
fn what_stays_is_shared_and_too_much_is_refused() {
    let catalog = Catalogs::default().get("chainguard-2025-08-14").unwrap();
    let first = facts(10_000);
    let base = whole(&catalog, &first).unwrap();
    let mut second = first.clone();
    second.role_bindings[17].role = "owner".into();
    let made = difference(&base, &catalog, &second, 0).unwrap();
    same_snapshots(&made, &whole(&catalog, &second).unwrap(), &second);
    let (beside, all) = (base.bytes_beside(&made), base.index_bytes());
    assert!(beside > 0 && beside < all / 5, "{beside} of {all} bytes");
    assert_eq!(base.bytes_beside(&base), 0);
    let same = difference(&base, &catalog, &first, 0).unwrap();
    assert_eq!(base.bytes_beside(&same), 0);

    for binding in &mut second.role_bindings {
        binding.role = "owner".into();
    }
    let refused = difference(&base, &catalog, &second, 0).unwrap_err();
    assert_eq!(refused, DifferenceError::TooMuch);
    let mut other = catalog.facts().clone();
    other.name.push('x');
    let other = Catalog::new(other).unwrap();
    let refused = difference(&base, &other, &first, 0).unwrap_err();
    assert_eq!(refused, DifferenceError::OtherCatalog);
    let mut twice = first.clone();
    twice.role_bindings.push(first.role_bindings[3].clone());
    let refused = difference(&base, &catalog, &twice, 0).unwrap_err();
    assert_eq!(refused, DifferenceError::Twice("acme/user-3".into()));
    let none = Attributes::NONE;
    let group = &first.groups[1].id;
    let now = Timestamp::UNIX_EPOCH;
    let who = made.list_identities("repo.list", group.as_path(), none, now).unwrap();
    assert_eq!(who.len(), 200);
}
