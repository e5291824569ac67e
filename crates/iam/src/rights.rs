//! What an actor can: `caps(a, g)` of the privilege rules, read from a snapshot.
//!
//! `caps` are the capabilities of the bindings at a scope or above it that are in time and without conditions: only
//! those authorize management calls, and only those can be passed on.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use capstan_engine::{
    CapabilityIx, CapabilitySet, Catalog, Held, Path, PathBuf, Role, Snapshot, Timestamp,
};

use crate::limits::HELD_SCOPES_MAX;
use crate::{Actor, Narrowing};

/// A role of a session that counts.
#[derive(Clone, Debug)]
pub(crate) struct Counting<'s> {
    pub(crate) scope: Path<'s>,
    pub(crate) capabilities: CapabilitySet,
    pub(crate) ends: Timestamp,
}

/// What an actor can do, everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Rights<'s> {
    snapshot: &'s Snapshot,
    /// `None` for the operator, who lacks nothing.
    identity: Option<&'s PathBuf>,
    /// What its credential gives beside bindings.
    session: Vec<Counting<'s>>,
    now: Timestamp,
    /// Capabilities that do not count.
    barred: Option<CapabilitySet>,
    /// Where they count: at this group and below it. `None` for everywhere.
    within: Option<Path<'s>>,
    /// What it holds, by scope, as far as it was asked: a batch, or a page of a list, asks many times for few scopes.
    held: RefCell<HashMap<PathBuf, Arc<Held>>>,
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
        let (session, barred, within, held) = (vec![], None, None, RefCell::default());
        Some(Self { snapshot, identity, session, now, barred, within, held })
    }

    /// The same with what a credential gives.
    pub(crate) fn with_session(self, session: Vec<Counting<'s>>) -> Self {
        Self { session, ..self }
    }

    /// The same without some capabilities, whatever gives them.
    pub(crate) fn without(self, barred: &[&str]) -> Self {
        let mut all = set(self.snapshot.catalog(), barred);
        if let Some(barred) = &self.barred {
            all.add(barred);
        }
        Self { barred: Some(all), ..self }
    }

    /// The same, held to what a credential is held to (R21).
    pub(crate) fn narrowed(self, to: &'s Narrowing) -> Self {
        let within = to.subtree.as_ref().map(PathBuf::as_path);
        let narrowed = Self { within, ..self };
        // Events would be delivered by the rights of the identity, not by those of the credential.
        let narrowed = narrowed.without(&["subscriptions.create", "subscriptions.update"]);
        let Some(kept) = &to.capabilities else { return narrowed };
        let all = narrowed.snapshot.catalog().capabilities();
        narrowed.without(&all.filter(|name| !kept.contains(*name)).collect::<Vec<_>>())
    }

    /// Where a role that is given at a scope counts; `None` for nowhere.
    fn counts_at<'p>(&self, scope: Path<'p>) -> Option<Path<'p>>
    where
        's: 'p,
    {
        match self.within {
            None => Some(scope),
            Some(within) if within.contains(scope) => Some(scope),
            Some(within) => scope.contains(within).then_some(within),
        }
    }

    /// What counts of a role.
    fn counting(&self, mut capabilities: CapabilitySet) -> CapabilitySet {
        if let Some(barred) = &self.barred {
            capabilities = capabilities.without(barred);
        }
        capabilities
    }

    pub(crate) const fn is_operator(&self) -> bool {
        self.identity.is_none()
    }

    /// Whether it holds a capability there. A capability that the catalog lacks is held by nobody.
    pub(crate) fn holds(&self, capability: &str, scope: Path<'_>) -> bool {
        let capability = self.snapshot.catalog().capability(capability);
        self.is_operator()
            || capability
                .is_some_and(|capability| self.held(scope).capabilities.contains(capability))
    }

    /// Which of the capabilities it does not hold there.
    pub(crate) fn lacks(&self, capabilities: &CapabilitySet, scope: Path<'_>) -> CapabilitySet {
        if self.is_operator() {
            return nothing(self.snapshot.catalog());
        }
        capabilities.without(&self.held(scope).capabilities)
    }

    /// What it holds there. The operator holds nothing.
    fn held(&self, scope: Path<'_>) -> Arc<Held> {
        let scope = PathBuf::from(scope);
        if let Some(held) = self.held.borrow().get(&scope) {
            return Arc::clone(held);
        }
        let is_within = self.within.is_none_or(|within| within.contains(scope.as_path()));
        let held = match self.identity.filter(|_| is_within) {
            Some(identity) => {
                let held = self.snapshot.held(identity.as_path(), scope.as_path(), self.now);
                self.session
                    .iter()
                    .filter(|one| one.scope.contains(scope.as_path()))
                    .fold(held, add)
            }
            None => Held { capabilities: nothing(self.snapshot.catalog()), ends: vec![] },
        };
        let held = Arc::new(Held { capabilities: self.counting(held.capabilities), ..held });
        let mut known = self.held.borrow_mut();
        if known.len() >= HELD_SCOPES_MAX {
            known.clear();
        }
        known.insert(scope, Arc::clone(&held));
        held
    }

    /// When it first holds one of the capabilities there no more; `None` for never. Those that it does not hold
    /// do not count.
    pub(crate) fn until(&self, capabilities: &CapabilitySet, scope: Path<'_>) -> Option<Timestamp> {
        self.held(scope).first_end(capabilities)
    }

    /// The scopes at which bindings without conditions that are in time give one of these capabilities. Nowhere for the
    /// operator.
    pub(crate) fn scopes_with(&self, wanted: &[CapabilityIx]) -> BTreeSet<&'s str> {
        let Some(identity) = self.identity else { return BTreeSet::new() };
        let given = self.snapshot.given(identity.as_path(), self.now);
        let barred = |one| self.barred.as_ref().is_some_and(|barred| barred.contains(one));
        let gives = |role: &Role| {
            wanted.iter().any(|one| role.capabilities.contains(*one) && !barred(*one))
        };
        let bound = given.filter(|(_, role)| gives(role)).map(|(scope, _)| scope);
        let of_session = self.session.iter().filter(|one| {
            wanted.iter().any(|name| one.capabilities.contains(*name) && !barred(*name))
        });
        let scopes = bound.chain(of_session.map(|one| one.scope));
        scopes.filter_map(|scope| self.counts_at(scope)).map(Path::as_str).collect()
    }

    /// What bindings without conditions that are in time give, by scope. Nothing for the operator.
    pub(crate) fn by_scope(&self) -> BTreeMap<PathBuf, CapabilitySet> {
        let mut scopes = BTreeMap::new();
        let Some(identity) = self.identity else { return scopes };
        let bound = self.snapshot.given(identity.as_path(), self.now);
        let bound = bound.map(|(scope, role)| (scope, &role.capabilities));
        let of_session = self.session.iter().map(|one| (one.scope, &one.capabilities));
        for (scope, capabilities) in bound.chain(of_session) {
            let Some(scope) = self.counts_at(scope) else { continue };
            let given: &mut CapabilitySet =
                scopes.entry(scope.into()).or_insert_with(|| nothing(self.snapshot.catalog()));
            given.add(&self.counting(capabilities.clone()));
        }
        scopes
    }
}

