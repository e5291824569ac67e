//! Account associations (R9): one a group, and whoever makes or changes one covers the identities that it names.

use capstan_iam::limits::SERVICES_MAX;
use capstan_iam::{
    AccountAssociation, AccountAssociationUpdate, Actor, Cause, CreateAccountAssociation, Kind,
    Object, Operation, Response, Rule, UpdateAccountAssociation,
};
use capstan_testkit::managed::operations::*;
use capstan_testkit::managed::{Managed, after};

use crate::common::*;

fn made(world: &mut Managed, who: &str, operation: &Operation) -> AccountAssociation {
    match does(world, who, operation).response {
        Response::AccountAssociation(one) => one,
        other => panic!("{other:?}"),
    }
}

/// `acme` where mallory manages associations, and `acme/ci` pulls.
fn with_manager() -> Managed {
    let mut world = acme();
    let names = [
        "account_associations.create",
        "account_associations.delete",
        "account_associations.list",
        "account_associations.update",
        "groups.list",
    ];
    does(&mut world, "alice", &role("acme/linker", &names));
    does(&mut world, "alice", &bind("mallory", "acme/linker", "acme"));
    does(&mut world, "alice", &bind("acme/ci", "apk.pull", "acme/shop"));
    world
}

#[test]
fn an_owner_makes_changes_and_deletes_an_association() {
    let mut world = acme();
    let one = made(&mut world, "alice", &associate("acme/shop", &[("INGESTER", "acme/ci")]));
    assert_eq!((one.id.as_str(), one.accounts), ("acme/shop", aws("012345678901")));
    assert_eq!(one.services["INGESTER"].id.as_str(), "acme/ci");
    // It has the path of its group, and is no other object there.
    assert!(exists(&world, Kind::Group, "acme/shop"));
    let again = refused(&world, "alice", &associate("acme/shop", &[]));
    assert_eq!(reason(&again), "ALREADY_EXISTS");
    assert_eq!(again.to_string(), "`acme/shop` has an account association already");
    does(&mut world, "alice", &associate("acme", &[]));
    let after = made(&mut world, "alice", &reaccount("acme/shop", "999999999999"));
    assert_eq!((&after.accounts, &after.services), (&aws("999999999999"), &one.services));
    let none = AccountAssociationUpdate { aws: Some(None), ..Default::default() };
    let after = made(&mut world, "alice", &update_association("acme/shop", none.clone()));
    assert_eq!(after.accounts, Default::default());
    assert!(does(&mut world, "alice", &update_association("acme/shop", none)).is_unchanged());
    let stale = UpdateAccountAssociation {
        id: path("acme/shop"),
        update: AccountAssociationUpdate { name: Some("x".into()), ..Default::default() },
        etag: Some("0".into()),
    };
    let refusal = refused(&world, "alice", &Operation::UpdateAccountAssociation(stale));
    assert_eq!(reason(&refusal), "CONFLICT");
    does(&mut world, "alice", &disassociate("acme/shop"));
    assert_eq!(refused(&world, "alice", &disassociate("acme/shop")).told, Cause::NotFound);
    assert!(exists(&world, Kind::Group, "acme/shop"));
}

#[test]
fn who_may() {
    let world = acme();
    for (operation, missing) in [
        (associate("acme", &[]), "account_associations.create"),
        (reaccount("acme", "999999999999"), "account_associations.update"),
        (disassociate("acme"), "account_associations.delete"),
    ] {
        misses(&refused(&world, "bob", &operation), None, "acme", &[missing]);
        hides(&refused(&world, "gina", &operation), "acme", &[missing]);
    }
    assert_eq!(refused(&world, "alice", &associate("acme/none", &[])).told, Cause::NotFound);
    assert_eq!(refused(&world, "alice", &associate("acme/ci", &[])).told, Cause::NotFound);
}

