//! Group invites (R6): who makes which, who accepts them, and what makes them dead.

use capstan_engine::Timestamp;
use capstan_iam::limits::{INVITE_TTL, INVITE_TTL_MAX};
use capstan_iam::{
    Actor, Cause, CreateGroupInvite, GroupInvite, Incarnation, Kind, Object, Operation, Refusal,
    Response, Rule, UpdateGroupInvite, derived_identity_id,
};
use capstan_testkit::managed::operations::*;
use capstan_testkit::managed::{Managed, T0, after};

use crate::common::*;

/// The identity of somebody who has not logged in yet.
fn stranger(subject: &str) -> String {
    derived_identity_id("https://idp.example", subject).unwrap()
}

fn mailed(who: &str, email: &str) -> Actor {
    Actor::Identity { id: path(who), email: Some(email.into()), session: None, narrowing: None }
}

fn made(world: &mut Managed, who: &Actor, operation: &Operation) -> GroupInvite {
    match done(world, who, operation).response {
        Response::NewGroupInvite(invite, _) => *invite,
        other => panic!("{other:?}"),
    }
}

/// An accept that finds no invite that counts: one text, without a rule.
#[track_caller]
fn is_dead(world: &Managed, who: &Actor, code: u8) -> Box<Refusal> {
    let refusal = refused_to(world, who, &accept(code));
    let unknown = refused_to(world, who, &accept(255));
    assert_eq!(refusal.told, Cause::InviteInvalid, "{}", refusal.audit_text());
    assert_eq!(refusal.to_string(), unknown.to_string());
    refusal
}

#[test]
fn an_invite_binds_whoever_accepts_it_and_is_used_up() {
    let mut world = acme();
    let invite_ = made(&mut world, &actor("alice"), &invite("acme/shop", "viewer", None, 1));
    let GroupInvite { id, role, single_use, expires_at, creator, .. } = &invite_;
    assert_eq!(
        (id.as_path().parent(), &**role, *single_use),
        (Some(path("acme/shop").as_path()), "viewer", true)
    );
    assert_eq!(expires_at.seconds(), T0.seconds() + INVITE_TTL.as_secs() as i64);
    assert_eq!(creator.as_ref().map(|one| one.id.as_str()), Some("alice"));
    assert_eq!(
        world.object(Kind::GroupInvite, id.as_str()),
        Some(&Object::GroupInvite(invite_.clone()))
    );

    let outcome = does(&mut world, "mallory", &accept(1));
    let Response::RoleBinding(binding) = outcome.response else { panic!("no binding") };
    assert_eq!(
        (binding.identity.as_str(), &*binding.role, binding.scope.as_str()),
        ("mallory", "viewer", "acme/shop")
    );
    assert_eq!(binding.expires_at, None);
    assert!(!exists(&world, Kind::GroupInvite, id.as_str()));
    is_dead(&world, &actor("gina"), 1);
    // One that is not used up binds many, each once.
    let many = CreateGroupInvite { single_use: false, ..new_invite("acme/shop", "viewer", 2) };
    done(&mut world, &actor("alice"), &Operation::CreateGroupInvite(many));
    assert_eq!(reason(&refused(&world, "mallory", &accept(2))), "ALREADY_EXISTS");
    does(&mut world, "gina", &accept(2));
    does(&mut world, "bob", &accept(2));
}

/// Who has the binding already does not use the invite up.
#[test]
fn an_invite_that_gives_nothing_new_stays() {
    let mut world = acme();
    let one = made(&mut world, &actor("alice"), &invite("acme", "viewer", None, 1));
    assert_eq!(reason(&refused(&world, "bob", &accept(1))), "ALREADY_EXISTS");
    assert!(exists(&world, Kind::GroupInvite, one.id.as_str()));
    does(&mut world, "gina", &accept(1));
}

