//! Records of how identities prove who they are.

use super::messages::*;
use super::{Problem, absent, decode_time, encode_time};
use crate::{Authentication, ClaimMatch, ClientCertificate, Match, StaticKeys};

pub(super) fn encode_authentication(authentication: &Authentication) -> AuthenticationRecord {
    let matched = |it: &Match| match it {
        Match::Exact(text) => MatchRecord { text: text.clone(), is_pattern: false },
        Match::Pattern(text) => MatchRecord { text: text.clone(), is_pattern: true },
    };
    match authentication {
        Authentication::ClaimMatch(it) => AuthenticationRecord::ClaimMatch(ClaimMatchRecord {
            issuer: Some(matched(&it.issuer)),
            subject: Some(matched(&it.subject)),
            audience: it.audience.as_ref().map(matched),
            claims: it.claims.clone(),
            claim_patterns: it.claim_patterns.clone(),
        }),
        Authentication::StaticKeys(it) => AuthenticationRecord::StaticKeys(StaticKeysRecord {
            issuer: it.issuer.clone(),
            subject: it.subject.clone(),
            jwks: it.jwks.clone(),
            expires_at: it.expires_at.map(encode_time),
            audience: it.audience.clone(),
        }),
        Authentication::ClientCertificate(it) => {
            let (spiffe_id, dns_name) = match it.clone() {
                ClientCertificate::SpiffeId(id) => (id, String::new()),
                ClientCertificate::DnsName(name) => (String::new(), name),
            };
            let record = ClientCertificateRecord { spiffe_id, dns_name };
            AuthenticationRecord::ClientCertificate(record)
        }
    }
}

/// # Errors
///
/// Something is absent, or a certificate has two names.
pub(super) fn decode_authentication(
    record: AuthenticationRecord,
) -> Result<Authentication, Problem> {
    Ok(match record {
        AuthenticationRecord::ClaimMatch(it) => {
            let matched = |it: MatchRecord| match it.is_pattern {
                false => Match::Exact(it.text),
                true => Match::Pattern(it.text),
            };
            Authentication::ClaimMatch(ClaimMatch {
                issuer: matched(it.issuer.ok_or_else(|| absent("issuer"))?),
                subject: matched(it.subject.ok_or_else(|| absent("subject"))?),
                audience: it.audience.map(matched),
                claims: it.claims,
                claim_patterns: it.claim_patterns,
            })
        }
        AuthenticationRecord::StaticKeys(it) => {
            let StaticKeysRecord { issuer, subject, jwks, expires_at, audience } = it;
            let expires_at = expires_at.map(decode_time);
            Authentication::StaticKeys(StaticKeys { issuer, subject, jwks, expires_at, audience })
        }
        AuthenticationRecord::ClientCertificate(it) => {
            let ClientCertificateRecord { spiffe_id, dns_name } = it;
            Authentication::ClientCertificate(match (&*spiffe_id, &*dns_name) {
                // Of a kind that a later version may have.
                ("", "") => return Err(absent("a name of a certificate")),
                (_, "") => ClientCertificate::SpiffeId(spiffe_id),
                ("", _) => ClientCertificate::DnsName(dns_name),
                _ => return Err(Problem("two names of a certificate".into())),
            })
        }
    })
}
