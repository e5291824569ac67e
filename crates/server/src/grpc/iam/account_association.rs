//! Requests of `AccountAssociationService` to operations.

use std::collections::{BTreeMap, HashMap};

use capstan_engine::PathBuf;
use capstan_iam::{
    AccountAssociationUpdate, Accounts, Aws, Azure, CreateAccountAssociation, Github, Google,
    Operation, UpdateAccountAssociation,
};
use capstan_proto::iam::v1;

use super::fields::{optional, path, required};
use super::group::deleted;
use super::mask::{Fields, Mask};
use crate::RequestError;

const FIELDS: Fields = Fields {
    mutable: &["name", "description", "aws", "google", "azure", "github", "services"],
    immutable: &[],
};

pub(super) fn create(
    request: v1::CreateAccountAssociationRequest,
) -> Result<Operation, RequestError> {
    let v1::CreateAccountAssociationRequest { parent, account_association, .. } = request;
    let association = required("account_association", account_association)?;
    let parent = path("parent", &parent)?;
    if !association.id.is_empty() && association.id != parent.as_str() {
        let problem = format!("the association of a group has its id, which is `{parent}`");
        return Err(RequestError::field("account_association.id", problem));
    }
    Ok(Operation::CreateAccountAssociation(CreateAccountAssociation {
        parent,
        name: association.name,
        description: association.description,
        accounts: Accounts {
            aws: association.aws.map(aws),
            google: association.google.map(google),
            azure: association.azure.map(azure),
            github: association.github.map(github),
        },
        services: services(association.services)?,
    }))
}

pub(super) fn update(
    request: v1::UpdateAccountAssociationRequest,
) -> Result<Operation, RequestError> {
    let v1::UpdateAccountAssociationRequest { account_association, update_mask, .. } = request;
    let association = required("account_association", account_association)?;
    let mask = Mask::parse(update_mask.as_ref(), &FIELDS)?;
    let v1::AccountAssociation {
        aws: aws_, google: google_, azure: azure_, github: github_, ..
    } = association;
    let is_set = (aws_.is_some(), google_.is_some(), azure_.is_some(), github_.is_some());
    let has_services = !association.services.is_empty();
    let named = mask.of("services", association.services, has_services);
    Ok(Operation::UpdateAccountAssociation(UpdateAccountAssociation {
        id: path("account_association.id", &association.id)?,
        update: AccountAssociationUpdate {
            name: mask.text("name", association.name),
            description: mask.text("description", association.description),
            aws: mask.of("aws", aws_.map(aws), is_set.0),
            google: mask.of("google", google_.map(google), is_set.1),
            azure: mask.of("azure", azure_.map(azure), is_set.2),
            github: mask.of("github", github_.map(github), is_set.3),
            services: named.map(services).transpose()?,
        },
        etag: optional(association.etag),
    }))
}

pub(super) fn delete(
    request: v1::DeleteAccountAssociationRequest,
) -> Result<Operation, RequestError> {
    let v1::DeleteAccountAssociationRequest { id, etag, .. } = request;
    Ok(Operation::DeleteAccountAssociation(deleted(&id, etag)?))
}

fn aws(v1::Aws { account }: v1::Aws) -> Aws {
    Aws { account }
}

fn google(v1::Google { project_id, project_number }: v1::Google) -> Google {
    Google { project_id, project_number }
}

fn azure(v1::Azure { tenant_id, client_ids }: v1::Azure) -> Azure {
    Azure { tenant_id, client_ids }
}

fn github(v1::Github { installations }: v1::Github) -> Github {
    Github { installations: installations.into_iter().collect() }
}

fn services(all: HashMap<String, String>) -> Result<BTreeMap<String, PathBuf>, RequestError> {
    // In the order of their names, so that the first one that is wrong is always the same.
    let all: BTreeMap<_, _> = all.into_iter().collect();
    let one = |(name, id): (String, String)| {
        let id = path(&format!("account_association.services[{name}]"), &id)?;
        Ok((name, id))
    };
    all.into_iter().map(one).collect()
}
