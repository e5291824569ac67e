//! A sound index passes; an index of which one part is corrupt does not.

use std::sync::Arc;

use super::*;
use crate::index::Index;
use crate::index::binding::Standing;
use crate::index::hash::Fingerprint;
use crate::index::scope::ScopeKind;
use crate::{
    AttributeCategory, CapabilitySet, Catalog, CatalogFacts, CatalogRole, Change, Condition,
    CustomRole, Facts, Group, Identity, Model, PathBuf, RegisteredResource, RoleBinding, Value,
    Writer,
};

const NOW: Timestamp = Timestamp::new(1_000, 0);

fn path(text: &str) -> PathBuf {
    text.parse().unwrap()
}

fn binding(id: Option<&str>, identity: &str, role: &str, scope: &str) -> RoleBinding {
    RoleBinding {
        id: id.map(path),
        identity: path(identity),
        role: role.into(),
        scope: path(scope),
        expires_at: None,
        when: vec![],
    }
}

fn facts() -> Facts {
    let group = |id| Group { id: path(id), name: String::new() };
    let role = |id, capabilities: &[&str]| CustomRole {
        id: path(id),
        name: "Name".into(),
        description: String::new(),
        capabilities: capabilities.iter().map(|name| (*name).to_owned()).collect(),
    };
    let active = Condition {
        category: AttributeCategory::Subject,
        name: "team".into(),
        equals: true,
        value: Value::String("x".into()),
    };
    let ci = Identity {
        properties: [("team".to_owned(), Value::String("x".into()))].into(),
        ..Identity::named(path("acme/ci"))
    };
    Facts {
        groups: vec![group("acme"), group("acme/a"), group("beta")],
        roles: vec![role("acme/puller", &["read"]), role("beta/other", &["write"])],
        identities: vec![
            Identity::named(path("alice")),
            Identity::named(path("bob")),
            ci,
            Identity::named(path("zoe")),
        ],
        role_bindings: vec![
            binding(Some("acme/00000000000000aa"), "alice", "reader", "acme"),
            binding(Some("acme/a/named"), "alice", "acme/puller", "acme/a"),
            binding(None, "bob", "reader", "acme"),
            binding(None, "bob", "writer", "acme/a"),
            binding(None, "zoe", "reader", "beta"),
            binding(None, "zoe", "writer", "beta"),
            binding(None, "bob", "beta/other", "beta"),
            RoleBinding {
                expires_at: Some(Timestamp::new(2_000, 0)),
                when: vec![active],
                ..binding(None, "acme/ci", "writer", "acme/a")
            },
            binding(None, "acme/ci", "reader", "acme/a/repo"),
        ],
        resources: vec![RegisteredResource {
            id: path("acme/a/repo"),
            name: String::new(),
            kind: "repo".into(),
            properties: [].into(),
        }],
    }
}

fn catalog() -> Arc<Catalog> {
    let role = |name: &str, capabilities: &[&str]| CatalogRole {
        name: name.into(),
        capabilities: capabilities.iter().map(|name| (*name).to_owned()).collect(),
        ..CatalogRole::default()
    };
    let catalog = Catalog::new(CatalogFacts {
        name: "test".into(),
        capabilities: vec!["read".into(), "write".into()],
        roles: vec![role("reader", &["read"]), role("writer", &["read", "write"])],
        ..CatalogFacts::default()
    });
    Arc::new(catalog.unwrap())
}

fn snapshot() -> Snapshot {
    Snapshot::build(&Model::new(catalog(), facts()).unwrap(), 1).unwrap()
}

/// The error for an index with this corruption.
fn found(corrupt: impl FnOnce(&mut Index)) -> String {
    let corrupted = snapshot().corrupted(corrupt);
    self_check(&corrupted, usize::MAX, NOW).unwrap_err().to_string()
}