/// R9: whoever names an identity, or changes whom it acts for, covers it.
#[test]
fn an_association_needs_what_its_identities_hold() {
    let mut world = with_manager();
    let rule = Some(Rule::IdentityProvider);
    let naming = associate("acme/shop", &[("x", "acme/ci")]);
    misses(&refused(&world, "mallory", &naming), rule, "acme/shop", &["apk.list"]);
    does(&mut world, "mallory", &associate("acme/shop", &[]));
    let named = rename_services("acme/shop", &[("x", "acme/ci")]);
    misses(&refused(&world, "mallory", &named), rule, "acme/shop", &["apk.list"]);
    does(&mut world, "alice", &named);
    for operation in [
        reaccount("acme/shop", "999999999999"),
        rename_services("acme/shop", &[]),
        rename_services("acme/shop", &[("y", "acme/ci")]),
        disassociate("acme/shop"),
    ] {
        misses(&refused(&world, "mallory", &operation), rule, "acme/shop", &["apk.list"]);
        assert!(world.judge(&actor("alice"), &operation).is_ok());
    }
    let texts = AccountAssociationUpdate { name: Some("x".into()), ..Default::default() };
    does(&mut world, "mallory", &update_association("acme/shop", texts));
    // What it links has no end (R14).
    done(&mut world, &Actor::Operator, &identity("acme/temp"));
    does(&mut world, "alice", &bind_until("acme/temp", "owner", "acme", after(100)));
    for operation in [associate("acme", &[]), reaccount("acme/shop", "999999999999")] {
        assert_eq!(reason(&refused(&world, "acme/temp", &operation)), "DURATION_EXCEEDED");
    }
    does(&mut world, "acme/temp", &disassociate("acme/shop"));
}

#[test]
fn whom_an_association_names() {
    let mut world = acme();
    done(&mut world, &Actor::Operator, &identity("globex/ci"));
    let field = "account_association.services[x]";
    let text = |world: &Managed, id: &str| {
        let refusal = refused_to(world, &Actor::Operator, &associate("acme/shop", &[("x", id)]));
        assert_eq!(invalid(&refusal), field, "{id}");
        refusal.to_string().replacen(id, "X", 1)
    };
    let absent = text(&world, "acme/none");
    for foreign in ["globex/ci", "alice", "nobody", "acme", "acme/shop"] {
        assert_eq!(text(&world, foreign), absent, "{foreign}");
    }
    let token = does(&mut world, "alice", &pull_token("acme", "apk.pull", None)).response;
    let Response::PullToken(token, _) = token else { panic!("no token") };
    let naming = associate("acme/shop", &[("x", token.identity.id.as_str())]);
    assert_eq!(reason(&refused(&world, "alice", &naming)), "PULL_TOKEN");
    // Of the whole organization, also from a folder.
    does(&mut world, "alice", &associate("acme/shop", &[("x", "acme/ci")]));
}

#[test]
fn fields_of_an_association() {
    let world = acme();
    let new = |change: fn(&mut CreateAccountAssociation)| {
        let mut new = CreateAccountAssociation {
            parent: path("acme"),
            name: String::new(),
            description: String::new(),
            accounts: aws("012345678901"),
            services: services(&[]),
        };
        change(&mut new);
        Operation::CreateAccountAssociation(new)
    };
    let cases: [(Operation, &str); 4] = [
        (new(|one| one.accounts = aws("1")), "aws.account"),
        (new(|one| one.name = "a\n".into()), "name"),
        (new(|one| one.services = services(&[("", "acme/ci")])), "services"),
        (
            new(|one| {
                let of = |at: usize| (format!("s{at}"), path("acme/ci"));
                one.services = (0..=SERVICES_MAX).map(of).collect();
            }),
            "services",
        ),
    ];
    for (operation, field) in cases {
        let refusal = refused(&world, "alice", &operation);
        assert_eq!(invalid(&refusal), format!("account_association.{field}"));
    }
    let bad = AccountAssociationUpdate {
        google: Some(Some(capstan_iam::Google {
            project_id: "x".into(),
            project_number: String::new(),
        })),
        ..Default::default()
    };
    let mut world = world;
    does(&mut world, "alice", &associate("acme", &[]));
    let refusal = refused(&world, "alice", &update_association("acme", bad));
    assert_eq!(invalid(&refusal), "account_association.google.project_id");
}

