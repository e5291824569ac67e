//! Indexes with one thing wrong: each is found by the self-check.

use std::sync::Arc;

use super::binding::{BINDING_BYTES, Packed};
use super::hash::Fingerprint;
use super::scope::ScopeRecord;
use super::snapshot::Snapshot;
use crate::{
    Catalog, CatalogFacts, CatalogResource, CatalogRole, CustomRole, Facts, Group, Identity, Model,
    RoleBinding, SelfCheckError, Timestamp, self_check,
};

const NOW: Timestamp = Timestamp::new(1_800_000_000, 0);

/// `alice` and `bob` at `acme` and `acme/team`, by a built-in and a custom role; one binding ends.
fn snapshot() -> Snapshot {
    let catalog = CatalogFacts {
        name: "c".into(),
        resources: vec![CatalogResource {
            name: "r".into(),
            purpose: String::new(),
            actions: vec!["get".into(), "put".into()],
        }],
        roles: vec![CatalogRole {
            name: "reader".into(),
            capabilities: vec!["r.get".into()],
            ..CatalogRole::default()
        }],
        ..CatalogFacts::default()
    };
    let binding = |identity: &str, role: &str, scope: &str, expires_at| RoleBinding {
        id: None,
        identity: identity.parse().unwrap(),
        role: role.into(),
        scope: scope.parse().unwrap(),
        expires_at,
        when: vec![],
    };
    let facts = Facts {
        groups: ["acme", "acme/team"]
            .map(|id| Group { id: id.parse().unwrap(), name: String::new() })
            .into(),
        roles: vec![CustomRole {
            id: "acme/writer".parse().unwrap(),
            name: String::new(),
            description: String::new(),
            capabilities: vec!["r.put".into()],
        }],
        identities: ["acme/alice", "bob"].map(|id| Identity::named(id.parse().unwrap())).into(),
        role_bindings: vec![
            binding("acme/alice", "reader", "acme", None),
            binding("acme/alice", "acme/writer", "acme/team", Some(Timestamp::new(1, 0))),
            binding("bob", "acme/writer", "acme/team", None),
        ],
        ..Facts::default()
    };
    let model = Model::new(Arc::new(Catalog::new(catalog).unwrap()), facts).unwrap();
    Snapshot::build(&model, 1).unwrap()
}

/// What the self-check says of this index after a change that no code makes.
fn found(corrupt: impl FnOnce(&mut super::Index)) -> SelfCheckError {
    let mut index = snapshot().index().clone();
    corrupt(&mut index);
    *self_check(&Snapshot::new(1, index), usize::MAX, NOW).unwrap_err()
}

fn contradicts(corrupt: impl FnOnce(&mut super::Index), id: &str, problem: &str) {
    match found(corrupt) {
        SelfCheckError::Reference { id: at, problem: what } => {
            assert!(at == id && what.contains(problem), "{at}: {what}");
        }
        other @ SelfCheckError::Answer { .. } => panic!("{other}"),
    }
}

fn differs(corrupt: impl FnOnce(&mut super::Index)) {
    let found = found(corrupt);
    assert!(matches!(found, SelfCheckError::Answer { .. }), "{found}");
}

/// Rewrites the bindings of an identity.
fn rewrite(index: &mut super::Index, id: &str, change: impl Fn(usize, Packed) -> Packed) {
    let entry = index.identities.get(id).unwrap();
    let (bindings, _) = entry.payload().as_chunks::<BINDING_BYTES>();
    let mut payload = Vec::new();
    for (at, bytes) in bindings.iter().enumerate() {
        change(at, Packed::read(*bytes)).write(&mut payload);
    }
    index.identities.put(id, &payload).unwrap();
}

/// Rewrites who is bound at a scope, and how many children it counts.
fn rewrite_scope(index: &mut super::Index, id: &str, children: u32, identities: &[u32]) {
    let (_, record) = index.scope(id).unwrap();
    let payload = ScopeRecord::write(record.kind, children, identities.iter().copied());
    index.scopes.put(id, &payload).unwrap();
}

#[test]
fn a_sound_index_passes() {
    let compared = self_check(&snapshot(), usize::MAX, NOW).unwrap();
    assert!(compared >= 10, "{compared}");
    assert_eq!(self_check(&snapshot(), 0, NOW), self_check(&snapshot(), 1, NOW));
}

#[test]
fn wrong_numbers_show_as_other_answers() {
    let other = |binding: Packed| Fingerprint(binding.fingerprint.0 ^ 1);
    differs(|index| {
        rewrite(index, "bob", |_, it| Packed { fingerprint: other(it), ..it });
    });
    differs(|index| rewrite(index, "bob", |_, it| Packed { length: it.length - 1, ..it }));
    differs(|index| {
        let empty = index.catalog.capability_set(&[]);
        index.roles.corrupt_row("reader", &empty);
    });
}

#[test]
fn contradictions_are_found() {
    contradicts(
        |index| rewrite(index, "bob", |_, it| Packed { scope: u32::MAX, ..it }),
        "bob",
        "scope is not there",
    );
    contradicts(
        |index| rewrite(index, "bob", |_, it| Packed { role: 77, ..it }),
        "bob",
        "role is not there",
    );
    contradicts(
        |index| rewrite(index, "bob", |_, it| Packed { special: true, ..it }),
        "bob",
        "expiry or conditions are missing",
    );
    contradicts(|index| index.roles.count("acme/writer", -2), "acme/alice", "not counted as bound");
    contradicts(
        |index| rewrite_scope(index, "acme/team", 0, &[]),
        "acme/team",
        "lacks one that is bound",
    );
    contradicts(
        |index| rewrite_scope(index, "acme", 0, &[]),
        "acme/alice",
        "parent is not a group that counts it",
    );
}
