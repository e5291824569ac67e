//! Section 6 of the contract, line by line: codes, order of checks, cascades, structure.

use capstan_engine::{CONDITIONS_MAX, Properties, Value};
use capstan_iam::limits::{BATCH_BINDINGS_MAX, PROPERTIES_MAX, PROPERTY_BYTES_MAX, TEXT_BYTES_MAX};
use capstan_iam::{
    Actor, Cause, CreateGroup, CreateIdentity, Delete, IdentityUpdate, Kind, NewRoleBinding,
    Object, Operation, Response, RoleBinding, Rule, UpdateGroup, UpdateRoleBinding,
    derived_identity_id,
};
use capstan_testkit::managed::operations::*;
use capstan_testkit::managed::{Managed, after};

use crate::common::*;

// === Groups ===

#[test]
fn organizations_are_the_operators_and_need_an_owner() {
    let mut world = acme();
    let refusal = refused(&world, "alice", &organization("initech", "alice"));
    assert_eq!((reason(&refusal), refusal.rule), ("OPERATOR_ONLY", Some(Rule::Organization)));
    let without = Operation::CreateGroup(CreateGroup {
        parent: None,
        id: Some(path("initech")),
        name: String::new(),
        description: String::new(),
        owner: None,
    });
    assert_eq!(invalid(&refused_to(&world, &Actor::Operator, &without)), "owner");
    for owner in ["nobody", "acme/ci", "acme"] {
        let refusal = refused_to(&world, &Actor::Operator, &organization("initech", owner));
        assert_eq!(invalid(&refusal), "owner");
    }
    let outcome = done(&mut world, &Actor::Operator, &organization("initech", "bob"));
    assert_eq!(
        outcome.objects.len(),
        2,
        "the organization and its first owner, in one transaction"
    );
    assert_eq!(found(&world, "bob", "owner", "initech").meta.created, world.revision());
    let folder_with_owner = Operation::CreateGroup(CreateGroup {
        parent: Some(path("acme")),
        id: None,
        name: String::new(),
        description: String::new(),
        owner: Some(path("bob")),
    });
    assert_eq!(invalid(&refused(&world, "alice", &folder_with_owner)), "owner");
}

#[test]
fn ids_are_made_unless_they_are_given() {
    let mut world = acme();
    let unnamed = |parent: Option<&str>, owner: Option<&str>| {
        Operation::CreateGroup(CreateGroup {
            parent: parent.map(path),
            id: None,
            name: String::new(),
            description: String::new(),
            owner: owner.map(path),
        })
    };
    let made = |outcome: capstan_iam::Outcome| match outcome.response {
        Response::Group(group) => group.id.as_str().to_owned(),
        other => panic!("{other:?}"),
    };
    let is_hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let root = made(done(&mut world, &Actor::Operator, &unnamed(None, Some("alice"))));
    assert!(root.len() == 40 && is_hex(&root), "{root}");
    let below = made(does(&mut world, "alice", &unnamed(Some("acme"), None)));
    let last = below.strip_prefix("acme/").unwrap();
    assert!(last.len() == 16 && is_hex(last), "{below}");
    for bad in ["acme/a/b", "globex/a", "acme"] {
        let operation = Operation::CreateGroup(CreateGroup {
            parent: Some(path("acme")),
            id: Some(path(bad)),
            name: String::new(),
            description: String::new(),
            owner: None,
        });
        assert_eq!(invalid(&refused(&world, "alice", &operation)), "group.id", "{bad}");
    }
    // Paths are unique across all kinds.
    let id = id_of(&world, "bob", "viewer", "acme");
    for taken in ["acme/platform", "acme/ci", &id] {
        let refusal = refused(&world, "alice", &folder(taken));
        assert_eq!(reason(&refusal), "ALREADY_EXISTS", "{taken}");
    }
}

