//! What no test uses: bindings, roles and routes.
//!
//! A test uses a binding if the binding could matter for its answer: the identity, a scope at or above the resource, and
//! a role with the capability. Time and conditions do not count, because a test may be about them. A role is used with one
//! of its bindings. A route is used if tests ask about each of its requirements.

use std::collections::BTreeSet;

use capstan_engine::{Path, RoleBinding};
use capstan_policy::{Expectation, Requirement, Route, Routes};
use serde::Serialize;

use crate::audit::{BindingRow, Document, count};
use crate::output;

/// What tests use, and what they do not.
#[derive(Debug, Serialize)]
pub(super) struct Coverage {
    bindings: Part<BindingRow>,
    roles: Part<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    routes: Option<Part<String>>,
}

#[derive(Debug, Serialize)]
struct Part<T> {
    used: usize,
    unused: Vec<T>,
}

impl Coverage {
    pub(super) fn new(document: &Document, routes: Option<&Routes>, asked: &[Expectation]) -> Self {
        let mut bindings = Part { used: 0, unused: Vec::new() };
        let mut used_roles = BTreeSet::new();
        for identity in document.identities() {
            for binding in document.bindings(identity) {
                let capabilities = document.capabilities(&binding.role);
                if asked.iter().any(|asked| uses(asked, &binding, &capabilities)) {
                    bindings.used += 1;
                    used_roles.insert(binding.role.to_string());
                } else {
                    bindings.unused.push(document.row(binding));
                }
            }
        }
        let custom = document.policy.model.facts().roles.iter().map(|role| role.id.to_string());
        let bound = bindings.unused.iter().map(|row| row.role().to_owned());
        let unused = custom.chain(bound).filter(|role| !used_roles.contains(role));
        let unused = unused.collect::<BTreeSet<_>>().into_iter().collect();
        let roles = Part { used: used_roles.len(), unused };
        let routes = routes.map(|table| {
            let all = table.routes.iter().filter(|route| !route.requires.is_empty());
            let (used, unused): (Vec<_>, Vec<_>) = all.partition(|route| is_used(route, asked));
            let unused = unused.into_iter().map(|route| route.name.clone()).collect();
            Part { used: used.len(), unused }
        });
        Self { bindings, roles, routes }
    }

    pub(super) fn print(&self) -> anyhow::Result<()> {
        for row in &self.bindings.unused {
            output::line(format!("no test uses the binding {row}"))?;
        }
        for role in &self.roles.unused {
            output::line(format!("no test uses the role {role}"))?;
        }
        for route in self.routes.iter().flat_map(|routes| &routes.unused) {
            output::line(format!("no test uses the route {route}"))?;
        }
        let mut parts = vec![self.bindings.of("bindings"), self.roles.of("roles")];
        parts.extend(self.routes.as_ref().map(|routes| routes.of("routes")));
        output::line(format!("coverage: {}", parts.join(", ")))
    }
}

impl<T> Part<T> {
    fn of(&self, plural: &str) -> String {
        format!("{} of {}", self.used, count(self.used + self.unused.len(), plural))
    }
}

fn uses(asked: &Expectation, binding: &RoleBinding, capabilities: &[&str]) -> bool {
    let is_above = |resource: Path<'_>| binding.scope.as_path().contains(resource);
    match asked {
        Expectation::Check { identity, capability, resource, .. } => {
            *identity == binding.identity
                && is_above(resource.as_path())
                && capabilities.contains(&capability.as_str())
        }
        Expectation::Capabilities { identity, resource, .. } => {
            *identity == binding.identity && is_above(resource.as_path())
        }
        Expectation::Identities { capability, resource, .. } => {
            is_above(resource.as_path()) && capabilities.contains(&capability.as_str())
        }
    }
}

fn is_used(route: &Route, asked: &[Expectation]) -> bool {
    let asks = |required: &Requirement| {
        asked.iter().any(|asked| match asked {
            Expectation::Check { capability, resource, .. }
            | Expectation::Identities { capability, resource, .. } => {
                *capability == required.capability && required.resource.can_be(resource.as_path())
            }
            Expectation::Capabilities { resource, .. } => {
                required.resource.can_be(resource.as_path())
            }
        })
    };
    route.requires.iter().all(asks)
}
