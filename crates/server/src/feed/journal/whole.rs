//! Changes of the policy as a whole: an import, and another catalog. Each is judged on the state before it, and is one
//! transaction with its audit record.
//!
//! **Invariants**: a document is applied wholly or not at all. What a document and the state have in common is not
//! touched. Only the operator's calls come here.

mod plan;

use std::collections::BTreeSet;
use std::sync::Arc;

use capstan_engine::{PathBuf, Snapshot, Timestamp, Writer as IndexWriter};
use capstan_iam::audit::{AuditChange, AuditRecord};
use capstan_iam::{Kind, Object, Objects as _, record};
use capstan_policy::Policy;
use capstan_store::limits::VALUE_BYTES_MAX;
use capstan_store::{Limits, Op, StoreError};

use self::plan::Plan;
use super::catalog::StoredCatalog;
use super::group::Base;
use super::load;
use super::overlay::{Overlay, ViewedObjects};
use super::quotas::{Quotas, Uncommitted};
use crate::RequestError;
use crate::feed::management::{ChangedObject, Origin};
use crate::limits::AUDIT_PRUNED_MAX;

/// What is to be changed.
pub(super) enum Whole {
    /// The policy to what a document says.
    Import(Box<Import>),
    /// The catalog.
    Catalog(SetCatalog),
}

/// A document that is loaded, and what is to be done with it.
pub(super) struct Import {
    pub(super) origin: Origin,
    pub(super) parent: Option<PathBuf>,
    pub(super) policy: Policy,
    pub(super) dry_run: bool,
    pub(super) prune: bool,
}

/// A catalog that is loaded.
pub(super) struct SetCatalog {
    pub(super) origin: Origin,
    pub(super) catalog: StoredCatalog,
    /// The field of the request that says the catalog.
    pub(super) field: &'static str,
    pub(super) dry_run: bool,
}

/// What was changed, or would be.
#[derive(Debug)]
pub(super) struct Replaced {
    /// The state before it, and the one after it.
    pub(super) states: (Snapshot, Snapshot),
    pub(super) changes: Vec<ChangedObject>,
    /// Whose access may have changed.
    pub(super) concerned: Concerned,
    /// Resources whose properties may have changed.
    pub(super) resources: BTreeSet<PathBuf>,
    /// The revision of the change; the one before it if nothing was changed.
    pub(super) revision: u64,
}

/// Identities whose access may have changed.
#[derive(Debug)]
pub(super) enum Concerned {
    /// Any: a role or a resource that anybody may be bound at has changed.
    All,
    /// These.
    These(BTreeSet<PathBuf>),
}

/// What a change of the whole policy does to the store.
pub(super) struct WholeChange {
    pub(super) ops: Vec<Op>,
    pub(super) record: AuditRecord,
    pub(super) snapshot: Snapshot,
    pub(super) counts: Uncommitted,
}

/// A change that is judged. Without a `change` nothing is to be written.
pub(super) struct Judged {
    pub(super) replaced: Replaced,
    pub(super) change: Option<WholeChange>,
}

impl Whole {
    /// Whether only the difference is wanted.
    pub(super) const fn is_rehearsal(&self) -> bool {
        match self {
            Self::Import(import) => import.dry_run,
            Self::Catalog(change) => change.dry_run,
        }
    }

    /// Judges a change on the state before it. Identities have no keys of their own for the reserved issuers (R8).
    pub(super) fn judge(
        self,
        base: &Base,
        now: Timestamp,
        reserved_issuers: &[String],
    ) -> Result<Judged, RequestError> {
        match self {
            Self::Import(import) => import.judge(base, now, reserved_issuers),
            Self::Catalog(change) => change.judge(base, now),
        }
    }
}

