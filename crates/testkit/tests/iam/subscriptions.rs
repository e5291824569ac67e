//! Subscriptions: who makes and changes them, whose rights they have, and what goes with a group.

use capstan_iam::limits::{EVENT_TYPES_MAX, SINK_BYTES_MAX, SUBSCRIPTIONS_MAX};
use capstan_iam::{
    Actor, CreateSubscription, Kind, Object, Operation, Response, Subscription, SubscriptionState,
};
use capstan_testkit::managed::Managed;
use capstan_testkit::managed::operations::*;

use crate::common::*;

const SINK: &str = "https://example.com/hook";

fn new(parent: &str) -> CreateSubscription {
    new_subscription(parent, SINK)
}

fn made(world: &mut Managed, who: &Actor, new: CreateSubscription) -> Subscription {
    match done(world, who, &Operation::CreateSubscription(new)).response {
        Response::Subscription(found) => found,
        other => panic!("{other:?}"),
    }
}

fn updated(world: &mut Managed, who: &str, operation: &Operation) -> Subscription {
    match does(world, who, operation).response {
        Response::Subscription(found) => found,
        other => panic!("{other:?}"),
    }
}

fn creator(of: &Subscription) -> Option<&str> {
    of.creator.as_ref().map(|creator| creator.id.as_str())
}

/// The editor of 2025 creates, changes and deletes subscriptions; the viewer lists them.
#[test]
fn who_makes_a_subscription() {
    let mut world = acme();
    let operation = Operation::CreateSubscription(new("acme/shop"));
    misses(&refused(&world, "bob", &operation), None, "acme/shop", &["subscriptions.create"]);
    hides(&refused(&world, "mallory", &operation), "acme/shop", &["subscriptions.create"]);
    let one = made(&mut world, &actor("erin"), new("acme/shop"));
    assert_eq!((creator(&one), one.consented, one.is_active()), (Some("erin"), false, false));
    assert_eq!(one.group().as_str(), "acme/shop");
    let id = one.id.as_str();
    assert!(world.get(&actor("bob"), Kind::Subscription, id).is_ok());
    assert_eq!(world.list(&actor("gina"), Kind::Subscription), [""; 0]);
    let delete = unsubscribe(id);
    misses(&refused(&world, "bob", &delete), None, "acme/shop", &["subscriptions.delete"]);
    does(&mut world, "erin", &delete);
    assert!(!exists(&world, Kind::Subscription, id));
    let none = Operation::CreateSubscription(new("acme/none"));
    assert_eq!(reason(&refused(&world, "alice", &none)), "NOT_FOUND");
    assert_eq!(creator(&made(&mut world, &Actor::Operator, new("acme"))), None);
}

#[test]
fn fields_of_a_subscription() {
    let world = acme();
    let with = |change: fn(&mut CreateSubscription)| {
        let mut one = new("acme");
        change(&mut one);
        Operation::CreateSubscription(one)
    };
    for (operation, field) in [
        (with(|one| one.sink = "http://example.com".into()), "subscription.sink"),
        (
            with(|one| one.sink = format!("https://h/{}", "x".repeat(SINK_BYTES_MAX))),
            "subscription.sink",
        ),
        (with(|one| one.types = vec!["Dev".into()]), "subscription.types[0]"),
        (with(|one| one.types = vec!["dev.".into(); EVENT_TYPES_MAX + 1]), "subscription.types"),
        (with(|one| one.name = "a\n".into()), "subscription.name"),
        (with(|one| one.id = Some(path("acme/a/b"))), "subscription.id"),
    ] {
        assert_eq!(invalid(&refused(&world, "alice", &operation)), field, "{operation:?}");
    }
}

/// One organization does not take the places of all others.
#[test]
fn an_organization_has_so_many_subscriptions() {
    let mut world = acme();
    for at in 1..SUBSCRIPTIONS_MAX {
        let group = ["acme", "acme/shop"][at % 2];
        does(&mut world, "alice", &Operation::CreateSubscription(new(group)));
    }
    let last = made(&mut world, &Actor::Operator, new("acme"));
    for (who, group) in [(actor("alice"), "acme"), (Actor::Operator, "acme/shop")] {
        let more = Operation::CreateSubscription(new(group));
        assert_eq!(invalid(&refused_to(&world, &who, &more)), "parent");
    }
    does(&mut world, "alice", &unsubscribe(last.id.as_str()));
    made(&mut world, &actor("alice"), new("acme"));
}

