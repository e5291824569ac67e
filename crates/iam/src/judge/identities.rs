//! Identities: people, services, and how they prove who they are.

use capstan_engine::{Path, PathBuf};

use super::Effects;
use super::fields::{check_etag, check_properties, check_texts, check_type, free, new_path};
use super::identity_providers::check_keys;
use super::pull_tokens::delete_bindings;
use crate::rules::access::Access;
use crate::rules::control::Control;
use crate::{
    Authentication, Cause, Context, CreateIdentity, Delete, Identity, IdentityUpdate, JudgeError,
    Kind, Meta, Object, Outcome, PULL_TOKEN, Refusal, Response, Rule, USER, UpdateIdentity,
    derived_identity_id,
};

pub(super) fn create(
    access: &Access<'_>,
    new: &CreateIdentity,
    context: &mut Context<'_>,
) -> Result<Outcome, JudgeError> {
    let kind = if new.kind.is_empty() { USER } else { &new.kind };
    check_texts("identity", Some(&new.name), Some(&new.description))?;
    check_type("identity.type", kind)?;
    if kind == PULL_TOKEN {
        let problem = "pull tokens are made by PullTokenService";
        return Err(Refusal::invalid("identity.type", problem).into());
    }
    check_properties("identity.properties", &new.properties)?;
    let id = match &new.parent {
        None => {
            access.only_operator(Rule::AcrossOrganizations, None)?;
            check_authentication(new.authentication.as_ref(), context)?;
            root_path(access, new, context)?
        }
        Some(parent) => {
            let parent = parent.as_path();
            access.require(&["identity.create"], parent)?;
            check_authentication(new.authentication.as_ref(), context)?;
            if !access.view.is_group(parent) {
                return Err(Refusal::not_found().into());
            }
            check_keys(access, parent, new.authentication.as_ref())?;
            new_path(access, Kind::Identity, Some(parent), new.id.as_ref(), context)?
        }
    };
    let identity = Identity {
        id,
        name: new.name.clone(),
        description: new.description.clone(),
        kind: kind.to_owned(),
        properties: new.properties.clone(),
        disabled: new.disabled,
        authentication: new.authentication.clone(),
        meta: Meta::new(context.revision, context.now),
    };
    let mut effects = Effects::default();
    effects.create(Object::Identity(identity.clone()));
    Ok(effects.answer(Response::Identity(identity)))
}

/// How an identity authenticates. It compiles patterns, so it comes after the method's capability: whoever may not make
/// or change the identity cannot occupy the writer with them.
fn check_authentication(
    authentication: Option<&Authentication>,
    context: &Context<'_>,
) -> Result<(), Box<Refusal>> {
    let Some(authentication) = authentication else { return Ok(()) };
    let invalid =
        |field: &str, problem: &str| Refusal::invalid(format!("identity.{field}"), problem);
    authentication.check().map_err(|error| invalid(&error.field, &error.problem))?;
    match authentication {
        Authentication::StaticKeys(keys)
            if context.reserved_issuers.contains(&keys.issuer)
                || context.trusted_issuers.contains(&keys.issuer) =>
        {
            let problem =
                "the issuer is trusted for others, so that no identity can have keys for it";
            Err(invalid("static_keys.issuer", problem))
        }
        _ => Ok(()),
    }
}

/// The derived id that a root identity with this authentication has; `None` if it has none.
fn derived(authentication: Option<&Authentication>) -> Result<Option<PathBuf>, Box<Refusal>> {
    let Some((issuer, subject)) = authentication.and_then(Authentication::literal) else {
        return Ok(None);
    };
    let id = derived_identity_id(issuer, subject)
        .map_err(|error| Refusal::invalid(format!("identity.{}", error.field), error.problem))?;
    let parsed = id.parse();
    parsed.map(Some).map_err(|_| Refusal::invalid("identity.id", "it cannot be derived"))
}

/// R13: a root identity with a literal issuer and subject has the id that is derived from them.
fn check_root_id(
    id: &PathBuf,
    authentication: Option<&Authentication>,
) -> Result<(), Box<Refusal>> {
    match derived(authentication)? {
        Some(derived) if derived != *id => {
            let field = "identity.id".to_owned();
            let problem =
                format!("a root identity with this issuer and subject has the id `{derived}`");
            let cause = Cause::InvalidField { field, problem };
            Err(Refusal::open(Some(Rule::AcrossOrganizations), cause))
        }
        _ => Ok(()),
    }
}

fn root_path(
    access: &Access<'_>,
    new: &CreateIdentity,
    context: &mut Context<'_>,
) -> Result<PathBuf, JudgeError> {
    if let Some(id) = &new.id {
        check_root_id(id, new.authentication.as_ref())?;
    }
    match derived(new.authentication.as_ref())? {
        Some(id) => {
            free(access, Kind::Identity, &id)?;
            Ok(id)
        }
        None => new_path(access, Kind::Identity, None, new.id.as_ref(), context),
    }
}

