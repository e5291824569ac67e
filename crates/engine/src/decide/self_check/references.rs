//! References between the tables of the index, and the rules between the facts in it.

use std::collections::HashSet;

use crate::decide::self_check::SelfCheckError;
use crate::index::Index;
use crate::index::binding::IdentityExtra;
use crate::index::read::{Binding, is_disabled, is_registered};
use crate::index::scope::{ScopeExtra, ScopeKind, ScopeRecord};
use crate::index::table::Entry;
use crate::rules::{self, View as _};
use crate::{ChangeError, Path, RoleBinding, is_derived_identity};

type Checked<T = ()> = Result<T, Box<SelfCheckError>>;

/// Bindings of an identity, and identities of a scope, that are looked up one by one at most.
const EACH_MAX: usize = 1_000;
/// Derived ids are looked up at scopes with at most this many bindings.
const DERIVED_MAX: usize = 64;

fn expect(holds: bool, id: &str, problem: &str) -> Checked {
    if holds { Ok(()) } else { Err(SelfCheckError::corrupt(id, problem)) }
}

fn keeps_rule<E: Into<ChangeError>>(kept: Result<(), E>, id: &str) -> Checked {
    kept.map_err(|broken| SelfCheckError::corrupt(id, broken.into().to_string()))
}

/// Every role has the matrix row of its capabilities and is found by its id; the bindings of all roles are all
/// bindings.
pub(super) fn check_roles(index: &Index) -> Checked {
    let roles = index.roles();
    let mut bindings = 0;
    for role in roles.ordered() {
        let Some(found) = roles.find(&role.id) else {
            return Err(SelfCheckError::corrupt(&role.id, "the role is not found by its id"));
        };
        let same = roles.get(found.number).is_some_and(|other| other.id == role.id);
        expect(same, &role.id, "its number leads to another role")?;
        let row = roles.matrix().row(found.number);
        let is_right = row == role.capabilities.words();
        expect(is_right, &role.id, "its matrix row is not its capabilities")?;
        if let Some((group, _)) = role.id.rsplit_once('/') {
            expect(index.is_group(group), &role.id, "its parent is no group")?;
        }
        bindings += found.bindings as usize;
    }
    let problem = "the roles count other bindings than there are";
    expect(bindings == index.bindings_len(), "", problem)
}

/// An id of a binding leads to the binding.
pub(super) fn check_binding_id(index: &Index, id: &str) -> Checked {
    expect(index.find_binding(id).is_some(), id, "the id leads to no binding")
}

/// A scope's place in the tree, and the identities that it lists.
pub(super) fn check_scope(index: &Index, scope: Entry<'_, ScopeExtra>) -> Checked {
    let id = scope.key();
    let same = index.scope(id).is_some_and(|(found, _)| found.number() == scope.number());
    expect(same, id, "the scope is not found by its path")?;
    check_path(index, id, Found::Scope)?;
    let Some(record) = ScopeRecord::read(scope) else {
        return Err(SelfCheckError::corrupt(id, "its record is too short, or has no list"));
    };
    if record.numbered {
        let problem = "it does not have a number for each binding";
        expect(record.bound.numbers().count() == record.bound_len(), id, problem)?;
    }
    let mut identities = Vec::new();
    for number in record.bound.identities().take(EACH_MAX) {
        let Some(identity) = index.identities().entry(number) else {
            return Err(SelfCheckError::corrupt(id, "it lists an identity that is not there"));
        };
        identities.push(identity);
    }
    let in_order = identities.is_sorted_by_key(Entry::key);
    expect(in_order, id, "its identities are not in the order of their ids")?;
    identities.dedup_by_key(|identity| identity.number());
    identities.into_iter().try_for_each(|one| check_listed(index, one, scope, &record))
}

/// A scope lists an identity as often as the identity has a binding there.
fn check_listed(
    index: &Index,
    identity: Entry<'_, IdentityExtra>,
    scope: Entry<'_, ScopeExtra>,
    record: &ScopeRecord<'_>,
) -> Checked {
    let here = |binding: &Binding<'_>| binding.packed.scope == scope.number();
    let bindings = index.stored_bindings_of(identity).filter(here).count();
    // In the order of ids, so found by binary search.
    let key = |number| index.identities().key(number);
    let first = index.first_bound(record, |id| id < identity.key_bytes());
    let listed = (first..record.bound_len())
        .map_while(|position| record.bound.identity(position))
        .take_while(|number| key(*number) == identity.key())
        .count();
    let problem =
        format!("`{}` has another number of bindings there than it lists", identity.key());
    expect(listed == bindings, scope.key(), &problem)
}

/// Which table has a path.
#[derive(Clone, Copy)]
enum Found {
    Scope,
    Identity,
}

