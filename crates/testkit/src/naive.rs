//! The naive model: the contract's rules in their most obvious form, over the declared facts.
//!
//! **Invariant**: nothing here is shared with the engine but the plain values that go in and come
//! out. Paths are split into segments, roles are searched by name, every binding is looked at.

use std::collections::BTreeSet;

use capstan_engine::{CatalogFacts, Facts, Reason, RoleBinding, Timestamp};

/// The declared facts and their catalog, to be asked.
#[derive(Clone, Copy, Debug)]
pub struct Naive<'f> {
    catalog: &'f CatalogFacts,
    facts: &'f Facts,
}

/// A binding that counts: its role, its scope, and when it stops counting.
pub type NaiveGrant = (String, String, Option<Timestamp>);

impl<'f> Naive<'f> {
    /// Asks these facts.
    #[must_use]
    pub const fn new(catalog: &'f CatalogFacts, facts: &'f Facts) -> Self {
        Self { catalog, facts }
    }

    /// Section 5, Check: the first reason that holds, and until when an allow is valid; nothing if
    /// the catalog has no such capability.
    #[must_use]
    pub fn check(
        &self,
        identity: &str,
        capability: &str,
        resource: &str,
        now: Timestamp,
    ) -> Option<(Reason, Option<Timestamp>)> {
        if !self.capabilities().contains(capability) {
            return None;
        }
        // Conditions, once there are any, narrow `held` to those that hold; what they take away
        // from `timely` is CONDITION_NOT_MET.
        let held: Vec<_> = self.on_path(identity, resource).collect();
        let has = |binding: &&RoleBinding| self.gives(binding).any(|name| name == capability);
        let timely: Vec<_> = held.iter().copied().filter(|binding| in_time(binding, now)).collect();

        let granting: Vec<_> = timely.iter().copied().filter(has).collect();
        let reason = if !granting.is_empty() {
            Reason::Granted
        } else if !self.is_known(identity) {
            Reason::UnknownIdentity
        } else if held.iter().any(has) {
            Reason::Expired
        } else if !timely.is_empty() {
            Reason::CapabilityNotInRole
        } else {
            Reason::NoBinding
        };
        let for_ever = granting.iter().any(|binding| binding.expires_at.is_none());
        let latest = granting.iter().filter_map(|binding| binding.expires_at).max();
        Some((reason, if for_ever { None } else { latest }))
    }

    /// Section 5, ListCapabilities: sorted names, and every binding that counts there and whose
    /// role has a capability.
    #[must_use]
    pub fn list_capabilities(
        &self,
        identity: &str,
        resource: &str,
        now: Timestamp,
    ) -> (Vec<String>, Vec<NaiveGrant>) {
        let counting = self.on_path(identity, resource).filter(|binding| in_time(binding, now));
        let counting: Vec<_> = counting.filter(|b| self.gives(b).next().is_some()).collect();
        let names: BTreeSet<_> = counting.iter().flat_map(|binding| self.gives(binding)).collect();
        let grant =
            |b: &RoleBinding| (b.role.to_string(), b.scope.as_str().to_owned(), b.expires_at);
        (names.into_iter().map(str::to_owned).collect(), counting.into_iter().map(grant).collect())
    }

    /// Section 5, ListIdentities: who can, sorted; nobody if the catalog has no such capability.
    #[must_use]
    pub fn list_identities(&self, capability: &str, resource: &str, now: Timestamp) -> Vec<String> {
        let granted = |identity: &&str| {
            let answer = self.check(identity, capability, resource, now);
            answer.is_some_and(|(reason, _)| reason == Reason::Granted)
        };
        let registered = self.facts.identities.iter().map(|identity| identity.id.as_str());
        let bound = self.facts.role_bindings.iter().map(|binding| binding.identity.as_str());
        let all: BTreeSet<_> = registered.chain(bound).collect();
        all.into_iter().filter(granted).map(str::to_owned).collect()
    }

    /// The names of all capabilities of the catalog.
    #[must_use]
    pub fn capabilities(&self) -> BTreeSet<String> {
        let resources = self.catalog.resources.iter();
        let dotted = resources.flat_map(|resource| {
            resource.actions.iter().map(|action| format!("{}.{action}", resource.name))
        });
        dotted.chain(self.catalog.capabilities.iter().cloned()).collect()
    }

    /// The identity's bindings whose scope is the resource or above it.
    fn on_path(&self, identity: &str, resource: &str) -> impl Iterator<Item = &'f RoleBinding> {
        self.facts.role_bindings.iter().filter(move |binding| {
            binding.identity.as_str() == identity
                && is_at_or_above(binding.scope.as_str(), resource)
        })
    }

    /// What the binding's role has: a custom role's id has a slash, a built-in role's name none.
    fn gives(&self, binding: &RoleBinding) -> impl Iterator<Item = &'f str> {
        let built_in = self.catalog.roles.iter().filter(|role| *role.name == *binding.role);
        let custom = self.facts.roles.iter().filter(|role| role.id.as_str() == &*binding.role);
        let names = built_in.map(|role| &role.capabilities);
        names.chain(custom.map(|role| &role.capabilities)).flatten().map(String::as_str)
    }

    fn is_known(&self, identity: &str) -> bool {
        self.facts.identities.iter().any(|registered| registered.id.as_str() == identity)
            || self.facts.role_bindings.iter().any(|bound| bound.identity.as_str() == identity)
    }
}

/// Section 2: whether the text is a path.
#[must_use]
pub fn is_path(text: &str) -> bool {
    const PUNCTUATION: &str = "-._~@:+=";
    let is_segment = |segment: &str| {
        let good = |c: char| c.is_ascii_alphanumeric() || PUNCTUATION.contains(c);
        (1..=128).contains(&segment.chars().count())
            && segment.chars().all(good)
            && segment != "."
            && segment != ".."
    };
    text.len() <= 1024 && text.split('/').count() <= 16 && text.split('/').all(is_segment)
}

/// Section 2: whether the first path is the second or an ancestor of it, segment by segment.
#[must_use]
pub fn is_at_or_above(above: &str, path: &str) -> bool {
    let (above, path): (Vec<_>, Vec<_>) = (above.split('/').collect(), path.split('/').collect());
    path.starts_with(&above)
}

/// Section 3: a binding counts while `now < expires_at`.
fn in_time(binding: &RoleBinding, now: Timestamp) -> bool {
    binding.expires_at.is_none_or(|end| (now.seconds(), now.nanos()) < (end.seconds(), end.nanos()))
}
