//! What an identity can: `caps(i, g)` and `reach(i, g)` of the privilege rules, read from a snapshot.
//!
//! `caps` are the capabilities of the bindings at a scope or above it that are in time and without conditions: only
//! those authorize management calls, and only those can be passed on. `reach` is the same of every binding.

use std::collections::BTreeSet;
use std::sync::Arc;

use capstan_engine::{
    CapabilityIx, Catalog, Path, PathBuf, Role, RoleBinding, Snapshot, Timestamp,
};

use crate::Actor;

/// A set of capabilities of one catalog.
pub(crate) type Capabilities = BTreeSet<CapabilityIx>;

/// A binding that counts for management calls.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) scope: PathBuf,
    pub(crate) role: Arc<Role>,
    pub(crate) expires_at: Option<Timestamp>,
}

impl Given {
    /// `None` if the binding does not count.
    pub(crate) fn of(snapshot: &Snapshot, binding: &RoleBinding, now: Timestamp) -> Option<Self> {
        let counts =
            binding.when.is_empty() && binding.expires_at.is_none_or(|expires_at| now < expires_at);
        let role = if counts { role(snapshot, &binding.role)? } else { return None };
        let (scope, expires_at) = (binding.scope.clone(), binding.expires_at);
        Some(Self { scope, role: Arc::clone(role), expires_at })
    }
}

/// What an actor can do, everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Rights {
    catalog: Arc<Catalog>,
    /// `None` for the operator, who lacks nothing.
    given: Option<Vec<Given>>,
}

impl Rights {
    /// `None` if the actor is not registered or is disabled.
    pub(crate) fn of(snapshot: &Snapshot, actor: &Actor, now: Timestamp) -> Option<Self> {
        let given = match actor.id() {
            None => None,
            Some(id) => {
                let state = snapshot.identity_state(id.as_path())?;
                if !state.registered || state.disabled {
                    return None;
                }
                Some(given(snapshot, id.as_path(), now))
            }
        };
        Some(Self { catalog: Arc::clone(snapshot.catalog()), given })
    }

    pub(crate) const fn is_operator(&self) -> bool {
        self.given.is_none()
    }

    /// Every binding that counts; none for the operator.
    pub(crate) fn given(&self) -> &[Given] {
        self.given.as_deref().unwrap_or_default()
    }

    /// The same with these bindings, too.
    pub(crate) fn with(mut self, more: impl IntoIterator<Item = Given>) -> Self {
        if let Some(given) = &mut self.given {
            given.extend(more);
        }
        self
    }

    fn at<'r>(&'r self, scope: Path<'r>) -> impl Iterator<Item = &'r Given> {
        self.given().iter().filter(move |one| one.scope.as_path().contains(scope))
    }

    /// Whether it holds a capability there. A capability that the catalog lacks is held by nobody.
    pub(crate) fn holds(&self, capability: &str, scope: Path<'_>) -> bool {
        let Some(capability) = self.catalog.capability(capability) else {
            return self.is_operator();
        };
        self.is_operator() || self.at(scope).any(|one| one.role.capabilities.contains(capability))
    }

    /// Which of the capabilities it does not hold there.
    pub(crate) fn lacks(
        &self,
        capabilities: impl IntoIterator<Item = CapabilityIx>,
        scope: Path<'_>,
    ) -> Capabilities {
        if self.is_operator() {
            return Capabilities::new();
        }
        let at: Vec<_> = self.at(scope).collect();
        let holds = |one| at.iter().any(|given| given.role.capabilities.contains(one));
        capabilities.into_iter().filter(|one| !holds(*one)).collect()
    }

    /// When it first holds one of the capabilities there no more; `None` for never. Those that it does not hold
    /// do not count.
    pub(crate) fn until(
        &self,
        capabilities: impl IntoIterator<Item = CapabilityIx>,
        scope: Path<'_>,
    ) -> Option<Timestamp> {
        let at: Vec<_> = self.at(scope).collect();
        let latest = |one| {
            let mut giving = at.iter().filter(|given| given.role.capabilities.contains(one));
            // `None` if one of them has no end.
            let first = giving.next()?.expires_at;
            giving.fold(first, |latest, given| Some(latest?.max(given.expires_at?)))
        };
        capabilities.into_iter().filter_map(latest).min()
    }
}

/// The bindings of an identity that count, whether or not it is registered and enabled.
pub(crate) fn given(snapshot: &Snapshot, identity: Path<'_>, now: Timestamp) -> Vec<Given> {
    let bindings = snapshot.role_bindings(identity);
    bindings.iter().filter_map(|binding| Given::of(snapshot, binding, now)).collect()
}

/// A role by its id: a built-in role's name or a custom role's path.
pub(crate) fn role<'s>(snapshot: &'s Snapshot, id: &str) -> Option<&'s Arc<Role>> {
    let built_in = snapshot.catalog().roles().len();
    let (built_in, custom) = snapshot.roles().split_at_checked(built_in)?;
    if id.contains('/') {
        custom.get(custom.binary_search_by(|role| (*role.id).cmp(id)).ok()?)
    } else {
        built_in.iter().find(|role| *role.id == *id)
    }
}

/// Every binding of an identity, sorted by scope and id: its reach.
pub(crate) fn reach(snapshot: &Snapshot, identity: Path<'_>) -> Vec<RoleBinding> {
    let mut bindings = snapshot.role_bindings(identity);
    bindings.sort_by(|a, b| (&a.scope, &a.id).cmp(&(&b.scope, &b.id)));
    bindings
}

/// The names of capabilities, sorted.
pub(crate) fn names(
    catalog: &Catalog,
    capabilities: impl IntoIterator<Item = CapabilityIx>,
) -> Vec<String> {
    let names = capabilities.into_iter().filter_map(|one| catalog.capability_name(one));
    let names: BTreeSet<_> = names.map(str::to_owned).collect();
    names.into_iter().collect()
}
