//! Comparison of the engine with the naive model: one question by every kind of call.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::Naive;
use crate::generate::{Question, World};
use crate::naive::Conditional;
use capstan_engine::{
    Attributes, Condition, ConditionalGrant, Cursor, Decision, EXPLAINED_BINDINGS_MAX, Explanation,
    Grant, Listed, Model, Page, Question as Asked, RoleBinding, Scope, Snapshot, Timestamp,
    UnknownCapabilityError,
};
use proptest::prelude::*;

/// The model of a world, and its snapshot at revision 1.
///
/// # Errors
///
/// If the world is not valid: a bug of the generator or of the engine.
pub fn build(world: &World) -> Result<(Model, Snapshot), TestCaseError> {
    let model = world.model().map_err(|violations| {
        let all: Vec<_> = violations.iter().map(ToString::to_string).collect();
        TestCaseError::fail(format!("the generator broke rules: {all:?}"))
    })?;
    let snapshot = Snapshot::build(&model, 1);
    let snapshot = snapshot.map_err(|full| TestCaseError::fail(full.to_string()))?;
    Ok((model, snapshot))
}

// === The engine ===

/// The question for the engine.
#[must_use]
pub fn asked(question: &Question) -> Asked<'_> {
    Asked {
        identity: question.identity.as_path(),
        capability: &question.capability,
        resource: question.resource.as_path(),
        attributes: &question.attributes,
    }
}

/// The decision of a check.
///
/// # Errors
///
/// If the catalog does not have the capability.
pub fn check(
    snapshot: &Snapshot,
    question: &Question,
    now: Timestamp,
) -> Result<Decision, UnknownCapabilityError> {
    snapshot.check(&asked(question), now)
}

/// Whether a check allows. An error is not an allow.
#[must_use]
pub fn allowed(snapshot: &Snapshot, question: &Question, now: Timestamp) -> bool {
    check(snapshot, question, now).is_ok_and(Decision::allowed)
}

/// The explanation of a check.
///
/// # Errors
///
/// If the catalog does not have the capability.
pub fn explain<'s>(
    snapshot: &'s Snapshot,
    question: &Question,
    now: Timestamp,
) -> Result<Explanation<'s>, UnknownCapabilityError> {
    snapshot.explain(&asked(question), now)
}

/// The capabilities of the identity at the resource, in the engine's order, and the grants.
#[must_use]
pub fn what<'s>(
    snapshot: &'s Snapshot,
    question: &Question,
    now: Timestamp,
) -> (Vec<String>, Vec<Grant<'s>>) {
    let Asked { identity, resource, attributes, .. } = asked(question);
    let listed = snapshot.list_capabilities(identity, resource, attributes, now);
    let names = listed.capabilities.iter().filter_map(|at| snapshot.catalog().capability_name(at));
    (names.map(str::to_owned).collect(), listed.grants)
}

/// The identities with the capability at the resource.
///
/// # Errors
///
/// If the catalog does not have the capability.
pub fn who<'s>(
    snapshot: &'s Snapshot,
    question: &Question,
    now: Timestamp,
) -> Result<Vec<&'s str>, UnknownCapabilityError> {
    let Asked { capability, resource, attributes, .. } = asked(question);
    let whole = snapshot.list_identities(capability, resource, attributes, now)?;
    let limit = whole.len() % 3 + 1;
    let page = |after| {
        let cursor = Cursor { after, limit };
        snapshot.list_identities_page(capability, resource, attributes, now, cursor)
    };
    assert_eq!(joined(page, |id| id, limit), whole, "in pages of {limit}");
    Ok(whole)
}

/// An entry of a list with conditional entries, with all its bindings.
#[derive(Clone, Debug, PartialEq)]
pub struct Found<'s, T> {
    /// As in [`Listed`].
    pub entry: T,
    /// As in [`Listed`].
    pub holds: bool,
    /// As in [`Listed::conditional`].
    pub conditional: Vec<ConditionalGrant<'s>>,
}

