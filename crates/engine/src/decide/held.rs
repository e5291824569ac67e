//! What an identity can give away, and who can: the questions of the rules that decide who may grant what.
//!
//! **Invariant**: these are not decisions. Only bindings without conditions count as held, because a caller who must
//! meet a condition has nothing to grant with.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::decide::list::Bound;
use crate::index::binding::IdentityExtra;
use crate::index::read::{Binding, is_disabled, is_registered};
use crate::index::table::Entry;
use crate::{CapabilityIx, CapabilitySet, Path, Role, Snapshot, Timestamp};

/// What an identity holds at a scope, and everything below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The capabilities.
    pub capabilities: CapabilitySet,
    /// The capabilities that no binding gives without end, in their order, each with the time from which none gives it
    /// any more: the latest expiry among the bindings that do.
    pub ends: Vec<(CapabilityIx, Timestamp)>,
}

impl Held {
    fn nothing(snapshot: &Snapshot) -> Self {
        Self { capabilities: snapshot.no_capabilities(), ends: vec![] }
    }

    /// When the first of these capabilities is held no longer; `None` if each is held without end. What is not held at
    /// all does not count.
    #[must_use]
    pub fn first_end(&self, of: &CapabilitySet) -> Option<Timestamp> {
        let ends = self.ends.iter().filter(|(capability, _)| of.contains(*capability));
        ends.map(|(_, end)| *end).min()
    }
}

impl Snapshot {
    /// What an identity holds at a scope: the capabilities of its bindings at the scope's path or an ancestor that have
    /// no conditions and whose time is not over. Nothing for an identity that is disabled, or neither registered nor
    /// bound. The scope need not be there: the path alone decides.
    ///
    /// Costs as a check does, and for each binding with an expiry the capabilities of its role.
    #[must_use]
    pub fn held(&self, identity: Path<'_>, scope: Path<'_>, now: Timestamp) -> Held {
        let mut held = Held::nothing(self);
        let Some(identity) = self.index().identities().get(identity.as_str()) else { return held };
        let matrix = self.index().roles().matrix();
        let mut ending = vec![];
        self.index().on_path(identity, scope, |binding| {
            if is_unconditional(&binding) {
                match binding.expires_at() {
                    None => held.capabilities.extend(matrix.row(binding.packed.role)),
                    Some(end) if now < end => ending.push((binding.packed.role, end)),
                    Some(_) => {}
                }
            }
            ControlFlow::Continue(())
        });
        let mut ends: BTreeMap<CapabilityIx, Timestamp> = BTreeMap::new();
        for (role, end) in ending {
            let Some(role) = self.index().roles().get(role) else { continue };
            for capability in role.capabilities.without(&held.capabilities).iter() {
                let latest = ends.entry(capability).or_insert(end);
                *latest = end.max(*latest);
            }
        }
        ends.keys().for_each(|capability| held.capabilities.insert(*capability));
        held.ends = ends.into_iter().collect();
        held
    }

    /// The scope and the role of each binding of an identity that has no conditions and whose time is not over, in no
    /// order: what it holds, and where. Empty for an identity that is disabled or unknown.
    ///
    /// Costs one look-up, and no hash of an id.
    pub fn given(
        &self,
        identity: Path<'_>,
        now: Timestamp,
    ) -> impl Iterator<Item = (Path<'_>, &Role)> + use<'_> {
        let index = self.index();
        let entry = index.identities().get(identity.as_str());
        let bindings = entry.into_iter().flat_map(move |entry| index.bindings_of(entry));
        let counting = bindings.filter(move |binding| {
            is_unconditional(binding) && binding.expires_at().is_none_or(|end| now < end)
        });
        counting.filter_map(move |binding| {
            let scope = Path::parse(index.scope_of(&binding)).ok()?;
            Some((scope, index.roles().get(binding.packed.role)?))
        })
    }

    /// The identities that hold all these capabilities at a scope without condition and without end, registered and not
    /// disabled, in the order of their ids. Several bindings and several roles may give them together; those of an
    /// ancestor count, too, and a root has none.
    ///
    /// The index does not know types: who must leave out pull tokens, or whoever cannot log in, looks at the objects.
    ///
    /// An iterator, because one or two identities often answer the question. Each step evaluates identities that are
    /// bound at the scope or an ancestor up to the next one that holds them; all of them costs as
    /// [`Self::list_identities`] does.
    pub fn holders<'s>(
        &'s self,
        scope: Path<'s>,
        capabilities: &'s CapabilitySet,
    ) -> impl Iterator<Item = &'s str> {
        let bound = Bound::on_path(self.index(), scope, None);
        let bound = bound.filter(|entry| is_registered(*entry) && !is_disabled(*entry));
        bound.filter(move |entry| self.holds(*entry, scope, capabilities)).map(|entry| entry.key())
    }

    /// Whether an identity holds capabilities without condition and without end.
    fn holds(
        &self,
        identity: Entry<'_, IdentityExtra>,
        scope: Path<'_>,
        capabilities: &CapabilitySet,
    ) -> bool {
        let matrix = self.index().roles().matrix();
        let mut held = self.no_capabilities();
        self.index().on_path(identity, scope, |binding| {
            if is_unconditional(&binding) && binding.expires_at().is_none() {
                held.extend(matrix.row(binding.packed.role));
            }
            if held.covers(capabilities) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        held.covers(capabilities)
    }

    fn no_capabilities(&self) -> CapabilitySet {
        CapabilitySet::empty(self.catalog().capabilities().len())
    }
}

/// A corrupt binding is not.
fn is_unconditional(binding: &Binding<'_>) -> bool {
    !binding.is_broken() && binding.conditions().is_empty()
}