/// What is held together with a role of a session: what is held without end is not ended by it.
fn add(held: Held, of_session: &Counting<'_>) -> Held {
    let Held { mut capabilities, ends } = held;
    let mut ends: BTreeMap<CapabilityIx, Timestamp> = ends.into_iter().collect();
    for capability in of_session.capabilities.iter() {
        let end = of_session.ends;
        if !capabilities.contains(capability) {
            ends.insert(capability, end);
        } else if let Some(known) = ends.get_mut(&capability) {
            *known = end.max(*known);
        }
    }
    capabilities.add(&of_session.capabilities);
    Held { capabilities, ends: ends.into_iter().collect() }
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

#[cfg(test)]
mod tests {
    use capstan_engine::{CatalogFacts, CatalogRole, Facts, Identity, Model, RoleBinding};

    use super::*;

    fn path(text: &str) -> PathBuf {
        text.parse().unwrap()
    }

    /// What is held at a scope is computed once, for as many scopes as are remembered.
    #[test]
    fn what_is_held_is_remembered() {
        let capabilities = vec!["open".to_owned()];
        let name = "opener".to_owned();
        let role = CatalogRole { name, capabilities: capabilities.clone(), ..Default::default() };
        let (name, roles) = ("test".to_owned(), vec![role]);
        let catalog =
            Catalog::new(CatalogFacts { name, capabilities, roles, ..Default::default() });
        let binding = RoleBinding {
            id: None,
            identity: path("alice"),
            role: "opener".into(),
            scope: path("acme"),
            expires_at: None,
            when: vec![],
        };
        let facts = Facts {
            groups: vec![capstan_engine::Group { id: path("acme"), name: String::new() }],
            identities: vec![Identity::named(path("alice"))],
            role_bindings: vec![binding],
            ..Facts::default()
        };
        let model = Model::new(catalog.unwrap().into(), facts).unwrap();
        let snapshot = Snapshot::build(&model, 1).unwrap();
        let alice = Actor::identity(path("alice"));
        let rights = Rights::of(&snapshot, &alice, Timestamp::UNIX_EPOCH).unwrap();
        let scope = |at: usize| path(&format!("acme/{at}"));
        let first = rights.held(scope(0).as_path());
        for at in 0..HELD_SCOPES_MAX {
            assert!(rights.holds("open", scope(at).as_path()));
            assert!(Arc::ptr_eq(&first, &rights.held(scope(0).as_path())), "{at}");
        }
        assert!(!rights.holds("open", path("acme2").as_path()));
        assert_eq!(rights.held.borrow().len(), 1, "the others are forgotten");
        assert!(!Arc::ptr_eq(&first, &rights.held(scope(0).as_path())), "it was forgotten");
    }
}
