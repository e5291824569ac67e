//! Two lists: who can do this here, and where can this identity do it? In pages, or whole.
//!
//! ```text
//! the scopes on the path (at most 16), each with its identities in the order of their ids
//!   ─▶ binary search for the cursor in each ─▶ merge ─▶ evaluate until the page is full
//! ```
//!
//! **Invariants**: a list holds what Check would answer for each identity, or each scope. A page of identities
//! costs the same wherever it stands in the list: nothing before its cursor is read.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::decide::check::Evaluation;
use crate::index::binding::Beside;
use crate::index::table::Entry;
use crate::model::path::contains;
use crate::{Attributes, Path, Role, Snapshot, Timestamp, UnknownCapability};

/// Which part of a list is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor<'c> {
    /// Entries after this id or path only; it need not be an entry. `None` from the first entry on.
    pub after: Option<&'c str>,
    /// Most entries, at least one.
    pub limit: usize,
}

impl Cursor<'_> {
    /// Every entry.
    pub const ALL: Self = Self { after: None, limit: usize::MAX };
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries, in the order of their ids or paths.
    pub entries: Vec<T>,
    /// Whether the list has an entry after these.
    pub more: bool,
    /// How many identities or bindings were evaluated for this page: what it cost.
    pub evaluated: usize,
}

/// A scope at which an identity can do something; it can do so at everything below, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope<'s> {
    /// The path of a group or registered resource.
    pub scope: &'s str,
    /// Whether every granting binding here has a condition on the resource, which was left open.
    pub conditional: bool,
}

impl Snapshot {
    /// Who can do this here, at this time? In the order of ids, each once.
    ///
    /// # Errors
    ///
    /// The catalog has no such capability.
    pub fn list_identities(
        &self,
        capability: &str,
        resource: Path<'_>,
        attributes: &Attributes,
        now: Timestamp,
    ) -> Result<Vec<&str>, UnknownCapability> {
        let page = self.page_of_identities(capability, resource, attributes, now, Cursor::ALL)?;
        Ok(page.entries)
    }

    /// One page of [`Self::list_identities`].
    ///
    /// # Errors
    ///
    /// The catalog has no such capability.
    pub fn page_of_identities(
        &self,
        capability: &str,
        resource: Path<'_>,
        attributes: &Attributes,
        now: Timestamp,
        cursor: Cursor<'_>,
    ) -> Result<Page<&str>, UnknownCapability> {
        let index = self.index();
        let bit = self.capability(capability)?;
        let can = |entry: Entry<'_, Beside>| {
            let evaluation = self.evaluation(entry, resource, attributes, now);
            let mut can = false;
            index.on_path(entry, resource, |binding| {
                let has = index.roles().matrix().has(binding.packed.role, bit);
                can = has && evaluation.counts(&binding);
                if can { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            can
        };
        let mut page = Page { entries: Vec::new(), more: false, evaluated: 0 };
        for identity in self.bound_on_path(resource, cursor.after) {
            page.evaluated += 1;
            if can(identity) {
                if page.entries.len() >= cursor.limit.max(1) {
                    page.more = true;
                    break;
                }
                page.entries.push(identity.key());
            }
        }
        Ok(page)
    }

    /// The identities that are bound at the resource or above it, each once, in the order of their ids, after
    /// this one.
    fn bound_on_path<'s>(
        &'s self,
        resource: Path<'_>,
        after: Option<&str>,
    ) -> impl Iterator<Item = Entry<'s, Beside>> {
        let identities = self.index().identities();
        let scopes = resource.ancestors().filter_map(|path| self.index().scope(path.as_str()));
        let mut lists: Vec<_> = scopes
            .map(|(_, record)| {
                let start = after.map_or(0, |id| record.after(id, |number| identities.key(number)));
                let entries = record.identities_from(start);
                entries.filter_map(|number| identities.entry(number)).peekable()
            })
            .collect();
        std::iter::from_fn(move || {
            // At most 16 lists: a look at the head of each costs less than a heap.
            let next = lists.iter_mut().filter_map(|list| list.peek().copied());
            let next = next.min_by_key(|entry| entry.key())?;
            for list in &mut lists {
                while list.next_if(|entry| entry.number() == next.number()).is_some() {}
            }
            Some(next)
        })
    }

    /// Where can this identity do this, at this time? The topmost scopes, in the order of their paths: a scope
    /// is listed if it grants and no scope above it grants whatever the resource. Conditions on the resource
    /// are left open; what the request supplies of it is ignored.
    ///
    /// # Errors
    ///
    /// The catalog has no such capability.
    pub fn list_scopes(
        &self,
        identity: Path<'_>,
        capability: &str,
        attributes: &Attributes,
        now: Timestamp,
    ) -> Result<Vec<Scope<'_>>, UnknownCapability> {
        let page = self.page_of_scopes(identity, capability, attributes, now, Cursor::ALL)?;
        Ok(page.entries)
    }

    /// One page of [`Self::list_scopes`]. Each page evaluates the bindings of this one identity.
    ///
    /// # Errors
    ///
    /// The catalog has no such capability.
    pub fn page_of_scopes(
        &self,
        identity: Path<'_>,
        capability: &str,
        attributes: &Attributes,
        now: Timestamp,
        cursor: Cursor<'_>,
    ) -> Result<Page<Scope<'_>>, UnknownCapability> {
        let index = self.index();
        let capability = self.capability(capability)?;
        let Some(entry) = index.identities().get(identity.as_str()) else {
            return Ok(Page { entries: vec![], more: false, evaluated: 0 });
        };
        let evaluation =
            Evaluation { index, identity: entry, resource: None, supplied: attributes, now };
        let mut evaluated = 0;
        let mut granting: Vec<Scope<'_>> = index
            .bindings_of(entry)
            .inspect(|_| evaluated += 1)
            .filter(|binding| index.roles().matrix().has(binding.packed.role, capability))
            .filter(|binding| evaluation.counts(binding))
            .map(|binding| Scope {
                scope: index.scope_of(&binding),
                conditional: binding.tests_resource(),
            })
            .collect();
        // At one scope a binding without a condition on the resource comes first, and is kept.
        granting.sort_unstable_by_key(|found| (found.scope, found.conditional));
        granting.dedup_by_key(|found| found.scope);
        let unconditional: BTreeSet<&str> =
            granting.iter().filter(|scope| !scope.conditional).map(|scope| scope.scope).collect();
        let start =
            cursor.after.map_or(0, |after| granting.partition_point(|it| it.scope <= after));
        let rest = granting.get(start..).unwrap_or_default().iter().copied();
        let mut topmost = rest.filter(|scope| !has_ancestor_in(scope.scope, &unconditional));
        let entries: Vec<_> = topmost.by_ref().take(cursor.limit.max(1)).collect();
        Ok(Page { entries, more: topmost.next().is_some(), evaluated })
    }

    /// The roles after this one in the order of [`Self::roles`]. A custom role that is not there has a place
    /// in that order all the same.
    #[must_use]
    pub fn roles_after(&self, id: &str) -> &[Arc<Role>] {
        let roles = self.index().roles();
        roles.ordered().get(roles.place_after(id)..).unwrap_or_default()
    }
}

/// Whether one of the paths is a proper ancestor of this one.
fn has_ancestor_in(path: &str, paths: &BTreeSet<&str>) -> bool {
    let ancestors = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
    let found = ancestors.into_iter().find(|ancestor| paths.contains(ancestor));
    debug_assert!(found.is_none_or(|ancestor| contains(ancestor, path)));
    found.is_some()
}
