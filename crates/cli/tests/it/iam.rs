//! The management services over gRPC, on a policy file: reads are open, writes are refused. And who calls.

mod store;
mod whole;

use crate::secrets::Channel;
use capstan_proto::iam::v1 as iam;
use capstan_proto::iam::v1::audit_service_client::AuditServiceClient;
use capstan_proto::iam::v1::group_service_client::GroupServiceClient;
use capstan_proto::iam::v1::identity_service_client::IdentityServiceClient;
use capstan_proto::iam::v1::policy_service_client::PolicyServiceClient;
use capstan_proto::iam::v1::resource_service_client::ResourceServiceClient;
use capstan_proto::iam::v1::role_binding_service_client::RoleBindingServiceClient;
use capstan_proto::iam::v1::role_service_client::RoleServiceClient;
use capstan_server::feed::source::Source;
use capstan_server::server::{Config, Server};
use sha2::{Digest as _, Sha256};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::common::{InProcess, PATIENCE, config, folder};

fn groups(server: &InProcess) -> GroupServiceClient<Channel> {
    GroupServiceClient::new(server.channel.clone())
}

fn bindings(server: &InProcess) -> RoleBindingServiceClient<Channel> {
    RoleBindingServiceClient::new(server.channel.clone())
}

fn identities(server: &InProcess) -> IdentityServiceClient<Channel> {
    IdentityServiceClient::new(server.channel.clone())
}

fn roles(server: &InProcess) -> RoleServiceClient<Channel> {
    server.roles()
}

fn resources(server: &InProcess) -> ResourceServiceClient<Channel> {
    ResourceServiceClient::new(server.channel.clone())
}

fn policies(server: &InProcess) -> PolicyServiceClient<Channel> {
    PolicyServiceClient::new(server.channel.clone())
}

/// Code, reason and field of an error.
fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String, String) {
    let status = answer.unwrap_err();
    let info = status.get_details_error_info();
    let field = info.as_ref().and_then(|info| info.metadata.get("field").cloned());
    let reason = info.map(|info| info.reason).unwrap_or_default();
    (status.code(), reason, field.unwrap_or_default())
}

/// Asserts that a write is refused because the policy is a file.
fn assert_read_only<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let expected = (Code::FailedPrecondition, "READ_ONLY".to_owned(), String::new());
    assert_eq!(refusal(answer), expected);
}

#[tokio::test]
async fn a_policy_file_is_read_and_not_written() {
    let server = InProcess::start(Source::Demo).await;
    let (mut groups, mut roles) = (groups(&server), server.roles());
    assert_read_only(groups.create_group(iam::CreateGroupRequest::default()).await);
    assert_read_only(groups.update_group(iam::UpdateGroupRequest::default()).await);
    assert_read_only(groups.delete_group(iam::DeleteGroupRequest::default()).await);
    assert_read_only(roles.create_role(iam::CreateRoleRequest::default()).await);
    assert_read_only(roles.update_role(iam::UpdateRoleRequest::default()).await);
    assert_read_only(roles.delete_role(iam::DeleteRoleRequest::default()).await);
    let mut bindings = bindings(&server);
    assert_read_only(bindings.create_role_binding(iam::CreateRoleBindingRequest::default()).await);
    assert_read_only(bindings.update_role_binding(iam::UpdateRoleBindingRequest::default()).await);
    assert_read_only(bindings.delete_role_binding(iam::DeleteRoleBindingRequest::default()).await);
    let batch = iam::BatchCreateRoleBindingsRequest::default();
    assert_read_only(bindings.batch_create_role_bindings(batch).await);
    let batch = iam::BatchDeleteRoleBindingsRequest::default();
    assert_read_only(bindings.batch_delete_role_bindings(batch).await);
    assert_read_only(bindings.remove_member(iam::RemoveMemberRequest::default()).await);
    let mut identities = identities(&server);
    assert_read_only(identities.create_identity(iam::CreateIdentityRequest::default()).await);
    assert_read_only(identities.update_identity(iam::UpdateIdentityRequest::default()).await);
    assert_read_only(identities.delete_identity(iam::DeleteIdentityRequest::default()).await);
    let mut resources = resources(&server);
    assert_read_only(resources.create_resource(iam::CreateResourceRequest::default()).await);
    assert_read_only(resources.update_resource(iam::UpdateResourceRequest::default()).await);
    assert_read_only(resources.delete_resource(iam::DeleteResourceRequest::default()).await);
    let mut policies = policies(&server);
    let import = tokio_stream::once(iam::ImportRequest::default());
    assert_read_only(policies.import(import).await);
    assert_read_only(policies.set_catalog(iam::SetCatalogRequest::default()).await);
    assert_read_only(policies.export(iam::ExportRequest::default()).await.map(|_| ()));
    let mut audit = AuditServiceClient::new(server.channel.clone());
    let records = audit.list_audit_records(iam::ListAuditRecordsRequest::default()).await.unwrap();
    assert_eq!(records.into_inner().audit_records, []);
}

