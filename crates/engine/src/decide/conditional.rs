//! The searches with conditional entries: who could do this here, and where could this identity do it, if a
//! request supplied further properties?
//!
//! A test is *open* if its attribute is neither registered nor supplied, because further properties can still meet
//! it. What is registered or supplied is known, and further properties cannot change it.
//!
//! **Invariant**: an identity is listed if and only if Check allows it with what is supplied, or with more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;

use crate::decide::check::Evaluation;
use crate::decide::list::has_ancestor_in;
use crate::index::binding::IdentityExtra;
use crate::index::read::Binding;
use crate::index::table::Entry;
use crate::{
    Attributes, CapabilityIx, Condition, Cursor, EXPLAINED_BINDINGS_MAX, Grant, Page, Path, Scope,
    Snapshot, Timestamp, UnknownCapabilityError,
};

/// An entry of a list that has conditional entries, too.
#[derive(Clone)]
pub struct Listed<'s, T> {
    /// An identity, or a scope.
    pub entry: T,
    /// Whether the list without conditional entries has this entry.
    pub holds: bool,
    snapshot: &'s Snapshot,
    identity: Entry<'s, IdentityExtra>,
    bindings: Vec<OpenBinding<'s>>,
}

/// A binding, and its open tests.
type OpenBinding<'s> = (Binding<'s>, Vec<&'s Condition>);

/// A binding that counts if its open tests are met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionalGrant<'s> {
    /// The binding.
    pub grant: Grant<'s>,
    /// Its open tests. The others hold.
    pub open: Vec<&'s Condition>,
}

impl<'s, T> Listed<'s, T> {
    /// If no binding gives the capability without an open test: the bindings that give it if their open tests are
    /// met, from the topmost scope down, at most [`EXPLAINED_BINDINGS_MAX`].
    ///
    /// Each is made when it is asked for: its id may follow from all its conditions, which can have 32 KiB.
    pub fn conditional(&self) -> impl ExactSizeIterator<Item = ConditionalGrant<'s>> {
        self.bindings.iter().map(|(binding, open)| ConditionalGrant {
            grant: self.snapshot.grant(self.identity, binding),
            open: open.clone(),
        })
    }
}

impl<T: fmt::Debug> fmt::Debug for Listed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, holds, .. } = self;
        let conditional: Vec<_> = self.conditional().collect();
        let mut shown = f.debug_struct("Listed");
        shown.field("entry", entry).field("holds", holds).field("conditional", &conditional);
        shown.finish()
    }
}

impl Snapshot {
    /// Who can do this here, at this time, and who could with further properties? One page, sorted by identity.
    ///
    /// Costs as [`Self::list_identities_page`] does.
    ///
    /// # Errors
    ///
    /// The catalog has no such capability.
    pub fn conditional_identities_page(
        &self,
        capability: &str,
        resource: Path<'_>,
        attributes: &Attributes,
        now: Timestamp,
        cursor: Cursor<'_>,
    ) -> Result<Page<Listed<'_, &str>>, UnknownCapabilityError> {
        let capability = self.capability(capability)?;
        let matrix = self.index().roles().matrix();
        Ok(self.page_of_bound(resource, cursor, |identity| {
            let evaluation = self.evaluation(identity, resource, attributes, now);
            let (mut holds, mut found) = (false, vec![]);
            self.index().on_path(identity, resource, |binding| {
                if matrix.has(binding.packed.role, capability) {
                    match evaluation.open_tests(&binding) {
                        Some(open) if open.is_empty() => {
                            holds = true;
                            return ControlFlow::Break(());
                        }
                        Some(open) => found.push((binding, open)),
                        None => {}
                    }
                }
                ControlFlow::Continue(())
            });
            if holds {
                found.clear();
            }
            let bindings = self.first(found);
            let is_listed = holds || !bindings.is_empty();
            let entry = identity.key();
            is_listed.then_some(Listed { entry, holds, snapshot: self, identity, bindings })
        }))
    }

    /// Where can this identity do this, at this time, and where could it with further properties? One page of the
    /// topmost scopes, sorted: a scope is listed unless a scope above it grants without an open test. All tests on
    /// the resource are open.
    ///
    /// Costs as [`Self::list_scopes_page`] does.
    ///
    /// # Errors
    ///
    /// The catalog has no such capability.
    pub fn conditional_scopes_page(
        &self,
        identity: Path<'_>,
        capability: &str,
        attributes: &Attributes,
        now: Timestamp,
        cursor: Cursor<'_>,
    ) -> Result<Page<Listed<'_, Scope<'_>>>, UnknownCapabilityError> {
        let capability = self.capability(capability)?;
        let (scopes, evaluated) = self.possible_scopes(identity, capability, attributes, now);
        Ok(Page::of(scopes, |found| found.entry.scope, evaluated, cursor))
    }

    fn possible_scopes(
        &self,
        identity: Path<'_>,
        capability: CapabilityIx,
        attributes: &Attributes,
        now: Timestamp,
    ) -> (Vec<Listed<'_, Scope<'_>>>, usize) {
        /// The bindings at one scope.
        #[derive(Default)]
        struct Here<'s> {
            /// Whether one of them counts, with or without tests on the resource.
            holds: bool,
            found: Vec<OpenBinding<'s>>,
        }
        let index = self.index();
        let Some(entry) = index.identities().get(identity.as_str()) else {
            return (vec![], 0);
        };
        let evaluation =
            Evaluation { index, identity: entry, resource: None, supplied: attributes, now };
        let mut evaluated = 0;
        let mut unconditional = BTreeSet::new();
        let mut scopes: BTreeMap<&str, Here<'_>> = BTreeMap::new();
        for binding in index.bindings_of(entry) {
            evaluated += 1;
            if !index.roles().matrix().has(binding.packed.role, capability) {
                continue;
            }
            let scope = index.scope_of(&binding);
            let (holds, open) = (evaluation.counts(&binding), evaluation.open_tests(&binding));
            if holds || open.is_some() {
                let here = scopes.entry(scope).or_default();
                here.holds |= holds;
                match open {
                    Some(open) if open.is_empty() => _ = unconditional.insert(scope),
                    Some(open) => here.found.push((binding, open)),
                    None => {}
                }
            }
        }
        let topmost =
            scopes.into_iter().filter(|(scope, _)| !has_ancestor_in(scope, &unconditional));
        let listed = topmost.map(|(scope, Here { holds, found })| {
            let conditional = !unconditional.contains(scope);
            let bindings = if conditional { self.first(found) } else { vec![] };
            let scope = Scope { scope, conditional };
            Listed { entry: scope, holds, snapshot: self, identity: entry, bindings }
        });
        (listed.collect(), evaluated)
    }

    /// The first of these bindings of an identity, from the topmost scope down. The order depends on what they say, not
    /// on the index.
    fn first<'s>(&'s self, mut found: Vec<OpenBinding<'s>>) -> Vec<OpenBinding<'s>> {
        found.sort_by(|(a, _), (b, _)| {
            let key = |one: &Binding<'s>| (one.packed.length, self.index().role_id(one));
            key(a).cmp(&key(b)).then_with(|| a.conditions().cmp(b.conditions()))
        });
        found.truncate(EXPLAINED_BINDINGS_MAX);
        found
    }
}
