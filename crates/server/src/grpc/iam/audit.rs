//! `AuditService`: records of the audit log, as the caller may see them.
//!
//! **Invariant**: no record has a key or another proof of an identity, and of a root identity only id, name and type.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use capstan_engine::PathBuf;
use capstan_iam::audit::{self, AuditChange, AuditRecord};
use capstan_iam::record::{self, KeyRange, prefix};
use capstan_iam::{Object, ObjectsError};
use capstan_proto::iam::v1;
use capstan_proto::iam::v1::audit_service_server::AuditService;
use prost_types::value::Kind as ValueKind;
use prost_types::{ListValue, Struct, Value};
use tonic::{Request, Response, Status};

use super::filter::{Listed, Scalar};
use super::kinds::{Described, Identities};
use super::list::{Page, Wanted};
use super::objects;
use super::policy::whole;
use super::reading::{Reading, Viewer};
use super::service::{Iam, ListRequest, ListResponse};
use crate::RequestError;
use crate::grpc::convert::timestamp;
use crate::methods::Rpc;

#[tonic::async_trait]
impl AuditService for Iam {
    async fn list_audit_records(
        &self,
        request: Request<v1::ListAuditRecordsRequest>,
    ) -> Result<Response<v1::ListAuditRecordsResponse>, Status> {
        const RPC: Rpc = Rpc::labelled("iam.ListAuditRecords");
        let all = request.get_ref();
        let list = ListRequest {
            parent: all.parent.clone(),
            filter: all.filter.clone(),
            page_size: all.page_size,
            page_token: all.page_token.clone(),
            consistency: all.consistency,
        };
        let ListResponse { entries, next_page_token, revision, .. } =
            self.list(RPC, &request, list, page).await?;
        let audit_records = entries;
        Ok(Response::new(v1::ListAuditRecordsResponse { audit_records, next_page_token, revision }))
    }
}

/// A page of records, in the order of their numbers. A policy file has none.
fn page(
    reading: &Reading,
    viewer: &Viewer<'_>,
    wanted: &Wanted,
) -> Result<Page<v1::AuditRecord>, RequestError> {
    whole(reading, viewer, wanted.parent.as_ref())?;
    let mut page = Page::new();
    let Some(view) = reading.view() else { return Ok(page) };
    let organization = wanted.parent.as_ref().map(PathBuf::as_str);
    if organization.is_some_and(|path| path.contains('/')) {
        let problem = "a folder: records are kept by organization, which is its first segment";
        return Err(RequestError::field("parent", problem));
    }
    let range = KeyRange::prefix(prefix::AUDIT);
    // The place of a record is its number.
    let after = wanted.after.as_ref().and_then(|after| after.parse().ok()).map(audit::key);
    let range = after.iter().fold(range, |range, after| range.after_key(after));
    let mut broken = None;
    let scanned = view.scan(range.bounds(), &mut |key, value| {
        let number = audit::number(key).unwrap_or_default();
        match AuditRecord::decode(number, value) {
            Ok((record, digest)) => {
                let about = organization.is_none_or(|organization| record.is_about(organization));
                let shown = about.then(|| message(within(record, organization), &digest));
                page.look(wanted, number.to_string(), shown) == ControlFlow::Continue(())
            }
            Err(error) => {
                broken = Some(ObjectsError(error.to_string()));
                false
            }
        }
    });
    scanned.map_err(|error| ObjectsError(error.to_string()))?;
    broken.map_or(Ok(page), |error| Err(error.into()))
}

/// What one organization sees of a record. A change of a root identity concerns every organization where it is bound.
fn within(mut record: AuditRecord, organization: Option<&str>) -> AuditRecord {
    let Some(organization) = organization else { return record };
    let is_in = |path: &str| path.split('/').next() == Some(organization);
    record.changes.retain(|change| {
        record::parse_key(&change.key)
            .is_some_and(|(_, id)| is_in(id.as_str()) || id.as_str() == record.object)
    });
    if !is_in(&record.scope) {
        record.scope.clear();
        record.missing.clear();
    }
    record
}