#[tokio::test]
async fn objects_of_a_policy_file_are_read_by_their_ids() {
    let server = InProcess::start(Source::Demo).await;
    let id = |id: &str| id.to_owned();
    let get = |id: String| iam::GetGroupRequest { id, consistency: None };
    let found = groups(&server).get_group(get(id("acme/platform"))).await.unwrap().into_inner();
    assert_eq!(found.group.unwrap().id, "acme/platform");
    assert!(found.revision > 0);

    let get = |id: String| iam::GetRoleRequest { id, consistency: None };
    let built_in = server.roles().get_role(get(id("owner"))).await.unwrap().into_inner();
    let built_in = built_in.role.unwrap();
    assert_eq!((&*built_in.id, &*built_in.family), ("owner", "administrative"));
    assert!(built_in.capabilities.contains(&"groups.delete".into()));

    let all = iam::ListRoleBindingsRequest::default();
    let all = bindings(&server).list_role_bindings(all).await.unwrap().into_inner().role_bindings;
    assert!(all.len() > 5 && all.is_sorted_by(|a, b| a.id < b.id));
    let get = |id: String| iam::GetRoleBindingRequest { id, consistency: None };
    let one = bindings(&server).get_role_binding(get(all[0].id.clone())).await.unwrap();
    assert_eq!(one.into_inner().role_binding.as_ref(), Some(&all[0]));

    let get = |id: String| iam::GetIdentityRequest { id, consistency: None };
    let alice = identities(&server).get_identity(get(id("alice"))).await.unwrap().into_inner();
    assert_eq!(alice.identity.unwrap().id, "alice");

    let all = iam::ListResourcesRequest::default();
    let all = resources(&server).list_resources(all).await.unwrap().into_inner().resources;
    let get = iam::GetResourceRequest { id: all[0].id.clone(), consistency: None };
    let one = resources(&server).get_resource(get).await.unwrap().into_inner();
    assert_eq!(one.resource.as_ref(), Some(&all[0]));

    // Absent, of another kind, malformed.
    for absent in ["acme/nothing", "alice"] {
        let get = iam::GetGroupRequest { id: id(absent), consistency: None };
        let status = groups(&server).get_group(get).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::NotFound, "not found"));
        assert!(status.details().is_empty() && status.get_details_error_info().is_none());
    }
    let malformed = iam::GetGroupRequest { id: id("acme//x"), consistency: None };
    let expected = (Code::InvalidArgument, id("INVALID_FIELD"), id("id"));
    assert_eq!(refusal(groups(&server).get_group(malformed).await), expected);
}

