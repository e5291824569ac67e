//! What a credential is narrowed to (R21): less than its identity can, never more.

use std::sync::Arc;

use capstan_engine::Path;
use capstan_iam::{Actor, Kind, Narrowing, Object, Outcome, Rule, RuleSet};
use capstan_testkit::managed::operations::*;
use capstan_testkit::managed::{Managed, after};
use fastrand::Rng;

use crate::attack::Attack;
use crate::attack::draw::{operation, world};
use crate::common::*;

/// An identity whose credential is held to this.
fn narrowed(who: &str, subtree: Option<&str>, capabilities: Option<&[&str]>) -> Actor {
    let capabilities = capabilities.map(|all| all.iter().map(|one| (*one).to_owned()).collect());
    let narrowing = Some(Arc::new(Narrowing { subtree: subtree.map(path), capabilities }));
    let email = Some("a@example.com".to_owned());
    Actor::Identity { id: path(who), email, session: None, narrowing }
}

fn given(world: &Managed, who: &Actor) -> Vec<(String, usize)> {
    let given = world.reader(who).unwrap().given();
    given.into_iter().map(|(scope, names)| (scope.to_string(), names.len())).collect()
}

#[test]
fn a_subtree_and_capabilities_are_all_that_counts() {
    let mut world = acme();
    let rename = |id: &str| rename_group(id, "x");
    let names: &[&str] = &["groups.list", "groups.update", "no.such"];
    let both = narrowed("alice", Some("acme/shop"), Some(names));
    assert_eq!(given(&world, &both), [("acme/shop".to_owned(), 2)]);
    assert_eq!(world.list(&both, Kind::Group), ["acme/shop"]);
    done(&mut world, &both, &rename("acme/shop"));
    for elsewhere in ["acme", "acme/platform", "globex"] {
        assert_eq!(
            reason(&refused_to(&world, &both, &rename(elsewhere))),
            "NOT_FOUND",
            "{elsewhere}"
        );
    }
    let refusal = refused_to(&world, &both, &bind("bob", "viewer", "acme/shop"));
    assert_eq!(reason(&refusal), "MISSING_CAPABILITY");

    // By one of them alone. A grant needs what is granted.
    let place = narrowed("alice", Some("acme/shop"), None);
    done(&mut world, &place, &bind("mallory", "viewer", "acme/shop"));
    assert!(world.judge(&place, &bind("mallory", "viewer", "acme/platform")).is_err());
    let binds: &[&str] = &["groups.list", "role_bindings.create", "role_bindings.delete"];
    let grants = narrowed("alice", None, Some(binds));
    let refusal = refused_to(&world, &grants, &bind("mallory", "owner", "acme"));
    assert_eq!((reason(&refusal), refusal.rule), ("MISSING_CAPABILITY", Some(Rule::Grant)));

    // What it has nothing of, or what is elsewhere, is nothing.
    for nothing in [
        narrowed("alice", Some("globex"), None),
        narrowed("alice", None, Some(&[])),
        narrowed("mallory", None, None),
    ] {
        assert!(
            given(&world, &nothing)
                .iter()
                .all(|(scope, count)| scope == "acme/shop" || *count == 0)
        );
        assert!(world.judge(&nothing, &rename("acme")).is_err());
    }
    // A binding below the subtree counts where it is.
    let above = narrowed("mallory", Some("acme"), None);
    let scopes: Vec<_> = given(&world, &above).into_iter().map(|(scope, _)| scope).collect();
    assert_eq!(scopes, ["acme/shop"]);
}

