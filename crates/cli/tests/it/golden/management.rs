//! Management methods × roles, on a store: every method is called by a holder of every role of both Chainguard catalogs,
//! bound at the organization; by nobody known; and by the operator. Writes are rehearsed, so that no call changes what the
//! next one finds.

use std::fmt::Write as _;
use std::sync::Arc;

use capstan_iam::{Identity, Meta};
use capstan_proto::iam::v1 as iam;
use capstan_proto::iam::v1::audit_service_client::AuditServiceClient;
use capstan_proto::iam::v1::group_service_client::GroupServiceClient;
use capstan_proto::iam::v1::identity_service_client::IdentityServiceClient;
use capstan_proto::iam::v1::resource_service_client::ResourceServiceClient;
use capstan_proto::iam::v1::role_binding_service_client::RoleBindingServiceClient;
use capstan_proto::iam::v1::role_service_client::RoleServiceClient;
use capstan_proto::methods::METHODS;
use capstan_server::clock::Clock;
use capstan_server::feed::journal::{Store, StoredCatalog, first_batch, organization};
use capstan_server::feed::source::Source;
use capstan_server::server::{Config, Feed};
use capstan_store::{Head, Journal as _, Limits, MemoryStore};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

use crate::common::{InProcess, config, folder, golden};

/// The rows.
const ROWS: [&str; 29] = [
    "GroupService/CreateGroup",
    "GroupService/GetGroup",
    "GroupService/ListGroups",
    "GroupService/UpdateGroup",
    "GroupService/DeleteGroup",
    "RoleService/CreateRole",
    "RoleService/GetRole",
    "RoleService/ListRoles",
    "RoleService/UpdateRole",
    "RoleService/DeleteRole",
    "RoleBindingService/CreateRoleBinding",
    "RoleBindingService/BatchCreateRoleBindings",
    "RoleBindingService/GetRoleBinding",
    "RoleBindingService/ListRoleBindings",
    "RoleBindingService/UpdateRoleBinding",
    "RoleBindingService/DeleteRoleBinding",
    "RoleBindingService/BatchDeleteRoleBindings",
    "RoleBindingService/RemoveMember",
    "IdentityService/CreateIdentity",
    "IdentityService/GetIdentity",
    "IdentityService/ListIdentities",
    "IdentityService/UpdateIdentity",
    "IdentityService/DeleteIdentity",
    "ResourceService/CreateResource",
    "ResourceService/GetResource",
    "ResourceService/ListResources",
    "ResourceService/UpdateResource",
    "ResourceService/DeleteResource",
    "AuditService/ListAuditRecords",
];

/// Methods that are in no row: one that is open, and those of whole policies.
const ELSEWHERE: [&str; 4] = [
    "IdentityService/LookupIdentity",
    "PolicyService/Export",
    "PolicyService/Import",
    "PolicyService/SetCatalog",
];

/// The catalogs, each with the role that the calls give and take: one that more than the owner may give.
const CATALOGS: [(&str, &str); 2] =
    [("chainguard-2025-08-14+errata", "apk.pull"), ("chainguard-2023-12-07", "viewer")];

/// A server whose callers are named by the header, with the management socket; and a channel of the operator.
async fn server(catalog: &str) -> (InProcess, Channel) {
    let catalog = StoredCatalog::built_in(catalog).unwrap();
    let (empty, now) = (Head::empty(1), Clock::System.now());
    let meta = Meta::new(empty.revision() + 1, now);
    let owner = Identity {
        id: "owner".parse().unwrap(),
        name: String::new(),
        description: String::new(),
        kind: "user".into(),
        properties: Default::default(),
        disabled: false,
        authentication: None,
        meta,
    };
    let objects = organization(&"acme".parse().unwrap(), (&owner, "owner"), meta);
    let batch = first_batch(&empty, &catalog, objects, ("init", now));
    let journal = MemoryStore::new(1, Limits::default());
    journal.append(empty, batch).await.unwrap();
    let path = folder(&format!("matrix-{}", catalog.catalog().name())).join("operator.sock");
    let config = Config {
        feed: Feed::Store(Store::Opened(Arc::new(journal))),
        management: Some(path.clone()),
        trust_caller_header: true,
        ..config(Source::Demo)
    };
    let server = InProcess::start_with(config).await;
    let address: capstan_client::ServerAddress =
        format!("unix:{}", path.display()).parse().unwrap();
    let operator = address.endpoint().unwrap().connect().await.unwrap();
    (server, operator)
}