#[tokio::test]
async fn lists_have_pages_filters_and_parents() {
    let server = InProcess::start(Source::Demo).await;
    let list = |parent: &str, filter: &str, page_size, page_token: &str| {
        let mut groups = groups(&server);
        let request = iam::ListGroupsRequest {
            parent: parent.into(),
            filter: filter.into(),
            page_size,
            page_token: page_token.into(),
            consistency: None,
        };
        async move { groups.list_groups(request).await.map(tonic::Response::into_inner) }
    };
    let ids = |page: &iam::ListGroupsResponse| {
        page.groups.iter().map(|group| group.id.clone()).collect::<Vec<_>>()
    };
    let all = ids(&list("", "", 0, "").await.unwrap());
    assert!(all.len() > 5 && all.is_sorted() && all.contains(&"acme".into()));
    let below = ids(&list("acme/platform", "", 0, "").await.unwrap());
    let expected: Vec<_> = all
        .iter()
        .filter(|id| *id == "acme/platform" || id.starts_with("acme/platform/"))
        .cloned()
        .collect();
    assert!(below.len() > 1 && below == expected, "{below:?}");
    assert_eq!(ids(&list("nowhere", "", 0, "").await.unwrap()), [""; 0]);
    let found = list("", r#"id = "acme/platform" AND name = """#, 0, "").await.unwrap();
    assert_eq!(ids(&found), ["acme/platform"]);

    let (mut paged, mut token) = (vec![], String::new());
    loop {
        let page = list("acme", "", 2, &token).await.unwrap();
        assert!(page.groups.len() <= 2);
        paged.extend(ids(&page));
        if page.next_page_token.is_empty() {
            break;
        }
        token = page.next_page_token;
        // A token of another list.
        let other = refusal(list("acme/platform", "", 2, &token).await);
        assert_eq!(other.2, "page_token");
        let other = iam::ListIdentitiesRequest {
            parent: "acme".into(),
            page_token: token.clone(),
            ..Default::default()
        };
        assert_eq!(refusal(identities(&server).list_identities(other).await).2, "page_token");
    }
    assert_eq!(paged, all);

    for (answer, field) in [
        (list("", "name = x", 0, "").await, "filter"),
        (list("", r#"owner = "x""#, 0, "").await, "filter"),
        (list("a//b", "", 0, "").await, "parent"),
        (list("", "", -1, "").await, "page_size"),
        (list("", "", 0, "x").await, "page_token"),
    ] {
        let expected = (Code::InvalidArgument, "INVALID_FIELD".to_owned(), field.to_owned());
        assert_eq!(refusal(answer), expected);
    }
}

#[tokio::test]
async fn the_id_of_a_person_follows_from_issuer_and_subject() {
    let server = InProcess::start(Source::Demo).await;
    let lookup = |issuer: &str, subject: &str| {
        let mut identities = identities(&server);
        let (issuer, subject) = (issuer.to_owned(), subject.to_owned());
        async move {
            let request = iam::LookupIdentityRequest { issuer, subject };
            identities.lookup_identity(request).await.map(|found| found.into_inner().id)
        }
    };
    let digest = Sha256::digest(b"https://issuer.example\0alice");
    let expected: String = digest.iter().take(20).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(lookup("https://issuer.example", "alice").await.unwrap(), expected);
    assert_eq!(refusal(lookup("", "alice").await).2, "issuer");
    assert_eq!(refusal(lookup("https://issuer.example", "a\0b").await).2, "subject");
}

// === Who calls ===

fn from<T: Default>(headers: &[(&'static str, &str)]) -> Request<T> {
    let mut request = Request::new(T::default());
    for (name, value) in headers {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    request
}

const CALLER: &str = "x-capstan-caller";

#[tokio::test]
async fn a_malformed_caller_is_refused_and_never_ignored() {
    let config = Config { trust_caller_header: true, ..config(Source::Demo) };
    let server = InProcess::start_with(config).await;
    let refused =
        |field: &str| (Code::InvalidArgument, "INVALID_FIELD".to_owned(), field.to_owned());
    for headers in [
        &[(CALLER, "acme//x")][..],
        &[(CALLER, "alice"), (CALLER, "alice")],
        &[(CALLER, "alice"), ("origin", "http://localhost:4480")],
    ] {
        let answer = groups(&server).list_groups(from(headers)).await;
        assert_eq!(refusal(answer), refused(CALLER), "{headers:?}");
    }
    let elsewhere =
        tonic::transport::Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
    let elsewhere = elsewhere.origin("http://capstan.example".parse().unwrap());
    let mut elsewhere = GroupServiceClient::new(Channel::from(elsewhere.connect().await.unwrap()));
    let answer = elsewhere.list_groups(from(&[(CALLER, "alice")])).await;
    assert_eq!(refusal(answer), refused(CALLER));
    assert!(elsewhere.list_groups(from(&[])).await.is_ok());
    assert!(groups(&server).list_groups(from(&[(CALLER, "alice")])).await.is_ok());
    // Without the flag nobody reads it.
    let server = InProcess::start(Source::Demo).await;
    assert!(groups(&server).list_groups(from(&[(CALLER, "acme//x")])).await.is_ok());
}

#[tokio::test]
async fn other_addresses_cannot_trust_the_callers_header() {
    let config = Config {
        listen: vec!["0.0.0.0:0".parse().unwrap()],
        insecure_plaintext: true,
        trust_caller_header: true,
        ..config(Source::Demo)
    };
    let error = Server::bind(config).await.unwrap_err().to_string();
    assert!(error.contains("--insecure-trust-caller-header"), "{error}");
}

#[tokio::test]
async fn the_management_socket_is_its_owners() {
    use std::os::unix::fs::PermissionsExt as _;

    let path = folder("management").join("operator.sock");
    let config = || Config { management: Some(path.clone()), ..config(Source::Demo) };
    // A server that was killed leaves its socket behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = InProcess::start_with(config()).await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let error = Server::bind(config()).await.unwrap_err().to_string();
    assert!(error.contains("in use by another server"), "{error}");

    let address: capstan_client::ServerAddress =
        format!("unix:{}", path.display()).parse().unwrap();
    let endpoint = address.endpoint().unwrap();
    let channel = tokio::time::timeout(PATIENCE, endpoint.connect()).await.unwrap().unwrap();
    let mut operator = GroupServiceClient::new(channel.clone());
    assert!(operator.list_groups(from(&[])).await.is_ok());
    let answer = operator.list_groups(from(&[(CALLER, "alice")])).await;
    assert_eq!(refusal(answer).2, CALLER);
    // It serves every service.
    use capstan_proto::v1::decision_service_client::DecisionServiceClient;
    let check = capstan_proto::v1::CheckRequest {
        identity: "alice".into(),
        capability: "repo.delete".into(),
        resource: "acme/platform".into(),
        ..Default::default()
    };
    assert!(DecisionServiceClient::new(channel).check(check).await.unwrap().into_inner().allowed);
    drop(server);
}
