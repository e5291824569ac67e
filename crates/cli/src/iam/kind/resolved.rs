//! Identity providers, group role mappings and account associations.

use capstan_proto::iam::v1::identity_provider::Configuration;
use capstan_proto::iam::v1::{AccountAssociation, GroupRoleMapping, IdentityProvider};

use super::*;

impl Listed for IdentityProvider {
    const WORD: &'static str = "identity provider";
    const MESSAGE: &'static str = "IdentityProvider";
    const LIST: &'static str = "identity_providers";
    const COLUMNS: &'static [&'static str] =
        &["provider", "name", "issuer", "default role", "keys", "algorithms"];

    fn row(&self) -> Vec<String> {
        let Some(Configuration::Oidc(oidc)) = &self.configuration else {
            let mut row = vec![self.id.clone(), self.name.clone()];
            row.resize(Self::COLUMNS.len(), String::new());
            return row;
        };
        let keys = if oidc.jwks.is_empty() { "of the issuer" } else { "given" };
        let Self { id, name, default_role, .. } = self.clone();
        vec![id, name, oidc.issuer.clone(), default_role, keys.into(), oidc.algorithms.join(", ")]
    }

    fn label(&self) -> String {
        let issuer = self.row().into_iter().nth(2).unwrap_or_default();
        let parts = [&*issuer, &*self.name];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  ")
    }

    list_call!(identity_provider_service_client::IdentityProviderServiceClient,
        list_identity_providers(ListIdentityProvidersRequest) -> identity_providers);
}

impl Kind for IdentityProvider {
    const FIELD: &'static str = "identity_provider";

    calls!(identity_provider_service_client::IdentityProviderServiceClient,
        get_identity_provider(GetIdentityProviderRequest) -> identity_provider,
        create_identity_provider(CreateIdentityProviderRequest),
        update_identity_provider(UpdateIdentityProviderRequest),
        delete_identity_provider(DeleteIdentityProviderRequest));
}

impl Listed for GroupRoleMapping {
    const WORD: &'static str = "group role mapping";
    const MESSAGE: &'static str = "GroupRoleMapping";
    const LIST: &'static str = "group_role_mappings";
    const COLUMNS: &'static [&'static str] =
        &["group of the provider", "role", "scope", "name", "mapping"];

    fn row(&self) -> Vec<String> {
        let Self { external_group, role, scope, name, id, .. } = self.clone();
        vec![external_group, role, scope, name, id]
    }

    fn label(&self) -> String {
        format!("{}  {} at {}", self.role, self.external_group, self.scope)
    }

    fn what(&self) -> String {
        let Self { external_group, role, scope, .. } = self;
        format!("group role mapping of {external_group} to {role} at {scope}:")
    }

    list_call!(group_role_mapping_service_client::GroupRoleMappingServiceClient,
        list_group_role_mappings(ListGroupRoleMappingsRequest) -> group_role_mappings);
}

impl Kind for GroupRoleMapping {
    const FIELD: &'static str = "group_role_mapping";

    calls!(group_role_mapping_service_client::GroupRoleMappingServiceClient,
        get_group_role_mapping(GetGroupRoleMappingRequest) -> group_role_mapping,
        create_group_role_mapping(CreateGroupRoleMappingRequest),
        update_group_role_mapping(UpdateGroupRoleMappingRequest),
        delete_group_role_mapping(DeleteGroupRoleMappingRequest));
}

impl Listed for AccountAssociation {
    const WORD: &'static str = "account association";
    const MESSAGE: &'static str = "AccountAssociation";
    const LIST: &'static str = "account_associations";
    const COLUMNS: &'static [&'static str] =
        &["group", "name", "AWS", "Google", "Azure", "GitHub", "services"];

    fn row(&self) -> Vec<String> {
        let mut github: Vec<_> =
            self.github.iter().flat_map(|github| github.installations.keys().cloned()).collect();
        github.sort_unstable();
        let services = self.services.iter();
        let mut services: Vec<_> = services.map(|(name, id)| format!("{name}={id}")).collect();
        services.sort_unstable();
        vec![
            self.id.clone(),
            self.name.clone(),
            self.aws.as_ref().map(|aws| aws.account.clone()).unwrap_or_default(),
            self.google.as_ref().map(|google| google.project_id.clone()).unwrap_or_default(),
            self.azure.as_ref().map(|azure| azure.tenant_id.clone()).unwrap_or_default(),
            github.join(", "),
            services.join(", "),
        ]
    }

    list_call!(account_association_service_client::AccountAssociationServiceClient,
        list_account_associations(ListAccountAssociationsRequest) -> account_associations);
}

impl Kind for AccountAssociation {
    const FIELD: &'static str = "account_association";

    calls!(account_association_service_client::AccountAssociationServiceClient,
        get_account_association(GetAccountAssociationRequest) -> account_association,
        create_account_association(CreateAccountAssociationRequest),
        update_account_association(UpdateAccountAssociationRequest),
        delete_account_association(DeleteAccountAssociationRequest));
}
