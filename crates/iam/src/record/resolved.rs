//! Records of identity providers, mappings and account associations.

use std::collections::BTreeMap;

use capstan_engine::PathBuf;

use super::messages::*;
use super::{Problem, absent, decode_meta, encode_meta, parse};
use crate::object::{Accounts, Aws, Azure, Github, Google, Oidc};
use crate::{AccountAssociation, GroupRoleMapping, IdentityProvider, Incarnation};

// === Encoding ===

pub(super) fn encode_provider(provider: &IdentityProvider) -> ProviderRecord {
    let Oidc { issuer, client_id, audiences, jwks, groups_claim, algorithms } =
        provider.oidc.clone();
    ProviderRecord {
        meta: Some(encode_meta(&provider.meta)),
        name: provider.name.clone(),
        description: provider.description.clone(),
        default_role: provider.default_role.as_ref().map(ToString::to_string),
        role_created: provider.role_created,
        creator: provider.creator.as_ref().map(encode_incarnation),
        oidc: Some(OidcRecord { issuer, client_id, audiences, jwks, groups_claim, algorithms }),
    }
}

pub(super) fn encode_mapping(mapping: &GroupRoleMapping) -> MappingRecord {
    MappingRecord {
        meta: Some(encode_meta(&mapping.meta)),
        name: mapping.name.clone(),
        description: mapping.description.clone(),
        external_group: mapping.external_group.clone(),
        role: mapping.role.to_string(),
        role_created: mapping.role_created,
        scope: mapping.scope.to_string(),
        creator: mapping.creator.as_ref().map(encode_incarnation),
    }
}

pub(super) fn encode_association(association: &AccountAssociation) -> AssociationRecord {
    let Accounts { aws, google, azure, github } = association.accounts.clone();
    let services = association.services.iter();
    AssociationRecord {
        meta: Some(encode_meta(&association.meta)),
        name: association.name.clone(),
        description: association.description.clone(),
        aws: aws.map(|Aws { account }| AwsRecord { account }),
        google: google.map(|Google { project_id, project_number }| GoogleRecord {
            project_id,
            project_number,
        }),
        azure: azure.map(|Azure { tenant_id, client_ids }| AzureRecord { tenant_id, client_ids }),
        github: github.map(|Github { installations }| GithubRecord { installations }),
        services: services.map(|(name, one)| (name.clone(), encode_incarnation(one))).collect(),
    }
}

fn encode_incarnation(one: &Incarnation) -> IncarnationRecord {
    IncarnationRecord { id: one.id.to_string(), created: one.created }
}

// === Decoding ===

pub(super) fn decode_provider(
    id: PathBuf,
    record: ProviderRecord,
) -> Result<IdentityProvider, Problem> {
    let ProviderRecord { meta, name, description, default_role, role_created, creator, oidc } =
        record;
    // A later version may have another configuration: then this is no provider that this version understands.
    let OidcRecord { issuer, client_id, audiences, jwks, groups_claim, algorithms } =
        oidc.ok_or_else(|| absent("oidc"))?;
    Ok(IdentityProvider {
        id,
        name,
        description,
        oidc: Oidc { issuer, client_id, audiences, jwks, groups_claim, algorithms },
        default_role: default_role.map(Into::into),
        role_created,
        creator: creator.map(|one| decode_incarnation("creator", one)).transpose()?,
        meta: decode_meta(meta)?,
    })
}

pub(super) fn decode_mapping(
    id: PathBuf,
    record: MappingRecord,
) -> Result<GroupRoleMapping, Problem> {
    let MappingRecord { meta, name, description, external_group, role, role_created, .. } = record;
    let creator = record.creator.map(|one| decode_incarnation("creator", one));
    Ok(GroupRoleMapping {
        id,
        name,
        description,
        external_group,
        role: role.into(),
        role_created,
        scope: parse("scope", record.scope)?,
        creator: creator.transpose()?,
        meta: decode_meta(meta)?,
    })
}

pub(super) fn decode_association(
    id: PathBuf,
    record: AssociationRecord,
) -> Result<AccountAssociation, Problem> {
    let AssociationRecord { meta, name, description, aws, google, azure, github, services } =
        record;
    let accounts = Accounts {
        aws: aws.map(|AwsRecord { account }| Aws { account }),
        google: google.map(|GoogleRecord { project_id, project_number }| Google {
            project_id,
            project_number,
        }),
        azure: azure.map(|AzureRecord { tenant_id, client_ids }| Azure { tenant_id, client_ids }),
        github: github.map(|GithubRecord { installations }| Github { installations }),
    };
    let services: Result<BTreeMap<_, _>, Problem> = services
        .into_iter()
        .map(|(name, one)| Ok((name, decode_incarnation("services", one)?)))
        .collect();
    let (services, meta) = (services?, decode_meta(meta)?);
    Ok(AccountAssociation { id, name, description, accounts, services, meta })
}

fn decode_incarnation(field: &str, record: IncarnationRecord) -> Result<Incarnation, Problem> {
    Ok(Incarnation { id: parse(field, record.id)?, created: record.created })
}
