//! Which capabilities an identity gains or loses where, between two snapshots.
//!
//! A *right* is a capability with its restrictions: expiry and conditions. A right covers those that end no later and
//! have at least its conditions. Rights apply to everything below their scope, so only the topmost scope of a change is
//! listed.
//!
//! Registered properties decide conditions: those of an identity wherever it is bound, those of a resource at that
//! resource. So a resource whose properties change is a scope of its own, with all rights that apply to it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{AttributeCategory, Condition, Path, Properties, RoleBinding, Snapshot, Timestamp};

/// Capabilities that an identity gains or loses at a scope and everything below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessChange {
    /// The path of the group or resource.
    pub scope: String,
    /// The names of the capabilities, sorted.
    pub capabilities: Vec<String>,
    /// They are had while `now < expires_at`; for ever without one.
    pub expires_at: Option<Timestamp>,
    /// They are had only if all of these hold. Sorted, each once.
    pub when: Vec<Condition>,
    /// Scopes below where nothing changes, sorted.
    pub except: Vec<String>,
}

/// What an identity gains, and what it loses, by scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessChanges {
    /// What it has after the change only.
    pub gained: Vec<AccessChange>,
    /// What it had before the change only.
    pub lost: Vec<AccessChange>,
}

/// Compares what identities may do in two snapshots.
#[derive(Debug)]
pub struct AccessDifference<'s> {
    old: &'s Snapshot,
    new: &'s Snapshot,
    now: Timestamp,
    /// Resources whose registered properties differ.
    changed: BTreeSet<String>,
}

impl<'s> AccessDifference<'s> {
    /// Compares two snapshots at a time. `resources` are those whose properties may differ.
    pub fn new<'r>(
        (old, new): (&'s Snapshot, &'s Snapshot),
        now: Timestamp,
        resources: impl IntoIterator<Item = Path<'r>>,
    ) -> Self {
        let none = Properties::new();
        let differs = |id: &Path<'r>| {
            let [old, new] = [old, new].map(|one| one.resource_properties(*id).unwrap_or(&none));
            old != new
        };
        let changed = resources.into_iter().filter(differs).map(|id| id.to_string()).collect();
        Self { old, new, now, changed }
    }

    /// What one identity gains and loses. Costs its bindings, and those that test a property of a resource once more for
    /// each changed resource below them.
    #[must_use]
    pub fn of(&self, identity: Path<'_>) -> AccessChanges {
        let [before, after] = [self.old, self.new]
            .map(|snapshot| Side { snapshot, now: self.now }.rights(identity, &self.changed));
        if before == after {
            return AccessChanges::default();
        }
        AccessChanges { gained: more(&before, &after), lost: more(&after, &before) }
    }
}

/// The conditions that registered properties leave open. `None` if the conditions never hold, whatever a request
/// supplies: a registered property fails one of them, or two of them contradict each other.
#[must_use]
pub fn open_conditions(
    when: &[Condition],
    subject: Option<&Properties>,
    resource: Option<&Properties>,
) -> Option<Vec<Condition>> {
    let mut open = Vec::new();
    for condition in when {
        let registered = match condition.category {
            AttributeCategory::Subject => subject,
            AttributeCategory::Resource => resource,
            AttributeCategory::Action | AttributeCategory::Context => None,
        };
        match registered.and_then(|properties| properties.get(&condition.name)) {
            Some(seen) if !condition.accepts(Some(seen)) => return None,
            Some(_) => {}
            None if open.iter().any(|other: &Condition| other.contradicts(condition)) => {
                return None;
            }
            None => open.push(condition.clone()),
        }
    }
    Some(open)
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

/// One of the two snapshots.
struct Side<'s> {
    snapshot: &'s Snapshot,
    now: Timestamp,
}

impl Side<'_> {
    fn rights(&self, identity: Path<'_>, changed: &BTreeSet<String>) -> Rights {
        let mut rights = Rights::default();
        if self.snapshot.is_disabled(identity) {
            return rights;
        }
        let subject = self.snapshot.identity_properties(identity);
        let mut bindings = self.snapshot.role_bindings(identity);
        bindings.retain(|binding| binding.expires_at.is_none_or(|end| self.now < end));
        let tests_resource = |binding: &RoleBinding| {
            binding.when.iter().any(|test| test.category == AttributeCategory::Resource)
        };
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
            let resource = Path::parse(id).ok();
            let resource = resource.and_then(|id| self.snapshot.resource_properties(id));
            for binding in &bindings {
                let scope = binding.scope.as_str();
                if id == scope || is_above(scope, id) {
                    self.give(&mut here, binding, subject, resource);
                }
            }
            rights.scopes.insert(id.clone(), here);
        }
        rights
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
        let catalog = self.snapshot.catalog();
        let role = self.snapshot.role(&binding.role);
        let names = role.into_iter().flat_map(|role| role.capabilities.iter());
        for name in names.filter_map(|at| catalog.capability_name(at)) {
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
fn more(before: &Rights, after: &Rights) -> Vec<AccessChange> {
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
    let changes =
        changes.into_iter().map(|((scope, restrictions, except), capabilities)| AccessChange {
            scope: scope.into(),
            capabilities,
            expires_at: restrictions.0,
            when: restrictions.1.clone(),
            except: except.into_iter().map(Into::into).collect(),
        });
    changes.collect()
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
        let found = more(&before, &after);
        assert_eq!(found.len(), 1);
        assert_eq!((&*found[0].scope, &found[0].except[..]), ("a", &["a/b".to_owned()][..]));
        assert!(more(&after, &before).is_empty());
    }

    #[test]
    fn a_right_covers_those_with_more_restrictions() {
        let test = |name: &str| Condition {
            category: AttributeCategory::Context,
            name: name.into(),
            equals: true,
            value: crate::Value::Boolean(true),
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
                assert!(more(&wide, &narrow).is_empty(), "{wide:?} {narrow:?}");
                assert_eq!(more(&narrow, &wide).len(), 1, "{wide:?} {narrow:?}");
            }
        }
        let other = rights([("a", "x", (None, vec![test("b")]))]);
        let one = rights([("a", "x", (None, vec![test("a")]))]);
        assert_eq!((more(&one, &other).len(), more(&other, &one).len()), (1, 1));
    }
}