impl<'s, T: Copy> From<Listed<'s, T>> for Found<'s, T> {
    fn from(listed: Listed<'s, T>) -> Self {
        let conditional = listed.conditional().collect();
        Self { entry: listed.entry, holds: listed.holds, conditional }
    }
}

/// The identities of [`who`] and the conditional ones.
///
/// # Errors
///
/// If the catalog does not have the capability.
pub fn conditional_who<'s>(
    snapshot: &'s Snapshot,
    question: &Question,
    now: Timestamp,
) -> Result<Vec<Found<'s, &'s str>>, UnknownCapabilityError> {
    let Asked { capability, resource, attributes, .. } = asked(question);
    let page = |cursor| {
        snapshot.conditional_identities_page(capability, resource, attributes, now, cursor)
    };
    let whole: Vec<Found<'_, _>> = page(Cursor::ALL)?.entries.into_iter().map(Into::into).collect();
    let limit = whole.len() % 3 + 1;
    let pages = joined(|after| page(Cursor { after, limit }), |found| found.entry, limit);
    let pages: Vec<Found<'_, _>> = pages.into_iter().map(Into::into).collect();
    assert_eq!(pages, whole, "in pages of {limit}");
    Ok(whole)
}

/// The scopes of [`places`] and the conditional ones.
///
/// # Errors
///
/// If the catalog does not have the capability.
pub fn conditional_places<'s>(
    snapshot: &'s Snapshot,
    question: &Question,
    now: Timestamp,
) -> Result<Vec<Found<'s, Scope<'s>>>, UnknownCapabilityError> {
    let Asked { identity, capability, attributes, .. } = asked(question);
    let page =
        |cursor| snapshot.conditional_scopes_page(identity, capability, attributes, now, cursor);
    let whole: Vec<Found<'_, _>> = page(Cursor::ALL)?.entries.into_iter().map(Into::into).collect();
    let limit = whole.len() % 3 + 1;
    let pages = joined(|after| page(Cursor { after, limit }), |found| found.entry.scope, limit);
    let pages: Vec<Found<'_, _>> = pages.into_iter().map(Into::into).collect();
    assert_eq!(pages, whole, "in pages of {limit}");
    Ok(whole)
}

/// All pages of a list, joined. Each page starts after the last entry of the previous one.
fn joined<'s, T>(
    page: impl Fn(Option<&'s str>) -> Result<Page<T>, UnknownCapabilityError>,
    id: impl Fn(&T) -> &'s str,
    limit: usize,
) -> Vec<T> {
    let mut all = Vec::new();
    loop {
        let Ok(next) = page(all.last().map(&id)) else { return all };
        assert!(next.entries.len() == limit || !next.has_more, "only the last page may be shorter");
        assert!(next.evaluated >= next.entries.len());
        all.extend(next.entries);
        if !next.has_more {
            return all;
        }
    }
}

/// The scopes of the capability for the identity, and whether each is conditional on the resource.
///
/// # Errors
///
/// If the catalog does not have the capability.
pub fn places<'s>(
    snapshot: &'s Snapshot,
    question: &Question,
    now: Timestamp,
) -> Result<Vec<(&'s str, bool)>, UnknownCapabilityError> {
    let Asked { identity, capability, attributes, .. } = asked(question);
    let listed = snapshot.list_scopes(identity, capability, attributes, now)?;
    let limit = listed.len() % 3 + 1;
    let page = |after| {
        let cursor = Cursor { after, limit };
        snapshot.list_scopes_page(identity, capability, attributes, now, cursor)
    };
    assert_eq!(joined(page, |found| found.scope, limit), listed, "in pages of {limit}");
    Ok(listed.into_iter().map(|found| (found.scope, found.conditional)).collect())
}

// === Comparison with the naive model ===

/// The number of compared answers, by kind of call.
#[derive(Debug, Default)]
pub struct Tally {
    worlds: AtomicU64,
    checks: AtomicU64,
    capabilities: AtomicU64,
    identities: AtomicU64,
    scopes: AtomicU64,
    explanations: AtomicU64,
}

