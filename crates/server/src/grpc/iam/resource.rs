//! Requests of `ResourceService` to operations.

use capstan_iam::{CreateResource, Operation, UpdateResource};
use capstan_proto::iam::v1;

use super::fields::{optional, optional_path, path, properties, required};
use super::group::deleted;
use super::mask::{Fields, Mask};
use crate::RequestError;

const FIELDS: Fields =
    Fields { mutable: &["name", "description", "properties"], immutable: &["type"] };

pub(super) fn create(request: v1::CreateResourceRequest) -> Result<Operation, RequestError> {
    let v1::CreateResourceRequest { parent, resource, .. } = request;
    let resource = required("resource", resource)?;
    Ok(Operation::CreateResource(CreateResource {
        parent: optional_path("parent", &parent)?,
        id: optional_path("resource.id", &resource.id)?,
        name: resource.name,
        description: resource.description,
        kind: resource.r#type,
        properties: properties("resource.properties", resource.properties)?,
    }))
}

pub(super) fn update(request: v1::UpdateResourceRequest) -> Result<Operation, RequestError> {
    let v1::UpdateResourceRequest { resource, update_mask, .. } = request;
    let resource = required("resource", resource)?;
    let mask = Mask::parse(update_mask.as_ref(), &FIELDS)?;
    let has_type = !resource.r#type.is_empty();
    let has_properties = !resource.properties.is_empty();
    let properties_set = mask.of("properties", resource.properties, has_properties);
    Ok(Operation::UpdateResource(UpdateResource {
        id: path("resource.id", &resource.id)?,
        name: mask.text("name", resource.name),
        description: mask.text("description", resource.description),
        kind: mask.immutable("type", resource.r#type, has_type),
        properties: properties_set.map(|it| properties("resource.properties", it)).transpose()?,
        etag: optional(resource.etag),
    }))
}

pub(super) fn delete(request: v1::DeleteResourceRequest) -> Result<Operation, RequestError> {
    let v1::DeleteResourceRequest { id, etag, .. } = request;
    Ok(Operation::DeleteResource(deleted(&id, etag)?))
}
