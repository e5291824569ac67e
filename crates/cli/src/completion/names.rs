//! The names that a policy document, a server or a catalog has.
//!
//! A server has calls for roles, for the identities that may do something somewhere, and for the scopes at which an
//! identity may do something. So over `--addr` there are candidates for a role, for a capability (of some role), for a
//! scope behind an identity, and for an identity before a capability and a resource. No call lists all identities or
//! groups.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::Kind;
use super::line::Line;
use super::managed;
use crate::answers::Role;
use crate::audit::Document;
use crate::context;
use crate::decider::{Consistency, Decider};
use crate::iam::connection::ServerArgs;
use crate::limits::COMPLETION_CALLS_MAX;
use crate::logins::Refresh;
use crate::properties::Properties;
use crate::roles;
use capstan_policy::DOCUMENT_BYTES_MAX;

/// All names of a kind; none if they cannot be listed.
pub(super) fn of(kind: Kind, line: &Line, typed: &str) -> Vec<String> {
    if let Kind::Managed(what) = kind {
        return managed::ids(what, line, typed).unwrap_or_default();
    }
    match &line.policy {
        Some(file) => of_document(kind, file, &line.catalogs).unwrap_or_default(),
        None if line.asks_server => match of_server(kind, line) {
            Some(names) => names,
            None => of_catalog(kind, &line.catalogs).unwrap_or_default(),
        },
        None => of_catalog(kind, &line.catalogs).unwrap_or_default(),
    }
}

/// Standard input and pipes are left for the command itself.
fn of_document(kind: Kind, file: &Path, catalogs: &[String]) -> Option<Vec<String>> {
    if file.as_os_str() == "-" || !fs::metadata(file).ok()?.is_file() {
        return None;
    }
    let document = Document::load(file, catalogs, DOCUMENT_BYTES_MAX).ok()?;
    let facts = document.policy.model.facts();
    let snapshot = document.snapshot();
    Some(match kind {
        Kind::Identity => document.identities().into_iter().map(|id| id.to_string()).collect(),
        Kind::Capability => snapshot.catalog().capabilities().map(Into::into).collect(),
        Kind::Scope => {
            let groups = facts.groups.iter().map(|group| group.id.to_string());
            groups.chain(facts.resources.iter().map(|one| one.id.to_string())).collect()
        }
        Kind::Role => snapshot.roles().iter().map(|role| role.id.to_string()).collect(),
        Kind::Managed(_) => Vec::new(),
    })
}

fn of_catalog(kind: Kind, catalogs: &[String]) -> Option<Vec<String>> {
    let is_known = matches!(kind, Kind::Capability | Kind::Role);
    is_known.then(|| Some(of_roles(kind, roles::of_catalog(catalogs).ok()?.roles)))?
}

/// The names of the roles, or all their capabilities.
fn of_roles(kind: Kind, roles: Vec<Role>) -> Vec<String> {
    match kind {
        Kind::Role => roles.into_iter().map(|role| role.name).collect(),
        _ => roles.into_iter().flat_map(|role| role.capabilities).collect(),
    }
}

/// `None` if the server does not answer.
fn of_server(kind: Kind, line: &Line) -> Option<Vec<String>> {
    let threads = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    if let Some(name) = line.context.clone() {
        context::choose(name);
    }
    threads.block_on(async {
        let (addr, token_file) = (line.addr.clone(), line.token_file.clone());
        let refresh = Refresh::No;
        let server = ServerArgs { addr, token_file, refresh, ..ServerArgs::default() };
        let server = Decider::connect(server, Consistency::Any).await.ok()?;
        let none = Properties::default();
        let Line { identity, capability, resource, .. } = line;
        let names = match (kind, identity, capability, resource) {
            (Kind::Role | Kind::Capability, ..) => {
                of_roles(kind, server.list_roles().await.ok()?.roles)
            }
            (Kind::Identity, _, Some(capability), Some(resource)) => {
                let found = server.list_identities(capability, resource, &none).await.ok()?;
                let conditional = found.conditional.into_iter().map(|one| one.identity);
                found.identities.into_iter().chain(conditional).collect()
            }
            (Kind::Scope, Some(identity), capability, _) => {
                let asked = match capability {
                    Some(capability) => vec![capability.clone()],
                    None => covering(server.list_roles().await.ok()?.roles),
                };
                let mut scopes = Vec::new();
                for capability in asked {
                    let found = server.list_scopes(identity, &capability, &none).await.ok()?;
                    scopes.extend(found.scopes.into_iter().map(|scope| scope.scope));
                    scopes.extend(found.conditional.into_iter().map(|scope| scope.scope));
                }
                scopes
            }
            _ => Vec::new(),
        };
        Some(names)
    })
}

/// Few capabilities of which every role has one: whoever is bound to a role has one of them. Each is of the most roles
/// that are left. At most [`COMPLETION_CALLS_MAX`].
fn covering(mut roles: Vec<Role>) -> Vec<String> {
    let all: BTreeSet<String> = roles.iter().flat_map(|role| role.capabilities.clone()).collect();
    let mut chosen = Vec::new();
    while chosen.len() < COMPLETION_CALLS_MAX {
        let of =
            |name: &String| roles.iter().filter(|role| role.capabilities.contains(name)).count();
        let Some(best) = all.iter().max_by_key(|name| of(name)).filter(|name| of(name) > 0) else {
            break;
        };
        chosen.push(best.clone());
        roles.retain(|role| !role.capabilities.contains(best));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(capabilities: &[&str]) -> Role {
        let capabilities = capabilities.iter().map(|name| (*name).into()).collect();
        Role {
            name: String::new(),
            description: String::new(),
            family: "custom".into(),
            capabilities,
        }
    }

    #[test]
    fn few_capabilities_cover_all_roles() {
        let covers = |roles: Vec<Role>| {
            let chosen = covering(roles.clone());
            let has_one = |role: &Role| role.capabilities.iter().any(|one| chosen.contains(one));
            let all = roles.iter().all(|role| role.capabilities.is_empty() || has_one(role));
            all.then_some(chosen.len())
        };
        let few = vec![role(&["a", "b"]), role(&["b", "c"]), role(&["c"]), role(&[])];
        assert_eq!(covers(few), Some(2));
        let built_in = covers(roles::of_catalog(&[]).unwrap().roles);
        assert!(built_in.is_some_and(|count| count <= COMPLETION_CALLS_MAX), "{built_in:?}");
        let apart: Vec<_> = (0..=COMPLETION_CALLS_MAX).map(|at| role(&[&at.to_string()])).collect();
        assert_eq!(covering(apart).len(), COMPLETION_CALLS_MAX);
    }
}