/// X15: who sets where events go, or which, is the one whose rights they are filtered by.
#[test]
fn whose_rights_count() {
    let mut world = acme();
    let one = made(&mut world, &actor("alice"), new("acme"));
    let id = one.id.as_str();
    does(&mut world, "alice", &set_subscription(&one, SubscriptionState::Consented));
    let named =
        updated(&mut world, "erin", &resubscribe(id, |one| one.name = Some("Audit".into())));
    assert_eq!((creator(&named), named.consented), (Some("alice"), true));
    let types = vec!["dev.capstan.iam.role.".into(), "dev.capstan.iam.group.".into()];
    let typed = updated(&mut world, "erin", &resubscribe(id, |one| one.types = Some(types)));
    assert_eq!((creator(&typed), typed.consented), (Some("erin"), true));
    assert_eq!(typed.types, ["dev.capstan.iam.group.", "dev.capstan.iam.role."], "sorted");
    // The same sink again makes its setter the creator, too, and needs no other consent.
    let same = updated(&mut world, "alice", &resubscribe(id, |one| one.sink = Some(SINK.into())));
    assert_eq!((creator(&same), same.consented), (Some("alice"), true));
    let other = "https://example.com/other".to_owned();
    let moved = updated(&mut world, "erin", &resubscribe(id, |one| one.sink = Some(other)));
    assert_eq!((creator(&moved), moved.consented), (Some("erin"), false));
    // A challenge for the sink of before is none for this one, nor for another subscription of the same id.
    let refusal = refused(&world, "alice", &set_subscription(&same, SubscriptionState::Consented));
    assert_eq!(invalid(&refusal), "challenge");
    let earlier =
        Subscription { meta: capstan_iam::Meta { created: 1, ..moved.meta }, ..moved.clone() };
    let refusal =
        refused(&world, "alice", &set_subscription(&earlier, SubscriptionState::Consented));
    assert_eq!(invalid(&refusal), "challenge");
    let missing = refused(&world, "bob", &set_subscription(&moved, SubscriptionState::Consented));
    misses(&missing, None, "acme", &["subscriptions.update"]);
    does(&mut world, "alice", &set_subscription(&moved, SubscriptionState::Consented));
}

#[test]
fn what_the_server_says_ends_with_what_somebody_says() {
    let mut world = acme();
    let one = made(&mut world, &actor("alice"), new("acme"));
    let id = one.id.as_str();
    let state = SubscriptionState::Disabled("the sink answered 410 Gone".into());
    done(&mut world, &Actor::Operator, &set_subscription(&one, state));
    let Some(Object::Subscription(off)) = world.object(Kind::Subscription, id) else { panic!() };
    assert_eq!((off.disabled, &*off.disabled_reason), (true, "the sink answered 410 Gone"));
    let named = updated(&mut world, "alice", &resubscribe(id, |one| one.name = Some("x".into())));
    assert!(!named.disabled_reason.is_empty());
    let on = updated(&mut world, "alice", &resubscribe(id, |one| one.disabled = Some(false)));
    assert_eq!((on.disabled, &*on.disabled_reason), (false, ""));
}

#[test]
fn subscriptions_go_with_their_group() {
    let mut world = acme();
    let one = made(&mut world, &actor("alice"), new("acme/shop"));
    does(&mut world, "alice", &role("acme/gardener", &["groups.delete", "groups.list"]));
    does(&mut world, "alice", &bind("mallory", "acme/gardener", "acme"));
    let refusal = refused(&world, "mallory", &delete_group("acme/shop"));
    misses(&refusal, None, "acme/shop", &["subscriptions.delete"]);
    does(&mut world, "alice", &delete_group("acme/shop"));
    assert!(!exists(&world, Kind::Subscription, one.id.as_str()));
    let named = CreateSubscription { id: Some(path("acme/x")), ..new("acme") };
    made(&mut world, &actor("alice"), named);
    let refusal = refused(&world, "alice", &folder("acme/x"));
    assert_eq!(reason(&refusal), "ALREADY_EXISTS");
}