impl Import {
    fn judge(
        self,
        base: &Base,
        now: Timestamp,
        reserved_issuers: &[String],
    ) -> Result<Judged, RequestError> {
        let before = &base.snapshot;
        let (ours, theirs) = (before.catalog(), self.policy.model.catalog());
        if ours.facts() != theirs.facts() {
            let problem = format!(
                "the document has the catalog `{}`, and the store `{}`: change the document, or the catalog of the \
                 store with `capstan catalog set`",
                theirs.name(),
                ours.name()
            );
            return Err(RequestError::field("chunk", problem));
        }
        let revision = base.head().revision().saturating_add(1);
        let state = Overlay::new(Arc::clone(&base.view));
        let about = self.parent.as_ref().map(|parent| (parent, self.prune));
        let plan =
            Plan::of((&self.policy, reserved_issuers), (before, &state), about, (revision, now))?;
        drop(self.policy);
        let Plan { changes, mut ops, engine, audited, concerned, resources } = plan;
        require_fitting(&ops, &Limits::default())?;
        let mut index = IndexWriter::new(before);
        let prunes = self.parent.is_some() && self.prune;
        index.apply(engine.into_changes()).map_err(|refused| {
            let mut problem =
                format!("the document does not fit to what is there: {}", refused.error);
            if prunes {
                problem +=
                    "; no document has or deletes pull tokens: revoke those in what it lacks first";
            }
            RequestError::field("chunk", problem)
        })?;
        let is_same = changes.is_empty();
        let after =
            if is_same { before.clone() } else { Snapshot::clone(&index.publish(revision)) };
        drop(index);
        let states = (before.clone(), after.clone());
        let replaced =
            |changes, revision| Replaced { states, changes, concerned, resources, revision };
        if is_same || self.dry_run {
            let replaced = replaced(changes, base.head().revision());
            return Ok(Judged { replaced, change: None });
        }
        let (counts, forgotten) = Quotas::import(&changes, &state).map_err(unreadable)?;
        ops.extend(forgotten);
        let object = self.parent.map(|parent| parent.to_string()).unwrap_or_default();
        let mut record = AuditRecord::of_whole(
            self.origin.method,
            &self.origin.audited(),
            (revision, now),
            &object,
        );
        if audited.len() < changes.len() {
            record.changes_count = changes.len() as u64;
        }
        record.changes = audited;
        let change = WholeChange { ops, record, snapshot: after, counts };
        Ok(Judged { replaced: replaced(changes, revision), change: Some(change) })
    }
}

impl SetCatalog {
    fn judge(self, base: &Base, now: Timestamp) -> Result<Judged, RequestError> {
        let (before, catalog) = (&base.snapshot, self.catalog.catalog());
        let is_same = before.catalog().facts() == catalog.facts();
        let revision = base.head().revision().saturating_add(1);
        let after = if is_same {
            before.clone()
        } else {
            self.require_all_in_use(base)?;
            let loaded = load::load_under(&base.view, Arc::clone(catalog), revision);
            loaded.map_err(|error| RequestError::field(self.field, format!("{error:#}")))?.snapshot
        };
        let replaced = |revision| Replaced {
            states: (before.clone(), after.clone()),
            changes: vec![],
            concerned: Concerned::All,
            resources: BTreeSet::new(),
            revision,
        };
        if is_same || self.dry_run {
            return Ok(Judged { replaced: replaced(base.head().revision()), change: None });
        }
        let origin = self.origin.audited();
        let mut record = AuditRecord::of_whole(self.origin.method, &origin, (revision, now), "");
        let op = self.catalog.op();
        let Op::Put { key, value } = &op else { return Err(RequestError::Unreadable) };
        let kept = base.view.get(key).map_err(unreadable)?;
        record.changes = vec![AuditChange {
            key: key.to_vec(),
            before: kept.map(|kept| kept.to_vec()),
            after: Some(value.to_vec()),
        }];
        let replaced = replaced(revision);
        let (ops, counts) = (vec![op], Uncommitted::default());
        let change = WholeChange { ops, record, snapshot: after, counts };
        Ok(Judged { replaced, change: Some(change) })
    }

