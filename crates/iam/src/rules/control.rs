//! R8, R9 and R17 for identities: who controls an identity has all that it reaches. R8 for resources.

use capstan_engine::{AttributeCategory, Path, RoleBinding, Timestamp};

use crate::object::parent_or_self;
use crate::rights::set;
use crate::rules::access::Access;
use crate::{JudgeError, Rule};

/// How an identity is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// Another way to authenticate, which ends then.
    Authentication(Option<Timestamp>),
    /// No way to authenticate any more.
    NoAuthentication,
    /// Other properties.
    Properties,
    /// Its bindings count again.
    Enable,
    /// Its bindings do not count any more.
    Disable,
    /// It and its bindings are deleted.
    Delete,
    /// A provider or an association resolves to it, without end.
    Resolve,
    /// A provider or an association resolves to it no more.
    Unresolve,
}

const UPDATE: &str = "identity.update";
const CREATE_BINDING: &str = "role_bindings.create";
const DELETE_BINDING: &str = "role_bindings.delete";

impl Access<'_> {
    /// R8, R9 and R17: a change of an identity below `parent`, by an actor that has the method's own capability. Root
    /// identities are not judged by this: R13 leaves them to themselves and the operator.
    pub(crate) fn control(
        &self,
        identity: Path<'_>,
        parent: Path<'_>,
        how: Control,
    ) -> Result<(), JudgeError> {
        if self.rights.is_operator() {
            return Ok(());
        }
        let (rule, takes) = match how {
            Control::Disable | Control::Delete => (Rule::Delete, true),
            Control::Resolve | Control::Unresolve => (Rule::IdentityProvider, false),
            _ => (Rule::CredentialChange, false),
        };
        if takes && self.is(identity) {
            return Ok(()); // R17: or being it
        }
        // R8: a narrowed credential makes none of its own identity that is held to nothing.
        if !takes
            && self.actor.narrowing().is_some()
            && self.is_shown_itself(identity)
            && self.rules.keeps(Rule::Narrowed)
        {
            let missing = set(self.view.snapshot().catalog(), &[UPDATE]);
            return self.miss(Some(Rule::Narrowed), &missing, parent);
        }
        let mut bindings = self.view.snapshot().role_bindings(identity);
        bindings.sort_by(|a, b| (&a.scope, &a.id).cmp(&(&b.scope, &b.id)));
        if self.rules.keeps(rule) {
            for binding in &bindings {
                let scope = binding.scope.as_path();
                let missing = self.rights.lacks(&self.role_capabilities(&binding.role), scope);
                let also: &[_] = if takes { &[DELETE_BINDING] } else { &[] };
                self.miss_also(rule, &missing, also, scope)?;
            }
        }
        self.control_ends(parent, how, &bindings)
    }

    /// R14 for the changes of R8: what they make ends no later than the actor's right.
    fn control_ends(
        &self,
        parent: Path<'_>,
        how: Control,
        bindings: &[RoleBinding],
    ) -> Result<(), JudgeError> {
        let update = set(self.view.snapshot().catalog(), &[UPDATE]);
        match how {
            Control::Authentication(ends) => {
                self.within(&update, parent, ends)?;
                // The identity could pass on what it has for ever, as long as it is controlled: its bindings end in
                // time, too, and not only what it authenticates with.
                for binding in bindings {
                    let by = self.role_capabilities(&binding.role);
                    let last = ends.and_then(|ends| Some(ends.max(binding.expires_at?)));
                    self.within(&by, binding.scope.as_path(), last)?;
                }
            }
            Control::Enable => {
                for binding in bindings {
                    let by = self.role_capabilities(&binding.role);
                    self.within(&by, binding.scope.as_path(), binding.expires_at)?;
                    self.within(&update, parent, binding.expires_at)?;
                }
            }
            Control::Properties => {
                let tests = |binding: &&RoleBinding| has_subject_test(binding);
                for binding in bindings.iter().filter(tests) {
                    self.turn_on(binding)?;
                    self.within(&update, parent, binding.expires_at)?;
                }
            }
            Control::Resolve => {
                for binding in bindings {
                    let by = self.role_capabilities(&binding.role);
                    self.within(&by, binding.scope.as_path(), None)?;
                }
            }
            // Taking away needs no bound.
            Control::NoAuthentication | Control::Disable | Control::Delete | Control::Unresolve => {
            }
        }
        Ok(())
    }

    /// R8 for the properties of a resource: R1 over every conditional binding at or above it that tests them. The
    /// method needs this capability at the parent.
    pub(crate) fn control_resource(
        &self,
        resource: Path<'_>,
        method: &str,
    ) -> Result<(), JudgeError> {
        if self.rights.is_operator() {
            return Ok(());
        }
        let (snapshot, category) = (self.view.snapshot(), AttributeCategory::Resource);
        let method = set(snapshot.catalog(), &[method]);
        for scope in resource.ancestors() {
            for binding in snapshot.conditional_bindings_at(scope, category) {
                self.turn_on(&binding)?;
                self.within(&method, parent_or_self(resource), binding.expires_at)?;
            }
        }
        Ok(())
    }

    /// A change that may make the tests of a binding hold: as granting it.
    fn turn_on(&self, binding: &RoleBinding) -> Result<(), JudgeError> {
        let Some(role) = self.view.snapshot().role(&binding.role) else { return Ok(()) };
        let scope = binding.scope.as_path();
        self.grant(Rule::CredentialChange, role, scope, binding.expires_at, &[CREATE_BINDING])
    }
}

fn has_subject_test(binding: &RoleBinding) -> bool {
    binding.when.iter().any(|condition| condition.category == AttributeCategory::Subject)
}
