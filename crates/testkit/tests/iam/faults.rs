//! Attacks and mistakes of the catalogue of faults: rows X1, X3, X4, X6, X9 to X14, X18, M2, M4, M5, M7, M8, M9.
//! X10 is in `settled.rs` (an update of a binding), M8 and M9 likewise (batches, groups that are not empty).

use std::cell::Cell;

use capstan_engine::{Path, PathBuf};
use capstan_iam::{
    Actor, Cause, Context, IdentityUpdate, InviteCode, Kind, Object, Objects, ObjectsError,
    Operation, Reference, Rule, RuleSet, SecretHash, State, UpdateRole, UpdateRoleBinding, judge,
};
use capstan_testkit::managed::operations::*;
use capstan_testkit::managed::{Managed, after};

use crate::common::*;

const ROLES: &[(&str, &[&str])] = &[
    ("viewer", &["groups.list"]),
    ("editor", &["groups.list", "doc.read"]),
    ("granter", &["groups.list", "role_bindings.create"]),
    ("undoer", &["role_bindings.delete"]),
    ("smith", &["groups.list", "roles.create", "roles.update", "roles.delete", "roles.list"]),
    (
        "keeper",
        &["groups.list", "identity.create", "identity.update", "identity.delete", "identity.list"],
    ),
    ("reader", &["doc.read"]),
    ("writer", &["doc.write"]),
];

fn world() -> Managed {
    two_organizations(catalog(&KINDS, ROLES))
}

const OWNED: [&str; 18] = [
    "doc.read",
    "doc.write",
    "groups.create",
    "groups.delete",
    "groups.list",
    "groups.update",
    "identity.create",
    "identity.delete",
    "identity.list",
    "identity.update",
    "role_bindings.create",
    "role_bindings.delete",
    "role_bindings.list",
    "role_bindings.update",
    "roles.create",
    "roles.delete",
    "roles.list",
    "roles.update",
];

fn owned_without(held: &[&str]) -> Vec<&'static str> {
    OWNED.into_iter().filter(|one| !held.contains(one)).collect()
}

#[test]
fn x1_a_granter_gives_only_what_it_has() {
    let mut world = world();
    does(&mut world, "alice", &bind("mallory", "granter", "acme"));
    let missing = owned_without(&["groups.list", "role_bindings.create"]);
    for friend in ["mallory", "acme/ci", "bob"] {
        let refusal = refused(&world, "mallory", &bind(friend, "owner", "acme"));
        misses(&refusal, Some(Rule::Grant), "acme", &missing);
        let refusal = refused(&world, "mallory", &bind(friend, "reader", "acme/shop"));
        misses(&refusal, Some(Rule::Grant), "acme/shop", &["doc.read"]);
        assert_eq!(refusal.who_could, [], "who cannot see bindings is not told who could");
    }
    let refusal = refused(&world, "bob", &bind("bob", "owner", "acme"));
    misses(&refusal, None, "acme", &["role_bindings.create"]);
    does(&mut world, "mallory", &bind("acme/ci", "viewer", "acme/shop"));
}

/// Who cannot undo a delegation may not make it.
#[test]
fn r1_giving_what_manages_access_needs_the_right_to_take_it_away() {
    let mut world = world();
    does(&mut world, "alice", &bind("mallory", "granter", "acme"));
    let clone = bind("acme/ci", "granter", "acme");
    misses(
        &refused(&world, "mallory", &clone),
        Some(Rule::Grant),
        "acme",
        &["role_bindings.delete"],
    );
    does(&mut world, "alice", &bind("mallory", "undoer", "acme"));
    does(&mut world, "mallory", &clone);
    // A list capability manages nothing.
    does(&mut world, "alice", &role("acme/lister", &["role_bindings.list"]));
    does(&mut world, "alice", &bind("erin", "granter", "acme"));
    does(&mut world, "alice", &bind("erin", "acme/lister", "acme"));
    does(&mut world, "erin", &bind("acme/ci", "acme/lister", "acme"));
}

