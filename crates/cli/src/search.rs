//! `capstan who` and `capstan where`: the questions behind the question.

use std::process::ExitCode;

use capstan_proto::v1;
use serde::Serialize;

use super::output::{self, Format};
use super::supplied::Supplied;
use super::target::Target;

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

Only the topmost scopes are listed: what holds at one holds at everything below it.";

/// Who can do this here?
#[derive(Debug, clap::Args)]
#[command(after_help = WHO)]
pub(crate) struct Who {
    /// What: a capability such as repo.list
    capability: String,

    /// Where: the path of a resource or group
    resource: String,

    #[command(flatten)]
    supplied: Supplied,

    #[command(flatten)]
    target: Target,
}

/// Where can this identity do this?
#[derive(Debug, clap::Args)]
#[command(after_help = WHERE)]
pub(crate) struct Where {
    /// Who: the path of an identity
    identity: String,

    /// What: a capability such as repo.list
    capability: String,

    #[command(flatten)]
    supplied: Supplied,

    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Serialize)]
struct Identities {
    identities: Vec<String>,
    revision: u64,
}

#[derive(Debug, Serialize)]
struct Scopes {
    scopes: Vec<Scope>,
    revision: u64,
}

#[derive(Debug, Serialize)]
struct Scope {
    scope: String,
    conditional: bool,
}

impl Who {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let request = v1::ListIdentitiesRequest {
            capability: self.capability,
            resource: self.resource,
            properties: self.supplied.into_proto()?,
            ..Default::default()
        };
        let (capability, resource) = (request.capability.clone(), request.resource.clone());
        let found = self.target.decider().await?.list_identities(request).await?;
        let v1::ListIdentitiesResponse { identities, revision, .. } = found;
        match format {
            Format::Json => output::json(&Identities { identities, revision })?,
            Format::Table if identities.is_empty() => {
                output::line(format!("nobody can {capability} at {resource}"))?;
            }
            Format::Table => identities.iter().try_for_each(output::line)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Where {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let request = v1::ListScopesRequest {
            identity: self.identity,
            capability: self.capability,
            properties: self.supplied.into_proto()?,
            ..Default::default()
        };
        let (identity, capability) = (request.identity.clone(), request.capability.clone());
        let found = self.target.decider().await?.list_scopes(request).await?;
        let scopes = found.scopes.into_iter();
        let scopes: Vec<_> =
            scopes.map(|one| Scope { scope: one.scope, conditional: one.conditional }).collect();
        match format {
            Format::Json => output::json(&Scopes { scopes, revision: found.revision })?,
            Format::Table if scopes.is_empty() => {
                output::line(format!("{identity} can {capability} nowhere"))?;
            }
            Format::Table => {
                for Scope { scope, conditional } in scopes {
                    let which =
                        if conditional { "  (only resources that meet a condition)" } else { "" };
                    output::line(format!("{scope}{which}"))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
