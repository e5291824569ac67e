//! The rules applied to all facts of a document at once: every violation is collected.

use std::sync::Arc;

use hashbrown::hash_map::Entry;

use crate::model::similar::{SUGGESTIONS_MAX, did_you_mean};
use crate::rules::{self, BindingKey, BrokenRule, View, binding_id, split_binding_id};
use crate::{CONDITIONS_MAX, Catalog, Facts, FactsError, Map, PathBuf, Violation, quote};

/// Facts that keep all rules between them and their catalog.
///
/// **Invariant**: a model refers only to what it declares: every parent is a group, every binding
/// names a known identity, role and scope, a custom role is bound in its subtree, and a path names one
/// thing.
#[derive(Debug)]
pub struct Model {
    catalog: Arc<Catalog>,
    facts: Facts,
    references: Vec<References>,
    moved: Map<usize, u64>,
    /// Identities that are bound and not declared.
    unregistered: Vec<PathBuf>,
}

/// What a binding of the facts refers to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct References {
    /// Position of its identity in [`Facts::identities`] followed by those that are bound and not declared.
    pub(crate) identity: u32,
    /// Position of its role in the roles of the catalog followed by [`Facts::roles`]: the number of the role
    /// in a new index.
    pub(crate) role: u32,
    /// Position of its scope in [`Facts::groups`] followed by [`Facts::resources`].
    pub(crate) scope: u32,
}

impl Model {
    /// Checks the facts.
    ///
    /// # Errors
    ///
    /// Every rule that a fact breaks, see [`check_facts`].
    pub fn new(catalog: Arc<Catalog>, facts: Facts) -> Result<Self, FactsError> {
        let mut error = FactsError::default();
        let (ids, bindings) = check(&facts, Some(&catalog), &[], &mut error);
        if !error.is_empty() {
            return Err(error);
        }
        let moved = bindings.moved(&facts, &ids);
        let unregistered = bindings.unregistered(&facts);
        let references = bindings.references;
        drop(ids);
        Ok(Self { catalog, facts, references, moved, unregistered })
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

    /// What each binding of the facts refers to, in their order.
    pub(crate) fn references(&self) -> &[References] {
        &self.references
    }

    /// The identities that are bound and not declared, in the order of the first binding of each.
    #[must_use]
    pub fn unregistered(&self) -> &[PathBuf] {
        &self.unregistered
    }

    /// The number in the id of the binding at this position of the facts, if another path has its
    /// derived id.
    pub(crate) fn moved_number(&self, binding: usize) -> Option<u64> {
        self.moved.get(&binding).copied()
    }
}

/// The rules of section 3 of the contract. Without a catalog, rules that need one are not applied; nor are
/// references judged to what an `unread` list could declare.
///
/// # Errors
///
/// Every rule that a fact breaks.
pub fn check_facts(
    facts: &Facts,
    catalog: Option<&Catalog>,
    unread: &[&'static str],
) -> Result<(), FactsError> {
    let mut error = FactsError::default();
    check(facts, catalog, unread, &mut error);
    if error.is_empty() { Ok(()) } else { Err(error) }
}

fn check<'f>(
    facts: &'f Facts,
    catalog: Option<&'f Catalog>,
    unread: &'f [&'static str],
    error: &mut FactsError,
) -> (Declared<'f>, Bindings) {
    let ids = declare(facts, catalog, unread, error);
    check_parents(facts, &ids, error);
    check_roles(facts, &ids, error);
    let bindings = check_bindings(facts, &ids, error);
    suggest(facts, &ids, error);
    (ids, bindings)
}

/// Most declared names that are compared with one that is not declared. A larger document gets no suggestions.
const COMPARED_NAMES_MAX: usize = 65_536;