/// The capability is judged on the path before existence is: who lacks it cannot tell what exists.
#[test]
fn hidden_and_absent_are_one() {
    let world = acme();
    let operations = |group: &str| {
        let below = format!("{group}/x");
        [
            rename_group(group, "x"),
            delete_group(group),
            folder(&below),
            role(&below, &["repo.list"]),
            update_role(&below, &["repo.list"]),
            delete_role(&below),
            identity(&below),
            disable(&below, true),
            delete_identity(&below),
            bind("mallory", "viewer", group),
            unbind(&below),
            rebind(&below, "owner"),
            unbind_all(group, &[&below]),
            update_resource(&below, Properties::new()),
            delete_resource(&below),
            resource(&below, "thing", Properties::new()),
        ]
    };
    for who in ["mallory", "gina"] {
        for (hidden, absent) in operations("acme").into_iter().zip(operations("acme/none")) {
            let (hidden, absent) = (refused(&world, who, &hidden), refused(&world, who, &absent));
            assert_eq!(hidden.told, Cause::NotFound, "{}", hidden.audit_text());
            assert_eq!(hidden.told, absent.told);
            assert_eq!(hidden.to_string(), absent.to_string());
            assert!(hidden.who_could.is_empty());
        }
    }
    // Who sees the group is told what is missing, whether or not the object is there.
    for operation in [update_role("acme/none", &[]), update_role("acme/none/none", &[])] {
        let at = operation.object().unwrap().as_path().parent().unwrap().as_str().to_owned();
        misses(&refused(&world, "bob", &operation), None, &at, &["roles.update"]);
    }
    assert_eq!(reason(&refused(&world, "alice", &update_role("acme/none", &[]))), "NOT_FOUND");
}

#[test]
fn groups_are_deleted_only_when_empty_and_their_bindings_go_with_them() {
    let mut world = acme();
    let contents = [
        (folder("acme/shop/a"), delete_group("acme/shop/a"), Kind::Group),
        (role("acme/shop/r", &["repo.list"]), delete_role("acme/shop/r"), Kind::Role),
        (identity("acme/shop/i"), delete_identity("acme/shop/i"), Kind::Identity),
        (
            resource("acme/shop/s", "repo", Properties::new()),
            delete_resource("acme/shop/s"),
            Kind::Resource,
        ),
    ];
    for (create, delete, kind) in contents {
        does(&mut world, "alice", &create);
        let refusal = refused(&world, "alice", &delete_group("acme/shop"));
        assert_eq!(refusal.told, Cause::NotEmpty { id: path("acme/shop"), contents: kind });
        does(&mut world, "alice", &delete);
    }
    does(&mut world, "alice", &bind("bob", "editor", "acme/shop"));
    let outcome = does(&mut world, "alice", &delete_group("acme/shop"));
    let kinds: Vec<_> = outcome.objects.iter().map(|one| one.kind).collect();
    assert_eq!(kinds, [Kind::RoleBinding, Kind::Group]);
    assert_eq!(bindings_of(&world, "bob"), 1);
}

/// Each binding that goes with a group is judged as its own delete.
#[test]
fn a_group_is_not_deleted_with_bindings_that_the_caller_could_not_delete() {
    let catalog = catalog(
        &KINDS,
        &[
            ("groomer", &["groups.list", "groups.delete"]),
            ("remover", &["role_bindings.delete"]),
            ("reader", &["doc.read"]),
            ("viewer", &["groups.list"]),
            ("editor", &["groups.list"]),
        ],
    );
    let mut world = two_organizations(catalog);
    does(&mut world, "alice", &bind("bob", "groomer", "acme/shop"));
    does(&mut world, "alice", &bind("mallory", "reader", "acme/shop"));
    let delete = delete_group("acme/shop");
    misses(&refused(&world, "bob", &delete), None, "acme/shop", &["role_bindings.delete"]);
    does(&mut world, "alice", &bind("bob", "remover", "acme/shop"));
    misses(&refused(&world, "bob", &delete), Some(Rule::Delete), "acme/shop", &["doc.read"]);
    does(&mut world, "alice", &bind("bob", "reader", "acme/shop"));
    does(&mut world, "bob", &delete);
}

#[test]
fn an_organization_goes_with_its_last_owner_when_it_is_empty() {
    let mut world = acme();
    assert_eq!(reason(&refused(&world, "alice", &delete_group("acme"))), "NOT_EMPTY");
    does(&mut world, "gina", &delete_group("globex"));
    assert!(!exists(&world, Kind::Group, "globex"));
    assert_eq!(bindings_of(&world, "gina"), 0);
}

// === Etags, texts, unchanged ===

