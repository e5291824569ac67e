//! Roles that a token carries: by the groups that it lists, and the default role of its provider.

use capstan_proto::iam::v1 as iam;
use capstan_proto::iam::v1::group_role_mapping_service_client::GroupRoleMappingServiceClient;
use capstan_proto::iam::v1::group_service_client::GroupServiceClient;
use capstan_proto::iam::v1::role_binding_service_client::RoleBindingServiceClient;
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use serde_json::{Value, json};
use tonic::{Code, Request};

use super::{Caller, World, with};
use crate::ext_authz::envoy::{Http, outcome};
use capstan_server::limits::{SESSION_ROLES_MAX, TOKEN_GROUPS_MAX};

const ROUTES: &str = "version: 1
identity: [credential]
routes:
- {name: shop, methods: [GET], path: /shop, require: [{capability: repo.list, resource: acme/shop/web}]}
";

/// The scopes where a token gives something.
async fn scopes(caller: &Caller, token: &str, named: Option<&str>) -> Vec<String> {
    let bearer = format!("Bearer {token}");
    let named = named.map(|named| ("x-capstan-caller", named));
    let metadata: Vec<_> =
        [Some(("authorization", &*bearer)), named].into_iter().flatten().collect();
    let found = caller.who(&metadata).await.unwrap();
    found.scopes.into_iter().map(|one| one.scope).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_of_a_token_are_roles_for_its_calls() {
    let world = World::start_with(Some(ROUTES)).await;
    let caller = world.caller().await;
    let people = world.issuers.url("people");
    world.operate(&["folders", "create", "shop", "--parent", "acme"]);
    world.operate(&["organizations", "create", "globex", "--owner", "alice"]);
    // Two organizations have the issuer of people, one of them with another audience.
    world.operate(&[
        "identity-providers",
        "create",
        "acme/people",
        "--issuer",
        &people,
        "--groups-claim",
        "groups",
    ]);
    world.operate(&[
        "identity-providers",
        "create",
        "globex/people",
        "--issuer",
        &people,
        "--groups-claim",
        "teams",
        "--audience",
        "globex-api",
        "--default-role",
        "viewer",
    ]);
    let mapped = world.operate(&[
        "group-role-mappings",
        "create",
        "--provider",
        "acme/people",
        "--external-group",
        "devs",
        "--role",
        "editor",
        "--scope",
        "acme/shop",
        "-o",
        "id",
    ]);
    let mapped = mapped.trim();
    world.operate(&[
        "group-role-mappings",
        "create",
        "--provider",
        "globex/people",
        "--external-group",
        "devs",
        "--role",
        "owner",
        "--scope",
        "globex",
    ]);

    let ann = |name: &str, value: Value| world.people.sign(&with(world.of_ann(), name, value));
    let plain = world.people.sign(&world.of_ann());
    let dev = ann("groups", json!(["staff", "devs"]));
    assert_eq!(scopes(&caller, &plain, None).await, ["acme"]);
    for _ in 0..2 {
        assert_eq!(scopes(&caller, &dev, None).await, ["acme", "acme/shop"]);
    }
    // Strict types, whole names, and not too many.
    let many: Vec<String> =
        (0..TOKEN_GROUPS_MAX).map(|at| format!("g{at}")).chain(["devs".into()]).collect();
    for groups in [
        json!("devs"),
        json!({"devs": true}),
        json!(["Devs", "dev", "devs "]),
        json!(["devs", 1]),
        json!(many),
    ] {
        let token = ann("groups", groups.clone());
        assert_eq!(scopes(&caller, &token, None).await, ["acme"], "{groups}");
    }
    assert_eq!(
        scopes(&caller, &ann("teams", json!(["devs"])), None).await,
        ["acme"],
        "another claim"
    );
    // The other organization takes tokens for itself: its default role, and its own mapping.
    let both = json!(["https://iam.example.com", "globex-api"]);
    assert_eq!(scopes(&caller, &ann("aud", both.clone()), None).await, ["acme", "globex"]);
    let owner =
        world.people.sign(&with(with(world.of_ann(), "aud", both), "teams", json!(["devs"])));
    let found = caller.who(&[("authorization", &format!("Bearer {owner}"))]).await.unwrap();
    let of_globex = found.scopes.iter().find(|one| one.scope == "globex").unwrap();
    assert!(of_globex.capabilities.iter().any(|one| one == "groups.create"), "{of_globex:?}");

    // A request of Envoy has them as well, and only with that token.
    let mut envoy = AuthorizationClient::new(caller.0.clone());
    let mut ask = async |token: &str| {
        let http = Http::get("/shop").bearer(token);
        outcome(envoy.check(http.check_request()).await.unwrap().into_inner(), &http).status()
    };
    let bound = world.operate(&["role-bindings", "list", "--identity", &world.ann, "-o", "id"]);
    world.operate(&["role-bindings", "delete", bound.trim(), "--yes"]);
    assert_eq!((ask(&dev).await, ask(&plain).await), (200, 403));
    // The next call sees that the mapping is gone.
    world.operate(&["group-role-mappings", "delete", mapped, "--yes"]);
    assert_eq!(ask(&dev).await, 403);
    assert!(scopes(&caller, &dev, None).await.is_empty());
}

/// What a provider of an organization gives to those of its identities that come with a token of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_default_role_is_for_whoever_comes() {
    let world = World::start().await;
    let caller = world.caller().await;
    world.operate(&["folders", "create", "shop", "--parent", "acme"]);
    let ci = world.issuers.url("ci");
    let deployer = format!("issuer={ci},subject=deployer");
    world.operate(&[
        "identities",
        "create",
        "acme/deployer",
        "--type",
        "service",
        "--claim-match",
        &deployer,
    ]);
    world.operate(&[
        "identity-providers",
        "update",
        "acme/ci-idp",
        "--default-role",
        "viewer",
        "--groups-claim",
        "roles",
    ]);
    let claims = super::claims(&ci, "deployer");
    let token = world.ci.sign(&claims);
    assert_eq!(scopes(&caller, &token, Some("acme/deployer")).await, ["acme"]);
    // As many roles as are carried, of a token that lists more groups.
    let folders: Vec<String> = (0..SESSION_ROLES_MAX + 4).map(|at| format!("f{at}")).collect();
    let operator = world.operator().await;
    let mut groups = GroupServiceClient::new(operator.clone());
    let mut mappings = GroupRoleMappingServiceClient::new(operator);
    for folder in &folders {
        let id = format!("acme/shop/{folder}");
        let group = Some(iam::Group { id: id.clone(), ..Default::default() });
        let request =
            iam::CreateGroupRequest { parent: "acme/shop".into(), group, ..Default::default() };
        groups.create_group(request).await.unwrap();
        let (external_group, role, scope) = (folder.clone(), "viewer".into(), id);
        let mapping =
            Some(iam::GroupRoleMapping { external_group, role, scope, ..Default::default() });
        let parent = "acme/ci-idp".into();
        let request = iam::CreateGroupRoleMappingRequest {
            parent,
            group_role_mapping: mapping,
            ..Default::default()
        };
        mappings.create_group_role_mapping(request).await.unwrap();
    }
    let all = world.ci.sign(&with(claims.clone(), "roles", json!(folders)));
    // Beside the default role.
    assert_eq!(scopes(&caller, &all, Some("acme/deployer")).await.len(), SESSION_ROLES_MAX + 1);
    // An identity with keys of its own comes with no token of the provider, and a certificate carries nothing.
    let bot = world.bot.sign(&with(world.of_bot(), "roles", json!(folders)));
    assert_eq!(scopes(&caller, &bot, Some("acme/bot")).await, ["acme"]);
    // What is given without an end with a role that ends is refused.
    world.operate(&["identity-providers", "update", "acme/ci-idp", "--default-role", "owner"]);
    let token = world.ci.sign(&claims);
    let binding = iam::RoleBinding {
        identity: "acme/bot".into(),
        role: "editor".into(),
        scope: "acme".into(),
        ..Default::default()
    };
    let request = iam::CreateRoleBindingRequest {
        parent: "acme".into(),
        role_binding: Some(binding),
        ..Default::default()
    };
    let mut request = Request::new(request);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request.metadata_mut().insert("x-capstan-caller", "acme/deployer".parse().unwrap());
    let mut bindings = RoleBindingServiceClient::new(caller.0.clone());
    let bound = bindings.create_role_binding(request).await.unwrap_err();
    assert_eq!(
        (bound.code(), &*crate::raw::reason(&bound)),
        (Code::PermissionDenied, "DURATION_EXCEEDED")
    );
}
