//! Explain: why a decision is what it is, for someone who wants to change it.

use std::sync::Arc;

use crate::model::path::contains;
use crate::{
    CapabilityIx, Decision, Grant, Path, Question, Role, Snapshot, Timestamp, UnknownCapability,
};

/// A decision, with its witness or with the roles that would change it.
#[derive(Clone, Debug)]
pub struct Explanation<'s> {
    /// The decision.
    pub decision: Decision,
    /// On an allow, the granting binding with the latest expiry; of several, the topmost.
    pub witness: Option<Grant<'s>>,
    /// On a deny, the roles that would give the capability: all built-in ones that have it, and
    /// custom ones whose group is at or above the resource; fewest capabilities first, then by
    /// name.
    pub roles: Vec<&'s str>,
}

impl Snapshot {
    /// Why may this identity do this here, or what would let it?
    ///
    /// # Errors
    ///
    /// The catalog has no such capability.
    pub fn explain(
        &self,
        question: &Question<'_>,
        now: Timestamp,
    ) -> Result<Explanation<'_>, UnknownCapability> {
        let decision = self.check(question, now)?;
        let capability = self.capability(question.capability)?;
        let Question { identity, resource, attributes, .. } = *question;
        if !decision.allowed() {
            let roles = self.roles_that_give(capability, resource);
            return Ok(Explanation { decision, witness: None, roles });
        }
        let matrix = self.index().roles().matrix();
        let witnesses = self.counting(identity, resource, attributes, now, |binding| {
            matrix.has(binding.packed.role, capability)
                && binding.expires_at() == decision.valid_until
        });
        let witness = witnesses.first().map(|binding| self.grant(identity.as_str(), binding));
        Ok(Explanation { decision, witness, roles: vec![] })
    }

    fn roles_that_give(&self, capability: CapabilityIx, resource: Path<'_>) -> Vec<&str> {
        let usable = |role: &&Arc<Role>| match role.id.rsplit_once('/') {
            Some((group, _)) => contains(group, resource.as_str()),
            None => true,
        };
        let roles = self.roles().iter().filter(|role| role.capabilities.contains(capability));
        let mut roles: Vec<_> = roles.filter(usable).collect();
        roles.sort_by_key(|role| (role.capabilities.len(), &role.id));
        roles.into_iter().map(|role| &*role.id).collect()
    }
}
