//! R16 and R17: what may be taken away, and by whom.

use capstan_engine::{CapabilitySet, Path};

use crate::rights::nothing;
use crate::rules::access::Access;
use crate::{JudgeError, Rule};

impl Access<'_> {
    /// R17: deleting a binding needs `role_bindings.delete` at its scope and what it gives. R16: not for one's own.
    pub(crate) fn take(
        &self,
        identity: Path<'_>,
        role: &str,
        scope: Path<'_>,
    ) -> Result<(), JudgeError> {
        if self.is(identity) && self.rules.keeps(Rule::Own) {
            return Ok(());
        }
        self.require(&["role_bindings.delete"], scope)?;
        self.cover(Rule::Delete, &self.role_capabilities(role), scope)
    }

    /// Holding these capabilities at a scope, because of a rule.
    pub(crate) fn cover(
        &self,
        rule: Rule,
        capabilities: &CapabilitySet,
        scope: Path<'_>,
    ) -> Result<(), JudgeError> {
        if !self.rules.keeps(rule) {
            return Ok(());
        }
        self.miss(Some(rule), &self.rights.lacks(capabilities, scope), scope)
    }

    /// What a role gives. One that is not there gives nothing.
    pub(crate) fn role_capabilities(&self, id: &str) -> CapabilitySet {
        let snapshot = self.view.snapshot();
        let role = snapshot.role(id);
        role.map_or_else(|| nothing(snapshot.catalog()), |role| role.capabilities.clone())
    }
}