/// What everybody may do to itself, a narrowed credential may not: it would outlive it.
#[test]
fn it_does_nothing_to_its_own_identity_and_joins_nothing() {
    let mut world = acme();
    let key = |key: &str| Some(keys("https://idp.example", "1", key, Some(after(100))));
    does(&mut world, "alice", &authenticate("acme/ci", key("1")));
    does(&mut world, "alice", &bind("acme/ci", "viewer", "acme/shop"));
    does(&mut world, "alice", &invite("acme/shop", "viewer", None, 1));
    let ci = narrowed("acme/ci", Some("acme/shop"), None);
    let binding = world.objects().find_map(|one| match one {
        Object::RoleBinding(one) if one.identity.as_str() == "acme/ci" => Some(one.id.to_string()),
        _ => None,
    });
    let own =
        [authenticate("acme/ci", key("2")), unbind(&binding.unwrap()), remove("acme/ci", "acme")];
    for operation in &own {
        assert!(world.judge(&actor("acme/ci"), operation).is_ok(), "{operation:?}");
        assert!(world.judge(&ci, operation).is_err(), "{operation:?}");
    }
    let mallory = |narrowing: bool| match narrowed("mallory", None, None) {
        Actor::Identity { id, email, session, narrowing: some } => {
            Actor::Identity { id, email, session, narrowing: some.filter(|_| narrowing) }
        }
        Actor::Operator => unreachable!(),
    };
    assert!(world.judge(&mallory(false), &accept(1)).is_ok());
    assert_eq!(reason(&refused_to(&world, &mallory(true), &accept(1))), "INVALID_FIELD");
    // Events would come by the rights of the identity.
    let sink = subscribe("acme/shop", "https://example.com/");
    assert!(world.judge(&actor("alice"), &sink).is_ok());
    assert!(world.judge(&narrowed("alice", None, None), &sink).is_err());
    // Nor does it get another credential by the rights that it has.
    let mut other = acme();
    does(&mut other, "alice", &authenticate("acme/ci", key("1")));
    does(&mut other, "alice", &bind("acme/ci", "owner", "acme"));
    let owner = narrowed("acme/ci", Some("acme"), None);
    for operation in [
        authenticate("acme/ci", key("2")),
        authenticate("acme/ci", None),
        associate("acme/shop", &[("X", "acme/ci")]),
    ] {
        assert!(other.judge(&actor("acme/ci"), &operation).is_ok(), "{operation:?}");
        let refusal = refused_to(&other, &owner, &operation);
        assert_eq!(refusal.rule, Some(Rule::Narrowed), "{operation:?}");
    }
    done(&mut other, &owner, &rename_group("acme/shop", "x"));
    // It sees itself.
    assert!(world.get(&ci, Kind::Identity, "acme/ci").is_ok());

    // Without the rule all of it is found.
    world.rules = RuleSet::FULL.without(Rule::Narrowed);
    assert!(own.iter().all(|operation| world.judge(&ci, operation).is_ok()));
    assert!(world.judge(&mallory(true), &accept(1)).is_ok());
    assert!(world.judge(&ci, &rename_group("acme", "x")).is_err(), "it never had that");
}

/// Whatever is tried in random worlds: what a narrowed credential may do its identity may, and what it gives to others is within
/// what it was narrowed to.
#[test]
fn it_never_does_or_gives_more_than_its_identity_could() {
    let mut rng = Rng::with_seed(3);
    let (mut allowed, mut tried) = (0, 0);
    for _ in 0..300 {
        let (before, own) = world(&mut rng);
        let groups: Vec<_> = before
            .objects()
            .filter(|one| one.kind() == Kind::Group)
            .map(|one| one.id().to_string())
            .collect();
        let catalog: Vec<_> =
            before.state().snapshot.catalog().capabilities().map(str::to_owned).collect();
        for _ in 0..60 {
            let mut attack = Attack::new(&before, &own);
            let Some((who, operation)) = operation(&mut rng, &mut attack) else { continue };
            let names: Vec<_> =
                catalog.iter().filter(|_| rng.u8(..4) > 0).map(String::as_str).collect();
            let subtree = rng.choice(&groups).map(String::as_str);
            let ci = narrowed(&who, subtree.filter(|_| rng.bool()), Some(&names));
            let Actor::Identity { id, email, .. } = ci.clone() else { unreachable!() };
            let plain = Actor::Identity { id, email, session: None, narrowing: None };
            tried += 1;
            if let Ok(outcome) = before.judge(&ci, &operation) {
                allowed += 1;
                assert!(before.judge(&plain, &operation).is_ok(), "{operation:?}");
                gives_within(&before, &ci, &outcome);
            }
        }
    }
    println!("{allowed} of {tried} allowed");
    assert!(allowed > tried / 50, "{allowed} of {tried}");
}

/// What bindings give that are made is held by who makes them.
fn gives_within(world: &Managed, who: &Actor, outcome: &Outcome) {
    let reader = world.reader(who).unwrap();
    for change in &outcome.objects {
        let (None, Some(Object::RoleBinding(made))) = (&change.before, &change.after) else {
            continue;
        };
        let state = world.state();
        let role = state.snapshot.role(&made.role).unwrap();
        let catalog = state.snapshot.catalog();
        let scope: Path<'_> = made.scope.as_path();
        for capability in role.capabilities.iter() {
            let name = catalog.capability_name(capability).unwrap();
            assert!(reader.holds(name, scope), "{name} at {scope}: {who:?}");
        }
    }
}