/// Adds similar names to the first violations about what is not declared.
fn suggest(facts: &Facts, ids: &Declared<'_>, error: &mut FactsError) {
    if error.is_empty() || ids.first.len() > COMPARED_NAMES_MAX {
        return;
    }
    let declared = |lists: &'static [&'static str]| {
        let known = ids.first.iter().filter(move |(_, (list, _))| lists.contains(list));
        known.map(|(id, _)| *id)
    };
    let built_in = || ids.built_in_roles.keys().copied();
    for violation in error.iter_mut().take(SUGGESTIONS_MAX) {
        let Violation { kind, index, field, .. } = &*violation;
        let binding = facts.role_bindings.get(*index).filter(|_| *kind == "role_bindings");
        let hint = match (binding, field.as_str()) {
            (Some(one), "identity") => {
                did_you_mean(one.identity.as_str(), declared(&["identities"]))
            }
            (Some(one), "scope") => {
                did_you_mean(one.scope.as_str(), declared(&["groups", "resources"]))
            }
            // A role that is there may not be bound at this scope: that is no spelling mistake.
            (Some(one), "role")
                if ids.custom_role(&one.role).or(ids.built_in_role(&one.role)).is_none() =>
            {
                did_you_mean(&one.role, built_in().chain(declared(&["roles"])))
            }
            (None, field) if *kind == "roles" && field.starts_with("capabilities[") => {
                let at = field.trim_start_matches("capabilities[").trim_end_matches(']');
                let role = facts.roles.get(*index);
                let at = at.parse::<usize>().ok();
                let typed = role.zip(at).and_then(|(role, at)| role.capabilities.get(at));
                let known = ids.catalog.into_iter().flat_map(Catalog::capabilities);
                typed.map(|typed| did_you_mean(typed, known)).unwrap_or_default()
            }
            (None, "id")
                if violation.found.starts_with("parent `") && violation.other.is_none() =>
            {
                let parent = violation.found.split('`').nth(1).unwrap_or_default();
                // A group below the missing one is no correction of it.
                let is_below = |id: &&str| id.get(..parent.len()) == Some(parent);
                did_you_mean(parent, declared(&["groups"]).filter(|id| !is_below(id)))
            }
            _ => String::new(),
        };
        violation.expected.push_str(&hint);
    }
}

/// A list of the document, and a position in it.
type Place = (&'static str, usize);

// === The view ===

/// Everything that a document declares, by path.
struct Declared<'f> {
    /// The entry that first declares each path.
    first: Map<&'f str, Place>,
    /// Lists that declare a path which another entry declared before.
    again: Map<(&'static str, &'f str), ()>,
    /// Lists whose entries are not known.
    unread: &'f [&'static str],
    catalog: Option<&'f Catalog>,
    /// By name, the position in the catalog.
    built_in_roles: Map<&'f str, u32>,
    groups: u32,
}

impl Declared<'_> {
    /// Whether the list declares the path, or could because it is unread.
    fn may_declare(&self, list: &'static str, id: &str) -> bool {
        self.first.get(id).is_some_and(|(first, _)| *first == list)
            || self.again.contains_key(&(list, id))
            || self.unread.contains(&list)
    }

    /// The position of a path in the list. [`u32::MAX`] if it is not the first to declare the path, or
    /// unread; then the document has violations, and the position is not used.
    fn position(&self, list: &'static str, id: &str) -> Option<u32> {
        match self.first.get(id) {
            Some((first, position)) if *first == list => u32::try_from(*position).ok(),
            _ => self.may_declare(list, id).then_some(u32::MAX),
        }
    }
}

impl View for Declared<'_> {
    type Identity = u32;
    type Role = u32;
    type Scope = u32;

    fn is_group(&self, id: &str) -> bool {
        self.may_declare("groups", id)
    }

    fn identity(&self, id: &str) -> Option<u32> {
        self.position("identities", id)
    }

    /// Resources are counted after groups.
    fn scope(&self, id: &str) -> Option<u32> {
        let resource = || Some(self.position("resources", id)?.saturating_add(self.groups));
        self.position("groups", id).or_else(resource)
    }

    /// What an unread list could declare does not count.
    fn is_scope(&self, id: &str) -> bool {
        let is_declared = |list| {
            self.first.get(id).is_some_and(|(first, _)| *first == list)
                || self.again.contains_key(&(list, id))
        };
        is_declared("groups") || is_declared("resources")
    }

    /// Custom roles are counted after built-in ones.
    fn custom_role(&self, id: &str) -> Option<u32> {
        let built_in = u32::try_from(self.built_in_roles.len()).unwrap_or(u32::MAX);
        Some(self.position("roles", id)?.saturating_add(built_in))
    }

    /// [`u32::MAX`] for every name without a catalog; then nothing is indexed.
    fn built_in_role(&self, name: &str) -> Option<u32> {
        let known = self.built_in_roles.get(name).copied();
        if self.catalog.is_none() { Some(u32::MAX) } else { known }
    }

    fn has_capability(&self, name: &str) -> bool {
        self.catalog.is_none_or(|catalog| catalog.capability(name).is_some())
    }
}

