//! What an identity can do, computed from whole objects in the most obvious way: without code of the product that
//! decides or judges.

use std::collections::BTreeSet;

use capstan_engine::{AttributeCategory, Condition, Properties, Timestamp};
use capstan_iam::{Kind, Object, RoleBinding};

use super::Managed;

/// Names of capabilities.
pub type Named = BTreeSet<String>;

/// The capabilities of an identity at a path at a time.
///
/// A condition on a registered property is compared with it. Every other condition holds: whoever asks the question
/// supplies the rest, and an attacker may be the one. So this is the most that the identity could be allowed.
#[must_use]
pub fn effective(managed: &Managed, identity: &str, path: &str, now: Timestamp) -> Named {
    let mut found = Named::new();
    let registered = match managed.object(Kind::Identity, identity) {
        Some(Object::Identity(one)) if one.disabled => return found,
        Some(Object::Identity(one)) => one.properties.clone(),
        _ => Properties::new(),
    };
    let resource = match managed.object(Kind::Resource, path) {
        Some(Object::Resource(one)) => one.properties.clone(),
        _ => Properties::new(),
    };
    for object in managed.objects() {
        let Object::RoleBinding(binding) = object else { continue };
        let is_above =
            path == binding.scope.as_str() || path.starts_with(&format!("{}/", binding.scope));
        let in_time = match binding.expires_at {
            Some(end) => now < end,
            None => true,
        };
        let is_of = binding.identity.as_str() == identity;
        if is_of && is_above && in_time && can_hold(binding, &registered, &resource) {
            found.extend(capabilities(managed, &binding.role));
        }
    }
    found
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

fn capabilities(managed: &Managed, role: &str) -> Vec<String> {
    if let Some(Object::Role(role)) = managed.object(Kind::Role, role) {
        return role.capabilities.clone();
    }
    let catalog = managed.snapshot().catalog();
    let built_in = catalog.roles().iter().find(|one| one.name == role);
    built_in.map(|role| role.capabilities.clone()).unwrap_or_default()
}
