//! Registered resources.

use capstan_engine::{Catalog, Path};

use super::Effects;
use super::fields::{check_etag, check_properties, check_texts, check_type, new_path};
use super::groups::delete_bindings_at;
use crate::object::parent_or_self;
use crate::rules::access::Access;
use crate::{
    Context, CreateResource, Delete, JudgeError, Kind, Meta, Object, Outcome, Refusal, Resource,
    Response, Rule, UpdateResource,
};

/// What an action on resources of a type needs: `<type>.<action>` if the catalog has it, otherwise the one for
/// groups.
pub(crate) fn capability(catalog: &Catalog, kind: &str, action: &str) -> String {
    let own = format!("{kind}.{action}");
    if catalog.capability(&own).is_some() {
        return own;
    }
    (if action == "list" { "groups.list" } else { "groups.update" }).to_owned()
}

/// Refuses who lacks the capability for an action. Returns its name.
fn require(
    access: &Access<'_>,
    kind: &str,
    action: &str,
    scope: Path<'_>,
) -> Result<String, JudgeError> {
    let capability = capability(access.view.snapshot().catalog(), kind, action);
    access.require(&[&capability], scope)?;
    Ok(capability)
}

pub(super) fn create(
    access: &Access<'_>,
    new: &CreateResource,
    context: &mut Context<'_>,
) -> Result<Outcome, JudgeError> {
    check_texts("resource", Some(&new.name), Some(&new.description))?;
    check_type("resource.type", &new.kind)?;
    check_properties("resource.properties", &new.properties)?;
    let parent = new.parent.as_ref().map(|parent| parent.as_path());
    let Some(parent) = parent else {
        access.only_operator(Rule::AcrossOrganizations, None)?;
        return register(access, new, None, "", context);
    };
    let method = require(access, &new.kind, "create", parent)?;
    if !access.view.is_group(parent) {
        return Err(Refusal::not_found().into());
    }
    register(access, new, Some(parent), &method, context)
}

fn register(
    access: &Access<'_>,
    new: &CreateResource,
    parent: Option<Path<'_>>,
    method: &str,
    context: &mut Context<'_>,
) -> Result<Outcome, JudgeError> {
    let id = new_path(access, Kind::Resource, parent, new.id.as_ref(), context)?;
    if !new.properties.is_empty() {
        access.control_resource(id.as_path(), method)?;
    }
    let resource = Resource {
        id,
        name: new.name.clone(),
        description: new.description.clone(),
        kind: new.kind.clone(),
        properties: new.properties.clone(),
        meta: Meta::new(context.revision, context.now),
    };
    let mut effects = Effects::default();
    effects.create(Object::Resource(resource.clone()));
    Ok(effects.answer(Response::Resource(resource)))
}

pub(super) fn update(
    access: &Access<'_>,
    update: &UpdateResource,
    context: &Context<'_>,
) -> Result<Outcome, JudgeError> {
    check_texts("resource", update.name.as_deref(), update.description.as_deref())?;
    if let Some(properties) = &update.properties {
        check_properties("resource.properties", properties)?;
    }
    // The capability follows from the type. One that is absent is `NOT_FOUND` whatever the caller holds.
    let before = access.view.resource(update.id.as_path())?.ok_or_else(Refusal::not_found)?;
    let method = require(access, &before.kind, "update", parent_or_self(update.id.as_path()))?;
    check_etag(update.etag.as_ref(), &before.meta, &before.id)?;
    if update.kind.as_ref().is_some_and(|kind| *kind != before.kind) {
        return Err(Refusal::invalid("resource.type", "it cannot change").into());
    }
    let mut after = before.clone();
    after.name = update.name.clone().unwrap_or(after.name);
    after.description = update.description.clone().unwrap_or(after.description);
    after.properties = update.properties.clone().unwrap_or(after.properties);
    if after.properties != before.properties {
        access.control_resource(after.id.as_path(), &method)?;
    }
    let mut effects = Effects::default();
    if after != before {
        after.meta = before.meta.changed(context.revision, context.now);
        effects.update(Object::Resource(before), Object::Resource(after.clone()));
    }
    Ok(effects.answer(Response::Resource(after)))
}

/// Deletes a resource. The bindings at it go with it, each judged as its own delete.
pub(super) fn delete(access: &Access<'_>, delete: &Delete) -> Result<Outcome, JudgeError> {
    let resource = access.view.resource(delete.id.as_path())?.ok_or_else(Refusal::not_found)?;
    let method = require(access, &resource.kind, "delete", parent_or_self(delete.id.as_path()))?;
    check_etag(delete.etag.as_ref(), &resource.meta, &resource.id)?;
    if !resource.properties.is_empty() {
        access.control_resource(resource.id.as_path(), &method)?;
    }
    let mut effects = Effects::default();
    delete_bindings_at(access, &resource.id, &mut effects)?;
    effects.delete(Object::Resource(resource));
    Ok(effects.answer(Response::Deleted))
}
