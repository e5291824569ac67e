//! Identity providers of organizations (R9): whoever makes or changes one holds all that its tokens give.
//!
//! ```text
//! issuer ─▶ reserved? another's? keys of an identity? ─▶ control of whom it proves ─▶ grant of the default role, and of
//!                                                                                     what its mappings promise
//! ```

use capstan_engine::Path;

use super::Effects;
use super::fields::{check_etag, check_texts, new_path};
use super::group_invites::role_created;
use super::group_role_mappings::{mappings_of, take_away};
use crate::object::{parent_or_self, root_of};
use crate::rights::set;
use crate::rules::access::Access;
use crate::rules::control::Control;
use crate::{
    Authentication, Cause, Context, CreateIdentityProvider, Delete, Identity, IdentityProvider,
    IdentityProviderUpdate, JudgeError, Kind, Meta, Object, Oidc, Outcome, Refusal, Response, Rule,
    UpdateIdentityProvider,
};

const CREATE: &str = "identity_providers.create";
const UPDATE: &str = "identity_providers.update";
const DELETE: &str = "identity_providers.delete";
const BIND: &str = "role_bindings.create";

// === Create ===

pub(super) fn create(
    access: &Access<'_>,
    new: &CreateIdentityProvider,
    context: &mut Context<'_>,
) -> Result<Outcome, JudgeError> {
    check_texts("identity_provider", Some(&new.name), Some(&new.description))?;
    check_oidc(&new.oidc)?;
    let organization = new.parent.as_path();
    let promises = new.default_role.is_some();
    access.require(if promises { &[CREATE, BIND] } else { &[CREATE] }, organization)?;
    if organization.parent().is_some() {
        let problem = format!("`{organization}` is a folder; expected an organization");
        return Err(Refusal::invalid("parent", problem).into());
    }
    if !access.view.is_group(organization) {
        return Err(Refusal::not_found().into());
    }
    check_issuer(access, organization, &new.oidc.issuer, context)?;
    let provider = IdentityProvider {
        id: new_path(access, Kind::IdentityProvider, Some(organization), new.id.as_ref(), context)?,
        name: new.name.clone(),
        description: new.description.clone(),
        oidc: new.oidc.clone(),
        default_role: new.default_role.clone(),
        role_created: default_role_created(access, new.default_role.as_deref())?,
        creator: access.incarnation()?,
        meta: Meta::new(context.revision, context.now),
    };
    judge(access, &provider, CREATE)?;
    let mut effects = Effects::default();
    effects.create(Object::IdentityProvider(provider.clone()));
    Ok(effects.answer(Response::IdentityProvider(provider)))
}

fn check_oidc(oidc: &Oidc) -> Result<(), Box<Refusal>> {
    oidc.check().map_err(|(field, problem)| {
        Refusal::invalid(format!("identity_provider.oidc.{field}"), problem)
    })
}

/// R9: an issuer of one provider of the organization, and of nothing else that Capstan believes.
fn check_issuer(
    access: &Access<'_>,
    organization: Path<'_>,
    issuer: &str,
    context: &Context<'_>,
) -> Result<(), JudgeError> {
    let field = "identity_provider.oidc.issuer";
    if context.reserved_issuers.iter().any(|reserved| reserved == issuer) {
        let problem = "the issuer is trusted for others, so that no provider can have it";
        return Err(Refusal::invalid(field, problem).into());
    }
    let is_provider = |object: &Object| matches!(object, Object::IdentityProvider(_));
    if let Some(other) = access.naming(organization, issuer, is_provider)? {
        let cause = Cause::Duplicate { id: other.id().clone(), what: "this issuer" };
        return Err(Refusal::open(None, cause).into());
    }
    let has_keys = |object: &Object| {
        matches!(
            object,
            Object::Identity(Identity { authentication: Some(Authentication::StaticKeys(_)), .. })
        )
    };
    if access.naming(organization, issuer, has_keys)?.is_some() {
        let problem = "an identity of the organization has keys of its own for it";
        return Err(Refusal::invalid(field, problem).into());
    }
    Ok(())
}

/// R8: an identity has no keys of its own for the issuer of a provider of its organization.
pub(super) fn check_keys(
    access: &Access<'_>,
    parent: Path<'_>,
    authentication: Option<&Authentication>,
) -> Result<(), JudgeError> {
    let Some(Authentication::StaticKeys(keys)) = authentication else { return Ok(()) };
    let is_provider = |object: &Object| matches!(object, Object::IdentityProvider(_));
    if access.naming(root_of(parent), &keys.issuer, is_provider)?.is_some() {
        let problem =
            "it is the issuer of an identity provider, so that no identity can have keys for it";
        return Err(Refusal::invalid("identity.static_keys.issuer", problem).into());
    }
    Ok(())
}

