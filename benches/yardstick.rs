//! Two simple indexes that answer checks, for comparison with the engine.

use std::collections::HashMap;

use capstan_engine::{Model, Question};

/// A map from an identity to its scopes, each with the role's capabilities as bits. It supports no expiries,
/// conditions and reasons.
#[derive(Debug)]
pub struct Yardstick {
    capabilities: HashMap<String, u32>,
    identities: HashMap<String, Vec<(String, u128)>>,
}

impl Yardstick {
    /// Indexes the bindings of built-in roles. `None` with more than 128 capabilities.
    #[must_use]
    pub fn build(model: &Model) -> Option<Self> {
        let capabilities = capabilities(model)?;
        let roles: HashMap<&str, u128> = roles(model, &capabilities).collect();
        let mut identities: HashMap<String, Vec<(String, u128)>> = HashMap::new();
        for binding in &model.facts().role_bindings {
            let bits = roles.get(&*binding.role).copied().unwrap_or_default();
            let held = identities.entry(binding.identity.to_string()).or_default();
            held.push((binding.scope.to_string(), bits));
        }
        Some(Self { capabilities, identities })
    }

    /// Whether the identity has the capability at the resource.
    #[must_use]
    pub fn allows(&self, question: &Question<'_>) -> bool {
        let Some(capability) = self.capabilities.get(question.capability) else { return false };
        let Some(held) = self.identities.get(question.identity.as_str()) else { return false };
        let resource = question.resource.as_str();
        held.iter().any(|(scope, bits)| bits >> capability & 1 == 1 && covers(scope, resource))
    }
}

/// An index with numbers instead of texts: an identity has numbers of scopes and roles, and the text of each
/// scope is stored once. The hash function is faster.
#[derive(Debug)]
pub struct Interned {
    capabilities: HashMap<String, u32>,
    roles: Vec<u128>,
    scopes: Vec<Box<str>>,
    identities: hashbrown::HashMap<Box<str>, Box<[(u32, u32)]>>,
}

impl Interned {
    /// As [`Yardstick::build`].
    #[must_use]
    pub fn build(model: &Model) -> Option<Self> {
        let capabilities = capabilities(model)?;
        let (names, roles): (Vec<&str>, Vec<u128>) = roles(model, &capabilities).unzip();
        let (mut scopes, mut numbers) = (Vec::new(), hashbrown::HashMap::<&str, u32>::new());
        let mut held = hashbrown::HashMap::<Box<str>, Vec<(u32, u32)>>::new();
        for binding in &model.facts().role_bindings {
            let next = u32::try_from(scopes.len()).ok()?;
            let scope = *numbers.entry(binding.scope.as_str()).or_insert_with_key(|scope| {
                scopes.push((*scope).into());
                next
            });
            let role = names.iter().position(|name| **name == *binding.role)?;
            let identity = binding.identity.as_str().into();
            held.entry(identity).or_default().push((scope, u32::try_from(role).ok()?));
        }
        scopes.shrink_to_fit();
        let identities = held.into_iter().map(|(identity, held)| (identity, held.into())).collect();
        Some(Self { capabilities, roles, scopes, identities })
    }

    /// Whether the identity has the capability at the resource.
    #[must_use]
    pub fn allows(&self, question: &Question<'_>) -> bool {
        let Some(capability) = self.capabilities.get(question.capability) else { return false };
        let Some(held) = self.identities.get(question.identity.as_str()) else { return false };
        let resource = question.resource.as_str();
        held.iter().any(|(scope, role)| {
            let bits = self.roles.get(*role as usize).copied().unwrap_or_default();
            let scope = self.scopes.get(*scope as usize);
            bits >> capability & 1 == 1 && scope.is_some_and(|scope| covers(scope, resource))
        })
    }
}

/// The numbers of the capabilities. `None` if there are more than the bits of a word.
fn capabilities(model: &Model) -> Option<HashMap<String, u32>> {
    let all = model.catalog().capabilities();
    let count = all.len();
    let numbered: HashMap<String, u32> = all.map(str::to_owned).zip(0..u128::BITS).collect();
    (numbered.len() == count).then_some(numbered)
}

/// The built-in roles with their capabilities as bits.
fn roles<'m>(
    model: &'m Model,
    capabilities: &HashMap<String, u32>,
) -> impl Iterator<Item = (&'m str, u128)> {
    model.catalog().roles().iter().map(|role| {
        let bits = role.capabilities.iter().filter_map(|name| capabilities.get(name));
        (&*role.name, bits.fold(0u128, |all, bit| all | 1 << bit))
    })
}

fn covers(scope: &str, resource: &str) -> bool {
    let below = resource.strip_prefix(scope);
    below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
}
