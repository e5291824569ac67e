//! What the audit commands share: a policy document, its bindings with their ids, and how they are shown.
//!
//! The commands read a document and ask no server: their answers come from declarations, not decisions.

pub(crate) mod access;
pub(crate) mod bindings;
pub(crate) mod catalog;
pub(crate) mod diff;
pub(crate) mod groups;
pub(crate) mod identities;

use std::collections::HashMap;
use std::path::{Path as FilePath, PathBuf};

use crate::completion;
use anyhow::bail;
use capstan_engine::{
    Condition, Path, Properties, RoleBinding, Snapshot, Timestamp, Value, did_you_mean, quote,
};
use capstan_policy::{DOCUMENT_BYTES_MAX, Policy, format_timestamp};
use capstan_server::clock::Clock;
use capstan_server::feed::source::{Source, load_catalogs};
use serde::Serialize;

/// The options that choose a document.
#[derive(Debug, clap::Args)]
pub(crate) struct DocumentArgs {
    /// The policy document; `-` is standard input
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,

    /// Additional catalogs that the policy document can name: a built-in catalog's name or a file;
    /// repeat for several
    #[arg(long, value_name = "NAME|FILE", add = completion::catalog())]
    catalog: Vec<String>,

    /// Maximum size of the policy document, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = DOCUMENT_BYTES_MAX, hide = true)]
    max_document_bytes: u64,
}

impl DocumentArgs {
    /// # Errors
    ///
    /// The document does not load.
    fn load(&self) -> anyhow::Result<Document> {
        Document::load(&self.policy, &self.catalog, self.max_document_bytes)
    }
}

/// The file of a `FILE` argument: `-` is standard input.
pub(crate) fn file(path: &FilePath) -> PathBuf {
    if path.as_os_str() == "-" { "/dev/stdin".into() } else { path.to_owned() }
}

/// A policy document, and the time of its reading.
pub(crate) struct Document {
    pub(crate) policy: Policy,
    snapshot: Snapshot,
    now: Timestamp,
}

impl Document {
    pub(crate) fn load(
        path: &FilePath,
        catalogs: &[String],
        bytes_max: u64,
    ) -> anyhow::Result<Self> {
        let policy =
            Source::File { path: file(path), bytes_max }.load(&load_catalogs(catalogs)?)?;
        let snapshot = Snapshot::build(&policy.model, 1)?;
        Ok(Self { policy, snapshot, now: Clock::System.now() })
    }

    pub(crate) const fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The time of the reading.
    pub(crate) const fn now(&self) -> Timestamp {
        self.now
    }

    /// All bindings of an identity, sorted by scope, role and id.
    pub(crate) fn bindings(&self, identity: Path<'_>) -> Vec<RoleBinding> {
        let mut bindings = self.snapshot.role_bindings(identity);
        bindings.sort_by(|a, b| (&a.scope, &a.role, &a.id).cmp(&(&b.scope, &b.role, &b.id)));
        bindings
    }

    /// The ids of all identities, declared or only bound, sorted.
    pub(crate) fn identities(&self) -> Vec<Path<'_>> {
        let model = &self.policy.model;
        let declared = model.facts().identities.iter().map(|identity| &identity.id);
        let ids = declared.chain(model.unregistered()).map(|id| id.as_path());
        let mut ids: Vec<_> = ids.collect();
        ids.sort_unstable();
        ids
    }

    /// Whether no binding of the identity counts.
    pub(crate) fn is_disabled(&self, identity: &str) -> bool {
        Path::parse(identity).is_ok_and(|identity| self.snapshot.is_disabled(identity))
    }

    pub(crate) fn in_time(&self, binding: &RoleBinding) -> bool {
        binding.expires_at.is_none_or(|end| self.now < end)
    }

    /// The registered properties of identities and resources, by id: an id is unique across both.
    pub(crate) fn properties(&self) -> HashMap<&str, &Properties> {
        let facts = self.policy.model.facts();
        let identities = facts.identities.iter().map(|one| (one.id.as_str(), &one.properties));
        let resources = facts.resources.iter().map(|one| (one.id.as_str(), &one.properties));
        identities.chain(resources).collect()
    }

    /// The names of the capabilities of a role.
    pub(crate) fn capabilities(&self, role: &str) -> Vec<&str> {
        let role = self.snapshot.roles().iter().find(|one| &*one.id == role);
        let catalog = self.snapshot.catalog();
        let names = role.into_iter().flat_map(|role| role.capabilities.iter());
        names.filter_map(|at| catalog.capability_name(at)).collect()
    }

    /// # Errors
    ///
    /// The document declares no such identity.
    pub(crate) fn expect_identity(&self, id: &str) -> anyhow::Result<()> {
        known("identity", id, || self.identities().into_iter().map(Path::as_str))
    }

    /// # Errors
    ///
    /// The document declares no such group or resource.
    fn expect_scope(&self, id: &str) -> anyhow::Result<()> {
        let facts = self.policy.model.facts();
        let groups = || facts.groups.iter().map(|group| group.id.as_str());
        known("group or resource", id, || {
            groups().chain(facts.resources.iter().map(|resource| resource.id.as_str()))
        })
    }

    /// # Errors
    ///
    /// There is no such role.
    fn expect_role(&self, name: &str) -> anyhow::Result<()> {
        known("role", name, || self.snapshot.roles().iter().map(|role| &*role.id))
    }

    pub(crate) fn row(&self, binding: RoleBinding) -> BindingRow {
        BindingRow {
            expired: !self.in_time(&binding),
            disabled: self.snapshot.is_disabled(binding.identity.as_path()),
            binding: binding.id.map(|id| id.to_string()).unwrap_or_default(),
            identity: binding.identity.to_string(),
            role: binding.role.into(),
            scope: binding.scope.to_string(),
            expires_at: binding.expires_at.and_then(format_timestamp),
            when: binding.when.iter().map(Test::from).collect(),
        }
    }
}

