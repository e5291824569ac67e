//! What is shown to whom (R18), and that leaving the rule out is found.

use capstan_iam::{Actor, Cause, Kind, Object, Rule, RuleSet};
use capstan_testkit::managed::operations::*;
use capstan_testkit::managed::{Bindings, Managed, after, bits};
use fastrand::Rng;

use crate::attack::draw::world;
use crate::common::*;

#[test]
fn a_viewer_sees_its_organization_and_of_people_only_id_name_and_type() {
    let mut world = acme();
    let details = capstan_iam::IdentityUpdate {
        description: Some("secret".into()),
        properties: Some(properties(&[("salary", "1")])),
        ..capstan_iam::IdentityUpdate::default()
    };
    done(&mut world, &Actor::Operator, &change("alice", details));
    let bob = actor("bob");
    assert_eq!(world.list(&bob, Kind::Group), ["acme", "acme/platform", "acme/shop"]);
    assert_eq!(
        world.list(&bob, Kind::Identity),
        ["acme/ci", "alice", "bob", "erin"],
        "not gina, not mallory"
    );
    let shown = world.get(&bob, Kind::Identity, "alice").unwrap();
    let Object::Identity(alice) = &shown.object else { panic!() };
    assert!(shown.in_part);
    assert_eq!((alice.id.as_str(), &*alice.kind), ("alice", "user"));
    assert!(
        alice.description.is_empty()
            && alice.properties.is_empty()
            && alice.authentication.is_none()
    );
    let itself = world.get(&actor("alice"), Kind::Identity, "alice").unwrap();
    let Object::Identity(alice) = &itself.object else { panic!() };
    assert!(!itself.in_part && alice.description == "secret");
    assert!(!world.get(&bob, Kind::Identity, "acme/ci").unwrap().in_part);
}

#[test]
fn who_is_bound_nowhere_sees_itself_and_its_own_bindings() {
    let mut world = acme();
    let mallory = actor("mallory");
    assert_eq!(world.list(&mallory, Kind::Identity), ["mallory"]);
    does(&mut world, "alice", &bind("mallory", "registry.pull", "acme/shop"));
    let own = id_of(&world, "mallory", "registry.pull", "acme/shop");
    assert_eq!(world.list(&mallory, Kind::RoleBinding), [&*own]);
    assert!(world.get(&mallory, Kind::RoleBinding, &own).is_ok());
    for kind in [Kind::Group, Kind::Role, Kind::Resource] {
        assert!(world.list(&mallory, kind).is_empty(), "{kind}");
    }
    let everything = Kind::ALL.map(|kind| world.list(&Actor::Operator, kind).len());
    assert_eq!(everything.iter().sum::<usize>(), world.objects().count());
}

/// A Get is refused as a write is: the missing capability to who sees the group, otherwise nothing.
#[test]
fn a_get_needs_the_list_capability() {
    let mut world = acme();
    does(&mut world, "alice", &bind("acme/ci", "apk.pull", "acme"));
    does(&mut world, "alice", &role("acme/r", &["repo.list"]));
    does(&mut world, "alice", &resource("acme/repo", "repo", properties(&[])));
    let binding = id_of(&world, "bob", "viewer", "acme");
    let (ci, mallory) = (actor("acme/ci"), actor("mallory"));
    for (kind, id, missing) in [
        (Kind::Role, "acme/r", "roles.list"),
        (Kind::Role, "acme/none", "roles.list"),
        (Kind::RoleBinding, &*binding, "role_bindings.list"),
        (Kind::RoleBinding, "acme/none", "role_bindings.list"),
        (Kind::Identity, "acme/none", "identity.list"),
        (Kind::Resource, "acme/repo", "repo.list"),
    ] {
        misses(&world.get(&ci, kind, id).unwrap_err(), None, "acme", &[missing]);
        hides(&world.get(&mallory, kind, id).unwrap_err(), "acme", &[missing]);
    }
    // The type of an absent resource is not known.
    assert_eq!(world.get(&ci, Kind::Resource, "acme/none").unwrap_err().told, Cause::NotFound);
    for id in ["alice", "nobody"] {
        assert_eq!(world.get(&ci, Kind::Identity, id).unwrap_err().told, Cause::NotFound);
    }
}

#[test]
fn what_may_be_listed_lies_below_the_topmost_plain_bindings_that_count() {
    let mut world = acme();
    let end = after(60);
    for new in [
        bind("mallory", "registry.pull", "acme"),
        bind("mallory", "apk.pull", "acme/shop"),
        bind_until("mallory", "apk.pull", "acme/platform", end),
        bind_when("mallory", "owner", "acme", equals("context.x", "1")),
    ] {
        does(&mut world, "alice", &new);
    }
    let topmost = |world: &Managed, capabilities: &[&str]| -> Vec<String> {
        let mallory = actor("mallory");
        let scopes = world.reader(&mallory).unwrap().topmost(capabilities);
        scopes.iter().map(ToString::to_string).collect()
    };
    assert_eq!(topmost(&world, &["groups.list"]), ["acme/platform", "acme/shop"]);
    assert_eq!(topmost(&world, &["groups.list", "repo.list"]), ["acme"]);
    assert_eq!(topmost(&world, &["roles.list"]), [""; 0], "only a condition gives it");
    world.now = end;
    assert_eq!(topmost(&world, &["groups.list"]), ["acme/shop"]);
    assert!(world.reader(&Actor::Operator).unwrap().topmost(&["groups.list"]).is_empty());
}