    /// Refuses a catalog that lacks a role that is bound or promised, or a capability of a custom role.
    fn require_all_in_use(&self, base: &Base) -> Result<(), RequestError> {
        let (snapshot, catalog) = (&base.snapshot, self.catalog.catalog());
        let has_role = |name: &str| catalog.roles().iter().any(|role| role.name == name);
        let is_bound = |name: &str| snapshot.role_bindings_len(name).is_some_and(|len| len > 0);
        let objects = ViewedObjects(Arc::clone(&base.view));
        let mut lacking: BTreeSet<String> = BTreeSet::new();
        for role in snapshot.catalog().roles() {
            let name = &*role.name;
            if !has_role(name) && (is_bound(name) || objects.is_promised(name)?) {
                lacking.insert(format!("role `{name}`"));
            }
        }
        objects.below(Kind::Role, None, &mut |object| {
            if let Object::Role(role) = object {
                let unknown = role.capabilities.iter();
                let unknown = unknown.filter(|name| catalog.capability(name).is_none());
                lacking.extend(unknown.map(|name| format!("capability `{name}` of `{}`", role.id)));
            }
            true
        })?;
        if lacking.is_empty() {
            return Ok(());
        }
        let named: Vec<_> = lacking.iter().take(LACKING_NAMED).map(String::as_str).collect();
        let more = match lacking.len().saturating_sub(named.len()) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let problem = format!(
            "catalog `{}` lacks what is in use: {}{more}; delete or change what uses it first",
            catalog.name(),
            named.join(", ")
        );
        Err(RequestError::field(self.field, problem))
    }
}

/// What a new catalog lacks is named up to this number.
const LACKING_NAMED: usize = 20;

/// What the store takes of an import: a commit has an audit record and some operations beside it.
const BESIDE_BYTES: u64 = 2 * capstan_iam::limits::AUDIT_CHANGES_BYTES_MAX as u64;
const BESIDE_OPS: usize = 4 * AUDIT_PRUNED_MAX;

/// Refuses an import that is too much for one commit of the store.
fn require_fitting(ops: &[Op], limits: &Limits) -> Result<(), RequestError> {
    let ops_max = limits.batch_ops_max.saturating_sub(BESIDE_OPS);
    let bytes_max = limits.batch_bytes_max.saturating_sub(BESIDE_BYTES);
    let bytes: u64 = ops.iter().map(Op::bytes).sum();
    if ops.len() > ops_max || bytes > bytes_max {
        return Err(RequestError::TooLarge(format!(
            "the import changes {} objects of {bytes} bytes, and one change of the store has at most {ops_max} of \
             {bytes_max} bytes: divide the document, such as by organizations",
            ops.len()
        )));
    }
    let length = |op: &Op| if let Op::Put { value, .. } = op { value.len() } else { 0 };
    let Some(long) = ops.iter().find(|op| length(op) > VALUE_BYTES_MAX) else { return Ok(()) };
    let id = record::parse_key(long.key()).map(|(_, id)| id.to_string()).unwrap_or_default();
    Err(RequestError::TooLarge(format!(
        "`{id}` has {} bytes, and an object of the store at most {VALUE_BYTES_MAX}",
        length(long)
    )))
}

#[expect(clippy::needless_pass_by_value, reason = "an argument of map_err")]
fn unreadable(error: StoreError) -> RequestError {
    tracing::error!(%error, "the store cannot be read");
    RequestError::Unreadable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_that_one_commit_does_not_take_is_refused_with_numbers() {
        let put = |bytes: usize| Op::Put {
            key: record::key(Kind::Group, "acme".parse::<PathBuf>().unwrap().as_path()).into(),
            value: vec![0; bytes].into(),
        };
        let fits = |ops: &[Op], more_ops: usize, more_bytes: u64| {
            let limits = Limits {
                batch_ops_max: BESIDE_OPS + more_ops,
                batch_bytes_max: BESIDE_BYTES + more_bytes,
                ..Limits::default()
            };
            require_fitting(ops, &limits).map_err(|error| error.to_string())
        };
        let two = [put(100), put(100)];
        let bytes: u64 = two.iter().map(Op::bytes).sum();
        assert_eq!(fits(&two, 2, bytes), Ok(()));
        for refused in [fits(&two, 1, bytes), fits(&two, 2, bytes - 1)] {
            let error = refused.unwrap_err();
            assert!(error.contains("2 objects of 210 bytes"), "{error}");
        }
        assert_eq!(fits(&[put(VALUE_BYTES_MAX)], 2, u64::MAX / 2), Ok(()));
        let error = fits(&[put(VALUE_BYTES_MAX + 1)], 2, u64::MAX / 2).unwrap_err();
        assert!(error.contains("`acme` has 16777217 bytes"), "{error}");
    }
}
