//! The difference between the facts of a snapshot and facts that come one by one: what is new becomes a change at
//! once, and what has not come by the end is deleted.
//!
//! ```text
//! fact ─▶ in the snapshot, and the same? ─▶ yes: a bit         no: a change
//! finish: whatever has no bit is deleted ─▶ changes in an order that keeps the rules ─▶ Writer ─▶ Snapshot
//! ```
//!
//! **Invariant**: a snapshot that is made answers as one of all facts at once, with the same ids. Whatever might not
//! is refused; then the facts are to be judged and indexed as a whole.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use thiserror::Error;

use crate::index::Index;
use crate::index::binding::{BindingId, IdentityExtra, PackedBinding, numbers, packed_bindings};
use crate::index::read::{
    Binding, id_text, is_disabled, is_registered, kind_of_identity, stored_payload,
};
use crate::index::scope::{ScopeKind, ScopeRecord};
use crate::index::table::{Entry, Table};
use crate::rules::{BindingKey, View as _};
use crate::{
    ApplyError, Catalog, Change, CustomRole, FactSink, Group, Identity, PathBuf,
    RegisteredResource, RoleBinding, Snapshot, Writer,
};

/// Work of a deleted or created binding besides the bindings at its scope, each of which it may read: what is copied.
const BINDING_WORK: usize = 20;
/// A difference may have this much work for each binding of the snapshot, and [`WORK_MIN`]. Then it takes as long as
/// an index that is built anew, and half of the memory: with 30 bindings at a scope, if one in fifty is different
/// (`--bench loading -- --way differences`).
const WORK_PER_BINDING: usize = 2;
const WORK_MIN: usize = 1_000;

/// Why there is no snapshot of a difference.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DifferenceError {
    /// Another catalog gives other capabilities to roles that stay.
    #[error("the catalog is another one")]
    OtherCatalog,
    /// Building an index of all facts is faster.
    #[error("too much is different")]
    TooMuch,
    /// A fact comes a second time.
    #[error("`{0}` comes twice")]
    Twice(String),
    /// The id of a binding that declares none depends on other facts.
    #[error("the ids of the role bindings depend on one another")]
    BindingIds,
    /// A change breaks a rule.
    #[error(transparent)]
    Refused(#[from] ApplyError),
}

type Taken = Result<(), DifferenceError>;

/// Compares facts with those of a snapshot. After an error it is to be dropped.
#[derive(Debug)]
pub struct Difference {
    base: Snapshot,
    scopes: Seen,
    identities: Seen,
    bindings: Seen,
    /// By number.
    roles: Vec<bool>,
    groups: Vec<Group>,
    /// Changes of roles, identities and resources.
    changes: Vec<Change>,
    created: Vec<RoleBinding>,
    /// What changes may still read.
    work: usize,
    /// The identity of the last binding, and its number: the next binding has it often.
    last: (String, u32),
}

impl Difference {
    /// Compares with this snapshot facts under this catalog.
    ///
    /// # Errors
    ///
    /// The snapshot has another catalog.
    pub fn new(base: &Snapshot, catalog: &Catalog) -> Result<Self, DifferenceError> {
        let index = base.index();
        if index.catalog().facts() != catalog.facts() {
            return Err(DifferenceError::OtherCatalog);
        }
        let bindings =
            |entry: Entry<'_, IdentityExtra>| packed_bindings(stored_payload(entry)).len();
        Ok(Self {
            scopes: Seen::new(&index.scopes, |_| 1),
            identities: Seen::new(&index.identities, |_| 1),
            bindings: Seen::new(&index.identities, bindings),
            roles: vec![false; index.roles().numbers()],
            groups: vec![],
            changes: vec![],
            created: vec![],
            work: index.bindings_len() * WORK_PER_BINDING + WORK_MIN,
            last: (String::new(), u32::MAX),
            base: base.clone(),
        })
    }

