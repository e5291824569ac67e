//! R4 and R13: which roles and identities may be named where. They bind the operator, too.

use std::sync::Arc;

use capstan_engine::{Path, PathBuf, Role, is_derived_identity};

use crate::object::root_of;
use crate::rules::access::Access;
use crate::{Cause, JudgeError, Refusal, Rule};

impl Access<'_> {
    /// A role that can be bound at a scope. One that is absent and one that is foreign are told alike.
    pub(crate) fn bindable_role(
        &self,
        id: &str,
        scope: Path<'_>,
        field: &str,
    ) -> Result<Arc<Role>, JudgeError> {
        let refuse = |rule| {
            let problem = format!("no role `{id}` can be bound at `{scope}`");
            let field = field.to_owned();
            Err(Refusal::open(rule, Cause::InvalidField { field, problem }).into())
        };
        let Some(role) = self.view.snapshot().role(id) else { return refuse(None) };
        let home = id.rsplit_once('/').and_then(|(home, _)| Path::parse(home).ok());
        match home {
            Some(home) if !home.contains(scope) && self.rules.keeps(Rule::RoleScope) => {
                refuse(Some(Rule::RoleScope))
            }
            _ => Ok(Arc::clone(role)),
        }
    }

    /// An identity that can be bound at a scope: of the same organization, or a root identity, which need not be
    /// registered if its id is a derived one. One that is absent and one that is foreign are told alike.
    pub(crate) fn bindable_identity(
        &self,
        id: Path<'_>,
        scope: Path<'_>,
        field: &str,
    ) -> Result<(), JudgeError> {
        let refuse = |rule| {
            let problem = format!("no identity `{id}` can be bound at `{scope}`");
            let field = field.to_owned();
            Err(Refusal::open(rule, Cause::InvalidField { field, problem }).into())
        };
        match self.view.identity(id)? {
            Some(identity) => {
                let is_foreign = !identity.is_root() && root_of(id) != root_of(scope);
                if is_foreign && self.rules.keeps(Rule::AcrossOrganizations) {
                    return refuse(Some(Rule::AcrossOrganizations));
                }
                if identity.is_pull_token() {
                    let cause = Cause::PullToken { id: PathBuf::from(id) };
                    return Err(Refusal::open(None, cause).into());
                }
                Ok(())
            }
            None if is_derived_identity(id) && !self.view.is_scope(id) => Ok(()),
            None => refuse(None),
        }
    }
}
