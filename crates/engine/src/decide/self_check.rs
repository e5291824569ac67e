//! A snapshot checks itself before it may answer anyone: a sample of its answers against the rules, and the
//! cross references of what it sampled.
//!
//! The contract's rules are evaluated here in their plainest form, over names that are read from the index:
//! roles by their ids, scopes by their paths, ancestry by comparing texts. They share no fingerprint, no
//! search and no matrix with [`Snapshot::check`], so that a wrong hash, number, order or row shows as a
//! difference. What the index lacks altogether cannot be seen here: a store compares digests for that.

use thiserror::Error;

use crate::index::binding::Beside;
use crate::index::read::Binding;
use crate::index::scope::ScopeKind;
use crate::index::table::Entry;
use crate::{
    Attributes, Condition, Decision, Of, Path, Properties, Question, Reason, Snapshot, Timestamp,
};

/// About how many bindings of a sampled identity are visited.
const BINDINGS_PER_IDENTITY: usize = 8;

/// Why a snapshot must not serve.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelfCheckError {
    /// A question that the index and the rules answer differently.
    #[error(
        "the index answers {indexed:?} and the rules {ruled:?} to: may `{identity}` `{capability}` at \
         `{resource}`"
    )]
    Answer {
        /// Who.
        identity: String,
        /// What.
        capability: String,
        /// Where.
        resource: String,
        /// The index's answer; `None` if it does not know the capability.
        indexed: Option<Decision>,
        /// The answer of the rules.
        ruled: Decision,
    },
    /// Two parts of the index that contradict each other.
    #[error("the index contradicts itself at `{id}`: {problem}")]
    Reference {
        /// The identity or scope at which it was found.
        id: String,
        /// What is wrong.
        problem: &'static str,
    },
}

/// A binding by names.
struct Named<'s> {
    role: &'s str,
    scope: &'s str,
    expires_at: Option<Timestamp>,
    when: &'s [Condition],
}

/// Checks up to `identities` identities, spread evenly over the index: their cross references, and their
/// answers at some of their scopes, beside those and below, for each of the catalog's capabilities in turn.
/// Answers how many questions were compared.
///
/// # Errors
///
/// The first contradiction.
pub fn self_check(
    snapshot: &Snapshot,
    identities: usize,
    now: Timestamp,
) -> Result<usize, Box<SelfCheckError>> {
    let step = (snapshot.identities_len() / identities.max(1)).max(1);
    let names: Vec<&str> = snapshot.catalog().capabilities().collect();
    let mut names = names.iter().cycle();
    let mut compared = 0;
    for entry in snapshot.index().identities().iter().step_by(step) {
        let bindings: Vec<Named<'_>> = references(snapshot, entry)?;
        let Ok(identity) = Path::parse(entry.key()) else {
            return Err(contradiction(entry.key(), "its id is not a path"));
        };
        let some = bindings.iter().step_by((bindings.len() / BINDINGS_PER_IDENTITY).max(1));
        for scope in some.map(|binding| binding.scope).chain([identity.as_str()]) {
            for resource in [scope.to_owned(), format!("{scope}0"), format!("{scope}/0")] {
                // Beside or below a scope at the limits of paths there may be no path.
                let (Ok(resource), Some(capability)) = (Path::parse(&resource), names.next())
                else {
                    continue;
                };
                let attributes = Attributes::NONE;
                let question = Question { identity, capability, resource, attributes };
                compare(snapshot, entry, &bindings, &question, now)?;
                compared += 1;
            }
        }
    }
    Ok(compared)
}

/// Checks what an identity's record refers to, and answers its bindings by names.
fn references<'s>(
    snapshot: &'s Snapshot,
    entry: Entry<'s, Beside>,
) -> Result<Vec<Named<'s>>, Box<SelfCheckError>> {
    let index = snapshot.index();
    let wrong = |problem| contradiction(entry.key(), problem);
    if index.identities().get(entry.key()).map(|found| found.number()) != Some(entry.number()) {
        return Err(wrong("it is not found by its id"));
    }
    parent(snapshot, entry.key())?;
    let all: Vec<Binding<'s>> = index.bindings_of(entry).collect();
    if !all.is_sorted_by_key(|binding| binding.packed.fingerprint) {
        return Err(wrong("its bindings are not in the order of fingerprints"));
    }
    let mut named = Vec::with_capacity(all.len());
    let step = (all.len() / BINDINGS_PER_IDENTITY).max(1);
    for (at, binding) in all.iter().enumerate() {
        let (scope, role) = (index.scope_of(binding), index.role_id(binding));
        let Some((_, record)) = index.scope(scope) else {
            return Err(wrong("a binding's scope is not there"));
        };
        let uses = index.roles().find(role).map_or(0, |found| found.bindings);
        if uses == 0 || snapshot.roles().iter().all(|known| *known.id != *role) {
            return Err(wrong("a binding's role is not there, or not counted as bound"));
        }
        if role.rsplit_once('/').is_some_and(|(home, _)| !is_at_or_above(home, scope)) {
            return Err(wrong("a custom role is bound outside of its subtree"));
        }
        if binding.is_broken() {
            return Err(wrong("a binding's expiry or conditions are missing"));
        }
        let (expires_at, when) = (binding.expires_at(), binding.conditions());
        named.push(Named { role, scope, expires_at, when });
        if at % step != 0 {
            continue;
        }
        let here = all.iter().filter(|other| other.packed.scope == binding.packed.scope).count();
        // As the lists find them: by search in the order of ids.
        let key = |number| index.identities().key(number);
        let end = record.after(entry.key(), key);
        let listed = record.identities_from(end.saturating_sub(here)).take(here);
        if end < here || listed.into_iter().any(|number| number != entry.number()) {
            return Err(contradiction(scope, "its list of identities lacks one that is bound"));
        }
        parent(snapshot, scope)?;
    }
    Ok(named)
}

