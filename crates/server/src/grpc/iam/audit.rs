//! `AuditService`: records of the audit log, as the caller may see them.
//!
//! **Invariants**: no record has a key or another proof of an identity, and of a root identity only id, name and type.
//! Of resources only those are in it whose type the caller may list, and of invites and subscriptions none without their capability. A record fits into a page, whatever it is of.

use std::collections::BTreeMap;

use capstan_engine::{Path, PathBuf};
use capstan_iam::audit::{self, AuditRecord};
use capstan_iam::record::{self, KeyRange, prefix};
use capstan_iam::{Kind, ObjectsError, Reader};
use capstan_proto::iam::v1;
use capstan_proto::iam::v1::audit_service_server::AuditService;
use prost::Message as _;
use prost_types::value::Kind as ValueKind;
use prost_types::{ListValue, Struct};
use tonic::{Request, Response, Status};

use super::json::{json, value};
use super::kinds::{
    AccountAssociations, Described, GroupInvites, GroupRoleMappings, IdentityProviders,
    Subscriptions,
};
use super::list::{Page, Wanted};
use super::policy::whole;
use super::reading::{Reading, Source, Viewer};
use super::service::{Iam, ListRequest, ListResponse};
use crate::RequestError;
use crate::feed::change_log::Changed;
use crate::grpc::convert::timestamp;
use crate::limits::AUDIT_OBJECTS_BYTES_MAX;
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

/// The first capabilities of a refusal that a record has.
const MISSING_MAX: usize = 50;

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
        page.read(value.len());
        match shown((number, value), reading, viewer, wanted) {
            Ok(shown) => page.look(wanted, number.to_string(), shown).is_continue(),
            Err(error) => {
                broken = Some(error);
                false
            }
        }
    });
    scanned.map_err(|error| ObjectsError(error.to_string()))?;
    broken.map_or(Ok(page), |error| Err(error.into()))
}

/// The message of a record; `None` if the viewer may not see it or does not want it.
fn shown(
    (number, value): (u64, &[u8]),
    reading: &Reading,
    viewer: &Viewer<'_>,
    wanted: &Wanted,
) -> Result<Option<v1::AuditRecord>, ObjectsError> {
    let decoded = AuditRecord::decode(number, value);
    let (mut record, digest) = decoded.map_err(|error| ObjectsError(error.to_string()))?;
    let organization = wanted.parent.as_ref().map(PathBuf::as_str);
    if organization.is_some_and(|organization| !record.is_about(organization)) {
        return Ok(None);
    }
    within(&mut record, organization);
    let changes = std::mem::take(&mut record.changes);
    let count = record.changes_count;
    // The scalar fields first: most records are unwanted by them, and objects are long.
    let mut message = message(record, &digest);
    message.truncated = count > 0;
    if !wanted.filter.matches(&message) {
        return Ok(None);
    }
    let changes = changes.iter().filter_map(Changed::decode).collect();
    let changes = match viewer {
        Viewer::Actor(reader) if reading.identity().is_some() => {
            let visible = visible(changes, (reading, reader), &message)?;
            let Some(visible) = visible else { return Ok(None) };
            message.changes_count = visible.len() as u64;
            visible
        }
        Viewer::Actor(_) | Viewer::Everybody => {
            message.changes_count = count.max(changes.len() as u64);
            changes
        }
    };
    put(&mut message, changes, AUDIT_OBJECTS_BYTES_MAX.min(wanted.bytes_max / 2));
    Ok(Some(message))
}

/// Services of kinds that the four capabilities of an organization do not show, and what shows them.
const SHOWN_BY: [(&str, &str); 5] = [
    ("GroupInviteService/", GroupInvites::CAPABILITY),
    ("SubscriptionService/", Subscriptions::CAPABILITY),
    ("IdentityProviderService/", IdentityProviders::CAPABILITY),
    ("GroupRoleMappingService/", GroupRoleMappings::CAPABILITY),
    ("AccountAssociationService/", AccountAssociations::CAPABILITY),
];

