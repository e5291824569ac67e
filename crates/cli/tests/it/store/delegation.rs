//! What roles promise, end to end: who manages roles, who reads what, and who can give what to whom.

use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{CATALOG, Caller, Data, Served, reason};
use crate::common::{capstan, stderr, stdout};

/// Code, reason, and what is missing.
fn told(answer: Result<Value, Status>) -> (Code, String, String) {
    let status = answer.unwrap_err();
    let info = status.get_details_error_info();
    let missing = info.and_then(|info| info.metadata.get("missing").cloned()).unwrap_or_default();
    (status.code(), reason(&status), missing)
}

/// A root identity with a role at `acme`.
async fn holder(server: &Served, operator: &Caller, id: &str, role: &str) -> Caller {
    let create = json!({"identity": {"id": id}});
    operator.json("IdentityService/CreateIdentity", &create).await.unwrap();
    let bind = json!({"parent": "acme", "role_binding": {"identity": id, "role": role}});
    operator.json("RoleBindingService/CreateRoleBinding", &bind).await.unwrap();
    server.caller(id).await
}

/// `capstan iam` as an identity.
fn run(server: &Served, identity: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let address = ["--addr", &server.grpc, "--as", identity];
    let output = capstan(&[&["iam"], arguments, &address].concat());
    (output.status.code(), stdout(&output), stderr(&output))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_manages_custom_roles_and_a_viewer_lists_them() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let operator = server.operator().await;
    let viewer = holder(&server, &operator, "vera", "viewer").await;
    let owner = server.caller("alice").await;

    let create =
        json!({"parent": "acme", "role": {"id": "acme/puller", "capabilities": ["repo.list"]}});
    owner.json("RoleService/CreateRole", &create).await.unwrap();
    let listed = viewer.json("RoleService/ListRoles", &json!({"parent": "acme"})).await.unwrap();
    let roles = listed["roles"].as_array().unwrap();
    assert!(roles.iter().any(|role| role["id"] == "acme/puller"), "{listed}");
    let got = viewer.json("RoleService/GetRole", &json!({"id": "acme/puller"})).await.unwrap();
    assert_eq!(got["role"]["capabilities"], json!(["repo.list"]));
    let lacks = |capability: &str| {
        (Code::PermissionDenied, "MISSING_CAPABILITY".to_owned(), capability.to_owned())
    };
    let other =
        json!({"parent": "acme", "role": {"id": "acme/other", "capabilities": ["repo.list"]}});
    assert_eq!(told(viewer.json("RoleService/CreateRole", &other).await), lacks("roles.create"));
    let update = json!({"role": {"id": "acme/puller", "capabilities": ["repo.list", "tag.list"]}});
    assert_eq!(told(viewer.json("RoleService/UpdateRole", &update).await), lacks("roles.update"));
    let delete = json!({"id": "acme/puller"});
    assert_eq!(told(viewer.json("RoleService/DeleteRole", &delete).await), lacks("roles.delete"));

    // What a role gains, its holders gain at once.
    let _puller = holder(&server, &operator, "paul", "acme/puller").await;
    assert!(!owner.check("paul", "tag.list", "acme/nginx").await.allowed);
    owner.json("RoleService/UpdateRole", &update).await.unwrap();
    assert!(owner.check("paul", "tag.list", "acme/nginx").await.allowed);
    let in_use = (Code::FailedPrecondition, "ROLE_IN_USE".to_owned(), String::new());
    assert_eq!(told(owner.json("RoleService/DeleteRole", &delete).await), in_use);
    let leave = json!({"organization": "acme", "identity": "paul"});
    owner.json("RoleBindingService/RemoveMember", &leave).await.unwrap();
    owner.json("RoleService/DeleteRole", &delete).await.unwrap();
    let gone = viewer.json("RoleService/GetRole", &json!({"id": "acme/puller"})).await;
    assert_eq!(gone.unwrap_err().code(), Code::NotFound);
}