#[test]
fn an_etag_must_be_the_current_one_and_changes_with_each_update() {
    let mut world = acme();
    let etag = |world: &Managed| world.object(Kind::Group, "acme").unwrap().meta().etag();
    let update = |name: &str, etag: &str| {
        Operation::UpdateGroup(UpdateGroup {
            id: path("acme"),
            name: Some(name.into()),
            description: None,
            etag: Some(etag.into()),
        })
    };
    let first = etag(&world);
    does(&mut world, "alice", &update("Acme", &first));
    assert_ne!(etag(&world), first);
    let refusal = refused(&world, "alice", &update("Other", &first));
    assert_eq!(reason(&refusal), "CONFLICT");
    let delete = Delete { id: path("acme/shop"), etag: Some("other".into()) };
    assert_eq!(reason(&refused(&world, "alice", &Operation::DeleteGroup(delete))), "CONFLICT");
    // The etag of what one cannot change is not tried out.
    assert_eq!(reason(&refused(&world, "bob", &update("x", "y"))), "MISSING_CAPABILITY");
    let Some(Object::Group(group)) = world.object(Kind::Group, "acme") else { panic!() };
    assert_eq!((group.meta.updated, group.name.as_str()), (world.revision(), "Acme"));
    assert!(group.meta.created < group.meta.updated);
}

#[test]
fn what_changes_nothing_makes_no_revision() {
    let mut world = acme();
    let revision = world.revision();
    assert!(does(&mut world, "alice", &rename_group("acme", "")).is_unchanged());
    assert!(does(&mut world, "alice", &remove("mallory", "acme")).is_unchanged());
    assert!(does(&mut world, "alice", &remove("no-such-identity", "acme")).is_unchanged());
    assert!(does(&mut world, "alice", &disable("acme/ci", false)).is_unchanged());
    assert_eq!(world.revision(), revision);
}

#[test]
fn texts_types_and_properties_have_limits() {
    let world = acme();
    let longest = "é".repeat(TEXT_BYTES_MAX / 2);
    assert!(world.judge(&actor("alice"), &rename_group("acme", &longest)).is_ok());
    for bad in [longest + "x", "a\nb".into(), "\u{1b}[31m".into()] {
        let refusal = refused(&world, "alice", &rename_group("acme", &bad));
        assert_eq!(invalid(&refusal), "group.name");
    }
    let kind = |kind: &str| resource("acme/thing", kind, Properties::new());
    assert!(world.judge(&actor("alice"), &kind(&"x".repeat(TEXT_BYTES_MAX))).is_ok());
    for bad in ["", "a\tb", &"x".repeat(TEXT_BYTES_MAX + 1)] {
        assert_eq!(invalid(&refused(&world, "alice", &kind(bad))), "resource.type");
    }
    let with = |properties| resource("acme/thing", "repo", properties);
    let many = |count: usize| (0..count).map(|n| (n.to_string(), Value::Boolean(true))).collect();
    assert!(world.judge(&actor("alice"), &with(many(PROPERTIES_MAX))).is_ok());
    let long = "x".repeat(PROPERTY_BYTES_MAX + 1);
    let bad = [
        many(PROPERTIES_MAX + 1),
        properties(&[("", "x")]),
        properties(&[("<<", "x")]),
        properties(&[("x", &long)]),
        properties(&[(&long, "x")]),
        Properties::from([("n".to_owned(), Value::Integer(1 << 53))]),
    ];
    assert!(world.judge(&actor("alice"), &with(properties(&[("x", &long[1..])]))).is_ok());
    for properties in bad {
        assert_eq!(invalid(&refused(&world, "alice", &with(properties))), "resource.properties");
    }
}

// === Roles ===

#[test]
fn built_in_roles_are_the_catalogs_and_roles_in_use_stay() {
    let mut world = acme();
    for who in [actor("alice"), actor("mallory"), Actor::Operator] {
        for operation in [update_role("viewer", &[]), delete_role("viewer")] {
            assert_eq!(reason(&refused_to(&world, &who, &operation)), "BUILT_IN");
        }
        assert_eq!(reason(&refused_to(&world, &who, &delete_role("none"))), "NOT_FOUND");
    }
    does(&mut world, "alice", &role("acme/puller", &["repo.list"]));
    does(&mut world, "alice", &bind("bob", "acme/puller", "acme/shop"));
    for who in [actor("alice"), Actor::Operator] {
        assert_eq!(reason(&refused_to(&world, &who, &delete_role("acme/puller"))), "ROLE_IN_USE");
    }
}

