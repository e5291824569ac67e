//! Random worlds and random operations of an attacker.

mod resolved;

use std::sync::Arc;

use capstan_engine::{
    Catalog, CatalogFacts, CatalogResource, CatalogRole, Condition, PathBuf, Properties, Timestamp,
};
use capstan_iam::{
    Authentication, BatchCreateRoleBindings, CreateGroup, CreateIdentity, Group, Identity,
    IdentityUpdate, Kind, Meta, NewRoleBinding, Object, Operation, Resource, Role, RoleBinding,
    UpdateRoleBinding, derived_identity_id,
};
use capstan_testkit::managed::operations::*;
use capstan_testkit::managed::{Bindings, Managed, T0, bits};
use fastrand::Rng;

use super::{Attack, EMAIL, ENDS, ISSUERS, KINDS, TIMES, subscriptions};

/// Capabilities that manage nothing.
const PLAIN: [&str; 6] = ["doc.read", "doc.write", "img.list", "img.pull", "img.push", "key.use"];

const GROUPS_MAX: usize = 8;
const IDENTITIES_MAX: usize = 6;
pub(super) const META: Meta = Meta { created: 1, updated: 1, create_time: T0, update_time: T0 };

pub(super) fn pick<T: Clone>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())].clone()
}

pub(super) fn one_in(rng: &mut Rng, count: usize) -> bool {
    rng.usize(..count) == 0
}

fn end(rng: &mut Rng) -> Option<Timestamp> {
    if one_in(rng, 2) { None } else { Some(pick(rng, &ENDS)) }
}

/// A few capabilities; those of one kind of object often together.
fn capabilities(rng: &mut Rng) -> Vec<String> {
    let mut found: Vec<String> = vec![];
    for plain in PLAIN {
        if one_in(rng, 3) {
            found.push(plain.into());
        }
    }
    for kind in KINDS {
        let actions: &[&str] = match rng.usize(..4) {
            0 => &["create", "delete", "list", "update"],
            1 => &["list"],
            2 => pick(rng, &[&["create"][..], &["update"], &["delete"], &["create", "delete"]]),
            _ => &[],
        };
        found.extend(actions.iter().map(|action| format!("{kind}.{action}")));
    }
    found
}

fn catalog(rng: &mut Rng) -> Arc<Catalog> {
    let resource = |name: &str, actions: &[&str]| CatalogResource {
        name: name.into(),
        purpose: String::new(),
        actions: actions.iter().map(|one| (*one).to_owned()).collect(),
    };
    let mut resources = vec![
        resource("doc", &["read", "write"]),
        resource("img", &["list", "pull", "push"]),
        resource("key", &["use"]),
    ];
    resources
        .extend(KINDS.iter().map(|kind| resource(kind, &["create", "delete", "list", "update"])));
    let all = |resource: &CatalogResource| {
        let name = resource.name.clone();
        resource.actions.iter().map(move |action| format!("{name}.{action}")).collect::<Vec<_>>()
    };
    let owner = CatalogRole {
        name: "owner".into(),
        owner: true,
        capabilities: resources.iter().flat_map(all).collect(),
        ..CatalogRole::default()
    };
    let mut roles = vec![owner];
    for at in 0..4 {
        let (name, capabilities) = (format!("r{at}"), capabilities(rng));
        roles.push(CatalogRole { name, capabilities, ..CatalogRole::default() });
    }
    let facts = CatalogFacts { name: "random".into(), resources, capabilities: vec![], roles };
    Arc::new(Catalog::new(facts).unwrap())
}

fn some_properties(rng: &mut Rng, name: &str) -> Properties {
    match rng.usize(..3) {
        0 => Properties::new(),
        1 => properties(&[(name, "a")]),
        _ => properties(&[(name, "b")]),
    }
}

fn when(rng: &mut Rng) -> Vec<Condition> {
    match rng.usize(..12) {
        0 => vec![equals("subject.team", "a")],
        1 => vec![equals("resource.stage", "a")],
        _ => vec![],
    }
}

/// A random world in which an attacker has one or two identities, and something to manage.
pub(crate) fn world(rng: &mut Rng) -> (Managed, Vec<String>) {
    loop {
        let (world, own) = any_world(rng);
        let catalog = Arc::clone(world.snapshot().catalog());
        let is_managing = |name: &&str| {
            name.split_once('.')
                .is_some_and(|(kind, action)| KINDS.contains(&kind) && action != "list")
        };
        let managing = bits(&catalog, catalog.capabilities().filter(is_managing));
        let (bindings, groups) = (Bindings::of(&world), ids(&world, Kind::Group));
        let manages =
            |id: &String| groups.iter().any(|group| bindings.caps(id, group, T0) & managing != 0);
        if own.iter().any(manages) {
            return (world, own);
        }
    }
}