/// A conditional or expired binding gives nothing to grant with, and a conditional grant needs what a plain one does.
#[test]
fn only_plain_bindings_in_time_authorize_and_are_passed_on() {
    let mut world = world();
    let condition = equals("context.ticket", "1");
    does(&mut world, "alice", &bind_when("mallory", "owner", "acme", condition.clone()));
    does(&mut world, "alice", &bind_until("mallory", "owner", "acme/shop", after(0)));
    hides(&refused(&world, "mallory", &folder("acme/x")), "acme", &["groups.create"]);
    hides(&refused(&world, "mallory", &folder("acme/shop/x")), "acme/shop", &["groups.create"]);
    assert!(world.list(&actor("mallory"), Kind::Group).is_empty());
    does(&mut world, "alice", &bind("mallory", "granter", "acme"));
    let grant = bind_when("acme/ci", "reader", "acme", condition);
    misses(&refused(&world, "mallory", &grant), Some(Rule::Grant), "acme", &["doc.read"]);
}

#[test]
fn x3_a_role_is_not_enlarged_beyond_what_its_changer_has_at_its_home() {
    let mut world = world();
    does(&mut world, "alice", &role("acme/mine", &["doc.read"]));
    for role in ["smith", "acme/mine"] {
        does(&mut world, "alice", &bind("mallory", role, "acme"));
    }
    does(&mut world, "alice", &bind("mallory", "writer", "acme/shop"));
    let enlarge = update_role("acme/mine", &["doc.read", "doc.write", "roles.list"]);
    misses(&refused(&world, "mallory", &enlarge), Some(Rule::RoleUpdate), "acme", &["doc.write"]);
    does(&mut world, "mallory", &update_role("acme/mine", &["doc.read", "roles.list"]));
    // Taking away needs it, too.
    does(&mut world, "alice", &role("acme/theirs", &["doc.write"]));
    let empty = update_role("acme/theirs", &[]);
    misses(&refused(&world, "mallory", &empty), Some(Rule::RoleUpdate), "acme", &["doc.write"]);
}

#[test]
fn x4_a_role_holds_nothing_that_its_maker_has_not() {
    let mut world = world();
    does(&mut world, "alice", &bind("mallory", "smith", "acme"));
    let trap = role("acme/harmless", &["groups.list", "doc.write"]);
    misses(&refused(&world, "mallory", &trap), Some(Rule::RoleCreate), "acme", &["doc.write"]);
}

#[test]
fn x6_whoever_changes_how_an_identity_authenticates_has_all_it_reaches() {
    let mut world = world();
    does(&mut world, "alice", &bind("mallory", "keeper", "acme"));
    let take_over = authenticate("acme/ci", Some(keys("https://evil.example", "x", "1", None)));
    assert!(world.judge(&actor("mallory"), &take_over).is_ok(), "bound nowhere");
    // Conditional and expired bindings count, too.
    let victim = [
        bind("acme/ci", "writer", "acme/shop"),
        bind_when("acme/ci", "writer", "acme/shop", equals("context.x", "1")),
        bind_until("acme/ci", "writer", "acme/shop", after(-10)),
    ];
    for bound in victim {
        let mut world = world.clone();
        does(&mut world, "alice", &bound);
        let others =
            [describe("acme/ci", properties(&[("team", "x")])), authenticate("acme/ci", None)];
        let refusal = refused(&world, "mallory", &take_over);
        misses(&refusal, Some(Rule::CredentialChange), "acme/shop", &["doc.write"]);
        misses(
            &refused(&world, "mallory", &others[0]),
            Some(Rule::CredentialChange),
            "acme/shop",
            &["doc.write"],
        );
        does(&mut world, "alice", &take_over);
        misses(
            &refused(&world, "mallory", &others[1]),
            Some(Rule::CredentialChange),
            "acme/shop",
            &["doc.write"],
        );
        for taken in [disable("acme/ci", true), delete_identity("acme/ci")] {
            let refusal = refused(&world, "mallory", &taken);
            misses(
                &refusal,
                Some(Rule::Delete),
                "acme/shop",
                &["doc.write", "role_bindings.delete"],
            );
        }
        does(&mut world, "alice", &bind("mallory", "writer", "acme"));
        does(&mut world, "mallory", &others[0]);
        misses(
            &refused(&world, "mallory", &disable("acme/ci", true)),
            Some(Rule::Delete),
            "acme/shop",
            &["role_bindings.delete"],
        );
    }
}