impl Tally {
    /// The number of worlds; each time of a world counts.
    #[must_use]
    pub fn worlds(&self) -> u64 {
        self.worlds.load(Relaxed)
    }

    /// The number of checks.
    #[must_use]
    pub fn checks(&self) -> u64 {
        self.checks.load(Relaxed)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worlds, checks, capabilities, identities, scopes, explanations } = self;
        let [worlds, checks, capabilities, identities, scopes, explanations] =
            [worlds, checks, capabilities, identities, scopes, explanations]
                .map(|count| count.load(Relaxed));
        write!(
            f,
            "{worlds} worlds: {checks} checks, {explanations} explanations, and lists of \
             {capabilities} capabilities, {identities} identities, {scopes} scopes"
        )
    }
}

/// One world in the engine and the naive model, at one time.
#[derive(Debug)]
pub struct Pair<'w> {
    snapshot: &'w Snapshot,
    world: &'w World,
    now: Timestamp,
    tally: &'w Tally,
    /// The declared ids of bindings. The engine derives the ids of the others.
    declared: BTreeSet<&'w str>,
}

/// A comparable form of a grant: the binding's id if it is declared, role, scope, expiry.
type Key<'k> = (Option<&'k str>, &'k str, &'k str, Option<Timestamp>);

/// The same of a binding that is listed with its open tests.
type ConditionalKey<'k> = (Key<'k>, Vec<&'k Condition>);

impl<'w> Pair<'w> {
    /// Counts the world and its answers in `tally`.
    #[must_use]
    pub fn new(world: &'w World, snapshot: &'w Snapshot, now: Timestamp, tally: &'w Tally) -> Self {
        tally.worlds.fetch_add(1, Relaxed);
        let ids = world.facts.role_bindings.iter().filter_map(|binding| binding.id.as_ref());
        let declared = ids.map(|id| id.as_str()).collect();
        Self { world, snapshot, now, tally, declared }
    }

    /// Compares the answers to each question, and checks of the identity and capability of one question with
    /// the resource and attributes of another: an answer is cheaper than a world.
    ///
    /// # Errors
    ///
    /// If an answer differs.
    pub fn agrees_on(&self, questions: &[Question]) -> Result<(), TestCaseError> {
        for question in questions {
            self.agrees(question)?;
            for other in questions {
                let Question { resource, attributes, .. } = other.clone();
                self.checks(&Question { resource, attributes, ..question.clone() })?;
            }
        }
        Ok(())
    }

    /// Compares the answers of every call to one question.
    ///
    /// # Errors
    ///
    /// If an answer differs.
    pub fn agrees(&self, question: &Question) -> Result<(), TestCaseError> {
        self.checks(question)?;
        self.lists_capabilities(question)?;
        self.lists_identities(question)?;
        self.lists_scopes(question)?;
        self.explains(question)
    }

    /// Compares Check.
    ///
    /// # Errors
    ///
    /// If the answers differ.
    pub fn checks(&self, question: &Question) -> Result<(), TestCaseError> {
        self.tally.checks.fetch_add(1, Relaxed);
        let Question { identity, capability, resource, attributes } = question;
        let found = check(self.snapshot, question, self.now);
        let mut in_a_batch = None;
        self.snapshot.check_batch(&[asked(question)], self.now, |at, answer| {
            in_a_batch = Some((at, answer));
        });
        prop_assert_eq!(
            in_a_batch,
            Some((0, found)),
            "in a batch {:?} at {:?}",
            question,
            self.now
        );
        let found = found.ok().map(|found| (found.reason, found.valid_until));
        let (identity, resource) = (identity.as_str(), resource.as_str());
        let expected = self.naive(attributes).check(identity, capability, resource);
        prop_assert_eq!(found, expected, "check {:?} at {:?}", question, self.now);
        Ok(())
    }