fn default_role_created(
    access: &Access<'_>,
    default_role: Option<&str>,
) -> Result<Option<u64>, JudgeError> {
    Ok(default_role.map(|role| role_created(&access.view, role)).transpose()?.flatten())
}

/// R9: control of every identity that the provider proves, and a grant, without end, of what it gives.
fn judge(access: &Access<'_>, provider: &IdentityProvider, method: &str) -> Result<(), JudgeError> {
    let organization = provider.organization();
    let grants = [method, BIND];
    if let Some(default) = &provider.default_role {
        let role = access.bindable_role(default, organization, "identity_provider.default_role")?;
        access.grant(Rule::IdentityProvider, &role, organization, None, &grants)?;
    }
    for mapping in mappings_of(access, provider.id.as_path())? {
        let Some(role) = access.view.snapshot().role(&mapping.role) else { continue };
        access.grant(Rule::IdentityProvider, role, mapping.scope.as_path(), None, &grants)?;
    }
    if access.rights.is_operator() {
        return Ok(());
    }
    access.resolve(organization, &provider.oidc.issuer, Control::Resolve)?;
    access.within(&set(access.view.snapshot().catalog(), &[method]), organization, None)
}

// === Update ===

pub(super) fn update(
    access: &Access<'_>,
    update: &UpdateIdentityProvider,
    context: &Context<'_>,
) -> Result<Outcome, JudgeError> {
    let (field, fields) = ("identity_provider", &update.update);
    check_texts(field, fields.name.as_deref(), fields.description.as_deref())?;
    let promises = matches!(fields.default_role, Some(Some(_)));
    let organization = parent_or_self(update.id.as_path());
    access.require(if promises { &[UPDATE, BIND] } else { &[UPDATE] }, organization)?;
    let before = access.view.provider(update.id.as_path())?.ok_or_else(Refusal::not_found)?;
    check_etag(update.etag.as_ref(), &before.meta, &before.id)?;
    if fields.issuer.as_ref().is_some_and(|issuer| *issuer != before.oidc.issuer) {
        let problem = "it cannot change; create another provider and delete this one";
        return Err(Refusal::invalid("identity_provider.oidc.issuer", problem).into());
    }
    let mut after = changed(&before, fields);
    check_oidc(&after.oidc)?;
    let mut effects = Effects::default();
    if after != before {
        let same_gifts = (&after.oidc, &after.default_role) == (&before.oidc, &before.default_role);
        if !same_gifts {
            judge(access, &after, UPDATE)?;
            if let Some(old) =
                before.default_role.as_ref().filter(|_| after.default_role != before.default_role)
            {
                access.cover(Rule::Delete, &access.role_capabilities(old), organization)?;
            }
            after.role_created = default_role_created(access, after.default_role.as_deref())?;
            after.creator = access.incarnation()?;
        }
        after.meta = before.meta.changed(context.revision, context.now);
        effects.update(Object::IdentityProvider(before), Object::IdentityProvider(after.clone()));
    }
    Ok(effects.answer(Response::IdentityProvider(after)))
}

fn changed(before: &IdentityProvider, fields: &IdentityProviderUpdate) -> IdentityProvider {
    let mut after = before.clone();
    after.name = fields.name.clone().unwrap_or(after.name);
    after.description = fields.description.clone().unwrap_or(after.description);
    after.oidc.client_id = fields.client_id.clone().unwrap_or(after.oidc.client_id);
    after.oidc.audiences = fields.audiences.clone().unwrap_or(after.oidc.audiences);
    after.oidc.jwks = fields.jwks.clone().unwrap_or(after.oidc.jwks);
    after.oidc.groups_claim = fields.groups_claim.clone().unwrap_or(after.oidc.groups_claim);
    after.oidc.algorithms = fields.algorithms.clone().unwrap_or(after.oidc.algorithms);
    after.default_role = fields.default_role.clone().unwrap_or(after.default_role);
    after
}

// === Delete ===

/// Deletes a provider. Its mappings go with it, each judged as its own delete.
pub(super) fn delete(access: &Access<'_>, delete: &Delete) -> Result<Outcome, JudgeError> {
    let organization = parent_or_self(delete.id.as_path());
    access.require(&[DELETE], organization)?;
    let provider = access.view.provider(delete.id.as_path())?.ok_or_else(Refusal::not_found)?;
    check_etag(delete.etag.as_ref(), &provider.meta, &provider.id)?;
    // Who is proved by it can call no more.
    access.resolve(organization, &provider.oidc.issuer, Control::Unresolve)?;
    if let Some(default) = &provider.default_role {
        access.cover(Rule::Delete, &access.role_capabilities(default), organization)?;
    }
    let mut effects = Effects::default();
    for mapping in mappings_of(access, provider.id.as_path())? {
        take_away(access, &mapping)?;
        effects.delete(Object::GroupRoleMapping(mapping));
    }
    effects.delete(Object::IdentityProvider(provider));
    Ok(effects.answer(Response::Deleted))
}
