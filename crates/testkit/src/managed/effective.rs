//! What identities can do, computed from whole objects in the most obvious way: without code of the product that
//! decides or judges.

use capstan_engine::{AttributeCategory, Catalog, Condition, Properties, Timestamp};
use capstan_iam::{Identity, Kind, Object, RoleBinding};

use super::Managed;

/// A set of capabilities: a bit for each, in the catalog's order. A catalog has at most 128 of them here.
pub type Bits = u128;

/// The bits of names.
#[must_use]
pub fn bits<'n>(catalog: &Catalog, names: impl IntoIterator<Item = &'n str>) -> Bits {
    let bit = |name: &str| catalog.capabilities().position(|one| one == name);
    names.into_iter().filter_map(bit).fold(0, |bits, bit| bits | 1 << bit)
}

/// The names of bits.
#[must_use]
pub fn named(catalog: &Catalog, bits: Bits) -> Vec<&str> {
    let names = catalog.capabilities().enumerate();
    names.filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, name)| name).collect()
}

/// The bindings of a state, with what their roles give.
#[derive(Clone, Debug)]
pub struct Bindings<'m> {
    managed: &'m Managed,
    bindings: Vec<(&'m RoleBinding, Bits)>,
}

impl<'m> Bindings<'m> {
    /// Of a state.
    #[must_use]
    pub fn of(managed: &'m Managed) -> Self {
        let bindings = managed.objects().filter_map(|object| match object {
            Object::RoleBinding(one) => Some((one, role_bits(managed, &one.role))),
            _ => None,
        });
        Self { managed, bindings: bindings.collect() }
    }

    /// Each binding, with what its role gives.
    pub fn iter(&self) -> impl Iterator<Item = &(&'m RoleBinding, Bits)> {
        self.bindings.iter()
    }

    fn identity(&self, id: &str) -> Option<&'m Identity> {
        match self.managed.object(Kind::Identity, id) {
            Some(Object::Identity(one)) => Some(one),
            _ => None,
        }
    }

    fn counting(
        &self,
        identity: &str,
        path: &str,
        now: Timestamp,
    ) -> impl Iterator<Item = &(&'m RoleBinding, Bits)> {
        let disabled = self.identity(identity).is_some_and(|one| one.disabled);
        let above = move |scope: &str| {
            path == scope || path.strip_prefix(scope).is_some_and(|rest| rest.starts_with('/'))
        };
        self.bindings.iter().filter(move |(one, _)| {
            let in_time = match one.expires_at {
                Some(end) => now < end,
                None => true,
            };
            !disabled && one.identity.as_str() == identity && above(one.scope.as_str()) && in_time
        })
    }

    /// The capabilities of an identity at a path at a time.
    ///
    /// A condition on a registered property is compared with it. Every other condition holds: whoever asks the question
    /// supplies the rest, and an attacker may be the one. So this is the most that the identity could be allowed.
    #[must_use]
    pub fn most(&self, identity: &str, path: &str, now: Timestamp) -> Bits {
        let none = Properties::new();
        let subject = self.identity(identity).map_or(&none, |one| &one.properties);
        let resource = match self.managed.object(Kind::Resource, path) {
            Some(Object::Resource(one)) => &one.properties,
            _ => &none,
        };
        let counting = self.counting(identity, path, now);
        let holding = counting.filter(|(one, _)| can_hold(one, subject, resource));
        holding.fold(0, |bits, (_, more)| bits | more)
    }

    /// `caps(i, g)` of the rules: of the bindings without conditions.
    #[must_use]
    pub fn caps(&self, identity: &str, path: &str, now: Timestamp) -> Bits {
        let plain = self.counting(identity, path, now).filter(|(one, _)| one.when.is_empty());
        plain.fold(0, |bits, (_, more)| bits | more)
    }

    /// The owners of an organization.
    pub fn owners(&self, organization: &str) -> Vec<&'m str> {
        let catalog = self.managed.snapshot().catalog();
        let Some(owner) = catalog.roles().iter().find(|role| role.owner) else { return vec![] };
        let wanted = bits(catalog, owner.capabilities.iter().map(String::as_str));
        let mut owners: Vec<&str> = vec![];
        for (binding, _) in &self.bindings {
            let identity = binding.identity.as_str();
            let lasting = self.bindings.iter().filter(|(one, _)| {
                one.identity.as_str() == identity
                    && one.scope.as_str() == organization
                    && one.expires_at.is_none()
                    && one.when.is_empty()
            });
            let held = lasting.fold(0, |bits, (_, more)| bits | more);
            let can = self
                .identity(identity)
                .is_some_and(|one| !one.disabled && one.kind != "pull_token");
            if wanted & !held == 0 && can && !owners.contains(&identity) {
                owners.push(identity);
            }
        }
        owners
    }
}

fn can_hold(binding: &RoleBinding, subject: &Properties, resource: &Properties) -> bool {
    binding.when.iter().all(|condition| {
        let registered = match condition.category {
            AttributeCategory::Subject => subject.get(&condition.name),
            AttributeCategory::Resource => resource.get(&condition.name),
            AttributeCategory::Action | AttributeCategory::Context => None,
        };
        let Condition { equals, value, .. } = condition;
        registered.is_none_or(|registered| (registered == value) == *equals)
    })
}

/// What a role gives.
#[must_use]
pub fn role_bits(managed: &Managed, role: &str) -> Bits {
    let catalog = managed.snapshot().catalog();
    let names = match managed.object(Kind::Role, role) {
        Some(Object::Role(role)) => &role.capabilities,
        _ => match catalog.roles().iter().find(|one| one.name == role) {
            Some(role) => &role.capabilities,
            None => return 0,
        },
    };
    bits(catalog, names.iter().map(String::as_str))
}
