//! What an actor can: `caps(a, g)` of the privilege rules, read from a snapshot.
//!
//! `caps` are the capabilities of the bindings at a scope or above it that are in time and without conditions: only
//! those authorize management calls, and only those can be passed on.

use std::collections::BTreeSet;

use capstan_engine::{
    CapabilityIx, CapabilitySet, Catalog, Path, PathBuf, Role, Snapshot, Timestamp,
};

use crate::Actor;

/// What an actor can do, everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Rights<'s> {
    snapshot: &'s Snapshot,
    /// `None` for the operator, who lacks nothing.
    identity: Option<&'s PathBuf>,
    now: Timestamp,
}

impl<'s> Rights<'s> {
    /// `None` if the actor is not registered or is disabled.
    pub(crate) fn of(snapshot: &'s Snapshot, actor: &'s Actor, now: Timestamp) -> Option<Self> {
        let identity = actor.id();
        if let Some(id) = identity {
            let state = snapshot.identity_state(id.as_path())?;
            if !state.registered || state.disabled {
                return None;
            }
        }
        Some(Self { snapshot, identity, now })
    }

    pub(crate) const fn is_operator(&self) -> bool {
        self.identity.is_none()
    }

    /// Whether it holds a capability there. A capability that the catalog lacks is held by nobody.
    pub(crate) fn holds(&self, capability: &str, scope: Path<'_>) -> bool {
        let capability = self.snapshot.catalog().capability(capability);
        self.is_operator()
            || capability.is_some_and(|capability| self.held(scope).contains(capability))
    }

    /// Which of the capabilities it does not hold there.
    pub(crate) fn lacks(&self, capabilities: &CapabilitySet, scope: Path<'_>) -> CapabilitySet {
        if self.is_operator() {
            return nothing(self.snapshot.catalog());
        }
        capabilities.without(&self.held(scope))
    }

    fn held(&self, scope: Path<'_>) -> CapabilitySet {
        let Some(identity) = self.identity else { return nothing(self.snapshot.catalog()) };
        self.snapshot.held(identity.as_path(), scope, self.now).capabilities
    }

    /// When it first holds one of the capabilities there no more; `None` for never. Those that it does not hold
    /// do not count.
    pub(crate) fn until(&self, capabilities: &CapabilitySet, scope: Path<'_>) -> Option<Timestamp> {
        let held = self.snapshot.held(self.identity?.as_path(), scope, self.now);
        held.first_end(capabilities)
    }

    /// The scopes at which bindings without conditions that are in time give one of these capabilities. Nowhere for the
    /// operator.
    pub(crate) fn scopes_with(&self, wanted: &[CapabilityIx]) -> BTreeSet<&'s str> {
        let Some(identity) = self.identity else { return BTreeSet::new() };
        let given = self.snapshot.given(identity.as_path(), self.now);
        let gives = |role: &Role| wanted.iter().any(|one| role.capabilities.contains(*one));
        given.filter(|(_, role)| gives(role)).map(|(scope, _)| scope.as_str()).collect()
    }
}

/// No capabilities.
pub(crate) fn nothing(catalog: &Catalog) -> CapabilitySet {
    catalog.capability_set(&[])
}

/// The capabilities of these names. Names that the catalog lacks give nothing.
pub(crate) fn set(catalog: &Catalog, names: &[&str]) -> CapabilitySet {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    catalog.capability_set(&names)
}

/// The names of capabilities, sorted.
pub(crate) fn names(catalog: &Catalog, capabilities: &CapabilitySet) -> Vec<String> {
    let name = |one: CapabilityIx| catalog.capability_name(one).map(str::to_owned);
    capabilities.iter().filter_map(name).collect()
}
