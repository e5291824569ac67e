//! Pull tokens (R7): who makes which, for how long, and what they may not be or do.

use std::collections::BTreeSet;

use capstan_engine::Timestamp;
use capstan_iam::limits::{PULL_TOKEN_TTL, PULL_TOKEN_TTL_MAX};
use capstan_iam::{
    Actor, Cause, Kind, Object, PullToken, Response, Rule, SecretHash, manages_access,
};
use capstan_testkit::managed::Managed;
use capstan_testkit::managed::operations::*;

use crate::common::*;

/// What each `NAME.pull_token_creator` role makes tokens of, by the seed's section on pull tokens: its own pull role, and
/// that of the registry those of `apk`, too.
const CREATORS: [(&str, &[&str]); 4] = [
    ("registry.pull_token_creator", &["apk.pull", "registry.pull"]),
    ("libraries.java.pull_token_creator", &["libraries.java.pull"]),
    ("libraries.javascript.pull_token_creator", &["libraries.javascript.pull"]),
    ("libraries.python.pull_token_creator", &["libraries.python.pull"]),
];

fn token(world: &mut Managed, who: &str, role: &str, seconds: Option<u64>) -> PullToken {
    let outcome = does(world, who, &pull_token("acme", role, seconds));
    let Response::PullToken(token, secret) = outcome.response else { panic!("no token") };
    assert_eq!(secret, SecretHash::from_bytes([7; 32]));
    *token
}

/// Everything that a role holds that the catalog's table gives it.
fn held(world: &Managed, role: &str) -> BTreeSet<String> {
    let snapshot = world.snapshot();
    let names = snapshot.role(role).unwrap().capabilities.iter();
    names.filter_map(|one| snapshot.catalog().capability_name(one)).map(str::to_owned).collect()
}

/// The table role × token kind × (create, list, revoke), of the whole catalog of 2025, literal and as corrected: what R7
/// and the catalog's table imply. The table of capabilities is read again, without the rules.
#[test]
fn who_makes_lists_and_revokes_which_tokens() {
    for catalog in ["chainguard-2025-08-14", "chainguard-2025-08-14+errata"] {
        let mut world = two_organizations(built_in(catalog));
        let roles: Vec<String> =
            world.snapshot().roles().iter().map(|role| role.id.to_string()).collect();
        for role in &roles {
            let who = format!("acme/{}", role.replace('.', "-"));
            done(&mut world, &Actor::Operator, &identity(&who));
            done(&mut world, &Actor::Operator, &bind(&who, role, "acme"));
        }
        let sample = token(&mut world, "alice", "apk.pull", None).identity.id;
        let (mut made, mut tried) = (0, 0);
        for role in &roles {
            let who = format!("acme/{}", role.replace('.', "-"));
            let own = held(&world, role);
            let mut kinds = vec![];
            for kind in &roles {
                let of_kind = held(&world, kind);
                let manages = of_kind.iter().any(|name| manages_access(name));
                let creates = ["identity.create", "role_bindings.create"]
                    .iter()
                    .all(|name| own.contains(*name));
                let expected = match (creates, manages, of_kind.is_subset(&own)) {
                    (false, _, _) if own.contains("groups.list") => "MISSING_CAPABILITY",
                    (false, _, _) => "NOT_FOUND",
                    (true, true, _) => "ROLE_NOT_ALLOWED",
                    (true, false, true) => "OK",
                    (true, false, false) if own.contains("groups.list") => "MISSING_CAPABILITY",
                    (true, false, false) => "NOT_FOUND",
                };
                let judged = world.judge(&actor(&who), &pull_token("acme", kind, None));
                let seen = judged.as_ref().map_or_else(|refusal| reason(refusal), |_| "OK");
                assert_eq!(seen, expected, "{catalog}: {role} makes a token of {kind}");
                if seen == "OK" {
                    kinds.push(kind.as_str());
                    made += 1;
                }
                tried += 1;
            }
            kinds.sort_unstable();
            if let Some((_, expected)) = CREATORS.iter().find(|(creator, _)| creator == role) {
                assert_eq!(kinds, *expected, "{catalog}: {role}");
                assert!(!own.contains("identity.list"), "{role} lists no tokens");
            }
            let shown = world.get(&actor(&who), Kind::Identity, sample.as_str());
            assert_eq!(shown.is_ok(), own.contains("identity.list"), "{catalog}: {role} lists");
            let revoked = world.judge(&actor(&who), &revoke(sample.as_str()));
            let may = own.contains("identity.delete");
            assert_eq!(revoked.is_ok(), may, "{catalog}: {role} revokes");
        }
        assert_eq!(tried, roles.len() * roles.len());
        // Of the owner all six roles that manage nothing, of the creators five; of nobody else any.
        assert_eq!(made, 11, "{catalog}");
    }
}

