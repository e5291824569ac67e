//! Subscriptions of an attacker, and of those whose rights it would like to be told by.

use capstan_iam::{Incarnation, Kind, Object, ObjectChange, Operation, SubscriptionState};
use capstan_testkit::managed::Managed;
use capstan_testkit::managed::operations::{
    path, resubscribe, set_subscription, subscribe, unsubscribe,
};
use fastrand::Rng;

use super::draw::{META, ids, one_in, pick};

/// Where subscriptions deliver to.
const SINKS: [&str; 2] = ["https://acme.example/hook", "https://mallory.example/hook"];

/// Puts a few into a world: whoever of it made them, the attacker did not.
pub(super) fn put(rng: &mut Rng, world: &mut Managed, groups: &[String], own: &[String]) {
    let identities = ids(world, Kind::Identity);
    let others: Vec<_> = identities.into_iter().filter(|id| !own.contains(id)).collect();
    for group in groups {
        if others.is_empty() || !one_in(rng, 3) {
            continue;
        }
        let creator = Incarnation { id: path(&pick(rng, &others)), created: META.created };
        world
            .put(Object::Subscription(capstan_iam::Subscription {
                id: path(&format!("{group}/hook")),
                name: String::new(),
                description: String::new(),
                sink: SINKS[0].into(),
                types: vec!["dev.capstan.iam.group.".into()],
                disabled: one_in(rng, 2),
                disabled_reason: String::new(),
                consented: one_in(rng, 2),
                creator: Some(creator),
                meta: META,
            }))
            .unwrap();
    }
}

/// Something that an attacker may try.
pub(super) fn operation(rng: &mut Rng, world: &Managed, scopes: &[String]) -> Operation {
    let known: Vec<_> = world
        .objects()
        .filter_map(|object| match object {
            Object::Subscription(one) => Some(one.clone()),
            _ => None,
        })
        .collect();
    if known.is_empty() || one_in(rng, 3) {
        return subscribe(&pick(rng, scopes), pick(rng, &SINKS));
    }
    let one = pick(rng, &known);
    let id = one.id.as_str();
    match rng.usize(..8) {
        0..2 => resubscribe(id, |update| update.sink = Some(pick(rng, &SINKS).into())),
        2..4 => resubscribe(id, |update| update.types = Some(vec![])),
        4 => resubscribe(id, |update| update.disabled = Some(!one.disabled)),
        5 => resubscribe(id, |update| update.name = Some("x".into())),
        6 => set_subscription(&one, SubscriptionState::Consented),
        _ => unsubscribe(id),
    }
}

/// X15: who says where events go, or which, is the one whose rights they are filtered by; and no consent to one sink is
/// one to another.
pub(super) fn told(before: &Managed, who: &str, change: &ObjectChange) -> Option<String> {
    let Some(Object::Subscription(new)) = &change.after else { return None };
    let old = match &change.before {
        Some(Object::Subscription(old)) => Some(old),
        _ => None,
    };
    let is_same = |old: &capstan_iam::Subscription| {
        (&old.sink, &old.types, &old.creator) == (&new.sink, &new.types, &new.creator)
    };
    let incarnation = match before.object(Kind::Identity, who) {
        Some(Object::Identity(one)) => {
            Some(Incarnation { id: one.id.clone(), created: one.meta.created })
        }
        _ => None,
    };
    if !old.is_some_and(is_same) && (incarnation.is_none() || new.creator != incarnation) {
        return Some(format!("is told by {} what {:?} sees", new.id, new.creator));
    }
    let is_moved = old.is_none_or(|old| old.sink != new.sink);
    (is_moved && new.consented).then(|| format!("{} tells a sink that did not consent", new.id))
}
