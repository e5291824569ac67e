//! What a credential gives beside role bindings (R9): by what promises, where, and until when.

use std::sync::Arc;

use capstan_iam::{
    Actor, Incarnation, Kind, Object, Operation, Rule, Session, SessionGrant,
    UpdateIdentityProvider,
};
use capstan_testkit::managed::operations::*;
use capstan_testkit::managed::{Managed, after};

use crate::common::*;

const OKTA: &str = "https://acme.okta.example";
/// Seconds for which the credential counts.
const SECONDS: i64 = 600;

/// `acme` with a provider whose default role is `viewer`, and whose group `staff` names what is in the shop.
fn with_mapping() -> Managed {
    let mut world = acme();
    does(&mut world, "alice", &role("acme/namer", &["groups.list", "groups.update"]));
    does(&mut world, "alice", &provider("acme/okta", OKTA, Some("viewer")));
    does(&mut world, "alice", &map("acme/okta", "staff", "acme/namer", "acme/shop"));
    world
}

fn created(world: &Managed, kind: Kind, id: &str) -> Incarnation {
    let created = match world.object(kind, id).unwrap() {
        Object::IdentityProvider(one) => one.meta.created,
        Object::GroupRoleMapping(one) => one.meta.created,
        other => panic!("{other:?}"),
    };
    Incarnation { id: path(id), created }
}

fn mapping(world: &Managed) -> String {
    let is_mapping = |object: &&Object| object.kind() == Kind::GroupRoleMapping;
    world.objects().find(is_mapping).unwrap().id().to_string()
}

fn grant(source: Incarnation, role: &str, scope: &str) -> SessionGrant {
    SessionGrant { source, role: role.into(), scope: path(scope) }
}

/// An identity with these roles of its credential.
fn with(who: &str, grants: Vec<SessionGrant>) -> Actor {
    let session = Some(Arc::new(Session { grants, ends: after(SECONDS) }));
    Actor::Identity { id: path(who), email: None, session, narrowing: None }
}

/// With what the provider of [`with_mapping`] gives.
fn staff(world: &Managed, who: &str) -> Actor {
    let default = created(world, Kind::IdentityProvider, "acme/okta");
    let mapped = created(world, Kind::GroupRoleMapping, &mapping(world));
    with(who, vec![grant(default, "viewer", "acme"), grant(mapped, "acme/namer", "acme/shop")])
}

fn sees(world: &Managed, who: &Actor) -> Vec<String> {
    world.list(who, Kind::Group)
}

#[test]
fn roles_of_a_credential_count_where_they_are_given() {
    let mut world = with_mapping();
    let mallory = staff(&world, "mallory");
    assert_eq!(sees(&world, &actor("mallory")), [""; 0], "not without the credential");
    assert_eq!(sees(&world, &mallory), ["acme", "acme/platform", "acme/shop"]);
    let given = world.reader(&mallory).unwrap().given();
    let scopes: Vec<_> = given.iter().map(|(scope, _)| scope.as_str()).collect();
    assert_eq!(scopes, ["acme", "acme/shop"]);
    let rename = |id: &str| rename_group(id, "x");
    done(&mut world, &mallory, &rename("acme/shop"));
    for elsewhere in ["acme", "acme/platform"] {
        assert_eq!(reason(&refused_to(&world, &mallory, &rename(elsewhere))), "MISSING_CAPABILITY");
    }
    // Nobody else has it, and it is no binding.
    assert_eq!(bindings_of(&world, "mallory"), 0);
    assert!(world.judge(&actor("mallory"), &rename("acme/shop")).is_err());
}