/// Makes what the calls name: a holder of each role but the owner's, and one object of each kind.
async fn furnish(operator: &Channel, roles: &[String], given: &str) {
    let mut identities = IdentityServiceClient::new(operator.clone());
    let mut bindings = RoleBindingServiceClient::new(operator.clone());
    let identity = |id: &str| iam::CreateIdentityRequest {
        parent: "acme".into(),
        identity: Some(iam::Identity {
            id: format!("acme/{id}"),
            r#type: "service".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let binding = |id: &str, identity: &str, role: &str| iam::CreateRoleBindingRequest {
        parent: "acme".into(),
        role_binding: Some(iam::RoleBinding {
            id: format!("acme/{id}"),
            identity: format!("acme/{identity}"),
            role: role.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    identities.create_identity(identity("target")).await.unwrap();
    for role in roles {
        identities.create_identity(identity(role)).await.unwrap();
        bindings.create_role_binding(binding(&format!("of-{role}"), role, role)).await.unwrap();
    }
    bindings.create_role_binding(binding("binding", "target", given)).await.unwrap();
    let group = iam::Group { id: "acme/folder".into(), ..Default::default() };
    let group =
        iam::CreateGroupRequest { parent: "acme".into(), group: Some(group), ..Default::default() };
    GroupServiceClient::new(operator.clone()).create_group(group).await.unwrap();
    let role = iam::Role {
        id: "acme/role".into(),
        capabilities: vec!["groups.list".into()],
        ..Default::default()
    };
    let role =
        iam::CreateRoleRequest { parent: "acme".into(), role: Some(role), ..Default::default() };
    RoleServiceClient::new(operator.clone()).create_role(role).await.unwrap();
    let resource =
        iam::Resource { id: "acme/thing".into(), r#type: "thing".into(), ..Default::default() };
    let resource = iam::CreateResourceRequest {
        parent: "acme".into(),
        resource: Some(resource),
        ..Default::default()
    };
    ResourceServiceClient::new(operator.clone()).create_resource(resource).await.unwrap();
}

/// The mark of an answer. `entries` are those of a list.
fn mark<T>(answer: Result<Response<T>, Status>, entries: impl FnOnce(&T) -> Option<usize>) -> char {
    match answer {
        Ok(answer) if entries(answer.get_ref()) == Some(0) => '0',
        Ok(_) => '✔',
        Err(status) => {
            let reason = status.get_details_error_info().map(|info| info.reason);
            match (status.code(), reason.as_deref().unwrap_or_default()) {
                (Code::PermissionDenied, "MISSING_CAPABILITY") => '·',
                (Code::PermissionDenied, "OPERATOR_ONLY") => 'o',
                (Code::NotFound, "") => '-',
                (Code::Unauthenticated, "AUTHN_FAILED") => 'x',
                other => panic!("{other:?}: {status:?}"),
            }
        }
    }
}

/// Calls a method with a request that would succeed for somebody, and gives its mark.
async fn called(row: &str, channel: &Channel, caller: Option<&str>, given: &str) -> char {
    let channel = channel.clone();
    let get = |id: &str| (id.to_owned(), None);
    macro_rules! of {
        ($message:expr) => {{
            let mut request = Request::new($message);
            if let Some(caller) = caller {
                request.metadata_mut().insert("x-capstan-caller", caller.parse().unwrap());
            }
            request
        }};
    }
    macro_rules! call {
        ($client:ident, $method:ident, $message:expr) => {
            mark($client::new(channel).$method(of!($message)).await, |_| None)
        };
    }
    macro_rules! list {
        ($client:ident, $method:ident, $request:ident, $entries:ident) => {{
            let request = iam::$request { parent: "acme".into(), ..Default::default() };
            let answer = $client::new(channel).$method(of!(request)).await;
            mark(answer, |found| Some(found.$entries.len()))
        }};
    }
    macro_rules! rehearse {
        ($client:ident, $method:ident, $request:ident { $($field:ident: $value:expr),+ }) => {{
            let request = iam::$request { $($field: $value,)+ validate_only: true, ..Default::default() };
            call!($client, $method, request)
        }};
    }
    let parent = || "acme".to_owned();
    let name = || "new".to_owned();
    let binding = |identity: &str| iam::RoleBinding {
        identity: identity.into(),
        role: given.into(),
        ..Default::default()
    };
    match row {
        "GroupService/CreateGroup" => rehearse!(
            GroupServiceClient,
            create_group,
            CreateGroupRequest {
                parent: parent(),
                group: Some(iam::Group { name: name(), ..Default::default() })
            }
        ),
        "GroupService/GetGroup" => {
            let (id, consistency) = get("acme/folder");
            call!(GroupServiceClient, get_group, iam::GetGroupRequest { id, consistency })
        }
        "GroupService/ListGroups" => {
            list!(GroupServiceClient, list_groups, ListGroupsRequest, groups)
        }
        "GroupService/UpdateGroup" => rehearse!(
            GroupServiceClient,
            update_group,
            UpdateGroupRequest {
                group: Some(iam::Group {
                    id: "acme/folder".into(),
                    name: name(),
                    ..Default::default()
                })
            }
        ),
        "GroupService/DeleteGroup" => {
            rehearse!(
                GroupServiceClient,
                delete_group,
                DeleteGroupRequest { id: "acme/folder".into() }
            )
        }
        "RoleService/CreateRole" => rehearse!(
            RoleServiceClient,
            create_role,
            CreateRoleRequest {
                parent: parent(),
                role: Some(iam::Role { name: name(), ..Default::default() })
            }
        ),
        "RoleService/GetRole" => {
            let (id, consistency) = get("acme/role");
            call!(RoleServiceClient, get_role, iam::GetRoleRequest { id, consistency })
        }
        "RoleService/ListRoles" => list!(RoleServiceClient, list_roles, ListRolesRequest, roles),
        "RoleService/UpdateRole" => rehearse!(
            RoleServiceClient,
            update_role,
            UpdateRoleRequest {
                role: Some(iam::Role {
                    id: "acme/role".into(),
                    name: name(),
                    ..Default::default()
                })
            }
        ),
        "RoleService/DeleteRole" => {
            rehearse!(RoleServiceClient, delete_role, DeleteRoleRequest { id: "acme/role".into() })
        }
        "RoleBindingService/CreateRoleBinding" => {
            rehearse!(
                RoleBindingServiceClient,
                create_role_binding,
                CreateRoleBindingRequest {
                    parent: "acme/folder".into(),
                    role_binding: Some(binding("acme/target"))
                }
            )
        }
        "RoleBindingService/BatchCreateRoleBindings" => {
            rehearse!(
                RoleBindingServiceClient,
                batch_create_role_bindings,
                BatchCreateRoleBindingsRequest {
                    parent: "acme/folder".into(),
                    role_bindings: vec![binding("acme/target")]
                }
            )
        }
        "RoleBindingService/GetRoleBinding" => {
            let (id, consistency) = get("acme/binding");
            let request = iam::GetRoleBindingRequest { id, consistency };
            call!(RoleBindingServiceClient, get_role_binding, request)
        }
        "RoleBindingService/ListRoleBindings" => list!(
            RoleBindingServiceClient,
            list_role_bindings,
            ListRoleBindingsRequest,
            role_bindings
        ),
        "RoleBindingService/UpdateRoleBinding" => {
            rehearse!(
                RoleBindingServiceClient,
                update_role_binding,
                UpdateRoleBindingRequest {
                    role_binding: Some(iam::RoleBinding {
                        id: "acme/binding".into(),
                        name: name(),
                        ..Default::default()
                    })
                }
            )
        }
        "RoleBindingService/DeleteRoleBinding" => {
            rehearse!(
                RoleBindingServiceClient,
                delete_role_binding,
                DeleteRoleBindingRequest { id: "acme/binding".into() }
            )
        }
        "RoleBindingService/BatchDeleteRoleBindings" => {
            rehearse!(
                RoleBindingServiceClient,
                batch_delete_role_bindings,
                BatchDeleteRoleBindingsRequest {
                    parent: parent(),
                    ids: vec!["acme/binding".into()]
                }
            )
        }
        "RoleBindingService/RemoveMember" => {
            rehearse!(
                RoleBindingServiceClient,
                remove_member,
                RemoveMemberRequest { organization: parent(), identity: "acme/target".into() }
            )
        }
        "IdentityService/CreateIdentity" => {
            rehearse!(
                IdentityServiceClient,
                create_identity,
                CreateIdentityRequest {
                    parent: parent(),
                    identity: Some(iam::Identity { name: name(), ..Default::default() })
                }
            )
        }
        "IdentityService/GetIdentity" => {
            let (id, consistency) = get("acme/target");
            call!(IdentityServiceClient, get_identity, iam::GetIdentityRequest { id, consistency })
        }
        "IdentityService/ListIdentities" => {
            list!(IdentityServiceClient, list_identities, ListIdentitiesRequest, identities)
        }
        "IdentityService/UpdateIdentity" => {
            rehearse!(
                IdentityServiceClient,
                update_identity,
                UpdateIdentityRequest {
                    identity: Some(iam::Identity {
                        id: "acme/target".into(),
                        name: name(),
                        ..Default::default()
                    })
                }
            )
        }
        "IdentityService/DeleteIdentity" => {
            rehearse!(
                IdentityServiceClient,
                delete_identity,
                DeleteIdentityRequest { id: "acme/target".into() }
            )
        }
        "ResourceService/CreateResource" => {
            rehearse!(
                ResourceServiceClient,
                create_resource,
                CreateResourceRequest {
                    parent: parent(),
                    resource: Some(iam::Resource { r#type: "thing".into(), ..Default::default() })
                }
            )
        }
        "ResourceService/GetResource" => {
            let (id, consistency) = get("acme/thing");
            call!(ResourceServiceClient, get_resource, iam::GetResourceRequest { id, consistency })
        }
        "ResourceService/ListResources" => {
            list!(ResourceServiceClient, list_resources, ListResourcesRequest, resources)
        }
        "ResourceService/UpdateResource" => {
            rehearse!(
                ResourceServiceClient,
                update_resource,
                UpdateResourceRequest {
                    resource: Some(iam::Resource {
                        id: "acme/thing".into(),
                        name: name(),
                        ..Default::default()
                    })
                }
            )
        }
        "ResourceService/DeleteResource" => {
            rehearse!(
                ResourceServiceClient,
                delete_resource,
                DeleteResourceRequest { id: "acme/thing".into() }
            )
        }
        "AuditService/ListAuditRecords" => {
            list!(AuditServiceClient, list_audit_records, ListAuditRecordsRequest, audit_records)
        }
        other => panic!("no request of {other}"),
    }
}

#[tokio::test]
async fn who_may_call_what_matches_the_golden_file() {
    let mut matrix = String::from(
        "# ✔ done or shown, 0 an empty list, · PERMISSION_DENIED, o only the operator, - NOT_FOUND, x UNAUTHENTICATED\n",
    );
    for (catalog, given) in CATALOGS {
        let (server, operator) = server(catalog).await;
        let all = StoredCatalog::built_in(catalog).unwrap();
        let all = all.catalog().roles().iter().map(|role| role.name.clone());
        let roles: Vec<String> = all.filter(|role| role != "owner").collect();
        furnish(&operator, &roles, given).await;
        writeln!(matrix, "\n# {catalog}").unwrap();
        let columns = ["(nobody)", "(operator)", "owner"].into_iter();
        let columns = columns.chain(roles.iter().map(String::as_str));
        for (at, column) in columns.enumerate() {
            writeln!(matrix, "# column {}: {column}", at + 1).unwrap();
        }
        for row in ROWS {
            let mut marks = String::new();
            marks.push(Box::pin(called(row, &server.channel, None, given)).await);
            marks.push(Box::pin(called(row, &operator, None, given)).await);
            marks.push(Box::pin(called(row, &server.channel, Some("owner"), given)).await);
            for role in &roles {
                let caller = format!("acme/{role}");
                marks.push(Box::pin(called(row, &server.channel, Some(&caller), given)).await);
            }
            writeln!(matrix, "{marks}  {row}").unwrap();
        }
    }
    golden("management.matrix", &matrix);

    let rows = ROWS.into_iter().chain(ELSEWHERE);
    let mut rows: Vec<String> = rows.map(|row| format!("/capstan.iam.v1.{row}")).collect();
    let methods = METHODS.iter().map(|method| method.path.to_owned());
    let mut methods: Vec<_> = methods.filter(|path| path.starts_with("/capstan.iam.v1.")).collect();
    rows.sort();
    methods.sort();
    assert_eq!(rows, methods, "left: rows and those that are elsewhere; right: the schema");
}
