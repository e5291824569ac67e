//! What an identity can give away, and who can: the questions of the rules that decide who may grant what.
//!
//! **Invariant**: these are not decisions. Only bindings without conditions count as held, because a caller who must
//! meet a condition has nothing to grant with. What may be reached counts every binding, whether it counts in a check
//! or not.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::decide::list::Bound;
use crate::index::binding::IdentityExtra;
use crate::index::read::{Binding, is_disabled, is_registered};
use crate::index::table::Entry;
use crate::{CapabilityIx, CapabilitySet, Path, Snapshot, Timestamp};

/// Most identities that one call of [`Snapshot::who_could`] evaluates.
pub const WHO_COULD_EVALUATED_MAX: usize = 1_000;

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
        let entry = self.index().identities().get(identity.as_str());
        entry.map_or_else(|| Held::nothing(self), |entry| self.held_by(entry, scope, now))
    }

    fn held_by(&self, identity: Entry<'_, IdentityExtra>, scope: Path<'_>, now: Timestamp) -> Held {
        let matrix = self.index().roles().matrix();
        let mut held = Held::nothing(self);
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

    /// What an identity could hold at a scope: the capabilities of all its bindings at the scope's path or an ancestor,
    /// with conditions or without, in time or not, disabled or not. Nothing for one that is neither registered nor
    /// bound.
    ///
    /// Costs as a check does.
    #[must_use]
    pub fn reach(&self, identity: Path<'_>, scope: Path<'_>) -> CapabilitySet {
        let mut reach = self.no_capabilities();
        let Some(entry) = self.index().identities().get(identity.as_str()) else { return reach };
        let matrix = self.index().roles().matrix();
        self.index().stored_on_path(entry, scope, |binding| {
            reach.extend(matrix.row(binding.packed.role));
            ControlFlow::Continue(())
        });
        reach
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

    /// Up to `max` identities, in the order of their ids, that [hold](Self::held) all these capabilities at a scope now:
    /// who could do what somebody was refused.
    ///
    /// Evaluates at most [`WHO_COULD_EVALUATED_MAX`] identities of those that are bound at the scope or an ancestor, in
    /// the order of their ids, so in a large organization it may name nobody although somebody could.
    #[must_use]
    pub fn who_could(
        &self,
        scope: Path<'_>,
        capabilities: &CapabilitySet,
        now: Timestamp,
        max: usize,
    ) -> Vec<&str> {
        let bound = Bound::on_path(self.index(), scope, None).take(WHO_COULD_EVALUATED_MAX);
        let could = bound.filter(|entry| {
            let held = self.held_by(*entry, scope, now);
            !is_disabled(*entry) && held.capabilities.covers(capabilities)
        });
        could.take(max).map(|entry| entry.key()).collect()
    }

    fn no_capabilities(&self) -> CapabilitySet {
        CapabilitySet::empty(self.catalog().capabilities().len())
    }
}

/// A corrupt binding is not.
fn is_unconditional(binding: &Binding<'_>) -> bool {
    !binding.is_broken() && binding.conditions().is_empty()
}