/// At most 3 organizations, 8 groups, 6 identities, 3 custom roles, 3 resources, 15 bindings; and one or two
/// identities of an attacker.
fn any_world(rng: &mut Rng) -> (Managed, Vec<String>) {
    let mut world = Managed::new(catalog(rng));
    let mut groups: Vec<String> = vec![];
    for at in 0..rng.usize(1..=3) {
        groups.push(format!("o{at}"));
    }
    for at in groups.len()..rng.usize(groups.len()..=GROUPS_MAX) {
        let parent = pick(rng, &groups);
        groups.push(format!("{parent}/g{at}"));
    }
    let (name, description) = (String::new, String::new);
    for id in &groups {
        let group = Group { id: path(id), name: name(), description: description(), meta: META };
        world.put(Object::Group(group)).unwrap();
    }
    let mut identities: Vec<String> = vec![];
    for at in 0..rng.usize(2..=IDENTITIES_MAX) {
        let id =
            if one_in(rng, 2) { format!("p{at}") } else { format!("{}/p{at}", pick(rng, &groups)) };
        let identity = Identity {
            id: path(&id),
            name: name(),
            description: description(),
            kind: "user".into(),
            properties: some_properties(rng, "team"),
            disabled: at > 0 && one_in(rng, 8),
            authentication: if one_in(rng, 2) { None } else { resolved::claims(rng) },
            meta: META,
        };
        world.put(Object::Identity(identity)).unwrap();
        identities.push(id);
    }
    for at in 0..rng.usize(..=3) {
        let id = path(&format!("{}/c{at}", pick(rng, &groups)));
        let capabilities = capabilities(rng);
        let role = Role { id, name: name(), description: description(), capabilities, meta: META };
        world.put(Object::Role(role)).unwrap();
    }
    for at in 0..rng.usize(..=3) {
        let resource = Resource {
            id: path(&format!("{}/s{at}", pick(rng, &groups))),
            name: name(),
            description: description(),
            kind: "doc".into(),
            properties: some_properties(rng, "stage"),
            meta: META,
        };
        world.put(Object::Resource(resource)).unwrap();
    }
    let own: Vec<_> = identities.iter().take(rng.usize(1..=2)).cloned().collect();
    bindings(rng, &mut world, &groups, &identities);
    resolved::put(rng, &mut world, &groups);
    subscriptions::put(rng, &mut world, &groups, &own);
    (world, own)
}

fn bindings(rng: &mut Rng, world: &mut Managed, groups: &[String], identities: &[String]) {
    let (roles, scopes) = (roles(world), scopes(world));
    let mut put = |at: usize, identity: &str, role: &str, scope: &str, end, when| {
        let id = path(&format!("{scope}/b{at}"));
        let (name, description, meta) = (String::new(), String::new(), META);
        let (identity, role, scope) = (path(identity), role.into(), path(scope));
        let binding = RoleBinding {
            id,
            name,
            description,
            identity,
            role,
            scope,
            expires_at: end,
            when,
            meta,
        };
        // Some are refused: the same twice, a role outside its home.
        let _ = world.put(Object::RoleBinding(binding));
    };
    for (at, group) in groups.iter().enumerate().filter(|(_, group)| !group.contains('/')) {
        let people: Vec<&str> =
            identities.iter().map(String::as_str).filter(|id| !id.contains('/')).collect();
        if !people.is_empty() && !one_in(rng, 4) {
            // Not the attacker's first one, which would have nothing to gain.
            put(at, pick(rng, &people[people.len() / 2..]), "owner", group, None, vec![]);
        }
    }
    let unregistered = derived_identity_id("https://idp.example", "0").unwrap();
    for at in 10..rng.usize(13..=22) {
        let identity = match rng.usize(..10) {
            0 => unregistered.clone(),
            // The attacker's first one has something to begin with.
            1..4 => identities[0].clone(),
            _ => pick(rng, identities),
        };
        let of_scope: Vec<_> = scopes
            .iter()
            .filter(|scope| !identity.contains('/') || root(scope) == root(&identity))
            .collect();
        let (role, scope) = (pick(rng, &roles[1..]), pick(rng, &of_scope));
        let (end, when) = (end(rng), when(rng));
        put(at, &identity, &role, scope, end, when);
    }
}