#[test]
fn x9_a_role_is_bound_only_at_or_below_its_home() {
    let mut world = world();
    does(&mut world, "gina", &role("globex/r", &["doc.read"]));
    does(&mut world, "alice", &role("acme/shop/r", &["doc.read"]));
    for role in ["globex/r", "acme/shop/r"] {
        for who in [actor("alice"), Actor::Operator] {
            let refusal = refused_to(&world, &who, &bind("bob", role, "acme"));
            assert_eq!(
                (invalid(&refusal), refusal.rule),
                ("role_binding.role", Some(Rule::RoleScope))
            );
        }
    }
    does(&mut world, "alice", &bind("bob", "acme/shop/r", "acme/shop"));
}

#[test]
fn x11_a_temporary_administrator_makes_nothing_that_lasts() {
    let mut world = world();
    does(&mut world, "alice", &bind_until("mallory", "owner", "acme", after(100)));
    let exceeded = |refusal: &capstan_iam::Refusal| {
        assert_eq!(refusal.rule, Some(Rule::Duration));
        assert_eq!(
            refusal.told,
            Cause::DurationExceeded { scope: path("acme"), bound: after(100) }
        );
        assert!(refusal.to_string().contains("2026-01-01T00:01:40Z"), "{refusal}");
    };
    exceeded(&refused(&world, "mallory", &bind("bob", "reader", "acme")));
    exceeded(&refused(&world, "mallory", &bind_until("bob", "reader", "acme", after(101))));
    does(&mut world, "mallory", &bind_until("bob", "reader", "acme", after(100)));
    // Adding to a role lasts; making one gives nothing; taking away is free.
    does(&mut world, "mallory", &role("acme/r", &["doc.read"]));
    exceeded(&refused(&world, "mallory", &update_role("acme/r", &["doc.read", "doc.write"])));
    does(&mut world, "mallory", &update_role("acme/r", &[]));
    let key = |end| authenticate("acme/ci", Some(keys("https://idp.example", "1", "1", end)));
    exceeded(&refused(&world, "mallory", &key(None)));
    does(&mut world, "mallory", &key(Some(after(100))));
    does(&mut world, "mallory", &disable("acme/ci", true));
    let binding = id_of(&world, "bob", "viewer", "acme");
    does(&mut world, "mallory", &unbind(&binding));
    // Enabling gives the bindings back: they end in time, or it is refused.
    does(&mut world, "alice", &bind("acme/ci", "reader", "acme"));
    exceeded(&refused(&world, "mallory", &disable("acme/ci", false)));
    // The latest end counts, and each capability for itself.
    does(&mut world, "alice", &bind_until("mallory", "reader", "acme", after(200)));
    exceeded(&refused(&world, "mallory", &bind_until("bob", "reader", "acme", after(200))));
    does(&mut world, "alice", &bind("mallory", "granter", "acme"));
    does(&mut world, "mallory", &bind_until("erin", "reader", "acme", after(200)));
    // Who does not see the group is not told.
    does(&mut world, "alice", &role("acme/blind", &["role_bindings.create", "doc.read"]));
    does(&mut world, "alice", &bind_until("gina", "acme/blind", "acme", after(9)));
    assert_eq!(reason(&refused(&world, "gina", &bind("bob", "reader", "acme"))), "NOT_FOUND");
}

/// Found by the long attack: keys that end in time on an identity whose own rights do not, which then passed them on.
#[test]
fn x11_an_identity_with_lasting_rights_is_not_taken_over_for_a_while() {
    let mut world = world();
    does(&mut world, "alice", &bind_until("mallory", "keeper", "acme", after(100)));
    does(&mut world, "alice", &bind("acme/ci", "keeper", "acme"));
    let take_over =
        authenticate("acme/ci", Some(keys("https://idp.example", "1", "1", Some(after(50)))));
    let refusal = refused(&world, "mallory", &take_over);
    assert_eq!((reason(&refusal), refusal.rule), ("DURATION_EXCEEDED", Some(Rule::Duration)));
    let lasting = id_of(&world, "acme/ci", "keeper", "acme");
    does(&mut world, "alice", &unbind(&lasting));
    does(&mut world, "alice", &bind_until("acme/ci", "keeper", "acme", after(100)));
    does(&mut world, "mallory", &take_over);
    // Who holds for ever what the identity does takes nothing over, however long its own way in is open.
    let mut world = self::world();
    does(&mut world, "alice", &role("acme/updater", &["identity.update"]));
    does(&mut world, "alice", &bind_until("mallory", "acme/updater", "acme", after(100)));
    does(&mut world, "alice", &bind("mallory", "viewer", "acme"));
    does(&mut world, "alice", &bind("acme/ci", "viewer", "acme"));
    does(&mut world, "mallory", &take_over);
}

