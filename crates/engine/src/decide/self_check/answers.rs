//! Check against section 5 of the contract, evaluated over names.

use crate::decide::self_check::SelfCheckError;
use crate::{
    AttributeCategory, Attributes, Condition, Decision, Path, Properties, Question, Reason,
    RoleBinding, Snapshot, Timestamp,
};

/// About how many of an identity's bindings are visited.
const SCOPES_PER_IDENTITY: usize = 8;

/// Compares answers about an identity with these bindings. Returns how many.
pub(super) fn compare<'c>(
    snapshot: &Snapshot,
    identity: &str,
    bindings: &[RoleBinding],
    names: &mut impl Iterator<Item = &'c str>,
    now: Timestamp,
) -> Result<usize, Box<SelfCheckError>> {
    let Ok(identity) = Path::parse(identity) else {
        return Err(SelfCheckError::corrupt(identity, "its id is no path"));
    };
    let rules = Rules { snapshot, identity, bindings, now };
    let mut compared = 0;
    let some = bindings.iter().step_by((bindings.len() / SCOPES_PER_IDENTITY).max(1));
    for scope in some.map(|binding| binding.scope.as_path()).chain([identity]) {
        for resource in [scope.to_string(), format!("{scope}0"), format!("{scope}/0")] {
            // A sibling or child of a scope at the limits may not be a path.
            let (Ok(resource), Some(capability)) = (Path::parse(&resource), names.next()) else {
                continue;
            };
            let attributes = Attributes::NONE;
            rules.compare(&Question { identity, capability, resource, attributes })?;
            compared += 1;
        }
    }
    Ok(compared)
}

/// The contract's rules for one identity. Roles are searched by name and paths compared as texts; requests
/// supply nothing.
struct Rules<'s> {
    snapshot: &'s Snapshot,
    identity: Path<'s>,
    bindings: &'s [RoleBinding],
    now: Timestamp,
}

impl Rules<'_> {
    fn compare(&self, question: &Question<'_>) -> Result<(), Box<SelfCheckError>> {
        let ruled = self.decide(question);
        let indexed = self.snapshot.check(question, self.now).ok();
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

    /// For an identity that is registered or bound.
    fn decide(&self, question: &Question<'_>) -> Decision {
        if self.snapshot.is_disabled(question.identity) {
            return Decision::deny(Reason::NoBinding);
        }
        let above: Vec<Path<'_>> = question.resource.ancestors().collect();
        let bindings = self.bindings.iter();
        let on_path: Vec<_> =
            bindings.filter(|binding| above.contains(&binding.scope.as_path())).collect();
        let in_time = |binding: &RoleBinding| binding.expires_at.is_none_or(|end| self.now < end);
        let holds = |binding: &RoleBinding| {
            binding.when.iter().all(|condition| self.holds(condition, question.resource))
        };
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
        let endless = ends.contains(&None);
        Decision { reason, valid_until: ends.into_iter().flatten().max().filter(|_| !endless) }
    }

    fn holds(&self, condition: &Condition, resource: Path<'_>) -> bool {
        let index = self.snapshot.index();
        let registered: Option<&Properties> = match condition.category {
            AttributeCategory::Subject => index.identity_properties(self.identity.as_str()),
            AttributeCategory::Resource => index.resource_properties(resource.as_str()),
            AttributeCategory::Action | AttributeCategory::Context => None,
        };
        let value = registered.and_then(|properties| properties.get(&condition.name));
        value.is_some_and(|value| (*value == condition.value) == condition.equals)
    }

    fn has(&self, role: &str, capability: &str) -> bool {
        let catalog = self.snapshot.catalog();
        if let Some(built_in) = catalog.roles().iter().find(|one| one.name == role) {
            return built_in.capabilities.iter().any(|name| name == capability);
        }
        let custom = self.snapshot.roles().iter().find(|one| *one.id == *role);
        custom.is_some_and(|role| {
            let mut names = role.capabilities.iter().map(|at| catalog.capability_name(at));
            names.any(|name| name == Some(capability))
        })
    }
}
