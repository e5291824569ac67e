//! Mappings of groups of identity providers to roles (R1, R9): each is as a role binding of whoever is in the group.

use capstan_iam::limits::MAPPINGS_MAX;
use capstan_iam::{
    Actor, Cause, CreateGroupRoleMapping, GroupRoleMapping, Kind, Meta, Object, Operation,
    Response, Rule, UpdateGroupRoleMapping,
};
use capstan_testkit::managed::operations::*;
use capstan_testkit::managed::{Managed, T0, after};

use crate::common::*;

const OKTA: &str = "https://acme.okta.example";

/// `acme` with a provider, where mallory maps what it holds, and may bind at the shop.
fn with_provider() -> Managed {
    let mut world = acme();
    does(&mut world, "alice", &provider("acme/okta", OKTA, None));
    let names = [
        "groups.list",
        "identity_providers.create",
        "identity_providers.delete",
        "identity_providers.list",
        "identity_providers.update",
    ];
    does(&mut world, "alice", &role("acme/idp-admin", &names));
    does(&mut world, "alice", &bind("mallory", "acme/idp-admin", "acme"));
    does(&mut world, "alice", &role("acme/binder", &["role_bindings.create"]));
    does(&mut world, "alice", &bind("mallory", "acme/binder", "acme/shop"));
    world
}

