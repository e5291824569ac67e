//! Requests about identity providers, group role mappings and account associations.

use serde_json::{Value, json};

/// As [`super::requests`].
pub(super) fn requests(org: &str) -> Vec<(&'static str, &'static str, Value)> {
    let id = |rest: &str| format!("{org}/{rest}");
    let write = |mut message: Value| {
        message["validate_only"] = true.into();
        message
    };
    let provider = |parent: &str, more: Value| {
        let mut provider = json!({"oidc": {"issuer": "https://new.example"}});
        provider.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        write(json!({"parent": parent, "identity_provider": provider}))
    };
    let map = |role: &str, scope: &str| {
        let mapping = json!({"external_group": "new", "role": role, "scope": scope});
        write(json!({"parent": id("idp"), "group_role_mapping": mapping}))
    };
    let associate = |named: Value| {
        let association = json!({"aws": {"account": "012345678901"}, "services": named});
        write(json!({"parent": id("empty"), "account_association": association}))
    };
    let change = |kind: &str, mut object: Value, rest: &str| {
        object["id"] = id(rest).into();
        write(json!({kind: object}))
    };
    let get = |rest: &str| json!({"id": id(rest)});
    let delete = |rest: &str| write(json!({"id": id(rest)}));
    let list = json!({"parent": org});
    vec![
        (
            "IdentityProviderService/CreateIdentityProvider",
            "without a default role",
            provider(org, json!({})),
        ),
        (
            "IdentityProviderService/CreateIdentityProvider",
            "with viewer",
            provider(org, json!({"default_role": "viewer"})),
        ),
        (
            "IdentityProviderService/CreateIdentityProvider",
            "of the issuer that an identity names",
            provider(org, json!({"oidc": {"issuer": "https://bound.example"}})),
        ),
        (
            "IdentityProviderService/CreateIdentityProvider",
            "of a folder",
            provider(&id("team"), json!({})),
        ),
        ("IdentityProviderService/GetIdentityProvider", "of the organization", get("idp")),
        ("IdentityProviderService/GetIdentityProvider", "absent", get("none")),
        ("IdentityProviderService/ListIdentityProviders", "at the organization", list.clone()),
        (
            "IdentityProviderService/UpdateIdentityProvider",
            "its name",
            change("identity_provider", json!({"name": "New"}), "idp"),
        ),
        (
            "IdentityProviderService/UpdateIdentityProvider",
            "its client id",
            change("identity_provider", json!({"oidc": {"client_id": "new"}}), "idp"),
        ),
        ("IdentityProviderService/DeleteIdentityProvider", "with a mapping", delete("idp")),
        (
            "GroupRoleMappingService/CreateGroupRoleMapping",
            "to viewer at a folder",
            map("viewer", &id("team")),
        ),
        ("GroupRoleMappingService/CreateGroupRoleMapping", "to owner", map("owner", org)),
        ("GroupRoleMappingService/GetGroupRoleMapping", "of the organization", get("idp/one")),
        ("GroupRoleMappingService/ListGroupRoleMappings", "at the organization", list.clone()),
        (
            "GroupRoleMappingService/UpdateGroupRoleMapping",
            "its name",
            change("group_role_mapping", json!({"name": "New"}), "idp/one"),
        ),
        ("GroupRoleMappingService/DeleteGroupRoleMapping", "to viewer", delete("idp/one")),
        (
            "AccountAssociationService/CreateAccountAssociation",
            "without services",
            associate(json!({})),
        ),
        (
            "AccountAssociationService/CreateAccountAssociation",
            "that names an identity",
            associate(json!({"ci": id("bot")})),
        ),
        ("AccountAssociationService/GetAccountAssociation", "of a folder", get("linked")),
        ("AccountAssociationService/GetAccountAssociation", "absent", get("empty")),
        ("AccountAssociationService/ListAccountAssociations", "at the organization", list),
        (
            "AccountAssociationService/UpdateAccountAssociation",
            "its name",
            change("account_association", json!({"name": "New"}), "linked"),
        ),
        (
            "AccountAssociationService/UpdateAccountAssociation",
            "its account",
            change("account_association", json!({"aws": {"account": "999999999999"}}), "linked"),
        ),
        ("AccountAssociationService/DeleteAccountAssociation", "of a folder", delete("linked")),
    ]
}

/// What makes the objects that [`requests`] are about, behind those of the other kinds.
pub(super) fn objects(org: &str) -> Vec<(&'static str, Value)> {
    let id = |rest: &str| format!("{org}/{rest}");
    let claims = json!({"issuer": "https://bound.example", "subject": "1"});
    vec![
        ("GroupService/CreateGroup", json!({"parent": org, "group": {"id": id("linked")}})),
        (
            "IdentityService/CreateIdentity",
            json!({"parent": org, "identity": {"id": id("proved"), "claim_match": claims}}),
        ),
        (
            "RoleBindingService/CreateRoleBinding",
            json!({"parent": id("team"), "role_binding":
                {"id": id("team/proved"), "identity": id("proved"), "role": "owner"}}),
        ),
        (
            "IdentityProviderService/CreateIdentityProvider",
            json!({"parent": org, "identity_provider":
                {"id": id("idp"), "oidc": {"issuer": "https://idp.example"}}}),
        ),
        (
            "GroupRoleMappingService/CreateGroupRoleMapping",
            json!({"parent": id("idp"), "group_role_mapping": {"id": id("idp/one"),
                "external_group": "one", "role": "viewer", "scope": org}}),
        ),
        (
            "AccountAssociationService/CreateAccountAssociation",
            json!({"parent": id("linked"), "account_association":
                {"aws": {"account": "012345678901"}, "services": {"ci": id("bot")}}}),
        ),
    ]
}
