//! Requests of `IdentityService` to operations.

use capstan_iam::{
    Authentication, ClaimMatch, ClientCertificate, CreateIdentity, IdentityUpdate, Match,
    Operation, StaticKeys, UpdateIdentity, derived_identity_id,
};
use capstan_proto::iam::v1::claim_match::{AudienceMatch, IssuerMatch, SubjectMatch};
use capstan_proto::iam::v1::{self, identity};

use super::fields::{optional, optional_path, optional_timestamp, path, properties, required};
use super::group::deleted;
use super::mask::{Fields, Mask};
use crate::RequestError;

const FIELDS: Fields = Fields {
    mutable: &["name", "description", "properties", "disabled", AUTHENTICATION],
    immutable: &["type"],
};

/// Stands in a mask for the oneof. Its own names are taken for it, too.
const AUTHENTICATION: &str = "authentication";
const METHODS: [&str; 3] = ["claim_match", "static_keys", "client_certificate"];

pub(super) fn create(request: v1::CreateIdentityRequest) -> Result<Operation, RequestError> {
    let v1::CreateIdentityRequest { parent, identity, .. } = request;
    let identity = required("identity", identity)?;
    Ok(Operation::CreateIdentity(CreateIdentity {
        parent: optional_path("parent", &parent)?,
        id: optional_path("identity.id", &identity.id)?,
        name: identity.name,
        description: identity.description,
        kind: identity.r#type,
        properties: properties("identity.properties", identity.properties)?,
        disabled: identity.disabled,
        authentication: identity.authentication.map(authentication).transpose()?,
    }))
}

pub(super) fn update(request: v1::UpdateIdentityRequest) -> Result<Operation, RequestError> {
    let v1::UpdateIdentityRequest { identity, update_mask, .. } = request;
    let identity = required("identity", identity)?;
    let mask = update_mask.map(|mut mask| {
        for path in &mut mask.paths {
            if METHODS.contains(&&**path) {
                AUTHENTICATION.clone_into(path);
            }
        }
        mask
    });
    let mask = Mask::parse(mask.as_ref(), &FIELDS)?;
    let has_type = !identity.r#type.is_empty();
    let has_properties = !identity.properties.is_empty();
    let has_authentication = identity.authentication.is_some();
    let properties_set = mask.of("properties", identity.properties, has_properties);
    let proof = mask.of(AUTHENTICATION, identity.authentication, has_authentication);
    let update = IdentityUpdate {
        name: mask.text("name", identity.name),
        description: mask.text("description", identity.description),
        kind: mask.immutable("type", identity.r#type, has_type),
        properties: properties_set.map(|it| properties("identity.properties", it)).transpose()?,
        disabled: mask.of("disabled", identity.disabled, identity.disabled),
        authentication: proof.map(|it| it.map(authentication).transpose()).transpose()?,
    };
    let (id, etag) = (path("identity.id", &identity.id)?, optional(identity.etag));
    Ok(Operation::UpdateIdentity(UpdateIdentity { id, update, etag }))
}

pub(super) fn delete(request: v1::DeleteIdentityRequest) -> Result<Operation, RequestError> {
    let v1::DeleteIdentityRequest { id, etag, .. } = request;
    Ok(Operation::DeleteIdentity(deleted(&id, etag)?))
}

/// The id of a root identity, from issuer and subject. It depends on nothing else.
pub(super) fn lookup(
    request: &v1::LookupIdentityRequest,
) -> Result<v1::LookupIdentityResponse, RequestError> {
    let v1::LookupIdentityRequest { issuer, subject } = request;
    let id = derived_identity_id(issuer, subject);
    let id = id.map_err(|error| RequestError::field(&error.field, error.problem))?;
    Ok(v1::LookupIdentityResponse { id })
}

fn authentication(proof: identity::Authentication) -> Result<Authentication, RequestError> {
    match proof {
        identity::Authentication::ClaimMatch(claims) => {
            claim_match(claims).map(Authentication::ClaimMatch)
        }
        identity::Authentication::StaticKeys(keys) => {
            let v1::StaticKeys { issuer, subject, jwks, expires_at, audience } = keys;
            let expires_at = optional_timestamp("identity.static_keys.expires_at", expires_at)?;
            let audience = optional(audience);
            Ok(Authentication::StaticKeys(StaticKeys {
                issuer,
                subject,
                jwks,
                expires_at,
                audience,
            }))
        }
        identity::Authentication::ClientCertificate(certificate) => {
            client_certificate(certificate).map(Authentication::ClientCertificate)
        }
    }
}

/// # Errors
///
/// It has not exactly one name.
fn client_certificate(
    certificate: v1::ClientCertificate,
) -> Result<ClientCertificate, RequestError> {
    let v1::ClientCertificate { spiffe_id, dns_name } = certificate;
    let refused = |problem| Err(RequestError::field("identity.client_certificate", problem));
    match (&*spiffe_id, &*dns_name) {
        ("", "") => refused("neither spiffe_id nor dns_name is set: set one of them"),
        (_, "") => Ok(ClientCertificate::SpiffeId(spiffe_id)),
        ("", _) => Ok(ClientCertificate::DnsName(dns_name)),
        _ => refused("both spiffe_id and dns_name are set: set one of them"),
    }
}

fn claim_match(claims: v1::ClaimMatch) -> Result<ClaimMatch, RequestError> {
    let v1::ClaimMatch { issuer_match, subject_match, audience_match, claims, claim_patterns } =
        claims;
    let issuer = match required("identity.claim_match.issuer", issuer_match)? {
        IssuerMatch::Issuer(text) => Match::Exact(text),
        IssuerMatch::IssuerPattern(text) => Match::Pattern(text),
    };
    let subject = match required("identity.claim_match.subject", subject_match)? {
        SubjectMatch::Subject(text) => Match::Exact(text),
        SubjectMatch::SubjectPattern(text) => Match::Pattern(text),
    };
    let audience = audience_match.map(|audience| match audience {
        AudienceMatch::Audience(text) => Match::Exact(text),
        AudienceMatch::AudiencePattern(text) => Match::Pattern(text),
    });
    Ok(ClaimMatch {
        issuer,
        subject,
        audience,
        claims: claims.into_iter().collect(),
        claim_patterns: claim_patterns.into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that knows only the SPIFFE ID sends it as before.
    #[test]
    fn a_certificate_has_exactly_one_name() {
        let read = |spiffe_id: &str, dns_name: &str| {
            let (spiffe_id, dns_name) = (spiffe_id.to_owned(), dns_name.to_owned());
            client_certificate(v1::ClientCertificate { spiffe_id, dns_name })
        };
        let id = "spiffe://example.org/ci";
        assert_eq!(read(id, ""), Ok(ClientCertificate::SpiffeId(id.into())));
        assert_eq!(read("", "ci.example"), Ok(ClientCertificate::DnsName("ci.example".into())));
        let field = "identity.client_certificate";
        let neither = "neither spiffe_id nor dns_name is set: set one of them";
        assert_eq!(read("", ""), Err(RequestError::field(field, neither)));
        let both = "both spiffe_id and dns_name are set: set one of them";
        assert_eq!(read(id, "ci.example"), Err(RequestError::field(field, both)));
    }
}