fn made(world: &mut Managed, who: &str, operation: &Operation) -> GroupRoleMapping {
    match does(world, who, operation).response {
        Response::GroupRoleMapping(mapping) => mapping,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_mapping_gives_what_its_maker_holds() {
    let mut world = with_provider();
    let rule = Some(Rule::IdentityProvider);
    let owners = map("acme/okta", "admins", "owner", "acme/shop");
    let refusal = refused(&world, "mallory", &owners);
    assert_eq!(refusal.rule, rule);
    assert!(refusal.missing().1.iter().any(|one| one == "role_bindings.delete"));
    misses(
        &refused(&world, "mallory", &map("acme/okta", "pullers", "apk.pull", "acme/shop")),
        rule,
        "acme/shop",
        &["apk.list"],
    );
    // Both capabilities, each at its place.
    let elsewhere = map("acme/okta", "pullers", "apk.pull", "acme/platform");
    misses(
        &refused(&world, "mallory", &elsewhere),
        None,
        "acme/platform",
        &["role_bindings.create"],
    );
    misses(&refused(&world, "bob", &elsewhere), None, "acme/okta", &["identity_providers.create"]);
    does(&mut world, "alice", &bind("mallory", "apk.pull", "acme/shop"));
    let one = made(&mut world, "mallory", &map("acme/okta", "pullers", "apk.pull", "acme/shop"));
    assert_eq!(one.provider().as_str(), "acme/okta");
    assert_eq!(one.creator.map(|one| one.id), Some(path("mallory")));
    // Whose right ends gives nothing for ever (R14).
    done(&mut world, &Actor::Operator, &identity("acme/temp"));
    does(&mut world, "alice", &bind_until("acme/temp", "owner", "acme", after(100)));
    let refusal = refused(&world, "acme/temp", &elsewhere);
    assert_eq!(reason(&refusal), "DURATION_EXCEEDED");
    // Nor does a right to make mappings that ends, which is of the organization.
    done(&mut world, &Actor::Operator, &identity("acme/lead"));
    does(&mut world, "alice", &bind("acme/lead", "owner", "acme/platform"));
    does(&mut world, "alice", &bind_until("acme/lead", "owner", "acme", after(100)));
    let refusal = refused(&world, "acme/lead", &elsewhere);
    assert_eq!(reason(&refusal), "DURATION_EXCEEDED");
    does(&mut world, "alice", &owners);
    // The provider's keys decide who is an owner from now on.
    let refusal = refused(&world, "mallory", &rekey("acme/okta", "2"));
    assert_eq!(refusal.rule, rule);
    does(&mut world, "alice", &rekey("acme/okta", "2"));
    // Taking away needs it, too (R17), alone and with the provider.
    let id = world.list(&actor("alice"), Kind::GroupRoleMapping);
    let of_owner = |id: &&String| matches!(world.object(Kind::GroupRoleMapping, id), Some(Object::GroupRoleMapping(one)) if &*one.role == "owner");
    let of_owner = id.iter().find(of_owner).unwrap().clone();
    for operation in [unmap(&of_owner), delete_provider("acme/okta")] {
        let refusal = refused(&world, "mallory", &operation);
        assert_eq!(refusal.rule, Some(Rule::Delete), "{operation:?}");
    }
    let outcome = does(&mut world, "alice", &delete_provider("acme/okta"));
    assert_eq!(outcome.objects.len(), 3);
    assert_eq!(world.list(&Actor::Operator, Kind::GroupRoleMapping), [""; 0]);
}

#[test]
fn fields_of_a_mapping() {
    let mut world = with_provider();
    let new = |change: fn(&mut CreateGroupRoleMapping)| {
        let mut new = new_mapping("acme/okta", "admins", "viewer", "acme/shop");
        change(&mut new);
        Operation::CreateGroupRoleMapping(new)
    };
    let of = |field: &str| format!("group_role_mapping.{field}");
    does(&mut world, "alice", &role("acme/platform/r", &[]));
    let cases: [(Operation, String); 9] = [
        (new(|one| one.external_group = String::new()), of("external_group")),
        (new(|one| one.external_group = "a\n".into()), of("external_group")),
        (new(|one| one.role = "nobody".into()), of("role")),
        (new(|one| one.role = "acme/platform/r".into()), of("role")),
        (new(|one| one.scope = path("globex")), of("scope")),
        (new(|one| one.scope = path("acme/none")), of("scope")),
        (new(|one| one.scope = path("acme/ci")), of("scope")),
        (new(|one| one.name = "a\n".into()), of("name")),
        (new(|one| one.id = Some(path("acme/x"))), of("id")),
    ];
    for (operation, field) in cases {
        assert_eq!(invalid(&refused(&world, "alice", &operation)), field, "{operation:?}");
    }
    // A group that is absent and one that is foreign are told alike.
    let text = |scope: &str| {
        let refusal = refused(&world, "alice", &map("acme/okta", "admins", "viewer", scope));
        refusal.to_string().replace(scope, "X")
    };
    assert_eq!(text("globex"), text("acme/none"));
    let nowhere = map("acme/none", "admins", "viewer", "acme");
    assert_eq!(refused(&world, "alice", &nowhere).told, Cause::NotFound);
    // The same again.
    let one = made(&mut world, "alice", &map("acme/okta", "admins", "viewer", "acme/shop"));
    let again = refused(&world, "alice", &map("acme/okta", "admins", "viewer", "acme/shop"));
    assert_eq!(reason(&again), "ALREADY_EXISTS");
    assert_eq!(again.to_string(), format!("`{}` has this group, role and scope already", one.id));
    for other in [
        map("acme/okta", "Admins", "viewer", "acme/shop"),
        map("acme/okta", "admins", "editor", "acme/shop"),
        map("acme/okta", "admins", "viewer", "acme"),
    ] {
        does(&mut world, "alice", &other);
    }
}

#[test]
fn only_the_texts_of_a_mapping_change() {
    let mut world = with_provider();
    let one = made(&mut world, "alice", &map("acme/okta", "admins", "owner", "acme"));
    let id = one.id.as_str();
    let with = |change: fn(&mut UpdateGroupRoleMapping)| {
        let mut update = remapping(id);
        change(&mut update);
        Operation::UpdateGroupRoleMapping(update)
    };
    for (operation, field) in [
        (with(|one| one.identity_provider = Some("acme/x".into())), "identity_provider"),
        (with(|one| one.external_group = Some("x".into())), "external_group"),
        (with(|one| one.role = Some("viewer".into())), "role"),
        (with(|one| one.scope = Some("acme/shop".into())), "scope"),
    ] {
        let refusal = refused_to(&world, &Actor::Operator, &operation);
        assert_eq!(invalid(&refusal), format!("group_role_mapping.{field}"));
    }
    let named = with(|one| {
        one.name = Some("Admins".into());
        one.identity_provider = Some("acme/okta".into());
        one.external_group = Some("admins".into());
        one.role = Some("owner".into());
        one.scope = Some("acme".into());
    });
    // No more than the capability: nothing that it gives changes.
    let after = made(&mut world, "mallory", &named);
    assert_eq!(&*after.name, "Admins");
    assert_eq!(GroupRoleMapping { name: String::new(), meta: one.meta, ..after }, one);
    misses(&refused(&world, "bob", &named), None, "acme/okta", &["identity_providers.update"]);
}

/// The mappings to a group go with it, each judged as its own delete.
#[test]
fn a_mapping_goes_with_its_scope() {
    let mut world = with_provider();
    does(&mut world, "alice", &map("acme/okta", "a", "apk.pull", "acme/shop"));
    does(&mut world, "alice", &map("acme/okta", "a", "apk.pull", "acme"));
    does(&mut world, "alice", &role("acme/deleter", &["groups.delete", "role_bindings.delete"]));
    does(&mut world, "alice", &bind("erin", "acme/deleter", "acme"));
    // The only other binding there is erin's to give up.
    let binder = id_of(&world, "mallory", "acme/binder", "acme/shop");
    does(&mut world, "alice", &unbind(&binder));
    let refusal = refused(&world, "erin", &delete_group("acme/shop"));
    misses(&refusal, None, "acme/okta", &["identity_providers.delete"]);
    does(&mut world, "alice", &bind("mallory", "acme/deleter", "acme"));
    let refusal = refused(&world, "mallory", &delete_group("acme/shop"));
    misses(&refusal, Some(Rule::Delete), "acme/shop", &["apk.list"]);
    let outcome = does(&mut world, "alice", &delete_group("acme/shop"));
    assert_eq!(outcome.objects.len(), 2);
    assert_eq!(world.list(&Actor::Operator, Kind::GroupRoleMapping).len(), 1);
}

/// ROLE_IN_USE counts mappings, and a mapping names the role and its maker as they were.
#[test]
fn a_mapping_names_the_role_and_the_creator_of_then() {
    let mut world = with_provider();
    does(&mut world, "alice", &role("acme/r", &["repo.list"]));
    let one = made(&mut world, "alice", &map("acme/okta", "a", "acme/r", "acme"));
    let created = |kind, id| world.object(kind, id).unwrap().meta().created;
    assert_eq!(one.role_created, Some(created(Kind::Role, "acme/r")));
    assert_eq!(one.creator.as_ref().unwrap().created, created(Kind::Identity, "alice"));
    assert_eq!(reason(&refused(&world, "alice", &delete_role("acme/r"))), "ROLE_IN_USE");
    does(&mut world, "alice", &unmap(one.id.as_str()));
    does(&mut world, "alice", &delete_role("acme/r"));
}

#[test]
fn a_provider_has_so_many_mappings() {
    let mut world = with_provider();
    for at in 1..MAPPINGS_MAX {
        let mapping = GroupRoleMapping {
            id: path(&format!("acme/okta/m{at}")),
            name: String::new(),
            description: String::new(),
            external_group: at.to_string(),
            role: "viewer".into(),
            role_created: None,
            scope: path("acme"),
            creator: None,
            meta: Meta::new(1, T0),
        };
        world.put(Object::GroupRoleMapping(mapping)).unwrap();
    }
    let more = |group: &str| map("acme/okta", group, "viewer", "acme");
    done(&mut world, &Actor::Operator, &more("x"));
    for who in [actor("alice"), Actor::Operator] {
        assert_eq!(invalid(&refused_to(&world, &who, &more("y"))), "parent");
    }
    does(&mut world, "alice", &provider("acme/dex", "https://dex.example", None));
    does(&mut world, "alice", &map("acme/dex", "y", "viewer", "acme"));
}

#[test]
fn mappings_are_seen_by_who_may_list_providers() {
    let mut world = with_provider();
    let one = made(&mut world, "alice", &map("acme/okta", "a", "viewer", "acme/shop"));
    let id = one.id.as_str();
    for who in ["alice", "bob", "mallory"] {
        assert_eq!(world.list(&actor(who), Kind::GroupRoleMapping), [id], "{who}");
    }
    assert_eq!(world.list(&actor("gina"), Kind::GroupRoleMapping), [""; 0]);
    let refusal = world.get(&actor("gina"), Kind::GroupRoleMapping, id).unwrap_err();
    hides(&refusal, "acme/okta", &["identity_providers.list"]);
}
