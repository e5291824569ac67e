//! The plainest index that answers a check, to be measured beside the engine: what anyone would
//! write first.

use std::collections::HashMap;

use capstan_engine::{Model, Question};

/// Identity to the scopes that it is bound at, each with the role's capabilities as bits. It knows
/// neither expiries nor conditions nor reasons.
#[derive(Debug)]
pub struct Yardstick {
    capabilities: HashMap<String, u32>,
    identities: HashMap<String, Vec<(String, u128)>>,
}

impl Yardstick {
    /// Indexes the bindings of built-in roles; nothing if there are more than 128 capabilities.
    #[must_use]
    pub fn build(model: &Model) -> Option<Self> {
        let catalog = model.catalog();
        let capabilities: HashMap<String, u32> =
            catalog.capabilities().map(str::to_owned).zip(0..u128::BITS).collect();
        if capabilities.len() < catalog.capabilities().len() {
            return None;
        }
        let bits = |names: &[String]| {
            let bits = names.iter().filter_map(|name| capabilities.get(name));
            bits.fold(0u128, |all, bit| all | 1 << bit)
        };
        let roles: HashMap<&str, u128> =
            catalog.roles().iter().map(|role| (&*role.name, bits(&role.capabilities))).collect();
        let mut identities: HashMap<String, Vec<(String, u128)>> = HashMap::new();
        for binding in &model.facts().role_bindings {
            let bits = roles.get(&*binding.role).copied().unwrap_or_default();
            let held = identities.entry(binding.identity.to_string()).or_default();
            held.push((binding.scope.to_string(), bits));
        }
        Some(Self { capabilities, identities })
    }

    /// Whether the identity may.
    #[must_use]
    pub fn allows(&self, question: &Question<'_>) -> bool {
        let Some(capability) = self.capabilities.get(question.capability) else { return false };
        let Some(held) = self.identities.get(question.identity.as_str()) else { return false };
        let resource = question.resource.as_str();
        held.iter().any(|(scope, bits)| {
            let below = resource.strip_prefix(scope.as_str());
            bits >> capability & 1 == 1
                && below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
        })
    }
}
