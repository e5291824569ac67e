//! `capstan capabilities`: what can this identity do here?

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};

use super::answers::Capabilities;
use super::audit::{Document, access, count};
use super::completion;
use super::decider::DeciderArgs;
use super::output::{self, Format};
use super::properties::PropertyArgs;

const EXAMPLES: &str = "\
Examples:
  capstan capabilities alice acme/platform/web
  capstan capabilities alice acme/platform/web --output json
  capstan capabilities alice acme --policy acme.yaml
  capstan capabilities alice --policy acme.yaml           everywhere, scope by scope";

/// What can this identity do here, and which role bindings give it?
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ListCapabilities {
    /// The path of an identity
    #[arg(add = completion::identity())]
    identity: String,

    /// The path of a resource or group; without one, everything that the identity may do, scope by scope, from
    /// --policy
    #[arg(add = completion::scope())]
    resource: Option<String>,

    #[command(flatten)]
    properties: PropertyArgs,

    #[command(flatten)]
    decider: DeciderArgs,
}

impl ListCapabilities {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let Self { identity, resource, .. } = &self;
        let properties = self.properties.properties()?;
        let Some(resource) = resource else {
            ensure!(
                properties.0.is_empty(),
                "--property says what a request at RESOURCE has: give RESOURCE"
            );
            let DeciderArgs { policy, catalog, max_document_bytes, .. } = &self.decider;
            let policy = policy
                .as_ref()
                .context("without RESOURCE the answer comes from a document: give --policy FILE")?;
            let document = Document::load(policy, catalog, *max_document_bytes)?;
            return access::show(&document, identity, format);
        };
        let decider = self.decider.decider().await?;
        let found = decider.list_capabilities(identity, resource, &properties).await?;
        match format {
            Format::Json => output::json(&found)?,
            Format::Table if found.capabilities.is_empty() => {
                output::line(format!("{identity} can do nothing at {resource}"))?;
            }
            Format::Table => found.print(identity, resource)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Capabilities {
    fn print(self, identity: &str, resource: &str) -> anyhow::Result<()> {
        let things = self.capabilities.len();
        let things = count(things, "things");
        output::line(format!("{identity} can do {things} at {resource}"))?;
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

/// The actions of each resource type: `repo.list` is the action `list` of the type `repo`.
pub(crate) fn by_resource(capabilities: &[String]) -> BTreeMap<&str, Vec<&str>> {
    let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in capabilities {
        let (kind, action) = name.rsplit_once('.').unwrap_or((name, ""));
        kinds.entry(kind).or_default().push(action);
    }
    kinds
}