/// The parent of whatever has one is a group that counts it.
fn parent(snapshot: &Snapshot, id: &str) -> Result<(), Box<SelfCheckError>> {
    let Some((parent, _)) = id.rsplit_once('/') else { return Ok(()) };
    match snapshot.index().scope(parent) {
        Some((_, record)) if record.kind == ScopeKind::Group && record.children > 0 => Ok(()),
        _ => Err(contradiction(id, "its parent is not a group that counts it")),
    }
}

fn contradiction(id: &str, problem: &'static str) -> Box<SelfCheckError> {
    Box::new(SelfCheckError::Reference { id: id.into(), problem })
}

fn compare(
    snapshot: &Snapshot,
    entry: Entry<'_, Beside>,
    bindings: &[Named<'_>],
    question: &Question<'_>,
    now: Timestamp,
) -> Result<(), Box<SelfCheckError>> {
    let ruled = decide(snapshot, entry, bindings, question, now);
    let indexed = snapshot.check(question, now).ok();
    if indexed == Some(ruled) {
        return Ok(());
    }
    Err(Box::new(SelfCheckError::Answer {
        identity: question.identity.to_string(),
        capability: question.capability.into(),
        resource: question.resource.to_string(),
        indexed,
        ruled,
    }))
}

/// The decision by the contract's rules, for an identity with these bindings.
fn decide(
    snapshot: &Snapshot,
    entry: Entry<'_, Beside>,
    bindings: &[Named<'_>],
    question: &Question<'_>,
    now: Timestamp,
) -> Decision {
    let subject = entry.extra().map(|beside| &beside.properties);
    let resource = snapshot.index().resource_properties(question.resource.as_str());
    let on_path: Vec<_> = bindings
        .iter()
        .filter(|binding| is_at_or_above(binding.scope, question.resource.as_str()))
        .collect();
    let in_time = |one: &Named<'_>| one.expires_at.is_none_or(|end| now < end);
    let holds = |one: &Named<'_>| one.when.iter().all(|test| hold(test, subject, resource));
    let has = |one: &Named<'_>| has(snapshot, one.role, question.capability);
    let any = |test: &dyn Fn(&Named<'_>) -> bool| on_path.iter().any(|binding| test(binding));

    let granting = on_path.iter().filter(|one| in_time(one) && holds(one) && has(one));
    let ends: Vec<_> = granting.map(|binding| binding.expires_at).collect();
    let reason = if !ends.is_empty() {
        Reason::Granted
    } else if any(&|one| has(one) && holds(one)) {
        Reason::Expired
    } else if any(&|one| has(one) && in_time(one)) {
        Reason::ConditionNotMet
    } else if any(&|one| in_time(one) && holds(one)) {
        Reason::CapabilityNotInRole
    } else {
        Reason::NoBinding
    };
    let for_ever = ends.contains(&None);
    Decision { reason, valid_until: ends.into_iter().flatten().max().filter(|_| !for_ever) }
}

/// Whether a test holds for a request that supplies nothing.
fn hold(test: &Condition, subject: Option<&Properties>, resource: Option<&Properties>) -> bool {
    let registered = match test.of {
        Of::Subject => subject,
        Of::Resource => resource,
        Of::Action | Of::Context => None,
    };
    let value = registered.and_then(|properties| properties.get(&test.name));
    value.is_some_and(|value| (*value == test.value) == test.equals)
}

/// Whether a role has a capability: by the role's own set of names, not by the matrix.
fn has(snapshot: &Snapshot, role: &str, capability: &str) -> bool {
    let catalog = snapshot.catalog();
    let role = snapshot.roles().iter().find(|known| *known.id == *role);
    role.is_some_and(|role| {
        role.capabilities.iter().any(|at| catalog.capability_name(at) == Some(capability))
    })
}

/// Whether a path is another one or an ancestor of it, segment by segment.
fn is_at_or_above(ancestor: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    ancestor.split('/').all(|segment| segments.next() == Some(segment))
}
