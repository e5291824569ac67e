//! The questions behind the question: who can do this here, and where can this identity do it?
//!
//! **Invariant**: an answer here is what asking Check of everyone, or everywhere, would give.

use std::collections::BTreeSet;

use crate::decision::Circumstances;
use crate::path::contains;
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
        let capability = self.catalog.capability(capability).ok_or(UnknownCapability)?;
        let mut found = Vec::new();
        for scope in resource.ancestors() {
            for binding in self.bindings_at(scope.as_str()) {
                if !self.matrix.has(binding.role, capability) {
                    continue;
                }
                let identity = self.identity(binding);
                let circumstances = Circumstances {
                    snapshot: self,
                    identity,
                    resource: Some(resource.as_str()),
                    supplied: attributes,
                    now,
                };
                if circumstances.counts(binding) {
                    found.push(identity);
                }
            }
        }
        found.sort_unstable();
        found.dedup();
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
        let capability = self.catalog.capability(capability).ok_or(UnknownCapability)?;
        let circumstances = Circumstances {
            snapshot: self,
            identity: identity.as_str(),
            resource: None,
            supplied: attributes,
            now,
        };
        let bindings = self.bindings_of(identity.as_str()).unwrap_or_default();
        let granting = bindings
            .iter()
            .filter(|binding| self.matrix.has(binding.role, capability))
            .filter(|binding| circumstances.counts(binding));
        // Bindings are sorted by scope, so those of one scope follow one another.
        let mut scopes: Vec<Scope<'_>> = Vec::new();
        for binding in granting {
            let (scope, conditional) = (self.scope(binding), self.tests_resource(binding));
            match scopes.last_mut() {
                Some(last) if last.scope == scope => last.conditional &= conditional,
                _ => scopes.push(Scope { scope, conditional }),
            }
        }
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