fn declare<'f>(
    facts: &'f Facts,
    catalog: Option<&'f Catalog>,
    unread: &'f [&'static str],
    error: &mut FactsError,
) -> Declared<'f> {
    let groups = facts.groups.iter().map(|group| &group.id).enumerate();
    let roles = facts.roles.iter().map(|role| &role.id).enumerate();
    let identities = facts.identities.iter().map(|identity| &identity.id).enumerate();
    let resources = facts.resources.iter().map(|resource| &resource.id).enumerate();
    let bindings = facts.role_bindings.iter().enumerate();
    let bindings = bindings.filter_map(|(at, binding)| Some((at, binding.id.as_ref()?)));

    let built_in_roles = catalog.map_or(&[][..], |catalog| catalog.roles());
    let mut declared = Declared {
        first: Map::new(),
        again: Map::new(),
        unread,
        catalog,
        built_in_roles: (0..).zip(built_in_roles).map(|(at, role)| (&*role.name, at)).collect(),
        groups: u32::try_from(facts.groups.len()).unwrap_or(u32::MAX),
    };
    for (list, (at, id)) in groups
        .map(|row| ("groups", row))
        .chain(roles.map(|row| ("roles", row)))
        .chain(identities.map(|row| ("identities", row)))
        .chain(resources.map(|row| ("resources", row)))
        .chain(bindings.map(|row| ("role_bindings", row)))
    {
        let mut other = None;
        match declared.first.entry(id.as_str()) {
            Entry::Vacant(entry) => {
                entry.insert((list, at));
            }
            Entry::Occupied(entry) => other = Some(*entry.get()),
        }
        if let Err(broken) = rules::check_id(id.as_str(), other.is_some()) {
            error.add(violation(broken, (list, at), other, catalog));
            declared.again.insert((list, id.as_str()), ());
        }
    }
    declared
}

// === FactsError ===

/// A broken rule in the words of a document. `other` is the entry that the fact conflicts with.
fn violation(
    broken: BrokenRule<'_>,
    (kind, index): Place,
    other: Option<Place>,
    catalog: Option<&Catalog>,
) -> Violation {
    let code = |text: &str| format!("`{text}`");
    let (field, found, expected): (String, String, String) = match broken {
        BrokenRule::IdTaken(id) => {
            ("id".into(), format!("`{id}`, already declared as"), "a unique id".into())
        }
        BrokenRule::ParentIsNoGroup(parent) => {
            let what = if other.is_some() { "is" } else { "is not declared" };
            ("id".into(), format!("parent `{parent}`, which {what}"), "a declared group".into())
        }
        BrokenRule::RoleAtRoot(id) => {
            ("id".into(), code(id), "a path below the group that owns the role".into())
        }
        BrokenRule::TooManyRoles { custom, custom_max } => {
            let built_in = catalog.map_or(0, |catalog| catalog.roles().len());
            let expected =
                format!("at most {custom_max}, in addition to the {built_in} roles of the catalog");
            ("id".into(), format!("{custom} roles"), expected)
        }
        BrokenRule::UnknownCapability { position, name } => {
            let expected = catalog.map(Catalog::expected_capability).unwrap_or_default();
            (format!("capabilities[{position}]"), quote(name), expected)
        }
        BrokenRule::UnknownIdentity(id) => {
            ("identity".into(), code(id), "a declared identity".into())
        }
        BrokenRule::UnknownRole(role) => {
            let expected = if role.contains('/') {
                "the id of a declared custom role, or a built-in role of the catalog"
            } else {
                "a built-in role of the catalog, or the id of a declared custom role"
            };
            ("role".into(), code(role), expected.into())
        }
        BrokenRule::RoleOutsideItsGroup { role, scope, .. } => {
            let expected = format!(
                "a role that may be bound at `{scope}`: a custom role only at or below the group \
                 that owns it"
            );
            ("role".into(), code(role), expected)
        }
        BrokenRule::UnknownScope(id) => {
            ("scope".into(), code(id), "a declared group or resource".into())
        }
        BrokenRule::IdOutsideScope { id, scope } => {
            ("id".into(), code(id), format!("a path below the binding's scope `{scope}`"))
        }
        BrokenRule::TooManyConditions(count) => {
            ("when".into(), format!("{count} conditions"), format!("at most {CONDITIONS_MAX}"))
        }
        BrokenRule::SameBinding { .. } => {
            let expected = "a unique combination of identity, role, scope and conditions";
            (String::new(), "the same binding as".into(), expected.into())
        }
        // A document deletes nothing.
        BrokenRule::NotEmpty(id) | BrokenRule::StillBound(id) => {
            ("id".into(), code(id), "no references to it".into())
        }
    };
    Violation { kind, index, field, found, other, expected }
}