#[test]
fn who_accepts() {
    let mut world = acme();
    let open = CreateGroupInvite { single_use: false, ..new_invite("acme", "viewer", 1) };
    done(&mut world, &actor("alice"), &Operation::CreateGroupInvite(open));
    // Somebody who has not logged in is registered with it, if the id is a derived one.
    let new = stranger("1");
    let outcome = does(&mut world, &new, &accept(1));
    assert_eq!(outcome.objects.len(), 2);
    let Some(Object::Identity(one)) = world.object(Kind::Identity, &new) else { panic!("none") };
    assert_eq!((&*one.kind, one.disabled, &one.authentication), ("user", false, &None));
    found(&world, &new, "viewer", "acme");
    // Also if it was bound before.
    let bound = stranger("2");
    does(&mut world, "alice", &bind(&bound, "registry.pull", "acme"));
    does(&mut world, &bound, &accept(1));
    assert_eq!(bindings_of(&world, &bound), 2);
    for unknown in ["nobody", "acme/nobody", "acme"] {
        assert_eq!(reason(&refused(&world, unknown, &accept(1))), "AUTHN_FAILED", "{unknown}");
        assert_eq!(reason(&refused(&world, unknown, &accept(9))), "AUTHN_FAILED", "{unknown}");
    }
    done(&mut world, &Actor::Operator, &disable(&new, true));
    assert_eq!(reason(&refused(&world, &new, &accept(1))), "AUTHN_FAILED");
    // A service of the organization may join, one of another one may not (R13), nor a pull token (R7).
    does(&mut world, "acme/ci", &accept(1));
    done(&mut world, &Actor::Operator, &identity("globex/ci"));
    assert_eq!(invalid(&refused(&world, "globex/ci", &accept(1))), "code");
    is_dead(&world, &actor("globex/ci"), 9);
    let token = does(&mut world, "alice", &pull_token("acme", "apk.pull", None)).response;
    let Response::PullToken(token, _) = token else { panic!("no token") };
    for code in [1, 9] {
        let refusal = refused(&world, token.identity.id.as_str(), &accept(code));
        assert_eq!(reason(&refusal), "PULL_TOKEN");
    }
    assert_eq!(invalid(&refused_to(&world, &Actor::Operator, &accept(1))), "code");
}

/// Of the built-in roles of 2025 only the owner invites.
#[test]
fn who_invites() {
    let mut world = acme();
    let operation = invite("acme", "viewer", None, 1);
    for who in ["erin", "bob"] {
        let missing = ["group_invites.create", "role_bindings.create"];
        misses(&refused(&world, who, &operation), None, "acme", &missing);
    }
    hides(
        &refused(&world, "mallory", &operation),
        "acme",
        &["group_invites.create", "role_bindings.create"],
    );
    // R1, and what manages access can be taken away again by who promises it.
    let inviter = ["group_invites.create", "groups.list", "role_bindings.create", "roles.create"];
    does(&mut world, "alice", &role("acme/inviter", &inviter));
    does(&mut world, "alice", &bind("mallory", "acme/inviter", "acme"));
    let refusal = refused(&world, "mallory", &invite("acme", "registry.pull", None, 1));
    misses(&refusal, Some(Rule::Invite), "acme", &held(&world, "registry.pull"));
    let own = invite("acme", "acme/inviter", Some("a@example.com"), 1);
    misses(
        &refused(&world, "mallory", &own),
        Some(Rule::Invite),
        "acme",
        &["role_bindings.delete"],
    );
    // What manages access is for one address, the operator's invite, too.
    for who in [actor("alice"), Actor::Operator] {
        let refusal = refused_to(&world, &who, &invite("acme", "owner", None, 1));
        assert_eq!((invalid(&refusal), refusal.rule), ("group_invite.email", Some(Rule::Invite)));
    }
    let by_operator = invite("acme", "owner", Some("a@example.com"), 1);
    assert_eq!(made(&mut world, &Actor::Operator, &by_operator).creator, None);
    done(&mut world, &mailed("gina", "a@EXAMPLE.com"), &accept(1));
    // Whose right ends promises nothing for ever (R14).
    done(&mut world, &Actor::Operator, &identity("acme/temp"));
    does(&mut world, "alice", &bind_until("acme/temp", "owner", "acme", after(100)));
    let refusal = refused(&world, "acme/temp", &invite("acme", "viewer", None, 2));
    assert_eq!(reason(&refusal), "DURATION_EXCEEDED");
}

