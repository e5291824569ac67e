//! The naive model: the simplest implementation of the contract's rules, over the declared facts.
//!
//! **Invariant**: the model shares only plain values of input and output with the engine. It splits paths
//! into segments, searches roles by name, and evaluates every binding.

mod path;

use std::collections::{BTreeMap, BTreeSet};

use capstan_engine::{
    AttributeCategory, Attributes, CatalogFacts, Condition, Facts, Properties, Reason, RoleBinding,
    Timestamp, Value,
};

pub use path::{is_at_or_above, is_path};

/// The declared facts and their catalog, at one time and with the supplied properties of a request.
#[derive(Clone, Copy, Debug)]
pub struct Naive<'f> {
    catalog: &'f CatalogFacts,
    facts: &'f Facts,
    supplied: &'f Attributes,
    now: Timestamp,
}

/// The valid answers of Explain.
#[derive(Clone, Debug)]
pub struct NaiveExplanation<'f> {
    /// The decision of Check.
    pub decision: (Reason, Option<Timestamp>),
    /// Every granting binding. Each is a valid witness.
    pub witnesses: Vec<&'f RoleBinding>,
    /// For a denial, the capability of the question.
    pub missing: Vec<String>,
    /// For a denial, the roles with the capability, in order.
    pub roles: Vec<&'f str>,
}

/// A binding that would count if the request supplied more, and its conditions that do not hold.
pub type Conditional<'f> = (&'f RoleBinding, Vec<&'f Condition>);

impl<'f> Naive<'f> {
    /// A model of these facts.
    #[must_use]
    pub const fn new(
        catalog: &'f CatalogFacts,
        facts: &'f Facts,
        supplied: &'f Attributes,
        now: Timestamp,
    ) -> Self {
        Self { catalog, facts, supplied, now }
    }

    /// Section 5, Check: the first reason that applies, and the end of an allow. `None` if the catalog does
    /// not have the capability.
    #[must_use]
    pub fn check(
        &self,
        identity: &str,
        capability: &str,
        resource: &str,
    ) -> Option<(Reason, Option<Timestamp>)> {
        if !self.is_capability(capability) {
            return None;
        }
        let on_path: Vec<_> = self.on_path(identity, resource).collect();
        let any = |test: &dyn Fn(&RoleBinding) -> bool| on_path.iter().any(|binding| test(binding));
        let has = |binding: &RoleBinding| self.gives(binding).any(|name| name == capability);
        let timely = |binding: &RoleBinding| self.in_time(binding);
        let met = |binding: &RoleBinding| self.met(binding, resource);

        let reason = if any(&|binding| timely(binding) && met(binding) && has(binding)) {
            Reason::Granted
        } else if !self.is_known(identity) {
            Reason::UnknownIdentity
        } else if any(&|binding| !timely(binding) && met(binding) && has(binding)) {
            Reason::Expired
        } else if any(&|binding| timely(binding) && !met(binding) && has(binding)) {
            Reason::ConditionNotMet
        } else if any(&|binding| timely(binding) && met(binding)) {
            Reason::CapabilityNotInRole
        } else {
            Reason::NoBinding
        };
        let granting = on_path.iter().filter(|b| timely(b) && met(b) && has(b));
        let ends: Vec<_> = granting.map(|binding| binding.expires_at).collect();
        let latest = ends.iter().copied().flatten().max();
        Some((reason, if ends.contains(&None) { None } else { latest }))
    }

    /// Section 5, ListCapabilities: the sorted names, and every binding that counts at the resource and has a
    /// role with a capability.
    #[must_use]
    pub fn list_capabilities(
        &self,
        identity: &str,
        resource: &str,
    ) -> (Vec<String>, Vec<&'f RoleBinding>) {
        let on_path = self.on_path(identity, resource).filter(|binding| self.in_time(binding));
        let counting = on_path.filter(|binding| self.met(binding, resource));
        let counting: Vec<_> = counting.filter(|b| self.gives(b).next().is_some()).collect();
        let names: BTreeSet<_> = counting.iter().flat_map(|binding| self.gives(binding)).collect();
        (names.into_iter().map(str::to_owned).collect(), counting)
    }

