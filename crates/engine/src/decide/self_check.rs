//! Self-check: a snapshot proves a sample of itself before it may answer anyone.
//!
//! Three things are compared, for identities and scopes spread evenly over the index:
//!
//! ```text
//! references   every number, fingerprint, position and count that leads from one table to another
//! rules        the rules between facts (`rules.rs`), applied to the facts that the index has
//! answers      Check against section 5 of the contract in its plainest form, over names only
//! ```
//!
//! So a wrong number, flag, order or matrix row shows as an error, whether the index was built from a
//! document or grew change by change. Nothing but the index is needed.

mod answers;
mod references;
#[cfg(test)]
mod tests;

use thiserror::Error;

use crate::{Decision, Snapshot, Timestamp};

/// The index is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelfCheckError {
    /// Check and the contract's rules answer a question differently.
    #[error(
        "the index answers {indexed:?} and the rules {ruled:?} to: may `{identity}` `{capability}` \
         at `{resource}`"
    )]
    Answer {
        /// Who.
        identity: String,
        /// What.
        capability: String,
        /// Where.
        resource: String,
        /// What Check says; `None` if it does not know the capability.
        indexed: Option<Decision>,
        /// What the rules say.
        ruled: Decision,
    },
    /// Parts of the index contradict each other, or a fact in it breaks a rule.
    #[error("`{id}` is corrupt in the index: {problem}")]
    Corrupt {
        /// The identity, scope, role or binding. Empty for the index as a whole.
        id: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl SelfCheckError {
    fn corrupt(id: &str, problem: impl Into<String>) -> Box<Self> {
        Box::new(Self::Corrupt { id: id.into(), problem: problem.into() })
    }
}

/// Checks up to about `sample` identities and as many scopes, spread evenly over the index. Returns the
/// number of questions whose answers were compared: at each of the identity's scopes, right beside and
/// right below it, for each of the catalog's capabilities in turn.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn self_check(
    snapshot: &Snapshot,
    sample: usize,
    now: Timestamp,
) -> Result<usize, Box<SelfCheckError>> {
    let index = snapshot.index();
    references::check_roles(index)?;
    for scope in index.sample_scopes(sample) {
        references::check_scope(index, scope)?;
    }
    for id in index.sample_binding_ids(sample) {
        references::check_binding_id(index, id)?;
    }
    let mut compared = 0;
    let names: Vec<&str> = snapshot.catalog().capabilities().collect();
    let mut names = names.iter().copied().cycle();
    for identity in index.sample_identities(sample) {
        let bindings = references::check_identity(index, identity)?;
        compared += answers::compare(snapshot, identity.key(), &bindings, &mut names, now)?;
    }
    Ok(compared)
}

fn contradiction(id: &str, problem: &'static str) -> Box<SelfCheckError> {
    Box::new(SelfCheckError::Reference { id: id.into(), problem })
}

fn compare(
    snapshot: &Snapshot,
    entry: Entry<'_, IdentityExtra>,
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
    entry: Entry<'_, IdentityExtra>,
    bindings: &[Named<'_>],
    question: &Question<'_>,
    now: Timestamp,
) -> Decision {
    let subject = entry.extra().map(|extra| &extra.properties);
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