#[test]
fn roles_hold_capabilities_of_the_catalog_sorted_and_once() {
    let mut world = acme();
    let refusal = refused(&world, "alice", &role("acme/r", &["repo.list", "repo.lisst"]));
    assert_eq!(invalid(&refusal), "role.capabilities[1]");
    assert!(refusal.to_string().contains("`repo.list`"), "{refusal}");
    for wildcard in ["*", "repo.*", "repo.list,repo.create"] {
        assert_eq!(
            invalid(&refused(&world, "alice", &role("acme/r", &[wildcard]))),
            "role.capabilities[0]"
        );
    }
    does(&mut world, "alice", &role("acme/r", &["repo.list", "apk.list", "repo.list"]));
    let Some(Object::Role(role)) = world.object(Kind::Role, "acme/r") else { panic!() };
    assert_eq!(role.capabilities, ["apk.list", "repo.list"]);
}

// === Bindings ===

/// A role out of its subtree, an identity of another organization, and what is absent: one text each.
#[test]
fn references_that_are_absent_and_foreign_are_told_alike() {
    let mut world = acme();
    does(&mut world, "gina", &role("globex/puller", &["repo.list"]));
    does(&mut world, "gina", &identity("globex/ci"));
    does(&mut world, "alice", &role("acme/shop/puller", &["repo.list"]));
    for who in [actor("alice"), Actor::Operator] {
        let text = |operation: &Operation| {
            let refusal = refused_to(&world, &who, operation);
            (invalid(&refusal).to_owned(), refusal.to_string())
        };
        for (role, absent) in
            [("globex/puller", "globex/absent"), ("acme/shop/puller", "acme/shop/absent")]
        {
            let (field, foreign) = text(&bind("bob", role, "acme"));
            assert_eq!(field, "role_binding.role");
            assert_eq!(foreign.replace(role, absent), text(&bind("bob", absent, "acme")).1);
        }
        let (field, foreign) = text(&bind("globex/ci", "viewer", "acme"));
        assert_eq!(field, "role_binding.identity");
        assert_eq!(
            foreign.replace("globex/ci", "nobody"),
            text(&bind("nobody", "viewer", "acme")).1
        );
    }
    let rule = |operation: &Operation| refused(&world, "alice", operation).rule;
    assert_eq!(rule(&bind("bob", "globex/puller", "acme")), Some(Rule::RoleScope));
    assert_eq!(rule(&bind("globex/ci", "viewer", "acme")), Some(Rule::AcrossOrganizations));
}

#[test]
fn a_binding_names_its_parent_as_scope_and_has_an_id_below_it() {
    let mut world = acme();
    let mut operation = bind("mallory", "viewer", "acme/shop");
    let Operation::CreateRoleBinding(one) = &mut operation else { panic!() };
    one.parent = path("acme");
    assert_eq!(invalid(&refused(&world, "alice", &operation)), "role_binding.scope");
    let with_id = |id: &str| {
        create(NewRoleBinding { id: Some(path(id)), ..binding("mallory", "viewer", "acme/shop") })
    };
    for bad in ["acme/x", "acme/shop", "acme/shop/a/b"] {
        assert_eq!(invalid(&refused(&world, "alice", &with_id(bad))), "role_binding.id");
    }
    does(&mut world, "alice", &with_id("acme/shop/viewers"));
    assert_eq!(id_of(&world, "mallory", "viewer", "acme/shop"), "acme/shop/viewers");
    let derived = does(&mut world, "alice", &bind("mallory", "editor", "acme/shop"));
    let Response::RoleBinding(made) = derived.response else { panic!() };
    assert_eq!(Some(&made.id), made.fact().derived_id().as_ref());
    // The path that another binding would get is taken: it gets the next.
    let other = binding("erin", "viewer", "acme/shop");
    let fact = RoleBinding { identity: path("erin"), role: "viewer".into(), ..made }.fact();
    let taken = fact.derived_id().unwrap();
    does(&mut world, "alice", &folder(taken.as_str()));
    does(&mut world, "alice", &create(other));
    assert_ne!(id_of(&world, "erin", "viewer", "acme/shop"), taken.as_str());
}

