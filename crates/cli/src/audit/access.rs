//! `capstan capabilities IDENTITY --policy FILE`: everything that an identity may do, scope by scope.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use capstan_engine::{Path, open_conditions};
use serde::Serialize;

use super::{BindingRow, Document};
use crate::capabilities::by_resource;
use crate::output::{self, Format};

#[derive(Debug, Serialize)]
struct Access {
    identity: String,
    scopes: Vec<Scope>,
}

/// What the bindings at one scope give, there and below it.
#[derive(Debug, Serialize)]
struct Scope {
    scope: String,
    /// What is given without a condition.
    capabilities: BTreeSet<String>,
    /// What is given only if a condition holds.
    conditional: BTreeSet<String>,
    bindings: Vec<BindingRow>,
}

/// Prints what the bindings of the identity give that have not expired, and whose conditions can hold: a registered
/// property of the identity may rule them out, or meet them.
///
/// # Errors
///
/// The document has no such identity.
pub(crate) fn show(
    document: &Document,
    identity: &str,
    format: Format,
) -> anyhow::Result<ExitCode> {
    document.expect_identity(identity)?;
    let mut scopes: BTreeMap<String, Scope> = BTreeMap::new();
    let is_disabled = document.is_disabled(identity);
    let subject = document.properties().get(identity).copied();
    let mut never_hold = false;
    for binding in document.bindings(Path::parse(identity)?) {
        if is_disabled || !document.in_time(&binding) {
            continue;
        }
        let Some(open) = open_conditions(&binding.when, subject, None) else {
            never_hold = true;
            continue;
        };
        let id = binding.scope.to_string();
        let scope = scopes.entry(id.clone()).or_insert_with(|| Scope {
            scope: id,
            capabilities: BTreeSet::new(),
            conditional: BTreeSet::new(),
            bindings: vec![],
        });
        let names = document.capabilities(&binding.role).into_iter().map(String::from);
        let into = if open.is_empty() { &mut scope.capabilities } else { &mut scope.conditional };
        into.extend(names);
        scope.bindings.push(document.row(binding));
    }
    for scope in scopes.values_mut() {
        let Scope { capabilities, conditional, .. } = scope;
        conditional.retain(|name| !capabilities.contains(name));
    }
    let access = Access { identity: identity.into(), scopes: scopes.into_values().collect() };
    match format {
        Format::Json => output::json(&access)?,
        Format::Table if is_disabled => {
            output::line(format!("{identity} can do nothing: it is disabled"))?;
        }
        Format::Table if access.scopes.is_empty() => {
            let conditions = if never_hold { " with conditions that can hold" } else { "" };
            output::line(format!("{identity} can do nothing: no binding is in time{conditions}"))?;
        }
        Format::Table => access.print()?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Access {
    fn print(self) -> anyhow::Result<()> {
        output::line(format!(
            "{} can do this, at each scope and everything below it",
            self.identity
        ))?;
        for scope in self.scopes {
            output::line(format!("\n{}", scope.scope))?;
            for row in &scope.bindings {
                output::line(format!("  · {} {}", row.role, row.restrictions()).trim_end())?;
            }
            let mut table = output::table(["resource", "actions", "condition"]);
            for (names, note) in [(scope.capabilities, ""), (scope.conditional, "if it holds")] {
                let names: Vec<_> = names.into_iter().collect();
                for (kind, actions) in by_resource(&names) {
                    table.add_row([kind, &actions.join(" "), note]);
                }
            }
            output::line(table)?;
        }
        Ok(())
    }
}
