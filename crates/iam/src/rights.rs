//! What an actor can: `caps(a, g)` of the privilege rules, read from a snapshot.
//!
//! `caps` are the capabilities of the bindings at a scope or above it that are in time and without conditions: only
//! those authorize management calls, and only those can be passed on.

use std::collections::BTreeMap;

use capstan_engine::{CapabilityIx, CapabilitySet, Catalog, Path, PathBuf, Snapshot, Timestamp};

use crate::Actor;

/// What an actor can do, everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Rights<'s> {
    snapshot: &'s Snapshot,
    /// `None` for the operator, who lacks nothing.
    identity: Option<&'s PathBuf>,
    now: Timestamp,
    /// Held beside it, by scope. Only tests of masked rules use it.
    more: Vec<(PathBuf, CapabilitySet)>,
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
        Some(Self { snapshot, identity, now, more: vec![] })
    }

    pub(crate) const fn is_operator(&self) -> bool {
        self.identity.is_none()
    }

    /// The same with these capabilities at these scopes, too.
    pub(crate) fn with(mut self, more: impl IntoIterator<Item = (PathBuf, CapabilitySet)>) -> Self {
        self.more.extend(more);
        self
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
        let mut held = self.snapshot.held(identity.as_path(), scope, self.now).capabilities;
        let more = self.more.iter().filter(|(at, _)| at.as_path().contains(scope));
        more.for_each(|(_, more)| held.add(more));
        held
    }

    /// When it first holds one of the capabilities there no more; `None` for never. Those that it does not hold
    /// do not count.
    pub(crate) fn until(&self, capabilities: &CapabilitySet, scope: Path<'_>) -> Option<Timestamp> {
        let held = self.snapshot.held(self.identity?.as_path(), scope, self.now);
        held.first_end(capabilities)
    }

    /// What its bindings without conditions that are in time give, by scope. Nothing for the operator.
    pub(crate) fn by_scope(&self) -> BTreeMap<PathBuf, CapabilitySet> {
        let mut scopes = BTreeMap::new();
        let Some(identity) = self.identity else { return scopes };
        for binding in self.snapshot.role_bindings(identity.as_path()) {
            let counts = binding.when.is_empty()
                && binding.expires_at.is_none_or(|expires_at| self.now < expires_at);
            if let Some(role) = self.snapshot.role(&binding.role).filter(|_| counts) {
                let given = scopes.entry(binding.scope);
                given.or_insert_with(|| nothing(self.snapshot.catalog())).add(&role.capabilities);
            }
        }
        scopes
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