#[test]
fn the_same_binding_exists_already_whatever_its_expiry() {
    let mut world = acme();
    let again = [
        bind("bob", "viewer", "acme"),
        bind_until("bob", "viewer", "acme", after(10)),
        bind_all("acme", vec![binding("bob", "viewer", "acme")]),
        bind_all(
            "acme",
            vec![binding("mallory", "viewer", "acme"), binding("mallory", "viewer", "acme")],
        ),
        create(NewRoleBinding { id: Some(path("acme/b")), ..binding("bob", "viewer", "acme") }),
    ];
    for operation in again {
        assert_eq!(reason(&refused(&world, "alice", &operation)), "ALREADY_EXISTS");
    }
    // Another condition makes another binding.
    does(&mut world, "alice", &bind_when("bob", "viewer", "acme", equals("context.x", "1")));
    does(&mut world, "alice", &bind_when("bob", "viewer", "acme", equals("context.x", "2")));
    does(&mut world, "alice", &bind("bob", "editor", "acme"));
    let id = id_of(&world, "bob", "editor", "acme");
    assert_eq!(reason(&refused(&world, "alice", &rebind(&id, "viewer"))), "ALREADY_EXISTS");
}

#[test]
fn bindings_have_at_most_so_many_conditions() {
    let world = acme();
    let with = |count: usize| {
        let when = (0..count).map(|n| equals("context.x", &n.to_string())).collect();
        create(NewRoleBinding { when, ..binding("mallory", "viewer", "acme") })
    };
    assert!(world.judge(&actor("alice"), &with(CONDITIONS_MAX)).is_ok());
    let refusal = refused(&world, "alice", &with(CONDITIONS_MAX + 1));
    assert_eq!(invalid(&refusal), "role_binding.when");
}

/// Update needs update, delete and create, and is both.
#[test]
fn an_update_of_a_binding_is_a_delete_and_a_create() {
    let roles: &[(&str, &[&str])] = &[
        ("updater", &["groups.list", "doc.read", "role_bindings.update"]),
        ("creator", &["role_bindings.create", "role_bindings.delete"]),
        ("reader", &["doc.read"]),
        ("writer", &["doc.write"]),
        ("viewer", &["groups.list"]),
        ("editor", &["groups.list"]),
    ];
    let mut world = two_organizations(catalog(&KINDS, roles));
    does(&mut world, "alice", &bind("mallory", "updater", "acme"));
    for (role, scope) in [("reader", "acme"), ("writer", "acme/shop")] {
        does(&mut world, "alice", &bind("acme/ci", role, scope));
    }
    let (readable, written) = (
        id_of(&world, "acme/ci", "reader", "acme"),
        id_of(&world, "acme/ci", "writer", "acme/shop"),
    );
    let refusal = refused(&world, "mallory", &rebind(&readable, "editor"));
    misses(&refusal, None, "acme", &["role_bindings.create", "role_bindings.delete"]);
    does(&mut world, "alice", &bind("mallory", "creator", "acme"));
    // X10: what is created must be held, and what is deleted.
    let refusal = refused(&world, "mallory", &rebind(&readable, "writer"));
    misses(&refusal, Some(Rule::Grant), "acme", &["doc.write"]);
    let refusal = refused(&world, "mallory", &rebind(&written, "reader"));
    misses(&refusal, Some(Rule::Delete), "acme/shop", &["doc.write"]);
    let to_self = Operation::UpdateRoleBinding(UpdateRoleBinding {
        identity: Some(path("mallory")),
        ..rebinding(&written)
    });
    misses(&refused(&world, "mallory", &to_self), Some(Rule::Grant), "acme/shop", &["doc.write"]);
    does(&mut world, "mallory", &rebind(&readable, "editor"));
    let moved = Operation::UpdateRoleBinding(UpdateRoleBinding {
        scope: Some(path("acme/platform")),
        ..rebinding(&written)
    });
    assert_eq!(invalid(&refused(&world, "alice", &moved)), "role_binding.scope");
    let same = Operation::UpdateRoleBinding(UpdateRoleBinding {
        scope: Some(path("acme/shop")),
        ..rebinding(&written)
    });
    assert!(does(&mut world, "alice", &same).is_unchanged());
}