    /// Compares ListCapabilities, with the grants.
    ///
    /// # Errors
    ///
    /// If the answers differ.
    pub fn lists_capabilities(&self, question: &Question) -> Result<(), TestCaseError> {
        self.tally.capabilities.fetch_add(1, Relaxed);
        let Question { identity, resource, attributes, .. } = question;
        let (names, grants) = what(self.snapshot, question, self.now);
        let (identity, resource) = (identity.as_str(), resource.as_str());
        let (expected_names, expected) =
            self.naive(attributes).list_capabilities(identity, resource);
        prop_assert_eq!(names, expected_names, "names for {:?} at {:?}", question, self.now);
        let bindings: BTreeSet<_> = grants.iter().map(|grant| &*grant.binding).collect();
        prop_assert_eq!(bindings.len(), grants.len(), "two bindings of one id: {:?}", grants);
        let mut keys = Vec::new();
        for grant in &grants {
            keys.push(self.key(grant)?);
        }
        keys.sort_unstable();
        let mut expected: Vec<_> = expected.iter().map(|binding| key_of(binding)).collect();
        expected.sort_unstable();
        prop_assert_eq!(keys, expected, "grants for {:?} at {:?}", question, self.now);
        Ok(())
    }

    /// Compares ListIdentities.
    ///
    /// # Errors
    ///
    /// If the answers differ.
    pub fn lists_identities(&self, question: &Question) -> Result<(), TestCaseError> {
        self.tally.identities.fetch_add(1, Relaxed);
        let Question { capability, resource, attributes, .. } = question;
        let found = who(self.snapshot, question, self.now).ok();
        let resource = resource.as_str();
        let expected = self.naive(attributes).list_identities(capability, resource);
        prop_assert_eq!(&found, &expected, "who for {:?} at {:?}", question, self.now);

        let Ok(listed) = conditional_who(self.snapshot, question, self.now) else {
            prop_assert_eq!(found, None, "who for {:?}", question);
            return Ok(());
        };
        let holding = listed.iter().filter(|one| one.holds).map(|one| one.entry);
        prop_assert_eq!(Some(holding.collect()), expected, "who for {:?}", question);
        let mut found = Vec::new();
        for Found { entry, holds, conditional } in &listed {
            prop_assert_eq!(*holds, conditional.is_empty(), "{:?} for {:?}", entry, question);
            found.extend((!holds).then_some((*entry, self.conditional_keys(conditional)?)));
        }
        let mut expected = Vec::new();
        for identity in self.world.identities().into_iter().map(|id| id.as_str()) {
            let holds = listed.iter().any(|one| one.holds && one.entry == identity);
            let bindings = self.naive(attributes).conditional(identity, capability, resource);
            let bindings = bindings.filter(|found| !holds && !found.is_empty());
            expected.extend(bindings.map(|bindings| (identity, first_keys(bindings))));
        }
        prop_assert_eq!(found, expected, "conditional who for {:?} at {:?}", question, self.now);
        Ok(())
    }

    /// Compares ListScopes.
    ///
    /// # Errors
    ///
    /// If the answers differ.
    pub fn lists_scopes(&self, question: &Question) -> Result<(), TestCaseError> {
        self.tally.scopes.fetch_add(1, Relaxed);
        let Question { identity, capability, attributes, .. } = question;
        let found = places(self.snapshot, question, self.now).ok();
        let identity = identity.as_str();
        let expected = self.naive(attributes).list_scopes(identity, capability);
        prop_assert_eq!(&found, &expected, "where for {:?} at {:?}", question, self.now);

        let naive = self.naive(attributes);
        let (Ok(listed), Some(expected)) = (
            conditional_places(self.snapshot, question, self.now),
            naive.conditional_scopes(identity, capability),
        ) else {
            prop_assert_eq!(found, None, "where for {:?}", question);
            return Ok(());
        };
        let holding = listed.iter().filter(|one| one.holds).map(|one| one.entry);
        let holding = holding.map(|found| (found.scope, found.conditional));
        prop_assert_eq!(Some(holding.collect()), found, "where for {:?}", question);
        let mut found = Vec::new();
        for Found { entry, holds, conditional } in &listed {
            prop_assert!(*holds || entry.conditional && !conditional.is_empty(), "{:?}", entry);
            found.push((entry.scope, self.conditional_keys(conditional)?));
        }
        let expected = expected.into_iter().map(|(scope, bindings)| (scope, first_keys(bindings)));
        let expected: Vec<_> = expected.collect();
        prop_assert_eq!(found, expected, "conditional where for {:?} at {:?}", question, self.now);
        Ok(())
    }

