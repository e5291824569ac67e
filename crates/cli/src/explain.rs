//! `capstan explain`: why an identity is allowed or denied, drawn along the resource's path.

use std::process::ExitCode;

use super::answers::{Explanation, Grant, Uncounted};
use super::completion;
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
    #[arg(add = completion::identity())]
    identity: String,

    /// A capability, such as repo.list
    #[arg(add = completion::capability())]
    capability: String,

    /// The path of a resource or group
    #[arg(add = completion::scope())]
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
        for line in draw(&explanation, resource, &grants) {
            output::line(line)?;
        }
        if !is_complete {
            output::line("\nother bindings are not drawn: the policy changed between the answers")?;
        }
        let why = if explanation.disabled { Some(DISABLED) } else { why(reason) };
        if let Some(why) = why {
            output::line(format!("\n{why}"))?;
        }
        explanation.details(&query).iter().try_for_each(output::line)?;
        if !explanation.missing.is_empty() {
            output::line(format!("\nmissing: {}", explanation.missing.join(", ")))?;
            output::line(explanation.advice())?;
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

impl Explanation {
    /// What is known about a denial beside its reason, one line each.
    fn details(&self, query: &Query) -> Vec<String> {
        let mut lines = Vec::new();
        for Uncounted { grant, expired, failed } in &self.uncounted {
            let Grant { binding, role, scope, expires_at } = grant;
            lines.push(format!("  binding {binding} gives role {role} at {scope}"));
            if let Some(end) = expires_at.as_ref().filter(|_| *expired) {
                lines.push(format!("    it expired at {end}"));
            }
            lines.extend(failed.iter().map(|test| format!("    {test}")));
        }
        let Query { identity, resource, .. } = query;
        match self.reason {
            "UNKNOWN_IDENTITY" if !self.similar.is_empty() => {
                lines.push(format!("did you mean {}?", self.similar.join(" or ")));
            }
            "NO_BINDING" if !self.disabled => {
                if let Some(path) = self.undeclared(resource) {
                    let hint = match self.similar.as_slice() {
                        [] => String::new(),
                        names => format!("; did you mean {}?", names.join(" or ")),
                    };
                    lines.push(format!("{path} is not declared{hint}"));
                }
                if self.elsewhere.is_empty() {
                    lines.push(format!("{identity} has no other binding that is in time"));
                } else {
                    lines.push(format!("{identity} is bound elsewhere:"));
                }
                for Grant { role, scope, expires_at, .. } in &self.elsewhere {
                    let until = expires_at.as_ref().map(|end| format!(", until {end}"));
                    lines.push(format!("  {role} at {scope}{}", until.unwrap_or_default()));
                }
            }
            _ => {}
        }
        lines
    }

    /// The first path at or above the resource that is not declared; `None` if all are, and for a disabled
    /// identity, because it does not matter.
    fn undeclared<'r>(&self, resource: &'r str) -> Option<&'r str> {
        if self.disabled {
            return None;
        }
        let rest = resource.get(self.declared.len()..)?;
        let rest = if self.declared.is_empty() { rest } else { rest.strip_prefix('/')? };
        let end = resource.len() - rest.len() + rest.find('/').unwrap_or(rest.len());
        resource.get(..end).filter(|_| !rest.is_empty())
    }

    /// The roles that would help. A role that is held, and only fails its conditions, would not.
    fn advice(&self) -> String {
        if self.disabled {
            return "no role gives it while the identity is disabled".into();
        }
        let held: Vec<&str> = match self.reason {
            "CONDITION_NOT_MET" => {
                let in_time = self.uncounted.iter().filter(|binding| !binding.expired);
                in_time.map(|binding| &*binding.grant.role).collect()
            }
            _ => vec![],
        };
        let roles: Vec<&str> =
            self.roles.iter().map(String::as_str).filter(|role| !held.contains(role)).collect();
        match (roles.as_slice(), held.as_slice()) {
            ([], []) => "roles that would give it: none".into(),
            ([], _) => "no other role would give it: the conditions must be met".into(),
            (roles, []) => format!("roles that would give it: {}", roles.join(", ")),
            (roles, _) => {
                format!(
                    "other roles that would give it without these conditions: {}",
                    roles.join(", ")
                )
            }
        }
    }
}

/// The sentence about a denial whose cause is that the identity is disabled.
const DISABLED: &str = "the identity is disabled, so none of its bindings counts";

/// A sentence about a denial. The picture shows only bindings that count.
fn why(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "UNKNOWN_IDENTITY" => "the identity is neither registered nor bound anywhere",
        "EXPIRED" => "a binding on this path has it, but its time is over",
        "CONDITION_NOT_MET" => "a binding on this path has it, but its conditions do not hold here",
        "CAPABILITY_NOT_IN_ROLE" => "the roles bound on this path do not have it",
        "NO_BINDING" => "no binding of the identity on this path counts",
        _ => return None,
    })
}

/// The path of the resource as a tree, one line per segment, with the grants beside their scopes.
fn draw(explanation: &Explanation, resource: &str, grants: &[Grant]) -> Vec<String> {
    let undeclared = match explanation.reason {
        "NO_BINDING" => explanation.undeclared(resource).map(str::len),
        _ => None,
    };
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
        let witness = explanation.witness.as_ref();
        let mut notes: Vec<String> = here.map(|grant| note(grant, witness)).collect();
        let uncounted = explanation.uncounted.iter().filter(|one| one.grant.scope == *path);
        notes.extend(uncounted.map(why_not));
        if undeclared.is_some_and(|shortest| path.len() >= shortest) {
            notes.push("? not declared".into());
        }
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

fn why_not(binding: &Uncounted) -> String {
    let Uncounted { grant, expired, failed } = binding;
    let expired = expired.then_some("expired");
    let failed = (!failed.is_empty()).then_some("condition not met");
    let causes: Vec<_> = expired.into_iter().chain(failed).collect();
    format!("{} {}: {}", output::verdict(false, "✘"), grant.role, causes.join(", "))
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
        let mut found = explanation("GRANTED", "");
        found.witness = grants.get(1).cloned();
        assert_eq!(
            draw(&found, "acme/platform/web", &grants),
            [
                "  acme          · viewer",
                "  └─ platform   ✔ editor: grants it",
                "     └─ web     ← asked here",
            ]
        );
        found.witness = None;
        assert_eq!(draw(&found, "acme", &[]), ["  acme   ← asked here"]);
        assert_eq!(
            draw(&explanation("NO_BINDING", "acme"), "acme/b", &[]),
            ["  acme", "  └─ b   ? not declared", "         ← asked here"]
        );
    }

    fn explanation(reason: &'static str, declared: &str) -> Explanation {
        Explanation {
            allowed: reason == "GRANTED",
            reason,
            witness: None,
            missing: vec![],
            roles: vec![],
            revision: 1,
            uncounted: vec![],
            elsewhere: vec![],
            declared: declared.into(),
            similar: vec![],
            disabled: false,
        }
    }

    #[test]
    fn the_first_undeclared_path_is_found() {
        let first = |declared, resource| explanation("NO_BINDING", declared).undeclared(resource);
        assert_eq!(first("acme", "acme/b/c"), Some("acme/b"));
        assert_eq!(first("acme/b/c", "acme/b/c"), None);
        assert_eq!(first("", "acme/b"), Some("acme"));
        assert_eq!(first("", "acme"), Some("acme"));
    }
}
