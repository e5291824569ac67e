//! Mappings of groups of an identity provider to roles: each gives, and is judged, as a role binding of everybody who is or
//! will be in that group (R1, R9).

use capstan_engine::Path;

use super::Effects;
use super::fields::{check_etag, check_texts, in_field, new_path};
use super::group_invites::role_created;
use crate::limits::MAPPINGS_MAX;
use crate::object::{check_external_group, parent_or_self};
use crate::rights::set;
use crate::rules::access::Access;
use crate::{
    Cause, Context, CreateGroupRoleMapping, Delete, GroupRoleMapping, JudgeError, Kind, Meta,
    Object, ObjectsError, Outcome, Reference, Refusal, Response, Rule, UpdateGroupRoleMapping,
};

const CREATE: &str = "identity_providers.create";
const UPDATE: &str = "identity_providers.update";
const DELETE: &str = "identity_providers.delete";
const BIND: &str = "role_bindings.create";

pub(super) fn create(
    access: &Access<'_>,
    new: &CreateGroupRoleMapping,
    context: &mut Context<'_>,
) -> Result<Outcome, JudgeError> {
    check_texts("group_role_mapping", Some(&new.name), Some(&new.description))?;
    let field = "group_role_mapping.external_group";
    in_field(field, check_external_group(&new.external_group))?;
    let (provider, scope) = (new.parent.as_path(), new.scope.as_path());
    let organization = parent_or_self(provider);
    access.require(&[CREATE], provider)?;
    if access.view.provider(provider)?.is_none() {
        return Err(Refusal::not_found().into());
    }
    let foreign = || {
        let problem = format!("no group `{scope}` at or below `{organization}`");
        Refusal::invalid("group_role_mapping.scope", problem)
    };
    if !organization.contains(scope) {
        return Err(foreign().into());
    }
    access.require(&[BIND], scope)?;
    if !access.view.is_group(scope) {
        return Err(foreign().into());
    }
    let role = access.bindable_role(&new.role, scope, "group_role_mapping.role")?;
    access.grant(Rule::IdentityProvider, &role, scope, None, &[CREATE, BIND])?;
    // It is made at the organization, and does not end.
    access.within(&set(access.view.snapshot().catalog(), &[CREATE]), organization, None)?;
    let mapping = GroupRoleMapping {
        id: new_path(access, Kind::GroupRoleMapping, Some(provider), new.id.as_ref(), context)?,
        name: new.name.clone(),
        description: new.description.clone(),
        external_group: new.external_group.clone(),
        role: new.role.clone(),
        role_created: role_created(&access.view, &new.role)?,
        scope: new.scope.clone(),
        creator: access.incarnation()?,
        meta: Meta::new(context.revision, context.now),
    };
    let all = mappings_of(access, provider)?;
    if let Some(same) = all.iter().find(|one| one.is_same(&mapping)) {
        let cause = Cause::Duplicate { id: same.id.clone(), what: "this group, role and scope" };
        return Err(Refusal::open(None, cause).into());
    }
    if all.len() >= MAPPINGS_MAX {
        let problem = format!("it has {MAPPINGS_MAX} mappings already, the most of a provider");
        return Err(Refusal::invalid("parent", problem).into());
    }
    let mut effects = Effects::default();
    effects.create(Object::GroupRoleMapping(mapping.clone()));
    Ok(effects.answer(Response::GroupRoleMapping(mapping)))
}

pub(super) fn update(
    access: &Access<'_>,
    update: &UpdateGroupRoleMapping,
    context: &Context<'_>,
) -> Result<Outcome, JudgeError> {
    let field = "group_role_mapping";
    check_texts(field, update.name.as_deref(), update.description.as_deref())?;
    access.require(&[UPDATE], parent_or_self(update.id.as_path()))?;
    let before = access.view.mapping(update.id.as_path())?.ok_or_else(Refusal::not_found)?;
    check_etag(update.etag.as_ref(), &before.meta, &before.id)?;
    let fixed = [
        ("identity_provider", &update.identity_provider, before.provider().as_str()),
        ("external_group", &update.external_group, &*before.external_group),
        ("role", &update.role, &*before.role),
        ("scope", &update.scope, before.scope.as_str()),
    ];
    let changes = |new: &Option<String>, old: &str| new.as_ref().is_some_and(|new| new != old);
    if let Some((name, ..)) = fixed.iter().find(|(_, new, old)| changes(new, old)) {
        let problem = "it cannot change; create another mapping and delete this one";
        return Err(Refusal::invalid(format!("{field}.{name}"), problem).into());
    }
    let mut after = before.clone();
    after.name = update.name.clone().unwrap_or(after.name);
    after.description = update.description.clone().unwrap_or(after.description);
    let mut effects = Effects::default();
    if after != before {
        after.meta = before.meta.changed(context.revision, context.now);
        effects.update(Object::GroupRoleMapping(before), Object::GroupRoleMapping(after.clone()));
    }
    Ok(effects.answer(Response::GroupRoleMapping(after)))
}

pub(super) fn delete(access: &Access<'_>, delete: &Delete) -> Result<Outcome, JudgeError> {
    access.require(&[DELETE], parent_or_self(delete.id.as_path()))?;
    let mapping = access.view.mapping(delete.id.as_path())?.ok_or_else(Refusal::not_found)?;
    check_etag(delete.etag.as_ref(), &mapping.meta, &mapping.id)?;
    take_away(access, &mapping)?;
    let mut effects = Effects::default();
    effects.delete(Object::GroupRoleMapping(mapping));
    Ok(effects.answer(Response::Deleted))
}

/// R17: who takes a role from the members of a group holds it.
pub(super) fn take_away(access: &Access<'_>, mapping: &GroupRoleMapping) -> Result<(), JudgeError> {
    let taken = access.role_capabilities(&mapping.role);
    access.cover(Rule::Delete, &taken, mapping.scope.as_path())
}

/// The mappings of a provider.
pub(super) fn mappings_of(
    access: &Access<'_>,
    provider: Path<'_>,
) -> Result<Vec<GroupRoleMapping>, ObjectsError> {
    let mut mappings = vec![];
    access.view.0.objects.below(Kind::GroupRoleMapping, Some(provider), &mut |object| {
        if let Object::GroupRoleMapping(mapping) = object {
            mappings.push(mapping);
        }
        true
    })?;
    Ok(mappings)
}

/// Deletes the mappings to a group that is deleted, each judged as its own delete.
pub(super) fn delete_all_at(
    access: &Access<'_>,
    group: Path<'_>,
    effects: &mut Effects,
) -> Result<(), JudgeError> {
    let mut ids = vec![];
    access.view.0.objects.referring(&Reference::Scope(group), &mut |_, id| {
        ids.push(id);
        true
    })?;
    for id in ids {
        let Some(mapping) = access.view.mapping(id.as_path())? else { continue };
        access.require(&[DELETE], mapping.provider())?;
        take_away(access, &mapping)?;
        effects.delete(Object::GroupRoleMapping(mapping));
    }
    Ok(())
}
