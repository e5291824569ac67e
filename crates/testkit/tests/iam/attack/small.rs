//! Every small world, and every attack in it up to a number of operations.
//!
//! An organization with a folder, an owner, an attacker and a victim in it, a custom role at the root. The roles stand
//! for what an attacker may have of each kind: one gives bindings, one changes identities, one changes roles, and two
//! manage nothing.

use std::collections::HashSet;

use capstan_engine::Timestamp;
use capstan_iam::{Group, Identity, Kind, Match, Meta, Object, Operation, Role, RoleBinding};
use capstan_testkit::managed::operations::*;
use capstan_testkit::managed::{Managed, T0, after};

use super::{Attack, EMAIL, ISSUERS, KINDS, Violation};
use crate::common::catalog;

const ROLES: [(&str, &[&str]); 5] = [
    (
        "binder",
        &[
            "group_invites.create",
            "groups.list",
            "identity_providers.create",
            "identity_providers.update",
            "role_bindings.create",
            "role_bindings.delete",
            "role_bindings.update",
        ],
    ),
    (
        "keeper",
        &[
            "account_associations.create",
            "groups.list",
            "identity.create",
            "identity.update",
            "identity.delete",
            "identity_providers.create",
        ],
    ),
    ("smith", &["group_invites.create", "groups.list", "roles.create", "roles.update"]),
    ("reader", &["doc.read"]),
    ("writer", &["doc.write", "doc.read"]),
];
const SCOPES: [&str; 2] = ["acme", "acme/shop"];
const IDENTITIES: [&str; 3] = ["acme/mallory", "acme/victim", "alice"];
const META: Meta = Meta { created: 1, updated: 1, create_time: T0, update_time: T0 };

type Bound = (&'static str, &'static str, Option<Timestamp>);

fn choices(ends: &[Option<Timestamp>]) -> Vec<Bound> {
    let mut found = vec![];
    for (role, _) in ROLES {
        for scope in SCOPES {
            found.extend(ends.iter().map(|end| (role, scope, *end)));
        }
    }
    found
}

/// Every world in which the victim has one binding, which may end, and the attacker one that may end or two that do
/// not: 1,300.
pub(crate) fn worlds() -> Vec<Managed> {
    let single: Vec<_> =
        choices(&[None, Some(after(10))]).into_iter().map(|one| vec![one]).collect();
    let plain = choices(&[None]);
    let pairs = plain
        .iter()
        .enumerate()
        .flat_map(|(at, one)| plain.iter().skip(at + 1).map(move |other| vec![*one, *other]));
    let attackers: Vec<_> = single.into_iter().chain(pairs).collect();
    let base = base();
    let mut worlds = vec![];
    for victim in &choices(&[None, Some(after(10))]) {
        for attacker in &attackers {
            let mut world = base.clone();
            bind(&mut world, 0, "acme/victim", *victim);
            for (at, one) in attacker.iter().enumerate() {
                bind(&mut world, 1 + at, "acme/mallory", *one);
            }
            worlds.push(world);
        }
    }
    worlds
}

fn base() -> Managed {
    let mut world = Managed::new(catalog(&KINDS, &ROLES));
    let (name, description) = (String::new, String::new);
    for id in SCOPES {
        let group = Group { id: path(id), name: name(), description: description(), meta: META };
        world.put(Object::Group(group)).unwrap();
    }
    for id in IDENTITIES {
        let identity = Identity {
            id: path(id),
            name: name(),
            description: description(),
            kind: "user".into(),
            properties: Default::default(),
            disabled: false,
            authentication: (id == "acme/victim").then(|| claims(Match::Exact(ISSUERS[1].into()))),
            meta: META,
        };
        world.put(Object::Identity(identity)).unwrap();
    }
    let capabilities = vec!["doc.read".to_owned()];
    let role = Role {
        id: path("acme/custom"),
        name: name(),
        description: description(),
        capabilities,
        meta: META,
    };
    world.put(Object::Role(role)).unwrap();
    bind(&mut world, 9, "alice", ("owner", "acme", None));
    world
}

