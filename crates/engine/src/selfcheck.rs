//! A snapshot proves itself against the facts before it may answer anyone.
//!
//! The rules are evaluated here in their plainest form, over the declared facts and names, sharing
//! nothing with the index: a wrong number, range or row shows as a difference.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::{Decision, Model, Path, PathBuf, Question, Reason, RoleBinding, Snapshot, Timestamp};

/// About how many of a sampled identity's bindings are visited.
const SCOPES_PER_IDENTITY: usize = 8;

/// A question that the index and the rules answer differently.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the index answers {indexed:?} and the rules {ruled:?} to: may `{identity}` `{capability}` at \
     `{resource}`"
)]
pub struct Mismatch {
    /// Who.
    pub identity: String,
    /// What.
    pub capability: String,
    /// Where.
    pub resource: String,
    /// What the index says; nothing if it does not know the capability.
    pub indexed: Option<Decision>,
    /// What the rules say.
    pub ruled: Decision,
}

/// Compares the index with the rules for up to `identities` identities, spread evenly over the
/// policy: at each of their scopes and right beside and below it, for each of the catalog's
/// capabilities in turn. Answers how many questions were asked.
///
/// # Errors
///
/// The first question that the two answer differently.
pub fn self_check(
    model: &Model,
    snapshot: &Snapshot,
    identities: usize,
    now: Timestamp,
) -> Result<usize, Mismatch> {
    let facts = model.facts();
    let step = (facts.identities.len() / identities.max(1)).max(1);
    let sampled = facts.identities.iter().step_by(step).map(|identity| &identity.id);
    let mut bound: BTreeMap<&PathBuf, Vec<&RoleBinding>> =
        sampled.map(|id| (id, Vec::new())).collect();
    for binding in &facts.role_bindings {
        if let Some(bindings) = bound.get_mut(&binding.identity) {
            bindings.push(binding);
        }
    }

    let names: Vec<&str> = model.catalog().capabilities().collect();
    let mut names = names.iter().cycle();
    let mut asked = 0;
    for (identity, bindings) in &bound {
        let some = bindings.iter().step_by((bindings.len() / SCOPES_PER_IDENTITY).max(1));
        for scope in some.map(|binding| &binding.scope).chain([*identity]) {
            for resource in [scope.to_string(), format!("{scope}0"), format!("{scope}/0")] {
                // A sibling or child of a scope at the limits may not be a path.
                let (Ok(resource), Some(capability)) = (Path::parse(&resource), names.next())
                else {
                    continue;
                };
                let question = Question { identity: identity.as_path(), capability, resource };
                compare(model, snapshot, &question, bindings, now)?;
                asked += 1;
            }
        }
    }
    Ok(asked)
}

fn compare(
    model: &Model,
    snapshot: &Snapshot,
    question: &Question<'_>,
    bindings: &[&RoleBinding],
    now: Timestamp,
) -> Result<(), Mismatch> {
    let ruled = rule(model, question, bindings, now);
    let indexed = snapshot.check(question, now).ok();
    if indexed == Some(ruled) {
        return Ok(());
    }
    Err(Mismatch {
        identity: question.identity.to_string(),
        capability: question.capability.into(),
        resource: question.resource.to_string(),
        indexed,
        ruled,
    })
}

/// The rules, read off the contract, for a registered identity with these bindings.
fn rule(
    model: &Model,
    question: &Question<'_>,
    bindings: &[&RoleBinding],
    now: Timestamp,
) -> Decision {
    let on_path = |binding: &&&RoleBinding| {
        question.resource.ancestors().any(|at| at == binding.scope.as_path())
    };
    let counts = |binding: &RoleBinding| binding.expires_at.is_none_or(|end| now < end);
    let has = |binding: &RoleBinding| {
        let built_in = model.catalog().roles().iter().find(|role| *role.name == *binding.role);
        let custom = model.facts().roles.iter().find(|role| role.id.as_str() == &*binding.role);
        let capabilities = built_in.map(|role| &role.capabilities);
        let capabilities = capabilities.or(custom.map(|role| &role.capabilities));
        capabilities.is_some_and(|all| all.iter().any(|name| name == question.capability))
    };
    let on_path: Vec<_> = bindings.iter().filter(on_path).collect();
    let granting = on_path.iter().filter(|binding| counts(binding) && has(binding));
    let ends: Vec<_> = granting.map(|binding| binding.expires_at).collect();
    let reason = if !ends.is_empty() {
        Reason::Granted
    } else if on_path.iter().any(|binding| has(binding)) {
        Reason::Expired
    } else if on_path.iter().any(|binding| counts(binding)) {
        Reason::CapabilityNotInRole
    } else {
        Reason::NoBinding
    };
    let for_ever = ends.contains(&None);
    Decision { reason, valid_until: ends.into_iter().flatten().max().filter(|_| !for_ever) }
}
