//! The rules between facts, proved once for a whole policy.
//!
//! **Invariant**: a [`Model`] refers only to what it declares: every parent is a group, every
//! binding names a known identity, role and scope, a custom role stays in its subtree, and a path
//! names one thing.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;

use hashbrown::hash_map::Entry;

use crate::index::binding::ROLES_MAX;
use crate::{
    CONDITIONS_MAX, Catalog, Condition, Facts, Map, Path, RoleBinding, Violation, Violations, quote,
};

/// Facts that are consistent with each other and with their catalog.
#[derive(Debug)]
pub struct Model {
    catalog: Arc<Catalog>,
    facts: Facts,
    bound: Vec<Bound>,
    moved: Map<usize, u64>,
}

/// What a binding of the facts refers to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bound {
    /// The place of its identity.
    pub(crate) identity: u32,
    /// The place of its scope among groups, and behind them resources.
    pub(crate) scope: u32,
}

impl Model {
    /// Proves the facts.
    ///
    /// # Errors
    ///
    /// Every rule that a fact breaks, see [`violations`].
    pub fn new(catalog: Arc<Catalog>, facts: Facts) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let (ids, bindings) = check(&facts, Some(&catalog), &[], &mut violations);
        if !violations.is_empty() {
            return Err(violations);
        }
        let (moved, bound) = (bindings.moved(&facts, &ids), bindings.bound);
        drop(ids);
        Ok(Self { catalog, facts, bound, moved })
    }

    /// The catalog that capabilities and built-in roles come from.
    #[must_use]
    pub const fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// What was declared.
    #[must_use]
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What each binding of the facts refers to.
    pub(crate) fn bound(&self) -> &[Bound] {
        &self.bound
    }

    /// The number that the binding at this place of the facts gets instead of the derived one, if
    /// that is another's.
    pub(crate) fn moved_id(&self, binding: usize) -> Option<u64> {
        self.moved.get(&binding).copied()
    }
}

/// What the paths of a policy name.
struct Ids<'f> {
    /// The list and place that first declare each path.
    first: Map<&'f str, (&'static str, usize)>,
    /// Every list that declares a path which is not the first to do so.
    again: Map<(&'static str, &'f str), ()>,
    /// Lists whose entries are not known.
    unread: &'f [&'static str],
}

impl Ids<'_> {
    /// Whether the list declares the path, or might.
    fn may_declare(&self, list: &'static str, id: &str) -> bool {
        self.first.get(id).is_some_and(|(first, _)| *first == list)
            || self.again.contains_key(&(list, id))
            || self.unread.contains(&list)
    }

    fn is_scope(&self, id: &str) -> bool {
        self.may_declare("groups", id) || self.may_declare("resources", id)
    }

    /// The place in the list that declares the path; the last of all if it is declared elsewhere.
    fn place(&self, list: &'static str, id: &str) -> Option<u32> {
        match self.first.get(id) {
            Some((first, at)) if *first == list => u32::try_from(*at).ok(),
            _ => self.may_declare(list, id).then_some(u32::MAX),
        }
    }
}

/// Every rule that a fact breaks (section 3 of the contract). Without a catalog, what needs one is
/// not judged; nor are references to what an `unread` list should declare.
#[must_use]
pub fn violations(facts: &Facts, catalog: Option<&Catalog>, unread: &[&'static str]) -> Violations {
    let mut violations = Violations::default();
    check(facts, catalog, unread, &mut violations);
    violations
}

/// The same, with what was found on the way.
fn check<'f>(
    facts: &'f Facts,
    catalog: Option<&Catalog>,
    unread: &'f [&'static str],
    violations: &mut Violations,
) -> (Ids<'f>, Bindings) {
    let ids = declare(facts, unread, violations);
    check_parents(facts, &ids, violations);
    if let Some(catalog) = catalog {
        check_role_count(catalog.roles().len(), facts.roles.len(), violations);
        check_role_capabilities(facts, catalog, violations);
    }
    let bindings = check_bindings(facts, &ids, catalog, violations);
    (ids, bindings)
}

