//! The audit log and documents over gRPC: what is long is cut, what is hidden stays hidden, and whose rights end gets no
//! more.

use std::time::{Instant, SystemTime};

use crate::secrets::Channel;
use capstan_proto::iam::v1 as iam;
use capstan_proto::iam::v1::audit_service_client::AuditServiceClient;
use capstan_proto::iam::v1::policy_service_client::PolicyServiceClient;
use capstan_server::limits::{AUDIT_OBJECTS_BYTES_MAX, EXPORT_JUDGED_TIME};
use prost::Message as _;
use prost_types::Struct;
use prost_types::value::Kind;
use sha2::{Digest as _, Sha256};
use tonic::{Code, Status, Streaming};

use super::store::{bind, create_group, inner, of, store, store_of_operator};
use super::{bindings, groups, identities, policies, refusal, resources, roles};
use crate::common::{InProcess, PATIENCE};

/// Audit records that a caller may see.
async fn audit(server: &InProcess, caller: &str, filter: &str) -> Vec<iam::AuditRecord> {
    let mut client = AuditServiceClient::new(server.channel.clone());
    let request = iam::ListAuditRecordsRequest {
        parent: "acme".into(),
        filter: filter.into(),
        page_size: 1_000,
        ..Default::default()
    };
    let page = inner(client.list_audit_records(of(caller, request)).await);
    assert_eq!(page.next_page_token, "");
    page.audit_records
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A document of the demo's organization with many groups, of 1 KiB each.
fn many_groups(groups: usize) -> String {
    let description = "d".repeat(1_000);
    let groups: String = (0..groups)
        .map(|at| format!("  - {{id: acme/g{at:05}, description: {description}}}\n"))
        .collect();
    format!(
        "version: 1\ncatalog: chainguard-2025-08-14+errata\ngroups:\n  - {{id: acme}}\n{groups}"
    )
}

async fn import(channel: &Channel, document: &str) -> iam::ImportResponse {
    let chunks: Vec<_> = document.as_bytes().chunks(1 << 20).map(<[u8]>::to_vec).collect();
    let messages = chunks.into_iter().enumerate().map(|(at, chunk)| iam::ImportRequest {
        parent: if at == 0 { "acme".into() } else { String::new() },
        chunk,
        ..Default::default()
    });
    let messages: Vec<_> = messages.collect();
    let mut client = PolicyServiceClient::new(channel.clone());
    inner(client.import(tokio_stream::iter(messages)).await)
}

/// The number of objects that a record has before or after its change.
fn objects(of: Option<&Struct>) -> usize {
    let Some(of) = of else { return 0 };
    match of.fields.get("objects").and_then(|objects| objects.kind.as_ref()) {
        Some(Kind::ListValue(list)) => list.values.len(),
        _ => 1,
    }
}

/// A record in the store may be larger than any message. In a list it has the first objects, and says so.
#[tokio::test]
async fn an_audit_record_that_is_too_long_for_a_message_is_cut_and_says_so() {
    const GROUPS: usize = 5_000;
    let (server, operator) = store_of_operator("audit-long").await;
    let document = many_groups(GROUPS);
    import(&operator, &document).await;
    // The same objects once more, so that they are in it before and after.
    import(&operator, &document.replace("description: d", "description: e")).await;

    let records = audit(&server, "alice", r#"method = "PolicyService/Import""#).await;
    assert_eq!(records.len(), 2);
    // The first import changes the organization, and creates all others.
    for (record, before) in records.iter().zip([0..2, 100..GROUPS]) {
        assert!(record.truncated);
        assert!(record.changes_count >= GROUPS as u64, "{}", record.changes_count);
        assert!(before.contains(&objects(record.before.as_ref())));
        assert!((100..GROUPS).contains(&objects(record.after.as_ref())));
        let bytes = record.encoded_len();
        assert!(bytes > AUDIT_OBJECTS_BYTES_MAX / 2, "{bytes}");
        assert!(bytes < AUDIT_OBJECTS_BYTES_MAX + 4_096, "{bytes}");
    }
    assert_eq!(records[0].request_digest, hex(Sha256::digest(&document)));

    // One that is not cut does not say so.
    let create = create_group("acme", "acme/short");
    inner(groups(&server).create_group(of("alice", create.clone())).await);
    let records = audit(&server, "alice", r#"object = "acme/short""#).await;
    assert!(!records[0].truncated && records[0].changes_count == 1, "{records:?}");
    assert_eq!(records[0].request_digest, hex(Sha256::digest(create.encode_to_vec())));
}

/// Of resources the audit log has only those whose type the caller may list, attempts included.
#[tokio::test]
async fn the_audit_log_hides_resources_of_hidden_types() {
    let server = store().await;
    let role = iam::Role {
        id: "acme/reader".into(),
        capabilities: ["groups.list", "roles.list", "role_bindings.list", "identity.list"]
            .map(String::from)
            .into(),
        ..Default::default()
    };
    let role =
        iam::CreateRoleRequest { parent: "acme".into(), role: Some(role), ..Default::default() };
    inner(roles(&server).create_role(of("alice", role)).await);
    let reader = iam::Identity { id: "acme/reads".into(), ..Default::default() };
    let reader = iam::CreateIdentityRequest {
        parent: "acme".into(),
        identity: Some(reader),
        ..Default::default()
    };
    inner(identities(&server).create_identity(of("alice", reader)).await);
    let bound = bind("acme", "acme/reads", "acme/reader");
    inner(bindings(&server).create_role_binding(of("alice", bound)).await);

    let create = |id: &str, kind: &str| {
        let (parent, _) = id.rsplit_once('/').unwrap();
        let resource = iam::Resource { id: id.into(), r#type: kind.into(), ..Default::default() };
        iam::CreateResourceRequest {
            parent: parent.into(),
            resource: Some(resource),
            ..Default::default()
        }
    };
    inner(resources(&server).create_resource(of("alice", create("acme/hidden", "repo"))).await);
    // A type without capabilities of its own is seen with groups.list.
    inner(resources(&server).create_resource(of("alice", create("acme/shown", "thing"))).await);
    let delete = |id: &str| iam::DeleteResourceRequest { id: id.into(), ..Default::default() };
    for attempt in ["acme/hidden", "acme/shown"] {
        let refused = resources(&server).delete_resource(of("acme/reads", delete(attempt))).await;
        assert!(refused.is_err());
    }
    let refused = create("acme/refused", "repo");
    assert!(resources(&server).create_resource(of("acme/reads", refused)).await.is_err());

    let of_resources = async |caller: &str| {
        let records = audit(&server, caller, "").await;
        let about = records.iter().filter(|one| one.method.starts_with("ResourceService/"));
        let about = about.map(|one| (one.method.clone(), one.object.clone(), one.code == 0));
        (about.collect::<Vec<_>>(), records.len())
    };
    let (by_owner, all) = of_resources("alice").await;
    assert_eq!(by_owner.len(), 5, "{by_owner:?}");
    let (by_reader, seen) = of_resources("acme/reads").await;
    let expected = [("CreateResource", true), ("DeleteResource", false)]
        .map(|(method, made)| (format!("ResourceService/{method}"), "acme/shown".to_owned(), made));
    assert_eq!(by_reader, expected);
    assert_eq!(seen, all - 3, "all else is seen");
}

/// Who may not import or set the catalog leaves a record of the attempt, with the digest of what was sent.
#[tokio::test]
async fn refused_imports_and_catalogs_are_audited() {
    let (server, operator) = store_of_operator("audit-refused").await;
    let import = |parent: &str| iam::ImportRequest {
        parent: parent.into(),
        chunk: b"version: 1".to_vec(),
        ..Default::default()
    };
    let set = iam::SetCatalogRequest {
        catalog: Some(iam::set_catalog_request::Catalog::Name("other".into())),
        ..Default::default()
    };
    let denied = (Code::PermissionDenied, "OPERATOR_ONLY".to_owned(), String::new());
    let hidden = (Code::NotFound, String::new(), String::new());
    for (caller, parent, told) in [
        ("alice", "acme", denied.clone()),
        // At the root nothing is hidden.
        ("alice", "", denied.clone()),
        ("alice", "nothing", hidden.clone()),
        ("carol", "acme", hidden),
    ] {
        let messages = tokio_stream::once(import(parent));
        let refused = policies(&server).import(of(caller, messages)).await;
        assert_eq!(refusal(refused), told, "{caller} {parent}");
    }
    let refused = policies(&server).set_catalog(of("alice", set.clone())).await;
    assert_eq!(refusal(refused), denied);

    let mut client = AuditServiceClient::new(operator);
    let filter = r#"reason = "OPERATOR_ONLY""#.to_owned();
    let request = iam::ListAuditRecordsRequest { filter, ..Default::default() };
    let (mut records, begun) = (vec![], Instant::now());
    // Nobody waits until it is written.
    while records.len() < 5 {
        assert!(begun.elapsed() < PATIENCE, "{records:?}");
        records = inner(client.list_audit_records(request.clone()).await).audit_records;
    }
    let told: Vec<_> =
        records.iter().map(|one| (&*one.actor, &*one.object, &*one.method)).collect();
    let method = "PolicyService/Import";
    assert_eq!(
        told,
        [
            ("alice", "acme", method),
            ("alice", "", method),
            ("alice", "nothing", method),
            ("carol", "acme", method),
            ("alice", "", "PolicyService/SetCatalog"),
        ]
    );
    let document = hex(Sha256::digest("version: 1"));
    let request = hex(Sha256::digest(set.encode_to_vec()));
    for (record, digest) in
        records.iter().zip([&document, &document, &document, &document, &request])
    {
        assert_eq!((record.code, &record.request_digest), (Code::PermissionDenied as i32, digest));
        assert_eq!((&*record.authentication, &*record.source), ("caller-header", "127.0.0.1"));
    }
}

/// A new identity of the organization, which may see all of it until a time.
async fn viewer(server: &InProcess, id: &str, until: Option<SystemTime>) -> String {
    let identity = iam::Identity { id: id.into(), ..Default::default() };
    let identity = iam::CreateIdentityRequest {
        parent: "acme".into(),
        identity: Some(identity),
        ..Default::default()
    };
    inner(identities(server).create_identity(of("alice", identity)).await);
    let mut bound = bind("acme", id, "viewer");
    if let Some(binding) = &mut bound.role_binding {
        binding.expires_at = until.map(Into::into);
    }
    let bound = inner(bindings(server).create_role_binding(of("alice", bound)).await);
    bound.role_binding.unwrap().id
}

/// An export that has begun.
async fn export(server: &InProcess, caller: &str) -> Streaming<iam::ExportResponse> {
    let request = iam::ExportRequest { parent: "acme".into(), ..Default::default() };
    let mut parts = inner(policies(server).export(of(caller, request)).await);
    assert!(!parts.message().await.unwrap().unwrap().chunk.is_empty());
    parts
}

/// The end of an export: its bytes, or the error.
async fn rest(mut parts: Streaming<iam::ExportResponse>) -> Result<usize, Status> {
    let mut bytes = 0;
    while let Some(part) = parts.message().await? {
        bytes += part.chunk.len();
    }
    Ok(bytes)
}

/// An export judges its caller again: at another revision, and when a right may have ended.
#[tokio::test]
async fn an_export_ends_when_its_caller_may_no_longer_see_it() {
    let (server, operator) = store_of_operator("export-judged").await;
    // More than is buffered anywhere.
    import(&operator, &many_groups(8_000)).await;
    let expires = SystemTime::now() + 4 * EXPORT_JUDGED_TIME;
    let bound = viewer(&server, "acme/unbound", None).await;
    viewer(&server, "acme/expires", Some(expires)).await;
    viewer(&server, "acme/stays", None).await;

    let mut streams = vec![];
    for caller in ["acme/unbound", "acme/expires", "acme/stays"] {
        streams.push(export(&server, caller).await);
    }
    let unbind = iam::DeleteRoleBindingRequest { id: bound, ..Default::default() };
    inner(bindings(&server).delete_role_binding(of("alice", unbind)).await);
    tokio::time::sleep(6 * EXPORT_JUDGED_TIME).await;
    let mut ends = vec![];
    for stream in streams {
        ends.push(rest(stream).await.map_err(|status| status.code()));
    }
    assert_eq!(ends[..2], [Err(Code::NotFound), Err(Code::NotFound)]);
    assert!(ends[2].as_ref().is_ok_and(|bytes| *bytes > 8_000_000), "{ends:?}");
}