fn message(record: AuditRecord, digest: &audit::Digest) -> v1::AuditRecord {
    let of = |value: fn(&AuditChange) -> Option<&Vec<u8>>| {
        let objects = record.changes.iter().filter_map(|change| {
            let object = record::decode(&change.key, value(change)?).ok()?;
            Some(json(object))
        });
        one_or_many(objects.collect())
    };
    let (before, after) = (of(|it| it.before.as_ref()), of(|it| it.after.as_ref()));
    v1::AuditRecord {
        revision: record.revision,
        time: Some(timestamp(record.time)),
        actor: record.actor,
        authentication: record.origin.authentication,
        method: record.method,
        object: record.object,
        code: i32::try_from(record.code).unwrap_or(i32::MAX),
        reason: record.reason,
        missing: record.missing,
        before,
        after,
        digest: hex(digest),
        scope: record.scope,
        source: record.origin.source,
        request_digest: hex(&record.origin.request),
        suppressed: record.suppressed,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The only object; or several in a list named `objects`.
fn one_or_many(mut objects: Vec<Struct>) -> Option<Struct> {
    if objects.len() > 1 {
        let all = objects.into_iter().map(|one| value(ValueKind::StructValue(one))).collect();
        let all = value(ValueKind::ListValue(ListValue { values: all }));
        return Some(Struct { fields: BTreeMap::from([("objects".to_owned(), all)]) });
    }
    objects.pop()
}

// === Objects as JSON ===

/// An object with the field names of its message. Empty fields are left out, as in JSON of protobuf.
fn json(object: Object) -> Struct {
    match object {
        Object::Group(group) => {
            let group = objects::group(group);
            scalars(&group, &["id", "name", "description"])
        }
        Object::Role(role) => {
            let role = objects::role(role);
            let mut all = scalars(&role, &["id", "name", "description"]);
            let names = role.capabilities.into_iter().map(text).collect();
            add(&mut all, "capabilities", list(names));
            all
        }
        Object::RoleBinding(binding) => {
            let binding = objects::role_binding(binding);
            let mut all = scalars(
                &binding,
                &["id", "name", "description", "identity", "role", "scope", "expires_at"],
            );
            add(&mut all, "when", list(binding.when.into_iter().map(condition).collect()));
            all
        }
        Object::Identity(identity) => {
            let is_root = identity.is_root();
            let identity = objects::identity(identity);
            let identity = if is_root { Identities::in_part(identity) } else { identity };
            let mut all = scalars(&identity, &["id", "name", "description", "type", "disabled"]);
            add(&mut all, "properties", map(identity.properties));
            all
        }
        Object::Resource(resource) => {
            let resource = objects::resource(resource);
            let mut all = scalars(&resource, &["id", "name", "description", "type"]);
            add(&mut all, "properties", map(resource.properties));
            all
        }
    }
}

/// Some scalar fields of a message.
fn scalars(message: &impl Listed, names: &[&str]) -> Struct {
    let mut all = Struct::default();
    for name in names {
        let value = match message.scalar(name) {
            Some(Scalar::Text(found)) if !found.is_empty() => Some(text(found.into_owned())),
            Some(Scalar::Boolean(true)) => Some(value(ValueKind::BoolValue(true))),
            Some(Scalar::Time(Some(time))) => Some(text(time.to_string())),
            _ => None,
        };
        add(&mut all, name, value);
    }
    all
}

fn add(to: &mut Struct, name: &str, value: Option<Value>) {
    to.fields.extend(value.map(|value| (name.to_owned(), value)));
}

const fn value(kind: ValueKind) -> Value {
    Value { kind: Some(kind) }
}

const fn text(text: String) -> Value {
    value(ValueKind::StringValue(text))
}

/// A list; `None` if it is empty.
fn list(values: Vec<Value>) -> Option<Value> {
    (!values.is_empty()).then(|| value(ValueKind::ListValue(ListValue { values })))
}

/// A map; `None` if it is empty.
fn map(fields: impl IntoIterator<Item = (String, Value)>) -> Option<Value> {
    let fields: BTreeMap<_, _> = fields.into_iter().collect();
    (!fields.is_empty()).then(|| value(ValueKind::StructValue(Struct { fields })))
}

fn condition(condition: v1::Condition) -> Value {
    use v1::condition::Test;
    let mut fields = BTreeMap::from([("attribute".to_owned(), text(condition.attribute))]);
    match condition.test {
        Some(Test::Equals(wanted)) => drop(fields.insert("equals".into(), wanted)),
        Some(Test::NotEquals(wanted)) => drop(fields.insert("not_equals".into(), wanted)),
        None => {}
    }
    value(ValueKind::StructValue(Struct { fields }))
}

impl Listed for v1::AuditRecord {
    fn scalar(&self, field: &str) -> Option<Scalar<'_>> {
        Some(match field {
            "revision" => Scalar::Number(self.revision),
            "time" => (&self.time).into(),
            "actor" => (&self.actor).into(),
            "authentication" => (&self.authentication).into(),
            "method" => (&self.method).into(),
            "object" => (&self.object).into(),
            "code" => Scalar::Number(self.code.unsigned_abs().into()),
            "reason" => (&self.reason).into(),
            "digest" => (&self.digest).into(),
            "scope" => (&self.scope).into(),
            "source" => (&self.source).into(),
            "request_digest" => (&self.request_digest).into(),
            "suppressed" => Scalar::Number(self.suppressed),
            _ => return None,
        })
    }
}