#[test]
fn a_sound_index_passes_however_it_was_made() {
    let built = snapshot();
    assert!(self_check(&built, usize::MAX, NOW).unwrap() > 10);
    assert!(self_check(&built, 1, NOW).unwrap() > 0);

    let nothing = Snapshot::build(&Model::new(catalog(), Facts::default()).unwrap(), 1).unwrap();
    assert_eq!(self_check(&nothing, 10, NOW), Ok(0));
    let mut writer = Writer::new(&nothing);
    let Facts { groups, roles, identities, role_bindings, resources } = facts();
    let changes = groups.into_iter().map(Change::CreateGroup);
    let changes = changes.chain(roles.into_iter().map(Change::CreateRole));
    let changes = changes.chain(identities.into_iter().map(Change::CreateIdentity));
    let changes = changes.chain(resources.into_iter().map(Change::CreateResource));
    let changes = changes.chain(role_bindings.into_iter().map(Change::CreateRoleBinding));
    writer.apply(changes).unwrap();
    let grown = writer.publish(2);
    assert_eq!(self_check(&grown, usize::MAX, NOW), self_check(&built, usize::MAX, NOW));
}

#[test]
fn wrong_roles_are_found() {
    let problem = "matrix row is not its capabilities";
    assert!(found(|index| index.set_row("reader", &CapabilitySet::empty(2))).contains(problem));
    let problem = "count other bindings";
    assert!(found(|index| index.count_bindings("reader", 1)).contains(problem));
    // The sum is correct, but the count of one role is zero.
    let moved = found(|index| {
        index.count_bindings("acme/puller", -1);
        index.count_bindings("reader", 1);
    });
    assert!(moved.contains("counts no bindings"), "{moved}");
    let gone = found(|index| {
        index.count_bindings("reader", 1);
        index.forget_role("acme/puller");
    });
    assert!(gone.contains("is not there"), "{gone}");
}

#[test]
fn wrong_bindings_are_found() {
    let change = |change: fn(&mut crate::index::binding::PackedBinding)| {
        found(|index| {
            index.corrupt_identity("alice", |payload| {
                payload.bindings.iter_mut().for_each(change);
                payload.bindings.sort_unstable();
            });
        })
    };
    assert!(change(|one| one.role = 77).contains("is not there"));
    assert!(change(|one| one.length += 1).contains("fingerprint is not that of its scope"));
    assert!(change(|one| one.restricted = true).contains("is not there"));
    let other = change(|one| one.fingerprint = Fingerprint(one.fingerprint.0 ^ 1));
    assert!(other.contains("fingerprint is not that of its scope"), "{other}");

    let elsewhere = found(|index| {
        let (_, beta) = index.numbers("reader", "beta");
        index.corrupt_identity("alice", |payload| {
            payload.bindings.iter_mut().for_each(|one| one.scope = beta);
        });
    });
    assert!(elsewhere.contains("number of bindings there"), "{elsewhere}");
    let disordered = found(|index| {
        index.corrupt_identity("bob", |payload| payload.bindings.reverse());
    });
    assert!(disordered.contains("order of their fingerprints"), "{disordered}");
    let twice = found(|index| {
        let (reader, _) = index.numbers("reader", "beta");
        index.corrupt_identity("zoe", |payload| {
            payload.bindings.iter_mut().for_each(|one| one.role = reader);
        });
    });
    assert!(twice.contains("the same binding twice"), "{twice}");
    let outside = found(|index| {
        let (other, _) = index.numbers("beta/other", "beta");
        index.corrupt_identity("bob", |payload| {
            payload.bindings.iter_mut().for_each(|one| one.role = other);
        });
    });
    assert!(outside.contains("is not below `beta`"), "{outside}");
}

#[test]
fn wrong_restrictions_are_found() {
    let unrestricted = found(|index| {
        index.corrupt_identity("acme/ci", |payload| {
            payload.bindings.iter_mut().for_each(|one| one.restricted = false);
        });
    });
    assert!(unrestricted.contains("other restrictions than are stored"), "{unrestricted}");
    let lost = found(|index| index.corrupt_extra("acme/ci", |extra| extra.restrictions.clear()));
    assert!(lost.contains("is not there"), "{lost}");
}

