//! Writes facts as documents in JSON, with the lists in any order.

use capstan_engine::{CatalogFacts, Condition, Facts, Family, Properties};

use super::{category, list, quoted, time, value};

/// Writes a policy with an inline catalog. The lists of facts follow the catalog, rotated by so many places.
#[must_use]
pub fn policy_in_json(catalog: &CatalogFacts, facts: &Facts, rotated: usize) -> String {
    let name = |name: &str| if name.is_empty() { None } else { Some(("name", quoted(name))) };
    let groups = facts
        .groups
        .iter()
        .map(|group| object([Some(("id", quoted(group.id.as_str()))), name(&group.name)]));
    let roles = facts.roles.iter().map(|role| {
        let capabilities = list(role.capabilities.iter().map(|name| quoted(name)));
        object([
            Some(("description", quoted(&role.description))),
            Some(("capabilities", capabilities)),
            Some(("id", quoted(role.id.as_str()))),
            name(&role.name),
        ])
    });
    let identities = facts.identities.iter().map(|identity| {
        object([
            Some(("properties", properties(&identity.properties))),
            Some(("id", quoted(identity.id.as_str()))),
            Some(("type", quoted(&identity.kind))),
            identity.disabled.then(|| ("disabled", "true".to_owned())),
            name(&identity.name),
        ])
    });
    let bindings = facts.role_bindings.iter().map(|binding| {
        let when = list(binding.when.iter().map(condition));
        object([
            binding.id.as_ref().map(|id| ("id", quoted(id.as_str()))),
            Some(("identity", quoted(binding.identity.as_str()))),
            Some(("role", quoted(&binding.role))),
            Some(("scope", quoted(binding.scope.as_str()))),
            binding.expires_at.map(|end| ("expires_at", quoted(&time(end)))),
            (!binding.when.is_empty()).then_some(("when", when)),
        ])
    });
    let resources = facts.resources.iter().map(|resource| {
        object([
            Some(("id", quoted(resource.id.as_str()))),
            name(&resource.name),
            Some(("type", quoted(&resource.kind))),
            Some(("properties", properties(&resource.properties))),
        ])
    });
    let mut lists = [
        ("groups", list(groups)),
        ("roles", list(roles)),
        ("identities", list(identities)),
        ("role_bindings", list(bindings)),
        ("resources", list(resources)),
    ];
    lists.rotate_left(rotated % 5);
    let head = [("version", "1".to_owned()), ("catalog", catalog_in_json(catalog))];
    object(head.into_iter().chain(lists).map(Some))
}

fn catalog_in_json(facts: &CatalogFacts) -> String {
    let names = |names: &[String]| list(names.iter().map(|name| quoted(name)));
    let resources = facts.resources.iter().map(|resource| {
        object([
            Some(("name", quoted(&resource.name))),
            Some(("purpose", quoted(&resource.purpose))),
            Some(("actions", names(&resource.actions))),
        ])
    });
    let roles = facts.roles.iter().map(|role| {
        object([
            Some(("name", quoted(&role.name))),
            Some(("family", quoted(Family::as_str(role.family)))),
            Some(("description", quoted(&role.description))),
            Some(("owner", role.owner.to_string())),
            Some(("capabilities", names(&role.capabilities))),
        ])
    });
    object([
        Some(("name", quoted(&facts.name))),
        Some(("resources", list(resources))),
        Some(("capabilities", names(&facts.capabilities))),
        Some(("roles", list(roles))),
    ])
}

fn properties(all: &Properties) -> String {
    let all: Vec<_> = all.iter().map(|(name, found)| (quoted(name), value(found))).collect();
    let all: Vec<_> = all.iter().map(|(name, found)| format!("{name}: {found}")).collect();
    format!("{{{}}}", all.join(", "))
}

fn condition(test: &Condition) -> String {
    let attribute = quoted(&format!("{}.{}", category(test), test.name));
    let equals = if test.equals { "equals" } else { "not_equals" };
    object([Some(("attribute", attribute)), Some((equals, value(&test.value)))])
}

fn object<'k>(members: impl IntoIterator<Item = Option<(&'k str, String)>>) -> String {
    let members = members.into_iter().flatten();
    let members: Vec<_> = members.map(|(key, value)| format!("\"{key}\": {value}")).collect();
    format!("{{{}}}", members.join(", "))
}
