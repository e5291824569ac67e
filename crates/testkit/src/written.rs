//! Writes facts as documents, so that tests can compare them with the loaded documents.
//!
//! **Invariant**: any facts of a loaded document can be written and loaded again. Every text is quoted and
//! escaped to ASCII, and possibly long keys are explicit.

mod json;

pub use json::policy_in_json;

use std::fmt::Write as _;

use capstan_engine::{
    AttributeCategory, CatalogFacts, Condition, Facts, Family, Properties, Reason, Timestamp, Value,
};
use capstan_policy::{Expectation, PolicyTests, format_timestamp};

/// Writes a policy with an inline catalog.
#[must_use]
pub fn policy_document(facts_of_catalog: &CatalogFacts, facts: &Facts) -> String {
    policy(&catalog(facts_of_catalog), facts)
}

/// Writes a policy. `catalog` is a name, or the output of [`catalog`].
#[must_use]
pub fn policy(catalog: &str, facts: &Facts) -> String {
    let groups = facts.groups.iter().map(|group| {
        let (id, name) = (&group.id, quoted(&group.name));
        format!("{{id: \"{id}\", name: {name}}}")
    });
    let roles = facts.roles.iter().map(|role| {
        let (name, description) = (quoted(&role.name), quoted(&role.description));
        let (id, capabilities) = (&role.id, list(role.capabilities.iter().map(|n| quoted(n))));
        format!(
            "{{id: \"{id}\", name: {name}, description: {description}, capabilities: \
             {capabilities}}}"
        )
    });
    let identities = facts.identities.iter().map(|identity| {
        let (id, name, kind) = (&identity.id, quoted(&identity.name), quoted(&identity.kind));
        let has = properties(&identity.properties);
        let disabled = identity.disabled;
        format!(
            "{{id: \"{id}\", name: {name}, type: {kind}, properties: {has}, disabled: {disabled}}}"
        )
    });
    let bindings = facts.role_bindings.iter().map(|binding| {
        let mut text = String::from("{");
        if let Some(id) = &binding.id {
            let _ = write!(text, "id: \"{id}\", ");
        }
        if let Some(end) = binding.expires_at {
            let _ = write!(text, "expires_at: {}, ", time(end));
        }
        let (identity, role, scope) = (&binding.identity, &binding.role, &binding.scope);
        let when = list(binding.when.iter().map(condition));
        let _ = write!(text, "identity: \"{identity}\", role: \"{role}\", scope: \"{scope}\", ");
        text + &format!("when: {when}}}")
    });
    let resources = facts.resources.iter().map(|resource| {
        let (id, name, kind) = (&resource.id, quoted(&resource.name), quoted(&resource.kind));
        let has = properties(&resource.properties);
        format!("{{id: \"{id}\", name: {name}, type: {kind}, properties: {has}}}")
    });
    let (groups, roles) = (list(groups), list(roles));
    let (identities, bindings, resources) = (list(identities), list(bindings), list(resources));
    format!(
        "version: 1\ncatalog: {catalog}\ngroups: {groups}\nroles: {roles}\nidentities: \
         {identities}\nrole_bindings: {bindings}\nresources: {resources}\n"
    )
}

/// Writes a catalog in one line.
#[must_use]
pub fn catalog(facts: &CatalogFacts) -> String {
    let resources = facts.resources.iter().map(|resource| {
        let (name, purpose) = (quoted(&resource.name), quoted(&resource.purpose));
        let actions = list(resource.actions.iter().map(|name| quoted(name)));
        format!("{{name: {name}, purpose: {purpose}, actions: {actions}}}")
    });
    let roles = facts.roles.iter().map(|role| {
        let (name, description) = (quoted(&role.name), quoted(&role.description));
        let (family, owner) = (Family::as_str(role.family), role.owner);
        let capabilities = list(role.capabilities.iter().map(|name| quoted(name)));
        format!(
            "{{name: {name}, family: {family}, description: {description}, owner: {owner}, \
             capabilities: {capabilities}}}"
        )
    });
    let (name, resources, roles) = (quoted(&facts.name), list(resources), list(roles));
    let opaque = list(facts.capabilities.iter().map(|name| quoted(name)));
    format!("{{name: {name}, resources: {resources}, capabilities: {opaque}, roles: {roles}}}")
}

/// Writes a policy-test document.
#[must_use]
pub fn policy_tests(tests: &PolicyTests) -> String {
    let mut text = String::new();
    if let Some(policy) = &tests.policy {
        let _ = writeln!(text, "policy: {}", quoted(policy));
    }
    if let Some(now) = tests.now {
        let _ = writeln!(text, "now: {}", time(now));
    }
    let all = tests.tests.iter().map(|test| {
        let mut text = expectation(&test.expectation);
        if test.unknown {
            text.truncate(text.len() - 1);
            text += ", unknown: true}";
        }
        text
    });
    text + &format!("tests: {}\n", list(all))
}

fn expectation(expectation: &Expectation) -> String {
    match expectation {
        Expectation::Check { identity, capability, resource, allowed, reason } => {
            let capability = quoted(capability);
            let reason = reason.map(|reason| format!(", reason: {}", Reason::as_str(reason)));
            format!(
                "{{identity: \"{identity}\", capability: {capability}, resource: \"{resource}\", \
                 allowed: {allowed}{}}}",
                reason.unwrap_or_default()
            )
        }
        Expectation::Capabilities { identity, resource, capabilities } => {
            let all = list(capabilities.iter().map(|name| quoted(name)));
            format!("{{identity: \"{identity}\", resource: \"{resource}\", capabilities: {all}}}")
        }
        Expectation::Identities { capability, resource, identities } => {
            let (capability, all) = (quoted(capability), identities.iter());
            let all = list(all.map(|identity| quoted(identity.as_str())));
            format!("{{capability: {capability}, resource: \"{resource}\", identities: {all}}}")
        }
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = items.collect();
    format!("[{}]", items.join(", "))
}

fn properties(all: &Properties) -> String {
    let all = all.iter().map(|(name, found)| format!("? {} : {}", quoted(name), value(found)));
    let all: Vec<_> = all.collect();
    format!("{{{}}}", all.join(", "))
}

fn condition(test: &Condition) -> String {
    let attribute = quoted(&format!("{}.{}", category(test), test.name));
    let equals = if test.equals { "equals" } else { "not_equals" };
    format!("{{attribute: {attribute}, {equals}: {}}}", value(&test.value))
}

const fn category(test: &Condition) -> &'static str {
    match test.category {
        AttributeCategory::Subject => "subject",
        AttributeCategory::Resource => "resource",
        AttributeCategory::Action => "action",
        AttributeCategory::Context => "context",
    }
}

fn value(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Boolean(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
    }
}

/// Loaded times are in the years 1 to 9999, which can be formatted.
fn time(time: Timestamp) -> String {
    format_timestamp(time).unwrap_or_default()
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if (c.is_ascii_graphic() || c == ' ') && !matches!(c, '"' | '\\') {
            quoted.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(quoted, "\\u{unit:04x}");
            }
        }
    }
    quoted + "\""
}