fn root(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

pub(super) fn ids(world: &Managed, kind: Kind) -> Vec<String> {
    let of_kind = world.objects().filter(|object| object.kind() == kind);
    of_kind.map(|object| object.id().as_str().to_owned()).collect()
}

fn roles(world: &Managed) -> Vec<String> {
    let built_in = world.snapshot().catalog().roles().iter().map(|role| role.name.clone());
    built_in.chain(ids(world, Kind::Role)).collect()
}

fn scopes(world: &Managed) -> Vec<String> {
    ids(world, Kind::Group).into_iter().chain(ids(world, Kind::Resource)).collect()
}

/// An identity to be bound or changed: often one of the attacker's.
fn someone(rng: &mut Rng, attack: &Attack<'_>) -> String {
    let own: Vec<_> = attack.controlled.keys().cloned().collect();
    let all = ids(&attack.world, Kind::Identity);
    if one_in(rng, 2) || all.is_empty() { pick(rng, &own) } else { pick(rng, &all) }
}

fn new_binding(rng: &mut Rng, attack: &Attack<'_>, scope: &str) -> NewRoleBinding {
    NewRoleBinding {
        expires_at: end(rng),
        when: when(rng),
        ..binding(&someone(rng, attack), &pick(rng, &roles(&attack.world)), scope)
    }
}

fn authentication(rng: &mut Rng) -> Option<Authentication> {
    let subject = rng.usize(..3).to_string();
    match rng.usize(..6) {
        0 => None,
        1 => resolved::claims(rng),
        key => {
            let key = key.to_string();
            let ends = if one_in(rng, 2) { None } else { Some(pick(rng, &ENDS)) };
            Some(keys(ISSUERS[0], &subject, &key, ends))
        }
    }
}

/// Something that an attacker may try. Time may pass before it.
pub(crate) fn operation(rng: &mut Rng, attack: &mut Attack<'_>) -> Option<(String, Operation)> {
    if one_in(rng, 20) {
        let later: Vec<_> = TIMES.into_iter().filter(|time| *time > attack.world.now).collect();
        attack.world.now = later.first().copied().unwrap_or(attack.world.now);
    }
    let actors = attack.actors();
    if actors.is_empty() {
        return None;
    }
    let who = pick(rng, &actors);
    let scopes = scopes(&attack.world);
    if scopes.is_empty() {
        return None;
    }
    if one_in(rng, 10) {
        return Some(inviting(rng, attack, &scopes, who));
    }
    if one_in(rng, 5) {
        return Some((who, resolved::operation(rng, attack, &scopes)));
    }
    if one_in(rng, 12) {
        return Some((who, subscriptions::operation(rng, &attack.world, &scopes)));
    }
    let operation = match rng.usize(..100) {
        0..24 => {
            let scope = pick(rng, &scopes);
            create(new_binding(rng, attack, &scope))
        }
        24..36 => {
            let parent = root(&pick(rng, &scopes)).to_owned();
            let below: Vec<_> = scopes.iter().filter(|scope| root(scope) == parent).collect();
            let one = pick(rng, &below).to_string();
            let parent = if one_in(rng, 2) { one.clone() } else { parent };
            let below: Vec<_> = below
                .into_iter()
                .filter(|scope| path(&parent).as_path().contains(path(scope).as_path()))
                .collect();
            let mut bindings = vec![];
            for _ in 0..rng.usize(1..=3) {
                let scope = pick(rng, &below);
                bindings.push(new_binding(rng, attack, scope));
            }
            let parent = path(&parent);
            Operation::BatchCreateRoleBindings(BatchCreateRoleBindings { parent, bindings })
        }
        36..70 => other_bindings_and_roles(rng, attack, &scopes)?,
        _ => others(rng, attack, &scopes)?,
    };
    Some((who, operation))
}

/// An invite, or one that is accepted: by an identity of the attacker, or by one that nobody has registered.
fn inviting(
    rng: &mut Rng,
    attack: &Attack<'_>,
    scopes: &[String],
    who: String,
) -> (String, Operation) {
    let code = rng.u8(..3);
    if one_in(rng, 2) {
        let stranger = derived_identity_id("https://mallory.example", &code.to_string()).unwrap();
        return (if one_in(rng, 3) { stranger } else { who }, accept(code));
    }
    let email = if one_in(rng, 3) { None } else { Some(EMAIL) };
    (who, invite(&pick(rng, scopes), &pick(rng, &roles(&attack.world)), email, code))
}

fn other_bindings_and_roles(
    rng: &mut Rng,
    attack: &Attack<'_>,
    scopes: &[String],
) -> Option<Operation> {
    let world = &attack.world;
    let (bound, custom) = (ids(world, Kind::RoleBinding), ids(world, Kind::Role));
    Some(match rng.usize(..34) {
        0..10 if !bound.is_empty() => {
            let id = pick(rng, &bound);
            let mut update = rebinding(&id);
            match rng.usize(..4) {
                0 => update.identity = Some(path(&someone(rng, attack))),
                1 => update.role = Some(pick(rng, &roles(world)).into()),
                2 => update.expires_at = Some(end(rng)),
                _ => update.when = Some(when(rng)),
            }
            Operation::UpdateRoleBinding(UpdateRoleBinding { id: path(&id), ..update })
        }
        10..14 if !bound.is_empty() => unbind(&pick(rng, &bound)),
        14..16 if !bound.is_empty() => {
            let id = pick(rng, &bound);
            unbind_all(root(&id), &[&id])
        }
        16..18 => remove(&someone(rng, attack), root(&pick(rng, scopes))),
        18..24 => {
            let id = format!("{}/n{}", pick(rng, scopes), rng.usize(..3));
            let capabilities = capabilities(rng);
            let few = rng.usize(..=capabilities.len());
            role(&id, &capabilities[..few].iter().map(String::as_str).collect::<Vec<_>>())
        }
        24..32 if !custom.is_empty() => {
            let id = pick(rng, &custom);
            let Some(Object::Role(old)) = world.object(Kind::Role, &id) else { return None };
            let mut names: Vec<_> = old.capabilities.iter().map(String::as_str).collect();
            let more = capabilities(rng);
            if !names.is_empty() && one_in(rng, 3) {
                names.remove(rng.usize(..names.len()));
            } else {
                names.extend(more.iter().take(rng.usize(1..=3)).map(String::as_str));
            }
            update_role(&id, &names)
        }
        _ if !custom.is_empty() => delete_role(&pick(rng, &custom)),
        _ => return None,
    })
}

fn others(rng: &mut Rng, attack: &Attack<'_>, scopes: &[String]) -> Option<Operation> {
    let world = &attack.world;
    let resources = ids(world, Kind::Resource);
    let id: PathBuf = path(&format!("{}/m{}", pick(rng, scopes), rng.usize(..3)));
    Some(match rng.usize(..35) {
        30..33 => {
            let ttl = if one_in(rng, 2) { None } else { Some(rng.u64(1..=40)) };
            pull_token(&pick(rng, scopes), &pick(rng, &roles(world)), ttl)
        }
        33..35 => revoke(&someone(rng, attack)),
        0..4 => {
            let is_root = one_in(rng, 3);
            Operation::CreateIdentity(CreateIdentity {
                parent: if is_root { None } else { id.as_path().parent().map(PathBuf::from) },
                id: if is_root { None } else { Some(id.clone()) },
                properties: some_properties(rng, "team"),
                authentication: authentication(rng),
                ..new_identity("x")
            })
        }
        4..10 => authenticate(&someone(rng, attack), authentication(rng)),
        10..13 => describe(&someone(rng, attack), some_properties(rng, "team")),
        13..16 => disable(&someone(rng, attack), one_in(rng, 2)),
        16 => change(
            &someone(rng, attack),
            IdentityUpdate { name: Some("x".into()), ..IdentityUpdate::default() },
        ),
        17..19 => delete_identity(&someone(rng, attack)),
        19..21 => folder(id.as_str()),
        21 => Operation::CreateGroup(CreateGroup {
            parent: None,
            id: Some(path("new")),
            name: String::new(),
            description: String::new(),
            owner: Some(path(&someone(rng, attack))),
        }),
        22..24 => delete_group(&pick(rng, scopes)),
        24..26 => resource(id.as_str(), "doc", some_properties(rng, "stage")),
        26..28 if !resources.is_empty() => {
            update_resource(&pick(rng, &resources), some_properties(rng, "stage"))
        }
        _ if !resources.is_empty() => delete_resource(&pick(rng, &resources)),
        _ => return None,
    })
}
