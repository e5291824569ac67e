//! The first content of a store, made or restored.

use std::sync::Arc;

use capstan_engine::{Facts, PathBuf, Timestamp};
use capstan_iam::audit::{AuditHead, AuditRecord, Origin};
use capstan_iam::{
    Group, Identity, Meta, Object, ObjectChange, Resource, Role, RoleBinding, record,
};
use capstan_store::{Backup, Batch, Head, Op, Transaction, View};

use super::auditor;
use super::catalog::{self, StoredCatalog};
use super::overlay::Overlay;

/// One transaction that makes all of these objects in an empty store: the catalog, the objects, and an audit record
/// of `method`. The objects keep all rules between them.
#[must_use]
pub fn first_batch(
    empty: &Head,
    catalog: &StoredCatalog,
    objects: Vec<Object>,
    (method, now): (&str, Timestamp),
) -> Batch {
    let changes: Vec<_> = objects
        .into_iter()
        .map(|object| ObjectChange {
            kind: object.kind(),
            id: object.id().clone(),
            before: None,
            after: Some(object),
        })
        .collect();
    let mut ops = vec![catalog.op()];
    ops.extend(changes.iter().filter_map(|change| {
        let value = record::encode(change.after.as_ref()?).into();
        Some(Op::Put { key: record::key(change.kind, change.id.as_path()).into(), value })
    }));
    let at = (empty.revision().saturating_add(1), now);
    let origin = Origin { authentication: "offline".into(), ..Origin::default() };
    let audited = AuditRecord::of_bootstrap(method, &origin, at, &changes);
    let mut audit = AuditHead::empty();
    ops.push(auditor::record_op(&mut audit, &audited));
    ops.push(auditor::head_op(&audit));
    Batch { transactions: vec![Transaction { ops }], side: vec![] }
}

/// The first transaction of a store that was restored from a backup: an audit record behind those that were restored. It has
/// the digest of the backup in place of a request's.
///
/// # Errors
///
/// The restored state has no catalog that this version knows, or no head of an audit log: it is not that of a server.
pub fn restored(
    view: &Arc<dyn View>,
    backup: &Backup,
    now: Timestamp,
) -> anyhow::Result<Transaction> {
    catalog::of(&**view)?;
    let mut audit = auditor::head_of(&Overlay::new(Arc::clone(view)))?;
    let at = (view.head().revision().saturating_add(1), now);
    let origin =
        Origin { authentication: "offline".into(), request: backup.digest, ..Origin::default() };
    let text = format!("from a backup of revision {}", backup.head.revision());
    let record = AuditRecord::of_restore(&origin, at, text);
    let ops = vec![auditor::record_op(&mut audit, &record), auditor::head_op(&audit)];
    Ok(Transaction { ops })
}

/// An organization and its owner, a root identity, as `capstan init` makes them.
#[must_use]
pub fn organization(id: &PathBuf, (owner, role): (&Identity, &str), meta: Meta) -> Vec<Object> {
    let group = Group { id: id.clone(), name: String::new(), description: String::new(), meta };
    let fact = capstan_engine::RoleBinding {
        id: None,
        identity: owner.id.clone(),
        role: role.into(),
        scope: id.clone(),
        expires_at: None,
        when: vec![],
    };
    let binding = binding(&fact, meta);
    let all = [Object::Group(group), Object::Identity(owner.clone())];
    all.into_iter().chain(binding.map(Object::RoleBinding)).collect()
}

fn binding(fact: &capstan_engine::RoleBinding, meta: Meta) -> Option<RoleBinding> {
    Some(RoleBinding {
        id: fact.id.clone().or_else(|| fact.derived_id())?,
        name: String::new(),
        description: String::new(),
        identity: fact.identity.clone(),
        role: fact.role.clone(),
        scope: fact.scope.clone(),
        expires_at: fact.expires_at,
        when: fact.when.clone(),
        meta,
    })
}

/// The facts of a policy as objects. A binding without an id gets the derived one; one whose scope is too long for
/// that has no id and is left out.
#[must_use]
pub fn objects_of(facts: &Facts, meta: Meta) -> Vec<Object> {
    let groups = facts.groups.iter().map(|one| {
        let (id, name) = (one.id.clone(), one.name.clone());
        Object::Group(Group { id, name, description: String::new(), meta })
    });
    let roles = facts.roles.iter().map(|one| {
        let mut capabilities = one.capabilities.clone();
        capabilities.sort();
        capabilities.dedup();
        Object::Role(Role {
            id: one.id.clone(),
            name: one.name.clone(),
            description: one.description.clone(),
            capabilities,
            meta,
        })
    });
    let identities = facts.identities.iter().map(|one| {
        Object::Identity(Identity {
            id: one.id.clone(),
            name: one.name.clone(),
            description: String::new(),
            kind: one.kind.clone(),
            properties: one.properties.clone(),
            disabled: one.disabled,
            authentication: None,
            meta,
        })
    });
    let resources = facts.resources.iter().map(|one| {
        Object::Resource(Resource {
            id: one.id.clone(),
            name: one.name.clone(),
            description: String::new(),
            kind: one.kind.clone(),
            properties: one.properties.clone(),
            meta,
        })
    });
    let bindings = facts.role_bindings.iter().filter_map(|one| binding(one, meta));
    let bindings = bindings.map(Object::RoleBinding);
    groups.chain(roles).chain(identities).chain(resources).chain(bindings).collect()
}
