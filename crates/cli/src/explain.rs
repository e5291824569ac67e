//! `capstan explain`: why, drawn on the path.

use std::process::ExitCode;

use capstan_proto::v1;
use serde::Serialize;

use super::capabilities::Grant;
use super::output::{self, Format};
use super::supplied::Supplied;
use super::target::{Decider, Target};

/// How often is asked for a picture of the same revision: policies change in between, and behind one
/// address there may be several servers.
const PICTURES_MAX: usize = 8;

const EXAMPLES: &str = "\
Examples:
  capstan explain alice repo.delete acme/platform/images
  capstan explain bob repo.delete acme/platform/images/nginx
  capstan explain bob repo.delete acme --policy acme.yaml --output json";

/// Why may this identity do this here, or what would let it?
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Explain {
    /// Who: the path of an identity
    identity: String,

    /// What: a capability such as repo.list
    capability: String,

    /// Where: the path of a resource or group
    resource: String,

    #[command(flatten)]
    supplied: Supplied,

    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Serialize)]
struct Explanation {
    allowed: bool,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    witness: Option<Grant>,
    missing: Vec<String>,
    roles: Vec<String>,
    revision: u64,
}

impl Explain {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let decider = self.target.decider().await?;
        let properties = self.supplied.into_proto()?;
        let request = v1::ExplainRequest {
            identity: self.identity,
            capability: self.capability,
            resource: self.resource,
            properties: properties.clone(),
            consistency: None,
        };
        let found = decider.explain(request.clone()).await?;
        if format == Format::Json {
            output::json(&Explanation::from(found))?;
            return Ok(ExitCode::SUCCESS);
        }
        let (explanation, grants, is_whole) = with_grants(&decider, &request, found).await?;
        let word = if explanation.allowed { "allowed" } else { "denied" };
        let word = output::verdict(explanation.allowed, word);
        let v1::ExplainRequest { identity, capability, resource, .. } = &request;
        let reason = explanation.reason;
        output::line(format!("{word}  {identity} {capability} at {resource}  ({reason})\n"))?;
        for line in draw(resource, &grants, explanation.witness.as_ref()) {
            output::line(line)?;
        }
        if !is_whole {
            output::line("\nother bindings are not drawn: each answer is of another revision")?;
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

impl From<v1::ExplainResponse> for Explanation {
    fn from(found: v1::ExplainResponse) -> Self {
        Self {
            allowed: found.allowed,
            reason: found.reason().word(),
            witness: found.witness.map(Grant::from),
            missing: found.missing,
            roles: found.roles,
            revision: found.revision,
        }
    }
}

/// The picture shows every binding that counts on the path, not the witness alone; the witness alone
/// if there is no answer about the others that is of the same revision.
async fn with_grants(
    decider: &Decider,
    request: &v1::ExplainRequest,
    mut found: v1::ExplainResponse,
) -> anyhow::Result<(Explanation, Vec<Grant>, bool)> {
    let list = v1::ListCapabilitiesRequest {
        identity: request.identity.clone(),
        resource: request.resource.clone(),
        properties: request.properties.clone(),
        consistency: None,
    };
    for turn in 0..PICTURES_MAX {
        if turn > 0 {
            found = decider.explain(request.clone()).await?;
        }
        let listed = decider.list_capabilities(list.clone()).await?;
        if listed.revision == found.revision {
            let grants = listed.grants.into_iter().map(Grant::from).collect();
            return Ok((found.into(), grants, true));
        }
    }
    let witness = found.witness.clone().map(Grant::from);
    Ok((found.into(), witness.into_iter().collect(), false))
}

/// What the picture cannot show: bindings that do not count.
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

/// The path of the resource as a tree, a segment a line, with the bindings that count beside their
/// scopes.
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