    /// Section 5, ListIdentities: the sorted identities. `None` if the catalog does not have the capability.
    #[must_use]
    pub fn list_identities(&self, capability: &str, resource: &str) -> Option<Vec<&'f str>> {
        let registered = self.facts.identities.iter().map(|identity| identity.id.as_str());
        let bound = self.facts.role_bindings.iter().map(|binding| binding.identity.as_str());
        let mut granted = Vec::new();
        for identity in registered.chain(bound).collect::<BTreeSet<_>>() {
            let (reason, _) = self.check(identity, capability, resource)?;
            if reason == Reason::Granted {
                granted.push(identity);
            }
        }
        self.is_capability(capability).then_some(granted)
    }

    /// Section 5, ListScopes: the sorted scopes, and whether each depends on conditions on the resource, which
    /// are not evaluated. `None` if the catalog does not have the capability.
    #[must_use]
    pub fn list_scopes(&self, identity: &str, capability: &str) -> Option<Vec<(&'f str, bool)>> {
        let open = |test: &&Condition| test.category == AttributeCategory::Resource;
        let others_hold = |binding: &RoleBinding| {
            let mut others = binding.when.iter().filter(|test| !open(test));
            others.all(|test| self.holds(test, identity, ""))
        };
        let held = self.bindings_of(identity);
        let granting: Vec<_> = held
            .filter(|binding| self.in_time(binding) && others_hold(binding))
            .filter(|binding| self.gives(binding).any(|name| name == capability))
            .collect();
        let is_conditional = |scope: &str| {
            let mut here = granting.iter().filter(|binding| binding.scope.as_str() == scope);
            here.all(|binding| binding.when.iter().any(|test| open(&test)))
        };
        let scopes: BTreeSet<_> = granting.iter().map(|binding| binding.scope.as_str()).collect();
        let topmost = |scope: &&str| {
            let mut above = scopes.iter().filter(|a| *a != scope && is_at_or_above(a, scope));
            above.all(|above| is_conditional(above))
        };
        let listed = scopes.iter().copied().filter(topmost);
        let listed = listed.map(|scope| (scope, is_conditional(scope))).collect();
        self.is_capability(capability).then_some(listed)
    }

    /// The bindings at or above the resource with the capability that count if the request supplies more, and do not
    /// count without. `None` if the catalog does not have the capability.
    #[must_use]
    pub fn conditional(
        &self,
        identity: &str,
        capability: &str,
        resource: &str,
    ) -> Option<Vec<Conditional<'f>>> {
        let on_path = self.on_path(identity, resource).filter(|binding| self.in_time(binding));
        let has = on_path.filter(|binding| self.gives(binding).any(|name| name == capability));
        let open = has.filter_map(|binding| self.could_be_met(binding, resource));
        let open = open.filter(|(_, failing)| !failing.is_empty());
        self.is_capability(capability).then(|| open.collect())
    }

    /// The scopes of ListScopes, and those where a request that supplies more would have the capability, each with the
    /// bindings that would count then. No bindings: one counts at this scope for every resource, or the conditions of
    /// each contradict each other. `None` if the catalog does not have the capability.
    #[must_use]
    pub fn conditional_scopes(
        &self,
        identity: &str,
        capability: &str,
    ) -> Option<Vec<(&'f str, Vec<Conditional<'f>>)>> {
        let listed = self.list_scopes(identity, capability)?;
        let supplied = Attributes { resource: Properties::new(), ..self.supplied.clone() };
        let of_no_resource = Naive { supplied: &supplied, ..*self };
        let held = self.bindings_of(identity).filter(|binding| self.in_time(binding));
        let held = held.filter(|binding| self.gives(binding).any(|name| name == capability));
        let possible: Vec<_> =
            held.filter_map(|binding| of_no_resource.could_be_met(binding, "")).collect();
        let always = |at: &dyn Fn(&str) -> bool| {
            let mut at = possible.iter().filter(|(binding, _)| at(binding.scope.as_str()));
            at.any(|(_, failing)| failing.is_empty())
        };
        let mut scopes: BTreeSet<_> = listed.into_iter().map(|(scope, _)| scope).collect();
        scopes.extend(possible.iter().map(|(binding, _)| binding.scope.as_str()));
        scopes.retain(|scope| !always(&|other| other != *scope && is_at_or_above(other, scope)));
        let with_bindings = scopes.into_iter().map(|scope| {
            let is_open = !always(&|other| other == scope);
            let here = possible.iter().filter(|(it, _)| is_open && it.scope.as_str() == scope);
            (scope, here.cloned().collect())
        });
        Some(with_bindings.collect())
    }

    /// Section 5, Explain. `None` if the catalog does not have the capability.
    #[must_use]
    pub fn explain(
        &self,
        identity: &str,
        capability: &str,
        resource: &str,
    ) -> Option<NaiveExplanation<'f>> {
        let decision = self.check(identity, capability, resource)?;
        let (_, mut witnesses) = self.list_capabilities(identity, resource);
        witnesses.retain(|binding| self.gives(binding).any(|name| name == capability));
        if decision.0 == Reason::Granted {
            let (missing, roles) = Default::default();
            return Some(NaiveExplanation { decision, witnesses, missing, roles });
        }
        let built_in = self.catalog.roles.iter().map(|role| (&*role.name, &role.capabilities));
        let custom = self.facts.roles.iter().map(|role| (role.id.as_str(), &role.capabilities));
        let custom = custom.filter(|(id, _)| {
            id.rsplit_once('/').is_some_and(|(group, _)| is_at_or_above(group, resource))
        });
        let giving =
            built_in.chain(custom).filter(|(_, names)| names.iter().any(|n| n == capability));
        let mut giving: Vec<_> = giving.map(|(id, names)| (names.len(), id)).collect();
        giving.sort_unstable();
        let roles = giving.into_iter().map(|(_, id)| id).collect();
        Some(NaiveExplanation { decision, witnesses, missing: vec![capability.to_owned()], roles })
    }

    /// What the identity holds without conditions at a scope: each capability with the latest expiry of the bindings that
    /// give it now, `None` if one of them has none.
    #[must_use]
    pub fn held(&self, identity: &str, scope: &str) -> BTreeMap<&'f str, Option<Timestamp>> {
        let mut held = BTreeMap::new();
        let counting = self.on_path(identity, scope).filter(|binding| binding.when.is_empty());
        for binding in counting.filter(|binding| self.in_time(binding)) {
            for name in self.gives(binding) {
                let latest = held.entry(name).or_insert(binding.expires_at);
                *latest = latest.zip(binding.expires_at).map(|(one, other)| one.max(other));
            }
        }
        held
    }

    /// The registered identities that hold all these capabilities at a scope without end, sorted.
    #[must_use]
    pub fn holders(&self, scope: &str, wanted: &[&str]) -> Vec<&'f str> {
        let identities = self.facts.identities.iter().filter(|identity| !identity.disabled);
        let ids: BTreeSet<_> = identities.map(|identity| identity.id.as_str()).collect();
        let holds = |id: &&str| {
            let held = self.held(id, scope);
            wanted.iter().all(|name| held.get(name) == Some(&None))
        };
        ids.into_iter().filter(holds).collect()
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

    /// The last dot separates resource and action. A name without a dot is an opaque capability.
    fn is_capability(&self, name: &str) -> bool {
        let Some((resource, action)) = name.rsplit_once('.') else {
            return self.catalog.capabilities.iter().any(|opaque| opaque == name);
        };
        let mut found = self.catalog.resources.iter().filter(|found| found.name == resource);
        found.any(|found| found.actions.iter().any(|found| found == action))
    }

    /// The bindings of the identity at or above the resource.
    fn on_path(&self, identity: &str, resource: &str) -> impl Iterator<Item = &'f RoleBinding> {
        self.bindings_of(identity)
            .filter(|binding| is_at_or_above(binding.scope.as_str(), resource))
    }

    /// The bindings of the identity. Those of a disabled one do not count, so they are left out.
    fn bindings_of(&self, identity: &str) -> impl Iterator<Item = &'f RoleBinding> {
        let mut registered = self.facts.identities.iter();
        let disabled = registered.any(|one| one.id.as_str() == identity && one.disabled);
        let all = self.facts.role_bindings.iter().filter(move |_| !disabled);
        all.filter(move |binding| binding.identity.as_str() == identity)
    }

    /// The capabilities of the binding's role. The id of a custom role has a slash, the name of a built-in
    /// role has none.
    fn gives(&self, binding: &RoleBinding) -> impl Iterator<Item = &'f str> {
        let built_in = self.catalog.roles.iter().filter(|role| *role.name == *binding.role);
        let custom = self.facts.roles.iter().filter(|role| role.id.as_str() == &*binding.role);
        let names = built_in.map(|role| &role.capabilities);
        names.chain(custom.map(|role| &role.capabilities)).flatten().map(String::as_str)
    }

    /// Section 3: whether all conditions of the binding hold.
    fn met(&self, binding: &RoleBinding, resource: &str) -> bool {
        let identity = binding.identity.as_str();
        binding.when.iter().all(|test| self.holds(test, identity, resource))
    }

    /// The conditions of the binding that do not hold, if all would hold with more supplied. Supplies what the binding
    /// wants, and looks: what is registered overrides it.
    fn could_be_met<'b>(
        &self,
        binding: &'b RoleBinding,
        resource: &str,
    ) -> Option<Conditional<'b>> {
        let mut more = self.supplied.clone();
        let (equal, different): (Vec<_>, Vec<_>) =
            binding.when.iter().partition(|test| test.equals);
        for test in equal.into_iter().chain(different) {
            let supplied = match test.category {
                AttributeCategory::Subject => &mut more.subject,
                AttributeCategory::Resource => &mut more.resource,
                AttributeCategory::Action => &mut more.action,
                AttributeCategory::Context => &mut more.context,
            };
            let other = Value::String("a value that no condition names".into());
            let wanted = if test.equals { test.value.clone() } else { other };
            supplied.entry(test.name.clone()).or_insert(wanted);
        }
        let identity = binding.identity.as_str();
        let failing = binding.when.iter().filter(|test| !self.holds(test, identity, resource));
        let with_more = Naive { supplied: &more, ..*self };
        with_more.met(binding, resource).then(|| (binding, failing.collect()))
    }

    /// Section 3: a registered property overrides a supplied one, an absent attribute fails every condition,
    /// and values of different types differ.
    fn holds(&self, test: &Condition, identity: &str, resource: &str) -> bool {
        let mut identities = self.facts.identities.iter().filter(|i| i.id.as_str() == identity);
        let mut resources = self.facts.resources.iter().filter(|r| r.id.as_str() == resource);
        let (registered, supplied) = match test.category {
            AttributeCategory::Subject => {
                (identities.next().map(|found| &found.properties), &self.supplied.subject)
            }
            AttributeCategory::Resource => {
                (resources.next().map(|found| &found.properties), &self.supplied.resource)
            }
            AttributeCategory::Action => (None, &self.supplied.action),
            AttributeCategory::Context => (None, &self.supplied.context),
        };
        let registered = registered.and_then(|properties| properties.get(&test.name));
        let equal = match (registered.or(supplied.get(&test.name)), &test.value) {
            (None, _) => return false,
            (Some(Value::String(found)), Value::String(wanted)) => found == wanted,
            (Some(Value::Boolean(found)), Value::Boolean(wanted)) => found == wanted,
            (Some(Value::Integer(found)), Value::Integer(wanted)) => found == wanted,
            _ => false,
        };
        equal == test.equals
    }

    fn is_known(&self, identity: &str) -> bool {
        self.facts.identities.iter().any(|registered| registered.id.as_str() == identity)
            || self.facts.role_bindings.iter().any(|bound| bound.identity.as_str() == identity)
    }

    /// Section 3: a binding counts while `now < expires_at`.
    fn in_time(&self, binding: &RoleBinding) -> bool {
        let parts = |time: Timestamp| (time.seconds(), time.nanos());
        binding.expires_at.is_none_or(|end| parts(self.now) < parts(end))
    }
}