/// The changes that a reader may see, who may list all of the organization but resources of some types, and kinds that need
/// another capability. `None` if the record tells of nothing else.
fn visible(
    mut changes: Vec<Changed>,
    (reading, reader): (&Reading, &Reader<'_>),
    message: &v1::AuditRecord,
) -> Result<Option<Vec<Changed>>, ObjectsError> {
    let (mut hidden, mut error) = (false, None);
    changes.retain(|change| {
        let others = change.objects().filter(|object| {
            object.kind() == Kind::Resource || Kind::BESIDE.contains(&object.kind())
        });
        let shows = others.map(|object| reader.show(object).map(|shown| shown.is_some()));
        let shows = shows.collect::<Result<Vec<_>, _>>().unwrap_or_else(|found| {
            error = Some(found);
            vec![false]
        });
        let is_shown = shows.into_iter().all(|shown| shown);
        hidden |= !is_shown;
        is_shown
    });
    if let Some(error) = error {
        return Err(error);
    }
    if changes.is_empty() && (hidden || refuses_hidden(reading, reader, message)?) {
        return Ok(None);
    }
    Ok(Some(changes))
}

/// Whether a record without changes is of an attempt on what the reader may not list: an object of such a kind, or a resource
/// that is there, or one of a type that the capabilities name.
fn refuses_hidden(
    reading: &Reading,
    reader: &Reader<'_>,
    message: &v1::AuditRecord,
) -> Result<bool, ObjectsError> {
    // Whoever accepts an invite names none: it is at the group that the record names.
    let of = if message.object.is_empty() { &message.scope } else { &message.object };
    let Ok(path) = Path::parse(of) else { return Ok(false) };
    if let Some((_, list)) = SHOWN_BY.iter().find(|(of, _)| message.method.starts_with(of)) {
        return Ok(!reader.holds(list, path));
    }
    let Source::Store { objects, .. } = &reading.source else { return Ok(false) };
    if !message.method.starts_with("ResourceService/") {
        return Ok(false);
    }
    let catalog = reading.snapshot().catalog();
    let hides = |name: &String| {
        let list = name.rsplit_once('.').map(|(of_type, _)| format!("{of_type}.list"));
        list.is_some_and(|list| catalog.capability(&list).is_some() && !reader.holds(&list, path))
    };
    let found = objects.get(Kind::Resource, path)?;
    let is_hidden = found.map(|found| reader.show(&found)).transpose()?;
    Ok(message.missing.iter().any(hides) || matches!(is_hidden, Some(None)))
}

/// Whether a path is that of an organization or below it.
pub(super) fn is_in(path: &str, organization: &str) -> bool {
    path.split('/').next() == Some(organization)
}

/// What one organization sees of a record. A change of a root identity concerns every organization where it is bound.
fn within(record: &mut AuditRecord, organization: Option<&str>) {
    let Some(organization) = organization else { return };
    let object = &record.object;
    record.changes.retain(|change| {
        record::parse_key(&change.key)
            .is_some_and(|(_, id)| is_in(id.as_str(), organization) || id.as_str() == object)
    });
    if !is_in(&record.scope, organization) {
        record.scope.clear();
        record.missing.clear();
    }
}

/// The message of a record, without its objects.
fn message(record: AuditRecord, digest: &audit::Digest) -> v1::AuditRecord {
    let missing = record.missing.into_iter().take(MISSING_MAX).collect();
    v1::AuditRecord {
        revision: record.revision,
        time: Some(timestamp(record.time)),
        actor: record.actor,
        authentication: record.origin.authentication,
        method: record.method,
        object: record.object,
        code: i32::try_from(record.code).unwrap_or(i32::MAX),
        reason: record.reason,
        missing,
        before: None,
        after: None,
        digest: hex(digest),
        scope: record.scope,
        source: record.origin.source,
        request_digest: hex(&record.origin.request),
        suppressed: record.suppressed,
        changes_count: 0,
        truncated: false,
    }
}

/// Bytes of tags and lengths around an object: of its value, and of the list that has it.
const OBJECT_BYTES: usize = 32;

/// Puts the first objects into a message, as far as they have no more than these bytes.
fn put(message: &mut v1::AuditRecord, changes: Vec<Changed>, bytes_max: usize) {
    let (mut before, mut after, mut room) = (vec![], vec![], bytes_max);
    let mut taken = 0_u64;
    for change in changes {
        let [old, new] = [change.before, change.after].map(|object| object.map(json));
        let bytes = |object: &Struct| object.encoded_len() + OBJECT_BYTES;
        let bytes = [&old, &new].into_iter().flatten().map(bytes).sum();
        let Some(left) = room.checked_sub(bytes) else { break };
        room = left;
        before.extend(old);
        after.extend(new);
        taken += 1;
    }
    message.truncated |= taken < message.changes_count;
    message.before = one_or_many(before);
    message.after = one_or_many(after);
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