fn check_parents(facts: &Facts, ids: &Declared<'_>, error: &mut FactsError) {
    let mut check = |list, at, id: &PathBuf| {
        if let Err(broken) = rules::check_parent(ids, id.as_path()) {
            let parent = id.as_path().parent();
            let other = parent.and_then(|parent| ids.first.get(parent.as_str()).copied());
            error.add(violation(broken, (list, at), other, ids.catalog));
        }
    };
    for (at, group) in facts.groups.iter().enumerate() {
        check("groups", at, &group.id);
    }
    for (at, role) in facts.roles.iter().enumerate() {
        check("roles", at, &role.id);
    }
    for (at, identity) in facts.identities.iter().enumerate() {
        check("identities", at, &identity.id);
    }
    for (at, resource) in facts.resources.iter().enumerate() {
        check("resources", at, &resource.id);
    }
}

fn check_roles(facts: &Facts, ids: &Declared<'_>, error: &mut FactsError) {
    let mut add = |at, broken| error.add(violation(broken, ("roles", at), None, ids.catalog));
    for (at, role) in facts.roles.iter().enumerate() {
        if let Err(broken) = rules::check_role_place(role) {
            add(at, broken);
        }
    }
    let count = ids
        .catalog
        .map(|catalog| rules::check_role_count(catalog.roles().len(), facts.roles.len()));
    if let Some(Err(broken @ BrokenRule::TooManyRoles { custom_max, .. })) = count {
        add(custom_max, broken);
    }
    for (at, role) in facts.roles.iter().enumerate() {
        rules::check_role_capabilities(ids, role, |broken| add(at, broken));
    }
}

/// What is learned about bindings while they are checked. There can be millions, so everything is
/// looked up once.
struct Bindings {
    references: Vec<References>,
    /// By derived number, the first binding that has it.
    first: Map<u64, usize>,
    /// Whether two different bindings have one derived number.
    collided: bool,
    /// The first binding of each identity that is bound and not declared.
    unregistered: Vec<usize>,
}

fn check_bindings(facts: &Facts, ids: &Declared<'_>, error: &mut FactsError) -> Bindings {
    let count = facts.role_bindings.len();
    let mut checked = Bindings {
        references: Vec::with_capacity(count),
        first: Map::with_capacity(count),
        collided: false,
        unregistered: vec![],
    };
    let declared = position(facts.identities.len());
    // Identities that are bound and not declared, by their positions among them.
    let mut unregistered: Map<&str, u32> = Map::new();
    // Bindings whose derived number another binding has.
    let mut others: Map<BindingKey<'_>, usize> = Map::new();
    for (at, binding) in facts.role_bindings.iter().enumerate() {
        let place = ("role_bindings", at);
        let mut is_kept = true;
        let found = rules::check_binding(ids, binding, |broken| {
            is_kept = false;
            error.add(violation(broken, place, None, ids.catalog));
        });
        let identity = found.identity.or_else(|| {
            let next = declared.saturating_add(position(unregistered.len()));
            is_kept.then(|| match unregistered.entry(binding.identity.as_str()) {
                Entry::Vacant(entry) => {
                    checked.unregistered.push(at);
                    *entry.insert(next)
                }
                Entry::Occupied(entry) => *entry.get(),
            })
        });
        checked.references.push(References {
            identity: identity.unwrap_or(u32::MAX),
            role: found.role.unwrap_or(u32::MAX),
            scope: found.scope.unwrap_or(u32::MAX),
        });
        let key = BindingKey::of(binding);
        let first = match checked.first.entry(key.derived_number()) {
            Entry::Vacant(entry) => {
                entry.insert(at);
                continue;
            }
            Entry::Occupied(entry) => *entry.get(),
        };
        let first = match facts.role_bindings.get(first).map(BindingKey::of) {
            Some(other) if other == key => first,
            _ => match others.entry(key) {
                Entry::Vacant(entry) => {
                    entry.insert(at);
                    checked.collided = true;
                    continue;
                }
                Entry::Occupied(entry) => *entry.get(),
            },
        };
        let (identity, scope) = (binding.identity.as_str(), binding.scope.as_str());
        let broken = BrokenRule::SameBinding { identity, role: &binding.role, scope };
        error.add(violation(broken, place, Some(("role_bindings", first)), ids.catalog));
    }
    checked
}

