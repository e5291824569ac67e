//! The searches: who can do this here, and where can this identity do it?
//!
//! **Invariant**: an answer is what Check would say of every identity, or of every scope. Lists are in the
//! order of their texts, so that a page can start behind any text, and no order of the index shows.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use crate::decide::check::Evaluation;
use crate::index::Index;
use crate::index::binding::IdentityExtra;
use crate::index::bound::Identities;
use crate::index::table::Entry;
use crate::{Attributes, CapabilityIx, Path, Snapshot, Timestamp, UnknownCapabilityError};

/// Which part of a list is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'c> {
    /// The last text of the page before; `None` for the first page. The text need not be in the list.
    pub after: Option<&'c str>,
    /// Most entries of the page.
    pub limit: usize,
}

impl Cursor<'_> {
    /// The whole list as one page.
    pub const ALL: Self = Self { after: None, limit: usize::MAX };
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// Sorted, each once.
    pub entries: Vec<T>,
    /// Whether the list has more entries behind these.
    pub has_more: bool,
    /// How many identities, or bindings of the one identity, were evaluated: the cost of the page.
    pub evaluated: usize,
}

impl<T> Page<T> {
    /// The page at a cursor of a whole list, which is sorted by its texts.
    pub(super) fn of(
        mut list: Vec<T>,
        text: impl Fn(&T) -> &str,
        evaluated: usize,
        cursor: Cursor<'_>,
    ) -> Self {
        if let Some(after) = cursor.after {
            let first = list.partition_point(|entry| text(entry) <= after);
            list.drain(..first);
        }
        let has_more = list.len() > cursor.limit;
        list.truncate(cursor.limit);
        Self { entries: list, has_more, evaluated }
    }
}

/// A place where an identity can do something, and with it at everything below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope<'s> {
    /// The path of a group or registered resource.
    pub scope: &'s str,
    /// Whether every granting binding here has a condition on the resource, which was left open.
    pub conditional: bool,
}

impl Snapshot {
    /// Who can do this here, at this time? One page, sorted.
    ///
    /// Evaluates only the identities from the cursor to the end of the page, and those behind it up to
    /// the next one that can; finding the cursor takes a binary search at each scope on the path.
    ///
    /// # Errors
    ///
    /// The catalog has no such capability.
    pub fn list_identities_page(
        &self,
        capability: &str,
        resource: Path<'_>,
        attributes: &Attributes,
        now: Timestamp,
        cursor: Cursor<'_>,
    ) -> Result<Page<&str>, UnknownCapabilityError> {
        let capability = self.capability(capability)?;
        Ok(self.page_of_bound(resource, cursor, |identity| {
            let can = self.can(identity, capability, resource, attributes, now);
            can.then(|| identity.key())
        }))
    }

    /// One page of what `answer` gives for the identities bound at the resource or above it.
    pub(super) fn page_of_bound<'s, T>(
        &'s self,
        resource: Path<'_>,
        cursor: Cursor<'_>,
        answer: impl Fn(Entry<'s, IdentityExtra>) -> Option<T>,
    ) -> Page<T> {
        let mut page = Page { entries: Vec::new(), has_more: false, evaluated: 0 };
        for identity in Bound::on_path(self.index(), resource, cursor.after) {
            page.evaluated += 1;
            let Some(entry) = answer(identity) else { continue };
            if page.entries.len() >= cursor.limit {
                page.has_more = true;
                break;
            }
            page.entries.push(entry);
        }
        page
    }

