//! The text of a refusal says what is missing, where, by which rule and who could do it, to those that may know; the audit
//! says it always.

use capstan_iam::limits::WHO_COULD_MAX;
use capstan_iam::{Actor, Rule};
use capstan_testkit::managed::after;
use capstan_testkit::managed::operations::*;

use crate::common::*;

#[test]
fn a_refusal_is_told_in_words() {
    let mut world = acme();
    does(&mut world, "alice", &role("acme/r", &["repo.list"]));
    does(&mut world, "alice", &bind("bob", "acme/r", "acme/shop"));
    done(&mut world, &Actor::Operator, &identity("temp"));
    does(&mut world, "alice", &bind_until("temp", "owner", "acme", after(60)));
    let owner = id_of(&world, "alice", "owner", "acme");
    let texts = [
        ("bob", folder("acme/x"), "missing `groups.create` at `acme`; `alice`, `temp` could do it"),
        (
            "temp",
            bind("erin", "apk.pull", "acme/shop"),
            "your own right at `acme/shop` ends at 2026-01-01T00:01:00Z, and what you give would last longer (R14: what is granted ends \
             when the granter's own right ends)",
        ),
        (
            "alice",
            unbind(&owner),
            "`acme` would have no owner any more, make another one first (R11: an organization keeps an owner)",
        ),
        (
            "alice",
            delete_group("acme"),
            "`acme` is not empty, delete what is below it first: there is a group",
        ),
        (
            "alice",
            delete_role("acme/r"),
            "role `acme/r` is still in use, delete its role bindings, invites and group role mappings first, and let no identity \
             provider have it as default role",
        ),
        (
            "alice",
            delete_role("viewer"),
            "role `viewer` is built in and cannot be changed, create a custom role instead",
        ),
        ("alice", folder("acme/shop"), "`acme/shop` exists already"),
        (
            "alice",
            bind("bob", "viewer", "acme"),
            "the identity has this role at `acme` already, with the same conditions",
        ),
        (
            "alice",
            bind("bob", "acme/none", "acme"),
            "role_binding.role: no role `acme/none` can be bound at `acme`",
        ),
        (
            "alice",
            organization("initech", "alice"),
            "only the operator may do this (R12: organizations are made by the operator, each with an owner)",
        ),
        ("nobody", folder("acme/x"), "the caller is not authenticated"),
        ("gina", folder("acme/x"), "not found"),
    ];
    for (who, operation, text) in texts {
        assert_eq!(refused(&world, who, &operation).to_string(), text);
    }
}

#[test]
fn a_refusal_in_a_batch_names_the_item() {
    let mut world = acme();
    does(&mut world, "alice", &role("acme/granter", &["groups.list", "role_bindings.create"]));
    does(&mut world, "alice", &bind("mallory", "acme/granter", "acme"));
    let batch = vec![binding("erin", "acme/none", "acme"), binding("bob", "apk.pull", "acme")];
    let refusal = refused(&world, "mallory", &bind_all("acme", batch));
    assert_eq!(invalid(&refusal), "role_bindings[0].role");
    let batch = vec![binding("erin", "apk.pull", "acme"), binding("bob", "owner", "acme")];
    let refusal =
        refused(&world, "alice", &bind_all("acme", vec![binding("bob", "viewer", "acme")]));
    assert!(refusal.to_string().starts_with("role_bindings[0]: the identity has"), "{refusal}");
    does(&mut world, "alice", &role("acme/apk", &["apk.list"]));
    does(&mut world, "alice", &bind("mallory", "acme/apk", "acme"));
    let refusal = refused(&world, "mallory", &bind_all("acme", batch));
    assert!(refusal.to_string().starts_with("role_bindings[1]: missing "), "{refusal}");
    let id = id_of(&world, "alice", "owner", "acme");
    let refusal = refused(&world, "gina", &unbind_all("acme", &[&id]));
    assert_eq!(refusal.to_string(), "not found");
    assert_eq!(refusal.audit_text(), "missing `role_bindings.delete` at `acme`");
}

#[test]
fn those_who_could_are_few_active_and_seen() {
    let mut world = acme();
    for at in 0..5 {
        let id = format!("acme/o{at}");
        does(&mut world, "alice", &identity(&id));
        does(&mut world, "alice", &bind(&id, "owner", "acme"));
    }
    does(&mut world, "alice", &disable("acme/o0", true));
    does(&mut world, "alice", &bind_when("acme/ci", "owner", "acme", equals("context.x", "1")));
    does(&mut world, "alice", &bind_until("erin", "owner", "acme", after(0)));
    let refusal = refused(&world, "bob", &folder("acme/x"));
    let could: Vec<_> = refusal.who_could.iter().map(|id| id.as_str()).collect();
    assert_eq!(could, ["acme/o1", "acme/o2", "acme/o3"]);
    assert_eq!(could.len(), WHO_COULD_MAX);
    // Who sees only a folder's bindings is told of those only.
    does(&mut world, "alice", &bind("mallory", "viewer", "acme/shop"));
    assert!(refused(&world, "mallory", &folder("acme/shop/x")).who_could.is_empty());
    does(&mut world, "alice", &bind("acme/ci", "owner", "acme/shop"));
    assert_eq!(refused(&world, "mallory", &folder("acme/shop/x")).who_could, [path("acme/ci")]);
}

/// What the caller is not told, the audit has: the rule, what is missing and where.
#[test]
fn the_audit_has_what_is_hidden() {
    let mut world = acme();
    does(&mut world, "alice", &role("acme/granter", &["role_bindings.create"]));
    does(&mut world, "alice", &bind("mallory", "acme/granter", "acme"));
    let refusal = refused(&world, "mallory", &bind("mallory", "apk.pull", "acme"));
    hides(&refusal, "acme", &["apk.list", "groups.list"]);
    assert_eq!(refusal.rule, Some(Rule::Grant));
    assert_eq!(refusal.audit_text(), "missing `apk.list`, `groups.list` at `acme` [R1]");
    let (scope, missing) = refusal.missing();
    assert_eq!((scope, missing.len()), (Some(&path("acme")), 2));
}
