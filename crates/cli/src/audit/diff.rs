//! `capstan policy diff`: which identities gain or lose which capability where.
//!
//! A *right* is a capability with its restrictions: expiry and conditions. A right without restrictions covers those
//! with them. Rights apply to everything below their scope, so only the topmost scope of a change is listed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use capstan_engine::{Condition, Path, Timestamp};
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

A capability at a scope applies to everything below it. `except` names scopes below where nothing changes.";

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

/// Restrictions of a capability: when it ends, and its conditions.
type Restrictions = (Option<Timestamp>, Vec<Condition>);
type Right = (String, Restrictions);
type Rights = BTreeMap<String, BTreeSet<Right>>;

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
        let identities = old.identities().into_iter().chain(new.identities());
        let identities: BTreeSet<&str> = identities.map(Path::as_str).collect();
        let mut report = Report { gained: vec![], lost: vec![] };
        for identity in identities {
            let (before, after) = (rights(&old, identity)?, rights(&new, identity)?);
            if before != after {
                report.gained.extend(more(identity, &before, &after));
                report.lost.extend(more(identity, &after, &before));
            }
        }
        match format {
            Format::Json => output::json(&report)?,
            Format::Table => report.print()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What the bindings at each scope give, without what is given above.
fn rights(document: &Document, identity: &str) -> anyhow::Result<Rights> {
    let mut rights = Rights::new();
    for binding in document.bindings(Path::parse(identity)?) {
        if !document.in_time(&binding) {
            continue;
        }
        let mut when = binding.when.clone();
        when.sort();
        let restrictions = (binding.expires_at, when);
        let names = document.capabilities(&binding.role).into_iter();
        let given = names.map(|name| (name.to_owned(), restrictions.clone()));
        rights.entry(binding.scope.to_string()).or_default().extend(given);
    }
    Ok(rights)
}

/// Whether the rights give this one at the scope: the same at or above it, or one without restrictions.
fn has(rights: &Rights, scope: &str, right: &Right) -> bool {
    let free = (right.0.clone(), (None, vec![]));
    let ends = scope.match_indices('/').map(|(at, _)| at).chain([scope.len()]);
    ends.filter_map(|end| rights.get(scope.get(..end)?))
        .any(|given| given.contains(right) || given.contains(&free))
}

fn is_above(scope: &str, other: &str) -> bool {
    other.strip_prefix(scope).is_some_and(|rest| rest.starts_with('/'))
}

/// What `after` gives and `before` does not, at the topmost scopes.
fn more(identity: &str, before: &Rights, after: &Rights) -> Vec<Change> {
    let scopes: BTreeSet<&str> = before.keys().chain(after.keys()).map(String::as_str).collect();
    // The capabilities by scope, restrictions and exceptions.
    let mut changes: BTreeMap<(&str, &Restrictions, Vec<&str>), Vec<String>> = BTreeMap::new();
    for (scope, given) in after {
        for right in given {
            let free = (right.0.clone(), (None, vec![]));
            let is_covered = right.1 != free.1 && has(after, scope, &free);
            let parent = scope.rsplit_once('/').map(|(parent, _)| parent);
            let is_given_above = parent.is_some_and(|parent| has(after, parent, right));
            if has(before, scope, right) || is_covered || is_given_above {
                continue;
            }
            let below = scopes.iter().filter(|other| is_above(scope, other));
            let same = below.filter(|other| has(before, other, right));
            let same: Vec<&str> = same.copied().collect();
            let topmost = same.iter().filter(|one| !same.iter().any(|other| is_above(other, one)));
            let except = topmost.copied().collect();
            changes.entry((scope, &right.1, except)).or_default().push(right.0.clone());
        }
    }
    let changes = changes.into_iter().map(|((scope, restrictions, except), capabilities)| Change {
        identity: identity.into(),
        scope: scope.into(),
        capabilities,
        expires_at: restrictions.0.and_then(format_timestamp),
        when: restrictions.1.iter().map(Test::from).collect(),
        except: except.into_iter().map(Into::into).collect(),
    });
    changes.collect()
}

impl Change {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(given: &[(&str, &str)]) -> Rights {
        let mut rights = Rights::new();
        for (scope, name) in given {
            let right = ((*name).to_owned(), (None, vec![]));
            rights.entry((*scope).to_owned()).or_default().insert(right);
        }
        rights
    }

    #[test]
    fn only_the_topmost_scope_of_a_change_is_listed() {
        let before = rights(&[("a/b", "x")]);
        let after = rights(&[("a", "x"), ("a/b", "x"), ("a/c", "x")]);
        let found = more("i", &before, &after);
        assert_eq!(found.len(), 1);
        assert_eq!((&*found[0].scope, &found[0].except[..]), ("a", &["a/b".to_owned()][..]));
        assert!(more("i", &after, &before).is_empty());
    }

    #[test]
    fn a_right_without_restrictions_covers_one_with_them() {
        let free = rights(&[("a", "x")]);
        let mut restricted = Rights::new();
        let end = Some(Timestamp::UNIX_EPOCH);
        restricted.entry("a".into()).or_default().insert(("x".into(), (end, vec![])));
        assert!(more("i", &free, &restricted).is_empty());
        assert_eq!(more("i", &restricted, &free).len(), 1);
    }
}
