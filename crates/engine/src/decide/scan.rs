//! Objects in the order of their ids, page by page: reads for lists of what a policy file declares.
//!
//! The index has no order of ids. Each page costs a look at every object of its kind, and memory for the page only. A
//! store keeps its objects in order, and its lists are read from there.

use std::collections::BTreeMap;

use crate::index::read::is_registered;
use crate::index::scope::ScopeKind;
use crate::{Path, RoleBinding, Snapshot};

/// Which objects of a kind a page has: the first `limit` whose ids begin with `prefix` and come after `after`, by their
/// bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdRange<'r> {
    /// The beginning of each id.
    pub prefix: &'r str,
    /// The id before the first one of the page.
    pub after: Option<&'r str>,
    /// Most objects of the page.
    pub limit: usize,
}

impl IdRange<'_> {
    fn contains(&self, id: &str) -> bool {
        id.starts_with(self.prefix) && self.after.is_none_or(|after| id > after)
    }

    /// The first objects of the range, by id.
    fn first<K: Ord + AsRef<str>, V>(&self, all: impl Iterator<Item = (K, V)>) -> BTreeMap<K, V> {
        let mut first = BTreeMap::new();
        for (id, value) in all.filter(|(id, _)| self.contains(id.as_ref())) {
            if first.len() < self.limit {
                first.insert(id, value);
            } else if let Some(last) = first.last_entry()
                && id < *last.key()
            {
                last.remove();
                first.insert(id, value);
            }
        }
        first
    }
}

impl Snapshot {
    /// Groups, by id. Costs a look at every group and resource.
    #[must_use]
    pub fn groups(&self, range: IdRange<'_>) -> Vec<Path<'_>> {
        self.scopes(ScopeKind::Group, range)
    }

    /// Registered resources, by id. Costs a look at every group and resource.
    #[must_use]
    pub fn resources(&self, range: IdRange<'_>) -> Vec<Path<'_>> {
        self.scopes(ScopeKind::Resource, range)
    }

    fn scopes(&self, kind: ScopeKind, range: IdRange<'_>) -> Vec<Path<'_>> {
        let all = self.index().scopes().filter(|(_, record)| record.kind == kind);
        let first = range.first(all.map(|(entry, _)| (entry.key(), ())));
        first.into_keys().filter_map(|id| Path::parse(id).ok()).collect()
    }

    /// The ids of all identities that are registered or bound, in no order.
    pub fn known_identities(&self) -> impl Iterator<Item = &str> {
        self.index().identities().iter().map(|entry| entry.key())
    }

    /// Registered identities, by id. Costs a look at every identity.
    #[must_use]
    pub fn identities(&self, range: IdRange<'_>) -> Vec<Path<'_>> {
        let all = self.index().identities().iter().filter(|entry| is_registered(*entry));
        let first = range.first(all.map(|entry| (entry.key(), ())));
        first.into_keys().filter_map(|id| Path::parse(id).ok()).collect()
    }

    /// Role bindings, by id, whether or not they count. Costs a look at every binding, and a hash for each id that is
    /// derived.
    #[must_use]
    pub fn bindings(&self, range: IdRange<'_>) -> Vec<RoleBinding> {
        let index = self.index();
        let all = index.identities().iter().flat_map(|identity| {
            let bindings = index.stored_bindings_of(identity);
            bindings.map(move |binding| (index.binding_id(identity, &binding), (identity, binding)))
        });
        let first = range.first(all).into_values();
        first.filter_map(|(identity, binding)| index.role_binding(identity, &binding)).collect()
    }
}