#[test]
fn batches_are_all_or_none_and_name_the_item() {
    let mut world = acme();
    let revision = world.revision();
    let good = binding("mallory", "viewer", "acme/shop");
    let bad = [
        (binding("nobody", "viewer", "acme"), "role_bindings[1].identity"),
        (binding("bob", "none", "acme"), "role_bindings[1].role"),
        (binding("bob", "viewer", "globex"), "role_bindings[1].scope"),
    ];
    for (bad, field) in bad {
        let refusal = refused(&world, "alice", &bind_all("acme", vec![good.clone(), bad]));
        assert_eq!(invalid(&refusal), field);
    }
    assert_eq!(world.revision(), revision);
    for count in [0, BATCH_BINDINGS_MAX + 1] {
        let refusal = refused(&world, "alice", &bind_all("acme", vec![good.clone(); count]));
        assert_eq!(invalid(&refusal), "role_bindings");
    }
    let scopes: Vec<_> = (0..BATCH_BINDINGS_MAX)
        .map(|n| NewRoleBinding { when: vec![equals("context.n", &n.to_string())], ..good.clone() })
        .collect();
    let outcome = does(&mut world, "alice", &bind_all("acme", scopes));
    assert_eq!(outcome.objects.len(), BATCH_BINDINGS_MAX);
    assert_eq!(world.revision(), revision + 1);
    let ids: Vec<_> = outcome.objects.iter().map(|one| one.id.as_str()).collect();
    let with_absent: Vec<_> = ids[..3].iter().copied().chain(["acme/shop/none"]).collect();
    assert_eq!(reason(&refused(&world, "alice", &unbind_all("acme", &with_absent))), "NOT_FOUND");
    for (bad, field) in
        [(vec![ids[0], ids[0]], "ids[1]"), (vec!["globex/x"], "ids[0]"), (vec![], "ids")]
    {
        assert_eq!(invalid(&refused(&world, "alice", &unbind_all("acme", &bad))), field);
    }
    does(&mut world, "alice", &unbind_all("acme", &ids));
    assert_eq!(bindings_of(&world, "mallory"), 0);
}

/// Offboarding: every binding in the organization, also those that do not count, and nothing outside.
#[test]
fn a_member_is_removed_from_one_organization() {
    let mut world = acme();
    does(&mut world, "alice", &bind("bob", "editor", "acme/shop"));
    does(
        &mut world,
        "alice",
        &bind_when("bob", "owner", "acme/platform", equals("context.x", "1")),
    );
    does(&mut world, "alice", &bind_until("bob", "owner", "acme", after(-1)));
    does(&mut world, "gina", &bind("bob", "viewer", "globex"));
    misses(
        &refused(&world, "erin", &remove("bob", "acme")),
        None,
        "acme",
        &["role_bindings.delete"],
    );
    assert_eq!(invalid(&refused(&world, "alice", &remove("bob", "acme/shop"))), "organization");
    assert_eq!(reason(&refused(&world, "alice", &remove("bob", "globex"))), "NOT_FOUND");
    let outcome = does(&mut world, "alice", &remove("bob", "acme"));
    assert_eq!(outcome.objects.len(), 4);
    assert_eq!(bindings_of(&world, "bob"), 1);
}

/// R16: whoever it is gives up what it has.
#[test]
fn anybody_gives_up_its_own_bindings() {
    let mut world = acme();
    does(&mut world, "alice", &bind("mallory", "apk.pull", "acme/shop"));
    let own = id_of(&world, "mallory", "apk.pull", "acme/shop");
    let other = id_of(&world, "bob", "viewer", "acme");
    assert_eq!(reason(&refused(&world, "mallory", &unbind(&other))), "NOT_FOUND");
    assert_eq!(
        reason(&refused(&world, "mallory", &unbind_all("acme", &[&own, &other]))),
        "NOT_FOUND"
    );
    does(&mut world, "mallory", &unbind(&own));
    does(&mut world, "alice", &bind("mallory", "apk.pull", "acme/shop"));
    does(&mut world, "mallory", &unbind_all("acme", &[&own]));
    does(&mut world, "alice", &bind("mallory", "apk.pull", "acme/shop"));
    does(&mut world, "mallory", &remove("mallory", "acme"));
    assert_eq!(reason(&refused(&world, "mallory", &remove("mallory", "acme"))), "NOT_FOUND");
    let last = id_of(&world, "alice", "owner", "acme");
    assert_eq!(reason(&refused(&world, "alice", &unbind(&last))), "LAST_OWNER");
}

// === Names of root identities ===