/// A position as the index has it. Facts that have more do not fit into an index.
fn position(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

// === Ids of bindings that declare none ===

impl Bindings {
    /// The identities that are bound and not declared.
    fn unregistered(&self, facts: &Facts) -> Vec<PathBuf> {
        let first = self.unregistered.iter().filter_map(|at| facts.role_bindings.get(*at));
        first.map(|binding| binding.identity.clone()).collect()
    }

    /// For each binding without an id whose derived id is another path, the number that it gets
    /// instead.
    fn moved(&self, facts: &Facts, ids: &Declared<'_>) -> Map<usize, u64> {
        // Almost always empty: no declared path ends with a derived number.
        let mut numbers = ids.first.keys().filter_map(|id| split_binding_id(id));
        if self.collided || numbers.any(|(_, number)| self.first.contains_key(&number)) {
            move_numbers(facts, ids)
        } else {
            Map::new()
        }
    }
}

/// For each binding without an id whose derived id is another path, the next number that is free. A
/// function of the facts, in their order.
fn move_numbers(facts: &Facts, ids: &Declared<'_>) -> Map<usize, u64> {
    let mut taken: Map<(&str, u64), ()> = Map::with_capacity(facts.role_bindings.len());
    let mut moved = Map::new();
    let without = facts.role_bindings.iter().enumerate().filter(|(_, one)| one.id.is_none());
    for (at, binding) in without {
        let derived = BindingKey::of(binding).derived_number();
        let (mut number, scope) = (derived, binding.scope.as_str());
        while ids.first.contains_key(&*binding_id(scope, number))
            || taken.contains_key(&(scope, number))
        {
            number = number.wrapping_add(1);
        }
        taken.insert((scope, number), ());
        if number != derived {
            moved.insert(at, number);
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::ROLES_MAX;
    use crate::{Group, Identity, RoleBinding};

    /// One more would have no number, and its bindings would give nothing without an error.
    #[test]
    fn as_many_roles_as_have_numbers_are_accepted() {
        let most = ROLES_MAX as usize;
        assert_eq!(rules::check_role_count(12, most - 12), Ok(()));
        let broken = rules::check_role_count(12, most - 11).unwrap_err();
        let (custom, custom_max) = (most - 11, most - 12);
        assert_eq!(broken, BrokenRule::TooManyRoles { custom, custom_max });
        assert!(rules::check_role_count(most + 1, 1).is_err());
        let found = violation(broken, ("roles", custom_max), None, None);
        assert_eq!(
            found.expected,
            format!("at most {custom_max}, in addition to the 0 roles of the catalog")
        );
    }

    /// In a larger document the suggestions would take longer than all other rules.
    #[test]
    fn as_many_names_as_the_limit_are_compared() {
        let expected = |names: usize| {
            let group =
                |at: usize| Group { id: format!("{at:05}").parse().unwrap(), name: String::new() };
            let facts = Facts {
                // The identity is a name, too.
                groups: (1..names).map(group).collect(),
                identities: vec![Identity::named("alice".parse().unwrap())],
                role_bindings: vec![RoleBinding {
                    id: None,
                    identity: "alcie".parse().unwrap(),
                    role: "viewer".into(),
                    scope: "00001".parse().unwrap(),
                    expires_at: None,
                    when: vec![],
                }],
                ..Facts::default()
            };
            let mut error = check_facts(&facts, None, &[]).unwrap_err();
            error.iter_mut().map(|violation| violation.expected.clone()).collect::<String>()
        };
        assert!(expected(COMPARED_NAMES_MAX).ends_with("; did you mean `alice`?"));
        assert!(!expected(COMPARED_NAMES_MAX + 1).contains("did you mean"));
    }
}
