//! `capstan bindings`: who is bound to which role where.

use std::process::ExitCode;

use serde::Serialize;

use super::{BindingRow, DocumentArgs};
use crate::completion;
use crate::output::{self, Format};

const EXAMPLES: &str = "\
Examples:
  capstan bindings --policy acme.yaml
  capstan bindings --policy acme.yaml --identity alice
  capstan bindings --policy acme.yaml --scope acme/platform --output json
  capstan bindings --policy acme.yaml --role owner

Expired bindings are listed too, and marked.";

/// The role bindings of a policy document
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Bindings {
    /// Only bindings of this identity
    #[arg(long, value_name = "IDENTITY", add = completion::identity())]
    identity: Option<String>,

    /// Only bindings that are attached to this group or resource
    #[arg(long, value_name = "SCOPE", add = completion::scope())]
    scope: Option<String>,

    /// Only bindings of this role
    #[arg(long, value_name = "ROLE", add = completion::role())]
    role: Option<String>,

    #[command(flatten)]
    document: DocumentArgs,
}

#[derive(Debug, Serialize)]
struct Listing {
    bindings: Vec<BindingRow>,
}

impl Bindings {
    pub(crate) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let document = self.document.load()?;
        self.identity.iter().try_for_each(|id| document.expect_identity(id))?;
        self.scope.iter().try_for_each(|id| document.expect_scope(id))?;
        self.role.iter().try_for_each(|name| document.expect_role(name))?;
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        };
        let identities = document.identities().into_iter();
        let bindings = identities
            .filter(|id| is(&self.identity, id.as_str()))
            .flat_map(|id| document.bindings(id))
            .filter(|one| is(&self.scope, one.scope.as_str()) && is(&self.role, &one.role))
            .map(|binding| document.row(binding));
        let listing = Listing { bindings: bindings.collect() };
        match format {
            Format::Json => output::json(&listing)?,
            Format::Table if listing.bindings.is_empty() => output::line("no role bindings")?,
            Format::Table => {
                let mut table = output::table(["identity", "role", "scope", "restrictions"]);
                for row in listing.bindings {
                    let restrictions = row.restrictions();
                    table.add_row([row.identity, row.role, row.scope, restrictions]);
                }
                output::line(table)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