    /// Applies the difference. The caller chooses the revision; revisions only grow. The snapshot shares with the
    /// one before whatever did not change.
    ///
    /// # Errors
    ///
    /// A change breaks a rule, which the facts as a whole may keep, or too much is different.
    pub fn finish(mut self, revision: u64) -> Result<Snapshot, DifferenceError> {
        let mut changes = self.deletions()?;
        let depth = |id: &PathBuf| id.as_path().ancestors().count();
        self.groups.sort_by_key(|group| depth(&group.id));
        changes.extend(self.groups.drain(..).map(Change::CreateGroup));
        changes.append(&mut self.changes);
        changes.extend(self.created.iter().cloned().map(Change::CreateRoleBinding));
        let mut writer = Writer::new(&self.base);
        writer.apply(changes)?;
        let next = writer.publish(revision);
        // A document gives derived ids after all declared ones, a writer in the order of changes.
        let are_derived = self.created.iter().all(|one| one.id.is_some() || is_derived(&next, one));
        if are_derived { Ok(Arc::unwrap_or_clone(next)) } else { Err(DifferenceError::BindingIds) }
    }

    /// Deletes what has not come, in an order in which nothing refers to what is deleted.
    fn deletions(&mut self) -> Result<Vec<Change>, DifferenceError> {
        let base = self.base.clone();
        let index = base.index();
        let (mut deleted, mut others, mut groups) = (vec![], vec![], vec![]);
        for entry in index.identities.iter() {
            for binding in index.stored_bindings_of(entry) {
                if !self.bindings.has(entry.number(), binding.position) {
                    let scope = index.scopes.entry(binding.packed.scope);
                    let record = scope.and_then(ScopeRecord::read);
                    self.spend(BINDING_WORK + record.map_or(0, |record| record.bound_len()))?;
                    let id = index.binding_id(entry, &binding).parse();
                    deleted.push(id.map_err(|_| DifferenceError::BindingIds)?);
                }
            }
            // One that is not registered goes with its last binding.
            if is_registered(entry) && !self.identities.has(entry.number(), 0) {
                others.extend(entry.key().parse().ok().map(Change::DeleteIdentity));
            }
        }
        for (number, role) in index.roles().custom() {
            if self.roles.get(number as usize) == Some(&false) {
                others.extend(role.id.parse().ok().map(Change::DeleteRole));
            }
        }
        for entry in index.scopes.iter().filter(|entry| !self.scopes.has(entry.number(), 0)) {
            let Some(record) = ScopeRecord::read(entry) else { continue };
            match record.kind {
                ScopeKind::Group => groups.extend(entry.key().parse::<PathBuf>().ok()),
                ScopeKind::Resource => {
                    others.extend(entry.key().parse().ok().map(Change::DeleteResource));
                }
            }
        }
        groups.sort_by_key(|group| Reverse(group.as_path().ancestors().count()));
        let deleted = deleted.into_iter().map(Change::DeleteRoleBinding);
        Ok(deleted.chain(others).chain(groups.into_iter().map(Change::DeleteGroup)).collect())
    }

    fn spend(&mut self, work: usize) -> Taken {
        self.work = self.work.checked_sub(work).ok_or(DifferenceError::TooMuch)?;
        Ok(())
    }

    /// A change of a role, an identity or a resource.
    fn change(&mut self, change: Change) -> Taken {
        self.spend(1)?;
        self.changes.push(change);
        Ok(())
    }

    /// Whether the snapshot has this group or resource, which has come now.
    fn saw_scope(&mut self, id: &PathBuf, kind: ScopeKind) -> Result<bool, DifferenceError> {
        let found = self.base.index().scope(id.as_str());
        let Some((entry, _)) = found.filter(|(_, record)| record.kind == kind) else {
            return Ok(false);
        };
        once(self.scopes.see(entry.number(), 0), id.as_str())?;
        Ok(true)
    }
}

impl FactSink for Difference {
    type Error = DifferenceError;

    fn group(&mut self, group: Group) -> Taken {
        if !self.saw_scope(&group.id, ScopeKind::Group)? {
            self.spend(1)?;
            self.groups.push(group);
        }
        Ok(())
    }

