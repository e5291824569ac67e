//! `capstan explain`: why an identity is allowed or denied, drawn along the resource's path.

use std::process::ExitCode;

use super::answers::{Explanation, Grant};
use super::decider::{Decider, DeciderArgs};
use super::output::{self, Format};
use super::properties::PropertyArgs;
use super::queries::Query;

/// Maximum attempts to get two answers of the same revision. The policy may change between them, and
/// behind one address there may be several servers.
const ATTEMPTS_MAX: usize = 8;

const EXAMPLES: &str = "\
Examples:
  capstan explain alice repo.delete acme/platform/images
  capstan explain bob repo.delete acme/platform/images/nginx
  capstan explain bob repo.delete acme --policy acme.yaml --output json";

/// Why may this identity do this here, or what would let it?
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Explain {
    /// The path of an identity
    identity: String,

    /// A capability, such as repo.list
    capability: String,

    /// The path of a resource or group
    resource: String,

    #[command(flatten)]
    properties: PropertyArgs,

    #[command(flatten)]
    decider: DeciderArgs,
}

impl Explain {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let decider = self.decider.decider().await?;
        let query = Query {
            properties: self.properties.properties()?,
            identity: self.identity,
            capability: self.capability,
            resource: self.resource,
        };
        let found = decider.explain(&query).await?;
        if format == Format::Json {
            output::json(&found)?;
            return Ok(ExitCode::SUCCESS);
        }
        let (explanation, grants, is_complete) = with_grants(&decider, &query, found).await?;
        let word = if explanation.allowed { "allowed" } else { "denied" };
        let word = output::verdict(explanation.allowed, word);
        let Query { identity, capability, resource, .. } = &query;
        let reason = explanation.reason;
        output::line(format!("{word}  {identity} {capability} at {resource}  ({reason})\n"))?;
        for line in draw(resource, &grants, explanation.witness.as_ref()) {
            output::line(line)?;
        }
        if !is_complete {
            output::line("\nother bindings are not drawn: the policy changed between the answers")?;
        }
        if let Some(why) = why(reason) {
            output::line(format!("\n{why}"))?;
        }
        if !explanation.missing.is_empty() {
            output::line(format!("\nmissing: {}", explanation.missing.join(", ")))?;
            let roles = match explanation.roles.as_slice() {
                [] => "none".into(),
                roles => roles.join(", "),
            };
            output::line(format!("roles that would give it: {roles}"))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The explanation, the bindings to draw, and whether these are all that count on the path.
///
/// The bindings come from a second question, which must be answered at the revision of the explanation.
/// After [`ATTEMPTS_MAX`] attempts only the witness is drawn.
async fn with_grants(
    decider: &Decider,
    query: &Query,
    mut found: Explanation,
) -> anyhow::Result<(Explanation, Vec<Grant>, bool)> {
    let Query { identity, resource, properties, .. } = query;
    for attempt in 0..ATTEMPTS_MAX {
        if attempt > 0 {
            found = decider.explain(query).await?;
        }
        let listed = decider.list_capabilities(identity, resource, properties).await?;
        if listed.revision == found.revision {
            return Ok((found, listed.grants, true));
        }
    }
    let witness = found.witness.clone();
    Ok((found, witness.into_iter().collect(), false))
}

/// A sentence about a denial. The picture shows only bindings that count.
fn why(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "UNKNOWN_IDENTITY" => "the identity is neither registered nor bound anywhere",
        "EXPIRED" => "a binding on this path has it, but its time is over",
        "CONDITION_NOT_MET" => "a binding on this path has it, but its conditions do not hold here",
        "CAPABILITY_NOT_IN_ROLE" => "the roles bound on this path do not have it",
        "NO_BINDING" => "nothing that counts is bound on this path",
        _ => return None,
    })
}

/// The path of the resource as a tree, one line per segment, with the grants beside their scopes.
fn draw(resource: &str, grants: &[Grant], witness: Option<&Grant>) -> Vec<String> {
    let ends = resource.match_indices('/').map(|(at, _)| at).chain([resource.len()]);
    let paths: Vec<&str> = ends.filter_map(|end| resource.get(..end)).collect();
    let segment = |depth: usize, path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        let branch = if depth == 0 { "" } else { "└─ " };
        format!("  {}{branch}{name}", "   ".repeat(depth.saturating_sub(1)))
    };
    let width = |text: &str| text.chars().count();
    let widest = paths
        .iter()
        .enumerate()
        .map(|(depth, path)| width(&segment(depth, path)))
        .max()
        .unwrap_or(0);
    let mut lines = Vec::new();
    for (depth, path) in paths.iter().enumerate() {
        let mut left = segment(depth, path);
        let here = grants.iter().filter(|grant| grant.scope == *path);
        let mut notes: Vec<String> = here.map(|grant| note(grant, witness)).collect();
        if *path == resource {
            notes.push("← asked here".into());
        }
        if notes.is_empty() {
            lines.push(left.clone());
        }
        for note in notes {
            let pad = " ".repeat(widest - width(&left));
            lines.push(format!("{left}{pad}   {note}"));
            left = String::new();
        }
    }
    lines
}

fn note(grant: &Grant, witness: Option<&Grant>) -> String {
    let until = grant.expires_at.as_ref().map(|end| format!(", until {end}"));
    let (role, until) = (&grant.role, until.unwrap_or_default());
    match witness {
        Some(witness) if witness.binding == grant.binding => {
            format!("{} {role}{until}: grants it", output::verdict(true, "✔"))
        }
        _ => format!("· {role}{until}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(binding: &str, role: &str, scope: &str) -> Grant {
        let (binding, role, scope) = (binding.into(), role.into(), scope.into());
        Grant { binding, role, scope, expires_at: None }
    }

    #[test]
    fn the_path_is_a_tree_with_the_bindings_beside_it() {
        let grants = [grant("1", "viewer", "acme"), grant("2", "editor", "acme/platform")];
        assert_eq!(
            draw("acme/platform/web", &grants, grants.get(1)),
            [
                "  acme          · viewer",
                "  └─ platform   ✔ editor: grants it",
                "     └─ web     ← asked here",
            ]
        );
        assert_eq!(draw("acme", &[], None), ["  acme   ← asked here"]);
    }
}
