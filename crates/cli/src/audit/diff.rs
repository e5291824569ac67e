//! `capstan policy diff`: which identities gain or lose which capability where.
//!
//! A *right* is a capability with its restrictions: expiry and conditions. A right covers those that end no later and
//! have at least its conditions. Rights apply to everything below their scope, so only the topmost scope of a change is
//! listed.
//!
//! Registered properties decide conditions: those of an identity wherever it is bound, those of a resource at that
//! resource. So a resource whose properties change is a scope of its own, with all rights that apply to it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::process::ExitCode;

use capstan_engine::{AttributeCategory, Condition, Path, Properties, RoleBinding, Timestamp};
use capstan_policy::{DOCUMENT_BYTES_MAX, format_timestamp};
use comfy_table::{Cell, Color};
use serde::Serialize;

use super::{Document, Test, open_conditions};
use crate::completion;
use crate::output::{self, Format};

const EXAMPLES: &str = "\
Examples:
  capstan policy diff old.yaml new.yaml
  git show HEAD:acme.yaml | capstan policy diff - acme.yaml
  capstan policy diff old.yaml new.yaml --output json

A capability at a scope applies to everything below it. `except` names scopes below where nothing changes.
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

/// Restrictions of a capability: when it ends, and its conditions, sorted and each once.
type Restrictions = (Option<Timestamp>, Vec<Condition>);

/// What the bindings of an identity give.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rights {
    /// By scope, what its bindings give; at a resource of `whole`, what the bindings above it give there, too.
    scopes: BTreeMap<String, Given>,
    whole: BTreeSet<String>,
}

/// The restrictions of each capability.
type Given = BTreeMap<String, BTreeSet<Restrictions>>;

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
        let (old, new) = (Side::of(&old), Side::of(&new));
        let changed = old.changed_resources(&new);
        let identities = [&old, &new].into_iter().flat_map(|side| side.document.identities());
        let identities: BTreeSet<&str> = identities.map(Path::as_str).collect();
        let mut report = Report { gained: vec![], lost: vec![] };
        for identity in identities {
            let (before, after) =
                (old.rights(identity, &changed)?, new.rights(identity, &changed)?);
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

/// One of the two documents.
struct Side<'d> {
    document: &'d Document,
    properties: HashMap<&'d str, &'d Properties>,
}

impl<'d> Side<'d> {
    fn of(document: &'d Document) -> Self {
        Self { document, properties: document.properties() }
    }

    /// The registered resources whose properties differ between the documents. One that is not registered has none.
    fn changed_resources(&self, other: &Self) -> BTreeSet<String> {
        let none = Properties::new();
        let resources = [self, other].into_iter().flat_map(|side| {
            side.document.policy.model.facts().resources.iter().map(|one| one.id.as_str())
        });
        let changed =
            resources.filter(|id| self.registered(id, &none) != other.registered(id, &none));
        changed.map(Into::into).collect()
    }

    fn registered<'p>(&'p self, id: &str, none: &'p Properties) -> &'p Properties {
        self.properties.get(id).copied().unwrap_or(none)
    }

    fn rights(&self, identity: &str, changed: &BTreeSet<String>) -> anyhow::Result<Rights> {
        let subject = self.properties.get(identity).copied();
        let bindings = self.document.bindings(Path::parse(identity)?).into_iter();
        let is_disabled = self.document.is_disabled(identity);
        let counts = |binding: &RoleBinding| !is_disabled && self.document.in_time(binding);
        let bindings: Vec<_> = bindings.filter(counts).collect();
        let tests_resource = |binding: &RoleBinding| {
            binding.when.iter().any(|test| test.category == AttributeCategory::Resource)
        };
        let mut rights = Rights::default();
        for binding in &bindings {
            let scope = binding.scope.as_str();
            self.give(rights.scopes.entry(scope.into()).or_default(), binding, subject, None);
            if tests_resource(binding) {
                let below = changed.iter().filter(|id| *id == scope || is_above(scope, id));
                rights.whole.extend(below.cloned());
            }
        }
        for id in &rights.whole {
            let mut here = Given::new();
            let resource = self.properties.get(id.as_str()).copied();
            for binding in &bindings {
                let scope = binding.scope.as_str();
                if id == scope || is_above(scope, id) {
                    self.give(&mut here, binding, subject, resource);
                }
            }
            rights.scopes.insert(id.clone(), here);
        }
        Ok(rights)
    }

    /// Adds what a binding gives.
    fn give(
        &self,
        given: &mut Given,
        binding: &RoleBinding,
        subject: Option<&Properties>,
        resource: Option<&Properties>,
    ) {
        let Some(mut when) = open_conditions(&binding.when, subject, resource) else { return };
        when.sort();
        when.dedup();
        for name in self.document.capabilities(&binding.role) {
            let restrictions = (binding.expires_at, when.clone());
            given.entry(name.to_owned()).or_default().insert(restrictions);
        }
    }
}

