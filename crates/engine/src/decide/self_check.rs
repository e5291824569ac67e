//! A snapshot proves itself against the facts before it may answer anyone.
//!
//! The rules are evaluated here in their plainest form, over the declared facts and names, sharing
//! nothing with the index: a wrong number, range or row shows as a difference.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::{
    Attributes, Condition, Decision, Model, Of, Path, PathBuf, Properties, Question, Reason,
    RoleBinding, Snapshot, Timestamp,
};

/// About how many of a sampled identity's bindings are visited.
const SCOPES_PER_IDENTITY: usize = 8;

/// A question that the index and the rules answer differently.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the index answers {indexed:?} and the rules {ruled:?} to: may `{identity}` `{capability}` at \
     `{resource}`"
)]
pub struct SelfCheckError {
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
) -> Result<usize, Box<SelfCheckError>> {
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

    let rules = Rules::new(model, now);
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
                let attributes = Attributes::NONE;
                let question =
                    Question { identity: identity.as_path(), capability, resource, attributes };
                rules.compare(snapshot, &question, bindings)?;
                asked += 1;
            }
        }
    }
    Ok(asked)
}

/// The rules, read off the contract.
struct Rules<'m> {
    model: &'m Model,
    /// Registered properties of identities.
    subjects: BTreeMap<&'m str, &'m Properties>,
    /// Registered properties of resources.
    resources: BTreeMap<&'m str, &'m Properties>,
    now: Timestamp,
}

impl<'m> Rules<'m> {
    fn new(model: &'m Model, now: Timestamp) -> Self {
        let facts = model.facts();
        let subjects = facts.identities.iter().map(|one| (one.id.as_str(), &one.properties));
        let resources = facts.resources.iter().map(|one| (one.id.as_str(), &one.properties));
        Self { model, subjects: subjects.collect(), resources: resources.collect(), now }
    }

    fn compare(
        &self,
        snapshot: &Snapshot,
        question: &Question<'_>,
        bindings: &[&RoleBinding],
    ) -> Result<(), Box<SelfCheckError>> {
        let ruled = self.decide(question, bindings);
        let indexed = snapshot.check(question, self.now).ok();
        if indexed == Some(ruled) {
            return Ok(());
        }
        Err(Box::new(SelfCheckError {
            identity: question.identity.to_string(),
            capability: question.capability.into(),
            resource: question.resource.to_string(),
            indexed,
            ruled,
        }))
    }

    /// For a registered identity with these bindings.
    fn decide(&self, question: &Question<'_>, bindings: &[&RoleBinding]) -> Decision {
        let above: Vec<Path<'_>> = question.resource.ancestors().collect();
        let on_path: Vec<_> =
            bindings.iter().filter(|binding| above.contains(&binding.scope.as_path())).collect();
        let in_time = |binding: &RoleBinding| binding.expires_at.is_none_or(|end| self.now < end);
        let holds =
            |binding: &RoleBinding| binding.when.iter().all(|one| self.holds(one, question));
        let has = |binding: &RoleBinding| self.has(&binding.role, question.capability);
        let any = |test: &dyn Fn(&RoleBinding) -> bool| on_path.iter().any(|binding| test(binding));

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

    /// Requests of the self-check supply nothing.
    fn holds(&self, condition: &Condition, question: &Question<'_>) -> bool {
        let registered = match condition.of {
            Of::Subject => self.subjects.get(question.identity.as_str()),
            Of::Resource => self.resources.get(question.resource.as_str()),
            Of::Action | Of::Context => None,
        };
        let value = registered.and_then(|properties| properties.get(&condition.name));
        value.is_some_and(|value| (*value == condition.value) == condition.equals)
    }

    fn has(&self, role: &str, capability: &str) -> bool {
        let built_in = self.model.catalog().roles().iter().find(|one| one.name == role);
        let custom = self.model.facts().roles.iter().find(|one| one.id.as_str() == role);
        let capabilities = built_in.map(|role| &role.capabilities);
        let capabilities = capabilities.or(custom.map(|role| &role.capabilities));
        capabilities.is_some_and(|all| all.iter().any(|name| name == capability))
    }
}