fn bind(world: &mut Managed, at: usize, identity: &str, (role, scope, end): Bound) {
    let binding = RoleBinding {
        id: path(&format!("{scope}/b{at}")),
        name: String::new(),
        description: String::new(),
        identity: path(identity),
        role: role.into(),
        scope: path(scope),
        expires_at: end,
        when: vec![],
        meta: META,
    };
    world.put(Object::RoleBinding(binding)).unwrap();
}

/// What an attacker may try in a state.
fn operations(world: &Managed) -> Vec<Operation> {
    let mut all = vec![];
    let roles = ["owner", "binder", "keeper", "smith", "reader", "writer", "acme/custom"];
    for identity in ["acme/mallory", "acme/victim"] {
        for role in roles {
            for scope in SCOPES {
                all.push(capstan_testkit::managed::operations::bind(identity, role, scope));
                all.push(bind_until(identity, role, scope, after(10)));
            }
        }
        for end in [None, Some(after(10))] {
            all.push(authenticate(identity, Some(keys("https://idp.example", "1", "1", end))));
        }
        all.extend([disable(identity, true), disable(identity, false), delete_identity(identity)]);
    }
    let bindings = world.objects().filter(|object| object.kind() == Kind::RoleBinding);
    for id in bindings.map(|object| object.id().as_str()) {
        all.push(unbind(id));
        all.extend(roles.iter().map(|role| rebind(id, role)));
    }
    for capabilities in [&["doc.read", "doc.write"][..], &["role_bindings.create"], &[]] {
        all.push(update_role("acme/custom", capabilities));
        all.push(role("acme/shop/new", capabilities));
    }
    all.extend(roles.iter().map(|role| pull_token("acme/shop", role, None)));
    let identities = world.objects().filter(|object| object.kind() == Kind::Identity);
    all.extend(identities.map(|object| revoke(object.id().as_str())));
    for role in roles {
        all.push(invite("acme/shop", role, Some(EMAIL), 1));
    }
    all.push(accept(1));
    // One proves the victim, and the other one nobody.
    for issuer in ["https://other.example", ISSUERS[1]] {
        all.push(provider("acme/idp", issuer, None));
        all.extend(roles.iter().map(|role| provider("acme/idp", issuer, Some(role))));
    }
    all.push(rekey("acme/idp", "2"));
    for scope in SCOPES {
        all.extend(roles.iter().map(|role| map("acme/idp", "admins", role, scope)));
    }
    all.push(associate("acme/shop", &[("x", "acme/victim")]));
    all.push(identity("acme/shop/minion"));
    all.push(capstan_testkit::managed::operations::bind("acme/shop/minion", "owner", "acme/shop"));
    all
}

/// What was tried.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) tried: u64,
    pub(crate) states: u64,
}

/// Every attack of at most so many operations.
pub(crate) fn attack(attack: &Attack<'_>, depth: usize) -> Result<Counted, Box<Violation>> {
    let mut counted = Counted::default();
    let mut seen = HashSet::new();
    let mut states = vec![attack.clone()];
    for _ in 0..depth {
        let mut next = vec![];
        for state in &states {
            for who in state.actors() {
                for operation in operations(&state.world) {
                    counted.tried += 1;
                    if state.world.judge(&actor(&who), &operation).is_err() {
                        continue;
                    }
                    let mut tried = state.clone();
                    if tried.try_one(&who, &operation)? && seen.insert(fingerprint(&tried)) {
                        next.push(tried);
                    }
                }
            }
        }
        counted.states += next.len() as u64;
        states = next;
    }
    Ok(counted)
}

/// Two states with the same objects, whenever they were made, and the same identities of the attacker go on alike.
fn fingerprint(attack: &Attack<'_>) -> String {
    let mut text = format!("{:?}", attack.controlled);
    for object in attack.world.objects() {
        let mut object = object.clone();
        *object.meta_mut() = META;
        text.push_str(&format!("{object:?}"));
    }
    text
}
