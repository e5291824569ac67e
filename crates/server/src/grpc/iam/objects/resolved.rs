//! Identity providers, mappings and account associations to messages.

use capstan_iam::{
    AccountAssociation, Accounts, Aws, Azure, Github, Google, GroupRoleMapping, IdentityProvider,
    Oidc,
};
use capstan_proto::iam::v1::{self, identity_provider::Configuration};

use super::super::filter::{Listed, Scalar};
use super::stamps;

pub(in super::super) fn identity_provider(provider: IdentityProvider) -> v1::IdentityProvider {
    let (etag, create_time, update_time) = stamps(&provider.meta);
    let Oidc { issuer, client_id, audiences, jwks, groups_claim, algorithms } = provider.oidc;
    let (jwks, groups_claim) = (jwks.unwrap_or_default(), groups_claim.unwrap_or_default());
    let oidc = v1::Oidc { issuer, client_id, audiences, jwks, groups_claim, algorithms };
    v1::IdentityProvider {
        id: provider.id.to_string(),
        name: provider.name,
        description: provider.description,
        etag,
        create_time,
        update_time,
        default_role: provider.default_role.map(Into::into).unwrap_or_default(),
        configuration: Some(Configuration::Oidc(oidc)),
    }
}

pub(in super::super) fn group_role_mapping(mapping: GroupRoleMapping) -> v1::GroupRoleMapping {
    let (etag, create_time, update_time) = stamps(&mapping.meta);
    let identity_provider = mapping.provider().to_string();
    v1::GroupRoleMapping {
        id: mapping.id.to_string(),
        name: mapping.name,
        description: mapping.description,
        etag,
        create_time,
        update_time,
        identity_provider,
        external_group: mapping.external_group,
        role: mapping.role.into(),
        scope: mapping.scope.to_string(),
    }
}

pub(in super::super) fn account_association(
    association: AccountAssociation,
) -> v1::AccountAssociation {
    let (etag, create_time, update_time) = stamps(&association.meta);
    let Accounts { aws, google, azure, github } = association.accounts;
    let services = association.services.into_iter();
    v1::AccountAssociation {
        id: association.id.to_string(),
        name: association.name,
        description: association.description,
        etag,
        create_time,
        update_time,
        aws: aws.map(|Aws { account }| v1::Aws { account }),
        google: google
            .map(|Google { project_id, project_number }| v1::Google { project_id, project_number }),
        azure: azure.map(|Azure { tenant_id, client_ids }| v1::Azure { tenant_id, client_ids }),
        github: github.map(|Github { installations }| v1::Github {
            installations: installations.into_iter().collect(),
        }),
        services: services.map(|(name, one)| (name, one.id.to_string())).collect(),
    }
}

// === Scalar fields, for filters ===

super::listed!(
    v1::GroupRoleMapping,
    "identity_provider" => identity_provider, "external_group" => external_group, "role" => role,
    "scope" => scope
);

impl Listed for v1::IdentityProvider {
    fn scalar(&self, field: &str) -> Option<Scalar<'_>> {
        static NONE: v1::Oidc = v1::Oidc {
            issuer: String::new(),
            client_id: String::new(),
            audiences: vec![],
            jwks: String::new(),
            groups_claim: String::new(),
            algorithms: vec![],
        };
        let oidc = match &self.configuration {
            Some(Configuration::Oidc(oidc)) => oidc,
            Some(Configuration::Saml(_)) | None => &NONE,
        };
        Some(match field {
            "id" => (&self.id).into(),
            "name" => (&self.name).into(),
            "description" => (&self.description).into(),
            "etag" => (&self.etag).into(),
            "create_time" => (&self.create_time).into(),
            "update_time" => (&self.update_time).into(),
            "default_role" => (&self.default_role).into(),
            "issuer" => (&oidc.issuer).into(),
            "client_id" => (&oidc.client_id).into(),
            "groups_claim" => (&oidc.groups_claim).into(),
            _ => return None,
        })
    }
}

impl Listed for v1::AccountAssociation {
    fn scalar(&self, field: &str) -> Option<Scalar<'_>> {
        static NONE: String = String::new();
        let google = self.google.as_ref();
        Some(match field {
            "id" => (&self.id).into(),
            "name" => (&self.name).into(),
            "description" => (&self.description).into(),
            "etag" => (&self.etag).into(),
            "create_time" => (&self.create_time).into(),
            "update_time" => (&self.update_time).into(),
            "account" => self.aws.as_ref().map_or(&NONE, |aws| &aws.account).into(),
            "project_id" => google.map_or(&NONE, |google| &google.project_id).into(),
            "project_number" => google.map_or(&NONE, |google| &google.project_number).into(),
            "tenant_id" => self.azure.as_ref().map_or(&NONE, |azure| &azure.tenant_id).into(),
            _ => return None,
        })
    }
}