/// The same over the command line: exit codes, and what a refusal says.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_manages_custom_roles_of_a_store() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let operator = server.operator().await;
    holder(&server, &operator, "vera", "viewer").await;
    let create = ["roles", "create", "puller", "--parent", "acme", "--capability", "repo.list"];
    let (code, said, error) = run(&server, "alice", &create);
    assert_eq!(code, Some(0), "{said}{error}");
    let (code, said, error) = run(&server, "vera", &["roles", "list", "--parent", "acme"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(said.contains("acme/puller"), "{said}");
    let (code, _, error) = run(&server, "vera", &["roles", "delete", "acme/puller", "--yes"]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("roles.delete"), "{error}");
    let (code, _, error) = run(&server, "alice", &["roles", "delete", "acme/puller", "--yes"]);
    assert_eq!(code, Some(0), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_puller_of_packages_reads_its_organizations_group() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let operator = server.operator().await;
    let puller = holder(&server, &operator, "paul", "apk.pull").await;
    let got = puller.json("GroupService/GetGroup", &json!({"id": "acme"})).await.unwrap();
    assert_eq!(got["group"]["id"], "acme");
    // Of images it sees nothing, not even its group.
    let puller = holder(&server, &operator, "ines", "registry.pull").await;
    let got = puller.json("GroupService/GetGroup", &json!({"id": "acme"})).await;
    assert_eq!(got.unwrap_err().code(), Code::NotFound);
}

/// An editor of 2025 has no capability that changes who is in an organization.
#[tokio::test(flavor = "multi_thread")]
async fn an_editor_cannot_invite() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let operator = server.operator().await;
    let editor = holder(&server, &operator, "eve", "editor").await;
    assert!(!editor.check("eve", "group_invites.create", "acme").await.allowed);
    assert!(editor.check("eve", "group_invites.list", "acme").await.allowed);
    let bind = json!({"parent": "acme", "role_binding": {"identity": "eve", "role": "viewer"}});
    let lacks = (
        Code::PermissionDenied,
        "MISSING_CAPABILITY".to_owned(),
        "role_bindings.create".to_owned(),
    );
    assert_eq!(told(editor.json("RoleBindingService/CreateRoleBinding", &bind).await), lacks);
}

/// The editor of 2023 may create role bindings: of what it covers, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn the_editor_of_2023_binds_only_what_it_covers() {
    let data = Data::init("chainguard-2023-12-07");
    let server = data.start();
    let operator = server.operator().await;
    let editor = holder(&server, &operator, "eve", "editor").await;
    for (role, capabilities) in
        [("clusters", &["clusters.create"][..]), ("images", &["images.list", "images.delete"])]
    {
        let create = json!({"parent": "acme", "role": {"id": format!("acme/{role}"), "capabilities": capabilities}});
        operator.json("RoleService/CreateRole", &create).await.unwrap();
    }
    let create = json!({"identity": {"id": "nora"}});
    operator.json("IdentityService/CreateIdentity", &create).await.unwrap();
    let bind = async |identity: &str, role: &str| {
        let bind = json!({"parent": "acme", "role_binding": {"identity": identity, "role": role}});
        editor.json("RoleBindingService/CreateRoleBinding", &bind).await
    };
    for role in ["viewer", "editor", "acme/clusters"] {
        bind("nora", role).await.unwrap_or_else(|error| panic!("{role}: {error}"));
    }
    let lacks = |missing: &str| {
        (Code::PermissionDenied, "MISSING_CAPABILITY".to_owned(), missing.to_owned())
    };
    for identity in ["nora", "eve"] {
        assert_eq!(told(bind(identity, "acme/images").await), lacks("images.delete"));
        assert_eq!(told(bind(identity, "gulfstream").await), lacks("gulfstream"));
        let owner = "account_associations.create,account_associations.delete,account_associations.update,\
                     group_invites.create,group_invites.delete,groups.create,groups.delete,groups.update,\
                     images.create,images.delete,images.update,policies.create,policies.delete,policies.update";
        assert_eq!(told(bind(identity, "owner").await), lacks(owner));
    }
    // Nor does it take the owner's away.
    let owners = json!({"parent": "acme", "filter": "identity = \"alice\""});
    let owners = editor.json("RoleBindingService/ListRoleBindings", &owners).await.unwrap();
    let id = &owners["role_bindings"][0]["id"];
    let delete = json!({"id": id});
    let (code, reason, missing) =
        told(editor.json("RoleBindingService/DeleteRoleBinding", &delete).await);
    assert_eq!((code, &*reason), (Code::PermissionDenied, "MISSING_CAPABILITY"));
    assert!(missing.contains("groups.delete"), "{missing}");
    assert!(!editor.check("eve", "images.delete", "acme").await.allowed);
    assert!(!editor.check("nora", "images.delete", "acme").await.allowed);
}