/// # Errors
///
/// The name is none of those known. The error suggests similar ones.
fn known<'n, N: Iterator<Item = &'n str>>(
    what: &str,
    name: &str,
    names: impl Fn() -> N,
) -> anyhow::Result<()> {
    if names().any(|known| known == name) {
        return Ok(());
    }
    bail!("the policy has no {what} {}{}", quote(name), did_you_mean(name, names()))
}

/// A role binding of a document.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BindingRow {
    binding: String,
    identity: String,
    role: String,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    expired: bool,
    /// Whether its identity is disabled, so that it does not count.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disabled: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    when: Vec<Test>,
}

impl std::fmt::Display for BindingRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { identity, role, scope, .. } = self;
        write!(f, "of {identity}: {role} at {scope}")?;
        match self.restrictions() {
            restrictions if restrictions.is_empty() => Ok(()),
            restrictions => write!(f, ", {restrictions}"),
        }
    }
}

impl BindingRow {
    pub(crate) fn role(&self) -> &str {
        &self.role
    }

    /// `until TIME`, `expired TIME`, the tests, and whether the identity is disabled.
    fn restrictions(&self) -> String {
        let word = if self.expired { "expired" } else { "until" };
        let end = self.expires_at.iter().map(|end| format!("{word} {end}"));
        let tests = self.when.iter().map(|test| format!("if {test}"));
        let disabled = self.disabled.then(|| "identity disabled".to_owned());
        end.chain(tests).chain(disabled).collect::<Vec<_>>().join(", ")
    }
}

/// A test of a binding's `when`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Test {
    attribute: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    equals: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_equals: Option<serde_json::Value>,
}

impl From<&Condition> for Test {
    fn from(condition: &Condition) -> Self {
        let value: serde_json::Value = match &condition.value {
            Value::String(text) => text.as_str().into(),
            Value::Boolean(value) => (*value).into(),
            Value::Integer(number) => (*number).into(),
        };
        let (equals, not_equals) =
            if condition.equals { (Some(value), None) } else { (None, Some(value)) };
        Self { attribute: condition.attribute(), equals, not_equals }
    }
}

impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { attribute, equals, not_equals } = self;
        match (equals, not_equals) {
            (Some(value), _) => write!(f, "{attribute} = {value}"),
            (None, Some(value)) => write!(f, "{attribute} ≠ {value}"),
            (None, None) => write!(f, "{attribute}"),
        }
    }
}

/// `1 group`, `2 groups`: the singular has one letter less, or `ies` for `y`.
pub(crate) fn count(number: usize, plural: &str) -> String {
    let singular = match plural.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        None => plural.strip_suffix('s').unwrap_or(plural).to_owned(),
    };
    if number == 1 { format!("1 {singular}") } else { format!("{number} {plural}") }
}

#[cfg(test)]
mod tests {
    #[test]
    fn one_is_singular() {
        let counted = |number, plural| super::count(number, plural);
        assert_eq!(counted(1, "groups"), "1 group");
        assert_eq!(counted(1, "identities"), "1 identity");
        assert_eq!(counted(0, "role bindings"), "0 role bindings");
        assert_eq!(counted(1, "role bindings"), "1 role binding");
    }
}