    fn role(&mut self, role: CustomRole) -> Taken {
        let base = self.base.clone();
        let index = base.index();
        let Some(known) = (&index).custom_role(role.id.as_str()) else {
            return self.change(Change::CreateRole(role));
        };
        let seen = self.roles.get_mut(known.number as usize);
        once(seen.is_some_and(|seen| !std::mem::replace(seen, true)), role.id.as_str())?;
        let is_known = |name: &String| index.catalog().capability(name).is_some();
        let is_same = index.roles().get(known.number).is_some_and(|known| {
            *known.name == *role.name
                && *known.description == *role.description
                && role.capabilities.iter().all(is_known)
                && known.capabilities == index.catalog().capability_set(&role.capabilities)
        });
        if is_same { Ok(()) } else { self.change(Change::UpdateRole(role)) }
    }

    fn identity(&mut self, identity: Identity) -> Taken {
        let Some(entry) = self.base.index().identities.get(identity.id.as_str()) else {
            return self.change(Change::CreateIdentity(identity));
        };
        once(self.identities.see(entry.number(), 0), identity.id.as_str())?;
        if !is_registered(entry) {
            return self.change(Change::CreateIdentity(identity));
        }
        let has_properties = match entry.extra() {
            Some(extra) => extra.properties == identity.properties,
            None => identity.properties.is_empty(),
        };
        let has_kind = kind_of_identity(entry) == identity.kind;
        let is_same = has_properties && has_kind && is_disabled(entry) == identity.disabled;
        if is_same { Ok(()) } else { self.change(Change::UpdateIdentity(identity)) }
    }

    fn resource(&mut self, resource: RegisteredResource) -> Taken {
        if !self.saw_scope(&resource.id, ScopeKind::Resource)? {
            return self.change(Change::CreateResource(resource));
        }
        let base = self.base.clone();
        let id = resource.id.as_str();
        let has_properties = match base.index().resource_properties(id) {
            Some(properties) => *properties == resource.properties,
            None => resource.properties.is_empty(),
        };
        let is_same = has_properties && base.index().resource_kind(id) == Some(&*resource.kind);
        if is_same { Ok(()) } else { self.change(Change::UpdateResource(resource)) }
    }

    fn role_binding(&mut self, binding: RoleBinding) -> Taken {
        let index = self.base.index();
        let (last, number) = &mut self.last;
        let id = binding.identity.as_str();
        let is_last = last == id;
        let identities = &index.identities;
        let entry = if is_last { identities.entry(*number) } else { identities.get(id) };
        if let Some(entry) = entry.filter(|_| !is_last) {
            last.clear();
            last.push_str(id);
            *number = entry.number();
        }
        if let Some(entry) = entry
            && let Some(found) = find(index, entry, &binding)
            && is_same(index, entry, &found, &binding)
        {
            return once(self.bindings.see(entry.number(), found.position), id);
        }
        let bound = index.scope(binding.scope.as_str()).map_or(0, |(_, record)| record.bound_len());
        self.spend(BINDING_WORK + bound)?;
        self.created.push(binding);
        Ok(())
    }

    /// Identities that are to be created count, too.
    fn has_identities<'i>(&self, mut ids: impl Iterator<Item = &'i str>) -> bool {
        let identities = &self.base.index().identities;
        let created = self.changes.iter().filter_map(|change| match change {
            Change::CreateIdentity(identity) => Some(identity.id.as_str()),
            _ => None,
        });
        let created: HashSet<&str> = created.collect();
        let has_come =
            |id| identities.get(id).is_some_and(|one| self.identities.has(one.number(), 0));
        ids.all(|id| has_come(id) || created.contains(id))
    }
}