#[test]
fn x12_an_organization_keeps_an_owner_whatever_is_done() {
    let mut world = world();
    done(&mut world, &Actor::Operator, &identity("acme/second"));
    let owner = id_of(&world, "alice", "owner", "acme");
    let ends = UpdateRoleBinding { expires_at: Some(Some(after(9))), ..rebinding(&owner) };
    let tests =
        UpdateRoleBinding { when: Some(vec![equals("context.x", "1")]), ..rebinding(&owner) };
    let other = UpdateRoleBinding { identity: Some(path(&"0".repeat(40))), ..rebinding(&owner) };
    let paths = [
        unbind(&owner),
        unbind_all("acme", &[&owner]),
        remove("alice", "acme"),
        rebind(&owner, "editor"),
        Operation::UpdateRoleBinding(ends),
        Operation::UpdateRoleBinding(tests),
        Operation::UpdateRoleBinding(other),
        delete_identity("alice"),
    ];
    for operation in &paths {
        let who = actor("alice");
        for who in [&who, &Actor::Operator] {
            let refusal = refused_to(&world, who, operation);
            assert_eq!(
                refusal.told,
                Cause::LastOwner { organization: path("acme") },
                "{operation:?}"
            );
        }
    }
    assert_eq!(
        reason(&refused_to(&world, &Actor::Operator, &disable("alice", true))),
        "LAST_OWNER"
    );
    // A custom role with everything makes an owner, too, until it is made smaller.
    does(&mut world, "alice", &role("acme/all", &OWNED));
    does(&mut world, "alice", &bind("acme/second", "acme/all", "acme"));
    does(&mut world, "alice", &unbind(&owner));
    let smaller = update_role("acme/all", &OWNED[1..]);
    assert_eq!(reason(&refused(&world, "acme/second", &smaller)), "LAST_OWNER");
    for operation in [disable("acme/second", true), delete_identity("acme/second")] {
        assert_eq!(reason(&refused(&world, "acme/second", &operation)), "LAST_OWNER");
    }
    // Several bindings make one owner together.
    for (role, capabilities) in [("acme/one", &OWNED[..9]), ("acme/two", &OWNED[9..])] {
        does(&mut world, "acme/second", &self::role(role, capabilities));
        does(&mut world, "acme/second", &bind("bob", role, "acme"));
    }
    does(&mut world, "acme/second", &update_role("acme/all", &["doc.read"]));
    let half = id_of(&world, "bob", "acme/two", "acme");
    assert_eq!(reason(&refused(&world, "bob", &unbind(&half))), "LAST_OWNER");
    // An owner below the root, with an end or with a condition is none: it was not the last one that went.
    does(&mut world, "bob", &bind("erin", "owner", "acme/shop"));
    assert_eq!(reason(&refused(&world, "bob", &unbind(&half))), "LAST_OWNER");
    does(&mut world, "bob", &bind("erin", "owner", "acme"));
    does(&mut world, "bob", &unbind(&half));
}

/// The objects of a world, and how many were read.
struct Counted<'w>(&'w Managed, Cell<usize>);

impl Objects for Counted<'_> {
    fn get(&self, kind: Kind, id: Path<'_>) -> Result<Option<Object>, ObjectsError> {
        self.1.set(self.1.get() + 1);
        Objects::get(self.0, kind, id)
    }

    fn below(
        &self,
        _: Kind,
        _: Option<Path<'_>>,
        _: &mut dyn FnMut(Object) -> bool,
    ) -> Result<(), ObjectsError> {
        panic!("lists are not read")
    }

    fn invite(&self, _: &SecretHash) -> Result<Option<InviteCode>, ObjectsError> {
        panic!("no invite is asked for")
    }

    fn is_promised(&self, role: &str) -> Result<bool, ObjectsError> {
        self.1.set(self.1.get() + 1);
        self.0.is_promised(role)
    }

    fn referring(
        &self,
        to: &Reference<'_>,
        each: &mut dyn FnMut(Kind, PathBuf) -> bool,
    ) -> Result<(), ObjectsError> {
        self.1.set(self.1.get() + 1);
        self.0.referring(to, each)
    }
}