fn held(world: &Managed, role: &str) -> Vec<&'static str> {
    let snapshot = world.snapshot();
    let names = snapshot.role(role).unwrap().capabilities.iter();
    let names = names.filter_map(|one| snapshot.catalog().capability_name(one).map(str::to_owned));
    names.map(|name| &*name.leak()).collect()
}

#[test]
fn fields_of_an_invite() {
    let mut world = acme();
    let new = |change: fn(&mut CreateGroupInvite)| {
        let mut new = new_invite("acme/shop", "viewer", 1);
        change(&mut new);
        Operation::CreateGroupInvite(new)
    };
    let most = INVITE_TTL_MAX;
    let cases: [(Operation, &str); 8] = [
        (new(|one| one.email = Some("ann".into())), "group_invite.email"),
        (new(|one| one.role = "nobody".into()), "group_invite.role"),
        (new(|one| one.role = "globex/x".into()), "group_invite.role"),
        (new(|one| one.ttl = Some(std::time::Duration::ZERO)), "ttl"),
        (new(|one| one.ttl = Some(INVITE_TTL_MAX + std::time::Duration::from_nanos(1))), "ttl"),
        (new(|one| one.name = "a\n".into()), "group_invite.name"),
        (new(|one| one.id = Some(path("acme/x"))), "group_invite.id"),
        (new(|one| one.description = "x".repeat(1_025)), "group_invite.description"),
    ];
    for (operation, field) in cases {
        assert_eq!(invalid(&refused(&world, "alice", &operation)), field, "{operation:?}");
    }
    assert_eq!(
        reason(&refused(&world, "alice", &invite("acme/none", "viewer", None, 1))),
        "NOT_FOUND"
    );
    assert_eq!(
        reason(&refused(&world, "alice", &invite("acme/ci", "viewer", None, 1))),
        "NOT_FOUND"
    );
    let longest = CreateGroupInvite { ttl: Some(most), ..new_invite("acme", "viewer", 1) };
    let one = made(&mut world, &actor("alice"), &Operation::CreateGroupInvite(longest));
    assert_eq!(one.expires_at.seconds() - T0.seconds(), most.as_secs() as i64);
}

#[test]
fn only_the_texts_of_an_invite_change() {
    let mut world = acme();
    let one = made(&mut world, &actor("alice"), &invite("acme", "viewer", Some("a@b"), 1));
    let update = UpdateGroupInvite {
        id: one.id.clone(),
        name: None,
        description: None,
        role: None,
        email: None,
        single_use: None,
        etag: None,
    };
    let with = |change: fn(&mut UpdateGroupInvite)| {
        let mut update = update.clone();
        change(&mut update);
        Operation::UpdateGroupInvite(update)
    };
    for (operation, field) in [
        (with(|one| one.role = Some("editor".into())), "group_invite.role"),
        (with(|one| one.email = Some(String::new())), "group_invite.email"),
        (with(|one| one.single_use = Some(false)), "group_invite.single_use"),
    ] {
        assert_eq!(invalid(&refused_to(&world, &Actor::Operator, &operation)), field);
    }
    // The catalog of 2025 has no `group_invites.update`: the operator's.
    let named = with(|one| {
        (one.name, one.role, one.email) =
            (Some("for Ann".into()), Some("viewer".into()), Some("a@b".into()));
    });
    assert_eq!(reason(&refused(&world, "alice", &named)), "OPERATOR_ONLY");
    done(&mut world, &Actor::Operator, &named);
    let Some(Object::GroupInvite(after)) = world.object(Kind::GroupInvite, one.id.as_str()) else {
        panic!("none")
    };
    assert_eq!(after.name, "for Ann");
    assert_ne!(after.meta.etag(), one.meta.etag());
    // It is the same invite.
    done(&mut world, &mailed("gina", "a@b"), &accept(1));
}

