//! Models: derived ids of bindings, and which violations are kept.

#![expect(clippy::unwrap_used, reason = "a test that panics fails")]

use std::collections::{BTreeMap, BTreeSet};

use capstan_engine::{
    Attributes, Facts, Group, Model, Path, RoleBinding, Snapshot, Timestamp, VIOLATIONS_MAX,
    check_facts,
};
use capstan_policy::{Catalogs, load_policy};

const IDENTITIES: usize = 40;

/// A policy in which every identity is bound to two roles at five scopes.
fn document(reverse: bool, more: &str) -> String {
    let scopes = ["a", "a/b", "a/b/c", "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o", "r"];
    let mut groups = Vec::new();
    for scope in &scopes[..4] {
        let path = Path::parse(scope).unwrap();
        groups.extend(path.ancestors().map(|group| format!("{{id: {group}}}")));
    }
    groups.sort();
    groups.dedup();
    let identities: Vec<_> = (0..IDENTITIES).map(|n| format!("{{id: u{n}}}")).collect();
    let mut bindings = Vec::new();
    for scope in scopes {
        for role in ["owner", "viewer"] {
            bindings.extend(
                (0..IDENTITIES)
                    .map(|n| format!("{{identity: u{n}, role: {role}, scope: {scope}}}")),
            );
        }
    }
    if reverse {
        bindings.reverse();
    }
    format!(
        "{{version: 1, catalog: chainguard-2025-08-14, groups: [{}], resources: [{{id: r, type: \
         t}}], identities: [{}], role_bindings: [{}]{more}}}",
        groups.join(", "),
        identities.join(", "),
        bindings.join(", ")
    )
}

fn model(document: &str) -> Model {
    let loaded = load_policy(document.as_bytes(), &Catalogs::default());
    assert!(loaded.is_ok(), "{loaded:?}");
    loaded.unwrap().model
}

/// The id of each binding, by identity, role and scope.
fn ids(model: &Model) -> BTreeMap<(String, String, String), String> {
    let snapshot = Snapshot::build(model, 1).unwrap();
    let mut ids = BTreeMap::new();
    for identity in &model.facts().identities {
        for resource in ["a/b/c/d/e/f/g/h/i/j/k/l/m/n/o", "r"] {
            let resource = Path::parse(resource).unwrap();
            let (identity, now) = (identity.id.as_path(), Timestamp::UNIX_EPOCH);
            let found = snapshot.list_capabilities(identity, resource, Attributes::NONE, now);
            for grant in found.grants {
                let key = (identity.to_string(), grant.role.to_owned(), grant.scope.to_owned());
                let first = ids.insert(key, grant.binding.into_owned());
                assert_eq!(first, None, "listed once");
            }
        }
    }
    assert_eq!(ids.len(), model.facts().role_bindings.len());
    ids
}

