//! Requests of `IdentityProviderService` to operations.
//!
//! A provider without `jwks` has the keys of its issuer's discovery document (R9: verified when it is saved). The issuer is asked
//! before the writer, which must not wait for others, and only for a caller who may save providers: [`issuer_to_ask`].
//!
//! What the issuer answers decides. If it does not answer, the provider is saved, and the response says so in the metadata
//! `capstan-warning`: without keys it proves nobody, and a provider can be managed while the issuer has a problem.

use capstan_iam::{
    CreateIdentityProvider, IdentityProviderUpdate, Kind, Object, Oidc, Operation,
    UpdateIdentityProvider,
};
use capstan_proto::iam::v1::{self, identity_provider::Configuration};

use super::fields::{optional, optional_path, path, required};
use super::group::deleted;
use super::mask::{Fields, Mask};
use super::reading::{Reading, Viewer};
use crate::RequestError;

const FIELDS: Fields = Fields {
    mutable: &[
        "name",
        "description",
        "default_role",
        OIDC,
        "oidc.client_id",
        "oidc.audiences",
        "oidc.jwks",
        "oidc.groups_claim",
        "oidc.algorithms",
    ],
    immutable: &["oidc.issuer"],
};

/// Stands in a mask for all of its fields.
const OIDC: &str = "oidc";

pub(super) fn create(
    request: v1::CreateIdentityProviderRequest,
) -> Result<Operation, RequestError> {
    let v1::CreateIdentityProviderRequest { parent, identity_provider, .. } = request;
    let provider = required("identity_provider", identity_provider)?;
    let oidc = required("identity_provider.oidc", oidc(provider.configuration)?)?;
    let v1::Oidc { issuer, client_id, audiences, jwks, groups_claim, algorithms } = oidc;
    Ok(Operation::CreateIdentityProvider(CreateIdentityProvider {
        parent: path("parent", &parent)?,
        id: optional_path("identity_provider.id", &provider.id)?,
        name: provider.name,
        description: provider.description,
        oidc: Oidc {
            issuer,
            client_id,
            audiences,
            jwks: optional(jwks),
            groups_claim: optional(groups_claim),
            algorithms,
        },
        default_role: optional(provider.default_role).map(Into::into),
    }))
}

fn oidc(configuration: Option<Configuration>) -> Result<Option<v1::Oidc>, RequestError> {
    match configuration {
        None => Ok(None),
        Some(Configuration::Oidc(oidc)) => Ok(Some(oidc)),
        Some(Configuration::Saml(_)) => Err(RequestError::Unimplemented(
            "identity_provider.saml: SAML is not implemented: use a provider that speaks OpenID Connect",
        )),
    }
}

pub(super) fn update(
    request: v1::UpdateIdentityProviderRequest,
) -> Result<Operation, RequestError> {
    let v1::UpdateIdentityProviderRequest { identity_provider, update_mask, .. } = request;
    let provider = required("identity_provider", identity_provider)?;
    let mut mask = Mask::parse(update_mask.as_ref(), &FIELDS)?;
    let oidc = oidc(provider.configuration)?;
    let replaces = match &mut mask {
        Mask::Set => false,
        Mask::All => true,
        Mask::Paths(paths) => {
            let replaces = paths.contains(&OIDC);
            if replaces {
                paths.extend(FIELDS.mutable.iter().filter(|path| path.starts_with("oidc.")));
            }
            replaces
        }
    };
    // A provider always has a configuration.
    if replaces && oidc.is_none() {
        return Err(RequestError::field("identity_provider.oidc", "missing"));
    }
    let v1::Oidc { issuer, client_id, audiences, jwks, groups_claim, algorithms } =
        oidc.unwrap_or_default();
    let is_set = (!issuer.is_empty(), !audiences.is_empty(), !algorithms.is_empty());
    let issuer = match mask.immutable("oidc.issuer", issuer.clone(), is_set.0) {
        // Whoever replaces the configuration and names an issuer means it.
        None if replaces && is_set.0 => Some(issuer),
        named => named,
    };
    let text = |path, text| mask.text(path, text).map(optional);
    Ok(Operation::UpdateIdentityProvider(UpdateIdentityProvider {
        id: path("identity_provider.id", &provider.id)?,
        update: IdentityProviderUpdate {
            name: mask.text("name", provider.name),
            description: mask.text("description", provider.description),
            issuer,
            client_id: mask.text("oidc.client_id", client_id),
            audiences: mask.of("oidc.audiences", audiences, is_set.1),
            jwks: text("oidc.jwks", jwks),
            groups_claim: text("oidc.groups_claim", groups_claim),
            algorithms: mask.of("oidc.algorithms", algorithms, is_set.2),
            default_role: text("default_role", provider.default_role)
                .map(|role| role.map(Into::into)),
        },
        etag: optional(provider.etag),
    }))
}

pub(super) fn delete(
    request: v1::DeleteIdentityProviderRequest,
) -> Result<Operation, RequestError> {
    let v1::DeleteIdentityProviderRequest { id, etag, .. } = request;
    Ok(Operation::DeleteIdentityProvider(deleted(&id, etag)?))
}

