//! Groups: organizations and folders.

use capstan_engine::{self as engine, Path, PathBuf};

use super::Effects;
use super::fields::{check_etag, check_texts, new_path};
use super::{account_associations, group_role_mappings};
use crate::rules::access::Access;
use crate::{
    Cause, Context, CreateGroup, Delete, Group, JudgeError, Kind, Meta, Object, Outcome, Refusal,
    Response, RoleBinding, Rule, UpdateGroup,
};

pub(super) fn create(
    access: &Access<'_>,
    new: &CreateGroup,
    context: &mut Context<'_>,
) -> Result<Outcome, JudgeError> {
    check_texts("group", Some(&new.name), Some(&new.description))?;
    let Some(parent) = &new.parent else { return create_organization(access, new, context) };
    access.require(&["groups.create"], parent.as_path())?;
    if new.owner.is_some() {
        return Err(Refusal::invalid("owner", "only an organization gets one; leave it out").into());
    }
    if !access.view.is_group(parent.as_path()) {
        return Err(Refusal::not_found().into());
    }
    let id = new_path(access, Kind::Group, Some(parent.as_path()), new.id.as_ref(), context)?;
    let group = group(new, id, context);
    let mut effects = Effects::default();
    effects.create(Object::Group(group.clone()));
    Ok(effects.answer(Response::Group(group)))
}

fn group(new: &CreateGroup, id: PathBuf, context: &Context<'_>) -> Group {
    let meta = Meta::new(context.revision, context.now);
    Group { id, name: new.name.clone(), description: new.description.clone(), meta }
}

/// R12: the operator makes an organization, and its first owner with it.
fn create_organization(
    access: &Access<'_>,
    new: &CreateGroup,
    context: &mut Context<'_>,
) -> Result<Outcome, JudgeError> {
    access.only_operator(Rule::Organization, None)?;
    let Some(owner) = &new.owner else {
        let problem = "an organization needs one; expected a root identity";
        let (field, problem) = ("owner".to_owned(), problem.to_owned());
        let cause = Cause::InvalidField { field, problem };
        return Err(Refusal::open(Some(Rule::Organization), cause).into());
    };
    let role = access.view.snapshot().catalog().owner_role();
    let Some(role) = role else {
        let problem =
            "the catalog has no role with `owner: true`, so nobody can own an organization";
        return Err(Refusal::invalid("owner", problem).into());
    };
    let id = new_path(access, Kind::Group, None, new.id.as_ref(), context)?;
    access.bindable_identity(owner.as_path(), id.as_path(), "owner")?;
    if access.view.snapshot().is_disabled(owner.as_path()) {
        return Err(Refusal::invalid("owner", "it is disabled; enable it first").into());
    }
    let group = group(new, id.clone(), context);
    let binding = engine::RoleBinding {
        id: None,
        identity: owner.clone(),
        role: role.name.as_str().into(),
        scope: id,
        expires_at: None,
        when: vec![],
    };
    let deep = || Refusal::invalid("group.id", "it is as long as a path can be");
    let binding = RoleBinding {
        id: binding.derived_id().ok_or_else(deep)?,
        name: String::new(),
        description: String::new(),
        identity: binding.identity,
        role: binding.role,
        scope: binding.scope,
        expires_at: None,
        when: vec![],
        meta: group.meta,
    };
    let mut effects = Effects::default();
    effects.create(Object::Group(group.clone()));
    effects.create(Object::RoleBinding(binding));
    Ok(effects.answer(Response::Group(group)))
}

pub(super) fn update(
    access: &Access<'_>,
    update: &UpdateGroup,
    context: &Context<'_>,
) -> Result<Outcome, JudgeError> {
    check_texts("group", update.name.as_deref(), update.description.as_deref())?;
    access.require(&["groups.update"], update.id.as_path())?;
    let before = access.view.group(update.id.as_path())?.ok_or_else(Refusal::not_found)?;
    check_etag(update.etag.as_ref(), &before.meta, &before.id)?;
    let mut after = before.clone();
    after.name = update.name.clone().unwrap_or(after.name);
    after.description = update.description.clone().unwrap_or(after.description);
    let mut effects = Effects::default();
    if after != before {
        after.meta = before.meta.changed(context.revision, context.now);
        effects.update(Object::Group(before), Object::Group(after.clone()));
    }
    Ok(effects.answer(Response::Group(after)))
}

/// Deletes a group that is empty. The bindings at it go with it, and so do invites, subscriptions, mappings to it and its account
/// association, each judged as its own delete.
pub(super) fn delete(access: &Access<'_>, delete: &Delete) -> Result<Outcome, JudgeError> {
    let id = delete.id.as_path();
    access.require(&["groups.delete"], id)?;
    let group = access.view.group(id)?.ok_or_else(Refusal::not_found)?;
    check_etag(delete.etag.as_ref(), &group.meta, &group.id)?;
    if let Some(contents) = access.view.contents(id)? {
        return Err(Refusal::open(None, Cause::NotEmpty { id: group.id, contents }).into());
    }
    let mut effects = Effects::default();
    delete_bindings_at(access, &group.id, &mut effects)?;
    delete_beside(access, id, &mut effects)?;
    group_role_mappings::delete_all_at(access, id, &mut effects)?;
    account_associations::delete_of(access, id, &mut effects)?;
    effects.delete(Object::Group(group));
    Ok(effects.answer(Response::Deleted))
}

/// What deletes the objects that are no content of their group, and go with it.
const BESIDE: [(Kind, &str); 2] =
    [(Kind::GroupInvite, "group_invites.delete"), (Kind::Subscription, "subscriptions.delete")];

/// Deletes what the engine does not know of a group that is deleted, each judged as its own delete.
fn delete_beside(
    access: &Access<'_>,
    group: Path<'_>,
    effects: &mut Effects,
) -> Result<(), JudgeError> {
    for (kind, capability) in BESIDE {
        let mut found = vec![];
        access.view.0.objects.below(kind, Some(group), &mut |object| {
            found.push(object);
            true
        })?;
        for object in found {
            access.require(&[capability], group)?;
            effects.delete(object);
        }
    }
    Ok(())
}

/// Deletes the bindings at a scope that is deleted, each judged as its own delete.
pub(super) fn delete_bindings_at(
    access: &Access<'_>,
    scope: &PathBuf,
    effects: &mut Effects,
) -> Result<(), JudgeError> {
    for binding in access.view.snapshot().bindings_at(scope.as_path()) {
        let binding = access.view.whole(binding.id.as_ref())?;
        access.take(binding.identity.as_path(), &binding.role, binding.scope.as_path())?;
        effects.delete(Object::RoleBinding(binding));
    }
    Ok(())
}