fn declare<'f>(
    facts: &'f Facts,
    unread: &'f [&'static str],
    violations: &mut Violations,
) -> Ids<'f> {
    let groups = facts.groups.iter().map(|group| &group.id).enumerate();
    let roles = facts.roles.iter().map(|role| &role.id).enumerate();
    let identities = facts.identities.iter().map(|identity| &identity.id).enumerate();
    let resources = facts.resources.iter().map(|resource| &resource.id).enumerate();
    let bindings = facts.role_bindings.iter().enumerate();
    let bindings = bindings.filter_map(|(at, binding)| Some((at, binding.id.as_ref()?)));

    let mut ids = Ids { first: Map::new(), again: Map::new(), unread };
    for (kind, (at, id)) in groups
        .map(|row| ("groups", row))
        .chain(roles.map(|row| ("roles", row)))
        .chain(identities.map(|row| ("identities", row)))
        .chain(resources.map(|row| ("resources", row)))
        .chain(bindings.map(|row| ("role_bindings", row)))
    {
        match ids.first.entry(id.as_str()) {
            Entry::Vacant(entry) => {
                entry.insert((kind, at));
            }
            Entry::Occupied(entry) => {
                violations.add(Violation {
                    kind,
                    index: at,
                    field: "id".into(),
                    found: format!("`{id}` again, after"),
                    other: Some(*entry.get()),
                    expected: "an id that nothing else has".into(),
                });
                ids.again.insert((kind, id.as_str()), ());
            }
        }
    }
    ids
}

fn check_parents(facts: &Facts, ids: &Ids<'_>, violations: &mut Violations) {
    let mut check = |kind, at, id: Path<'_>| {
        let Some(parent) = id.parent() else {
            return;
        };
        if ids.may_declare("groups", parent.as_str()) {
            return;
        }
        let other = ids.first.get(parent.as_str()).copied();
        let what = if other.is_some() { "is" } else { "is not declared" };
        violations.add(Violation {
            kind,
            index: at,
            field: "id".into(),
            found: format!("parent `{parent}`, which {what}"),
            other,
            expected: "a declared group".into(),
        });
    };
    for (at, group) in facts.groups.iter().enumerate() {
        check("groups", at, group.id.as_path());
    }
    for (at, role) in facts.roles.iter().enumerate() {
        check("roles", at, role.id.as_path());
    }
    for (at, identity) in facts.identities.iter().enumerate() {
        check("identities", at, identity.id.as_path());
    }
    for (at, resource) in facts.resources.iter().enumerate() {
        check("resources", at, resource.id.as_path());
    }
    for (at, role) in facts.roles.iter().enumerate() {
        if role.id.as_path().parent().is_none() {
            let found = format!("`{}`", role.id);
            violations.push("roles", at, "id", found, "a path below the group that owns the role");
        }
    }
}

/// The index has numbers for so many roles, the catalog's among them.
fn check_role_count(built_in: usize, custom: usize, violations: &mut Violations) {
    let room = (ROLES_MAX as usize).saturating_sub(built_in);
    if custom > room {
        let expected = format!("at most {room} beside the {built_in} of the catalog");
        violations.push("roles", room, "id", format!("{custom} roles"), expected);
    }
}

fn check_role_capabilities(facts: &Facts, catalog: &Catalog, violations: &mut Violations) {
    for (at, role) in facts.roles.iter().enumerate() {
        for (item, name) in role.capabilities.iter().enumerate() {
            if catalog.capability(name).is_none() {
                let field = format!("capabilities[{item}]");
                violations.push("roles", at, field, quote(name), catalog.expected_capability());
            }
        }
    }
}

/// What is found about bindings while they are proved. There can be millions: everything is looked
/// up once.
struct Bindings {
    bound: Vec<Bound>,
    /// By derived number, the first binding that has it.
    first: Map<u64, usize>,
    /// Whether another, different one has it, too.
    collided: bool,
}