/// Everything that is shown is shown by a `.list` capability, computed a second time.
fn shows_too_much(world: &Managed, who: &str) -> Option<String> {
    let (bindings, catalog) = (Bindings::of(world), world.snapshot().catalog());
    let holds = |capability: &str, at: &str| {
        bindings.caps(who, at, world.now) & bits(catalog, [capability]) != 0
    };
    for object in world.objects() {
        let id = object.id().as_str();
        let above = id.rsplit_once('/').map_or(id, |(above, _)| above);
        let may = match object {
            Object::Group(_) => holds("groups.list", id),
            Object::Role(_) => holds("roles.list", above),
            Object::RoleBinding(one) => {
                one.identity.as_str() == who || holds("role_bindings.list", one.scope.as_str())
            }
            Object::Identity(_) if id == who => true,
            Object::Identity(_) if id.contains('/') => holds("identity.list", above),
            Object::Identity(_) => bindings.iter().any(|(one, _)| {
                one.identity.as_str() == id && holds("role_bindings.list", one.scope.as_str())
            }),
            Object::Resource(_) => holds("groups.list", above),
            Object::GroupInvite(_) => holds("group_invites.list", above),
            Object::Subscription(_) => holds("subscriptions.list", above),
            Object::IdentityProvider(_) | Object::GroupRoleMapping(_) => {
                holds("identity_providers.list", above)
            }
            Object::AccountAssociation(_) => holds("account_associations.list", id),
        };
        let shown = world.get(&actor(who), object.kind(), id);
        let listed = world.list(&actor(who), object.kind()).iter().any(|one| one == id);
        if shown.is_ok() != may || listed != may {
            return Some(format!(
                "{} {id}: may be seen {may}, shown {}, listed {listed}",
                object.kind(),
                shown.is_ok()
            ));
        }
        if let (Ok(shown), Object::Identity(_)) = (shown, object) {
            let in_part = !id.contains('/') && id != who;
            if shown.in_part != in_part {
                return Some(format!("identity {id}: in part {}", shown.in_part));
            }
        }
    }
    None
}

#[test]
fn everything_is_shown_by_a_list_capability_and_a_missing_rule_is_found() {
    let (mut rng, mut found) = (Rng::with_seed(3), false);
    for _ in 0..300 {
        let (mut world, own) = world(&mut rng);
        assert_eq!(shows_too_much(&world, &own[0]), None);
        world.rules = RuleSet::FULL.without(Rule::Visibility);
        found |= shows_too_much(&world, &own[0]).is_some();
    }
    assert!(found, "R18 left out is found");
}

/// R16: every own binding can be given up, unless an organization loses its last owner.
fn keeps_own(world: &Managed, who: &str) -> Option<String> {
    let own = world.objects().filter_map(|object| match object {
        Object::RoleBinding(one) if one.identity.as_str() == who => Some(one),
        _ => None,
    });
    own.map(|one| one.id.as_str()).find_map(|id| match world.judge(&actor(who), &unbind(id)) {
        Err(refusal) if reason(&refusal) != "LAST_OWNER" => Some(format!("{id}: {refusal}")),
        _ => None,
    })
}

#[test]
fn own_bindings_can_be_given_up_and_a_missing_rule_is_found() {
    let (mut rng, mut found) = (Rng::with_seed(5), false);
    for _ in 0..300 {
        let (mut world, own) = world(&mut rng);
        assert_eq!(keeps_own(&world, &own[0]), None);
        world.rules = RuleSet::FULL.without(Rule::Own);
        found |= keeps_own(&world, &own[0]).is_some();
    }
    assert!(found, "R16 left out is found");
}

/// R19: what the catalog lacks only the operator does.
#[test]
fn what_the_catalog_lacks_is_the_operators_and_a_missing_rule_is_found() {
    let mut world = two_organizations(built_in("chainguard-2023-12-07"));
    let operations = [role("acme/r", &[]), identity("acme/i"), disable("acme/ci", true)];
    for operation in &operations {
        let refusal = refused(&world, "alice", operation);
        assert_eq!((reason(&refusal), refusal.rule), ("OPERATOR_ONLY", Some(Rule::ClosedCatalog)));
        assert!(world.judge(&Actor::Operator, operation).is_ok());
    }
    world.rules = RuleSet::FULL.without(Rule::ClosedCatalog);
    assert!(operations.iter().any(|operation| world.judge(&actor("alice"), operation).is_ok()));
}
