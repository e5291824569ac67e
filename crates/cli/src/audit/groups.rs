//! `capstan groups`: the tree of groups, with the role bindings at each.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Serialize;

use super::{BindingRow, DocumentArgs};
use crate::output::{self, Format};

const EXAMPLES: &str = "\
Examples:
  capstan groups --policy acme.yaml
  capstan groups --policy acme.yaml --output json

Registered resources with role bindings are in the tree too.";

/// The groups of a policy document as a tree, with their role bindings
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Groups {
    #[command(flatten)]
    document: DocumentArgs,
}

#[derive(Debug, Serialize)]
struct Listing {
    groups: Vec<Node>,
}

#[derive(Debug, Serialize)]
struct Node {
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    bindings: Vec<BindingRow>,
}

impl Groups {
    pub(crate) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let document = self.document.load()?;
        let mut bound: BTreeMap<String, Vec<BindingRow>> = BTreeMap::new();
        for id in document.identities() {
            for binding in document.bindings(id) {
                bound.entry(binding.scope.to_string()).or_default().push(document.row(binding));
            }
        }
        let facts = document.policy.model.facts();
        let groups = facts.groups.iter().map(|group| (group.id.as_str(), &group.name));
        let resources = facts.resources.iter().map(|one| (one.id.as_str(), &one.name));
        let resources = resources.filter(|(id, _)| bound.contains_key(*id));
        let mut nodes: Vec<_> = groups.chain(resources).collect();
        // Segment by segment: `a/b` is before `a-b`, as a tree is drawn.
        nodes.sort_by(|(a, _), (b, _)| a.split('/').cmp(b.split('/')));
        let nodes = nodes.into_iter().map(|(id, name)| Node {
            id: id.into(),
            name: name.clone(),
            bindings: bound.get(id).cloned().unwrap_or_default(),
        });
        let listing = Listing { groups: nodes.collect() };
        match format {
            Format::Json => output::json(&listing)?,
            Format::Table if listing.groups.is_empty() => output::line("no groups")?,
            Format::Table => {
                listing.groups.iter().flat_map(Node::lines).try_for_each(output::line)?
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Node {
    /// The group, indented by its depth, and a line for each binding.
    fn lines(&self) -> Vec<String> {
        let indent = "   ".repeat(self.id.matches('/').count());
        let segment = self.id.rsplit('/').next().unwrap_or(&self.id);
        let name = if self.name.is_empty() { String::new() } else { format!("  ({})", self.name) };
        let mut lines = vec![format!("{indent}{segment}{name}")];
        for row in &self.bindings {
            let restrictions = row.restrictions();
            let restrictions =
                if restrictions.is_empty() { restrictions } else { format!("  {restrictions}") };
            lines.push(format!("{indent}   · {} {}{restrictions}", row.role, row.identity));
        }
        lines
    }
}