#[test]
fn wrong_identities_are_found() {
    let counted = found(|index| {
        index.corrupt_extra("bob", |extra| extra.standing = Standing::Disabled([].into()));
    });
    assert!(counted.contains("is disabled, and has bindings that would count"), "{counted}");
    let lost = found(|index| {
        index.corrupt_identity("bob", |payload| payload.bindings.clear());
        index.corrupt_extra("bob", |extra| extra.standing = Standing::Disabled([].into()));
    });
    assert!(lost.contains("number of bindings there"), "{lost}");
    let not_derived = found(|index| {
        index.corrupt_extra("bob", |extra| extra.standing = Standing::Unregistered);
    });
    assert!(not_derived.contains("its id is not that of a person"), "{not_derived}");
    let unbound = found(|index| {
        let person = "0123456789abcdef0123456789abcdef01234567";
        index.add_identity(person);
        index.corrupt_extra(person, |extra| extra.standing = Standing::Unregistered);
    });
    assert!(unbound.contains("neither registered nor bound"), "{unbound}");
}

#[test]
fn wrong_ids_are_found() {
    let lost = found(|index| index.forget_binding_id("acme/a/named"));
    assert!(lost.contains("its id leads to another binding"), "{lost}");
    let other = found(|index| {
        index.corrupt_identity("alice", |payload| {
            payload.numbers.as_mut().unwrap().iter_mut().for_each(|number| *number ^= 1);
        });
    });
    assert!(other.contains("does not have its number"), "{other}");
    let other = found(|index| {
        index.corrupt_scope("acme", |scope| {
            scope.numbers.as_mut().unwrap().iter_mut().for_each(|number| *number ^= 1);
        });
    });
    assert!(other.contains("does not have its number"), "{other}");
    let unnamed = found(|index| index.corrupt_extra("alice", |extra| extra.ids.clear()));
    assert!(unnamed.contains("leads to no binding"), "{unnamed}");
}

#[test]
fn wrong_scopes_are_found() {
    let forgotten = found(|index| {
        index.corrupt_scope("beta", |scope| {
            scope.identities.pop();
        });
    });
    assert!(forgotten.contains("number of bindings there"), "{forgotten}");
    let stranger = found(|index| {
        let alice = index.identity_number("alice");
        index.corrupt_scope("beta", |scope| scope.identities.insert(0, alice));
    });
    assert!(stranger.contains("number of bindings there"), "{stranger}");
    let nobody = found(|index| {
        index.corrupt_scope("beta", |scope| scope.identities.push(0xfff_ffff));
    });
    assert!(nobody.contains("an identity that is not there"), "{nobody}");
    let disordered = found(|index| index.corrupt_scope("beta", |scope| scope.identities.reverse()));
    assert!(disordered.contains("order of their ids"), "{disordered}");
    let gone = found(|index| index.forget_scope("beta"));
    assert!(gone.contains("beta"), "{gone}");
    let gone = found(|index| index.forget_identity("zoe"));
    assert!(gone.contains("an identity that is not there"), "{gone}");
}

#[test]
fn a_wrong_tree_is_found() {
    let leaf = found(|index| index.corrupt_scope("acme", |scope| scope.kind = ScopeKind::Resource));
    assert!(leaf.contains("acme"), "{leaf}");
    let childless = found(|index| index.corrupt_scope("acme", |scope| scope.children = 0));
    assert!(childless.contains("counts no children"), "{childless}");
    let twice = found(|index| index.add_identity("acme/a"));
    assert!(twice.contains("exists already"), "{twice}");
}

/// If the tables agree with each other, only a comparison of answers finds the error.
#[test]
fn wrong_answers_are_found() {
    let error = SelfCheckError::Answer {
        identity: "alice".into(),
        capability: "read".into(),
        resource: "acme".into(),
        indexed: None,
        ruled: Decision::deny(crate::Reason::NoBinding),
    };
    let text = "the index answers None and the rules Decision { reason: NoBinding, valid_until: \
                None } to: may `alice` `read` at `acme`";
    assert_eq!(error.to_string(), text);
    // The role's capabilities and its row agree with each other, but not with the catalog.
    let corrupted = snapshot().corrupted(|index| index.replace_role("reader", "writer"));
    let found = self_check(&corrupted, usize::MAX, NOW).unwrap_err();
    assert!(matches!(*found, SelfCheckError::Answer { .. }), "{found}");
}