/// Deleting an identity is not kept from; one that is made again under its id is not the one that was named.
#[test]
fn an_association_names_the_identity_of_then() {
    let mut world = with_manager();
    does(&mut world, "alice", &associate("acme/shop", &[("x", "acme/ci")]));
    does(&mut world, "alice", &delete_identity("acme/ci"));
    does(&mut world, "alice", &identity("acme/ci"));
    does(&mut world, "alice", &bind("acme/ci", "owner", "acme"));
    // It resolves to nobody any more, so nothing is to be covered.
    does(&mut world, "mallory", &reaccount("acme/shop", "999999999999"));
    // Naming it again names the new one.
    let again = rename_services("acme/shop", &[("x", "acme/ci")]);
    assert_eq!(refused(&world, "mallory", &again).rule, Some(Rule::IdentityProvider));
    let Some(Object::AccountAssociation(before)) =
        world.object(Kind::AccountAssociation, "acme/shop").cloned()
    else {
        panic!("none")
    };
    let after = made(&mut world, "alice", &again);
    assert_ne!(after.services, before.services);
}

/// An association goes with its group, judged as its own delete.
#[test]
fn an_association_goes_with_its_group() {
    let mut world = with_manager();
    does(&mut world, "alice", &associate("acme/platform", &[("x", "acme/ci")]));
    does(&mut world, "alice", &role("acme/deleter", &["groups.delete", "role_bindings.delete"]));
    for who in ["erin", "mallory"] {
        does(&mut world, "alice", &bind(who, "acme/deleter", "acme"));
    }
    let operation = delete_group("acme/platform");
    let missing = ["account_associations.delete"];
    misses(&refused(&world, "erin", &operation), None, "acme/platform", &missing);
    let rule = Some(Rule::IdentityProvider);
    misses(&refused(&world, "mallory", &operation), rule, "acme/shop", &["apk.list"]);
    assert_eq!(does(&mut world, "alice", &operation).objects.len(), 2);
    assert!(!exists(&world, Kind::AccountAssociation, "acme/platform"));
    // The group that is made again has none.
    does(&mut world, "alice", &folder("acme/platform"));
    does(&mut world, "alice", &associate("acme/platform", &[]));
}

/// Its delete is no delete of the organization with the same path: the last owner stays.
#[test]
fn the_association_of_an_organization_is_not_the_organization() {
    let mut world = acme();
    does(&mut world, "alice", &associate("acme", &[]));
    let owner = id_of(&world, "alice", "owner", "acme");
    assert_eq!(reason(&refused(&world, "alice", &unbind(&owner))), "LAST_OWNER");
    does(&mut world, "alice", &disassociate("acme"));
    assert_eq!(reason(&refused(&world, "alice", &unbind(&owner))), "LAST_OWNER");
}

#[test]
fn associations_are_seen_by_who_may_list_them() {
    let mut world = acme();
    does(&mut world, "alice", &associate("acme/shop", &[]));
    for who in ["alice", "bob", "erin"] {
        assert_eq!(world.list(&actor(who), Kind::AccountAssociation), ["acme/shop"], "{who}");
        assert!(world.get(&actor(who), Kind::AccountAssociation, "acme/shop").is_ok());
    }
    assert_eq!(world.list(&actor("gina"), Kind::AccountAssociation), [""; 0]);
    let refusal = world.get(&actor("gina"), Kind::AccountAssociation, "acme/shop").unwrap_err();
    hides(&refusal, "acme/shop", &["account_associations.list"]);
}