#[test]
fn generated_ids_are_paths_below_their_scopes() {
    for ((_, _, scope), id) in ids(&model(&document(false, ""))) {
        let path = Path::parse(&id).unwrap();
        assert_eq!(path.parent().map(Path::as_str), Some(&*scope));
        let last = id.rsplit('/').next().unwrap_or_default();
        assert_eq!(last.len(), 16, "{id}");
        assert!(last.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
    }
}

#[test]
fn generated_ids_are_unique() {
    let ids = ids(&model(&document(false, "")));
    let unique: BTreeSet<_> = ids.values().collect();
    assert_eq!(unique.len(), ids.len());
}

#[test]
fn generated_ids_are_the_same_for_the_same_policy_in_any_order() {
    let first = ids(&model(&document(false, "")));
    assert_eq!(ids(&model(&document(false, ""))), first);
    assert_eq!(ids(&model(&document(true, ""))), first);
}

#[test]
fn a_binding_keeps_its_id_whatever_else_is_bound() {
    let all = ids(&model(&document(false, "")));
    let fewer = document(false, "").replace("{identity: u1, role: owner, scope: a}, ", "");
    for (binding, id) in ids(&model(&fewer)) {
        assert_eq!(all.get(&binding), Some(&id), "{binding:?}");
    }
}

#[test]
fn generated_ids_avoid_declared_ones() {
    let free = ids(&model(&document(false, "")));
    let wanted = |identity: &str, role: &str, scope: &str| {
        free[&(identity.into(), role.into(), scope.into())].clone()
    };
    let taken = [
        wanted("u0", "owner", "a"),
        wanted("u1", "owner", "a/b"),
        wanted("u2", "viewer", "a/b/c"),
        wanted("u3", "owner", "a"),
    ];
    let next = |id: &str| {
        let (scope, last) = id.rsplit_once('/').unwrap();
        let number = u64::from_str_radix(last, 16).unwrap().wrapping_add(1);
        format!("{scope}/{number:016x}")
    };
    // As a group, a custom role, an identity, and a binding; and the next one too.
    let document = document(false, "")
        .replacen("groups: [", &format!("groups: [{{id: {}}}, ", taken[0]), 1)
        .replacen("identities: [", &format!("identities: [{{id: {}}}, ", taken[1]), 1)
        .replacen("resources: [", &format!("resources: [{{id: {}, type: t}}, ", next(&taken[3])), 1)
        .replacen(
            "role_bindings: [",
            &format!(
                "roles: [{{id: {}, capabilities: [repo.list]}}], role_bindings: [{{id: {}, \
                 identity: u0, role: editor, scope: a}}, ",
                taken[2], taken[3]
            ),
            1,
        );
    let ids = ids(&model(&document));
    let unique: BTreeSet<_> = ids.values().collect();
    assert_eq!(unique.len(), ids.len());
    let generated = |binding: &(String, String, String)| binding.1 != "editor";
    for (binding, id) in ids.iter().filter(|(binding, _)| generated(binding)) {
        let free = &free[binding];
        let is_taken = taken.contains(free);
        assert_eq!(id == free, !is_taken, "{binding:?}");
        assert!(!taken.contains(id) && *id != next(&taken[3]), "{binding:?}");
    }
}

#[test]
fn declared_ids_are_kept() {
    let document = document(false, "").replacen(
        "{identity: u7, role: owner, scope: a}",
        "{id: a/mine, identity: u7, role: owner, scope: a}",
        1,
    );
    let id = &ids(&model(&document))[&("u7".into(), "owner".into(), "a".into())];
    assert_eq!(id, "a/mine");
}

#[test]
fn the_first_violations_of_each_list_are_kept() {
    let group = |id: String| Group { id: id.parse().unwrap(), name: String::new() };
    let mut facts =
        Facts { groups: (0..300).map(|n| group(format!("a{n}/b"))).collect(), ..Facts::default() };
    let last = facts.groups.len();
    facts.groups.extend((0..300).map(|_| group("twin".into())));
    let model = model(&document(false, ""));
    let mut binding: RoleBinding = model.facts().role_bindings[0].clone();
    binding.scope = "nowhere".parse().unwrap();
    facts.role_bindings.push(binding);
    let found = check_facts(&facts, None, &[]).unwrap_err();
    // Parents and duplicates, and the identity and the scope of the binding.
    assert_eq!(found.total(), 300 + 299 + 2);
    let of = |list: &str| found.iter().filter(|one| one.kind == list).collect::<Vec<_>>();
    assert_eq!(of("role_bindings").len(), 2);
    let places: Vec<_> = of("groups").iter().map(|one| one.index).collect();
    assert_eq!(places, (0..VIOLATIONS_MAX).collect::<Vec<_>>(), "duplicates are not checked first");
    assert!(places.iter().all(|place| *place < last));
}

#[test]
fn references_to_an_unread_list_are_not_judged() {
    let whole = model(&document(false, ""));
    let mut facts = whole.facts().clone();
    facts.identities.clear();
    let bindings = facts.role_bindings.len();
    let catalog = Some(&**whole.catalog());
    assert_eq!(check_facts(&facts, catalog, &[]).unwrap_err().total(), bindings);
    assert_eq!(check_facts(&facts, catalog, &["identities"]), Ok(()));
    facts.groups.clear();
    assert_eq!(check_facts(&facts, catalog, &["identities", "groups"]), Ok(()));
    assert!(check_facts(&facts, catalog, &["identities"]).is_err());
}
