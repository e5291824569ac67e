//! Custom roles.

use capstan_engine::{CapabilitySet, PathBuf, did_you_mean};

use super::Effects;
use super::fields::{check_etag, check_texts, new_path};
use crate::object::parent_or_self;
use crate::rights::{names, set};
use crate::rules::access::Access;
use crate::{
    Cause, Context, CreateRole, Delete, JudgeError, Kind, Meta, Object, Outcome, Refusal, Response,
    Role, Rule, UpdateRole,
};

pub(super) fn create(
    access: &Access<'_>,
    new: &CreateRole,
    context: &mut Context<'_>,
) -> Result<Outcome, JudgeError> {
    check_texts("role", Some(&new.name), Some(&new.description))?;
    let capabilities = read_capabilities(access, &new.capabilities)?;
    let home = new.parent.as_path();
    access.require(&["roles.create"], home)?;
    if !access.view.is_group(home) {
        return Err(Refusal::not_found().into());
    }
    access.cover(Rule::RoleCreate, &capabilities, home)?;
    let id = new_path(access, Kind::Role, Some(home), new.id.as_ref(), context)?;
    let role = Role {
        id,
        name: new.name.clone(),
        description: new.description.clone(),
        capabilities: names(access.view.snapshot().catalog(), &capabilities),
        meta: Meta::new(context.revision, context.now),
    };
    let mut effects = Effects::default();
    effects.create(Object::Role(role.clone()));
    Ok(effects.answer(Response::Role(role)))
}

/// R19: capabilities of the catalog.
fn read_capabilities(access: &Access<'_>, names: &[String]) -> Result<CapabilitySet, Box<Refusal>> {
    let catalog = access.view.snapshot().catalog();
    let unknown = names.iter().position(|name| catalog.capability(name).is_none());
    let Some((at, name)) = unknown.and_then(|at| Some((at, names.get(at)?))) else {
        return Ok(catalog.capability_set(names));
    };
    let similar = did_you_mean(name, catalog.capabilities());
    let problem = format!("catalog `{}` has no such capability{similar}", catalog.name());
    let field = format!("role.capabilities[{at}]");
    let cause = Cause::InvalidField { field, problem };
    Err(Refusal::open(Some(Rule::ClosedCatalog), cause))
}

/// Everybody sees the built-in roles, so that they cannot be changed is told to everybody.
fn check_custom(access: &Access<'_>, id: &PathBuf) -> Result<(), Box<Refusal>> {
    if id.as_path().parent().is_some() {
        return Ok(());
    }
    let is_built_in =
        access.view.snapshot().catalog().roles().iter().any(|role| *role.name == *id.as_str());
    if is_built_in {
        return Err(Refusal::open(None, Cause::BuiltIn { id: id.clone() }));
    }
    Err(Refusal::not_found())
}

pub(super) fn update(
    access: &Access<'_>,
    update: &UpdateRole,
    context: &Context<'_>,
) -> Result<Outcome, JudgeError> {
    check_texts("role", update.name.as_deref(), update.description.as_deref())?;
    let capabilities =
        update.capabilities.as_ref().map(|names| read_capabilities(access, names)).transpose()?;
    check_custom(access, &update.id)?;
    let home = parent_or_self(update.id.as_path());
    access.require(&["roles.update"], home)?;
    let before = access.view.role(update.id.as_path())?.ok_or_else(Refusal::not_found)?;
    check_etag(update.etag.as_ref(), &before.meta, &before.id)?;
    let mut after = before.clone();
    after.name = update.name.clone().unwrap_or(after.name);
    after.description = update.description.clone().unwrap_or(after.description);
    if let Some(new) = capabilities {
        // R3: what is added is given to whoever has the role, wherever below its home that is.
        let catalog = access.view.snapshot().catalog();
        let old = access.role_capabilities(before.id.as_str());
        let mut added = new.without(&old);
        access.cover(Rule::RoleUpdate, &added, home)?;
        access.cover(Rule::RoleUpdate, &old.without(&new), home)?;
        if !added.is_empty() {
            added.add(&set(catalog, &["roles.update"]));
            access.within(&added, home, None)?;
        }
        after.capabilities = names(catalog, &new);
    }
    let mut effects = Effects::default();
    if after != before {
        after.meta = before.meta.changed(context.revision, context.now);
        effects.update(Object::Role(before), Object::Role(after.clone()));
    }
    Ok(effects.answer(Response::Role(after)))
}

pub(super) fn delete(access: &Access<'_>, delete: &Delete) -> Result<Outcome, JudgeError> {
    check_custom(access, &delete.id)?;
    access.require(&["roles.delete"], parent_or_self(delete.id.as_path()))?;
    let role = access.view.role(delete.id.as_path())?.ok_or_else(Refusal::not_found)?;
    check_etag(delete.etag.as_ref(), &role.meta, &role.id)?;
    let bindings = access.view.snapshot().role_bindings_len(role.id.as_str());
    let is_bound = bindings.is_some_and(|bindings| bindings > 0);
    if is_bound || access.view.0.objects.is_promised(role.id.as_str())? {
        return Err(Refusal::open(None, Cause::RoleInUse { id: role.id }).into());
    }
    let mut effects = Effects::default();
    effects.delete(Object::Role(role));
    Ok(effects.answer(Response::Deleted))
}
