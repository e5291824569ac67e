//! A search: at which registered resources of a type can this identity do this?
//!
//! **Invariant**: an answer is what Check would say of every resource of the type, in the order of their paths.

use std::collections::{BTreeMap, BTreeSet};

use crate::decide::list::{Cursor, Page, has_ancestor_in};
use crate::index::scope::ScopeKind;
use crate::{Attributes, Path, Snapshot, Timestamp, UnknownCapabilityError};

impl Snapshot {
    /// At which registered resources of this type, at or below this path if there is one, can this identity do this, at this time? One
    /// page, sorted.
    ///
    /// The index has no order of paths: a page costs a look at every group and resource, and an evaluation of those of the
    /// type, behind the cursor and below a scope that may grant, as far as they come before the end of the page.
    ///
    /// # Errors
    ///
    /// The catalog has no such capability.
    pub fn list_resources_page(
        &self,
        identity: Path<'_>,
        capability: &str,
        (kind, within): (&str, Option<Path<'_>>),
        attributes: &Attributes,
        now: Timestamp,
        cursor: Cursor<'_>,
    ) -> Result<Page<&str>, UnknownCapabilityError> {
        let capability = self.capability(capability)?;
        let index = self.index();
        let mut page = Page { entries: vec![], has_more: false, evaluated: 0 };
        let Some(identity) = index.identities().get(identity.as_str()) else { return Ok(page) };
        let (scopes, _) = self.topmost_scopes_of(identity, capability, attributes, now);
        let scopes: BTreeSet<&str> = scopes.iter().map(|found| found.scope).collect();
        let kept = cursor.limit.saturating_add(1);
        let mut first: BTreeMap<&str, ()> = BTreeMap::new();
        let all = index.scopes().filter(|(_, record)| record.kind == ScopeKind::Resource);
        for (entry, _) in all.filter(|_| !scopes.is_empty()) {
            let id = entry.key();
            let is_of_kind = entry.extra().and_then(|extra| extra.kind.as_deref()) == Some(kind);
            let is_behind = cursor.after.is_none_or(|after| id > after);
            let is_full = first.len() >= kept;
            let is_wanted = !is_full || first.last_key_value().is_some_and(|(last, ())| id < *last);
            if !(is_of_kind && is_behind && is_wanted)
                || !(scopes.contains(id) || has_ancestor_in(id, &scopes))
            {
                continue;
            }
            let Ok(resource) = Path::parse(id) else { continue };
            if within.is_some_and(|within| !within.contains(resource)) {
                continue;
            }
            page.evaluated += 1;
            if self.can(identity, capability, resource, attributes, now) {
                first.insert(id, ());
                if first.len() > kept {
                    first.pop_last();
                }
            }
        }
        page.has_more = first.len() > cursor.limit;
        page.entries = first.into_keys().take(cursor.limit).collect();
        Ok(page)
    }
}