/// A role binding may name the derived id of a person before it is registered.
#[test]
fn a_person_is_bound_before_the_first_login() {
    let mut world = acme();
    let id = derived_identity_id("https://idp.example", "42").unwrap();
    assert_eq!(id.len(), 40);
    does(&mut world, "alice", &bind(&id, "viewer", "acme"));
    assert_eq!(reason(&refused(&world, &id, &unbind("acme/x"))), "AUTHN_FAILED");
    for taken in ["0123456789012345678901234567890123456789", &id[..39], &id.to_uppercase()] {
        let operation = bind(taken, "viewer", "acme");
        let allowed = taken.starts_with("0123");
        assert_eq!(world.judge(&actor("alice"), &operation).is_ok(), allowed, "{taken}");
    }
    // A group cannot take its path, and it registers itself there.
    let refusal = refused_to(&world, &Actor::Operator, &organization(&id, "alice"));
    assert_eq!(reason(&refusal), "ALREADY_EXISTS");
    let person = |id: Option<&str>| {
        Operation::CreateIdentity(CreateIdentity {
            id: id.map(path),
            authentication: Some(keys("https://idp.example", "42", "1", None)),
            ..new_identity("x")
        })
    };
    let refusal = refused_to(&world, &Actor::Operator, &person(Some("ann")));
    assert_eq!(invalid(&refusal), "identity.id");
    done(&mut world, &Actor::Operator, &person(None));
    assert!(exists(&world, Kind::Identity, &id));
    let refusal = refused_to(&world, &Actor::Operator, &person(Some(&id)));
    assert_eq!(reason(&refusal), "ALREADY_EXISTS");
    let other = IdentityUpdate {
        authentication: Some(Some(keys("https://idp.example", "43", "1", None))),
        ..IdentityUpdate::default()
    };
    let refusal = refused_to(&world, &Actor::Operator, &change(&id, other));
    assert_eq!(invalid(&refusal), "identity.id");
}

/// LookupIdentity's table: issuer, a NUL byte, subject.
#[test]
fn derived_ids_never_change() {
    let id = |issuer: &str, subject: &str| derived_identity_id(issuer, subject);
    assert_eq!(
        id("https://accounts.google.com", "1234").unwrap(),
        "f285214424f7232a45ced1b689adbd4db44ad328"
    );
    assert_ne!(id("a", "bc").unwrap(), id("ab", "c").unwrap());
    for (issuer, subject) in [("", "x"), ("x", ""), ("a\0", "b"), ("a", "\0b"), ("a\n", "b")] {
        assert!(id(issuer, subject).is_err());
    }
}

// === Resources ===

#[test]
fn resources_need_the_capability_of_their_type_or_that_of_groups() {
    let roles: &[(&str, &[&str])] = &[
        ("grouper", &["groups.list", "groups.update"]),
        ("repoer", &["groups.list", "repo.create", "repo.list"]),
        ("viewer", &["groups.list"]),
        ("editor", &["groups.list"]),
    ];
    let mut world = two_organizations(catalog(
        &["groups", "roles", "role_bindings", "identity", "repo"],
        roles,
    ));
    does(&mut world, "alice", &bind("mallory", "repoer", "acme"));
    does(&mut world, "alice", &bind("acme/ci", "grouper", "acme"));
    let new = |kind: &str| resource("acme/one", kind, Properties::new());
    misses(&refused(&world, "mallory", &new("thing")), None, "acme", &["groups.update"]);
    misses(&refused(&world, "acme/ci", &new("repo")), None, "acme", &["repo.create"]);
    does(&mut world, "mallory", &new("repo"));
    let update = update_resource("acme/one", properties(&[("a", "b")]));
    misses(&refused(&world, "mallory", &update), None, "acme", &["repo.update"]);
    misses(
        &refused(&world, "acme/ci", &delete_resource("acme/one")),
        None,
        "acme",
        &["repo.delete"],
    );
    does(&mut world, "alice", &update);
    let retyped = Operation::UpdateResource(capstan_iam::UpdateResource {
        id: path("acme/one"),
        name: None,
        description: None,
        kind: Some("thing".into()),
        properties: None,
        etag: None,
    });
    assert_eq!(invalid(&refused(&world, "alice", &retyped)), "resource.type");
    does(&mut world, "alice", &bind("bob", "viewer", "acme/one"));
    does(&mut world, "alice", &delete_resource("acme/one"));
    assert_eq!(bindings_of(&world, "bob"), 1);
    does(&mut world, "acme/ci", &new("thing"));
    // An absent one is judged as groups.list: nobody is told more.
    for who in ["mallory", "bob", "gina"] {
        assert_eq!(reason(&refused(&world, who, &delete_resource("acme/none"))), "NOT_FOUND");
    }
}