fn check_bindings(
    facts: &Facts,
    ids: &Ids<'_>,
    catalog: Option<&Catalog>,
    violations: &mut Violations,
) -> Bindings {
    let built_in: Option<Map<&str, ()>> =
        catalog.map(|catalog| catalog.roles().iter().map(|role| (&*role.name, ())).collect());
    let count = facts.role_bindings.len();
    let mut found = Bindings {
        bound: Vec::with_capacity(count),
        first: Map::with_capacity(count),
        collided: false,
    };
    // Those whose derived number another one has.
    let mut others: Map<Same<'_>, usize> = Map::new();
    for (at, binding) in facts.role_bindings.iter().enumerate() {
        let identity = check_identity(binding, at, ids, violations);
        check_role(binding, at, ids, built_in.as_ref(), violations);
        let scope = check_scope(binding, at, facts, ids, violations);
        found.bound.push(Bound { identity, scope });
        if binding.when.len() > CONDITIONS_MAX {
            let found = format!("{} conditions", binding.when.len());
            let expected = format!("at most {CONDITIONS_MAX}");
            violations.push("role_bindings", at, "when", found, expected);
        }
        let same = Same::of(binding);
        let first = match found.first.entry(same.derived_id()) {
            Entry::Vacant(entry) => {
                entry.insert(at);
                continue;
            }
            Entry::Occupied(entry) => *entry.get(),
        };
        let first = match facts.role_bindings.get(first).map(Same::of) {
            Some(other) if other == same => first,
            _ => match others.entry(same) {
                Entry::Vacant(entry) => {
                    entry.insert(at);
                    found.collided = true;
                    continue;
                }
                Entry::Occupied(entry) => *entry.get(),
            },
        };
        violations.add(Violation {
            kind: "role_bindings",
            index: at,
            field: String::new(),
            found: "the same binding as".into(),
            other: Some(("role_bindings", first)),
            expected: "an identity, role, scope and conditions that no other binding has".into(),
        });
    }
    found
}

/// What makes two bindings the same: conditions count as a set.
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Same<'f> {
    pub(crate) identity: &'f str,
    pub(crate) role: &'f str,
    pub(crate) scope: &'f str,
    when: Vec<&'f Condition>,
}

impl<'f> Same<'f> {
    pub(crate) fn new(
        identity: &'f str,
        role: &'f str,
        scope: &'f str,
        when: &'f [Condition],
    ) -> Self {
        let mut when: Vec<_> = when.iter().collect();
        when.sort_unstable();
        when.dedup();
        Self { identity, role, scope, when }
    }

    fn of(binding: &'f RoleBinding) -> Self {
        let (identity, scope) = (binding.identity.as_str(), binding.scope.as_str());
        Self::new(identity, &binding.role, scope, &binding.when)
    }