/// The objects that are read to judge an operation that is allowed, with the rule of the last owner and without.
fn reads(world: &Managed, who: &Actor, operation: &Operation) -> [usize; 2] {
    [RuleSet::FULL, RuleSet::FULL.without(Rule::LastOwner)].map(|rules| {
        let counted = Counted(world, Cell::new(0));
        let state = State { snapshot: world.snapshot(), objects: &counted };
        let mut context = Context {
            now: world.now,
            revision: world.revision() + 1,
            new_id: &mut || 7,
            reserved_issuers: &[],
            trusted_issuers: &[],
        };
        judge(&rules, &state, who, operation, &mut context).unwrap();
        counted.1.get()
    })
}

/// The rule looks for owners only if a change can take one, and then for the first one only.
#[test]
fn what_takes_no_owner_reads_none() {
    let mut world = world();
    let owner = id_of(&world, "alice", "owner", "acme");
    does(&mut world, "alice", &role("acme/all", &OWNED));
    for at in 0..30 {
        let member = format!("acme/m{at}");
        done(&mut world, &Actor::Operator, &identity(&member));
        does(&mut world, "alice", &bind(&member, "acme/all", "acme"));
    }
    let texts = |id: &str| {
        change(id, IdentityUpdate { name: Some("Other".into()), ..IdentityUpdate::default() })
    };
    let renamed = UpdateRoleBinding { name: Some("Other".into()), ..rebinding(&owner) };
    let described = UpdateRole {
        id: path("acme/all"),
        name: None,
        description: Some("All".into()),
        capabilities: None,
        etag: None,
    };
    let same = update_role("acme/all", &OWNED);
    let nothing_taken = [
        texts("alice"),
        texts("acme/m1"),
        authenticate("acme/m1", Some(keys("https://idp.example", "1", "1", None))),
        Operation::UpdateRoleBinding(renamed),
        Operation::UpdateRole(described),
        same,
        disable("alice", false),
    ];
    for operation in &nothing_taken {
        let [with, without] = reads(&world, &Actor::Operator, operation);
        assert_eq!(with, without, "{operation:?}");
    }
    // Then a role that is taken from 30, all of whom come before alice, who stays.
    let [with, without] = reads(&world, &Actor::Operator, &update_role("acme/all", &OWNED[1..]));
    assert!(with <= without + 2, "{with} {without}");
    // And one owner of 31 goes: the next one is found.
    let [with, without] = reads(&world, &Actor::Operator, &unbind(&owner));
    assert!(with <= without + 2, "{with} {without}");
}

/// An organization that has no owner is not kept from anything.
#[test]
fn an_organization_without_an_owner_is_changed_as_before() {
    let mut world = world();
    does(&mut world, "alice", &role("acme/all", &OWNED[1..]));
    does(&mut world, "alice", &bind("mallory", "acme/all", "acme"));
    let id = id_of(&world, "mallory", "acme/all", "acme");
    // Not an owner: nothing keeps it.
    does(&mut world, "alice", &unbind(&id));
    let mut without = Managed::new(catalog(&KINDS, ROLES));
    for object in world.objects().filter(|one| one.kind() != Kind::RoleBinding) {
        without.put(object.clone()).unwrap();
    }
    let Object::RoleBinding(binding) =
        world.object(Kind::RoleBinding, &id_of(&world, "bob", "viewer", "acme")).unwrap().clone()
    else {
        panic!()
    };
    without.put(Object::RoleBinding(binding.clone())).unwrap();
    done(&mut without, &Actor::Operator, &unbind(binding.id.as_str()));
}

