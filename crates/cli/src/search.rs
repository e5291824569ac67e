//! `capstan who`: which identities have a capability here? `capstan where`: at which scopes does an identity
//! have a capability?

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::answers::{ConditionalGrant, ConditionalIdentity, Identities, Scope, Scopes};
use super::completion;
use super::decider::DeciderArgs;
use super::output::{self, Format};
use super::properties::PropertyArgs;

const WHO: &str = "\
Examples:
  capstan who repo.delete acme/platform/images
  capstan who repo.delete acme/platform/images --output json
  capstan who repo.list acme --policy acme.yaml
  capstan who repo.list acme --property context.mfa=true

Who has the capability only if the request has further properties is marked, with the bindings \
and what their conditions want; one of the bindings is enough. --property says what the request \
has; then such a condition is met, or it is not. In JSON these identities are in `conditional`.";

const WHERE: &str = "\
Examples:
  capstan where alice repo.delete
  capstan where alice repo.delete --output json
  capstan where alice repo.list --policy acme.yaml

Only the topmost scopes are listed. A capability at a scope applies to everything below it. A scope \
where it depends on properties of the resource or of the request is marked, with the bindings and \
what their conditions want; one of the bindings is enough. --property says what the request has, \
except of the resource. In JSON the conditions are in `conditional`.";

const OF_THE_RESOURCE: &str = "(only resources that meet a condition)";
const OF_THE_REQUEST: &str = "(only requests that meet a condition)";

/// Who can do this here?
#[derive(Debug, clap::Args)]
#[command(after_help = WHO)]
pub(crate) struct Who {
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

/// Where can this identity do this?
#[derive(Debug, clap::Args)]
#[command(after_help = WHERE)]
pub(crate) struct Where {
    /// The path of an identity
    #[arg(add = completion::identity())]
    identity: String,

    /// A capability, such as repo.list
    #[arg(add = completion::capability())]
    capability: String,

    #[command(flatten)]
    properties: PropertyArgs,

    #[command(flatten)]
    decider: DeciderArgs,
}

impl Who {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let Self { capability, resource, .. } = &self;
        let properties = self.properties.properties()?;
        let decider = self.decider.decider().await?;
        let found = decider.list_identities(capability, resource, &properties).await?;
        match format {
            Format::Json => output::json(&found)?,
            Format::Table if found.identities.is_empty() && found.conditional.is_empty() => {
                output::line(format!("nobody can {capability} at {resource}"))?;
            }
            Format::Table => found.lines().iter().try_for_each(output::line)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Where {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let Self { identity, capability, .. } = &self;
        let properties = self.properties.properties()?;
        let decider = self.decider.decider().await?;
        let found = decider.list_scopes(identity, capability, &properties).await?;
        match format {
            Format::Json => output::json(&found)?,
            Format::Table if found.scopes.is_empty() && found.conditional.is_empty() => {
                output::line(format!("{identity} can {capability} nowhere"))?;
            }
            Format::Table => found.lines().iter().try_for_each(output::line)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Identities {
    /// Those who can, then those who can under conditions.
    fn lines(self) -> Vec<String> {
        let mut lines = self.identities;
        for ConditionalIdentity { identity, grants } in &self.conditional {
            lines.push(format!("{identity}  {OF_THE_REQUEST}"));
            lines.extend(grants.iter().map(|one| {
                format!("    role {} at {}{}", one.grant.role, one.grant.scope, one.conditions())
            }));
        }
        lines
    }
}

impl Scopes {
    /// Where it can, then where it can if the request has further properties.
    fn lines(self) -> Vec<String> {
        let conditional = self.conditional.into_iter().map(|one| (one.scope, one.grants));
        let mut conditional: BTreeMap<_, _> = conditional.collect();
        let mut lines = Vec::new();
        let with = |grants: &[ConditionalGrant]| -> Vec<String> {
            let line =
                |one: &ConditionalGrant| format!("    role {}{}", one.grant.role, one.conditions());
            grants.iter().map(line).collect()
        };
        for Scope { scope, conditional: tests_resource } in self.scopes {
            let note = if tests_resource { format!("  {OF_THE_RESOURCE}") } else { String::new() };
            lines.push(format!("{scope}{note}"));
            lines.extend(with(&conditional.remove(&scope).unwrap_or_default()));
        }
        for (scope, grants) in conditional {
            lines.push(format!("{scope}  {OF_THE_REQUEST}"));
            lines.extend(with(&grants));
        }
        lines
    }
}

impl ConditionalGrant {
    /// Its expiry, and what its open tests want, in the words of `capstan explain`.
    fn conditions(&self) -> String {
        let until = self.grant.expires_at.as_ref().map(|end| format!(", until {end}"));
        let tests: Vec<_> = self.open.iter().map(ToString::to_string).collect();
        format!("{}: {}", until.unwrap_or_default(), tests.join(" and "))
    }
}