#[test]
fn what_makes_an_invite_dead() {
    let mut world = acme();
    for code in 1..=9 {
        does(&mut world, "alice", &invite("acme/shop", "viewer", None, code));
    }
    let gina = actor("gina");
    // Deleted.
    let first = world.invite(1).unwrap();
    does(&mut world, "alice", &delete_invite(first.as_str()));
    is_dead(&world, &gina, 1);
    // For another address, or for one and there is none.
    does(&mut world, "alice", &invite("acme", "viewer", Some("ann@example.com"), 10));
    for who in [gina.clone(), mailed("gina", "Ann@example.com"), mailed("gina", "ann@example.org")]
    {
        is_dead(&world, &who, 10);
    }
    done(&mut world, &mailed("gina", "ann@Example.COM"), &accept(10));
    // The creator is demoted: the audit has why. Promoted again, the promise is as good as new.
    does(&mut world, "alice", &bind("bob", "owner", "acme"));
    let owner = id_of(&world, "alice", "owner", "acme");
    does(&mut world, "bob", &unbind(&owner));
    let refusal = is_dead(&world, &gina, 2);
    let missing = refusal.missing().1;
    assert_eq!(missing, ["group_invites.create", "role_bindings.create"]);
    does(&mut world, "bob", &bind("alice", "owner", "acme"));
    does(&mut world, "gina", &accept(2));
    // Its right ends now.
    let owner = id_of(&world, "alice", "owner", "acme");
    does(&mut world, "bob", &bind_until("alice", "viewer", "acme/shop", after(50)));
    does(&mut world, "bob", &unbind(&owner));
    does(&mut world, "bob", &bind_until("alice", "owner", "acme", after(100)));
    assert!(matches!(is_dead(&world, &actor("mallory"), 3).real, Cause::DurationExceeded { .. }));
    does(&mut world, "bob", &bind("alice", "owner", "acme/shop"));
    does(&mut world, "mallory", &accept(3));
    // Disabled, and another identity under the same id.
    done(&mut world, &Actor::Operator, &disable("alice", true));
    is_dead(&world, &actor("erin"), 4);
    done(&mut world, &Actor::Operator, &disable("alice", false));
    let is_still_good = world.judge(&actor("erin"), &accept(4)).is_ok();
    assert!(is_still_good);
    done(&mut world, &Actor::Operator, &delete_identity("alice"));
    is_dead(&world, &actor("erin"), 4);
    done(&mut world, &Actor::Operator, &identity("alice"));
    does(&mut world, "bob", &bind("alice", "owner", "acme"));
    is_dead(&world, &actor("erin"), 4);
    // Over.
    does(&mut world, "alice", &invite("acme/shop", "viewer", None, 11));
    world.now = Timestamp::new(T0.seconds() + INVITE_TTL.as_secs() as i64, 0);
    is_dead(&world, &actor("erin"), 11);
    world.now = after(INVITE_TTL.as_secs() as i64 - 1);
    does(&mut world, "erin", &accept(11));
}

/// A role that holds more than was promised is judged as it is.
#[test]
fn a_role_that_grew_is_promised_as_it_is() {
    let mut world = acme();
    does(&mut world, "alice", &role("acme/puller", &["repo.list"]));
    does(&mut world, "alice", &invite("acme", "acme/puller", None, 1));
    let (id, in_use) = ("acme/puller", "ROLE_IN_USE");
    assert_eq!(reason(&refused(&world, "alice", &delete_role(id))), in_use);
    // It manages access now, and the invite is for anybody.
    does(&mut world, "alice", &update_role(id, &["repo.list", "groups.create"]));
    assert_eq!(invalid_really(&is_dead(&world, &actor("gina"), 1)), "group_invite.email");
    does(&mut world, "alice", &update_role(id, &["repo.list"]));
    does(&mut world, "gina", &accept(1));
    // Used up, it promises nothing.
    let bound = id_of(&world, "gina", id, "acme");
    does(&mut world, "alice", &unbind(&bound));
    does(&mut world, "alice", &delete_role(id));
}

fn invalid_really(refusal: &Refusal) -> &str {
    match &refusal.real {
        Cause::InvalidField { field, .. } => field,
        other => panic!("{other:?}"),
    }
}

