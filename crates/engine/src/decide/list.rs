//! The questions behind the question: who can do this here, and where can this identity do it?
//!
//! **Invariant**: an answer here is what asking Check of everyone, or everywhere, would give.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use crate::decide::check::Evaluation;
use crate::index::binding::Beside;
use crate::index::table::Entry;
use crate::model::path::contains;
use crate::{Attributes, Path, Snapshot, Timestamp, UnknownCapability};

/// A place where an identity can do something, and with it at everything below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope<'s> {
    /// The path of a group or registered resource.
    pub scope: &'s str,
    /// Whether every granting binding here has a test on the resource, which was left open.
    pub conditional: bool,
}

impl Snapshot {
    /// Who can do this here, at this time? Sorted, each once.
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
        let index = self.index();
        let bit = self.capability(capability)?;
        let scopes = resource.ancestors().filter_map(|scope| index.scope(scope.as_str()));
        let mut bound: Vec<u32> = scopes.flat_map(|(_, scope)| scope.identities()).collect();
        bound.sort_unstable();
        bound.dedup();
        let identities = bound.into_iter().filter_map(|number| index.identities().entry(number));
        let may = |entry: &Entry<'_, Beside>| {
            let evaluation = self.evaluation(*entry, resource, attributes, now);
            let mut may = false;
            index.on_path(*entry, resource, |binding| {
                let has = index.roles().matrix().has(binding.packed.role, bit);
                may = has && evaluation.counts(&binding);
                if may { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            may
        };
        let mut found: Vec<&str> = identities.filter(may).map(|entry| entry.key()).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Where can this identity do this, at this time? The topmost scopes, sorted: a scope is listed
    /// if it grants and no scope above it grants whatever the resource. Tests on the resource are
    /// left open; what the request supplies of it is not looked at.
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
        let index = self.index();
        let capability = self.capability(capability)?;
        let Some(entry) = index.identities().get(identity.as_str()) else {
            return Ok(vec![]);
        };
        let evaluation =
            Evaluation { index, identity: entry, resource: None, supplied: attributes, now };
        let mut granting: Vec<Scope<'_>> = index
            .bindings_of(entry)
            .filter(|binding| index.roles().matrix().has(binding.packed.role, capability))
            .filter(|binding| evaluation.counts(binding))
            .map(|binding| Scope {
                scope: index.scope_of(&binding),
                conditional: binding.tests_resource(),
            })
            .collect();
        // Of one scope, those without a test first.
        granting.sort_unstable_by_key(|found| (found.scope, found.conditional));
        granting.dedup_by_key(|found| found.scope);
        let mut scopes = granting;
        let open: BTreeSet<&str> =
            scopes.iter().filter(|scope| !scope.conditional).map(|scope| scope.scope).collect();
        scopes.retain(|scope| !has_ancestor_in(scope.scope, &open));
        Ok(scopes)
    }
}

/// Whether one of the paths lies above this one.
fn has_ancestor_in(path: &str, paths: &BTreeSet<&str>) -> bool {
    let above = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
    let found = above.into_iter().find(|above| paths.contains(above));
    debug_assert!(found.is_none_or(|above| contains(above, path)));
    found.is_some()
}