/// The issuer whose keys a provider will have by this operation, if the reader may make it do so.
///
/// # Errors
///
/// The store cannot be read.
pub(super) fn issuer_to_ask(
    reading: &Reading,
    viewer: &Viewer<'_>,
    operation: &Operation,
) -> Result<Option<String>, RequestError> {
    let Viewer::Actor(reader) = viewer else { return Ok(None) };
    let (capability, organization, issuer) = match operation {
        Operation::CreateIdentityProvider(one)
            if one.oidc.jwks.is_none() && one.oidc.check().is_ok() =>
        {
            ("identity_providers.create", one.parent.clone(), one.oidc.issuer.clone())
        }
        Operation::UpdateIdentityProvider(one) if one.update.jwks == Some(None) => {
            match reading.stored(Kind::IdentityProvider, one.id.as_path())? {
                Some(Object::IdentityProvider(found)) => {
                    let organization = found.organization().into();
                    ("identity_providers.update", organization, found.oidc.issuer)
                }
                _ => return Ok(None),
            }
        }
        _ => return Ok(None),
    };
    Ok(reader.holds(capability, organization.as_path()).then_some(issuer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider() -> v1::IdentityProvider {
        let oidc = v1::Oidc { client_id: "c".into(), jwks: "{}".into(), ..Default::default() };
        v1::IdentityProvider {
            id: "acme/okta".into(),
            configuration: Some(Configuration::Oidc(oidc)),
            ..Default::default()
        }
    }

    fn updated(
        provider: v1::IdentityProvider,
        paths: Option<&[&str]>,
    ) -> Result<IdentityProviderUpdate, RequestError> {
        let paths = paths.map(|paths| paths.iter().map(|path| (*path).to_owned()).collect());
        let request = v1::UpdateIdentityProviderRequest {
            identity_provider: Some(provider),
            update_mask: paths.map(|paths| prost_types::FieldMask { paths }),
            ..Default::default()
        };
        match update(request)? {
            Operation::UpdateIdentityProvider(one) => Ok(one.update),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_mask_is_of_the_configuration_or_of_its_fields() {
        let set = updated(provider(), None).unwrap();
        assert_eq!(
            set,
            IdentityProviderUpdate {
                client_id: Some("c".into()),
                jwks: Some(Some("{}".into())),
                ..Default::default()
            }
        );
        let one = updated(provider(), Some(&["oidc.groups_claim", "default_role"])).unwrap();
        assert_eq!(
            one,
            IdentityProviderUpdate {
                groups_claim: Some(None),
                default_role: Some(None),
                ..Default::default()
            }
        );
        let whole = IdentityProviderUpdate {
            audiences: Some(vec![]),
            groups_claim: Some(None),
            algorithms: Some(vec![]),
            ..set
        };
        assert_eq!(updated(provider(), Some(&["oidc"])).unwrap(), whole);
        let all = updated(provider(), Some(&["*"])).unwrap();
        let texts = (Some(String::new()), Some(String::new()), Some(None));
        let (name, description, default_role) = texts;
        assert_eq!(all, IdentityProviderUpdate { name, description, default_role, ..whole });
        let mut limited = provider();
        if let Some(Configuration::Oidc(oidc)) = &mut limited.configuration {
            oidc.algorithms = vec!["ES256".into()];
        }
        for paths in [None, Some(&["oidc"][..]), Some(&["*"]), Some(&["oidc.algorithms"])] {
            let update = updated(limited.clone(), paths).unwrap();
            assert_eq!(update.algorithms, Some(vec!["ES256".into()]), "{paths:?}");
        }
        assert_eq!(updated(limited, Some(&["name"])).unwrap().algorithms, None);
        // An issuer that is named is compared with what it is.
        let mut named = provider();
        if let Some(Configuration::Oidc(oidc)) = &mut named.configuration {
            oidc.issuer = "https://x".into();
        }
        for paths in [None, Some(&["oidc"][..]), Some(&["*"]), Some(&["oidc.issuer"])] {
            let update = updated(named.clone(), paths).unwrap();
            assert_eq!(update.issuer.as_deref(), Some("https://x"), "{paths:?}");
        }
        assert_eq!(updated(named, Some(&["name"])).unwrap().issuer, None);
    }

    #[test]
    fn there_is_always_a_configuration_and_never_saml() {
        let without = v1::IdentityProvider { configuration: None, ..provider() };
        for paths in [&["*"][..], &["oidc"]] {
            let refused = updated(without.clone(), Some(paths)).unwrap_err();
            assert_eq!(refused, RequestError::field("identity_provider.oidc", "missing"));
        }
        assert!(updated(without, Some(&["name"])).is_ok());
        let saml = Some(Configuration::Saml(v1::Saml {}));
        let saml = v1::IdentityProvider { configuration: saml, ..provider() };
        let refused = updated(saml.clone(), None).unwrap_err();
        assert!(matches!(refused, RequestError::Unimplemented(_)), "{refused}");
        let request = v1::CreateIdentityProviderRequest {
            parent: "acme".into(),
            identity_provider: Some(saml),
            ..Default::default()
        };
        assert!(matches!(create(request), Err(RequestError::Unimplemented(_))));
    }
}