/// A path names one thing, and its parent is a group that counts it.
fn check_path(index: &Index, id: &str, table: Found) -> Checked {
    let Ok(path) = Path::parse(id) else {
        return Err(SelfCheckError::corrupt(id, "its id is no path"));
    };
    let elsewhere = match table {
        Found::Scope => index.identity(id).is_some(),
        Found::Identity => index.scope(id).is_some(),
    };
    let elsewhere = elsewhere || index.custom_role(id).is_some();
    keeps_rule(rules::check_id(id, elsewhere), id)?;
    keeps_rule(rules::check_parent(&index, path), id)?;
    let Some(parent) = path.parent() else { return Ok(()) };
    let counts = index.scope(parent.as_str()).is_some_and(|(_, record)| record.children > 0);
    expect(counts, parent.as_str(), "it counts no children and has one")
}

/// An identity, all references of its bindings, and the rules for them. Returns its bindings by names.
pub(super) fn check_identity(
    index: &Index,
    identity: Entry<'_, IdentityExtra>,
) -> Checked<Vec<RoleBinding>> {
    let id = identity.key();
    let same = index.identity(id).is_some_and(|found| found.number() == identity.number());
    expect(same, id, "the identity is not found by its id")?;
    check_path(index, id, Found::Identity)?;

    let mut facts = Vec::new();
    let (mut last, mut restricted, mut texts) = (None, 0, 0);
    let mut keys = HashSet::new();
    let may_be = is_registered(identity) || Path::parse(id).is_ok_and(is_derived_identity);
    expect(may_be, id, "it is not registered, and its id is not that of a person")?;
    let may_be = is_registered(identity) || !identity.payload().is_empty();
    expect(may_be, id, "it is neither registered nor bound")?;
    let may_be = !is_disabled(identity) || identity.payload().is_empty();
    expect(may_be, id, "it is disabled, and has bindings that would count")?;
    for binding in index.stored_bindings_of(identity) {
        let fingerprint = binding.packed.fingerprint;
        let in_order = last.is_none_or(|last| last <= fingerprint);
        expect(in_order, id, "its bindings are not in the order of their fingerprints")?;
        last = Some(fingerprint);
        restricted += usize::from(binding.packed.restricted);
        texts += usize::from(index.number_of(identity, &binding).is_none());
        let Some(fact) = index.role_binding(identity, &binding) else {
            return Err(SelfCheckError::corrupt(id, "a part of one of its bindings is not there"));
        };
        let is_new = keys.insert(index.key_of(identity, &binding));
        expect(is_new, id, "it has the same binding twice")?;
        if facts.len() < EACH_MAX {
            check_binding(index, identity, &binding, &fact)?;
        }
        facts.push(fact);
    }
    let extra = identity.extra();
    let stored = extra.map_or((0, 0), |extra| (extra.restrictions.len(), extra.ids.len()));
    expect(stored.0 == restricted, id, "its bindings have other restrictions than are stored")?;
    expect(stored.1 == texts, id, "its bindings have other ids than are stored")?;
    Ok(facts)
}

fn check_binding(
    index: &Index,
    identity: Entry<'_, IdentityExtra>,
    binding: &Binding<'_>,
    fact: &RoleBinding,
) -> Checked {
    let id = &*index.binding_id(identity, binding);
    let mut broken = None;
    let found = rules::check_binding(&index, fact, |rule| {
        broken.get_or_insert(rule);
    });
    keeps_rule(broken.map_or(Ok(()), Err), id)?;
    let role = found.role.map(|role| (role.number, role.bindings > 0));
    let is_right = role == Some((binding.packed.role, true));
    expect(is_right, id, "its role leads elsewhere, or counts no bindings")?;

    let Some((scope, record)) = found.scope else { return Ok(()) };
    expect(scope.number() == binding.packed.scope, id, "its scope leads elsewhere")?;
    let (path, packed) = (scope.key(), &binding.packed);
    let is_right = usize::from(packed.length) == path.len()
        && packed.fingerprint == index.seed().fingerprint(path.as_bytes());
    expect(is_right, id, "its fingerprint is not that of its scope")?;
    check_listed(index, identity, scope, &record)?;
    if record.numbered {
        let number = index.number_of(identity, binding).unwrap_or(0);
        let is_there = record.bound.numbers().any(|one| one == number);
        expect(is_there, id, "its scope does not have its number")?;
    }
    if record.kind == ScopeKind::Group {
        check_path(index, path, Found::Scope)?;
    }
    let has_text = index.number_of(identity, binding).is_none();
    if has_text || record.numbered || record.bound_len() <= DERIVED_MAX {
        let found = index.find_binding(id);
        let found = found.map(|(found, one)| (found.number(), one.position));
        let is_right = found == Some((identity.number(), binding.position));
        expect(is_right, id, "its id leads to another binding, or to none")?;
    }
    Ok(())
}
