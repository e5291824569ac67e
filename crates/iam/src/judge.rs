//! Judges an operation on the state before it: what it does, or why it is refused.
//!
//! ```text
//! is the caller known ▸ are texts, types and properties well formed ▸ the method's capability on the path ▸ can an
//! identity authenticate so ▸ is it there, with this etag ▸ are references there ▸ the rules ▸ is there still an owner
//! ```
//!
//! The order is part of the contract: a caller that lacks the capability learns nothing of what exists. Nor does it
//! cost more than to read its request: patterns are compiled after the capability.

mod account_associations;
mod bindings;
mod fields;
mod group_invites;
mod group_role_mappings;
mod groups;
mod identities;
mod identity_providers;
mod pull_tokens;
mod resources;
mod roles;
mod subscriptions;

use capstan_engine::Change;

pub(crate) use resources::capability as resource_capability;

use crate::rules::access::Access;
use crate::{Actor, Context, JudgeError, Object, ObjectChange, Operation, Outcome, Response};
use crate::{RuleSet, State};

/// Judges an operation on the state before it.
///
/// # Errors
///
/// It is refused, or the state cannot be read.
pub fn judge(
    rules: &RuleSet,
    state: &State<'_>,
    actor: &Actor,
    operation: &Operation,
    context: &mut Context<'_>,
) -> Result<Outcome, JudgeError> {
    if let Operation::AcceptGroupInvite(one) = operation {
        // Who asks need not be registered, and takes nothing away.
        return group_invites::accept(*rules, state, actor, one, context);
    }
    let access = Access::new(*rules, *state, actor, context.now)?;
    let outcome = match operation {
        Operation::CreateGroup(one) => groups::create(&access, one, context),
        Operation::UpdateGroup(one) => groups::update(&access, one, context),
        Operation::DeleteGroup(one) => groups::delete(&access, one),
        Operation::CreateRole(one) => roles::create(&access, one, context),
        Operation::UpdateRole(one) => roles::update(&access, one, context),
        Operation::DeleteRole(one) => roles::delete(&access, one),
        Operation::CreateRoleBinding(one) => bindings::create(&access, one, context),
        Operation::UpdateRoleBinding(one) => bindings::update(&access, one, context),
        Operation::DeleteRoleBinding(one) => bindings::delete(&access, one),
        Operation::BatchCreateRoleBindings(one) => bindings::create_batch(&access, one, context),
        Operation::BatchDeleteRoleBindings(one) => bindings::delete_batch(&access, one),
        Operation::RemoveMember(one) => bindings::remove_member(&access, one),
        Operation::CreateIdentity(one) => identities::create(&access, one, context),
        Operation::UpdateIdentity(one) => identities::update(&access, one, context),
        Operation::DeleteIdentity(one) => identities::delete(&access, one),
        Operation::CreatePullToken(one) => pull_tokens::create(&access, one, context),
        Operation::RevokePullToken(one) => pull_tokens::revoke(&access, one),
        Operation::CreateGroupInvite(one) => group_invites::create(&access, one, context),
        Operation::UpdateGroupInvite(one) => group_invites::update(&access, one, context),
        Operation::DeleteGroupInvite(one) => group_invites::delete(&access, one),
        Operation::AcceptGroupInvite(one) => {
            group_invites::accept(*rules, state, actor, one, context)
        }
        Operation::CreateSubscription(one) => subscriptions::create(&access, one, context),
        Operation::UpdateSubscription(one) => subscriptions::update(&access, one, context),
        Operation::DeleteSubscription(one) => subscriptions::delete(&access, one),
        Operation::SetSubscriptionState(one) => subscriptions::set_state(&access, one, context),
        Operation::CreateResource(one) => resources::create(&access, one, context),
        Operation::UpdateResource(one) => resources::update(&access, one, context),
        Operation::DeleteResource(one) => resources::delete(&access, one),
        Operation::CreateIdentityProvider(one) => identity_providers::create(&access, one, context),
        Operation::UpdateIdentityProvider(one) => identity_providers::update(&access, one, context),
        Operation::DeleteIdentityProvider(one) => identity_providers::delete(&access, one),
        Operation::CreateGroupRoleMapping(one) => {
            group_role_mappings::create(&access, one, context)
        }
        Operation::UpdateGroupRoleMapping(one) => {
            group_role_mappings::update(&access, one, context)
        }
        Operation::DeleteGroupRoleMapping(one) => group_role_mappings::delete(&access, one),
        Operation::CreateAccountAssociation(one) => {
            account_associations::create(&access, one, context)
        }
        Operation::UpdateAccountAssociation(one) => {
            account_associations::update(&access, one, context)
        }
        Operation::DeleteAccountAssociation(one) => account_associations::delete(&access, one),
    }?;
    access.keep_owner(&outcome.objects)?;
    Ok(outcome)
}

/// Collects what an operation does.
#[derive(Debug, Default)]
struct Effects {
    objects: Vec<ObjectChange>,
    changes: Vec<Change>,
}

impl Effects {
    fn create(&mut self, object: Object) {
        self.changes.extend(object.created());
        self.change(None, Some(object));
    }

    fn update(&mut self, before: Object, after: Object) {
        self.changes.extend(after.updated());
        self.change(Some(before), Some(after));
    }

    fn delete(&mut self, object: Object) {
        self.changes.extend(object.deleted());
        self.change(Some(object), None);
    }

    fn change(&mut self, before: Option<Object>, after: Option<Object>) {
        if let Some(object) = after.as_ref().or(before.as_ref()) {
            let (kind, id) = (object.kind(), object.id().clone());
            self.objects.push(ObjectChange { kind, id, before, after });
        }
    }

    fn answer(self, response: Response) -> Outcome {
        Outcome { objects: self.objects, changes: self.changes, response }
    }
}