    /// The number that becomes the last segment of the path of a binding without an id of its own,
    /// unless that path is another's: the same in every process.
    pub(crate) fn derived_id(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

/// Answers the place of the identity.
fn check_identity(
    binding: &RoleBinding,
    at: usize,
    ids: &Ids<'_>,
    violations: &mut Violations,
) -> u32 {
    ids.place("identities", binding.identity.as_str()).unwrap_or_else(|| {
        let found = format!("`{}`", binding.identity);
        violations.push("role_bindings", at, "identity", found, "a declared identity");
        u32::MAX
    })
}

fn check_role(
    binding: &RoleBinding,
    at: usize,
    ids: &Ids<'_>,
    built_in: Option<&Map<&str, ()>>,
    violations: &mut Violations,
) {
    let mut push = |expected: &str| {
        violations.push("role_bindings", at, "role", format!("`{}`", binding.role), expected);
    };
    // A built-in role has no slash, a custom one always has: the two cannot be confused.
    let Some((home, _)) = binding.role.rsplit_once('/') else {
        if built_in.is_some_and(|names| !names.contains_key(&*binding.role)) {
            push("a built-in role of the catalog, or the id of a declared custom role");
        }
        return;
    };
    if !ids.may_declare("roles", &binding.role) {
        push("the id of a declared custom role, or a built-in role of the catalog");
    } else if ids.is_scope(binding.scope.as_str())
        && !Path::parse(home).is_ok_and(|home| home.contains(binding.scope.as_path()))
    {
        push(&format!(
            "a role that may be bound at `{}`: a custom role only at or below the group that owns \
             it",
            binding.scope
        ));
    }
}

/// Answers the place of the scope among groups, and behind them resources.
fn check_scope(
    binding: &RoleBinding,
    at: usize,
    facts: &Facts,
    ids: &Ids<'_>,
    violations: &mut Violations,
) -> u32 {
    let scope = binding.scope.as_str();
    let groups = u32::try_from(facts.groups.len()).unwrap_or(u32::MAX);
    let behind = |place: u32| place.saturating_add(groups);
    let place = ids.place("groups", scope).or_else(|| ids.place("resources", scope).map(behind));
    let Some(place) = place else {
        // What else a wrong scope breaks is mended with it.
        let found = format!("`{}`", binding.scope);
        violations.push("role_bindings", at, "scope", found, "a declared group or resource");
        return u32::MAX;
    };
    if let Some(id) = &binding.id
        && (binding.scope == *id || !binding.scope.as_path().contains(id.as_path()))
    {
        violations.push(
            "role_bindings",
            at,
            "id",
            format!("`{id}`"),
            format!("a path below the binding's scope `{}`", binding.scope),
        );
    }
    place
}

impl Bindings {
    /// For each binding without an id whose derived path is another's, the number that it gets
    /// instead.
    fn moved(&self, facts: &Facts, ids: &Ids<'_>) -> Map<usize, u64> {
        // Hardly ever is any: then nobody's path has a derived number at its end.
        let mut ends = ids.first.keys().filter_map(|id| number_at_end(id));
        if self.collided || ends.any(|number| self.first.contains_key(&number)) {
            move_ids(facts, ids)
        } else {
            Map::new()
        }
    }
}

/// For each binding without an id whose derived path is another's, the number that it gets instead:
/// the same for the same facts.
fn move_ids(facts: &Facts, ids: &Ids<'_>) -> Map<usize, u64> {
    let mut taken: Map<(&str, u64), ()> = Map::with_capacity(facts.role_bindings.len());
    let mut moved = Map::new();
    let without = facts.role_bindings.iter().enumerate().filter(|(_, one)| one.id.is_none());
    for (at, binding) in without {
        let derived = Same::of(binding).derived_id();
        let (mut id, scope) = (derived, binding.scope.as_str());
        while ids.first.contains_key(&*binding_id(scope, id)) || taken.contains_key(&(scope, id)) {
            id = id.wrapping_add(1);
        }
        taken.insert((scope, id), ());
        if id != derived {
            moved.insert(at, id);
        }
    }
    moved
}

/// The path of a binding without an id of its own.
pub(crate) fn binding_id(scope: &str, id: u64) -> String {
    format!("{scope}/{id:016x}")
}

/// The number of a path that could be [`binding_id`]'s.
fn number_at_end(path: &str) -> Option<u64> {
    let (_, last) = path.rsplit_once('/')?;
    let is_number = last.len() == 16 && last.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_number { u64::from_str_radix(last, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One more would have no number, and its bindings would silently give nothing.
    #[test]
    fn as_many_roles_as_have_numbers_are_taken() {
        let found = |built_in, custom| {
            let mut violations = Violations::default();
            check_role_count(built_in, custom, &mut violations);
            violations.iter().map(|one| (one.index, one.expected.clone())).collect::<Vec<_>>()
        };
        let most = ROLES_MAX as usize;
        assert_eq!(found(12, most - 12), []);
        let expected = format!("at most {} beside the 12 of the catalog", most - 12);
        assert_eq!(found(12, most - 11), [(most - 12, expected)]);
        assert_eq!(found(most + 1, 1).len(), 1);
    }
}