    /// Compares Explain. Any granting binding is a valid witness.
    ///
    /// # Errors
    ///
    /// If the answers differ.
    pub fn explains(&self, question: &Question) -> Result<(), TestCaseError> {
        self.tally.explanations.fetch_add(1, Relaxed);
        let Question { identity, capability, resource, attributes } = question;
        let found = explain(self.snapshot, question, self.now).ok();
        let (identity, resource) = (identity.as_str(), resource.as_str());
        let expected = self.naive(attributes).explain(identity, capability, resource);
        let (Some(found), Some(expected)) = (&found, &expected) else {
            prop_assert_eq!(found.is_some(), expected.is_some(), "{:?}", question);
            return Ok(());
        };
        let decision = (found.decision.reason, found.decision.valid_until);
        prop_assert_eq!(decision, expected.decision, "explain {:?} at {:?}", question, self.now);
        prop_assert_eq!(&found.roles, &expected.roles, "roles for {:?}", question);
        let mut identities = self.world.facts.identities.iter();
        let disabled = identities.any(|one| one.id.as_str() == identity && one.disabled);
        prop_assert_eq!(found.disabled, disabled, "explain {:?}", question);
        prop_assert_eq!(found.witness.is_some(), expected.missing.is_empty(), "{:?}", question);
        if let Some(witness) = &found.witness {
            let mut keys = expected.witnesses.iter().map(|binding| key_of(binding));
            let key = self.key(witness)?;
            prop_assert!(keys.any(|known| known == key), "{:?} for {:?}", witness, question);
        }
        Ok(())
    }

    fn naive<'n>(&'n self, attributes: &'n Attributes) -> Naive<'n> {
        Naive::new(&self.world.catalog, &self.world.facts, attributes, self.now)
    }

    fn conditional_keys<'k>(
        &self,
        bindings: &'k [ConditionalGrant<'_>],
    ) -> Result<Vec<ConditionalKey<'k>>, TestCaseError> {
        let key = |one: &'k ConditionalGrant<'_>| Ok((self.key(&one.grant)?, one.open.clone()));
        bindings.iter().map(key).collect()
    }

    fn key<'k>(&self, grant: &'k Grant<'_>) -> Result<Key<'k>, TestCaseError> {
        let id = Some(&*grant.binding).filter(|id| self.declared.contains(id));
        let segment = grant.binding.strip_prefix(grant.scope).and_then(|id| id.strip_prefix('/'));
        prop_assert!(segment.is_some_and(|it| !it.is_empty() && !it.contains('/')), "{:?}", grant);
        Ok((id, grant.role, grant.scope, grant.expires_at))
    }
}

/// The first bindings in the engine's order, as many as it lists.
fn first_keys(mut bindings: Vec<Conditional<'_>>) -> Vec<ConditionalKey<'_>> {
    let depth = |binding: &RoleBinding| binding.scope.as_str().len();
    bindings.sort_by_key(|(binding, _)| (depth(binding), &binding.role, &binding.when));
    bindings.truncate(EXPLAINED_BINDINGS_MAX);
    bindings.into_iter().map(|(binding, failing)| (key_of(binding), failing)).collect()
}

fn key_of(binding: &RoleBinding) -> Key<'_> {
    let id = binding.id.as_ref().map(|id| id.as_str());
    (id, &binding.role, binding.scope.as_str(), binding.expires_at)
}