/// A role, or a creator, that is made again under the same id has promised nothing.
#[test]
fn an_invite_names_the_role_and_the_creator_of_then() {
    let mut world = acme();
    does(&mut world, "alice", &role("acme/puller", &["repo.list"]));
    let one = made(&mut world, &actor("alice"), &invite("acme", "acme/puller", None, 1));
    assert!(one.role_created.is_some());
    let other = GroupInvite { role_created: Some(1), ..one.clone() };
    let mut changed = world.clone();
    changed.replace(Object::GroupInvite(other));
    is_dead(&changed, &actor("gina"), 1);
    let creator = Some(Incarnation { id: path("alice"), created: 1 });
    let mut changed = world.clone();
    changed.replace(Object::GroupInvite(GroupInvite { creator, ..one }));
    is_dead(&changed, &actor("gina"), 1);
    does(&mut world, "gina", &accept(1));
}

/// Content of a group keeps it from being deleted; invites go with it, each judged as its own delete.
#[test]
fn invites_go_with_their_group() {
    let mut world = acme();
    let one = made(&mut world, &actor("alice"), &invite("acme/shop", "viewer", None, 1));
    does(&mut world, "alice", &role("acme/gardener", &["groups.delete", "groups.list"]));
    does(&mut world, "alice", &bind("mallory", "acme/gardener", "acme"));
    let refusal = refused(&world, "mallory", &delete_group("acme/shop"));
    misses(&refusal, None, "acme/shop", &["group_invites.delete"]);
    does(&mut world, "mallory", &delete_group("acme/platform"));
    let outcome = does(&mut world, "alice", &delete_group("acme/shop"));
    assert_eq!(outcome.objects.len(), 2);
    assert!(!exists(&world, Kind::GroupInvite, one.id.as_str()));
    is_dead(&world, &actor("gina"), 1);
}

/// Paths are unique across all kinds, those of invites, too.
#[test]
fn nothing_else_has_the_path_of_an_invite() {
    let mut world = acme();
    let named = CreateGroupInvite { id: Some(path("acme/x")), ..new_invite("acme", "viewer", 1) };
    let named = Operation::CreateGroupInvite(named);
    does(&mut world, "alice", &named);
    for operation in [
        named.clone(),
        folder("acme/x"),
        role("acme/x", &[]),
        identity("acme/x"),
        resource("acme/x", "repo", properties(&[])),
    ] {
        assert_eq!(
            reason(&refused(&world, "alice", &operation)),
            "ALREADY_EXISTS",
            "{operation:?}"
        );
    }
    for taken in ["acme/shop", "acme/ci"] {
        let id = Some(path(taken));
        let other = CreateGroupInvite { id, ..new_invite("acme", "viewer", 2) };
        let refusal = refused(&world, "alice", &Operation::CreateGroupInvite(other));
        assert_eq!(reason(&refusal), "ALREADY_EXISTS");
    }
    // Somebody who takes the id that a binding would get does not keep it from being made.
    let wanted = binding("gina", "viewer", "acme");
    let derived = does(&mut world.clone(), "alice", &create(wanted.clone())).objects[0].id.clone();
    let squatting =
        CreateGroupInvite { id: Some(derived.clone()), ..new_invite("acme", "viewer", 3) };
    does(&mut world, "alice", &Operation::CreateGroupInvite(squatting));
    let made = does(&mut world, "alice", &create(wanted)).objects[0].id.clone();
    assert_ne!(made, derived);
}

/// Whoever may see invites sees who promised them, and no code.
#[test]
fn invites_are_seen_by_who_may_list_them() {
    let mut world = acme();
    let one = made(&mut world, &actor("alice"), &invite("acme/shop", "viewer", None, 1));
    let id = one.id.as_str();
    for who in ["alice", "bob", "erin"] {
        assert_eq!(world.list(&actor(who), Kind::GroupInvite), [id], "{who}");
        assert!(world.get(&actor(who), Kind::GroupInvite, id).is_ok());
    }
    assert_eq!(world.list(&actor("gina"), Kind::GroupInvite), [""; 0]);
    let refusal = world.get(&actor("gina"), Kind::GroupInvite, id).unwrap_err();
    hides(&refusal, "acme/shop", &["group_invites.list"]);
    let refusal = world.get(&actor("bob"), Kind::GroupInvite, "acme/shop/none").unwrap_err();
    assert_eq!(refusal.told, Cause::NotFound);
}