#[test]
fn a_token_is_an_identity_with_one_binding_that_ends() {
    let mut world = acme();
    let made = token(&mut world, "alice", "registry.pull", Some(3_600));
    let (id, now) = (made.identity.id.as_str(), world.now);
    let last = id.strip_prefix("acme/").unwrap();
    assert!(last.len() == 16 && last.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    assert_eq!((&*made.identity.kind, bindings_of(&world, id)), ("pull_token", 1));
    assert_eq!(world.object(Kind::Identity, id), Some(&Object::Identity(made.identity.clone())));
    let binding = found(&world, id, "registry.pull", "acme");
    assert_eq!(binding, &made.binding);
    assert_eq!(binding.expires_at, Some(Timestamp::new(now.seconds() + 3_600, now.nanos())));

    let outcome = does(&mut world, "alice", &revoke(id));
    assert_eq!(outcome.objects.len(), 2);
    assert!(!exists(&world, Kind::Identity, id) && bindings_of(&world, id) == 0);
    assert_eq!(reason(&refused(&world, "alice", &revoke(id))), "NOT_FOUND");
}

#[test]
fn how_long_a_token_lives() {
    let mut world = acme();
    let now = world.now.seconds();
    let ends = |token: &PullToken| token.binding.expires_at.unwrap().seconds() - now;
    let (default, most) = (PULL_TOKEN_TTL.as_secs(), PULL_TOKEN_TTL_MAX.as_secs());
    assert_eq!(ends(&token(&mut world, "alice", "apk.pull", None)) as u64, default);
    assert_eq!(ends(&token(&mut world, "alice", "apk.pull", Some(most))) as u64, most);
    for wrong in [0, most + 1] {
        let refusal = refused(&world, "alice", &pull_token("acme", "apk.pull", Some(wrong)));
        assert_eq!(invalid(&refusal), "ttl");
    }
    // R14: no longer than the right of its maker. Without a time, as long as that.
    let end = Timestamp::new(now + 100, 0);
    done(&mut world, &Actor::Operator, &identity("acme/temp"));
    done(&mut world, &Actor::Operator, &bind_until("acme/temp", "owner", "acme", end));
    assert_eq!(ends(&token(&mut world, "acme/temp", "apk.pull", None)), 100);
    assert_eq!(ends(&token(&mut world, "acme/temp", "apk.pull", Some(100))), 100);
    let refusal = refused(&world, "acme/temp", &pull_token("acme", "apk.pull", Some(101)));
    assert_eq!(reason(&refusal), "DURATION_EXCEEDED");
    assert_eq!(refusal.rule, Some(Rule::Duration));
}

#[test]
fn what_a_token_may_not_be_or_do() {
    let mut world = acme();
    let made = token(&mut world, "alice", "registry.pull", None);
    let (id, bound) = (made.identity.id.as_str(), made.binding.id.as_str());
    let operations = [
        bind(id, "viewer", "acme"),
        bind_all("acme", vec![binding(id, "viewer", "acme")]),
        rebind(bound, "apk.pull"),
        describe(id, properties(&[("team", "a")])),
        disable(id, true),
        authenticate(id, Some(keys("https://idp.example", "1", "1", None))),
    ];
    for operation in operations {
        for who in [actor("alice"), Actor::Operator] {
            let refusal = refused_to(&world, &who, &operation);
            assert_eq!(
                refusal.told,
                Cause::PullToken { id: made.identity.id.clone() },
                "{operation:?}"
            );
        }
    }
    // Its name is no credential.
    let named = capstan_iam::IdentityUpdate { name: Some("ci".into()), ..Default::default() };
    does(&mut world, "alice", &change(id, named));
    // A type that names one makes none, and the operator is bound by the rule, too.
    let new = capstan_iam::CreateIdentity { kind: "pull_token".into(), ..new_identity("acme/x") };
    let operation = capstan_iam::Operation::CreateIdentity(new);
    assert_eq!(invalid(&refused_to(&world, &Actor::Operator, &operation)), "identity.type");
    let refusal = refused_to(&world, &Actor::Operator, &pull_token("acme", "owner", None));
    assert_eq!((reason(&refusal), refusal.rule), ("ROLE_NOT_ALLOWED", Some(Rule::PullToken)));
    // It revokes itself, and no other.
    let other = token(&mut world, "alice", "registry.pull", None).identity.id;
    assert_eq!(reason(&refused(&world, id, &revoke(other.as_str()))), "NOT_FOUND");
    does(&mut world, id, &revoke(id));
    assert!(!exists(&world, Kind::Identity, id) && exists(&world, Kind::Identity, other.as_str()));
}

/// A role that comes to manage access later gives its tokens nothing of that (R7), and whoever cannot see a role does not
/// learn what it holds.
#[test]
fn a_role_that_comes_to_manage_access_does_not_make_its_tokens_do_so() {
    let mut world = acme();
    does(&mut world, "alice", &role("acme/puller", &["repo.list"]));
    let made = token(&mut world, "alice", "acme/puller", None);
    let (id, create) = (made.identity.id.as_str(), identity("acme/evil"));
    let more = ["groups.list", "identity.create", "repo.list", "role_bindings.create"];
    does(&mut world, "alice", &update_role("acme/puller", &more));
    misses(&refused(&world, id, &create), None, "acme", &["identity.create"]);
    let state = world.state();
    let who = actor(id);
    let reader = capstan_iam::Reader::new(&world.rules, &state, &who, world.now).unwrap();
    let given = reader.given();
    assert_eq!(given[0].1, ["groups.list", "repo.list"]);
    assert!(reader.topmost(&["identity.create"]).is_empty());
    // The same role makes no new token.
    let refusal = refused(&world, "alice", &pull_token("acme", "acme/puller", None));
    assert!(refusal.to_string().contains("by `identity.create`"), "{refusal}");
    // mallory makes tokens in the shop, and sees no role of acme.
    does(&mut world, "alice", &role("acme/maker", &["identity.create", "role_bindings.create"]));
    does(&mut world, "alice", &bind("mallory", "acme/maker", "acme/shop"));
    let refusal = refused(&world, "mallory", &pull_token("acme/shop", "acme/puller", None));
    assert_eq!(reason(&refusal), "ROLE_NOT_ALLOWED");
    assert!(!refusal.to_string().contains("identity.create"), "{refusal}");
    assert!(refusal.audit_text().contains("by `identity.create`"));
}

/// A group so deep that nothing is made below it: the field is that of the request.
#[test]
fn a_token_fits_below_its_group() {
    let mut world = acme();
    let mut group = "acme".to_owned();
    for _ in 1..16 {
        group += "/g";
        done(&mut world, &Actor::Operator, &folder(&group));
    }
    let refusal = refused(&world, "alice", &pull_token(&group, "apk.pull", None));
    assert_eq!(invalid(&refusal), "group");
}

#[test]
fn what_is_no_token_is_not_revoked_and_what_is_no_group_has_none() {
    let mut world = acme();
    for id in ["acme/ci", "acme/none", "alice"] {
        assert_eq!(reason(&refused_to(&world, &Actor::Operator, &revoke(id))), "NOT_FOUND", "{id}");
    }
    done(&mut world, &Actor::Operator, &resource("acme/repo", "repo", properties(&[])));
    for group in ["acme/none", "acme/repo", "none"] {
        let operation = pull_token(group, "apk.pull", None);
        assert_eq!(
            reason(&refused_to(&world, &Actor::Operator, &operation)),
            "NOT_FOUND",
            "{group}"
        );
    }
    for role in ["none", "globex/puller"] {
        let operation = pull_token("acme", role, None);
        assert_eq!(invalid(&refused_to(&world, &Actor::Operator, &operation)), "role");
    }
    assert_eq!(
        reason(&refused(&world, "gina", &pull_token("acme", "apk.pull", None))),
        "NOT_FOUND"
    );
    let refusal = refused(&world, "bob", &pull_token("acme", "apk.pull", None));
    misses(&refusal, None, "acme", &["identity.create", "role_bindings.create"]);
}
