//! Facts as a policy document: what was made in memory, for whoever reads files.
//!
//! **Invariant**: reading the document gives the facts again, in their order
//! (`tests/documents.rs`).

use capstan_engine::{
    CatalogFacts, Condition, Facts, Of, Properties, RoleBinding, Timestamp, Value,
};
use capstan_policy::format_timestamp;
use serde_json::{Value as Json, json};

/// The policy document, in JSON, that declares these facts and this catalog.
#[must_use]
pub fn policy_document(catalog: &CatalogFacts, facts: &Facts) -> String {
    let Facts { groups, roles, identities, role_bindings, resources } = facts;
    let groups = groups.iter().map(|group| json!({"id": group.id.as_str(), "name": group.name}));
    let roles = roles.iter().map(|role| {
        json!({
            "id": role.id.as_str(),
            "name": role.name,
            "description": role.description,
            "capabilities": role.capabilities,
        })
    });
    let identities = identities.iter().map(|identity| {
        json!({
            "id": identity.id.as_str(),
            "name": identity.name,
            "type": identity.kind,
            "properties": properties(&identity.properties),
        })
    });
    let resources = resources.iter().map(|resource| {
        json!({
            "id": resource.id.as_str(),
            "name": resource.name,
            "type": resource.kind,
            "properties": properties(&resource.properties),
        })
    });
    let document = json!({
        "version": 1,
        "catalog": catalog_document(catalog),
        "groups": groups.collect::<Json>(),
        "roles": roles.collect::<Json>(),
        "identities": identities.collect::<Json>(),
        "role_bindings": role_bindings.iter().map(role_binding).collect::<Json>(),
        "resources": resources.collect::<Json>(),
    });
    document.to_string()
}

fn catalog_document(catalog: &CatalogFacts) -> Json {
    let resources = catalog.resources.iter().map(|resource| {
        json!({
            "name": resource.name,
            "purpose": resource.purpose,
            "actions": resource.actions,
        })
    });
    let roles = catalog.roles.iter().map(|role| {
        json!({
            "name": role.name,
            "family": role.family.as_str(),
            "description": role.description,
            "owner": role.owner,
            "capabilities": role.capabilities,
        })
    });
    json!({
        "name": catalog.name,
        "resources": resources.collect::<Json>(),
        "capabilities": catalog.capabilities,
        "roles": roles.collect::<Json>(),
    })
}

fn role_binding(binding: &RoleBinding) -> Json {
    let RoleBinding { id, identity, role, scope, expires_at, when } = binding;
    let entries = [
        ("id", id.as_ref().map(|id| id.as_str().into())),
        ("identity", Some(identity.as_str().into())),
        ("role", Some((**role).into())),
        ("scope", Some(scope.as_str().into())),
        ("expires_at", expires_at.map(time)),
        ("when", Some(when.iter().map(condition).collect())),
    ];
    entries.into_iter().filter_map(|(key, value): (_, Option<Json>)| Some((key, value?))).collect()
}

fn condition(test: &Condition) -> Json {
    let of = match test.of {
        Of::Subject => "subject",
        Of::Resource => "resource",
        Of::Action => "action",
        Of::Context => "context",
    };
    let operator = if test.equals { "equals" } else { "not_equals" };
    json!({"attribute": format!("{of}.{}", test.name), operator: value(&test.value)})
}

/// Properties as JSON has them; query lines have the same.
#[must_use]
pub fn properties(properties: &Properties) -> Json {
    properties.iter().map(|(name, held)| (name.clone(), value(held))).collect()
}

/// A property's value as JSON has it.
#[must_use]
pub fn value(value: &Value) -> Json {
    match value {
        Value::String(text) => text.as_str().into(),
        Value::Boolean(value) => (*value).into(),
        Value::Integer(number) => (*number).into(),
    }
}

/// A time in RFC 3339; null, which no document may have, if RFC 3339 cannot say it.
fn time(time: Timestamp) -> Json {
    format_timestamp(time).into()
}