/// The binding of the snapshot that is the same as this one of an identity, whatever its expiry and id.
fn find<'i>(
    index: &'i Index,
    identity: Entry<'i, IdentityExtra>,
    binding: &RoleBinding,
) -> Option<Binding<'i>> {
    let scope = (index.scopes.get(binding.scope.as_str())?.number(), binding.scope.as_str());
    let role = index.roles().find(&binding.role)?;
    let packed = PackedBinding::new(index.seed(), scope, role.number);
    index.find_same(identity, packed, &BindingKey::of(binding))
}

/// Whether a binding of the snapshot has the expiry, the conditions and the id that a document with this one gives it.
fn is_same(
    index: &Index,
    entry: Entry<'_, IdentityExtra>,
    found: &Binding<'_>,
    binding: &RoleBinding,
) -> bool {
    let number = || index.number_of(entry, found);
    let text = id_text(entry, found.position);
    let derived = || BindingKey::of(binding).derived_number();
    let has_id = match BindingId::of(binding.id.as_ref(), binding.scope.as_str(), derived) {
        // Without stored numbers every id that is a number is the derived one.
        BindingId::Derived if numbers(stored_payload(entry)).is_none() => text.is_none(),
        BindingId::Derived => number() == Some(derived()),
        BindingId::Number(declared) => number() == Some(declared),
        BindingId::Text(declared) => text == Some(&*declared),
    };
    has_id && found.expires_at() == binding.expires_at && *found.conditions() == *binding.when
}

/// Whether a binding that declares no id has its derived one.
fn is_derived(snapshot: &Snapshot, binding: &RoleBinding) -> bool {
    let index = snapshot.index();
    let number = index.identities.get(binding.identity.as_str()).and_then(|entry| {
        let found = find(index, entry, binding)?;
        index.number_of(entry, &found)
    });
    number == Some(BindingKey::of(binding).derived_number())
}

/// An error if something comes a second time.
fn once(is_first: bool, id: &str) -> Taken {
    if is_first { Ok(()) } else { Err(DifferenceError::Twice(id.into())) }
}

/// A bit for each item of each entry of a table.
#[derive(Debug)]
struct Seen {
    /// By number of a shard, where its entries start among all; one more at the end.
    shards: Vec<u32>,
    /// By entry, where its items start.
    items: Vec<u32>,
    bits: Vec<u64>,
}

impl Seen {
    fn new<X>(table: &Table<X>, items_of: impl Fn(Entry<'_, X>) -> usize) -> Self {
        let mut seen = Self { shards: vec![], items: vec![], bits: vec![] };
        let mut next = 0u32;
        // Entries come by shard, and in it by number.
        for entry in table.iter() {
            let (shard, within) = (entry.number() >> 16, entry.number() & 0xffff);
            while seen.shards.len() <= shard as usize {
                seen.shards.push(u32::try_from(seen.items.len()).unwrap_or(u32::MAX));
            }
            let start = seen.shards.last().copied().unwrap_or_default();
            // Numbers that are not taken have no items.
            while seen.items.len() <= start as usize + within as usize {
                seen.items.push(next);
            }
            next = next.saturating_add(u32::try_from(items_of(entry)).unwrap_or(u32::MAX));
        }
        seen.bits = vec![0; next as usize / 64 + 1];
        seen
    }

    fn place(&self, number: u32, item: u32) -> Option<(usize, u64)> {
        let start = self.shards.get((number >> 16) as usize)?;
        let bit =
            self.items.get(*start as usize + (number & 0xffff) as usize)?.checked_add(item)?;
        Some((bit as usize / 64, 1 << (bit % 64)))
    }

    fn has(&self, number: u32, item: u32) -> bool {
        let found = self.place(number, item);
        found.is_some_and(|(at, bit)| self.bits.get(at).is_some_and(|bits| bits & bit != 0))
    }

    /// Sets a bit. Whether it was not set.
    fn see(&mut self, number: u32, item: u32) -> bool {
        let is_first = !self.has(number, item);
        if let Some((at, bit)) = self.place(number, item)
            && let Some(bits) = self.bits.get_mut(at)
        {
            *bits |= bit;
        }
        is_first
    }
}
