//! R1 and R14: what may be given, and until when.

use capstan_engine::{CapabilitySet, Path, Role, Timestamp};

use crate::rights::{names, set};
use crate::rules::access::Access;
use crate::{Cause, JudgeError, Refusal, Rule};

/// The kinds whose capabilities manage access, `.list` aside: the set M of the rules. A test of the server compares them
/// with its table of methods.
const MANAGED: [&str; 8] = [
    "account_associations",
    "group_invites",
    "groups",
    "identity",
    "identity_providers",
    "role_bindings",
    "roles",
    "subscriptions",
];

/// Whether a capability manages access: who holds it can change who may do what. R1 asks for more of whoever gives it.
#[must_use]
pub fn manages_access(capability: &str) -> bool {
    capability.rsplit_once('.').is_some_and(|(kind, action)| {
        MANAGED.contains(&kind) && matches!(action, "create" | "update" | "delete")
    })
}

/// What undoes a grant.
const UNDO: &str = "role_bindings.delete";

impl Access<'_> {
    /// R1 and R14: giving a role at a scope until a time, by a method that needs these capabilities there. `rule` is
    /// the one that asks for it, in the text of a refusal.
    pub(crate) fn grant(
        &self,
        rule: Rule,
        role: &Role,
        scope: Path<'_>,
        ends: Option<Timestamp>,
        method: &[&str],
    ) -> Result<(), JudgeError> {
        if self.rights.is_operator() {
            return Ok(());
        }
        let catalog = self.view.snapshot().catalog();
        let undo = self.manages(role).then_some(UNDO);
        let method: Vec<_> = method.iter().copied().chain(undo).collect();
        if self.rules.keeps(rule) {
            let missing = self.rights.lacks(&role.capabilities, scope);
            self.miss_also(rule, &missing, &method, scope)?;
        }
        let mut by = set(catalog, &method);
        by.add(&role.capabilities);
        self.within(&by, scope, ends)
    }

    /// Whether a role manages access.
    pub(crate) fn manages(&self, role: &Role) -> bool {
        let catalog = self.view.snapshot().catalog();
        let mut names = role.capabilities.iter().filter_map(|one| catalog.capability_name(one));
        names.any(manages_access)
    }

    /// R7: a role that manages no access. It binds the operator, too.
    pub(crate) fn manages_nothing(&self, role: &Role) -> Result<(), JudgeError> {
        let catalog = self.view.snapshot().catalog();
        let mut names = role.capabilities.iter().filter_map(|one| catalog.capability_name(one));
        match names.find(|name| manages_access(name)) {
            Some(capability) if self.rules.keeps(Rule::PullToken) => {
                let home = role.id.rsplit_once('/').and_then(|(home, _)| Path::parse(home).ok());
                // Everybody sees the built-in roles.
                let is_seen = home.is_none_or(|home| self.rights.holds("roles.list", home));
                let cause = |capability| {
                    let role = role.id.to_string();
                    Cause::RoleNotAllowed { role, capability }
                };
                let real = cause(Some(capability.to_owned()));
                let told = if is_seen { real.clone() } else { cause(None) };
                Err(Box::new(Refusal { told, ..*Refusal::open(Some(Rule::PullToken), real) })
                    .into())
            }
            _ => Ok(()),
        }
    }

    /// When what is given by these capabilities must end at the latest; `None` for never (R14).
    fn bound(&self, by: &CapabilitySet, scope: Path<'_>) -> Option<Timestamp> {
        self.rights.until(by, scope).filter(|_| self.rules.keeps(Rule::Duration))
    }

    /// [`Self::bound`] of a role that is given by a method which needs these capabilities.
    pub(crate) fn bound_of(
        &self,
        role: &Role,
        method: &[&str],
        scope: Path<'_>,
    ) -> Option<Timestamp> {
        let mut by = set(self.view.snapshot().catalog(), method);
        by.add(&role.capabilities);
        self.bound(&by, scope)
    }

    /// R14: what is given by these capabilities ends no later than they do.
    pub(crate) fn within(
        &self,
        by: &CapabilitySet,
        scope: Path<'_>,
        ends: Option<Timestamp>,
    ) -> Result<(), JudgeError> {
        let Some(bound) = self.bound(by, scope) else { return Ok(()) };
        if ends.is_some_and(|ends| ends <= bound) {
            return Ok(());
        }
        let cause = Cause::DurationExceeded { scope: scope.into(), bound };
        Err(self.refuse(Some(Rule::Duration), cause, scope))
    }

    /// Refuses if capabilities are missing, or any of these names is not held, which the catalog may lack.
    pub(crate) fn miss_also(
        &self,
        rule: Rule,
        missing: &CapabilitySet,
        also: &[&str],
        scope: Path<'_>,
    ) -> Result<(), JudgeError> {
        let mut missing = names(self.view.snapshot().catalog(), missing);
        let also = also.iter().filter(|name| !self.rights.holds(name, scope));
        missing.extend(also.map(|name| (*name).to_owned()));
        missing.sort_unstable();
        missing.dedup();
        if missing.is_empty() {
            return Ok(());
        }
        let cause = Cause::MissingCapability { scope: scope.into(), missing };
        Err(self.refuse(Some(rule), cause, scope))
    }
}