    /// Who can do this here, at this time? All of them, sorted.
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
    ) -> Result<Vec<&str>, UnknownCapabilityError> {
        let page = self.list_identities_page(capability, resource, attributes, now, Cursor::ALL)?;
        Ok(page.entries)
    }

    /// Whether an identity can do something at a resource.
    pub(super) fn can(
        &self,
        identity: Entry<'_, IdentityExtra>,
        capability: CapabilityIx,
        resource: Path<'_>,
        attributes: &Attributes,
        now: Timestamp,
    ) -> bool {
        let matrix = self.index().roles().matrix();
        let evaluation = self.evaluation(identity, resource, attributes, now);
        let mut can = false;
        self.index().on_path(identity, resource, |binding| {
            can = matrix.has(binding.packed.role, capability) && evaluation.counts(&binding);
            if can { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        can
    }

    /// Where can this identity do this, at this time? One page of the topmost scopes, sorted: a scope is
    /// listed if it grants and no scope above it grants whatever the resource. Conditions on the
    /// resource are left open; what the request supplies of it is not used.
    ///
    /// Evaluates all bindings of the identity, for every page alike.
    ///
    /// # Errors
    ///
    /// The catalog has no such capability.
    pub fn list_scopes_page(
        &self,
        identity: Path<'_>,
        capability: &str,
        attributes: &Attributes,
        now: Timestamp,
        cursor: Cursor<'_>,
    ) -> Result<Page<Scope<'_>>, UnknownCapabilityError> {
        let capability = self.capability(capability)?;
        let (scopes, evaluated) = self.topmost_scopes(identity, capability, attributes, now);
        Ok(Page::of(scopes, |found| found.scope, evaluated, cursor))
    }

    /// Where can this identity do this, at this time? All topmost scopes, see
    /// [`Self::list_scopes_page`].
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
    ) -> Result<Vec<Scope<'_>>, UnknownCapabilityError> {
        let page = self.list_scopes_page(identity, capability, attributes, now, Cursor::ALL)?;
        Ok(page.entries)
    }

    fn topmost_scopes(
        &self,
        identity: Path<'_>,
        capability: CapabilityIx,
        attributes: &Attributes,
        now: Timestamp,
    ) -> (Vec<Scope<'_>>, usize) {
        match self.index().identities().get(identity.as_str()) {
            Some(entry) => self.topmost_scopes_of(entry, capability, attributes, now),
            None => (vec![], 0),
        }
    }

    /// The topmost scopes at which an identity can do something, and how many bindings were evaluated.
    pub(super) fn topmost_scopes_of<'s>(
        &'s self,
        entry: Entry<'s, IdentityExtra>,
        capability: CapabilityIx,
        attributes: &Attributes,
        now: Timestamp,
    ) -> (Vec<Scope<'s>>, usize) {
        let index = self.index();
        let evaluation =
            Evaluation { index, identity: entry, resource: None, supplied: attributes, now };
        let mut evaluated = 0;
        let mut scopes: Vec<Scope<'_>> = index
            .bindings_of(entry)
            .inspect(|_| evaluated += 1)
            .filter(|binding| index.roles().matrix().has(binding.packed.role, capability))
            .filter(|binding| evaluation.counts(binding))
            .map(|binding| Scope {
                scope: index.scope_of(&binding),
                conditional: binding.tests_resource(),
            })
            .collect();
        // Of one scope, those without a condition on the resource first.
        scopes.sort_unstable_by_key(|found| (found.scope, found.conditional));
        scopes.dedup_by_key(|found| found.scope);
        let unconditional: BTreeSet<&str> =
            scopes.iter().filter(|scope| !scope.conditional).map(|scope| scope.scope).collect();
        scopes.retain(|scope| !has_ancestor_in(scope.scope, &unconditional));
        (scopes, evaluated)
    }
}

/// Whether one of the paths is a proper ancestor of this one.
pub(super) fn has_ancestor_in(path: &str, paths: &BTreeSet<&str>) -> bool {
    path.match_indices('/').filter_map(|(at, _)| path.get(..at)).any(|above| paths.contains(above))
}

// === Identities bound on a path ===

/// The identities bound at a resource or above it, each once, in the order of their ids: a merge of the
/// lists of at most 16 scopes.
pub(super) struct Bound<'s> {
    index: &'s Index,
    lists: Vec<Remaining<'s>>,
}

/// What is left of the list of one scope, and its first identity.
struct Remaining<'s> {
    first: Entry<'s, IdentityExtra>,
    behind: Identities<'s>,
}

impl<'s> Bound<'s> {
    /// Those whose ids are behind `after`.
    pub(super) fn on_path(index: &'s Index, resource: Path<'_>, after: Option<&str>) -> Self {
        let scopes = resource.ancestors().filter_map(|path| index.scope(path.as_str()));
        let lists = scopes.filter_map(|(_, record)| {
            let position =
                after.map_or(0, |after| index.first_bound(&record, |id| id <= after.as_bytes()));
            Remaining::of(index, record.bound.identities_from(position))
        });
        Self { index, lists: lists.collect() }
    }
}

impl<'s> Iterator for Bound<'s> {
    type Item = Entry<'s, IdentityExtra>;

    fn next(&mut self) -> Option<Self::Item> {
        // At most 16 lists: comparing all firsts costs less than a heap.
        let least = self.lists.iter().map(|list| list.first).min_by_key(|entry| entry.key())?;
        let index = self.index;
        self.lists.retain_mut(|list| {
            while list.first.number() == least.number() {
                let Some(first) = first_of(index, &mut list.behind) else { return false };
                list.first = first;
            }
            true
        });
        Some(least)
    }
}

impl<'s> Remaining<'s> {
    /// `None` if nothing is left.
    fn of(index: &'s Index, mut behind: Identities<'s>) -> Option<Self> {
        Some(Self { first: first_of(index, &mut behind)?, behind })
    }
}

/// Takes the first identity of a list.
fn first_of<'s>(index: &'s Index, list: &mut Identities<'s>) -> Option<Entry<'s, IdentityExtra>> {
    index.identities().entry(list.next()?)
}