#[test]
fn x13_an_operation_is_judged_on_the_state_it_changes() {
    let mut world = world();
    does(&mut world, "alice", &bind("mallory", "granter", "acme"));
    let grant = bind("bob", "granter", "acme/shop");
    let right = id_of(&world, "mallory", "granter", "acme");
    does(&mut world, "alice", &bind("mallory", "undoer", "acme"));
    assert!(world.judge(&actor("mallory"), &grant).is_ok());
    does(&mut world, "alice", &unbind(&right));
    hides(&refused(&world, "mallory", &grant), "acme/shop", &["role_bindings.create"]);
}

#[test]
fn x14_a_batch_does_not_help_itself() {
    let mut world = world();
    does(&mut world, "alice", &bind("mallory", "granter", "acme"));
    let batch = vec![binding("mallory", "owner", "acme"), binding("bob", "owner", "acme")];
    let missing = owned_without(&["groups.list", "role_bindings.create"]);
    misses(
        &refused(&world, "mallory", &bind_all("acme", batch)),
        Some(Rule::Grant),
        "acme",
        &missing,
    );
    // Nor by a right at another scope in the same batch.
    let batch =
        vec![binding("mallory", "viewer", "acme"), binding("mallory", "reader", "acme/shop")];
    misses(
        &refused(&world, "mallory", &bind_all("acme", batch)),
        Some(Rule::Grant),
        "acme/shop",
        &["doc.read"],
    );
}

#[test]
fn x18_ids_of_another_organization_are_not_found() {
    let mut world = world();
    does(&mut world, "alice", &role("acme/r", &["doc.read"]));
    does(&mut world, "alice", &resource("acme/s", "doc", properties(&[])));
    let binding = id_of(&world, "bob", "viewer", "acme");
    for (kind, id) in [
        (Kind::Group, "acme"),
        (Kind::Group, "acme/shop"),
        (Kind::Role, "acme/r"),
        (Kind::RoleBinding, &*binding),
        (Kind::Identity, "acme/ci"),
        (Kind::Identity, "bob"),
        (Kind::Resource, "acme/s"),
    ] {
        let (hidden, absent) =
            (world.get(&actor("gina"), kind, id), world.get(&actor("gina"), kind, "acme/no"));
        let (hidden, absent) = (hidden.unwrap_err(), absent.unwrap_err());
        assert_eq!(
            (&hidden.told, hidden.to_string()),
            (&Cause::NotFound, absent.to_string()),
            "{kind}"
        );
        assert!(!world.list(&actor("gina"), kind).iter().any(|one| one == id), "{kind}");
    }
}

#[test]
fn m4_an_identity_made_again_has_nothing_of_the_old_one() {
    let mut world = world();
    does(&mut world, "alice", &bind("acme/ci", "owner", "acme/shop"));
    let first = world.object(Kind::Identity, "acme/ci").unwrap().meta().created;
    does(&mut world, "alice", &delete_identity("acme/ci"));
    assert_eq!(bindings_of(&world, "acme/ci"), 0);
    does(&mut world, "alice", &identity("acme/ci"));
    assert!(world.object(Kind::Identity, "acme/ci").unwrap().meta().created > first);
    assert!(world.list(&actor("acme/ci"), Kind::Group).is_empty());
}

/// M2, M5, M7: nothing is bound that is not there, nothing that is bound goes, and nothing is bound twice.
#[test]
fn m2_m5_m7_bindings_name_what_is_there_and_once() {
    let mut world = world();
    does(&mut world, "alice", &role("acme/r", &["doc.read"]));
    does(&mut world, "alice", &bind("bob", "acme/r", "acme"));
    assert_eq!(reason(&refused(&world, "alice", &delete_role("acme/r"))), "ROLE_IN_USE");
    assert_eq!(reason(&refused(&world, "alice", &bind("bob", "acme/r", "acme"))), "ALREADY_EXISTS");
    assert_eq!(
        invalid(&refused(&world, "alice", &bind("nobody", "viewer", "acme"))),
        "role_binding.identity"
    );
    assert_eq!(reason(&refused(&world, "alice", &bind("bob", "viewer", "acme/none"))), "NOT_FOUND");
    let id = id_of(&world, "bob", "acme/r", "acme");
    does(&mut world, "alice", &unbind(&id));
    does(&mut world, "alice", &delete_role("acme/r"));
    assert_eq!(
        invalid(&refused(&world, "alice", &bind("bob", "acme/r", "acme"))),
        "role_binding.role"
    );
}