pub(super) fn update(
    access: &Access<'_>,
    update: &UpdateIdentity,
    context: &Context<'_>,
) -> Result<Outcome, JudgeError> {
    let fields = &update.update;
    check_texts("identity", fields.name.as_deref(), fields.description.as_deref())?;
    if let Some(properties) = &fields.properties {
        check_properties("identity.properties", properties)?;
    }
    let id = update.id.as_path();
    let parent = id.parent();
    let before = match (access.view.identity(id)?, parent) {
        (found, Some(parent)) => {
            let rotates = found.as_ref().is_some_and(|it| access.is(id) && rotates(it, fields));
            if !rotates {
                access.require(&["identity.update"], parent)?;
            }
            found.ok_or_else(Refusal::not_found)?
        }
        (Some(found), None) => {
            root_update(access, &found, fields)?;
            found
        }
        (None, None) => return Err(Refusal::not_found().into()),
    };
    check_authentication(fields.authentication.as_ref().and_then(Option::as_ref), context)?;
    check_etag(update.etag.as_ref(), &before.meta, &before.id)?;
    if let Some(parent) = parent {
        check_keys(access, parent, fields.authentication.as_ref().and_then(Option::as_ref))?;
    }
    if fields.kind.as_ref().is_some_and(|kind| *kind != before.kind) {
        return Err(Refusal::invalid("identity.type", "it cannot change").into());
    }
    let after = changed(&before, fields);
    let only_texts = Identity {
        name: after.name.clone(),
        description: after.description.clone(),
        ..before.clone()
    };
    if before.is_pull_token() && after != only_texts {
        return Err(Refusal::open(None, Cause::PullToken { id: before.id }).into());
    }
    match parent {
        Some(parent) => control(access, &before, &after, parent)?,
        None => check_root_id(&after.id, after.authentication.as_ref())?,
    }
    let mut effects = Effects::default();
    let mut after = after;
    if after != before {
        after.meta = before.meta.changed(context.revision, context.now);
        effects.update(Object::Identity(before), Object::Identity(after.clone()));
    }
    Ok(effects.answer(Response::Identity(after)))
}

fn changed(before: &Identity, fields: &IdentityUpdate) -> Identity {
    let mut after = before.clone();
    after.name = fields.name.clone().unwrap_or(after.name);
    after.description = fields.description.clone().unwrap_or(after.description);
    after.properties = fields.properties.clone().unwrap_or(after.properties);
    after.disabled = fields.disabled.unwrap_or(after.disabled);
    after.authentication = fields.authentication.clone().unwrap_or(after.authentication);
    after
}

/// Whether an update gives an identity other keys and does nothing else.
fn rotates(before: &Identity, fields: &IdentityUpdate) -> bool {
    let after = changed(before, fields);
    let keys_only = Identity { authentication: after.authentication.clone(), ..before.clone() };
    after == keys_only
        && match (&before.authentication, &after.authentication) {
            (Some(old), Some(new)) => old != new && old.is_rotated_to(new),
            _ => false,
        }
}

/// R13: a root identity changes its own name, description and keys; everything else is the operator's.
fn root_update(
    access: &Access<'_>,
    before: &Identity,
    fields: &IdentityUpdate,
) -> Result<(), JudgeError> {
    let id = before.id.as_path();
    if !access.is(id) {
        return root_of_another(access, id);
    }
    let after = changed(before, fields);
    let own = Identity {
        name: after.name.clone(),
        description: after.description.clone(),
        authentication: after.authentication.clone(),
        ..before.clone()
    };
    let keeps_kind = match (&before.authentication, &after.authentication) {
        (Some(old), Some(new)) => old == new || old.is_rotated_to(new),
        (old, new) => old == new,
    };
    if after == own && keeps_kind {
        return Ok(());
    }
    access.only_operator(Rule::AcrossOrganizations, None)
}

/// R13: a root identity that is not the actor: the operator's. Told to who may see it and holds `groups.list` where
/// it is bound.
fn root_of_another(access: &Access<'_>, id: Path<'_>) -> Result<(), JudgeError> {
    let holds = |capability, scope| access.rights.holds(capability, scope);
    let seen = access
        .view
        .snapshot()
        .bound_scopes(id)
        .filter(|scope| holds("role_bindings.list", *scope) && holds("groups.list", *scope))
        .min();
    access.only_operator(Rule::AcrossOrganizations, Some(seen.unwrap_or(id)))
}

/// R8 and R17 for what changes.
fn control(
    access: &Access<'_>,
    before: &Identity,
    after: &Identity,
    parent: Path<'_>,
) -> Result<(), JudgeError> {
    let id = before.id.as_path();
    if after.authentication != before.authentication && !is_own_rotation(access, before, after) {
        let how = match &after.authentication {
            Some(new) => Control::Authentication(new.expires_at()),
            None => Control::NoAuthentication,
        };
        access.control(id, parent, how)?;
    }
    if after.properties != before.properties {
        access.control(id, parent, Control::Properties)?;
    }
    match (before.disabled, after.disabled) {
        (false, true) => access.control(id, parent, Control::Disable),
        (true, false) => access.control(id, parent, Control::Enable),
        _ => Ok(()),
    }
}

fn is_own_rotation(access: &Access<'_>, before: &Identity, after: &Identity) -> bool {
    let (Some(old), Some(new)) = (&before.authentication, &after.authentication) else {
        return false;
    };
    access.is(before.id.as_path()) && old.is_rotated_to(new)
}

/// Deletes an identity and its bindings.
pub(super) fn delete(access: &Access<'_>, delete: &Delete) -> Result<Outcome, JudgeError> {
    let id = delete.id.as_path();
    let identity = match (access.view.identity(id)?, id.parent()) {
        (found, Some(parent)) => {
            access.require(&["identity.delete"], parent)?;
            let found = found.ok_or_else(Refusal::not_found)?;
            access.control(id, parent, Control::Delete)?;
            found
        }
        (Some(found), None) => {
            if !access.is(id) {
                root_of_another(access, id)?;
            }
            found
        }
        (None, None) => return Err(Refusal::not_found().into()),
    };
    check_etag(delete.etag.as_ref(), &identity.meta, &identity.id)?;
    let mut effects = Effects::default();
    delete_bindings(access, id, &mut effects)?;
    effects.delete(Object::Identity(identity));
    Ok(effects.answer(Response::Deleted))
}
