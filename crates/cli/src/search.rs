//! `capstan who`: which identities have a capability here? `capstan where`: at which scopes does an identity
//! have a capability?

use std::process::ExitCode;

use super::answers::Scope;
use super::completion;
use super::decider::DeciderArgs;
use super::output::{self, Format};
use super::properties::PropertyArgs;

const WHO: &str = "\
Examples:
  capstan who repo.delete acme/platform/images
  capstan who repo.delete acme/platform/images --output json
  capstan who repo.list acme --policy acme.yaml";

const WHERE: &str = "\
Examples:
  capstan where alice repo.delete
  capstan where alice repo.delete --output json
  capstan where alice repo.list --policy acme.yaml

Only the topmost scopes are listed. A capability at a scope applies to everything below it.";

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
            Format::Table if found.identities.is_empty() => {
                output::line(format!("nobody can {capability} at {resource}"))?;
            }
            Format::Table => found.identities.iter().try_for_each(output::line)?,
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
            Format::Table if found.scopes.is_empty() => {
                output::line(format!("{identity} can {capability} nowhere"))?;
            }
            Format::Table => {
                for Scope { scope, conditional } in found.scopes {
                    let note =
                        if conditional { "  (only resources that meet a condition)" } else { "" };
                    output::line(format!("{scope}{note}"))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