#[test]
fn what_is_promised_no_more_gives_nothing() {
    let world = with_mapping();
    let who = staff(&world, "mallory");
    let edits = |world: &Managed| world.judge(&who, &rename_group("acme/shop", "x")).is_ok();
    let views = |world: &Managed| !sees(world, &who).is_empty();
    assert!(edits(&world) && views(&world));

    // The mapping is deleted, and made again: that is another one.
    let mut changed = with_mapping();
    let mapped = mapping(&changed);
    does(&mut changed, "alice", &unmap(&mapped));
    assert!(!edits(&changed) && views(&changed));
    does(&mut changed, "alice", &map("acme/okta", "staff", "acme/namer", "acme/shop"));
    assert!(!edits(&changed));

    // The default role is taken away, or replaced.
    let mut changed = with_mapping();
    for role in [None, Some("editor")] {
        let update = capstan_iam::IdentityProviderUpdate {
            default_role: Some(role.map(Into::into)),
            ..Default::default()
        };
        let update = UpdateIdentityProvider { id: path("acme/okta"), update, etag: None };
        does(&mut changed, "alice", &Operation::UpdateIdentityProvider(update));
        let default_only =
            grant(created(&world, Kind::IdentityProvider, "acme/okta"), "viewer", "acme");
        assert!(sees(&changed, &with("mallory", vec![default_only])).is_empty(), "{role:?}");
    }

    // The provider goes with its mappings.
    let mut changed = with_mapping();
    does(&mut changed, "alice", &delete_provider("acme/okta"));
    assert!(!edits(&changed) && !views(&changed));

    // A claim that nobody promised: another role, another scope, another source.
    let mapped = created(&world, Kind::GroupRoleMapping, &mapping(&world));
    let default = created(&world, Kind::IdentityProvider, "acme/okta");
    for grant in [
        grant(mapped.clone(), "owner", "acme/shop"),
        grant(mapped.clone(), "acme/namer", "acme"),
        grant(default.clone(), "viewer", "globex"),
        grant(
            Incarnation { created: mapped.created + 1, ..mapped.clone() },
            "acme/namer",
            "acme/shop",
        ),
        grant(Incarnation { id: path("acme/shop"), created: 1 }, "acme/namer", "acme/shop"),
    ] {
        assert!(sees(&world, &with("mallory", vec![grant])).is_empty());
    }
}

/// A custom role that was deleted and made again is not the one that was promised.
#[test]
fn a_role_of_a_credential_is_the_one_that_was_promised() {
    let mut world = acme();
    does(&mut world, "alice", &provider("acme/okta", OKTA, None));
    does(&mut world, "alice", &role("acme/lister", &["groups.list"]));
    does(&mut world, "alice", &map("acme/okta", "staff", "acme/lister", "acme"));
    let mapped = created(&world, Kind::GroupRoleMapping, &mapping(&world));
    let who = with("mallory", vec![grant(mapped, "acme/lister", "acme")]);
    assert_eq!(sees(&world, &who).len(), 3);
    // What the role holds now counts.
    does(&mut world, "alice", &update_role("acme/lister", &["groups.list", "groups.update"]));
    assert!(world.judge(&who, &rename_group("acme/shop", "x")).is_ok());
    let mapped = mapping(&world);
    does(&mut world, "alice", &unmap(&mapped));
    does(&mut world, "alice", &delete_role("acme/lister"));
    does(&mut world, "alice", &role("acme/lister", &["groups.list"]));
    assert!(sees(&world, &who).is_empty());
}

/// R14: a session ends, and what is granted with it ends by then.
#[test]
fn what_is_granted_with_a_credential_ends_with_it() {
    let mut world = acme();
    does(&mut world, "alice", &provider("acme/okta", OKTA, Some("owner")));
    let default = created(&world, Kind::IdentityProvider, "acme/okta");
    let who = with("mallory", vec![grant(default.clone(), "owner", "acme")]);
    let refusal = refused_to(&world, &who, &bind("bob", "editor", "acme"));
    assert_eq!((refusal.rule, reason(&refusal)), (Some(Rule::Duration), "DURATION_EXCEEDED"));
    let late = bind_until("bob", "editor", "acme", after(SECONDS + 1));
    assert_eq!(reason(&refused_to(&world, &who, &late)), "DURATION_EXCEEDED");
    done(&mut world, &who, &bind_until("bob", "editor", "acme", after(SECONDS)));
    // What a binding gives without end, the credential does not end.
    let alice = with("alice", vec![grant(default, "owner", "acme")]);
    done(&mut world, &alice, &bind("erin", "viewer", "acme/shop"));
    world.now = after(SECONDS);
    assert!(sees(&world, &who).is_empty());
    assert_eq!(sees(&world, &alice).len(), 3, "its binding counts on");
}

/// A credential registers nobody and enables nobody, and an owner by a credential is none of the organization's.
#[test]
fn a_credential_gives_nothing_to_who_is_not_there() {
    let mut world = with_mapping();
    for who in ["nobody", "mallory"] {
        if who == "mallory" {
            done(&mut world, &Actor::Operator, &disable("mallory", true));
        }
        let staff = staff(&world, who);
        assert_eq!(reason(&world.reader(&staff).unwrap_err()), "AUTHN_FAILED", "{who}");
    }
    does(&mut world, "alice", &provider("acme/dex", "https://dex.example", Some("owner")));
    let default = created(&world, Kind::IdentityProvider, "acme/dex");
    let bob = with("bob", vec![grant(default, "owner", "acme")]);
    let last = id_of(&world, "alice", "owner", "acme");
    assert_eq!(reason(&refused_to(&world, &bob, &unbind(&last))), "LAST_OWNER");
}
