//! `capstan capabilities`: what can this identity do here?

use std::collections::BTreeMap;
use std::process::ExitCode;

use capstan_proto::v1;
use serde::Serialize;

use super::output::{self, Format};
use super::supplied::Supplied;
use super::target::Target;

const EXAMPLES: &str = "\
Examples:
  capstan capabilities alice acme/platform/web
  capstan capabilities alice acme/platform/web --output json
  capstan capabilities alice acme --policy acme.yaml";

/// What can this identity do here, and which role bindings give it?
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ListCapabilities {
    /// Who: the path of an identity
    identity: String,

    /// Where: the path of a resource or group
    resource: String,

    #[command(flatten)]
    supplied: Supplied,

    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Serialize)]
struct Answer {
    capabilities: Vec<String>,
    grants: Vec<Grant>,
    revision: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Grant {
    pub(crate) binding: String,
    pub(crate) role: String,
    pub(crate) scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<String>,
}

impl From<v1::Grant> for Grant {
    fn from(grant: v1::Grant) -> Self {
        let v1::Grant { binding, role, scope, expires_at } = grant;
        Self { binding, role, scope, expires_at: expires_at.and_then(output::time) }
    }
}

impl ListCapabilities {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let (identity, resource) = (self.identity, self.resource);
        let request = v1::ListCapabilitiesRequest {
            identity: identity.clone(),
            resource: resource.clone(),
            properties: self.supplied.into_proto()?,
            consistency: None,
        };
        let found = self.target.decider().await?.list_capabilities(request).await?;
        let answer = Answer {
            capabilities: found.capabilities,
            grants: found.grants.into_iter().map(Grant::from).collect(),
            revision: found.revision,
        };
        match format {
            Format::Json => output::json(&answer)?,
            Format::Table if answer.capabilities.is_empty() => {
                output::line(format!("{identity} can do nothing at {resource}"))?;
            }
            Format::Table => answer.print(&identity, &resource)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Answer {
    fn print(self, identity: &str, resource: &str) -> anyhow::Result<()> {
        let count = self.capabilities.len();
        output::line(format!("{identity} can do {count} things at {resource}"))?;
        let mut table = output::table(["resource", "actions"]);
        for (kind, actions) in by_resource(&self.capabilities) {
            table.add_row([kind, &actions.join(" ")]);
        }
        output::line(table)?;
        let mut table = output::table(["given by role", "at", "until"]);
        for grant in self.grants {
            table.add_row([grant.role, grant.scope, grant.expires_at.unwrap_or_default()]);
        }
        output::line(table)
    }
}

/// Capabilities as people read them: each resource once, with its actions.
pub(crate) fn by_resource(capabilities: &[String]) -> BTreeMap<&str, Vec<&str>> {
    let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in capabilities {
        let (kind, action) = name.rsplit_once('.').unwrap_or((name, ""));
        kinds.entry(kind).or_default().push(action);
    }
    kinds
}
