//! Pull tokens (R7): identities with one binding, which a secret proves.

use capstan_engine::{self as engine, Path, Properties, Timestamp};

use super::Effects;
use super::fields::{after, check_field, free_binding_id, new_path};
use crate::limits::{PULL_TOKEN_TTL, PULL_TOKEN_TTL_MAX};
use crate::rules::access::Access;
use crate::{
    Cause, Context, CreatePullToken, Delete, Identity, JudgeError, Kind, Meta, Object, Outcome,
    PULL_TOKEN, PullToken, Refusal, Response, RoleBinding, Rule,
};

const CREATE: [&str; 2] = ["identity.create", "role_bindings.create"];

pub(super) fn create(
    access: &Access<'_>,
    new: &CreatePullToken,
    context: &mut Context<'_>,
) -> Result<Outcome, JudgeError> {
    check_field("name", &new.name)?;
    if new.ttl.is_some_and(|ttl| ttl.is_zero() || ttl > PULL_TOKEN_TTL_MAX) {
        let most = PULL_TOKEN_TTL_MAX.as_secs();
        return Err(
            Refusal::invalid("ttl", format!("expected more than 0 s, up to {most} s")).into()
        );
    }
    let group = new.group.as_path();
    access.require(&CREATE, group)?;
    if !access.view.is_group(group) {
        return Err(Refusal::not_found().into());
    }
    let role = access.bindable_role(&new.role, group, "role")?;
    access.manages_nothing(&role)?;
    let ends = match new.ttl {
        Some(ttl) => after(context.now, ttl),
        // As long as the maker's own right lasts, if that is shorter.
        None => {
            let bound = access.bound_of(&role, &CREATE, group);
            let ends = after(context.now, PULL_TOKEN_TTL);
            bound.map_or(ends, |bound| bound.min(ends))
        }
    };
    access.grant(Rule::PullToken, &role, group, Some(ends), &CREATE)?;
    let meta = Meta::new(context.revision, context.now);
    let identity = Identity {
        id: new_path(access, Kind::Identity, Some(group), None, context).map_err(of_group)?,
        name: new.name.clone(),
        description: String::new(),
        kind: PULL_TOKEN.into(),
        properties: Properties::new(),
        disabled: false,
        authentication: None,
        meta,
    };
    let binding = binding(access, &identity, new, ends, context)?;
    let mut effects = Effects::default();
    effects.create(Object::Identity(identity.clone()));
    effects.create(Object::RoleBinding(binding.clone()));
    let token = PullToken { identity, binding };
    Ok(effects.answer(Response::PullToken(token.into(), new.secret)))
}

/// A refusal of the parent of what is made: here that is the group.
fn of_group(mut error: JudgeError) -> JudgeError {
    if let JudgeError::Refused(refusal) = &mut error {
        for cause in [&mut refusal.told, &mut refusal.real] {
            if let Cause::InvalidField { field, .. } = cause {
                "group".clone_into(field);
            }
        }
    }
    error
}

/// The only binding of a token.
fn binding(
    access: &Access<'_>,
    identity: &Identity,
    new: &CreatePullToken,
    ends: Timestamp,
    context: &mut Context<'_>,
) -> Result<RoleBinding, JudgeError> {
    let fact = engine::RoleBinding {
        id: None,
        identity: identity.id.clone(),
        role: new.role.clone(),
        scope: new.group.clone(),
        expires_at: Some(ends),
        when: vec![],
    };
    let id = free_binding_id(access, &fact, "group", context)?;
    Ok(RoleBinding {
        id,
        name: String::new(),
        description: String::new(),
        identity: fact.identity,
        role: fact.role,
        scope: fact.scope,
        expires_at: fact.expires_at,
        when: fact.when,
        meta: identity.meta,
    })
}

/// Needs `identity.delete` and nothing of what the token holds; a token may revoke itself.
pub(super) fn revoke(access: &Access<'_>, revoke: &Delete) -> Result<Outcome, JudgeError> {
    let id = revoke.id.as_path();
    let Some(parent) = id.parent() else {
        return access
            .require(&["identity.delete"], id)
            .and_then(|()| Err(Refusal::not_found().into()));
    };
    if !access.is(id) {
        access.require(&["identity.delete"], parent)?;
    }
    let token = access.view.identity(id)?.filter(Identity::is_pull_token);
    let token = token.ok_or_else(Refusal::not_found)?;
    let mut effects = Effects::default();
    delete_bindings(access, id, &mut effects)?;
    effects.delete(Object::Identity(token));
    Ok(effects.answer(Response::Deleted))
}

/// Deletes the bindings of an identity that is deleted.
pub(super) fn delete_bindings(
    access: &Access<'_>,
    identity: Path<'_>,
    effects: &mut Effects,
) -> Result<(), JudgeError> {
    for binding in access.view.snapshot().role_bindings(identity) {
        effects.delete(Object::RoleBinding(access.view.whole(binding.id.as_ref())?));
    }
    Ok(())
}
