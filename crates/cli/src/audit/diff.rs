//! `capstan policy diff`: which identities gain or lose which capability where.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use capstan_engine::{AccessChange, AccessDifference};
use capstan_policy::{DOCUMENT_BYTES_MAX, format_timestamp};
use comfy_table::{Cell, Color};
use serde::Serialize;

use super::{Document, Test};
use crate::completion;
use crate::output::{self, Format};

const EXAMPLES: &str = "\
Examples:
  capstan policy diff old.yaml new.yaml
  git show HEAD:acme.yaml | capstan policy diff - acme.yaml
  capstan policy diff old.yaml new.yaml --output json

A capability at a scope applies to everything below it. `except` names scopes below where nothing changes. \
Registered properties count: whom they rule out loses the capability. A later expiry is no loss.";

/// Shows which identities gain or lose which capability where
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Diff {
    /// The policy document before the change; `-` is standard input
    #[arg(value_name = "OLD")]
    old: PathBuf,

    /// The policy document after the change
    #[arg(value_name = "NEW")]
    new: PathBuf,

    /// Additional catalogs that the documents can name: a built-in catalog's name or a file; repeat for
    /// several
    #[arg(long, value_name = "NAME|FILE", add = completion::catalog())]
    catalog: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    gained: Vec<Change>,
    lost: Vec<Change>,
}

#[derive(Debug, Serialize)]
struct Change {
    identity: String,
    scope: String,
    capabilities: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    when: Vec<Test>,
    /// Scopes below where nothing changes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    except: Vec<String>,
}

impl Diff {
    pub(crate) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let old = Document::load(&self.old, &self.catalog, DOCUMENT_BYTES_MAX)?;
        let new = Document::load(&self.new, &self.catalog, DOCUMENT_BYTES_MAX)?;
        let both = || [&old, &new].into_iter();
        let resources = both().flat_map(|one| {
            one.policy.model.facts().resources.iter().map(|resource| resource.id.as_path())
        });
        let snapshots = (old.snapshot(), new.snapshot());
        let difference = AccessDifference::new(snapshots, new.now(), resources);
        let identities: BTreeSet<_> = both().flat_map(Document::identities).collect();
        let mut report = Report { gained: vec![], lost: vec![] };
        for identity in identities {
            let changes = difference.of(identity);
            let change = |of| Change::new(identity.as_str(), of);
            report.gained.extend(changes.gained.into_iter().map(change));
            report.lost.extend(changes.lost.into_iter().map(change));
        }
        match format {
            Format::Json => output::json(&report)?,
            Format::Table => report.print()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Change {
    fn new(identity: &str, of: AccessChange) -> Self {
        let AccessChange { scope, capabilities, expires_at, when, except } = of;
        Self {
            identity: identity.into(),
            scope,
            capabilities,
            expires_at: expires_at.and_then(format_timestamp),
            when: when.iter().map(Test::from).collect(),
            except,
        }
    }

    fn notes(&self) -> String {
        let end = self.expires_at.iter().map(|end| format!("until {end}"));
        let tests = self.when.iter().map(|test| format!("if {test}"));
        let except = self.except.iter().map(|scope| format!("except {scope}"));
        end.chain(tests).chain(except).collect::<Vec<_>>().join(", ")
    }
}

impl Report {
    fn print(&self) -> anyhow::Result<()> {
        let Self { gained, lost } = self;
        if gained.is_empty() && lost.is_empty() {
            return output::line("no identity gains or loses a capability");
        }
        let mut table = output::table(["", "identity", "scope", "capabilities", "restrictions"]);
        for (sign, colour, changes) in [("-", Color::Red, lost), ("+", Color::Green, gained)] {
            for change in changes {
                let Change { identity, scope, capabilities, .. } = change;
                let cells = [sign, identity, scope, &capabilities.join(" "), &change.notes()];
                table.add_row(cells.map(|text| Cell::new(text).fg(colour)));
            }
        }
        output::line(table)?;
        let identities = |changes: &[Change]| {
            let who: BTreeSet<_> = changes.iter().map(|change| &change.identity).collect();
            super::count(who.len(), "identities")
        };
        output::line(format!("- lost by {}", identities(lost)))?;
        output::line(format!("+ gained by {}", identities(gained)))
    }
}