/// Whether whoever has the capability with the one restrictions has it whenever the others allow it.
fn covers((end, when): &Restrictions, (other_end, other_when): &Restrictions) -> bool {
    let lasts = end.is_none_or(|end| other_end.is_some_and(|other| other <= end));
    lasts && when.iter().all(|test| other_when.contains(test))
}

impl Rights {
    /// Whether a capability is given at the scope or above it, with restrictions that cover these.
    fn has(&self, scope: &str, name: &str, restrictions: &Restrictions) -> bool {
        let ends = scope.match_indices('/').map(|(at, _)| at).chain([scope.len()]);
        let scopes = ends.filter_map(|end| scope.get(..end));
        let is_whole = self.whole.contains(scope);
        scopes
            .filter(|one| !is_whole || *one == scope)
            .filter_map(|one| self.scopes.get(one)?.get(name))
            .any(|given| given.iter().any(|one| covers(one, restrictions)))
    }
}

fn is_above(scope: &str, other: &str) -> bool {
    other.strip_prefix(scope).is_some_and(|rest| rest.starts_with('/'))
}

/// What `after` gives and `before` does not, at the topmost scopes.
fn more(identity: &str, before: &Rights, after: &Rights) -> Vec<Change> {
    let scopes: BTreeSet<&str> =
        [before, after].into_iter().flat_map(|one| one.scopes.keys()).map(String::as_str).collect();
    // The capabilities by scope, restrictions and exceptions.
    let mut changes: BTreeMap<(&str, &Restrictions, Vec<&str>), Vec<String>> = BTreeMap::new();
    for (scope, given) in &after.scopes {
        for (name, all) in given {
            for restrictions in all {
                let is_covered =
                    all.iter().any(|other| other != restrictions && covers(other, restrictions));
                let parent = scope.rsplit_once('/').map(|(parent, _)| parent);
                let is_listed_above = parent.is_some_and(|parent| {
                    after.has(parent, name, restrictions) && !before.has(parent, name, restrictions)
                });
                if before.has(scope, name, restrictions) || is_covered || is_listed_above {
                    continue;
                }
                let below = scopes.iter().filter(|other| is_above(scope, other));
                let same = below.filter(|other| before.has(other, name, restrictions));
                let same: Vec<&str> = same.copied().collect();
                let topmost =
                    same.iter().filter(|one| !same.iter().any(|other| is_above(other, one)));
                let except = topmost.copied().collect();
                changes.entry((scope, restrictions, except)).or_default().push(name.clone());
            }
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

    fn rights<'r>(given: impl IntoIterator<Item = (&'r str, &'r str, Restrictions)>) -> Rights {
        let mut rights = Rights::default();
        for (scope, name, restrictions) in given {
            let scope = rights.scopes.entry(scope.to_owned()).or_default();
            scope.entry(name.to_owned()).or_default().insert(restrictions);
        }
        rights
    }

    const FREE: Restrictions = (None, vec![]);

    #[test]
    fn only_the_topmost_scope_of_a_change_is_listed() {
        let before = rights([("a/b", "x", FREE)]);
        let after = rights([("a", "x", FREE), ("a/b", "x", FREE), ("a/c", "x", FREE)]);
        let found = more("i", &before, &after);
        assert_eq!(found.len(), 1);
        assert_eq!((&*found[0].scope, &found[0].except[..]), ("a", &["a/b".to_owned()][..]));
        assert!(more("i", &after, &before).is_empty());
    }

    #[test]
    fn a_right_covers_those_with_more_restrictions() {
        let test = |name: &str| Condition {
            category: AttributeCategory::Context,
            name: name.into(),
            equals: true,
            value: capstan_engine::Value::Boolean(true),
        };
        let end = |seconds| Some(Timestamp::new(seconds, 0));
        // Each covers those behind it.
        let chain = [
            (None, vec![]),
            (end(2), vec![]),
            (end(1), vec![]),
            (end(1), vec![test("a")]),
            (end(1), vec![test("a"), test("b")]),
        ];
        for (at, wide) in chain.iter().enumerate() {
            for narrow in &chain[at + 1..] {
                let [wide, narrow] = [wide, narrow].map(|one| rights([("a", "x", one.clone())]));
                assert!(more("i", &wide, &narrow).is_empty(), "{wide:?} {narrow:?}");
                assert_eq!(more("i", &narrow, &wide).len(), 1, "{wide:?} {narrow:?}");
            }
        }
        let other = rights([("a", "x", (None, vec![test("b")]))]);
        let one = rights([("a", "x", (None, vec![test("a")]))]);
        assert_eq!((more("i", &one, &other).len(), more("i", &other, &one).len()), (1, 1));
    }
}
